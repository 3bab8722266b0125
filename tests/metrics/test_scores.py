"""Checks before scoring, the worst errors, and calibration, by hand."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.metrics import scores


def test_no_examples_is_an_error():
    with pytest.raises(errors.InputError):
        scores.check([], np.zeros((0, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_output_that_is_not_finite_is_named(bad):
    three = [f"dev.tsv:{line}" for line in (4, 5, 6)]
    outputs = np.zeros((3, 2))
    scores.check(three, outputs)
    outputs[1:, 1] = bad
    with pytest.raises(errors.NotFiniteError, match=r"dev\.tsv:5 "):
        scores.check(three, outputs)


def test_at_most_a_hundred_errors_the_worst_first_and_ties_in_order():
    severity = dict(enumerate([1.0, 3.0, 2.0, 3.0] + [0.0] * 101))
    del severity[0]
    where = [f"f:{at}" for at in range(105)]
    texts = [f"text {at}" for at in range(105)]
    worst = scores.worst(severity, where, texts, "true {}".format, "found {}".format)
    assert [e.where for e in worst[:4]] == ["f:1", "f:3", "f:2", "f:4"]
    assert worst[2] == scores.PredictionError(2.0, "f:2", "text 2", "true 2", "found 2")
    assert len(worst) == 100


def test_bins_by_hand():
    confidences = scores.Confidences(
        np.array([0.5, 0.5, 0.45, 0.9, 0.95, 1.0, 0.76]),
        np.array([True, False, False, True, True, False, True]),
    )
    bins = scores.calibration(confidences, 4)
    np.testing.assert_array_equal(bins.edges, [0, 0.25, 0.5, 0.75, 1])
    # A confidence on an edge belongs to the bin that ends there.
    np.testing.assert_array_equal(bins.counts, [0, 3, 0, 4])
    np.testing.assert_allclose(bins.confidences, [0, 1.45 / 3, 0, 3.61 / 4])
    np.testing.assert_allclose(bins.accuracies, [0, 1 / 3, 0, 3 / 4])
    assert bins.expected_error == pytest.approx((0.45 + 0.61) / 7)


def test_fifteen_bins_by_default_and_a_confidence_above_1_is_in_the_last():
    sure = np.array([0.0, 1 / 15, 1.0, np.nextafter(1.0, 2)])
    bins = scores.calibration(scores.Confidences(sure, np.ones(4, bool)))
    assert bins.counts.tolist() == [2] + [0] * 13 + [2]


def test_float32_confidences_are_added_in_double_precision():
    confidences = scores.Confidences(np.full(9, 0.1, np.float32), np.zeros(9, bool))
    assert scores.calibration(confidences).expected_error == float(np.float32(0.1))


def test_perfect_calibration_has_no_error():
    confidences = scores.Confidences(np.full(4, 0.75), np.array([1, 1, 1, 0], bool))
    assert scores.calibration(confidences).expected_error == 0.0


def test_brier_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    truths = np.array([[True, False, False], [False, False, True]])
    assert scores.brier(probabilities, truths) == pytest.approx((0.14 + 2.0) / 2)
