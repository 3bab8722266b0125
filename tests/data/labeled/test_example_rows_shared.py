"""Shared rows: one layout holds every batch, and an epoch shows every row once."""

import collections

import numpy as np
import pytest
from test_example_rows import LENGTHS, table_of

from bert_jax.data.labeled import example_rows


def rows_of(batch_size=4, seed=0, **options):
    return example_rows.TrainingRows(
        table_of(), batch_size, seed, num_lengths=3, pack=True, **options
    )


def epoch_of(rows, epoch=0):
    first = epoch * rows.steps_per_epoch
    return [rows.batch_at(first + step) for step in range(rows.steps_per_epoch)]


@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize("room", [(40, 17, 9, 3, 3, 1), (8,), (5, 5, 5), (30, 0, 0)])
def test_places_do_not_overlap_and_stay_inside_their_row(room, texts):
    made = example_rows.share_rows(np.array(room), texts, multiple=2)
    taken = np.zeros((made.rows, made.length), int)
    for place, size in enumerate(room):
        for text in range(texts):
            row, column = made.row[place, text], made.column[place, text]
            assert column + size <= made.length
            taken[row, column : column + size] += 1
    assert taken.max() == 1 and taken.sum() == texts * sum(room)
    assert made.rows % 2 == 0 and max(room) <= made.length < 2 * max(room) + 16
    assert made.fill == pytest.approx(taken.mean())


def test_the_row_length_that_wastes_least_is_taken():
    # Rows of 24 would hold one text of 16 each; rows of 32 hold two.
    made = example_rows.share_rows(np.full(8, 16), 1, multiple=1)
    assert made.fill == 1.0
    made = example_rows.share_rows(np.array([24, 16, 16, 16]), 1, multiple=1)
    assert (made.rows, made.length) == (2, 40) and made.fill == 0.9


def test_every_token_stands_in_one_place_of_its_row():
    segments = np.zeros((3, 2, 6), np.int32)
    counts = np.array([[6, 2], [4, 0], [1, 3]])
    segments[np.arange(6) < counts[..., None]] = 1
    layout = example_rows.share_rows(np.array([6, 4, 3]), 2, multiple=1)
    packed = layout.packed(segments)
    tokens = np.flatnonzero(segments.ravel()) + 1
    assert sorted(packed[packed > 0]) == tokens.tolist()
    for place, count in np.ndenumerate(counts):
        first = 1 + 6 * (2 * place[0] + place[1])
        column = layout.column[place]
        found = packed[layout.row[place], column : column + count]
        assert found.tolist() == list(range(first, first + count))


@pytest.mark.parametrize("batch_size", [1, 4, 5, 40])
def test_an_epoch_shows_every_row_once(batch_size):
    rows, seen = rows_of(batch_size), collections.Counter()
    for batch in epoch_of(rows, 2):
        for ids, label, weight in zip(
            batch["input_ids"], batch["labels"], batch["weights"], strict=True
        ):
            if weight:
                seen[int(label)] += 1
                length = LENGTHS[label - 1]
                assert ids.tolist() == [label] * length + [0] * (len(ids) - length)
            else:
                assert label == 0 and not ids.any()
        there = batch["input_ids"].ravel()[batch["packed"] - 1][batch["packed"] > 0]
        assert sorted(there) == sorted(batch["input_ids"][batch["input_ids"] > 0])
    assert seen == collections.Counter(range(1, len(LENGTHS) + 1))


def test_all_seeds_epochs_and_folds_have_one_shape():
    shapes = {
        batch["packed"].shape
        for fold in range(3)
        for seed in range(3)
        for batch in epoch_of(rows_of(seed=seed, folds=3, fold=fold), epoch=1)
    }
    assert len(shapes) == 1
    firsts = [epoch_of(rows_of(seed=seed))[0]["labels"].tolist() for seed in range(3)]
    assert len(set(map(tuple, firsts))) == 3


def test_a_mesh_adds_empty_rows_alone():
    one, eight = rows_of(8), rows_of(8, multiple=8)
    for step in range(4):
        few, many = one.batch_at(step)["packed"], eight.batch_at(step)["packed"]
        assert len(many) % 8 == 0 and many.shape[1] == few.shape[1]
        assert np.array_equal(many[: len(few)], few) and not many[len(few) :].any()


def test_processes_take_their_share_of_both():
    rows = rows_of(8, multiple=4)
    whole = rows.batch_at(3)
    parts = [rows.batch_at(3, slice(first, first + 4)) for first in (0, 4)]
    for name, array in whole.items():
        assert np.array_equal(np.concatenate([part[name] for part in parts]), array)


def test_packing_computes_fewer_tokens_than_padding_to_the_longest():
    packed, padded = rows_of(8), example_rows.TrainingRows(table_of(), 8, 0, 1)
    batch = packed.batch_at(0)
    assert packed.tokens_per_step == batch["packed"].size
    assert (packed.encoded_rows, *packed.encoded_lengths) == batch["packed"].shape
    assert padded.tokens_per_step == padded.batch_at(0)["input_ids"].size
    assert packed.tokens_per_step < 0.7 * padded.tokens_per_step
