"""Reading a store: what is written is mapped back, and damage is named."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.data.corpus import manifest as manifests
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


def test_a_shard_of_other_counts_is_named(tmp_path):
    store.write_ids(tmp_path / "s", DOCUMENTS, vocab_size=19)
    path = tmp_path / "s" / manifests.NAME
    for old, new in (
        ('"tokens": 12', '"tokens": 13'),
        ('"documents": 3', '"documents": 4'),
    ):
        text = path.read_text()
        path.write_text(text.replace(old, new))
        with pytest.raises(errors.StorageError, match=r"00000\.arrow .*counts"):
            store.open_store(tmp_path / "s")
        path.write_text(text)


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
        ('{"format_version": 1}', "is damaged.*options"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path, text, message):
    (tmp_path / manifests.NAME).write_text(text)
    with pytest.raises(errors.InputError, match=message):
        store.open_store(tmp_path)
