"""One numbering over shards, beside one shard with the same documents."""

import numpy as np

from bert_jax.data.corpus import store
from bert_jax.data.pretraining import index

LENGTHS = [[3, 1], [2], [4, 4, 1], [1], [5, 2]]


def shard_of(documents, first):
    """Documents of sentence lengths whose tokens count on from `first`."""
    lengths = [length for document in documents for length in document]
    tokens = np.arange(first, first + sum(lengths), dtype=np.uint16)
    return store.Shard(
        name="memory",
        tokens=tokens,
        sentence_offsets=np.cumsum([0, *lengths]).astype(np.int32),
        document_offsets=np.cumsum([0, *map(len, documents)]).astype(np.int32),
        sources=np.zeros(len(documents), np.uint16),
        word_start_bits=np.packbits(tokens % 3 == 0, bitorder="little"),
    )


def three_shards():
    # 6 + 10 + 7 tokens, 3 + 4 + 2 sentences.
    return index.CorpusIndex(
        [shard_of(LENGTHS[:2], 0), shard_of(LENGTHS[2:4], 6), shard_of(LENGTHS[4:], 16)]
    )


def test_numbers_count_on_from_shard_to_shard():
    numbers = three_shards()
    assert (numbers.num_documents, numbers.num_tokens) == (5, 23)
    assert numbers.first_sentence.tolist() == [0, 3, 7, 9]
    assert numbers.first_token.tolist() == [0, 6, 16, 23]
    assert numbers.document_starts.tolist() == [0, 2, 3, 6, 7, 9]
    assert numbers.document_tokens.tolist() == [0, 4, 6, 15, 16, 23]


def test_sentences_know_their_document_and_first_token():
    numbers = three_shards()
    sentences = np.array([8, 0, 5, 3, 7])
    assert numbers.document_of(sentences).tolist() == [4, 0, 2, 2, 4]
    assert numbers.tokens_before(sentences).tolist() == [21, 0, 14, 6, 16]
    pairs = np.array([[0, 9], [4, 2]])
    assert numbers.tokens_before(pairs).tolist() == [[0, 23], [10, 4]]


def test_the_first_sentence_from_a_token_on():
    numbers = three_shards()
    starts = [0, 3, 4, 6, 10, 14, 15, 16, 21, 23]
    wanted = [min(s for s, at in enumerate(starts) if at >= t) for t in range(24)]
    assert numbers.first_sentence_from(np.arange(24)).tolist() == wanted


def test_spans_are_read_across_shards():
    numbers = three_shards()
    ids, word_start = numbers.read(np.array([1, 4, 6, 20]), np.array([3, 1, 9, 3]))
    assert ids.tolist() == [1, 2, 3, 4, *range(6, 15), 20, 21, 22]
    assert word_start.tolist() == [i % 3 == 0 for i in ids.tolist()]
    assert (ids.dtype, word_start.dtype) == (np.int32, np.bool_)


def test_no_span_reads_nothing():
    ids, word_start = three_shards().read(np.zeros(0, int), np.zeros(0, int))
    assert ids.size == word_start.size == 0


def test_ranges_join_and_skip_the_empty():
    joined = index.ranges(np.array([7, 3, 0]), np.array([2, 0, 3]))
    assert joined.tolist() == [7, 8, 0, 1, 2]
