"""One numbering of documents, sentences and tokens over all shards of a store.

Shards stay mapped from their files; in memory are eight bytes per document. A number
is looked up by grouping what is asked for by shard, one gather for each, so that a
batch from a hundred shards costs little more than one from a single shard.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64

from bert_jax.data.corpus import store as stores
from bert_jax.data.pretraining import permutation


class Numbering:
    """Global numbers from 0 in the order of the shards.

    Attributes:
      shards: the store's.
      first_sentence, first_token: [shards + 1], where each shard's numbers begin.
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
        """Returns each sentence's first token; one past the last gives the count."""
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
        """Returns the tokens of spans and where words start in them, joined.

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
    """Returns where each of several ranges begins when they follow each other."""
    return np.append(0, np.cumsum(lengths, dtype=np.int64))


def _groups(
    firsts: Int64[np.ndarray, " shards_and_end"], numbers: Int64[np.ndarray, " n"]
) -> Iterator[tuple[int, Int64[np.ndarray, " m"]]]:
    """Yields each shard that holds some of the numbers, and which of them it holds."""
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
    """Returns how many tokens fill a chunk of each document, as published.

    The capacity, or for a share `short_seq_prob` of the documents a length drawn
    evenly from 2 to the capacity. It is drawn once for a document and stays in every
    epoch, because the number of chunks depends on it.
    """
    draws = permutation.fold_in(key, documents)
    short = permutation.uniform(draws) < short_seq_prob
    lengths = 2 + permutation.below(permutation.fold_in(draws, 1), capacity - 1)
    return np.where(short, lengths, capacity)


def sentence_chunks(
    numbering: Numbering,
    targets_of: Callable[[np.ndarray], np.ndarray],
) -> Int64[np.ndarray, " chunks_and_end"]:
    """Returns the first sentence of each chunk of the pair objectives.

    A chunk is the shortest run of whole sentences of one document that has at least
    the document's target length, or what is left of the document. Chunks cover every
    sentence once.

    Args:
      targets_of: the target lengths of documents, see `target_lengths`.
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
    numbering: Numbering,
    capacity: int,
    weights: tuple[float, ...],
) -> Int64[np.ndarray, " rows_and_end"]:
    """Returns the first token of each row of full sentences.

    A row takes whole sentences while they fit, with one place more between two
    documents. A sentence longer than a row is split every `capacity` tokens; the rest
    goes on as a sentence. Rows end with their shard and where the weight of the
    documents changes, and cover every token once.

    Args:
      capacity: tokens and separators between documents.
      weights: of the sources, in the order of `Shard.sources`.
    """
    tables = [
        _shard_rows(shard, capacity, np.array(weights)[shard.sources]) + first
        for shard, first in zip(numbering.shards, numbering.first_token, strict=False)
    ]
    return np.concatenate([*tables, numbering.first_token[-1:]])


def document_pieces(
    numbering: Numbering, capacity: int
) -> Int64[np.ndarray, " pieces_and_end"]:
    """Returns the first token of each piece: `capacity` tokens of a document, or less.

    The last piece of a document has what is left. Pieces cover every token once.
    """
    return _split_long(numbering.document_tokens, capacity)


def _shard_rows(
    shard: stores.Shard, capacity: int, weights: np.ndarray
) -> Int64[np.ndarray, " rows"]:
    """Returns the first token of each row of one shard, in its own numbers."""
    starts = _split_long(shard.sentence_offsets.astype(np.int64), capacity)
    document_tokens = shard.sentence_offsets[shard.document_offsets]
    document = np.searchsorted(document_tokens, starts[:-1], side="right") - 1
    # Places up to the end of a sentence, less those up to the beginning of the row.
    places = starts[1:] + document
    end = np.searchsorted(places, starts[:-1] + document + capacity, side="right")
    changes = document_tokens[1:-1][np.diff(weights) != 0]
    borders = np.searchsorted(starts, np.append(changes, starts[-1]))
    following = np.searchsorted(borders, np.arange(len(end)), side="right")
    end = np.minimum(end, borders[following])
    return starts[_walk(end, 0, 0)[0]]


def _split_long(
    offsets: Int64[np.ndarray, " n"], longest: int
) -> Int64[np.ndarray, " m"]:
    """Returns the offsets with cuts in sentences that are too long.

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
    """Follows rows from end to beginning through the sentences first, first + 1, ...

    Args:
      end: where a row that begins at each sentence ends.
      position: where the first row begins.

    Returns:
      the first sentences of the rows, and the position beyond these sentences.
    """
    ends, stop, starts = end.data, first + len(end), []
    while position < stop:
        starts.append(position)
        position = ends[position - first]
    return np.array(starts, np.int64), position
