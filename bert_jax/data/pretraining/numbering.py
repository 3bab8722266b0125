"""One numbering of documents, sentences and tokens over all shards of a store.

Shards stay mapped from their files; in memory are eight bytes per document. A number
is looked up by grouping what is asked for by shard, one gather for each, so that a
batch from a hundred shards costs little more than one from a single shard.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64

from bert_jax.data.corpus import store as stores


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
