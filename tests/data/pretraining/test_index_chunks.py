"""Where rows begin, beside plain loops over sentences."""

import numpy as np
import pytest

from bert_jax.data.corpus import store
from bert_jax.data.pretraining import index, permutation


def shard_of(documents, sources=None):
    """A shard in memory whose documents are lists of sentence lengths."""
    lengths = [length for document in documents for length in document]
    return store.Shard(
        name="memory",
        tokens=np.arange(sum(lengths), dtype=np.uint16),
        sentence_offsets=np.cumsum([0, *lengths]).astype(np.int32),
        document_offsets=np.cumsum([0, *map(len, documents)]).astype(np.int32),
        sources=np.array(sources or [0] * len(documents), np.uint16),
        word_start_bits=np.full(sum(lengths) // 8 + 1, 255, np.uint8),
    )


def random_documents(seed, count, longest=9):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(1, longest, rng.integers(1, 30)).tolist() for _ in range(count)
    ]


def chunks_by_loop(documents, targets):
    """The published loop: add sentences until the target or the document's end."""
    starts, sentence = [], 0
    for document, target in zip(documents, targets, strict=True):
        length = 0
        for number, tokens in enumerate(document):
            if length == 0:
                starts.append(sentence)
            length += tokens
            sentence += 1
            if length >= target or number == len(document) - 1:
                length = 0
    return [*starts, sentence]


def rows_by_loop(documents, capacity, weights):
    """Fills rows sentence by sentence, splitting what is longer than a row."""
    starts, token, used = [], 0, capacity
    for number, document in enumerate(documents):
        new = number > 0 and weights[number] != weights[number - 1]
        used = capacity if new else used + 1
        for sentence in document:
            while sentence:
                piece = min(sentence, capacity)
                if used + piece > capacity:
                    starts.append(token)
                    used = 0
                used += piece
                token += piece
                sentence -= piece
    return [*starts, token]


def test_chunks_of_a_store_one_can_check_by_eye():
    documents = [[3, 4, 2, 6, 1], [9], [2, 2], [1, 1, 1, 1, 1, 1, 1]]
    table = index.sentence_chunks(
        index.CorpusIndex([shard_of(documents)]), lambda d: np.full(len(d), 5)
    )
    # 3+4 | 2+6 | 1 | 9 | 2+2 | 1+1+1+1+1 | 1+1
    assert table.tolist() == [0, 2, 4, 5, 6, 8, 13, 15]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_chunks_equal_the_published_loop(monkeypatch, block):
    monkeypatch.setattr(index, "BLOCK", block)
    documents = random_documents(0, 37)
    targets = np.random.default_rng(1).integers(2, 40, 37)
    shards = [
        shard_of(documents[:5]),
        shard_of(documents[5:6]),
        shard_of(documents[6:]),
    ]
    table = index.sentence_chunks(index.CorpusIndex(shards), lambda d: targets[d])
    assert table.dtype == np.int64
    assert table.tolist() == chunks_by_loop(documents, targets)


def test_a_document_longer_than_a_block_keeps_its_chunks(monkeypatch):
    monkeypatch.setattr(index, "BLOCK", 3)
    documents = [[1] * 20]
    table = index.sentence_chunks(
        index.CorpusIndex([shard_of(documents)]), lambda d: np.full(len(d), 8)
    )
    assert table.tolist() == [0, 8, 16, 20]


def test_target_lengths_are_short_as_often_as_asked():
    documents = np.arange(20_000)
    lengths = index.target_lengths(documents, 61, 0.1, permutation.key_of(5))
    # A short one is 61 too in one of 60 draws: 0.1 * 59 / 60 = 0.0983 are not.
    assert abs((lengths < 61).mean() - 0.0983) < 5 * np.sqrt(0.09 / 20_000)
    short = lengths[lengths < 61]
    assert short.min() == 2 and short.max() == 60
    assert abs(short.mean() - 31) < 5 * 17.3 / np.sqrt(len(short))
    other = index.target_lengths(documents, 61, 0.1, permutation.key_of(6))
    assert (lengths != other).any()


@pytest.mark.parametrize("probability, lowest", [(0.0, 9), (1.0, 2)])
def test_target_lengths_at_the_ends_of_the_range(probability, lowest):
    lengths = index.target_lengths(
        np.arange(300), 9, probability, permutation.key_of(1)
    )
    assert lengths.min() == lowest and lengths.max() == 9


def test_rows_of_a_store_one_can_check_by_eye():
    documents = [[3, 4], [2, 1], [17], [1]]
    table = index.token_rows(index.CorpusIndex([shard_of(documents)]), 8, (1.0,))
    # 3+4 | 2+1 | 8 of the 17 | 8 more | its last one, a separator, 1
    assert table.tolist() == [0, 7, 10, 18, 26, 28]


@pytest.mark.parametrize("capacity", [3, 8, 23, 100])
def test_rows_equal_a_plain_loop(capacity):
    documents = random_documents(2, 41, longest=19)
    table = index.token_rows(index.CorpusIndex([shard_of(documents)]), capacity, (1.0,))
    assert table.tolist() == rows_by_loop(documents, capacity, [1.0] * 41)


def test_rows_end_with_their_shard():
    documents = random_documents(3, 9)
    split = index.CorpusIndex([shard_of(documents[:4]), shard_of(documents[4:])])
    first = rows_by_loop(documents[:4], 20, [1.0] * 4)
    second = rows_by_loop(documents[4:], 20, [1.0] * 5)
    table = index.token_rows(split, 20, (1.0,))
    assert table.tolist() == first[:-1] + [first[-1] + start for start in second]


def test_rows_end_where_the_weight_changes():
    documents = random_documents(4, 30)
    sources = np.sort(np.random.default_rng(5).integers(0, 4, 30)).tolist()
    weights = (1.0, 2.0, 2.0, 0.5)
    table = index.token_rows(
        index.CorpusIndex([shard_of(documents, sources)]), 25, weights
    )
    expected = rows_by_loop(documents, 25, [weights[source] for source in sources])
    assert table.tolist() == expected


def test_numbers_beyond_32_bits_are_kept():
    # 3 shards of 2**31 - 1 tokens: the file is mapped, so the zeros cost nothing.
    big = 2**31 - 1
    shard = store.Shard(
        name="memory",
        tokens=np.broadcast_to(np.uint16(7), big),
        sentence_offsets=np.array([0, 5, big - 4, big], np.int32),
        document_offsets=np.array([0, 3], np.int32),
        sources=np.zeros(1, np.uint16),
        word_start_bits=np.broadcast_to(np.uint8(255), 2**28),
    )
    numbers = index.CorpusIndex([shard, shard, shard])
    assert numbers.num_tokens == 3 * big
    assert numbers.tokens_before(np.array([0, 1, 8, 9])).tolist() == [
        0,
        5,
        3 * big - 4,
        3 * big,
    ]
    ends = numbers.first_sentence_from(np.array([3 * big - 4, 3 * big, 2 * big + 1]))
    assert ends.tolist() == [8, 9, 7]
    table = index.sentence_chunks(numbers, lambda d: np.full(len(d), 9))
    assert table.tolist() == [0, 2, 3, 5, 6, 8, 9]
    ids, starts = numbers.read(np.array([1, 3 * big - 3]), np.array([2, 3]))
    assert ids.tolist() == [7] * 5 and starts.all()
