"""Several sequences a row: each once an epoch, none cut, hardly a place left over."""

import collections

import numpy as np
import pytest
import small_stores

from bert_jax.config.pretraining import OBJECTIVES
from bert_jax.data.packing import best_fit
from bert_jax.data.pretraining import instances, packing, permutation

KEY = permutation.key_of(5)


def packed(opened, objective, length, seed=0):
    return instances.Instances(
        opened,
        objective=objective,
        max_seq_length=length,
        short_seq_prob=0.3,
        seed=seed,
        special_ids=(small_stores.CLS, small_stores.SEP),
        pack=True,
    )


def epoch_of(made, epoch):
    return made.batch_at(epoch, made.num_rows)


@pytest.fixture
def opened(write_store):
    return write_store(small_stores.random_documents(0, 60), shard_tokens=600)


def lengths_of(kind, rng, length, count):
    drawn = {
        "short": rng.exponential(length / 9, count) + 5,
        "wikipedia": rng.lognormal(np.log(0.4 * length), 0.9, count),
        "long": length - rng.exponential(length / 9, count),
    }
    return np.clip(drawn[kind].astype(int), 5, length)


@pytest.mark.parametrize("kind", ["short", "wikipedia", "long"])
def test_rows_are_full_and_hold_every_sequence(kind):
    rng = np.random.default_rng(0)
    lengths = lengths_of(kind, rng, 512, 200_000)
    counts = np.bincount(lengths, minlength=513)
    rows = best_fit(counts, 512, 64)
    found = collections.Counter()
    for sizes, number in rows.items():
        assert number > 0 and sum(sizes) <= 512 and len(sizes) <= 64
        for size in sizes:
            found[size] += number
    assert found == collections.Counter(lengths.tolist())
    if kind != "long":
        assert packing.Packing(counts, 512, 64).fill > 0.98
    # No two rows could be one: that is what best fit does not leave.
    assert sum(n for sizes, n in rows.items() if sum(sizes) <= 256) <= 1


def test_simulated_wikipedia_fills_its_rows():
    """Articles whose rows would hold 254 of 512 tokens in the mean."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(5.38, 0.82, 300_000).astype(int), 8, 512)
    assert abs(lengths.mean() - 254) < 5
    made = packing.Packing(np.bincount(lengths, minlength=513), 512, 64)
    assert made.fill > 0.99
    assert made.num_rows < 0.51 * len(lengths)


def test_a_row_holds_no_more_sequences_than_it_may():
    counts = np.array([0, 0, 0, 10])
    assert best_fit(np.append(counts, [0] * 9), 12, 2) == {(3, 3): 5}


def test_a_token_attends_to_its_sequence_alone():
    """Of 4 sequences of 3 and one of 6, 12 tokens see 3 and 6 see 6."""
    counts = np.array([0, 0, 0, 4, 0, 0, 1, 0, 0, 0])
    assert packing.Packing(counts, 9, 3).effective_length == (12 * 3 + 6 * 6) / 18


def test_each_sequence_is_in_one_place_of_an_epoch_and_in_another_of_the_next():
    counts = np.bincount([3, 3, 3, 3, 3, 5, 5, 5, 7, 2, 2, 9], minlength=11)
    made = packing.Packing(counts, 10, 4)
    rows = np.arange(made.num_rows)
    orders = []
    for epoch in range(3):
        found = made.sequences(rows, np.full_like(rows, epoch), KEY)
        assert sorted(found.index.tolist()) == list(range(12))
        orders.append(found.index.tolist())
        lengths = np.sort([3, 3, 3, 3, 3, 5, 5, 5, 7, 2, 2, 9])[found.index]
        ends = found.column + lengths
        assert ends.max() <= 10
        for row in rows:
            own = found.row == row
            assert (found.column[own][1:] == ends[own][:-1]).all()
            assert found.segment[own].tolist() == list(range(own.sum()))
    assert orders[0] != orders[1] != orders[2]
    alone = made.sequences(rows[[2]], np.array([1]), KEY)
    together = made.sequences(rows, np.full_like(rows, 1), KEY)
    assert alone.index.tolist() == together.index[together.row == 2].tolist()


def segments(batch):
    """Yields row, segment number from 1 and the cells of every sequence."""
    for row, numbers in enumerate(batch["segment_ids"]):
        for number in range(1, numbers.max() + 1):
            yield row, number, np.flatnonzero(numbers == number)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("length", [17, 64])
def test_every_segment_is_a_row_of_its_own(opened, objective, length):
    made = packed(opened, objective, length)
    batch = epoch_of(made, 1)
    shape = (made.num_rows, made.num_segments)
    assert batch["cls_positions"].shape == shape and made.num_segments > 1
    count = 0
    for row, number, cells in segments(batch):
        count += 1
        ids = batch["input_ids"][row, cells]
        assert (np.diff(cells) == 1).all()
        assert batch["cls_positions"][row, number - 1] == cells[0]
        assert ids[0] == small_stores.CLS and ids[-1] == small_stores.SEP
        assert (ids[1:-1] >= 10).sum() + (ids == small_stores.SEP).sum() == len(ids) - 1
        assert batch["position_ids"][row, cells].tolist() == list(range(len(cells)))
        parts = (ids == small_stores.SEP).sum()
        types = batch["token_type_ids"][row, cells]
        first_sep = int(np.argmax(ids == small_stores.SEP))
        assert types.tolist() == [int(i > first_sep) for i in range(len(cells))]
        assert parts == 1 if objective == "full_sentences" else parts <= 2
    assert count == made.num_instances
    empty = batch["segment_ids"] == 0
    for name in ("input_ids", "token_type_ids", "position_ids", "word_start"):
        assert not batch[name][empty].any()
    weights = batch["next_sentence_weights"]
    if objective == "nsp":
        assert weights.sum() == made.num_instances
    assert (weights.sum(axis=1) <= batch["segment_ids"].max(axis=1)).all()


@pytest.mark.parametrize("objective", ["sop", "full_sentences"])
def test_an_epoch_has_every_token_that_is_not_cut(opened, write_store, objective):
    made = packed(opened, objective, 64)
    seen = collections.Counter(epoch_of(made, 0)["input_ids"].ravel().tolist())
    tokens = {t for d in small_stores.random_documents(0, 60) for s in d for t in s}
    assert all(seen[token] <= 1 for token in tokens)
    share = sum(seen[token] for token in tokens) / len(tokens)
    assert share == 1.0 if objective == "full_sentences" else share > 0.9


def test_the_length_of_a_pair_says_nothing_of_its_label(opened):
    """Random next sentences are exactly as long as the true ones would be."""
    made = packed(opened, "nsp", 64)
    lengths = []
    for epoch in range(6):
        batch = epoch_of(made, epoch)
        lengths.append(sorted(len(cells) for _, _, cells in segments(batch)))
    assert all(one == lengths[0] for one in lengths)


def test_random_next_sentences_are_of_other_documents(opened):
    documents = small_stores.random_documents(0, 60)
    places = small_stores.places(documents)
    made = packed(opened, "nsp", 64)
    labels = collections.Counter()
    for epoch in range(3):
        batch = epoch_of(made, epoch)
        for row, number, cells in segments(batch):
            ids = batch["input_ids"][row, cells]
            types = batch["token_type_ids"][row, cells]
            ordinary = ids >= 10
            own = {places[t][0] for t in ids[ordinary & (types == 0)].tolist()}
            next_ = {places[t][0] for t in ids[ordinary & (types == 1)].tolist()}
            assert len(own) == len(next_) == 1
            label = batch["next_sentence_labels"][row, number - 1]
            assert (own != next_) == label
            labels[int(label)] += 1
    assert 0.4 < labels[1] / labels.total() < 0.75  # lone sentences are never true


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_do_not_depend_on_who_makes_them(opened, objective):
    made = packed(opened, objective, 48)
    whole = made.batch_at(7, 12)
    again = packed(opened, objective, 48).batch_at(7, 12)
    halves = [made.batch_at(7, 12, rows) for rows in (slice(0, 12, 2), slice(1, 12, 2))]
    for name, array in whole.items():
        assert np.array_equal(array, again[name])
        assert np.array_equal(array[::2], halves[0][name])
        assert np.array_equal(array[1::2], halves[1][name])
    other = packed(opened, objective, 48, seed=1).batch_at(7, 12)
    assert not np.array_equal(other["input_ids"], whole["input_ids"])


def test_documents_too_short_to_continue_give_what_they_have(write_store):
    documents = [[[10, 11, 12, 13, 14, 15, 16, 17]], [[20]], [[30, 31]]]
    made = packed(write_store(documents), "nsp", 12)
    assert made.num_instances == 3
    for epoch in range(8):
        batch = epoch_of(made, epoch)
        for row, number, cells in segments(batch):
            ids = batch["input_ids"][row, cells].tolist()
            assert ids.count(small_stores.SEP) == 2 and ids[-1] == small_stores.SEP
            assert batch["cls_positions"][row, number - 1] == cells[0]


def test_slots_of_a_source_shown_in_part_hold_whatever_is_there():
    lengths = np.arange(200)[::-1]
    weights = np.where(np.arange(200) < 150, 0.5, 2.0)
    made = instances.reserved_lengths(lengths, weights)
    assert (made[weights == 2.0] == lengths[weights == 2.0]).all()
    assert (made >= lengths).all() and (made - lengths).max() < instances.GROUP
    groups = collections.Counter(made[weights == 0.5].tolist())
    assert sorted(groups.values()) == [150 - 2 * 64, 64, 64]


def test_weights_of_sources_hold_in_packed_rows(write_store):
    """A source of weight 0.4 shows each of its rows in two epochs of five."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 25, 300)
    ids = iter(range(10, 60_000))
    documents = [[[next(ids) for _ in range(size)]] for size in sizes]
    opened = write_store(documents, sources=[0] * 200 + [1] * 100, weights=(0.4, 2.0))
    made = packed(opened, "full_sentences", 32)
    seen = collections.Counter()
    for epoch in range(60):
        seen += collections.Counter(epoch_of(made, epoch)["input_ids"].ravel().tolist())
    first = [seen[document[0][0]] / 60 for document in documents[:200]]
    assert {seen[document[0][0]] / 60 for document in documents[200:]} == {2.0}
    assert abs(np.mean(first) - 0.4) < 0.01
    assert 0.15 < min(first) and max(first) < 0.65


@pytest.mark.parametrize("objective", ["nsp", "full_sentences"])
def test_names_say_all_instances_of_a_packed_row(write_store, objective):
    opened = write_store(small_stores.random_documents(3, 60))
    made = packed(opened, objective, 48)
    batch, names = made.batch_at(2, 6), made.names_at(2, 6)
    counts = [len(name.partition("/")[2].split("+")) for name in names]
    assert counts == batch["segment_ids"].max(axis=1).tolist()
    assert max(counts) > 1
    every = [name for step in range(made.num_rows) for name in made.names_at(step, 1)]
    shown = [x for name in every for x in name.removeprefix("0/").split("+")]
    assert sorted(map(int, shown)) == list(range(made.num_instances))
