"""Rows of small stores that one can check by eye, and what every row must obey."""

import numpy as np
import pytest
import small_stores

from bert_jax import errors
from bert_jax.config.pretraining import OBJECTIVES
from bert_jax.data.pretraining import instances

KEYS = {
    "input_ids": ((5, 10), np.int32),
    "token_type_ids": ((5, 10), np.int32),
    "segment_ids": ((5, 10), np.int32),
    "position_ids": ((5, 10), np.int32),
    "word_start": ((5, 10), np.bool_),
    "cls_positions": ((5, 1), np.int32),
    "next_sentence_labels": ((5, 1), np.int32),
    "next_sentence_weights": ((5, 1), np.float32),
}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype
        for name in one
    )


def test_batches_have_the_keys_shapes_and_types_of_the_design(write_store):
    for objective in OBJECTIVES:
        made = small_stores.open_instances(
            write_store(small_stores.DOCUMENTS), objective, 10
        )
        for batch in (made.batch_at(3, 5), made.batch_at_in_order(0, 5)):
            found = {name: (a.shape, a.dtype) for name, a in batch.items()}
            assert found == KEYS


def test_full_sentences_by_eye(write_store):
    opened = write_store(small_stores.DOCUMENTS, word_starts=small_stores.WORD_STARTS)
    made = small_stores.open_instances(opened, "full_sentences", 10)
    assert made.num_instances == 3
    batch = made.batch_at_in_order(0, 4)
    assert batch["input_ids"].tolist() == [
        [1, 11, 12, 13, 14, 15, 16, 2, 0, 0],
        [1, 21, 22, 23, 24, 2, 31, 32, 33, 2],
        [1, 34, 35, 36, 37, 38, 2, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["word_start"].astype(int).tolist() == [
        [0, 1, 0, 1, 1, 0, 1, 0, 0, 0],
        [0, 1, 1, 0, 1, 0, 1, 1, 1, 0],
        [0, 1, 0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["segment_ids"].tolist() == [
        [1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["position_ids"].tolist() == [
        [0, 1, 2, 3, 4, 5, 6, 7, 0, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [0, 1, 2, 3, 4, 5, 6, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    for name in ("token_type_ids", "next_sentence_labels", "next_sentence_weights"):
        assert not batch[name].any()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("length", [5, 17, 64])
def test_every_row_is_well_formed(write_store, objective, length):
    opened = write_store(small_stores.random_documents(0, 40), shard_tokens=600)
    made = small_stores.open_instances(opened, objective, length, short=0.3)
    batch = small_stores.epoch_of(made, 1)
    lengths = batch["segment_ids"].sum(axis=1)
    inside = np.arange(length) < lengths[:, None]
    assert lengths.min() >= 3 and lengths.max() <= length
    assert (batch["segment_ids"] == inside).all()
    assert (batch["position_ids"] == np.arange(length) * inside).all()
    assert ((batch["input_ids"] != 0) == inside).all()
    types = batch["token_type_ids"]
    assert (np.diff(types, axis=1)[inside[:, 1:]] >= 0).all()
    assert not types[~inside].any()
    special = batch["input_ids"] < 10
    assert (batch["word_start"] == ~special).all()
    for row in range(made.num_instances):
        found = small_stores.parts(batch, row)
        expected = len(found[0]) + 2
        if objective != "full_sentences" and len(found) == 2:
            assert types[row].argmax() == expected
        else:
            assert not types[row].any()


def test_the_order_is_another_in_each_epoch(write_store):
    made = small_stores.open_instances(
        write_store(small_stores.random_documents(3, 50)), "full_sentences", 32
    )
    first, second = (
        small_stores.epoch_of(made, epoch)["input_ids"].tolist() for epoch in range(2)
    )
    assert first != second
    assert sorted(first) == sorted(second)
    in_order = made.batch_at_in_order(0, made.num_instances)["input_ids"].tolist()
    assert sorted(first) == sorted(in_order) and first != in_order


def test_seeds_differ_and_repeat(write_store):
    opened = write_store(small_stores.random_documents(4, 20))
    one, again, other = (
        small_stores.open_instances(opened, "nsp", 24, seed=s) for s in (1, 1, 2)
    )
    assert same(one.batch_at(5, 13), again.batch_at(5, 13))
    assert not same(one.batch_at(5, 13), other.batch_at(5, 13))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_token_appears_over_the_epochs(write_store, objective):
    documents = small_stores.random_documents(5, 25, longest=8)
    tokens = set(small_stores.places(documents))
    made = small_stores.open_instances(
        write_store(documents, shard_tokens=300), objective, 24
    )
    batch = small_stores.epochs_of(made, 1 if objective == "full_sentences" else 60)
    assert tokens <= set(batch["input_ids"].ravel().tolist())


def test_full_sentences_hold_every_token_once(write_store):
    documents = small_stores.random_documents(6, 30, longest=60)
    made = small_stores.open_instances(write_store(documents), "full_sentences", 16)
    ids = made.batch_at_in_order(0, made.num_instances)["input_ids"]
    assert ids[ids >= 10].tolist() == list(small_stores.places(documents))
    assert made.num_long_sentences == sum(
        len(sentence) > 14 for document in documents for sentence in document
    )


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_sentences_far_longer_than_a_row_show_all_their_tokens(write_store, objective):
    documents = [[list(range(100, 200))], [list(range(200, 300))]]
    made = small_stores.open_instances(write_store(documents), objective, 13)
    assert made.num_long_sentences == 2
    seen = set(small_stores.epochs_of(made, 400)["input_ids"].ravel().tolist())
    assert set(range(100, 300)) <= seen


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rows_do_not_depend_on_the_number_of_processes(
    write_store, objective, processes
):
    opened = write_store(small_stores.random_documents(7, 30), shard_tokens=500)
    made = small_stores.open_instances(opened, objective, 24, short=0.2)
    for step in (0, 9, 10**6):
        for make in (made.batch_at, made.batch_at_in_order):
            whole = make(step, 12)
            share = 12 // processes
            own = [
                make(step, 12, slice(p * share, (p + 1) * share))
                for p in range(processes)
            ]
            joined = {name: np.concatenate([b[name] for b in own]) for name in whole}
            assert same(joined, whole)
            picked = make(step, 12, np.array([7, 0, 11]))
            assert same(picked, {name: a[[7, 0, 11]] for name, a in whole.items()})


def test_rows_do_not_depend_on_the_shards(write_store):
    documents = small_stores.random_documents(8, 30)
    one = small_stores.open_instances(write_store(documents), "nsp", 24, short=0.2)
    many = small_stores.open_instances(
        write_store(documents, shard_tokens=100), "nsp", 24, short=0.2
    )
    assert one.num_instances == many.num_instances
    assert same(one.batch_at(3, 29), many.batch_at(3, 29))


def test_batches_follow_each_other_through_epochs(write_store):
    made = small_stores.open_instances(
        write_store(small_stores.random_documents(9, 10)), "nsp", 24
    )
    n = made.num_instances
    whole = made.batch_at(0, 3 * n)
    # Steps of seven rows cross the ends of the epochs.
    steps = [made.batch_at(step, 7) for step in range(3 * n // 7)]
    joined = {name: np.concatenate([b[name] for b in steps]) for name in whole}
    assert same(joined, {name: a[: 3 * n // 7 * 7] for name, a in whole.items()})


def test_in_order_holds_every_row_once_and_pads_the_last_batch(write_store):
    made = small_stores.open_instances(
        write_store(small_stores.random_documents(10, 12)), "sop", 24
    )
    assert made.num_batches(5) == -(-made.num_instances // 5)
    batches = [made.batch_at_in_order(s, 5) for s in range(made.num_batches(5))]
    real = np.concatenate([b["segment_ids"][:, 0] for b in batches])
    assert real.tolist() == [1] * made.num_instances + [0] * (-made.num_instances % 5)
    beyond = made.batch_at_in_order(made.num_batches(5), 5)
    assert all(a.shape[0] == 5 and not a.any() for a in beyond.values())


def test_weights_of_sources_count_their_rows(write_store):
    documents = [[[10 + d], [10 + d]] for d in range(10)]
    opened = write_store(documents, sources=[0] * 6 + [1] * 4, weights=(0.5, 2.0))
    for objective, length in (("sop", 5), ("full_sentences", 5)):
        made = small_stores.open_instances(opened, objective, length)
        counts = np.bincount(
            small_stores.epoch_of(made, 4)["input_ids"].ravel(), minlength=20
        )[10:]
        assert counts[:6].sum() == 3 * 2 and counts.max() <= 4
        assert counts[6:].tolist() == [4] * 4


def test_a_seek_costs_no_more_than_a_step(write_store):
    made = small_stores.open_instances(
        write_store(small_stores.random_documents(12, 20)), "nsp", 24
    )
    far = made.batch_at(10**12, 256)
    assert far["input_ids"].shape == (256, 24)
    assert not same(far, made.batch_at(10**12 + 1, 256))


def test_rows_never_change_between_versions(write_store):
    # Sentences of 1 to 7 tokens: 10, 11, 12, ... through the whole store.
    token = iter(range(10, 10_000))
    documents = [
        [
            [next(token) for _ in range(1 + (3 * d + 5 * s) % 7)]
            for s in range(1 + d % 5)
        ]
        for d in range(20)
    ]
    made = small_stores.open_instances(
        write_store(documents, shard_tokens=90), "nsp", 12, short=0.3
    )
    assert made.num_instances == 35
    assert made.batch_at(10**6, 3)["input_ids"].tolist() == [
        [1, 135, 136, 137, 138, 139, 2, 140, 141, 142, 143, 2],
        [1, 104, 105, 106, 107, 108, 2, 72, 73, 74, 75, 2],
        [1, 198, 199, 200, 201, 202, 203, 2, 77, 78, 79, 2],
    ]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_seq_length": 512}, "18 tokens, fewer than one row of 512"),
    ],
)
def test_bad_values_are_refused(write_store, changes, message):
    values = {"objective": "nsp", "max_seq_length": 10, "short_seq_prob": 0.1}
    with pytest.raises(errors.InputError, match=message):
        instances.Instances(
            write_store(small_stores.DOCUMENTS),
            **(values | changes),
            seed=0,
            special_ids=(1, 2),
        )


def test_weights_that_leave_no_row_are_refused(write_store):
    with pytest.raises(errors.InputError, match="leave no row"):
        small_stores.open_instances(
            write_store(small_stores.DOCUMENTS, weights=(0.1,)), "nsp", 10
        )


def test_names_say_which_instances_are_in_the_rows_of_a_batch(write_store):
    opened = write_store(small_stores.random_documents(1, 40))
    made = small_stores.open_instances(opened, "full_sentences", 16)
    # An instance is a row of the pass in order, whatever epoch shows it.
    whole = made.batch_at_in_order(0, made.num_rows)["input_ids"]
    for step in (0, 3, 40):
        names = made.names_at(step, 8)
        for name, ids in zip(names, made.batch_at(step, 8)["input_ids"], strict=True):
            epoch, _, instance = name.partition("/")
            assert int(epoch) == (step * 8 + names.index(name)) // made.num_rows
            assert np.array_equal(whole[int(instance)], ids)
        assert made.names_at(step, 8, slice(2, 5)) == names[2:5]
    other = small_stores.open_instances(opened, "full_sentences", 16, seed=1)
    assert other.names_at(0, 8) != made.names_at(0, 8)
