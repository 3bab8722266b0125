"""The result of scoring, for each task: metrics, errors and how calibrated a model is.

The expected calibration error follows Guo et al. 2017 (arXiv:1706.04599, section 2):
bins of equal width, (m - 1) / M < confidence <= m / M, and the mean over the examples
of the gap between confidence and accuracy.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from bert_jax import errors

MAX_ERRORS = 100
BINS = 15
LOWER_IS_BETTER = frozenset({"rmse", "mae", "ece", "brier"})  # of all others, higher
_OF_ONE_CLASS = ("precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often each class was predicted as each: `counts[true, predicted]`."""

    labels: tuple[str, ...]
    counts: np.ndarray


@dataclasses.dataclass(frozen=True)
class Confidences:
    """The confidence of each prediction, and whether it was right, [n] each."""

    values: np.ndarray
    hits: np.ndarray


@dataclasses.dataclass(frozen=True)
class PredictionError:
    """One wrong prediction; the worst has the highest severity."""

    severity: float
    where: str
    text: str
    expected: str
    predicted: str


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a data set.

    Attributes:
      metrics: name -> value; fractions are in [0, 1].
      classes: one row per class for people and JSON, as {"class": ..., "f1": ...}.
      confusion, confidences: None if the task has none.
      errors: wrong predictions, the worst first, at most `MAX_ERRORS`.
      unseen: label not seen in training -> how often it is true.
      positive: with two classes, the one that `precision`, `recall` and `f1` are of.
    """

    metrics: dict[str, float]
    classes: tuple[dict[str, Any], ...] = ()
    confusion: Confusion | None = None
    confidences: Confidences | None = None
    errors: tuple[PredictionError, ...] = ()
    unseen: Mapping[str, int] = dataclasses.field(default_factory=dict)
    positive: str = ""


def named(metric: str, positive: str) -> str:
    """Returns a metric's name with its class, if it is of one class.

    Args:
      metric: as `f1` or `dev/f1`.
      positive: with two classes, the positive one; "" for none.

    >>> named("dev/f1", "spam"), named("macro_f1", "spam"), named("f1", "")
    ('dev/f1 (of "spam")', 'macro_f1', 'f1')
    """
    is_of_one = bool(positive) and metric.split("/")[-1] in _OF_ONE_CLASS
    return f'{metric} (of "{positive}")' if is_of_one else metric


def check(where: Sequence[str], outputs: Float[np.ndarray, "n ..."]) -> None:
    """Checks that there are examples, and that the model's outputs are finite.

    Args:
      where: the file and line of each example.
      outputs: the model's output for each.

    Raises:
      InputError: no examples.
      NotFiniteError: an output is not finite; names the first such example.
    """
    if not where:
        raise errors.InputError(
            "there is nothing to score: give a file with labeled examples"
        )
    finite = np.isfinite(outputs).reshape(len(where), -1).all(axis=1)
    if not finite.all():
        raise errors.NotFiniteError(
            f"the model's output for {where[int(np.argmin(finite))]} is not finite: "
            "the model has diverged; use an earlier checkpoint, or train again with a "
            "lower learning rate"
        )


def worst(
    severity: Mapping[int, float],
    where: Sequence[str],
    texts: Sequence[str],
    expected: Callable[[int], str],
    predicted: Callable[[int], str],
) -> tuple[PredictionError, ...]:
    """Returns the wrong predictions, the worst first, at most `MAX_ERRORS`.

    Errors of equal severity keep their order.

    Args:
      severity: by the index of each wrong example.
      where: the file and line of each example.
      texts: the text of each example.
      expected: returns the label of an example, by its index.
      predicted: returns the prediction for an example, by its index.
    """
    chosen = sorted(severity, key=lambda at: -severity[at])[:MAX_ERRORS]
    return tuple(
        PredictionError(severity[at], where[at], texts[at], expected(at), predicted(at))
        for at in chosen
    )


@dataclasses.dataclass(frozen=True)
class CalibrationBins:
    """Predictions binned by confidence; 0 in empty bins.

    Attributes:
      edges: [M + 1], from 0 to 1.
      counts: [M], the number of predictions.
      confidences: [M], the mean confidence of each bin.
      accuracies: [M], the fraction of each bin that is right.
    """

    edges: Float[np.ndarray, " edges"]
    counts: Int[np.ndarray, " M"]
    confidences: Float[np.ndarray, " M"]
    accuracies: Float[np.ndarray, " M"]

    @property
    def expected_error(self) -> float:
        """The expected calibration error, in [0, 1]."""
        gaps = np.abs(self.accuracies - self.confidences)
        return float(np.sum(gaps * self.counts) / max(self.counts.sum(), 1))


def calibration(confidences: Confidences, count: int = BINS) -> CalibrationBins:
    """Returns predictions in bins of equal width, by their confidence in [0, 1]."""
    edges = np.linspace(0.0, 1.0, count + 1)
    index = np.searchsorted(edges[1:], confidences.values, side="left")
    index = np.minimum(index, count - 1)  # rounding may leave a sum above 1
    counts = np.bincount(index, minlength=count)
    divisors = np.maximum(counts, 1)
    confidence = np.bincount(index, confidences.values.astype(float), count)
    right = np.bincount(index, confidences.hits.astype(float), count)
    return CalibrationBins(edges, counts, confidence / divisors, right / divisors)


def brier(
    probabilities: Float[np.ndarray, "n C"], truths: Bool[np.ndarray, "n C"]
) -> float:
    """Returns the mean over the examples of the squared errors of all classes.

    It is in [0, 2], as in Brier (1950), also for two classes, where it is twice the
    squared error of the second class.
    """
    return float(np.mean(np.sum((probabilities - truths) ** 2, axis=1)))


def is_better(name: str, value: float, best: float | None) -> bool:
    """Returns whether a value of a metric is better than the best so far, if any."""
    if best is None:
        return True
    return value < best if name in LOWER_IS_BETTER else value > best
