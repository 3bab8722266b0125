"""Metrics of similarities by hand: ranks with ties, thresholds, scores and labels."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.metrics import numbers

pytest.importorskip("sklearn")

NAMES = ("different", "same")


def pairs_of(count, **known):
    nothing = (None,) * count
    fields = {"scores": nothing, "belong": nothing, "ranks": nothing} | known
    return numbers.Pairs(
        tuple(f"f:{n}" for n in range(count)),
        tuple((f"a{n}", f"b{n}") for n in range(count)),
        **fields,
    )


def test_ranks_among_the_unique_second_texts():
    # Texts: 0 "q", 1 "right", 2 "also right", 3 "other", 4 "r".
    texts = np.array([[0, 1], [0, 2], [4, 3], [4, 0], [0, 3], [4, 1]])
    positive = np.array([True, True, True, False, False, False])
    queries = {0: (1.0, 0.0), 4: (0.0, 1.0)}
    answers = {0: (3.0, 0.0), 1: (2.0, 4.0), 2: (5.0, 1.0), 3: (3.0, 4.0)}
    vectors = np.array([[queries[a], answers[b]] for a, b in texts])
    # For q: also right 5, itself 3, other 3, right 2. Only "other" ranks before
    # "right", and none before "also right". For r: "other" and "right" tie at 4.
    assert numbers.ranks(vectors, texts, positive) == {0: 2, 1: 1, 2: 2}


def test_ranks_in_blocks_are_those_of_one(monkeypatch):
    rng = np.random.default_rng(2)
    texts = rng.integers(0, 17, (41, 2))
    table = numbers.normalized(rng.normal(size=(17, 5)))
    positive = rng.random(41) < 0.6
    whole = numbers.ranks(table[texts], texts, positive)
    monkeypatch.setattr(numbers, "_BLOCK", 4)
    assert numbers.ranks(table[texts], texts, positive) == whole
    assert sorted(whole) == np.flatnonzero(positive).tolist()


def test_without_positive_pairs_there_are_no_ranks():
    vectors = np.ones((2, 2, 3))
    texts = np.array([[0, 1], [2, 3]])
    assert numbers.ranks(vectors, texts, np.zeros(2, bool)) == {}


def test_a_zero_vector_stays_zero():
    found = numbers.normalized(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(found, [[0.6, 0.8], [0.0, 0.0]])


def test_scores_are_compared_by_order_and_errors_by_quantiles():
    pairs = pairs_of(5, scores=(1.0, 2.0, 3.0, 4.0, None))
    found = numbers.score_pairs(
        pairs, np.array([0.1, 0.9, 0.3, 0.4, 0.99]), NAMES, None
    )
    # Ranks 1 4 2 3 for 1 2 3 4: 1 - 6 * (4 + 1 + 1) / (4 * 15).
    assert found.metrics["spearman"] == pytest.approx(0.4)
    assert set(found.metrics) == {"spearman", "pearson"}
    assert [(e.where, e.severity) for e in found.errors] == [
        ("f:1", pytest.approx(0.5)),
        ("f:2", pytest.approx(0.25)),
        ("f:3", pytest.approx(0.25)),
    ]
    worst = found.errors[0]
    assert (worst.expected, worst.predicted) == ("2", "cosine 0.9000")


def test_labels_at_a_tuned_threshold():
    pairs = pairs_of(5, belong=(True, True, False, False, None))
    found = numbers.score_pairs(pairs, np.array([0.9, 0.3, 0.5, 0.1, 0.7]), NAMES, None)
    # From 0.2 on three are positive, one of them wrongly; 0.7 is as good.
    assert found.metrics == pytest.approx(
        {
            "accuracy": 0.75,
            "precision": 2 / 3,
            "recall": 1.0,
            "f1": 0.8,
            "auc": 0.75,
            "threshold": 0.2,
        }
    )
    assert found.confusion.labels == NAMES
    np.testing.assert_array_equal(found.confusion.counts, [[1, 1], [0, 2]])
    (error,) = found.errors
    assert (error.where, error.expected, error.predicted) == (
        "f:2",
        "different",
        "same",
    )
    assert error.severity == pytest.approx(0.3)
    assert error.text == "a2 ||| b2"


def test_equal_pairs_count_once_in_retrieval():
    pairs = numbers.Pairs(
        ("f:0", "f:1", "f:2", "f:3"),
        (("a", "b"), ("a", "b"), ("c", "d"), ("e", "f")),
        (None,) * 4,
        (True,) * 4,
        (1, 1, 12, 4),
    )
    found = numbers.score_pairs(pairs, np.zeros(4), NAMES, None)
    assert found.metrics == {
        "mrr": pytest.approx((1 + 1 / 12 + 1 / 4) / 3),
        "recall@1": pytest.approx(1 / 3),
        "recall@5": pytest.approx(2 / 3),
        "recall@10": pytest.approx(2 / 3),
    }
    assert [(e.where, e.predicted) for e in found.errors] == [
        ("f:2", "rank 12"),
        ("f:3", "rank 4"),
    ]


def test_scores_labels_and_ranks_together():
    pairs = pairs_of(
        3, scores=(1.0, 2.0, 3.0), belong=(False, True, True), ranks=(None, 1, 2)
    )
    found = numbers.score_pairs(pairs, np.array([0.1, 0.2, 0.3]), NAMES, None)
    assert {"spearman", "accuracy", "mrr"} <= set(found.metrics)
    assert found.errors == ()  # those of the scores, which are in the right order


def test_pairs_that_cannot_be_scored_are_errors():
    with pytest.raises(errors.InputError, match="f:0"):
        numbers.score_pairs(pairs_of(2, belong=(True, True)), np.zeros(2), NAMES, None)
    with pytest.raises(errors.NotFiniteError, match="f:1"):
        numbers.score_pairs(
            pairs_of(2, belong=(True, False)), np.array([0, np.nan]), NAMES, None
        )


SIMILARITIES = np.array(
    [
        [0.9, 0.1, 0.5, 0.5],
        [0.2, 0.3, 0.3, 0.1],
        [0.4, 0.4, 0.4, 0.4],
    ]
)
NONE = np.zeros((3, 4), bool)


def test_ranks_with_ties_against_the_right_one():
    found = numbers.row_ranks(SIMILARITIES, np.array([2, 0, 3]), NONE)
    assert found.tolist() == [3, 3, 4]


def test_equal_vectors_rank_last():
    found = numbers.row_ranks(np.ones((3, 4)), np.array([0, 1, 2]), NONE)
    assert found.tolist() == [4, 4, 4]


def test_ignored_candidates_do_not_count():
    ignored = NONE.copy()
    ignored[0, 0] = ignored[1, 1] = True
    ignored[2, 3] = True  # the right one itself keeps its rank
    found = numbers.row_ranks(SIMILARITIES, np.array([2, 0, 3]), ignored)
    assert found.tolist() == [2, 2, 4]


@pytest.mark.parametrize(
    ("values", "positive", "value", "accuracy"),
    [
        ([0.9, 0.2, 0.4, 0.6], [True, False, False, True], 0.5, 1.0),
        # Equal scores cannot be separated: three of four at most.
        ([0.3, 0.3, 0.3, 0.8], [True, False, False, True], 0.55, 0.75),
        ([0.1, 0.2, 0.3], [True, True, True], 0.1, 1.0),
        ([0.1, 0.2, 0.25], [False, False, False], np.nextafter(0.25, 1), 1.0),
        # The wrong way round, all negative (2 of 3) is best.
        ([0.1, 0.2, 0.3], [True, False, False], np.nextafter(0.3, 1), 2 / 3),
    ],
)
def test_best_threshold(values, positive, value, accuracy):
    found = numbers.best_threshold(np.array(values), np.array(positive))
    assert found == pytest.approx(value, abs=1e-15)
    assert np.mean((np.array(values) >= found) == positive) == accuracy


def test_the_best_threshold_has_the_best_accuracy_on_any_scores():
    rng = np.random.default_rng(3)
    for _ in range(50):
        values = rng.integers(0, 9, 13) / 8
        positive = rng.random(13) < 0.5
        found = numbers.best_threshold(values, positive)
        assert np.isfinite(found)
        accuracy_at = [
            ((values >= t) == positive).mean() for t in [*np.unique(values), 2.0]
        ]
        assert ((values >= found) == positive).mean() == max(accuracy_at)


def test_adjacent_floats_are_separated():
    low = 0.5
    high = np.nextafter(low, 1)
    found = numbers.best_threshold(np.array([low, high]), np.array([False, True]))
    assert found == high
