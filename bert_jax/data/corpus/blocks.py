"""Documents of ids as flat arrays: what tokenising a chunk of text gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt, UInt16


@dataclass(frozen=True, eq=False)
class Block:
    """Documents as flat arrays: lengths count tokens and sentences."""

    tokens: UInt[np.ndarray, " tokens"]
    word_starts: Bool[np.ndarray, " tokens"]
    sentence_lengths: Int64[np.ndarray, " sentences"]
    document_lengths: Int64[np.ndarray, " documents"]
    sources: UInt16[np.ndarray, " documents"]

    def document_tokens(self) -> Int64[np.ndarray, " documents"]:
        """Returns the number of tokens of every document."""
        ends = np.cumsum(self.sentence_lengths)[np.cumsum(self.document_lengths) - 1]
        return np.diff(ends, prepend=0)

    def select(self, documents: Bool[np.ndarray, " documents"]) -> "Block":
        """Returns the block of the documents for which the mask is true."""
        if documents.all():
            return self
        tokens = np.repeat(documents, self.document_tokens())
        return Block(
            tokens=self.tokens[tokens],
            word_starts=self.word_starts[tokens],
            sentence_lengths=self.sentence_lengths[
                np.repeat(documents, self.document_lengths)
            ],
            document_lengths=self.document_lengths[documents],
            sources=self.sources[documents],
        )

    def cut(self, documents: int) -> tuple["Block", "Block"]:
        """Returns the first documents and the others."""
        sentences = int(self.document_lengths[:documents].sum())
        tokens = int(self.sentence_lengths[:sentences].sum())
        at = (tokens, tokens, sentences, documents, documents)
        parts = [np.split(a, [i]) for a, i in zip(self._arrays(), at, strict=True)]
        return Block(*(p[0] for p in parts)), Block(*(p[1] for p in parts))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return (
            self.tokens,
            self.word_starts,
            self.sentence_lengths,
            self.document_lengths,
            self.sources,
        )


def concatenate(blocks: Sequence[Block]) -> Block:
    """Returns the documents of several blocks as one."""
    return Block(*map(np.concatenate, zip(*(b._arrays() for b in blocks), strict=True)))


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the narrowest type of the store that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
