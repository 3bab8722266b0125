"""Which pieces of the vocabulary are whose: from the tokens of a file to those of BERT.

A sentence is cut into pieces as a whole, as in pretraining. A piece belongs to the
token in which its first character lies; the first piece of a token speaks for it
(arXiv:1810.04805, section 5.3). Some tokens have none: a piece that began in the token
before covers them ("2008" over four characters), or the vocabulary's normalisation
drops them (U+FE0F).
"""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from bert_jax.data.labeled import examples
from bert_jax.metrics import entities


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
