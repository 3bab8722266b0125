"""Tagged sentences as rows of a model: which pieces, and where the tokens stand."""

import bisect
import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from bert_jax import errors
from bert_jax.data.labeled import example_rows, examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import entities
from bert_jax.text.coverage import Coverage
from bert_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """The tokens of a sentence that have a piece, in order; k of n.

    Attributes:
      length: n, all tokens.
      tokens: their numbers.
      pieces: the first piece of each.
      ends: one behind the last token that the pieces of each reach into; the tokens
        between are covered.
    """

    length: int
    tokens: Int[np.ndarray, " k"]
    pieces: Int[np.ndarray, " k"]
    ends: Int[np.ndarray, " k"]

    @property
    def covered(self) -> int:
        """How many tokens share a piece with one before."""
        return int((self.ends - self.tokens - 1).sum())

    @property
    def dropped(self) -> int:
        """How many tokens no piece comes from."""
        return self.length - len(self.tokens) - self.covered

    def reduce(self, spans: Sequence[entities.Span]) -> list[entities.Span]:
        """Counts the ends of spans in tokens that have a piece; others are left out."""
        firsts = [int(np.searchsorted(self.tokens, start)) for _, start, _ in spans]
        lasts = [int(np.searchsorted(self.tokens, end)) for _, _, end in spans]
        moved = zip(spans, firsts, lasts, strict=True)
        return [(span[0], start, end) for span, start, end in moved if start < end]

    def expand(self, spans: Sequence[entities.Span]) -> list[entities.Span]:
        """Undoes `reduce`: with the tokens that are covered, or dropped inside."""
        return [
            (kind, int(self.tokens[start]), int(self.ends[end - 1]))
            for kind, start, end in spans
        ]


def align(
    text: str, tokens: Sequence[examples.Span], offsets: Sequence[examples.Span]
) -> Alignment:
    """Aligns the pieces of a text, by the characters they come from, with its tokens.

    >>> made = align("在2008年", [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6)],
    ...              [(0, 1), (1, 5), (5, 6)])
    >>> made.tokens, made.pieces, made.ends
    (array([0, 1, 4]), array([0, 1, 2]), array([1, 4, 5]))
    """
    begins = [start for start, _ in tokens]
    numbers: list[int] = []
    firsts: list[int] = []
    reaches: list[int] = []
    for piece, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():  # as in the piece "_the"
            start += 1
        token = bisect.bisect_right(begins, start) - 1
        if start == end or token < 0 or start >= tokens[token][1]:
            continue
        reach = bisect.bisect_left(begins, end)
        if numbers and numbers[-1] == token:
            reaches[-1] = max(reaches[-1], reach)
        else:
            numbers.append(token)
            firsts.append(piece)
            reaches.append(reach)
    return _alignment(len(tokens), numbers, firsts, reaches)


def _alignment(
    length: int, numbers: list[int], firsts: list[int], reaches: list[int]
) -> Alignment:
    kept = np.array(numbers, np.int64)
    until = np.append(kept[1:], length) if len(kept) else kept
    ends = np.clip(np.array(reaches, np.int64), kept + 1, until)
    return Alignment(length, kept, np.array(firsts, np.int64), ends)


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


def owners(
    pieces: Int[np.ndarray, " k"], cut: Sequence[tuple[int, int]]
) -> Int[np.ndarray, " k"]:
    """Returns the window in which each piece sees most on its poorer side.

    The ends of the sentence are not poor: nothing lies behind them.
    """
    first, last = cut[0][0], cut[-1][1]
    context = [
        np.where(
            (start <= pieces) & (pieces < end),
            np.minimum(
                np.inf if start == first else pieces - start,
                np.inf if end == last else end - 1 - pieces,
            ),
            -1.0,
        )
        for start, end in cut
    ]
    return np.argmax(np.stack(context), axis=0)


# Notes of a table.
COVERED = "tokens that share a piece with the token before"
DROPPED = "tokens that the tokenizer drops"

# The number of an example, a row that has tags of it, and where in that row: nowhere
# in particular, or at one of its predicates.
Place = tuple[int, int, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
    """A sentence in pieces, nothing cut."""

    ids: list[int]
    aligned: Alignment


@dataclasses.dataclass(eq=False)
class Rows:
    """Rows as they are made; `table` makes them one.

    Attributes:
      capacity: the most pieces of a sentence in a row.

    Raises:
      InputError: rows are too short for any piece.
    """

    tokenizer: Tokenizer
    max_seq_length: int
    tokens: dict[str, list[np.ndarray]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    fixed: dict[str, list] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    examples: list[int] = dataclasses.field(default_factory=list)
    notes: dict[str, int] = dataclasses.field(
        default_factory=lambda: {COVERED: 0, DROPPED: 0}
    )
    coverage: Coverage = dataclasses.field(default_factory=Coverage)

    def __post_init__(self) -> None:
        ids, _ = self.tokenizer.build([-1])
        self.capacity = self.max_seq_length - len(ids) + 1
        self.before = ids.index(-1)  # special pieces in front of a sentence
        if self.capacity < 1:
            raise errors.InputError(
                f"data.max_seq_length {self.max_seq_length} leaves no room for a token "
                f"beside {len(ids) - 1} special ones: raise it"
            )

    def encode(self, examples: Sequence[data_examples.TaggedExample]) -> list[Sentence]:
        """Cuts each sentence into pieces, the same one once, and counts what is odd."""
        whole = dict.fromkeys((x.text, x.tokens) for x in examples)
        texts = [text for text, _ in whole]
        result = self.tokenizer.encode_with_offsets(texts)
        self.coverage.texts += len(texts)
        self.coverage.add(texts, (ids for ids, _ in result), self.tokenizer.unk_id)
        found = {}
        for (text, tokens), (ids, offsets) in zip(whole, result, strict=True):
            aligned = align(text, tokens, offsets)
            found[text, tokens] = Sentence(ids, aligned)
            self.notes[COVERED] += aligned.covered
            self.notes[DROPPED] += aligned.dropped
        return [found[x.text, x.tokens] for x in examples]

    def add(
        self,
        number: int,
        sentence: Sentence,
        window: tuple[int, int],
        chosen: Int[np.ndarray, " t"],
    ) -> tuple[int, int]:
        """Adds a row of the pieces [first, last) of a sentence.

        Args:
          number: of the example.
          chosen: which of the sentence's aligned tokens are tagged in this row.

        Returns:
          How far pieces have moved from the sentence to the row, and the row's length.
        """
        first, last = window
        ids, types = self.tokenizer.build(sentence.ids[first:last])
        aligned, moved = sentence.aligned, self.before - first
        ones = np.ones(len(ids), np.int32)
        columns = {
            "input_ids": np.array(ids, np.int32),
            "token_type_ids": np.array(types, np.int32),
            "segment_ids": ones,
            "token_positions": filled(aligned.pieces[chosen] + moved, len(ids)),
            "token_numbers": filled(aligned.tokens[chosen], len(ids)),
            "token_ends": filled(aligned.ends[chosen], len(ids)),
        }
        for name, column in columns.items():
            self.tokens[name].append(column)
        self.fixed["opens"].append(first == 0)
        self.fixed["closes"].append(last == len(sentence.ids))
        self.examples.append(number)
        return moved, len(ids)

    def table(self) -> example_rows.ExampleTable:
        """Returns all rows."""
        fixed = {name: np.array(x, np.int32) for name, x in self.fixed.items()}
        numbers = np.array(self.examples, np.int64)
        return example_rows.ExampleTable(
            dict(self.tokens), fixed, numbers, self.notes, coverage=self.coverage
        )


def filled(values: Int[np.ndarray, "*Q t"], length: int) -> Int[np.ndarray, "*Q l"]:
    """Fills the last axis up with zeros, as int32.

    >>> filled(np.array([5, 6]), 4)
    array([5, 6, 0, 0], dtype=int32)
    """
    result = np.zeros((*values.shape[:-1], length), np.int32)
    result[..., : values.shape[-1]] = values
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """What was said of the tokens of an example that a row holds; k of n.

    Attributes:
      aligned: which tokens they are.
      tags: the label of each.
      probabilities: of that label.
    """

    aligned: Alignment
    tags: Int[np.ndarray, " k"]
    probabilities: Float[np.ndarray, " k"]


def gather(
    examples: Sequence[data_examples.TaggedExample],
    table: example_rows.ExampleTable,
    outputs: Mapping[str, Sequence[np.ndarray]],
    places: Iterable[Place],
) -> list[Said]:
    """Puts what the rows of each example say together, in the order of its tokens."""
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in examples]
    for number, row, slot in places:
        count = int(np.count_nonzero(table.tokens["token_weights"][row][slot]))
        of_row = (table.tokens[name][row] for name in _PLACES)
        said = (outputs[name][row][slot] for name in ("tags", "probabilities"))
        parts[number].append(tuple(x[:count] for x in (*of_row, *said)))
    return [
        _joined(len(example.tokens), rows)
        for example, rows in zip(examples, parts, strict=True)
    ]


_PLACES = ("token_numbers", "token_ends", "token_positions")


def _joined(length: int, rows: Sequence[tuple[np.ndarray, ...]]) -> Said:
    """Joins the rows of one example, which has a row even without any token."""
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    numbers, ends, places, tags, odds = (column[order] for column in columns)
    aligned = Alignment(length, *(x.astype(np.int64) for x in (numbers, places, ends)))
    return Said(aligned, tags, odds)
