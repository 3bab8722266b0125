"""Predicted classes against true ones, one or several per example, by scikit-learn.

Zero divided by zero is 0. A mean over classes (`macro_...`) is over those that are true
or predicted somewhere, which is scikit-learn's default: a class missing from a small
file does not count against a model that does not predict it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from bert_jax import errors
from bert_jax.metrics import scores

NONE = "(none)"  # an example without any label, in a list of errors


def single_label(
    truths: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n C"],
    labels: tuple[str, ...],
    *,
    where: Sequence[str],
    texts: Sequence[str],
    unseen: int = 0,
) -> scores.Scores:
    """Returns the scores of single-label classification: the argmax is predicted.

    The last `unseen` of the labels are unknown to the model, with probability 0. The
    metrics are `accuracy`; `precision`, `recall`, `f1` as `macro_...` and
    `micro_...`; `matthews`; `ece` and `brier`. With two classes also `precision`,
    `recall` and `f1` of the second, and `auc` if both occur. The severity of an error
    is the probability of the wrong class minus that of the right one.

    Raises:
      InputError: no examples, or scikit-learn is not installed.
      NotFiniteError: a probability is not finite.
    """
    scores.check(where, probabilities)
    sklearn = _metrics()
    predicted = probabilities.argmax(axis=1)
    hits = predicted == truths
    is_true = np.arange(len(labels))[None] == truths[:, None]
    is_predicted = np.arange(len(labels))[None] == predicted[:, None]
    confidences = scores.Confidences(probabilities.max(axis=1), hits)
    metrics = {"accuracy": float(hits.mean())} | _means(is_true, is_predicted)
    metrics["matthews"] = _matthews(truths, predicted)
    classes = _classes(labels, is_true, is_predicted)
    if len(labels) - unseen == 2:
        metrics |= {name: classes[1][name] for name in ("precision", "recall", "f1")}
        if 0 < is_true[:, 1].sum() < len(truths):
            auc = sklearn.roc_auc_score(is_true[:, 1], probabilities[:, 1])
            metrics["auc"] = float(auc)
    metrics["ece"] = scores.calibration(confidences).expected_error
    metrics["brier"] = scores.brier(probabilities, is_true)
    counts = sklearn.confusion_matrix(truths, predicted, labels=np.arange(len(labels)))
    severity = {
        at: float(probabilities[at, predicted[at]] - probabilities[at, truths[at]])
        for at in np.flatnonzero(~hits).tolist()
    }
    wrong = scores.worst(
        severity,
        where,
        texts,
        lambda at: labels[truths[at]],
        lambda at: labels[predicted[at]],
    )
    return scores.Scores(
        metrics,
        classes,
        scores.Confusion(labels, np.asarray(counts)),
        confidences,
        wrong,
        positive=labels[1] if len(labels) - unseen == 2 else "",
    )


def multi_label(
    truths: Num[np.ndarray, "n C"],
    probabilities: Float[np.ndarray, "n C"],
    labels: tuple[str, ...],
    *,
    where: Sequence[str],
    texts: Sequence[str],
    threshold: float = 0.5,
    unseen: int = 0,
) -> scores.Scores:
    """Returns the scores of multi-label classification.

    `truths` are 0 and 1. Classes with a probability above `threshold` are predicted;
    the last `unseen` are unknown to the model and never predicted. The metrics are
    `subset_accuracy` (all classes of an example right), `precision`, `recall` and `f1`
    as `macro_...` and `micro_...`, and `ece` over the decisions on all classes; the
    confidence of a decision is its probability. The severity of an error is that of its
    worst decision: the probability of the wrong one minus that of the right one.

    Raises:
      InputError: no examples, or scikit-learn is not installed.
      NotFiniteError: a probability is not finite.
    """
    scores.check(where, probabilities)
    is_true, predicted = truths > 0, probabilities > threshold
    predicted[:, len(labels) - unseen :] = False
    hits = predicted == is_true
    chosen = np.where(predicted, probabilities, 1 - probabilities)
    confidences = scores.Confidences(chosen.ravel(), hits.ravel())
    metrics = {"subset_accuracy": float(hits.all(axis=1).mean())}
    metrics |= _means(is_true, predicted)
    metrics["ece"] = scores.calibration(confidences).expected_error
    worst = np.where(hits, -np.inf, 2 * chosen - 1).max(axis=1)
    severity = {
        at: float(worst[at]) for at in np.flatnonzero(~hits.all(axis=1)).tolist()
    }
    wrong = scores.worst(
        severity,
        where,
        texts,
        lambda at: _named(labels, is_true[at]),
        lambda at: _named(labels, predicted[at]),
    )
    return scores.Scores(
        metrics,
        _classes(labels, is_true, predicted),
        confidences=confidences,
        errors=wrong,
    )


def decisions(
    truths: Bool[np.ndarray, " n"],
    predicted: Bool[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
) -> dict[str, float]:
    """Returns `accuracy`, and `precision`, `recall`, `f1`, `auc` of the positive class.

    Args:
      truths: whether each example is positive; both kinds must occur.
      predicted: whether each example was predicted as positive.
      values: the score of each example, higher for positive ones.

    Raises:
      InputError: scikit-learn is not installed.
    """
    (row,) = _classes(("positive",), truths[:, None], predicted[:, None])
    metrics = {"accuracy": float((truths == predicted).mean())}
    metrics |= {name: row[name] for name in ("precision", "recall", "f1")}
    return metrics | {"auc": float(_metrics().roc_auc_score(truths, values))}


def _means(
    is_true: Bool[np.ndarray, "n C"], is_predicted: Bool[np.ndarray, "n C"]
) -> dict[str, float]:
    """Returns macro and micro averages of precision, recall and F1."""
    present = np.flatnonzero((is_true | is_predicted).any(axis=0))
    means = {}
    for average in ("macro", "micro"):
        values = [0.0] * 3
        if len(present):
            values = _precision_recall_f1(is_true, is_predicted, average, present)[:3]
        for name, value in zip(("precision", "recall", "f1"), values, strict=True):
            means[f"{average}_{name}"] = float(value)
    return means


def _classes(
    labels: tuple[str, ...],
    is_true: Bool[np.ndarray, "n C"],
    is_predicted: Bool[np.ndarray, "n C"],
) -> tuple[dict[str, Any], ...]:
    """Returns one row per class; `examples` is the number of true ones."""
    each = np.arange(len(labels))
    columns = _precision_recall_f1(is_true, is_predicted, None, each)
    names = ("precision", "recall", "f1")
    rows = []
    for at, label in enumerate(labels):
        row: dict[str, Any] = {"class": label}
        row |= {n: float(c[at]) for n, c in zip(names, columns[:3], strict=True)}
        rows.append(row | {"examples": int(columns[3][at])})
    return tuple(rows)


def _precision_recall_f1(
    is_true: Bool[np.ndarray, "n C"],
    is_predicted: Bool[np.ndarray, "n C"],
    average: Any,
    classes: Int[np.ndarray, " c"],
) -> tuple[Any, Any, Any, Any]:
    # A single column of 0 and 1 would be read as classes 0 and 1; another column of
    # zeros changes nothing.
    pad = ((0, 0), (0, 1))
    return _metrics().precision_recall_fscore_support(
        np.pad(is_true, pad).astype(int),
        np.pad(is_predicted, pad).astype(int),
        labels=classes,
        average=average,
        zero_division=0.0,  # pyright: ignore[reportArgumentType]
    )


def _matthews(truths: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> float:
    """Returns Matthews' correlation; 0 if all are, or are predicted as, one class."""
    if len(np.unique(truths)) == 1 or len(np.unique(predicted)) == 1:
        return 0.0
    return float(_metrics().matthews_corrcoef(truths, predicted))


def _named(labels: tuple[str, ...], chosen: Bool[np.ndarray, " C"]) -> str:
    return ", ".join(labels[at] for at in np.flatnonzero(chosen)) or NONE


def _metrics() -> Any:
    """Returns scikit-learn's metrics."""
    try:
        from sklearn import metrics
    except ImportError:
        raise errors.missing_extra("scikit-learn", "tasks") from None
    return metrics
