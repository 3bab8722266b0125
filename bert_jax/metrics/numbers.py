"""Predicted numbers against true ones: Pearson, Spearman, RMSE, MAE.

If either side is constant, a correlation is undefined, and 0 here: constant predictions
rank nothing. No score is ever NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_jax import errors
from bert_jax.metrics import scores

_CONSTANT = 1e-13  # of the mean: smaller deviations are rounding of float64


def score(
    truths: Float[np.ndarray, " n"],
    predictions: Float[np.ndarray, " n"],
    *,
    where: Sequence[str],
    texts: Sequence[str],
) -> scores.Scores:
    """Returns `pearson`, `spearman`, `rmse`, `mae`, and the largest errors.

    The severity of an error is its absolute value.

    Raises:
      InputError: no examples, or scikit-learn is not installed.
      NotFiniteError: a prediction is not finite.
    """
    scores.check(where, predictions)
    truths, predictions = truths.astype(float), predictions.astype(float)
    distance = np.abs(predictions - truths)
    severity = {at: float(distance[at]) for at in np.flatnonzero(distance).tolist()}
    wrong = scores.worst(
        severity,
        where,
        texts,
        lambda at: f"{truths[at]:.4g}",
        lambda at: f"{predictions[at]:.4g}",
    )
    metrics = {
        "pearson": pearson(truths, predictions),
        "spearman": spearman(truths, predictions),
        "rmse": float(np.sqrt(np.mean(distance**2))),
        "mae": float(np.mean(distance)),
    }
    return scores.Scores(metrics, errors=wrong)


def pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns the linear correlation in [-1, 1]; 0 if either side is constant.

    Raises InputError if scikit-learn, which requires scipy, is not installed.

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0]))
    0.0
    """
    if _is_constant(a) or _is_constant(b):
        return 0.0
    return float(_stats().pearsonr(a.astype(float), b.astype(float)).statistic)


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns the correlation of the ranks; equal numbers share their mean rank.

    Raises InputError if scikit-learn, which requires scipy, is not installed.
    """
    rankdata = _stats().rankdata
    return pearson(np.asarray(rankdata(a)), np.asarray(rankdata(b)))


def _is_constant(x: Float[np.ndarray, " n"]) -> bool:
    mean = x.astype(float).mean()
    return bool(np.abs(x - mean).max() <= _CONSTANT * abs(mean))


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise errors.missing_extra("scikit-learn", "tasks") from None
    return stats
