"""Labeled examples as the readers give them and the tasks take them.

Every example knows where it stands (`file:line` or record), so that whatever is wrong
with it later can still be named. Offsets count characters of the text as it is.
"""

import dataclasses
from collections.abc import Sequence

Span = tuple[int, int]  # characters [start, end)


@dataclasses.dataclass(frozen=True)
class TextExample:
    """One text, or two, with a label: classification, regression, matching.

    Attributes:
      where: `file:line`, or the record.
      id: as the publisher numbers it, or the number of the example from 0.
      text: the first text.
      text_pair: the second, or None.
      labels: none where it is to be predicted, one, or several (multi-label); the
        spelling of the file.
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
      id: as above.
      text: the sentence; of columns, the tokens joined (by a space, or by nothing
        between Chinese characters).
      tokens: where each token stands in `text`.
      tags: one a token, or None where they are to be predicted.
      predicate: index of the token whose roles the tags are, or None.
      sense: of that predicate, as `come.03`, or empty.
      lines: of the file, one a token; empty where a record is not one token a line.
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
        """Returns `file:line` of a token, or of the sentence where that is all."""
        path, colon, _ = self.where.rpartition(":")
        return f"{path}{colon}{self.lines[token]}" if self.lines else self.where

    def named(self, token: int) -> str:
        """Returns the number and the text of a token, for messages."""
        start, end = self.tokens[token]
        return f"token {token + 1} ({self.text[start:end]!r})"


@dataclasses.dataclass(frozen=True)
class Answer:
    """A stretch of a context: its text, and the character it starts at."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class QuestionExample:
    """A question to be answered by a stretch of its context.

    Attributes:
      answers: those of the annotators; empty where there is none (`impossible`) or
        where it is to be predicted.
      impossible: whether the context has no answer.
      labeled: whether the file says what the answer is, or that there is none.
      gold: where not all answers are in the context word for word, the text of every
        one: scores are taken with all of them.
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
    """A context and its possible continuations, of which one is right.

    Attributes:
      choices: what is scored as second text, beside the context as the first.
      label: index of the right one, or None.
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
    QuestionExample: {
        "answers": (),
        "gold": (),
        "impossible": False,
        "labeled": False,
    },
    ChoiceExample: {"label": None},
}


def unlabeled(example: Example) -> Example:
    """Returns the example as it is before anybody has said what is right."""
    return dataclasses.replace(example, **_UNLABELED[type(example)])
