"""Requests for labeled examples: a file, and how to read its columns.

Columns without a given name are guessed from common names (GLUE, CLUE, SICK, SWAG,
RACE ...); if that fails, the error lists the columns of the file.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled import examples

# The formats of tables: a record has the parts of an example by name.
TABLES = ("tsv", "csv", "jsonl", "parquet", "xlsx", "tfds")
NONE = "none"  # names no column, so that none is guessed


@dataclasses.dataclass(frozen=True)
class ExampleForm:
    """How the examples of a task are written in files, in Python, and as arguments.

    Attributes:
      task: the name of the task.
      example: the class of its examples.
      formats: the formats of its files.
      parts: the parts of an example without its label, in the order of a tuple.
      read: (records of a table, request, notes) -> examples.
      optional: the parts that may be left out.
      targets: the columns of a table that have the label: `label`, `score`, or both.
      needs_target: whether labeled data must have one of them.
      written: how a labeled example is written in Python, for messages.
      has_predicates: whether tags belong to a predicate of their sentence.
    """

    task: str
    example: type
    formats: tuple[str, ...]
    parts: tuple[str, ...]
    read: Callable[[Iterator[Any], Any, Counter[str]], Iterator[Any]]
    optional: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("label",)
    needs_target: bool = True
    written: str = ""
    has_predicates: bool = False

    @property
    def is_text(self) -> bool:
        """Whether an example is a text or a pair of texts."""
        return issubclass(self.example, examples.TextExample)

    @property
    def is_choice(self) -> bool:
        """Whether an example is a choice of texts."""
        return issubclass(self.example, examples.ChoiceExample)

    @property
    def is_question(self) -> bool:
        """Whether an example is a question about a context."""
        return issubclass(self.example, examples.QuestionExample)

    @property
    def has_tags(self) -> bool:
        """Whether an example is a sentence with tags, not those of a predicate."""
        is_tagged = issubclass(self.example, examples.TaggedExample)
        return is_tagged and not self.has_predicates

    @property
    def required(self) -> tuple[str, ...]:
        """The parts that may not be left out."""
        return tuple(part for part in self.parts if part not in self.optional)


@dataclasses.dataclass(frozen=True)
class ColumnNames:
    """The columns of an example.

    Each is a name of the header (or a key of the JSON objects), or a number from 1,
    or from the end if it is negative; "" is guessed, "none" is no column. A text pair
    is guessed only where the text is.

    Attributes:
      id: of the example.
      text: the first text; the context of a multiple choice.
      text_pair: the second text; of a multiple choice, what every choice begins with.
      label: of classification, matching and multiple choice; of matching it is guessed
        only where there is no score. With `multi_label` it may name one column a
        label, with commas or +, whose cells are 0 and 1.
      score: the number of a regression, or of matching.
      choices: one column a choice, or one list of them.
      token: of CoNLL and CoNLL-U; guessed: 1 and 2.
      tag: of CoNLL and CoNLL-U; guessed: -1 and 4 (the universal part of speech).
      predicate: of CoNLL-U: the column of the senses, before those of the roles.
    """

    id: str = ""
    text: str = ""
    text_pair: str = ""
    label: str = ""
    score: str = ""
    choices: tuple[str, ...] = ()
    token: str = ""
    tag: str = ""
    predicate: str = ""


@dataclasses.dataclass(frozen=True)
class ExampleRequest:
    """A file and how to read it.

    Attributes:
      path: a file, also compressed by gzip or bzip2, or `tfds:name[split]`,
        `hf:owner/name[split]`, or `package:name[split]`.
      form: how the examples of the task are written.
      format: a format of `form`, or `auto`: found by the name, then the content.
      header: whether the first line of a table has the names: `true`, `false`, `auto`.
      columns: the columns of its parts.
      multi_label: the separator of the labels of a cell, as "|"; "true" where they are
        lists, also as a text, or `columns.label` names several columns. "" for one
        label.
      skip_labels: examples with these labels are left out and counted, as "-" in
        natural language inference, where the annotators did not agree.
      strip_digit: tokens of CoNLL end in one digit more, which is taken off (Weibo
        NER, where it is the position of the character in its word).
      repair: repairs and counts what otherwise is an error: misplaced answers,
        duplicate ids, overlapping entities, empty questions. Where labels are needed,
        broken records are
        left out: see `left_out`.
      is_scored: whether the examples are scored, and not learned from: then it does not
        matter where in its context an answer is, or that it is not there.
      skips: leaves broken records out and counts them also where labels are not
        needed; otherwise each record is to be answered, a text that is empty too.
      is_corpus: whether the file is a corpus, which has no settings of examples that
        messages could advise.
      needs_labels: whether an example without a label is an error. In matching it is
        none, but `read` wants all of them with a label or a score, or none.
    """

    path: str | Path
    form: ExampleForm
    format: str = "auto"
    header: str = "auto"
    columns: ColumnNames = ColumnNames()
    multi_label: str = ""
    skip_labels: tuple[str, ...] = ()
    strip_digit: bool = False
    repair: bool = False
    needs_labels: bool = True
    skips: bool = False
    is_scored: bool = False
    is_corpus: bool = False

    @property
    def leaves_out(self) -> bool:
        """Whether broken records are left out: never where each is to be answered."""
        return self.skips or (self.repair and self.needs_labels)

    @property
    def faults(self) -> text_files.Faults:
        """What is done with NUL characters and bytes that are not UTF-8."""
        if self.leaves_out:
            return text_files.Faults.KEEP
        return text_files.Faults.REFUSE if self.is_corpus else text_files.Faults.OFFER

    @property
    def takes_empty(self) -> bool:
        """Whether a text may be empty, since every record is to be answered."""
        return not self.needs_labels and not self.skips

    def __post_init__(self) -> None:
        """Raises InputError for an unknown format."""
        formats = ("auto", *self.form.formats)
        if self.format not in formats:
            raise errors.InputError(
                f"{errors.setting('data.format')} is {self.format!r}: use one of "
                f"{', '.join(formats)} for {self.form.task}"
            )


def column_number(column: str, count: int, what: str, where: str) -> int:
    """Returns the index from 0 of a column given by its number.

    Raises InputError unless it is a number, and one of `count` columns.

    >>> column_number("-1", 4, "tag", "f:1"), column_number("1", 4, "token", "f:1")
    (3, 0)
    """
    number = int(column) if re.fullmatch(r"-?\d{1,6}", column) else 0
    if number and -count <= number <= count:
        return number - 1 if number > 0 else count + number
    raise errors.InputError(
        f"{where}: there is no column {column!r} for "
        f"{errors.setting(f'data.columns.{what}')}; columns are "
        f"numbered 1 to {count}, or from the end -1 to -{count}"
    )
