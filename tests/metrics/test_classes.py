"""Classification metrics by hand."""

import math
import sys

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.metrics import classes

pytest.importorskip("sklearn")

LABELS = ("sport", "体育", "only predicted", "nowhere")
TRUTHS = np.array([0, 0, 0, 1, 1, 0, 1])
FOUND = [0, 0, 1, 1, 2, 0, 1]


def examples(count):
    """Returns the keyword arguments `where` and `texts`."""
    return {
        "where": [f"dev.tsv:{n + 2}" for n in range(count)],
        "texts": [f"text {n}" for n in range(count)],
    }


def confident(found, classes_, of=0.7):
    """Returns probabilities whose argmax is `found`."""
    probabilities = np.full((len(found), classes_), (1 - of) / (classes_ - 1))
    probabilities[np.arange(len(found)), found] = of
    return probabilities


@pytest.fixture(scope="module")
def scored():
    return classes.single_label(TRUTHS, confident(FOUND, 4), LABELS, **examples(7))


def test_metrics_of_single_classes(scored):
    # True positives, false positives, false negatives: 3 0 1, 2 1 1, 0 1 0, 0 0 0. The
    # means are over the three classes that occur.
    assert scored.metrics == pytest.approx(
        {
            "accuracy": 5 / 7,
            "macro_precision": (1 + 2 / 3) / 3,
            "macro_recall": (3 / 4 + 2 / 3) / 3,
            "macro_f1": (6 / 7 + 2 / 3) / 3,
            "micro_precision": 5 / 7,
            "micro_recall": 5 / 7,
            "micro_f1": 5 / 7,
            "matthews": 14 / math.sqrt(30 * 24),
            "ece": 5 / 7 - 0.7,
            "brier": (5 * 0.12 + 2 * (0.49 + 0.81 + 0.02)) / 7,
        }
    )


def test_each_class_has_a_row_even_if_it_never_occurs(scored):
    assert scored.classes == (
        {
            "class": "sport",
            "precision": 1.0,
            "recall": 0.75,
            "f1": pytest.approx(6 / 7),
            "examples": 4,
        },
        {
            "class": "体育",
            "precision": pytest.approx(2 / 3),
            "recall": pytest.approx(2 / 3),
            "f1": pytest.approx(2 / 3),
            "examples": 3,
        },
        {
            "class": "only predicted",
            "precision": 0.0,
            "recall": 0.0,
            "f1": 0.0,
            "examples": 0,
        },
        {"class": "nowhere", "precision": 0.0, "recall": 0.0, "f1": 0.0, "examples": 0},
    )


def test_confusion_has_true_rows_and_predicted_columns(scored):
    assert scored.confusion.labels == LABELS
    np.testing.assert_array_equal(
        scored.confusion.counts,
        [[3, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    )


def test_confidences(scored):
    np.testing.assert_allclose(scored.confidences.values, np.full(7, 0.7))
    assert scored.confidences.hits.tolist() == [
        True,
        True,
        False,
        True,
        False,
        True,
        True,
    ]


def test_the_worst_error_is_the_most_confident():
    probabilities = np.array(
        [[0.4, 0.6, 0.0], [0.05, 0.9, 0.05], [0.0, 0.1, 0.9], [0.3, 0.3, 0.4]]
    )
    scored = classes.single_label(
        np.array([0, 0, 2, 1]), probabilities, ("a", "b", "c"), **examples(4)
    )
    assert [(e.where, e.text, e.expected, e.predicted) for e in scored.errors] == [
        ("dev.tsv:3", "text 1", "a", "b"),
        ("dev.tsv:2", "text 0", "a", "b"),
        ("dev.tsv:5", "text 3", "b", "c"),
    ]
    severity = [e.severity for e in scored.errors]
    assert severity == pytest.approx([0.85, 0.2, 0.1])


def test_two_classes_have_auc_and_scores_of_the_second():
    positive = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    probabilities = np.stack([1 - positive, positive], axis=1)
    scored = classes.single_label(
        np.array([0, 0, 1, 1]), probabilities, ("no", "yes"), **examples(4)
    )
    # Of the four pairs (no, yes), three are in order; one yes of two is found.
    assert scored.metrics["auc"] == 0.75
    assert scored.metrics["precision"] == 1.0
    assert scored.metrics["recall"] == 0.5
    assert scored.metrics["f1"] == pytest.approx(2 / 3)
    assert scored.metrics["matthews"] == pytest.approx(2 / math.sqrt(12))


@pytest.mark.parametrize("truth", [0, 1])
@pytest.mark.parametrize("found", [0, 1])
def test_a_file_of_one_class_is_scored_without_an_auc(truth, found):
    scored = classes.single_label(
        np.full(3, truth), confident([found] * 3, 2), ("no", "yes"), **examples(3)
    )
    assert "auc" not in scored.metrics
    assert scored.metrics["matthews"] == 0.0
    assert scored.metrics["macro_f1"] == float(truth == found)
    assert scored.confusion.counts.shape == (2, 2)
    assert all(type(value) is float for value in scored.metrics.values())


def test_multi_label():
    truths = np.array(
        [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]], np.float32
    )
    probabilities = np.array(
        [
            [0.9, 0.2, 0.8, 0.1],  # all right
            [0.1, 0.1, 0.1, 0.1],  # correctly none
            [0.4, 0.7, 0.1, 0.1],  # misses the first, finds the second
            [0.51, 0.1, 0.1, 0.1],  # finds the first; misses the third
        ]
    )
    scored = classes.multi_label(
        truths, probabilities, ("a", "b", "c", "d"), **examples(4)
    )
    # a: 1 1 1; b: 0 1 0; c: 1 0 1; d never occurs and is in no mean.
    metrics = {name: scored.metrics[name] for name in scored.metrics if name != "ece"}
    assert metrics == pytest.approx(
        {
            "subset_accuracy": 0.5,
            "macro_precision": (1 / 2 + 0 + 1) / 3,
            "macro_recall": (1 / 2 + 0 + 1 / 2) / 3,
            "macro_f1": (1 / 2 + 0 + 2 / 3) / 3,
            "micro_precision": 2 / 4,
            "micro_recall": 2 / 4,
            "micro_f1": 2 / 4,
        }
    )
    assert [row["examples"] for row in scored.classes] == [2, 0, 2, 0]
    assert scored.confusion is None
    assert [(e.expected, e.predicted, e.severity) for e in scored.errors] == [
        ("c", "a", pytest.approx(0.8)),
        ("a", "b", pytest.approx(0.4)),
    ]
    assert scored.confidences.values.shape == (16,)
    assert scored.confidences.hits.sum() == 12
    assert scored.metrics["ece"] > 0


def test_examples_without_labels():
    truths, found = np.array([[0, 0]]), np.array([[0.9, 0.6]])
    scored = classes.multi_label(truths, found, ("x", "y"), **examples(1))
    assert (scored.errors[0].expected, scored.errors[0].predicted) == ("(none)", "x, y")
    empty = classes.multi_label(truths, 1 - found, ("x", "y"), **examples(1))
    assert empty.metrics["subset_accuracy"] == 1.0
    assert empty.metrics["micro_f1"] == empty.metrics["macro_f1"] == 0.0


def test_a_single_label():
    truths, found = np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.1]])
    scored = classes.multi_label(truths, found, ("only",), **examples(3))
    assert scored.metrics["micro_f1"] == 0.5
    assert scored.classes[0]["recall"] == 0.5


def test_another_threshold():
    truths, found = np.array([[1, 0]]), np.array([[0.3, 0.25]])
    scored = classes.multi_label(
        truths, found, ("x", "y"), **examples(1), threshold=0.25
    )
    assert scored.metrics["subset_accuracy"] == 1.0


def test_a_diverged_model_is_not_scored():
    probabilities = confident(FOUND, 4)
    probabilities[3, 2] = np.nan
    with pytest.raises(errors.NotFiniteError, match=r"dev\.tsv:5"):
        classes.single_label(TRUTHS, probabilities, LABELS, **examples(7))
    with pytest.raises(errors.NotFiniteError, match=r"dev\.tsv:5"):
        classes.multi_label(np.ones((7, 4)), probabilities, LABELS, **examples(7))


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(errors.InputError, match=r"bert_jax\[tasks\]"):
        classes.single_label(TRUTHS, confident(FOUND, 4), LABELS, **examples(7))


def test_binary_decisions():
    truths, found = np.array([1, 1, 0, 0, 1], bool), np.array([1, 1, 1, 0, 0], bool)
    values = np.array([0.9, 0.6, 0.5, 0.1, 0.4])
    assert classes.decisions(truths, found, values) == pytest.approx(
        {
            "accuracy": 3 / 5,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "auc": 5 / 6,
        }
    )
