"""Rows of small stores that one can check by eye, and what every row must obey."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.data import instances, shards, store

CLS, SEP = 1, 2
# The tens digit is the document, the last digit the place in it.
DOCUMENTS = [
    [[11, 12], [13, 14, 15], [16]],
    [[21, 22, 23, 24]],
    [[31], [32, 33], [34, 35, 36], [37, 38]],
]
WORD_STARTS = [
    [[1, 0], [1, 1, 0], [1]],
    [[1, 1, 0, 1]],
    [[1], [1, 1], [1, 0, 0], [1, 0]],
]
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


@pytest.fixture
def write(tmp_path):
    """Writes documents into a store and opens it."""

    def written(documents, **options):
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        shards.write_ids(folder, documents, vocab_size=60_000, **options)
        return store.open_store(folder)

    return written


def open_instances(opened, objective, length, *, short=0.0, seed=0):
    return instances.Instances(
        opened,
        objective=objective,
        max_seq_length=length,
        short_seq_prob=short,
        seed=seed,
        cls_id=CLS,
        sep_id=SEP,
    )


def random_documents(seed, count, longest=12, sentences=15):
    """Documents whose tokens are all different, from 10 on."""
    rng = np.random.default_rng(seed)
    token = iter(range(10, 60_000))
    return [
        [
            [next(token) for _ in range(rng.integers(1, longest))]
            for _ in range(rng.integers(1, sentences))
        ]
        for _ in range(count)
    ]


def places(documents):
    """Document, sentence and the sentence's length of each token."""
    return {
        token: (number, line, len(sentence))
        for number, document in enumerate(documents)
        for line, sentence in enumerate(document)
        for token in sentence
    }


def parts(batch, row):
    """The tokens of a row's parts: what stands between the special tokens."""
    ids = batch["input_ids"][row][batch["segment_ids"][row] > 0].tolist()
    assert ids[0] == CLS and ids[-1] == SEP
    ends = [i for i, token in enumerate(ids) if token == SEP]
    return [ids[a + 1 : b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def epoch_of(made, epoch):
    """All rows of an epoch."""
    return made.batch_at(epoch, made.num_instances)


def epochs_of(made, count):
    """All rows of the first epochs, in one batch."""
    return made.batch_at(0, count * made.num_instances)


def test_batches_have_the_keys_shapes_and_types_of_the_design(write):
    for objective in instances.OBJECTIVES:
        made = open_instances(write(DOCUMENTS), objective, 10)
        for batch in (made.batch_at(3, 5), made.batch_at_in_order(0, 5)):
            found = {name: (a.shape, a.dtype) for name, a in batch.items()}
            assert found == KEYS


def test_full_sentences_by_eye(write):
    opened = write(DOCUMENTS, word_starts=WORD_STARTS)
    made = open_instances(opened, "full_sentences", 10)
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


def test_pairs_by_eye(write):
    # Seven places: the chunks are 11..16, 21..24 and 31..38.
    opened = write(DOCUMENTS, word_starts=WORD_STARTS)
    batch = open_instances(opened, "nsp", 10, seed=1).batch_at_in_order(0, 4)
    assert batch["input_ids"].tolist() == [
        [1, 11, 12, 2, 21, 22, 23, 24, 2, 0],
        [1, 21, 22, 23, 24, 2, 37, 38, 2, 0],
        [1, 31, 32, 33, 2, 34, 35, 36, 37, 2],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["token_type_ids"].tolist() == [
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["word_start"].astype(int).tolist() == [
        [0, 1, 0, 0, 1, 1, 0, 1, 0, 0],
        [0, 1, 1, 0, 1, 0, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["next_sentence_labels"].tolist() == [[1], [1], [0], [0]]
    assert batch["next_sentence_weights"].tolist() == [[1], [1], [1], [0]]
    assert batch["cls_positions"].tolist() == [[0], [0], [0], [0]]


def test_ordered_pairs_by_eye(write):
    made = open_instances(write([*DOCUMENTS, [[41]]]), "sop", 10, seed=1)
    batch = made.batch_at_in_order(0, 4)
    assert batch["input_ids"].tolist() == [
        [1, 13, 14, 15, 16, 2, 11, 12, 2, 0],
        [1, 23, 24, 2, 21, 22, 2, 0, 0, 0],
        [1, 31, 32, 33, 2, 34, 35, 36, 37, 2],
        [1, 41, 2, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["token_type_ids"][:, 5:].tolist() == [
        [0, 1, 1, 1, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0],
    ]
    assert batch["next_sentence_labels"].tolist() == [[1], [1], [0], [0]]
    # A single token has no order: the row is there, its label weighs nothing.
    assert batch["next_sentence_weights"].tolist() == [[1], [1], [1], [0]]


@pytest.mark.parametrize("objective", instances.OBJECTIVES)
@pytest.mark.parametrize("length", [5, 17, 64])
def test_every_row_is_well_formed(write, objective, length):
    opened = write(random_documents(0, 40), shard_tokens=600)
    made = open_instances(opened, objective, length, short=0.3)
    batch = epoch_of(made, 1)
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
        found = parts(batch, row)
        expected = len(found[0]) + 2
        if objective != "full_sentences" and len(found) == 2:
            assert types[row].argmax() == expected
        else:
            assert not types[row].any()


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_labels_say_where_the_second_part_comes_from(write, objective):
    documents = random_documents(1, 30)
    where = places(documents)
    made = open_instances(write(documents, shard_tokens=400), objective, 24)
    for epoch in range(3):
        batch = epoch_of(made, epoch)
        for row in range(made.num_instances):
            found = parts(batch, row)
            if len(found) == 1:
                assert objective == "sop" and len(found[0]) == 1
                continue
            first, second = found
            # Each part is one run of neighbouring tokens of one document.
            for part in found:
                assert part == list(range(part[0], part[0] + len(part)))
                assert where[part[0]][0] == where[part[-1]][0]
            same = where[first[0]][0] == where[second[0]][0]
            label = batch["next_sentence_labels"][row, 0]
            if objective == "nsp":
                assert same == (label == 0)
                assert not same or first[-1] < second[0]
            else:
                assert same and (first[-1] < second[0]) == (label == 0)


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_labels_are_balanced(write, objective):
    made = open_instances(write(random_documents(2, 60, longest=5)), objective, 16)
    batch = epochs_of(made, 40)
    labels, weights = batch["next_sentence_labels"], batch["next_sentence_weights"]
    # Chunks of one sentence are always random in nsp, so there are some more.
    share = labels[weights > 0].mean()
    assert 0.48 < share < (0.65 if objective == "nsp" else 0.52)


def test_a_chunk_of_several_sentences_has_a_random_next_in_half_of_the_epochs(write):
    made = open_instances(write([[[11], [12], [13]], [[21], [22]]]), "nsp", 6)
    labels = epochs_of(made, 2000)["next_sentence_labels"]
    assert made.num_instances == 2
    assert abs(labels.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_random_next_is_each_other_document_equally_often(write):
    # One sentence each, the last far longer: documents count, not their tokens.
    documents = [[[10 * d]] for d in range(1, 7)] + [[list(range(70, 140))]]
    made = open_instances(write(documents), "nsp", 9)
    counts = np.zeros((7, 7), int)
    batch = epochs_of(made, 1200)
    for row in range(7 * 1200):
        first, second = parts(batch, row)
        counts[min(first[0] // 10, 7) - 1, min(second[0] // 10, 7) - 1] += 1
    assert not counts.diagonal().any()
    # 1200 / 6 = 200 with a standard deviation of 12.9.
    assert np.abs(counts[~np.eye(7, dtype=bool)] - 200).max() < 65


def test_random_next_begins_at_any_sentence_and_fills_the_row(write):
    documents = [[[11]], [[20 + i] for i in range(10)]]
    made = open_instances(write(documents), "nsp", 8)
    starts = np.zeros(10, int)
    batch = epochs_of(made, 2000)
    for row in np.flatnonzero((batch["input_ids"][:, 1:3] == [11, SEP]).all(axis=1)):
        first, second = parts(batch, row)
        starts[second[0] - 20] += 1
        # Five places, one taken: four sentences if there are as many.
        assert len(second) == min(4, 30 - second[0])
    # 2000 / 10 with a standard deviation of 13.4.
    assert np.abs(starts - 200).max() < 67


def test_every_epoch_pairs_anew_and_is_as_long(write):
    made = open_instances(write(random_documents(3, 50)), "nsp", 32)
    epochs = [epoch_of(made, epoch) for epoch in range(2)]
    rows = [{tuple(row) for row in batch["input_ids"].tolist()} for batch in epochs]
    assert len(rows[0] & rows[1]) < 0.35 * made.num_instances
    # The same chunks all the same: rows begin with the same tokens, where not cut.
    first = [{row[1] for row in found} for found in rows]
    assert len(first[0] & first[1]) > 0.7 * made.num_instances


def test_the_order_is_another_in_each_epoch(write):
    made = open_instances(write(random_documents(3, 50)), "full_sentences", 32)
    first, second = (epoch_of(made, epoch)["input_ids"].tolist() for epoch in range(2))
    assert first != second
    assert sorted(first) == sorted(second)
    in_order = made.batch_at_in_order(0, made.num_instances)["input_ids"].tolist()
    assert sorted(first) == sorted(in_order) and first != in_order


def test_seeds_differ_and_repeat(write):
    opened = write(random_documents(4, 20))
    one, again, other = (open_instances(opened, "nsp", 24, seed=s) for s in (1, 1, 2))
    assert same(one.batch_at(5, 13), again.batch_at(5, 13))
    assert not same(one.batch_at(5, 13), other.batch_at(5, 13))


@pytest.mark.parametrize("objective", instances.OBJECTIVES)
def test_every_token_appears_over_the_epochs(write, objective):
    documents = random_documents(5, 25, longest=8)
    tokens = set(places(documents))
    made = open_instances(write(documents, shard_tokens=300), objective, 24)
    batch = epochs_of(made, 1 if objective == "full_sentences" else 60)
    assert tokens <= set(batch["input_ids"].ravel().tolist())


def test_full_sentences_hold_every_token_once(write):
    documents = random_documents(6, 30, longest=60)
    made = open_instances(write(documents), "full_sentences", 16)
    ids = made.batch_at_in_order(0, made.num_instances)["input_ids"]
    assert ids[ids >= 10].tolist() == list(places(documents))
    assert made.num_long_sentences == sum(
        len(sentence) > 14 for document in documents for sentence in document
    )


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_sentences_far_longer_than_a_row_show_all_their_tokens(write, objective):
    documents = [[list(range(100, 200))], [list(range(200, 300))]]
    made = open_instances(write(documents), objective, 13)
    assert made.num_long_sentences == 2
    seen = set(epochs_of(made, 400)["input_ids"].ravel().tolist())
    assert set(range(100, 300)) <= seen


@pytest.mark.parametrize("objective", instances.OBJECTIVES)
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rows_do_not_depend_on_the_number_of_processes(write, objective, processes):
    opened = write(random_documents(7, 30), shard_tokens=500)
    made = open_instances(opened, objective, 24, short=0.2)
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


def test_rows_do_not_depend_on_the_shards(write):
    documents = random_documents(8, 30)
    one = open_instances(write(documents), "nsp", 24, short=0.2)
    many = open_instances(write(documents, shard_tokens=100), "nsp", 24, short=0.2)
    assert one.num_instances == many.num_instances
    assert same(one.batch_at(3, 29), many.batch_at(3, 29))


def test_batches_follow_each_other_through_epochs(write):
    made = open_instances(write(random_documents(9, 10)), "nsp", 24)
    n = made.num_instances
    whole = made.batch_at(0, 3 * n)
    # Steps of seven rows cross the ends of the epochs.
    steps = [made.batch_at(step, 7) for step in range(3 * n // 7)]
    joined = {name: np.concatenate([b[name] for b in steps]) for name in whole}
    assert same(joined, {name: a[: 3 * n // 7 * 7] for name, a in whole.items()})


def test_in_order_holds_every_row_once_and_pads_the_last_batch(write):
    made = open_instances(write(random_documents(10, 12)), "sop", 24)
    assert made.num_batches(5) == -(-made.num_instances // 5)
    batches = [made.batch_at_in_order(s, 5) for s in range(made.num_batches(5))]
    real = np.concatenate([b["segment_ids"][:, 0] for b in batches])
    assert real.tolist() == [1] * made.num_instances + [0] * (-made.num_instances % 5)
    beyond = made.batch_at_in_order(made.num_batches(5), 5)
    assert all(a.shape[0] == 5 and not a.any() for a in beyond.values())


def test_weights_of_sources_count_their_rows(write):
    documents = [[[10 + d], [10 + d]] for d in range(10)]
    opened = write(documents, sources=[0] * 6 + [1] * 4, weights=(0.5, 2.0))
    for objective, length in (("sop", 5), ("full_sentences", 5)):
        made = open_instances(opened, objective, length)
        counts = np.bincount(epoch_of(made, 4)["input_ids"].ravel(), minlength=20)[10:]
        assert counts[:6].sum() == 3 * 2 and counts.max() <= 4
        assert counts[6:].tolist() == [4] * 4


def test_copies_of_a_row_are_paired_apart(write):
    opened = write(random_documents(11, 20), weights=(30.0,))
    made = open_instances(opened, "nsp", 40)
    rows = made.batch_at_in_order(0, made.num_instances)["input_ids"]
    assert len({tuple(row) for row in rows.tolist()}) > made.num_instances / 3


def test_short_pairs_are_as_many_as_asked(write):
    documents = [[[10 + d, 10 + d]] * 9 for d in range(400)]
    opened = write(documents)
    made = open_instances(opened, "sop", 21, short=0.25)
    lengths = made.batch_at_in_order(0, made.num_instances)["segment_ids"].sum(axis=1)
    # 18 tokens fill a chunk unless the document drew fewer: 16 of 17 draws do.
    full = (lengths == 21).sum()
    assert abs(full / 400 - (1 - 0.25 * 16 / 17)) < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_a_seek_costs_no_more_than_a_step(write):
    made = open_instances(write(random_documents(12, 20)), "nsp", 24)
    far = made.batch_at(10**12, 256)
    assert far["input_ids"].shape == (256, 24)
    assert not same(far, made.batch_at(10**12 + 1, 256))


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype
        for name in one
    )


def test_rows_never_change_between_versions(write):
    # Sentences of 1 to 7 tokens: 10, 11, 12, ... through the whole store.
    token = iter(range(10, 10_000))
    documents = [
        [
            [next(token) for _ in range(1 + (3 * d + 5 * s) % 7)]
            for s in range(1 + d % 5)
        ]
        for d in range(20)
    ]
    made = open_instances(write(documents, shard_tokens=90), "nsp", 12, short=0.3)
    assert made.num_instances == 35
    assert made.batch_at(10**6, 3)["input_ids"].tolist() == [
        [1, 135, 136, 137, 138, 139, 2, 140, 141, 142, 143, 2],
        [1, 104, 105, 106, 107, 108, 2, 72, 73, 74, 75, 2],
        [1, 198, 199, 200, 201, 202, 203, 2, 77, 78, 79, 2],
    ]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"objective": "mlm"}, "'mlm'.*'nsp', 'sop', 'full_sentences'"),
        ({"max_seq_length": 4}, "max_seq_length is 4.*at least 5"),
        ({"short_seq_prob": -0.1}, "short_seq_prob is -0.1"),
        ({"short_seq_prob": float("nan")}, "short_seq_prob is nan"),
        ({"max_seq_length": 512}, "18 tokens, fewer than one row of 512"),
    ],
)
def test_bad_values_are_refused(write, changes, message):
    values = {"objective": "nsp", "max_seq_length": 10, "short_seq_prob": 0.1}
    with pytest.raises(errors.InputError, match=message):
        instances.Instances(
            write(DOCUMENTS), **(values | changes), seed=0, cls_id=1, sep_id=2
        )


def test_one_document_has_no_random_next(write):
    opened = write(DOCUMENTS[2:])
    with pytest.raises(errors.InputError, match="one document.*'sop'"):
        open_instances(opened, "nsp", 10)
    assert open_instances(opened, "sop", 10).num_instances == 1


def test_weights_that_leave_no_row_are_refused(write):
    with pytest.raises(errors.InputError, match="leave no row"):
        open_instances(write(DOCUMENTS, weights=(0.1,)), "nsp", 10)
