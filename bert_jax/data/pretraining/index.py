"""Global numbers of documents, sentences and tokens, and the table of rows.

Shards stay memory-mapped; `CorpusIndex` holds eight bytes per document. Lookups are
grouped by shard, one gather each, so that a batch from a hundred shards costs little
more than one from a single shard.

The table of rows is computed once per store and length. Sentences are added in order
until a row is full. As the end of a row depends only on its beginning, the ends are
found for all sentences of a shard at once (a search in the cumulative token counts),
and one walk then follows the rows from beginning to beginning.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64

from bert_jax.data.corpus import store as stores
from bert_jax.data.pretraining import permutation


class CorpusIndex:
    """Global numbers from 0 in the order of the shards.

    Attributes:
      shards: the store's shards.
      first_sentence, first_token: [shards + 1], the first number of each shard.
      document_starts: [documents + 1], the number of each document's first sentence.
    """

    def __init__(self, shards: Sequence[stores.Shard]) -> None:
        self.shards = shards
        self.first_sentence = _starts([shard.num_sentences for shard in shards])
        self.first_token = _starts([shard.num_tokens for shard in shards])
        parts = [
            shard.document_offsets[:-1].astype(np.int64) + first
            for shard, first in zip(shards, self.first_sentence, strict=False)
        ]
        self.document_starts = np.concatenate([*parts, self.first_sentence[-1:]])

    @property
    def num_documents(self) -> int:
        """The number of documents."""
        return len(self.document_starts) - 1

    @property
    def num_tokens(self) -> int:
        """The number of tokens."""
        return int(self.first_token[-1])

    @functools.cached_property
    def document_tokens(self) -> Int64[np.ndarray, " documents_and_end"]:
        """The first token of every document, and the end."""
        return self.tokens_before(self.document_starts)

    def document_of(
        self, sentences: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Returns the document of each sentence."""
        return np.searchsorted(self.document_starts, sentences, side="right") - 1

    def tokens_before(
        self, sentences: Int64[np.ndarray, "..."]
    ) -> Int64[np.ndarray, "..."]:
        """Returns each sentence's first token; one past the last gives the total."""
        flat = sentences.ravel()
        tokens = np.empty_like(flat)
        for number, members in _groups(self.first_sentence, flat):
            local = flat[members] - self.first_sentence[number]
            offsets = self.shards[number].sentence_offsets
            tokens[members] = offsets[local] + self.first_token[number]
        return tokens.reshape(sentences.shape)

    def first_sentence_from(
        self, tokens: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Returns the first sentence that begins at or after each token."""
        sentences = np.empty_like(tokens)
        for number, members in _groups(self.first_token, tokens):
            offsets = self.shards[number].sentence_offsets
            # The offsets' own type: another would copy all of them for each search.
            local = (tokens[members] - self.first_token[number]).clip(0, offsets[-1])
            found = np.searchsorted(offsets, local.astype(offsets.dtype))
            sentences[members] = found + self.first_sentence[number]
        return sentences

    def read(
        self, starts: Int64[np.ndarray, " k"], lengths: Int64[np.ndarray, " k"]
    ) -> tuple[Int32[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
        """Returns the tokens of spans, joined, and whether each starts a word.

        Args:
          starts: token numbers in ascending order, so that each shard is read once.
          lengths: tokens; no span leaves its shard.
        """
        positions = ranges(starts, lengths)
        ids = np.empty(len(positions), np.int32)
        word_start = np.empty(len(positions), bool)
        edges = np.append(0, np.cumsum(lengths))
        edges = edges[np.searchsorted(starts, self.first_token)]
        for number in np.flatnonzero(np.diff(edges)).tolist():
            part = slice(edges[number], edges[number + 1])
            local = positions[part] - self.first_token[number]
            ids[part] = self.shards[number].tokens[local]
            word_start[part] = self.shards[number].word_start(local)
        return ids, word_start


def ranges(
    starts: Int64[np.ndarray, " k"], lengths: Int64[np.ndarray, " k"]
) -> Int64[np.ndarray, " t"]:
    """Returns the numbers start, start + 1, ... of every range, joined.

    >>> ranges(np.array([5, 20]), np.array([3, 2])).tolist()
    [5, 6, 7, 20, 21]
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def _starts(lengths: Sequence[int]) -> Int64[np.ndarray, " n"]:
    """Returns the first number of each of several consecutive ranges."""
    return np.append(0, np.cumsum(lengths, dtype=np.int64))


def _groups(
    firsts: Int64[np.ndarray, " shards_and_end"], numbers: Int64[np.ndarray, " n"]
) -> Iterator[tuple[int, Int64[np.ndarray, " m"]]]:
    """Yields each shard that has some of the numbers, and the indices of those."""
    shards = np.searchsorted(firsts[1:-1], numbers, side="right")
    order = np.argsort(shards, kind="stable")
    edges = np.searchsorted(shards[order], np.arange(len(firsts)))
    for number in np.flatnonzero(np.diff(edges)).tolist():
        yield number, order[edges[number] : edges[number + 1]]


SPECIALS_OF_PAIR = 3  # [CLS] A [SEP] B [SEP]
SPECIALS_OF_ROW = 2  # [CLS] sentences [SEP]
BLOCK = 1 << 20  # sentences at a time: 40 MB of temporary arrays


def target_lengths(
    documents: Int64[np.ndarray, " n"],
    capacity: int,
    short_seq_prob: float,
    key: permutation.Integers,
) -> Int64[np.ndarray, " n"]:
    """Returns the target chunk length of each document, as published.

    It is the capacity or, for a fraction `short_seq_prob` of the documents, uniform
    from 2 to the capacity. It is sampled once per document and is the same in every
    epoch, because the number of chunks depends on it.
    """
    bits = permutation.fold_in(key, documents)
    short = permutation.uniform(bits) < short_seq_prob
    lengths = 2 + permutation.below(permutation.fold_in(bits, 1), capacity - 1)
    return np.where(short, lengths, capacity)


def sentence_chunks(
    numbering: CorpusIndex,
    targets_of: Callable[[np.ndarray], np.ndarray],
) -> Int64[np.ndarray, " chunks_and_end"]:
    """Returns the first sentence of each chunk of the pair objectives.

    A chunk is the shortest run of whole sentences of one document that reaches the
    document's target length, or the rest of the document. Every sentence is in one
    chunk.

    Args:
      targets_of: returns the target lengths of documents, as `target_lengths` does.
    """
    tables = []
    first_document = 0
    for shard, first in zip(numbering.shards, numbering.first_sentence, strict=False):
        documents = np.arange(first_document, first_document + shard.num_documents)
        tables.append(_shard_chunks(shard, targets_of(documents)) + first)
        first_document += shard.num_documents
    return np.concatenate([*tables, numbering.first_sentence[-1:]])


def _shard_chunks(
    shard: stores.Shard, targets: Int64[np.ndarray, " documents"]
) -> Int64[np.ndarray, " chunks"]:
    """Returns the first sentence of each chunk of one shard, in its own numbers."""
    offsets = shard.sentence_offsets
    parts, position = [], 0
    for first in range(0, shard.num_sentences, BLOCK):
        sentences = np.arange(first, min(first + BLOCK, shard.num_sentences))
        document = np.searchsorted(shard.document_offsets, sentences, "right") - 1
        full = offsets[sentences] + targets[document]
        # The offsets' own type: another would copy all of them for the search.
        full = np.minimum(full, offsets[-1]).astype(offsets.dtype)
        end = np.searchsorted(offsets, full)
        end = np.minimum(end, shard.document_offsets[document + 1])
        part, position = _walk(end, first, position)
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def token_rows(
    numbering: CorpusIndex,
    capacity: int,
    weights: tuple[float, ...],
) -> Int64[np.ndarray, " rows_and_end"]:
    """Returns the first token of each row of full sentences.

    A row takes whole sentences while they fit, with one separator between documents. A
    sentence longer than a row is split every `capacity` tokens; the rest counts as a
    sentence. Rows end with their shard and where the weight of the documents changes.
    Every token is in one row.

    Args:
      capacity: tokens and separators between documents.
      weights: the weight of each source; `Shard.sources` are indices into it.
    """
    tables = [
        _shard_rows(shard, capacity, np.array(weights)[shard.sources]) + first
        for shard, first in zip(numbering.shards, numbering.first_token, strict=False)
    ]
    return np.concatenate([*tables, numbering.first_token[-1:]])


def document_pieces(
    numbering: CorpusIndex, capacity: int
) -> Int64[np.ndarray, " pieces_and_end"]:
    """Returns the first token of each piece: `capacity` tokens of a document, or less.

    The last piece of a document has the rest. Every token is in one piece.
    """
    return _split_long(numbering.document_tokens, capacity)


def _shard_rows(
    shard: stores.Shard, capacity: int, weights: np.ndarray
) -> Int64[np.ndarray, " rows"]:
    """Returns the first token of each row of one shard, in its own numbers."""
    starts = _split_long(shard.sentence_offsets.astype(np.int64), capacity)
    document_tokens = shard.sentence_offsets[shard.document_offsets]
    document = np.searchsorted(document_tokens, starts[:-1], side="right") - 1
    # Positions up to the end of each sentence, counting separators.
    positions = starts[1:] + document
    end = np.searchsorted(positions, starts[:-1] + document + capacity, side="right")
    changes = document_tokens[1:-1][np.diff(weights) != 0]
    borders = np.searchsorted(starts, np.append(changes, starts[-1]))
    following = np.searchsorted(borders, np.arange(len(end)), side="right")
    end = np.minimum(end, borders[following])
    return starts[_walk(end, 0, 0)[0]]


def _split_long(
    offsets: Int64[np.ndarray, " n"], longest: int
) -> Int64[np.ndarray, " m"]:
    """Returns the offsets with additional cuts in sentences that are too long.

    >>> _split_long(np.array([0, 2, 9, 12]), 3).tolist()
    [0, 2, 5, 8, 9, 12]
    """
    pieces = -(-np.diff(offsets) // longest)
    before = np.cumsum(pieces) - pieces
    number = np.arange(int(pieces.sum())) - np.repeat(before, pieces)
    return np.append(np.repeat(offsets[:-1], pieces) + number * longest, offsets[-1])


def _walk(
    end: Int64[np.ndarray, " n"], first: int, position: int
) -> tuple[Int64[np.ndarray, " rows"], int]:
    """Follows rows through the sentences first, first + 1, ...

    Args:
      end: the end of a row that begins at each sentence.
      position: the beginning of the first row.

    Returns:
      the first sentences of the rows, and the beginning of the next row.
    """
    ends, stop, starts = end.data, first + len(end), []
    while position < stop:
        starts.append(position)
        position = ends[position - first]
    return np.array(starts, np.int64), position
