"""Questions and their contexts as rows: a long context is cut into windows.

As in google-research/bert, `run_squad.py`: a row is [CLS] question [SEP] window [SEP],
and the next window begins `doc_stride` tokens further on, or with `doc_overlap` so that
the two share that many tokens (`stride` of Hugging Face's tokenizers). A window that
does not hold the whole answer is labelled with [CLS], position 0, as are all those of a
question without an answer.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from bert_jax import errors
from bert_jax.data.labeled import examples as data_examples
from bert_jax.data.labeled import labelled_rows
from bert_jax.text import coverage as coverages
from bert_jax.text import tokenizer as tokenizers

QUESTIONS_CUT = "questions cut"
EMPTY = "questions without a token"
SEVERAL = "contexts in several windows"
MOVED = "answers whose ends move to those of tokens"
TOO_LONG = "answers of more tokens than are ever given"
IN_NO_WINDOW = "answers that no window holds"
WITHOUT_TOKEN = "answers without a token, left out of training"
_OF_QUESTIONS = (QUESTIONS_CUT, EMPTY, SEVERAL)
_OF_ANSWERS = (MOVED, TOO_LONG, IN_NO_WINDOW, WITHOUT_TOKEN)


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """The tokens of a context, and the characters [start, end) of each.

    White space at the ends of a token is not of it; a token of nothing else, whose
    start is its end, neither begins nor ends an answer.
    """

    ids: list[int]
    starts: Int[np.ndarray, " n"]
    ends: Int[np.ndarray, " n"]

    def covering(self, start: int, end: int) -> tuple[int, int] | None:
        """Returns the first and last token of characters [start, end), if any."""
        found = np.flatnonzero(
            (self.starts < end) & (self.ends > start) & (self.starts < self.ends)
        )
        return (int(found[0]), int(found[-1])) if len(found) else None


@dataclasses.dataclass(frozen=True)
class Windows:
    """How questions become rows.

    Attributes:
      max_seq_length: the most tokens in a row.
      doc_stride: tokens by which one window begins behind the other.
      max_query_length: tokens of a question that are kept.
      max_answer_length: tokens of the longest answer that is ever given; longer ones
        are counted.
      doc_overlap: tokens that two windows share; 0 leaves it to `doc_stride`.
    """

    tokenizer: tokenizers.Tokenizer
    max_seq_length: int
    doc_stride: int
    max_query_length: int
    max_answer_length: int
    doc_overlap: int = 0

    def table(
        self, examples: Sequence[data_examples.QuestionExample]
    ) -> labelled_rows.Table:
        """Makes rows; the first answer of the annotators is the label.

        Token columns besides the usual three: `char_starts` and `char_ends`, the
        characters of the context, equal outside of it. Fixed columns:
        `start_positions` and `end_positions` [n] int32, in the row, and
        `label_weights` [n] float32, 0 where nothing is said of the answer.

        Raises:
          InputError: a context has no token, or rows are too short for it.
        """
        texts = [example.question for example in examples]
        questions = self.tokenizer.encode(texts)
        contexts = pieces_of(self.tokenizer, [example.context for example in examples])
        rows = _Rows()
        rows.coverage.texts = len(texts)
        rows.coverage.add(texts, questions, self.tokenizer.unk_id)
        ids = (context.ids for context in contexts.values())
        rows.coverage.add(contexts, ids, self.tokenizer.unk_id)
        for at, example in enumerate(examples):
            context = contexts[example.context]
            _check(example, context)
            question = questions[at][: self.max_query_length]
            rows.notes[EMPTY] += not question
            rows.notes[QUESTIONS_CUT] += len(question) < len(questions[at])
            self._add(rows, at, example, question, context)
        rows.coverage.cut = rows.notes[QUESTIONS_CUT]
        return rows.table()

    def _add(
        self,
        rows: "_Rows",
        at: int,
        example: data_examples.QuestionExample,
        question: list[int],
        context: Pieces,
    ) -> None:
        """Adds the rows of one example."""
        room = self.max_seq_length - len(self.tokenizer.build(question, [])[0])
        if room < 1:
            raise errors.SettingError(
                f"{example.where}: rows of {self.max_seq_length} tokens leave no room "
                f"for the context behind a question of {len(question)}",
                "raise data.max_seq_length",
            )
        place = self.tokenizer.build(question, [-1])[0].index(-1)
        answer, weight = _label(example, context, rows.notes)
        if answer:
            rows.notes[TOO_LONG] += answer[1] - answer[0] >= self.max_answer_length
        held = False
        cuts = cut(len(context.ids), room, self._step(room))
        for first, last in cuts:
            ids, types = self.tokenizer.build(question, context.ids[first:last])
            label = (0, 0, weight)
            if answer and first <= answer[0] and answer[1] < last:
                behind = place - first
                label = (behind + answer[0], behind + answer[1], weight)
                held = True
            rows.examples.append(at)
            rows.labels.append(label)
            rows.add_tokens(ids, types, place, context, first, last)
        rows.notes[SEVERAL] += len(cuts) > 1
        rows.notes[IN_NO_WINDOW] += answer is not None and not held

    def _step(self, room: int) -> int:
        """Returns by how many tokens a window of `room` tokens begins after another.

        Where a question leaves no more room than windows should share, they share half.
        """
        if not self.doc_overlap:
            return self.doc_stride
        shared = self.doc_overlap if self.doc_overlap < room else room // 2
        return room - shared


class _Rows:
    """Rows as they are made."""

    def __init__(self) -> None:
        names = ("input_ids", "token_type_ids", "segment_ids")
        names += ("char_starts", "char_ends")
        self.tokens: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self.examples: list[int] = []
        self.labels: list[tuple[int, int, float]] = []
        kinds = (*_OF_QUESTIONS, *_OF_ANSWERS)
        self.notes: dict[str, int] = dict.fromkeys(kinds, 0)
        self.coverage = coverages.Coverage()

    def add_tokens(
        self,
        ids: list[int],
        types: list[int],
        place: int,
        context: Pieces,
        first: int,
        last: int,
    ) -> None:
        """Adds a row whose tokens from `place` on are [first, last) of a context."""
        columns = [np.array(ids), np.array(types), np.ones(len(ids))]
        for source in (context.starts, context.ends):
            column = np.zeros(len(ids))
            column[place : place + last - first] = source[first:last]
            columns.append(column)
        for name, column in zip(self.tokens, columns, strict=True):
            self.tokens[name].append(column.astype(np.int32))

    def table(self) -> labelled_rows.Table:
        """Returns all rows."""
        labels = np.array(self.labels, np.float64).reshape(-1, 3)
        fixed = {
            "start_positions": labels[:, 0].astype(np.int32),
            "end_positions": labels[:, 1].astype(np.int32),
            "label_weights": labels[:, 2].astype(np.float32),
        }
        examples = np.array(self.examples, np.int64)
        return labelled_rows.Table(
            self.tokens, fixed, examples, self.notes, coverage=self.coverage
        )


def pieces_of(
    tokenizer: tokenizers.Tokenizer, contexts: Sequence[str]
) -> dict[str, Pieces]:
    """Tokenises contexts, each once."""
    texts = list(dict.fromkeys(contexts))
    made = {}
    for text, (ids, offsets) in zip(
        texts, tokenizer.encode_with_offsets(texts), strict=True
    ):
        bounds = np.array([_stripped(text, *pair) for pair in offsets], np.int64)
        bounds = bounds.reshape(-1, 2)
        made[text] = Pieces(ids, bounds[:, 0], bounds[:, 1])
    return made


def cut(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Returns the windows [first, last) over tokens; none is left out.

    >>> cut(10, 4, 3)
    [(0, 4), (3, 7), (6, 10)]
    >>> cut(5, 4, 9)
    [(0, 4), (4, 5)]
    """
    step = min(room, stride)
    firsts = range(0, max(length - room, 0) + step, step)
    return [(first, min(first + room, length)) for first in firsts]


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns the bounds of a part of a text without white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _check(example: data_examples.QuestionExample, context: Pieces) -> None:
    if not (context.starts < context.ends).any():
        raise errors.InputError(
            f"{example.where}: the context {example.context[:40]!r} has no token of "
            "the vocabulary: remove its questions"
        )


def _label(
    example: data_examples.QuestionExample,
    context: Pieces,
    notes: dict[str, int],
) -> tuple[tuple[int, int] | None, float]:
    """Returns the first and last token of the answer, if any, and its weight."""
    if not example.answers:
        return None, float(example.labelled)
    answer = example.answers[0]
    end = answer.start + len(answer.text)
    start, end = _stripped(example.context, answer.start, end)
    found = context.covering(start, end)
    if found is None:
        notes[WITHOUT_TOKEN] += 1
        return None, 0.0
    exact = context.starts[found[0]] == start and context.ends[found[1]] == end
    notes[MOVED] += not exact
    return found, 1.0
