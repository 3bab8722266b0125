"""Correlations and errors, by hand and compared with scipy."""

import json
import math

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.metrics import numbers

stats = pytest.importorskip("scipy.stats")


def score(truths, predictions):
    where = [f"f:{n}" for n in range(len(truths))]
    return numbers.score(truths, predictions, where=where, texts=where[::-1])


def test_by_hand():
    scored = score(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 6.0]))
    # Deviations: (-3/2, -1/2, 1/2, 3/2) and (-2, 0, -1, 3).
    assert scored.metrics == {
        "pearson": pytest.approx(7 / math.sqrt(5 * 14)),
        "spearman": pytest.approx(0.8),  # 1 - 6 * 2 / (4 * 15)
        "rmse": pytest.approx(math.sqrt(6 / 4)),
        "mae": pytest.approx(1.0),
    }
    assert [
        (e.where, e.text, e.severity, e.expected, e.predicted) for e in scored.errors
    ] == [
        ("f:3", "f:0", 2.0, "4", "6"),
        ("f:1", "f:2", 1.0, "2", "3"),
        ("f:2", "f:1", 1.0, "3", "2"),
    ]


def test_ties_share_their_mean_rank():
    a, b = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 1.0, 4.0, 5.0])
    # Ranks (1, 2.5, 2.5, 4) and (1.5, 1.5, 3, 4).
    assert numbers.spearman(a, b) == pytest.approx(3.75 / math.sqrt(4.5 * 4.5))


def test_equal_to_scipy():
    rng = np.random.default_rng(5)
    a = rng.normal(size=37).round(1)
    b = a + rng.normal(size=37).round(1)
    assert numbers.pearson(a, b) == pytest.approx(stats.pearsonr(a, b)[0], abs=1e-12)
    assert numbers.spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)


def test_huge_and_tiny_numbers_do_not_overflow():
    a = np.array([1.0, 2.0, 4.0])
    assert numbers.pearson(1e200 * a, 1e-200 * a) == pytest.approx(1.0)
    assert numbers.pearson(a, -a) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    "constant",
    [
        np.full(3, 0.1),
        np.full(3, 0.1) + np.array([0, 2e-17, 0]),
        np.array([1e9, 1e9, 1e9 + 1e-5]),
        np.zeros(3),
    ],
)
def test_constant_predictions_have_correlation_0(constant):
    scored = score(np.array([1.0, 2.0, 4.0]), constant)
    assert scored.metrics["pearson"] == 0.0
    json.dumps(scored.metrics, allow_nan=False)


def test_one_example_has_no_correlation_but_an_error():
    scored = score(np.array([3.0]), np.array([5.0]))
    assert scored.metrics == {"pearson": 0.0, "spearman": 0.0, "rmse": 2.0, "mae": 2.0}


def test_float32_predictions_are_compared_in_double_precision():
    predicted = np.array([16777217.0, 1.0], np.float32)
    scored = score(np.array([16777217.0, 1.0]), predicted)
    assert scored.metrics["mae"] == 0.5  # float32 holds 16777216


def test_a_diverged_model_is_not_scored():
    with pytest.raises(errors.NotFiniteError, match="f:1"):
        score(np.zeros(2), np.array([0.0, np.nan]))
