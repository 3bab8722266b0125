"""Predicted numbers against true ones: Pearson, Spearman, RMSE, MAE.

Where one side is constant a correlation is undefined, and 0 here: such predictions
order nothing. No score is ever nan.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from bert_jax import errors
from bert_jax.metrics import items, scores

_CONSTANT = 1e-13  # of the mean: a smaller deviation is float64's rounding


def score(
    truths: Float[np.ndarray, " n"],
    predictions: Float[np.ndarray, " n"],
    *,
    where: Sequence[str],
    texts: Sequence[str],
) -> scores.Scores:
    """Returns `pearson`, `spearman`, `rmse`, `mae`, and the predictions furthest off.

    The badness of an error is the distance from the truth.

    Raises:
      InputError: there is no example, or scikit-learn is not installed.
      NotFiniteError: a prediction is not finite.
    """
    items.check(where, predictions)
    truths, predictions = truths.astype(float), predictions.astype(float)
    off = np.abs(predictions - truths)
    badness = {at: float(off[at]) for at in np.flatnonzero(off).tolist()}
    wrong = items.worst(
        badness,
        where,
        texts,
        lambda at: f"{truths[at]:.4g}",
        lambda at: f"{predictions[at]:.4g}",
    )
    metrics = {
        "pearson": pearson(truths, predictions),
        "spearman": spearman(truths, predictions),
        "rmse": float(np.sqrt(np.mean(off**2))),
        "mae": float(np.mean(off)),
    }
    return scores.Scores(metrics, errors=wrong)


def pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns the linear correlation in [-1, 1]; 0 where one side is constant.

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0]))
    0.0
    """
    one, other = _deviations(a), _deviations(b)
    if not one.any() or not other.any():
        return 0.0
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    return float(np.clip(one @ other, -1.0, 1.0))


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns the correlation of the ranks; numbers that tie share their mean rank.

    Raises:
      InputError: scikit-learn, which brings scipy, is not installed.
    """
    try:
        from scipy import stats
    except ImportError:
        raise errors.missing_extra("scikit-learn", "tasks") from None
    return pearson(np.asarray(stats.rankdata(a)), np.asarray(stats.rankdata(b)))


def _deviations(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns the deviations from the mean, at most 1; zeros for a constant."""
    x = x.astype(float)
    away = x - x.mean()
    most = np.abs(away).max()
    if most <= _CONSTANT * abs(x.mean()):
        return np.zeros_like(x)
    return away / most
