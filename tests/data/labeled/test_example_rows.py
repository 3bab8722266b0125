"""Batches of labeled rows: every row once an epoch, padded, the same for any host."""

import collections

import numpy as np
import pytest

from bert_jax.data.labeled import example_rows

LENGTHS = (3, 9, 30, 4, 17, 12, 31, 5, 8, 8, 25, 2, 40, 6, 11, 19, 7, 33, 10, 3, 14)


def table_of(lengths=LENGTHS, examples=None) -> example_rows.ExampleTable:
    """Returns rows whose ids are their number plus one, and whose label is that."""
    ids = [np.full(length, row + 1, np.int32) for row, length in enumerate(lengths)]
    ones = [np.ones(length, np.int32) for length in lengths]
    labels = np.arange(1, len(lengths) + 1, dtype=np.int32)
    numbers = np.arange(len(lengths)) if examples is None else np.array(examples)
    return example_rows.ExampleTable(
        {"input_ids": ids, "segment_ids": ones}, {"labels": labels}, numbers
    )


def rows_of(seed=0, batch_size=4, num_lengths=3, **options):
    return example_rows.TrainingRows(
        table_of(), batch_size, seed, num_lengths, **options
    )


def epoch_of(rows, epoch=0):
    first = epoch * rows.steps_per_epoch
    return [rows.batch_at(first + step) for step in range(rows.steps_per_epoch)]


@pytest.mark.parametrize("num_lengths", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 40])
def test_an_epoch_shows_every_row_once_with_its_label(batch_size, num_lengths):
    rows = rows_of(batch_size=batch_size, num_lengths=num_lengths)
    seen = collections.Counter()
    for batch in epoch_of(rows, 2):
        assert batch["input_ids"].shape[0] == batch_size
        assert batch["input_ids"].shape[1] in rows.row_lengths
        for ids, segments, label, weight in zip(
            batch["input_ids"],
            batch["segment_ids"],
            batch["labels"],
            batch["weights"],
            strict=True,
        ):
            if weight:
                seen[int(label)] += 1
                length = LENGTHS[label - 1]
                assert ids.tolist() == [label] * length + [0] * (len(ids) - length)
                assert segments.sum() == length
            else:
                assert label == 0 and not ids.any() and not segments.any()
    assert seen == collections.Counter(range(1, len(LENGTHS) + 1))
    assert rows.steps_per_epoch == -(-len(LENGTHS) // batch_size)
    assert rows.num_rows == len(LENGTHS)


def test_the_order_is_a_function_of_seed_and_epoch():
    order = lambda seed, epoch: [  # noqa: E731
        batch["labels"].tolist() for batch in epoch_of(rows_of(seed), epoch)
    ]
    assert order(3, 1) == order(3, 1)
    assert order(3, 0) != order(3, 1)
    assert order(3, 1) != order(4, 1)


def test_a_step_needs_no_step_before_it():
    fresh = rows_of().batch_at(17)
    rows = rows_of()
    for step in (0, 5, 23, 2):
        rows.batch_at(step)
    again = rows.batch_at(17)
    assert all(np.array_equal(fresh[name], again[name]) for name in fresh)


def test_a_process_makes_its_own_rows():
    rows = rows_of()
    whole, part = rows.batch_at(3), rows.batch_at(3, slice(1, 3))
    assert all(np.array_equal(whole[name][1:3], part[name]) for name in whole)


def test_lengths_are_the_same_for_every_seed_and_fold():
    lengths = {
        tuple(
            batch["input_ids"].shape[1]
            for epoch in range(2)
            for batch in epoch_of(rows_of(seed, folds=4, fold=fold), epoch)
        )
        for seed in range(3)
        for fold in range(4)
    }
    assert len(lengths) == 1


def test_folds_keep_groups_of_examples_whole():
    groups = np.array([7, 7, 3, 3, 3, 9, 1, 1])
    owners = np.array([0, 1, 1, 2, 3, 4, 5, 6, 7])
    ids = [np.ones(2 + n % 3, np.int32) for n in range(9)]
    table = example_rows.ExampleTable({"segment_ids": ids}, {}, owners, {}, groups)
    found = example_rows.TrainingRows(table, 4, 0, 3, folds=4, fold=0).folds_of_rows
    parts = {group: {*found[groups[owners] == group]} for group in (7, 3, 9, 1)}
    assert all(len(part) == 1 for part in parts.values())
    assert set.union(*parts.values()) == {0, 1, 2, 3}


def test_folds_part_the_rows_and_keep_examples_whole():
    examples = [row // 2 for row in range(len(LENGTHS))]
    table = table_of(examples=examples)
    left_out = []
    for fold in range(3):
        rows = example_rows.TrainingRows(table, 4, 0, 3, folds=3, fold=fold)
        out = np.flatnonzero(rows.is_held_out)
        shown = {int(x) for b in epoch_of(rows) for x in b["labels"] if x}
        assert shown == set(range(1, len(LENGTHS) + 1)) - {int(x) + 1 for x in out}
        assert not {examples[x - 1] for x in shown} & {examples[x] for x in out}
        left_out += out.tolist()
    assert sorted(left_out) == list(range(len(LENGTHS)))


def test_short_rows_go_together():
    padded = sum(batch["input_ids"].size for batch in epoch_of(rows_of(num_lengths=4)))
    longest = sum(batch["input_ids"].size for batch in epoch_of(rows_of(num_lengths=1)))
    assert padded < 0.75 * longest


@pytest.mark.parametrize("num_lengths", [0, 2])
def test_in_order_gives_every_row_once_the_longest_first(num_lengths):
    seen, before = [], 99
    for rows, batch in example_rows.in_order(table_of(), 5, 40, num_lengths):
        assert batch["input_ids"].shape[0] == 5
        assert batch["labels"][: len(rows)].tolist() == (rows + 1).tolist()
        assert max(LENGTHS[row] for row in rows) <= batch["input_ids"].shape[1] <= 40
        assert LENGTHS[rows[0]] <= before
        before = LENGTHS[rows[0]]
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(LENGTHS)))


def test_columns_of_several_axes_are_padded_on_the_last():
    ids = [np.ones((2, 3), np.int32), np.full((2, 5), 7, np.int32)]
    table = example_rows.ExampleTable({"segment_ids": ids}, {}, np.arange(2))
    batch = table.batch(np.array([1, 0]), 3, 8)
    assert batch["segment_ids"].shape == (3, 2, 8)
    assert batch["segment_ids"].sum() == 70 + 6
    assert batch["segment_ids"][0, :, 4:6].tolist() == [[7, 0], [7, 0]]


@pytest.mark.parametrize("pack", [False, True])
def test_names_say_which_example_each_row_is_of(pack):
    rows = rows_of(batch_size=5, pack=pack)
    for step in range(2 * rows.steps_per_epoch):
        labels, weights = (rows.batch_at(step)[x] for x in ("labels", "weights"))
        epoch = step // rows.steps_per_epoch
        expected = [
            f"{epoch}/{label - 1}" if weight else "-"
            for label, weight in zip(labels, weights, strict=True)
        ]
        assert rows.names_at(step) == expected
        assert rows.names_at(step, slice(1, 4)) == expected[1:4]
