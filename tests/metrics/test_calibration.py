"""ECE and Brier score, by hand."""

import numpy as np
import pytest

from bert_jax.metrics import calibration, scores


def test_bins_by_hand():
    certainty = scores.Certainty(
        np.array([0.5, 0.5, 0.45, 0.9, 0.95, 1.0, 0.76]),
        np.array([True, False, False, True, True, False, True]),
    )
    bins = calibration.bins(certainty, 4)
    np.testing.assert_array_equal(bins.edges, [0, 0.25, 0.5, 0.75, 1])
    # A confidence on an edge belongs to the bin that ends there.
    np.testing.assert_array_equal(bins.counts, [0, 3, 0, 4])
    np.testing.assert_allclose(bins.confidences, [0, 1.45 / 3, 0, 3.61 / 4])
    np.testing.assert_allclose(bins.accuracies, [0, 1 / 3, 0, 3 / 4])
    assert bins.expected_error == pytest.approx((0.45 + 0.61) / 7)


def test_fifteen_bins_by_default_and_a_sum_above_1_is_in_the_last():
    sure = np.array([0.0, 1 / 15, 1.0, np.nextafter(1.0, 2)])
    bins = calibration.bins(scores.Certainty(sure, np.ones(4, bool)))
    assert bins.counts.tolist() == [2] + [0] * 13 + [2]


def test_float32_confidences_are_added_in_double_precision():
    certainty = scores.Certainty(np.full(9, 0.1, np.float32), np.zeros(9, bool))
    assert calibration.bins(certainty).expected_error == float(np.float32(0.1))


def test_perfect_calibration_has_no_error():
    certainty = scores.Certainty(np.full(4, 0.75), np.array([1, 1, 1, 0], bool))
    assert calibration.bins(certainty).expected_error == 0.0


def test_brier_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    truths = np.array([[True, False, False], [False, False, True]])
    assert calibration.brier(probabilities, truths) == pytest.approx((0.14 + 2.0) / 2)
