"""Labeled examples: what the readers return and the tasks receive.

Every example knows its location (`file:line` or record), so that later errors can name
it. Offsets count characters of the original text.
"""

import dataclasses
from collections.abc import Sequence

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
