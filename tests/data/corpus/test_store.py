"""A store: blocks of documents, shards that map back, and damage is named."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.data.corpus import store

DOCUMENTS = [[[7, 8, 9], [10]], [[11, 12]], [[13], [14, 15, 16, 17], [18]]]
STARTS = [[[1, 0, 1], [1]], [[1, 0]], [[0], [1, 0, 0, 1], [0]]]


def test_a_written_store_maps_back(tmp_path):
    store.write_ids(
        tmp_path / "s",
        DOCUMENTS,
        vocab_size=19,
        word_starts=STARTS,
        sources=[0, 1, 0],
        weights=[1.0, 2.5],
    )
    opened = store.open_store(tmp_path / "s")
    assert (opened.num_documents, opened.num_sentences, opened.num_tokens) == (3, 6, 12)
    assert opened.source_weights == (1.0, 2.5)
    (shard,) = opened.shards
    assert shard.tokens.dtype == np.uint16
    assert shard.tokens.tolist() == [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    assert shard.sentence_offsets.tolist() == [0, 3, 4, 6, 7, 11, 12]
    assert shard.document_offsets.tolist() == [0, 2, 3, 6]
    assert shard.sources.tolist() == [0, 1, 0]
    starts = shard.word_start(np.arange(12)).astype(int)
    assert starts.tolist() == [1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 1, 0]
    assert shard.word_start(np.array([[11, 2], [5, 4]])).tolist() == [
        [False, True],
        [False, True],
    ]


def test_tokens_stay_in_the_file(tmp_path):
    store.write_ids(tmp_path / "s", DOCUMENTS, vocab_size=19)
    (shard,) = store.open_store(tmp_path / "s").shards
    assert not shard.tokens.flags.owndata and not shard.tokens.flags.writeable


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    store.write_ids(tmp_path / "s", [[[65536]]], vocab_size=65537)
    (shard,) = store.open_store(tmp_path / "s").shards
    assert shard.tokens.dtype == np.uint32 and shard.tokens.tolist() == [65536]


def test_a_shard_ends_with_the_document_that_fills_it(tmp_path):
    store.write_ids(tmp_path / "s", DOCUMENTS, vocab_size=19, shard_tokens=5)
    opened = store.open_store(tmp_path / "s")
    assert [s.name for s in opened.shards] == ["train-00000.arrow", "train-00001.arrow"]
    assert [s.num_tokens for s in opened.shards] == [6, 6]
    assert opened.shards[1].document_offsets.tolist() == [0, 3]


def test_a_flipped_bit_is_found_and_the_shard_named(tmp_path):
    store.write_ids(tmp_path / "s", DOCUMENTS, vocab_size=19, shard_tokens=5)
    path = tmp_path / "s" / "train-00001.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(
        errors.StorageError, match=r"train-00001\.arrow is damaged.*sha"
    ):
        store.open_store(tmp_path / "s")


def test_a_missing_or_cut_shard_is_named(tmp_path):
    store.write_ids(tmp_path / "s", DOCUMENTS, vocab_size=19)
    path = tmp_path / "s" / "train-00000.arrow"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(errors.StorageError, match=r"train-00000\.arrow is damaged"):
        store.open_store(tmp_path / "s", verify=False)
    path.unlink()
    with pytest.raises(errors.StorageError, match=r"train-00000\.arrow is damaged"):
        store.open_store(tmp_path / "s")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"tokens": 12', '"tokens": 13'),
        ('"documents": 3', '"documents": 4'),
        ('"vocab_size": 19', '"vocab_size": 3'),
    ],
)
def test_a_shard_that_does_not_fit_its_manifest_is_named(tmp_path, before, after):
    store.write_ids(tmp_path / "s", DOCUMENTS, vocab_size=19)
    path = tmp_path / "s" / store.MANIFEST
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(errors.StorageError, match=r"00000\.arrow"):
        store.open_store(tmp_path / "s")


def test_a_folder_without_manifest_is_no_store(tmp_path):
    with pytest.raises(errors.InputError, match="is not a store.*bert_jax.prepare"):
        store.open_store(tmp_path)


def test_an_empty_or_unknown_split_is_refused(tmp_path):
    store.write_ids(tmp_path / "s", DOCUMENTS, vocab_size=19)
    with pytest.raises(errors.InputError, match="no heldout documents"):
        store.open_store(tmp_path / "s", "heldout")
    with pytest.raises(errors.InputError, match="'dev'"):
        store.open_store(tmp_path / "s", "dev")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "cannot be read"),
        ("[]", "has format None"),
        ('{"format_version": 2}', "has format 2"),
        ('{"format_version": 1}', "is damaged"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path, text, message):
    (tmp_path / store.MANIFEST).write_text(text)
    with pytest.raises(errors.InputError, match=message):
        store.open_store(tmp_path)


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


FOUR = [[[1, 2, 3], [4]], [[5]], [[6], [7, 8], [9, 10, 11]], [[12, 13]]]


def test_tokens_of_documents_are_counted():
    assert block_of(FOUR).document_tokens().tolist() == [4, 1, 6, 2]


@pytest.mark.parametrize(
    "mask, left", [([1, 0, 1, 0], [0, 2]), ([1, 1, 1, 1], [0, 1, 2, 3]), ([0] * 4, [])]
)
def test_documents_are_selected_by_a_mask(mask, left):
    chosen = block_of(FOUR).select(np.array(mask, bool))
    assert documents_of(chosen) == [FOUR[i] for i in left]
    assert chosen.sources.tolist() == left


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_block_is_cut_and_joined(count):
    first, rest = block_of(FOUR).cut(count)
    assert documents_of(first) == FOUR[:count]
    assert documents_of(rest) == FOUR[count:]
    assert documents_of(store.concatenate([first, rest])) == FOUR


@pytest.mark.parametrize("size, bytes_each", [(1, 2), (65536, 2), (65537, 4)])
def test_the_narrowest_type_that_holds_every_id(size, bytes_each):
    assert store.token_dtype(size).itemsize == bytes_each


def by_rule(tokens, shard_tokens):
    """Documents up to the end of each full shard."""
    ends, held = [], 0
    for number, count in enumerate(tokens, 1):
        held += count
        if held >= shard_tokens:
            ends.append(number)
            held = 0
    return ends


def test_shards_end_where_the_rule_says_however_documents_come():
    draw = np.random.default_rng(3)
    for shard_tokens in (1, 7, 40, 1000):
        tokens = draw.integers(1, 60, 97)
        cutter, ends, done = store.Cutter(shard_tokens), [], 0
        for part in np.split(tokens, sorted(draw.integers(0, 97, 9))):
            ends += [done + end for end in cutter.ends(part)]
            done += len(part)
        assert ends == by_rule(tokens.tolist(), shard_tokens)
