"""Rows of two lengths in one run: which step sees which, and from where."""

import numpy as np
import pytest
import small_stores

from bert_jax.data.pretraining import instances


@pytest.fixture
def rows_of(write_store):
    opened = write_store(small_stores.random_documents(0, 30))
    return lambda length: small_stores.open_instances(opened, "nsp", length)


def test_without_first_steps_there_is_one_phase(rows_of):
    (only,) = instances.plan_phases(rows_of, 100, 32, 16, 0)
    assert (only.length, only.first_step, only.last_step) == (32, 0, 100)


def test_the_first_steps_see_short_rows_and_the_others_begin_anew(rows_of):
    first, second = made = instances.plan_phases(rows_of, 10, 32, 16, 8)
    assert [(x.length, x.first_step, x.last_step) for x in made] == [
        (16, 0, 8),
        (32, 8, 10),
    ]
    assert [instances.phase_at(made, step) is first for step in (0, 7, 8, 9, 10)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    for phase, step, place in ((first, 3, 3), (second, 9, 1)):
        found = phase.batch_at(step, 4)
        expected = rows_of(phase.length).batch_at(place, 4)
        for name, array in expected.items():
            assert np.array_equal(found[name], array)
    assert second.names_at(9, 4) == rows_of(32).names_at(1, 4)
    part = second.batch_at(9, 4, slice(1, 3))
    assert np.array_equal(part["input_ids"], second.batch_at(9, 4)["input_ids"][1:3])


def test_all_steps_may_be_first_ones(rows_of):
    assert [x.length for x in instances.plan_phases(rows_of, 10, 32, 16, 10)] == [16]
