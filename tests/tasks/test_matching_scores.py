"""Scores of similarities, by hand."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.tasks import matching_scores

pytest.importorskip("sklearn")

NAMES = ("different", "same")


def pairs_of(count, **known):
    nothing = (None,) * count
    fields = {"scores": nothing, "belong": nothing, "ranks": nothing} | known
    return matching_scores.Pairs(
        tuple(f"f:{n}" for n in range(count)),
        tuple((f"a{n}", f"b{n}") for n in range(count)),
        **fields,
    )


def test_ranks_among_the_unique_second_texts():
    # Texts: 0 "q", 1 "right", 2 "also right", 3 "other", 4 "r".
    texts = np.array([[0, 1], [0, 2], [4, 3], [4, 0], [0, 3], [4, 1]])
    positive = np.array([True, True, True, False, False, False])
    asked = {0: (1.0, 0.0), 4: (0.0, 1.0)}
    answers = {0: (3.0, 0.0), 1: (2.0, 4.0), 2: (5.0, 1.0), 3: (3.0, 4.0)}
    vectors = np.array([[asked[a], answers[b]] for a, b in texts])
    # To q: also right 5, itself 3, other 3, right 2. Only "other" is before "right",
    # and nothing before "also right". To r: "other" 4, "right" too, and a tie is lost.
    assert matching_scores.ranks(vectors, texts, positive) == {0: 2, 1: 1, 2: 2}


def test_ranks_in_blocks_are_those_of_one(monkeypatch):
    rng = np.random.default_rng(2)
    texts = rng.integers(0, 17, (41, 2))
    table = matching_scores.normalised(rng.normal(size=(17, 5)))
    positive = rng.random(41) < 0.6
    whole = matching_scores.ranks(table[texts], texts, positive)
    monkeypatch.setattr(matching_scores, "_BLOCK", 4)
    assert matching_scores.ranks(table[texts], texts, positive) == whole
    assert sorted(whole) == np.flatnonzero(positive).tolist()


def test_nothing_positive_has_no_rank():
    vectors = np.ones((2, 2, 3))
    texts = np.array([[0, 1], [2, 3]])
    assert matching_scores.ranks(vectors, texts, np.zeros(2, bool)) == {}


def test_a_vector_of_no_length_stays():
    found = matching_scores.normalised(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(found, [[0.6, 0.8], [0.0, 0.0]])


def test_scores_are_compared_by_order_and_errors_by_their_places():
    pairs = pairs_of(5, scores=(1.0, 2.0, 3.0, 4.0, None))
    found = matching_scores.score(
        pairs, np.array([0.1, 0.9, 0.3, 0.4, 0.99]), NAMES, None
    )
    # Ranks 1 4 2 3 for 1 2 3 4: 1 - 6 * (4 + 1 + 1) / (4 * 15).
    assert found.metrics["spearman"] == pytest.approx(0.4)
    assert set(found.metrics) == {"spearman", "pearson"}
    assert [(e.where, e.badness) for e in found.errors] == [
        ("f:1", pytest.approx(0.5)),
        ("f:2", pytest.approx(0.25)),
        ("f:3", pytest.approx(0.25)),
    ]
    worst = found.errors[0]
    assert (worst.expected, worst.found) == ("2", "cosine 0.9000")


def test_labels_at_a_tuned_threshold():
    pairs = pairs_of(5, belong=(True, True, False, False, None))
    found = matching_scores.score(
        pairs, np.array([0.9, 0.3, 0.5, 0.1, 0.7]), NAMES, None
    )
    # From 0.2 on: three positive, of which one wrongly; from 0.7 on as good.
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
    assert (error.where, error.expected, error.found) == ("f:2", "different", "same")
    assert error.badness == pytest.approx(0.3)
    assert error.text == "a2 ||| b2"


def test_equal_pairs_count_once_in_retrieval():
    pairs = matching_scores.Pairs(
        ("f:0", "f:1", "f:2", "f:3"),
        (("a", "b"), ("a", "b"), ("c", "d"), ("e", "f")),
        (None,) * 4,
        (True,) * 4,
        (1, 1, 12, 4),
    )
    found = matching_scores.score(pairs, np.zeros(4), NAMES, None)
    assert found.metrics == {
        "mrr": pytest.approx((1 + 1 / 12 + 1 / 4) / 3),
        "recall@1": pytest.approx(1 / 3),
        "recall@5": pytest.approx(2 / 3),
        "recall@10": pytest.approx(2 / 3),
    }
    assert [(e.where, e.found) for e in found.errors] == [
        ("f:2", "rank 12"),
        ("f:3", "rank 4"),
    ]


def test_scores_labels_and_ranks_together():
    pairs = pairs_of(
        3, scores=(1.0, 2.0, 3.0), belong=(False, True, True), ranks=(None, 1, 2)
    )
    found = matching_scores.score(pairs, np.array([0.1, 0.2, 0.3]), NAMES, None)
    assert {"spearman", "accuracy", "mrr"} <= set(found.metrics)
    assert found.errors == ()  # of the scores, which are in the right order


def test_what_cannot_be_scored_is_said():
    with pytest.raises(errors.InputError, match="f:0: nothing can be scored"):
        matching_scores.score(
            pairs_of(2, belong=(True, True)), np.zeros(2), NAMES, None
        )
    with pytest.raises(errors.NotFiniteError, match="f:1"):
        matching_scores.score(
            pairs_of(2, belong=(True, False)), np.array([0, np.nan]), NAMES, None
        )
