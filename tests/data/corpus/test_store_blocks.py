"""Documents of ids as flat arrays: taken apart and put together."""

import numpy as np
import pytest

from bert_jax.data.corpus import store


def block_of(documents, sources=None):
    flat = [token for d in documents for s in d for token in s]
    return store.Block(
        tokens=np.array(flat, np.uint16),
        word_starts=np.array(flat) % 2 == 1,
        sentence_lengths=np.array([len(s) for d in documents for s in d], np.int64),
        document_lengths=np.array([len(d) for d in documents], np.int64),
        sources=np.array(sources or range(len(documents)), np.uint16),
    )


def documents_of(block):
    sentences = np.split(block.tokens, np.cumsum(block.sentence_lengths))[:-1]
    edges = np.cumsum([0, *block.document_lengths])
    nested = [
        [sentence.tolist() for sentence in sentences[a:b]]
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    assert block.word_starts.tolist() == [token % 2 == 1 for token in block.tokens]
    return nested


DOCUMENTS = [[[1, 2, 3], [4]], [[5]], [[6], [7, 8], [9, 10, 11]], [[12, 13]]]


def test_tokens_of_documents_are_counted():
    assert block_of(DOCUMENTS).document_tokens().tolist() == [4, 1, 6, 2]


@pytest.mark.parametrize(
    "mask, left", [([1, 0, 1, 0], [0, 2]), ([1, 1, 1, 1], [0, 1, 2, 3]), ([0] * 4, [])]
)
def test_documents_are_selected_by_a_mask(mask, left):
    chosen = block_of(DOCUMENTS).select(np.array(mask, bool))
    assert documents_of(chosen) == [DOCUMENTS[i] for i in left]
    assert chosen.sources.tolist() == left


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_block_is_cut_and_joined(count):
    first, rest = block_of(DOCUMENTS).cut(count)
    assert documents_of(first) == DOCUMENTS[:count]
    assert documents_of(rest) == DOCUMENTS[count:]
    assert documents_of(store.concatenate([first, rest])) == DOCUMENTS


@pytest.mark.parametrize("size, bytes_each", [(1, 2), (65536, 2), (65537, 4)])
def test_the_narrowest_type_that_holds_every_id(size, bytes_each):
    assert store.token_dtype(size).itemsize == bytes_each
