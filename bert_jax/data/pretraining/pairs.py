"""Sentence pairs and full sentences as spans of tokens.

Pairs follow create_pretraining_data.py of google-research/bert (Devlin et al. 2018,
section 3.1 and appendix A.2) with one exception. There, a chunk whose second part is
replaced by a random one returns it, and the next chunk begins with it. Here chunks are
fixed, so that every epoch has the same number of rows and any row can be computed by
itself. The price: in one epoch the second part of about half of the chunks is not read;
the next epoch splits and pairs the chunks differently.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt64

from bert_jax.data.pretraining import permutation
from bert_jax.data.pretraining.index import CorpusIndex, ranges

# Random streams of one row; the numbers are part of the format of a run.
SPLIT, NEXT, DOCUMENT, SENTENCE, FRONT_A, FRONT_B, NUM_STREAMS = range(7)


@dataclass(frozen=True)
class PairSpans:
    """Rows as spans of the store: span k is copied to row[k], starting at column[k].

    [SEP] follows every span. `lengths` include the special tokens; the token type is 1
    from column `second` on.
    """

    row: Int64[np.ndarray, " k"]
    column: Int64[np.ndarray, " k"]
    start: Int64[np.ndarray, " k"]
    length: Int64[np.ndarray, " k"]
    lengths: Int64[np.ndarray, " r"]
    second: Int64[np.ndarray, " r"]
    labels: Int32[np.ndarray, " r"]
    weights: Float32[np.ndarray, " r"]


# (documents, wanted tokens, random bits) -> first token and end of a run of sentences
# outside of each document: `random_next` of an index, or `Continuations.sample`.
SampleNext = Callable[
    [Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], UInt64[np.ndarray, "streams n"]],
    tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]],
]


def sentence_pairs(
    index: CorpusIndex,
    chunks: Int64[np.ndarray, "r 2"],
    documents: Int64[np.ndarray, " r"],
    targets: Int64[np.ndarray, " r"],
    capacity: int,
    keys: UInt64[np.ndarray, " r"],
    random_next: SampleNext,
) -> PairSpans:
    """Returns rows for next sentence prediction; label 1 is a random second part.

    The first part is one or more sentences from the beginning of the chunk. The second
    is the rest of the chunk or, in half of the rows and where there is no rest, a run
    of sentences of another document.

    Args:
      chunks: first sentence and end of each row's chunk.
      documents: the document of each chunk.
      targets: the wanted length of a pair with a random second part, in tokens.
      capacity: the maximum number of tokens in a row.
      keys: one per row.
      random_next: samples the random second parts.
    """
    bits = permutation.fold_in(keys, np.arange(NUM_STREAMS)[:, None])
    sentences = np.diff(chunks)[:, 0]
    split = chunks[:, 0] + _first_sentences(sentences, bits[SPLIT])
    borders = np.stack([chunks[:, 0], split, chunks[:, 1]])
    start_a, start_b, end_b = index.tokens_before(borders)
    length_a = start_b - start_a
    random = (sentences == 1) | (permutation.uniform(bits[NEXT]) < 0.5)
    chosen = np.flatnonzero(random)
    wanted = np.minimum(targets - length_a, capacity)
    start_b[chosen], end_b[chosen] = random_next(
        documents[chosen], wanted[chosen], bits[:, chosen]
    )
    lengths = np.stack([length_a, end_b - start_b])
    starts = np.stack([start_a, start_b])
    weights = np.ones(len(keys), np.float32)
    return _pairs(starts, lengths, capacity, bits, random, weights)


class Continuations:
    """Random second parts of exactly the wanted length.

    With them the length of a pair does not depend on whether its second part is the
    true one, so it is known for all epochs and does not reveal the label.
    """

    def __init__(self, index: CorpusIndex) -> None:
        """Sorts the documents by length: 16 bytes each."""
        self._numbering = index
        tokens = np.diff(index.document_tokens)
        self._by_length = np.argsort(tokens, kind="stable")
        self._lengths = tokens[self._by_length]

    @functools.cached_property
    def _ranks(self) -> Int64[np.ndarray, " documents"]:
        ranks = np.empty_like(self._by_length)
        ranks[self._by_length] = np.arange(len(ranks))
        return ranks

    def sample(
        self,
        documents: Int64[np.ndarray, " r"],
        wanted: Int64[np.ndarray, " r"],
        bits: UInt64[np.ndarray, "streams r"],
    ) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
        """Returns first token and end of runs outside of the given documents.

        All other documents that are long enough are equally likely, and so are the
        sentences that enough tokens follow. The last sentence may be truncated. If no
        other document is long enough, one of the two longest is used whole.
        """
        count = len(self._lengths)
        first = np.searchsorted(self._lengths, wanted)
        first = np.minimum(first, count - 2)
        own = self._ranks[documents]
        others = count - first - (own >= first)
        rank = first + permutation.below(bits[DOCUMENT], others)
        rank += (own >= first) & (rank >= own)
        chosen = self._by_length[rank]
        index = self._numbering
        begin, end = (
            index.document_tokens[chosen],
            index.document_tokens[chosen + 1],
        )
        sentence = index.document_starts[chosen]
        last = np.maximum(end - wanted, begin)
        sentences = index.first_sentence_from(last + 1) - sentence
        sentence = sentence + permutation.below(bits[SENTENCE], sentences)
        start = index.tokens_before(sentence)
        return start, np.minimum(start + wanted, end)


def ordered_pairs(
    index: CorpusIndex,
    chunks: Int64[np.ndarray, "r 2"],
    capacity: int,
    keys: UInt64[np.ndarray, " r"],
) -> PairSpans:
    """Returns rows for sentence order prediction; label 1 is a swapped pair.

    Both parts come from one chunk (Lan et al. 2019, arXiv:1909.11942, section 3.1). A
    chunk of one sentence is split between two of its tokens; one of a single token
    becomes a row without a second part and with weight 0.
    """
    bits = permutation.fold_in(keys, np.arange(NUM_STREAMS)[:, None])
    split = chunks[:, 0] + _first_sentences(np.diff(chunks)[:, 0], bits[SPLIT])
    borders = np.stack([chunks[:, 0], split, chunks[:, 1]])
    start, middle, end = index.tokens_before(borders)
    is_single = split == chunks[:, 1]
    inside = start + _first_sentences(end - start, bits[SENTENCE])
    middle = np.where(is_single, inside, middle)
    whole = middle == end
    swapped = (permutation.uniform(bits[NEXT]) < 0.5) & ~whole
    lengths = np.stack([middle - start, end - middle])
    starts = np.stack([start, middle])
    starts[:, swapped], lengths[:, swapped] = (
        starts[::-1, swapped],
        lengths[::-1, swapped],
    )
    weights = (~whole).astype(np.float32)
    return _pairs(starts, lengths, capacity, bits, swapped, weights)


def full_sentences(
    document_tokens: Int64[np.ndarray, " documents_and_end"],
    bounds: Int64[np.ndarray, "r 2"],
) -> PairSpans:
    """Returns rows of consecutive sentences, with [SEP] after each document.

    FULL-SENTENCES of Liu et al. 2019 (arXiv:1907.11692), section 4.2: rows have no
    label, and all token types are 0.

    Args:
      document_tokens: the first token of every document, and the end.
      bounds: first token and end of each row.
    """
    first = np.searchsorted(document_tokens, bounds[:, 0], side="right") - 1
    count = np.searchsorted(document_tokens, bounds[:, 1]) - first
    row = np.repeat(np.arange(len(bounds)), count)
    document = ranges(first, count)
    start = np.maximum(document_tokens[document], bounds[row, 0])
    end = np.minimum(document_tokens[document + 1], bounds[row, 1])
    column = 1 + start - bounds[row, 0] + document - first[row]
    lengths = 1 + bounds[:, 1] - bounds[:, 0] + count
    return PairSpans(
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
    """Returns the lengths of two parts after truncating the longer until both fit.

    As published, one token at a time is removed from the longer part, or from the
    second where they are equal.

    >>> cut_lengths(np.array([[9, 3, 9, 2], [3, 9, 9, 2]]), 7).tolist()
    [[4, 3, 4, 2], [3, 4, 3, 2]]
    """
    half = -(-capacity // 2)
    first = np.minimum(lengths[0], np.maximum(capacity - lengths[1], half))
    return np.stack([first, np.minimum(lengths[1], capacity - first)])


def lost_in_front(
    removed: Int64[np.ndarray, " n"], capacity: int, bits: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Returns how many of the tokens that a part loses are removed at its front.

    One coin flip per token, as published: exactly binomial, by counting random bits. A
    part that loses more than a row is cut to a window at a uniform position: coin flips
    would always keep its middle, and no epoch would show the rest.
    """
    front = np.zeros_like(removed)
    by_coins = np.where(removed <= capacity, removed, 0)
    for word in range(-(-int(by_coins.max(initial=0)) // 64)):
        coins = np.clip(by_coins - 64 * word, 0, 64).astype(np.uint64)
        # Two shifts, as one by 64 is undefined.
        mask = ~(
            (~np.uint64(0) << (coins >> np.uint64(1)))
            << (coins - (coins >> np.uint64(1)))
        )
        front += np.bitwise_count(permutation.fold_in(bits, word) & mask)
    return np.where(removed <= capacity, front, permutation.below(bits, removed + 1))


def _first_sentences(
    count: Int64[np.ndarray, " n"], bits: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Returns a uniform number from 1 to `count` - 1, or 1 if the count is 1."""
    return 1 + permutation.below(bits, np.maximum(count - 1, 1))


def random_next(
    index: CorpusIndex,
    documents: Int64[np.ndarray, " r"],
    wanted: Int64[np.ndarray, " r"],
    bits: UInt64[np.ndarray, "streams r"],
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Samples a run of sentences from another document than each of these.

    All other documents are equally likely, and so are the first sentences in one.

    Args:
      wanted: the minimum length of the run in tokens, if its document has them; it has
        at least one sentence.

    Returns:
      the first token and the end of each run.
    """
    others = permutation.below(bits[DOCUMENT], index.num_documents - 1)
    others += others >= documents
    first, last = (
        index.document_starts[others],
        index.document_starts[others + 1],
    )
    sentence = first + permutation.below(bits[SENTENCE], last - first)
    start = index.tokens_before(sentence)
    full = index.first_sentence_from(start + np.maximum(wanted, 1))
    return start, index.tokens_before(np.minimum(full, last))


def _pairs(
    starts: Int64[np.ndarray, "2 r"],
    lengths: Int64[np.ndarray, "2 r"],
    capacity: int,
    bits: UInt64[np.ndarray, "streams r"],
    labels: Bool[np.ndarray, " r"],
    weights: Float32[np.ndarray, " r"],
) -> PairSpans:
    """Truncates two parts to the capacity and lays out [CLS] A [SEP] B [SEP]."""
    kept = cut_lengths(lengths, capacity)
    front = [
        lost_in_front(lengths[part] - kept[part], capacity, bits[stream])
        for part, stream in ((0, FRONT_A), (1, FRONT_B))
    ]
    starts = starts + np.stack(front)
    second = kept[0] + 2
    rows = np.arange(len(second))
    pair = np.flatnonzero(kept[1])
    return PairSpans(
        row=np.concatenate([rows, pair]),
        column=np.concatenate([np.ones_like(second), second[pair]]),
        start=np.concatenate([starts[0], starts[1, pair]]),
        length=np.concatenate([kept[0], kept[1, pair]]),
        lengths=second + kept[1] + (kept[1] > 0),
        second=second,
        labels=labels.astype(np.int32),
        weights=weights,
    )
