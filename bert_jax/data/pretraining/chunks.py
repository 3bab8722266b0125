"""Where rows begin: the tables that are made once per store and length.

Sentences are taken in order until a row is full. As the end of a row depends on its
beginning alone, the end is found for all sentences of a shard at once (a search in the
cumulative token counts), and then one walk follows the rows from end to beginning.
Memory: eight bytes per row, and per shard, or block of it, some arrays that are freed.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from bert_jax.data.corpus import store as stores
from bert_jax.data.pretraining import numbering as numberings
from bert_jax.data.pretraining import permutation

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
    numbering: numberings.Numbering,
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
    numbering: numberings.Numbering,
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
    numbering: numberings.Numbering, capacity: int
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
