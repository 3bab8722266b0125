"""Which spans of tokens make a row: sentence pairs and full sentences.

Pairs follow create_pretraining_data.py of google-research/bert (Devlin et al. 2018,
section 3.1 and appendix A.2) but for one thing. There, a chunk whose second part is
replaced by a random one gives its own second part back, and the next chunk begins with
it. Here chunks stay where they are, so that every epoch has the same number of rows and
any row can be made alone. The price is that in one epoch the second part of about half
of the chunks is not read; the next epoch splits and pairs them anew.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt64

from bert_jax.data.pretraining import index, permutation

# The draws of one row; the numbers are part of the format of a run.
SPLIT, NEXT, DOCUMENT, SENTENCE, FRONT_A, FRONT_B, DRAWS = range(7)


@dataclass(frozen=True)
class Rows:
    """Rows as spans of the store: span k copies tokens into row[k] from column[k] on.

    Every span is followed by [SEP]. `lengths` count the special tokens; from the
    column `second` on the token type is 1.
    """

    row: Int64[np.ndarray, " k"]
    column: Int64[np.ndarray, " k"]
    start: Int64[np.ndarray, " k"]
    length: Int64[np.ndarray, " k"]
    lengths: Int64[np.ndarray, " r"]
    second: Int64[np.ndarray, " r"]
    labels: Int32[np.ndarray, " r"]
    weights: Float32[np.ndarray, " r"]


# (documents, wanted tokens, draws) -> first token and end of a run of sentences outside
# of each document: `random_next` of a numbering, or `Continuations.draw`.
Draw = Callable[
    [Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], UInt64[np.ndarray, "draws n"]],
    tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]],
]


def sentence_pairs(
    numbering: index.Numbering,
    chunks: Int64[np.ndarray, "r 2"],
    documents: Int64[np.ndarray, " r"],
    targets: Int64[np.ndarray, " r"],
    capacity: int,
    keys: UInt64[np.ndarray, " r"],
    random_next: Draw,
) -> Rows:
    """Makes rows for next sentence prediction; label 1 is a random second part.

    The first part is one or more sentences from the beginning of the chunk. The second
    is the rest of the chunk or, in half of the rows and when there is no rest, a run
    of sentences of another document.

    Args:
      chunks: first sentence and end of each row's chunk.
      documents: the document of each chunk.
      targets: tokens that a pair with a random second part asks for.
      capacity: tokens that a row has at most.
      keys: one for each row.
      random_next: draws the random second parts.
    """
    draws = permutation.fold_in(keys, np.arange(DRAWS)[:, None])
    sentences = np.diff(chunks)[:, 0]
    split = chunks[:, 0] + _first_sentences(sentences, draws[SPLIT])
    borders = np.stack([chunks[:, 0], split, chunks[:, 1]])
    start_a, start_b, end_b = numbering.tokens_before(borders)
    length_a = start_b - start_a
    random = (sentences == 1) | (permutation.uniform(draws[NEXT]) < 0.5)
    chosen = np.flatnonzero(random)
    wanted = np.minimum(targets - length_a, capacity)
    start_b[chosen], end_b[chosen] = random_next(
        documents[chosen], wanted[chosen], draws[:, chosen]
    )
    lengths = np.stack([length_a, end_b - start_b])
    starts = np.stack([start_a, start_b])
    weights = np.ones(len(keys), np.float32)
    return _pairs(starts, lengths, capacity, draws, random, weights)


class Continuations:
    """Random second parts of exactly the length that is asked for.

    With them the length of a pair does not depend on whether its second part is the
    true one, so it is known for all epochs, and says nothing of the label.
    """

    def __init__(self, numbering: index.Numbering) -> None:
        """Sorts the documents by their length: 16 bytes for each."""
        self._numbering = numbering
        tokens = np.diff(numbering.document_tokens)
        self._by_length = np.argsort(tokens, kind="stable")
        self._lengths = tokens[self._by_length]

    @functools.cached_property
    def _ranks(self) -> Int64[np.ndarray, " documents"]:
        ranks = np.empty_like(self._by_length)
        ranks[self._by_length] = np.arange(len(ranks))
        return ranks

    def draw(
        self,
        documents: Int64[np.ndarray, " r"],
        wanted: Int64[np.ndarray, " r"],
        draws: UInt64[np.ndarray, "draws r"],
    ) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
        """Returns first token and end of runs outside of the given documents.

        Each other document that is long enough is as likely, and in it each sentence
        that so many tokens follow. The last sentence may be cut. If no other document
        is long enough, one of the two longest gives all it has.
        """
        count = len(self._lengths)
        first = np.searchsorted(self._lengths, wanted)
        first = np.minimum(first, count - 2)
        own = self._ranks[documents]
        others = count - first - (own >= first)
        rank = first + permutation.below(draws[DOCUMENT], others)
        rank += (own >= first) & (rank >= own)
        chosen = self._by_length[rank]
        numbering = self._numbering
        begin, end = (
            numbering.document_tokens[chosen],
            numbering.document_tokens[chosen + 1],
        )
        sentence = numbering.document_starts[chosen]
        last = np.maximum(end - wanted, begin)
        sentences = numbering.first_sentence_from(last + 1) - sentence
        sentence = sentence + permutation.below(draws[SENTENCE], sentences)
        start = numbering.tokens_before(sentence)
        return start, np.minimum(start + wanted, end)


def ordered_pairs(
    numbering: index.Numbering,
    chunks: Int64[np.ndarray, "r 2"],
    capacity: int,
    keys: UInt64[np.ndarray, " r"],
) -> Rows:
    """Makes rows for sentence order prediction; label 1 is a swapped pair.

    Both parts come from one chunk (Lan et al. 2019, arXiv:1909.11942, section 3.1). A
    chunk of one sentence is split between two of its tokens; one of a single token
    has no order, is a row without a second part and weighs nothing.
    """
    draws = permutation.fold_in(keys, np.arange(DRAWS)[:, None])
    split = chunks[:, 0] + _first_sentences(np.diff(chunks)[:, 0], draws[SPLIT])
    borders = np.stack([chunks[:, 0], split, chunks[:, 1]])
    start, middle, end = numbering.tokens_before(borders)
    alone = split == chunks[:, 1]
    inside = start + _first_sentences(end - start, draws[SENTENCE])
    middle = np.where(alone, inside, middle)
    whole = middle == end
    swapped = (permutation.uniform(draws[NEXT]) < 0.5) & ~whole
    lengths = np.stack([middle - start, end - middle])
    starts = np.stack([start, middle])
    starts[:, swapped], lengths[:, swapped] = (
        starts[::-1, swapped],
        lengths[::-1, swapped],
    )
    weights = (~whole).astype(np.float32)
    return _pairs(starts, lengths, capacity, draws, swapped, weights)


def full_sentences(
    document_tokens: Int64[np.ndarray, " documents_and_end"],
    bounds: Int64[np.ndarray, "r 2"],
) -> Rows:
    """Makes rows of sentences in a row, with [SEP] after each document in them.

    FULL-SENTENCES of Liu et al. 2019 (arXiv:1907.11692), section 4.2: nothing is
    predicted of the row, and all its token types are 0.

    Args:
      document_tokens: the first token of every document, and the end.
      bounds: first token and end of each row.
    """
    first = np.searchsorted(document_tokens, bounds[:, 0], side="right") - 1
    count = np.searchsorted(document_tokens, bounds[:, 1]) - first
    row = np.repeat(np.arange(len(bounds)), count)
    document = index.ranges(first, count)
    start = np.maximum(document_tokens[document], bounds[row, 0])
    end = np.minimum(document_tokens[document + 1], bounds[row, 1])
    column = 1 + start - bounds[row, 0] + document - first[row]
    lengths = 1 + bounds[:, 1] - bounds[:, 0] + count
    return Rows(
        row=row,
        column=column,
        start=start,
        length=end - start,
        lengths=lengths,
        second=lengths,
        labels=np.zeros(len(bounds), np.int32),
        weights=np.zeros(len(bounds), np.float32),
    )


def cut_lengths(
    lengths: Int64[np.ndarray, "2 r"], capacity: int
) -> Int64[np.ndarray, "2 r"]:
    """Returns what is left of two parts when the longer loses tokens until both fit.

    One token at a time, the second part's when both are equally long, as published:
    the longer shrinks until it fits or is as long as the other, then in turn.

    >>> cut_lengths(np.array([[9, 3, 9, 2], [3, 9, 9, 2]]), 7).tolist()
    [[4, 3, 4, 2], [3, 4, 3, 2]]
    """
    half = -(-capacity // 2)
    first = np.minimum(lengths[0], np.maximum(capacity - lengths[1], half))
    return np.stack([first, np.minimum(lengths[1], capacity - first)])


def lost_in_front(
    removed: Int64[np.ndarray, " n"], capacity: int, draws: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Returns how many of the tokens that a part loses are lost at its front.

    One coin for each, as published: exactly binomial, by counting random bits. A part
    that loses more than a row's worth is cut to a window that lies anywhere, each
    place as likely: coins would always keep its middle, and no epoch see the rest.
    """
    front = np.zeros_like(removed)
    by_coins = np.where(removed <= capacity, removed, 0)
    for word in range(-(-int(by_coins.max(initial=0)) // 64)):
        bits = np.clip(by_coins - 64 * word, 0, 64).astype(np.uint64)
        # Two shifts, as one by 64 is undefined.
        mask = ~(
            (~np.uint64(0) << (bits >> np.uint64(1))) << (bits - (bits >> np.uint64(1)))
        )
        front += np.bitwise_count(permutation.fold_in(draws, word) & mask)
    return np.where(removed <= capacity, front, permutation.below(draws, removed + 1))


def _first_sentences(
    count: Int64[np.ndarray, " n"], draws: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Returns how many of `count` things go first: 1 to all but one, or the one."""
    return 1 + permutation.below(draws, np.maximum(count - 1, 1))


def random_next(
    numbering: index.Numbering,
    documents: Int64[np.ndarray, " r"],
    wanted: Int64[np.ndarray, " r"],
    draws: UInt64[np.ndarray, "draws r"],
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Draws a run of sentences outside of the given documents, each as likely.

    It begins with any of the sentences of its document.

    Args:
      wanted: tokens the run shall have at least, if its document has them; one
        sentence is taken in any case.

    Returns:
      the first token and the end of each run.
    """
    others = permutation.below(draws[DOCUMENT], numbering.num_documents - 1)
    others += others >= documents
    first, last = (
        numbering.document_starts[others],
        numbering.document_starts[others + 1],
    )
    sentence = first + permutation.below(draws[SENTENCE], last - first)
    start = numbering.tokens_before(sentence)
    full = numbering.first_sentence_from(start + np.maximum(wanted, 1))
    return start, numbering.tokens_before(np.minimum(full, last))


def _pairs(
    starts: Int64[np.ndarray, "2 r"],
    lengths: Int64[np.ndarray, "2 r"],
    capacity: int,
    draws: UInt64[np.ndarray, "draws r"],
    labels: Bool[np.ndarray, " r"],
    weights: Float32[np.ndarray, " r"],
) -> Rows:
    """Cuts two parts to the capacity and lays them out as [CLS] A [SEP] B [SEP]."""
    kept = cut_lengths(lengths, capacity)
    front = [
        lost_in_front(lengths[part] - kept[part], capacity, draws[draw])
        for part, draw in ((0, FRONT_A), (1, FRONT_B))
    ]
    starts = starts + np.stack(front)
    second = kept[0] + 2
    rows = np.arange(len(second))
    pair = np.flatnonzero(kept[1])
    return Rows(
        row=np.concatenate([rows, pair]),
        column=np.concatenate([np.ones_like(second), second[pair]]),
        start=np.concatenate([starts[0], starts[1, pair]]),
        length=np.concatenate([kept[0], kept[1, pair]]),
        lengths=second + kept[1] + (kept[1] > 0),
        second=second,
        labels=labels.astype(np.int32),
        weights=weights,
    )
