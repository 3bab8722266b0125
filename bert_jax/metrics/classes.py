"""Predicted classes against true ones, one or several an example, by scikit-learn.

Whatever divides zero by zero is 0. A mean over classes (`macro_...`) is over those that
are true or predicted somewhere, which is scikit-learn's own choice: a class that a
small file lacks does not count against a model that does not name it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from bert_jax import errors
from bert_jax.metrics import calibration, items, scores

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
    """Returns the scores where every example has one class: the likeliest is taken.

    The last `unseen` of the labels are unknown to the model, their probabilities 0. The
    metrics are `accuracy`; `precision`, `recall`, `f1` as `macro_...` and
    `micro_...`; `matthews`; `ece` and `brier`. Of two classes also `precision`,
    `recall` and `f1` of the second, and `auc` where both occur. The badness of an
    error is the probability of the wrong class less that of the right one.

    Raises:
      InputError: there is no example, or scikit-learn is not installed.
      NotFiniteError: a probability is not finite.
    """
    items.check(where, probabilities)
    sklearn = _metrics()
    found = probabilities.argmax(axis=1)
    hits = found == truths
    is_true = np.arange(len(labels))[None] == truths[:, None]
    is_found = np.arange(len(labels))[None] == found[:, None]
    sure = scores.Certainty(probabilities.max(axis=1), hits)
    metrics = {"accuracy": float(hits.mean())} | _means(is_true, is_found)
    metrics["matthews"] = _matthews(truths, found)
    classes = _classes(labels, is_true, is_found)
    if len(labels) - unseen == 2:
        metrics |= {name: classes[1][name] for name in ("precision", "recall", "f1")}
        if 0 < is_true[:, 1].sum() < len(truths):
            auc = sklearn.roc_auc_score(is_true[:, 1], probabilities[:, 1])
            metrics["auc"] = float(auc)
    metrics["ece"] = calibration.bins(sure).expected_error
    metrics["brier"] = calibration.brier(probabilities, is_true)
    counts = sklearn.confusion_matrix(truths, found, labels=np.arange(len(labels)))
    badness = {
        at: float(probabilities[at, found[at]] - probabilities[at, truths[at]])
        for at in np.flatnonzero(~hits).tolist()
    }
    wrong = items.worst(
        badness,
        where,
        texts,
        lambda at: labels[truths[at]],
        lambda at: labels[found[at]],
    )
    return scores.Scores(
        metrics,
        classes,
        scores.Confusion(labels, np.asarray(counts)),
        sure,
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
    """Returns the scores where an example has any number of classes (multi-label).

    `truths` are 0 and 1. Classes whose probability is above `threshold` are taken; the
    last `unseen` are unknown to the model, and never are. The metrics are
    `subset_accuracy` (all classes of an example right), `precision`, `recall` and `f1`
    as `macro_...` and `micro_...`, and `ece` and the certainty over all decisions,
    each sure of itself by the probability of what was decided. The badness of an error
    is that of its worst decision: the probability of the wrong one less that of the
    right one.

    Raises:
      InputError: there is no example, or scikit-learn is not installed.
      NotFiniteError: a probability is not finite.
    """
    items.check(where, probabilities)
    is_true, found = truths > 0, probabilities > threshold
    found[:, len(labels) - unseen :] = False
    hits = found == is_true
    sure = np.where(found, probabilities, 1 - probabilities)
    certainty = scores.Certainty(sure.ravel(), hits.ravel())
    metrics = {"subset_accuracy": float(hits.all(axis=1).mean())}
    metrics |= _means(is_true, found)
    metrics["ece"] = calibration.bins(certainty).expected_error
    worst = np.where(hits, -np.inf, 2 * sure - 1).max(axis=1)
    badness = {
        at: float(worst[at]) for at in np.flatnonzero(~hits.all(axis=1)).tolist()
    }
    wrong = items.worst(
        badness,
        where,
        texts,
        lambda at: _named(labels, is_true[at]),
        lambda at: _named(labels, found[at]),
    )
    return scores.Scores(
        metrics,
        _classes(labels, is_true, found),
        certainty=certainty,
        errors=wrong,
    )


def decisions(
    truths: Bool[np.ndarray, " n"],
    found: Bool[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
) -> dict[str, float]:
    """Returns `accuracy`, and `precision`, `recall`, `f1`, `auc` of what is positive.

    Args:
      truths: of both kinds.
      found: what was taken to be positive.
      values: what that was decided by, higher for positive ones.

    Raises:
      InputError: scikit-learn is not installed.
    """
    (row,) = _classes(("positive",), truths[:, None], found[:, None])
    metrics = {"accuracy": float((truths == found).mean())}
    metrics |= {name: row[name] for name in ("precision", "recall", "f1")}
    return metrics | {"auc": float(_metrics().roc_auc_score(truths, values))}


def _means(
    is_true: Bool[np.ndarray, "n C"], is_found: Bool[np.ndarray, "n C"]
) -> dict[str, float]:
    """Returns precision, recall and F1, over classes and over single decisions."""
    seen = np.flatnonzero((is_true | is_found).any(axis=0))
    means = {}
    for average in ("macro", "micro"):
        values = [0.0] * 3
        if len(seen):
            values = _precision_recall_f1(is_true, is_found, average, seen)[:3]
        for name, value in zip(("precision", "recall", "f1"), values, strict=True):
            means[f"{average}_{name}"] = float(value)
    return means


def _classes(
    labels: tuple[str, ...],
    is_true: Bool[np.ndarray, "n C"],
    is_found: Bool[np.ndarray, "n C"],
) -> tuple[dict[str, Any], ...]:
    """Returns a row a class; `examples` are those that truly have it."""
    each = np.arange(len(labels))
    columns = _precision_recall_f1(is_true, is_found, None, each)
    names = ("precision", "recall", "f1")
    rows = []
    for at, label in enumerate(labels):
        row: dict[str, Any] = {"class": label}
        row |= {n: float(c[at]) for n, c in zip(names, columns[:3], strict=True)}
        rows.append(row | {"examples": int(columns[3][at])})
    return tuple(rows)


def _precision_recall_f1(
    is_true: Bool[np.ndarray, "n C"],
    is_found: Bool[np.ndarray, "n C"],
    average: Any,
    classes: Int[np.ndarray, " c"],
) -> tuple[Any, Any, Any, Any]:
    # Columns of 0 and 1: one column alone would be read as classes 0 and 1. A column
    # of zeros beside them changes nothing.
    pad = ((0, 0), (0, 1))
    return _metrics().precision_recall_fscore_support(
        np.pad(is_true, pad).astype(int),
        np.pad(is_found, pad).astype(int),
        labels=classes,
        average=average,
        zero_division=0.0,  # pyright: ignore[reportArgumentType]
    )


def _matthews(truths: Int[np.ndarray, " n"], found: Int[np.ndarray, " n"]) -> float:
    """Returns Matthews' correlation; 0 where all are of one class, or taken for one."""
    if len(np.unique(truths)) == 1 or len(np.unique(found)) == 1:
        return 0.0
    return float(_metrics().matthews_corrcoef(truths, found))


def _named(labels: tuple[str, ...], chosen: Bool[np.ndarray, " C"]) -> str:
    return ", ".join(labels[at] for at in np.flatnonzero(chosen)) or NONE


def _metrics() -> Any:
    """Returns scikit-learn's metrics."""
    try:
        from sklearn import metrics
    except ImportError:
        raise errors.missing_extra("scikit-learn", "tasks") from None
    return metrics
