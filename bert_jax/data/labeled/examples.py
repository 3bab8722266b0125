"""Labeled examples, as the readers return and the tasks receive them, and requests.

`ExampleForm` is how the examples of a task are written, `ExampleRequest` a file and how
to read it. Every example knows its location (`file:line` or record), so that later
errors can name it. Offsets count characters of the original text.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import text_files

Span = tuple[int, int]  # characters [start, end)


@dataclasses.dataclass(frozen=True)
class TextExample:
    """One text, or two, with a label: classification, regression, matching.

    Attributes:
      where: `file:line`, or the record.
      id: the id in the file, or the number of the example from 0.
      text: the first text.
      text_pair: the second text, or None.
      labels: None if it is to be predicted, one label, or several (multi-label), as
        spelled in the file.
      score: the number of a regression, or None.
    """

    where: str
    id: str
    text: str
    text_pair: str | None = None
    labels: tuple[str, ...] | None = None
    score: float | None = None


@dataclasses.dataclass(frozen=True)
class TaggedExample:
    """A sentence whose tokens have tags: entities, parts of speech, roles.

    Attributes:
      where: `file:line` of its first token.
      id: the id in the file, or its number.
      text: the sentence; of columns, the tokens joined (by a space, or by nothing
        between Chinese characters).
      tokens: the span of each token in `text`.
      tags: one per token, or None if they are to be predicted.
      predicate: index of the token whose roles the tags are, or None.
      sense: the sense of that predicate, as `come.03`, or empty.
      lines: the line of each token; empty if the file does not have one token per line.
    """

    where: str
    id: str
    text: str
    tokens: tuple[Span, ...]
    tags: tuple[str, ...] | None = None
    predicate: int | None = None
    sense: str = ""
    lines: Sequence[int] = dataclasses.field(default=(), repr=False, compare=False)

    def where_of(self, token: int) -> str:
        """Returns `file:line` of a token, or of the sentence if unknown."""
        path, colon, _ = self.where.rpartition(":")
        return f"{path}{colon}{self.lines[token]}" if self.lines else self.where

    def named(self, token: int) -> str:
        """Returns the number and the text of a token, for messages."""
        start, end = self.tokens[token]
        return f"token {token + 1} ({self.text[start:end]!r})"


@dataclasses.dataclass(frozen=True)
class Answer:
    """A span of a context: its text and its first character."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class QuestionExample:
    """A question answered by a span of its context.

    Attributes:
      answers: the annotators' answers; empty if there is none (`impossible`) or if it
        is to be predicted.
      impossible: whether the context has no answer.
      labeled: whether the file has the answer, or states that there is none.
      gold: the text of every answer if some are not in the context word for word; all
        of them count in scores.
    """

    where: str
    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    impossible: bool = False
    labeled: bool = True
    title: str = ""
    gold: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ChoiceExample:
    """A context and its possible continuations, one of them correct.

    Attributes:
      choices: each is scored as second text, with the context as the first.
      label: index of the correct choice, or None.
    """

    where: str
    id: str
    context: str
    choices: tuple[str, ...]
    label: int | None = None


Example = TextExample | TaggedExample | QuestionExample | ChoiceExample


_UNLABELED = {
    TextExample: {"labels": None, "score": None},
    TaggedExample: {"tags": None},
    QuestionExample: {"answers": (), "gold": (), "impossible": False, "labeled": False},
    ChoiceExample: {"label": None},
}


def unlabeled(example: Example) -> Example:
    """Returns the example without its labels."""
    return dataclasses.replace(example, **_UNLABELED[type(example)])


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
        return issubclass(self.example, TextExample)

    @property
    def is_choice(self) -> bool:
        """Whether an example is a choice of texts."""
        return issubclass(self.example, ChoiceExample)

    @property
    def is_question(self) -> bool:
        """Whether an example is a question about a context."""
        return issubclass(self.example, QuestionExample)

    @property
    def has_tags(self) -> bool:
        """Whether an example is a sentence with tags, not those of a predicate."""
        is_tagged = issubclass(self.example, TaggedExample)
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
