"""Places of right candidates with ties against them, and thresholds."""

import numpy as np
import pytest

from bert_jax.metrics import ranking

SIMILARITIES = np.array(
    [
        [0.9, 0.1, 0.5, 0.5],
        [0.2, 0.3, 0.3, 0.1],
        [0.4, 0.4, 0.4, 0.4],
    ]
)
NONE = np.zeros((3, 4), bool)


def test_ranks_with_ties_against_the_right_one():
    found = ranking.ranks(SIMILARITIES, np.array([2, 0, 3]), NONE)
    assert found.tolist() == [3, 3, 4]


def test_equal_vectors_for_everything_earn_nothing():
    found = ranking.ranks(np.ones((3, 4)), np.array([0, 1, 2]), NONE)
    assert found.tolist() == [4, 4, 4]


def test_ignored_candidates_do_not_count():
    ignored = NONE.copy()
    ignored[0, 0] = ignored[1, 1] = True
    ignored[2, 3] = True  # the right one itself keeps its place
    found = ranking.ranks(SIMILARITIES, np.array([2, 0, 3]), ignored)
    assert found.tolist() == [2, 2, 4]


def test_reciprocal_ranks_and_recall():
    places = np.array([1, 3, 10, 11])
    assert ranking.mean_reciprocal(places) == pytest.approx(
        (1 + 1 / 3 + 1 / 10 + 1 / 11) / 4
    )
    assert [ranking.recall(places, k) for k in (1, 5, 10)] == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("values", "positive", "value", "accuracy"),
    [
        ([0.9, 0.2, 0.4, 0.6], [True, False, False, True], 0.5, 1.0),
        # Equal scores cannot be parted: three of four at most.
        ([0.3, 0.3, 0.3, 0.8], [True, False, False, True], 0.55, 0.75),
        ([0.1, 0.2, 0.3], [True, True, True], 0.1, 1.0),
        ([0.1, 0.2, 0.25], [False, False, False], np.nextafter(0.25, 1), 1.0),
        # The wrong way round, all negative (2 of 3) is best.
        ([0.1, 0.2, 0.3], [True, False, False], np.nextafter(0.3, 1), 2 / 3),
    ],
)
def test_best_threshold(values, positive, value, accuracy):
    found = ranking.best_threshold(np.array(values), np.array(positive))
    assert (found.value, found.accuracy) == (pytest.approx(value, abs=1e-15), accuracy)
    assert np.mean((np.array(values) >= found.value) == positive) == accuracy


def test_the_best_threshold_does_what_it_says_on_any_scores():
    rng = np.random.default_rng(3)
    for _ in range(50):
        values = rng.integers(0, 9, 13) / 8
        positive = rng.random(13) < 0.5
        found = ranking.best_threshold(values, positive)
        assert np.isfinite(found.value)
        accuracy_at = [
            ((values >= t) == positive).mean() for t in [*np.unique(values), 2.0]
        ]
        assert found.accuracy == max(accuracy_at)
        assert ((values >= found.value) == positive).mean() == found.accuracy


def test_neighbouring_floats_are_parted():
    low = 0.5
    high = np.nextafter(low, 1)
    found = ranking.best_threshold(np.array([low, high]), np.array([False, True]))
    assert found == ranking.Threshold(high, 1.0)
