"""What scoring returns, whatever the task: numbers, tables and what pictures need."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_OF_ONE_CLASS = ("precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each: `counts[true, predicted]`."""

    labels: tuple[str, ...]
    counts: np.ndarray


@dataclasses.dataclass(frozen=True)
class Certainty:
    """How sure the model was of what it said, and whether that was right, [n] each."""

    confidences: np.ndarray
    hits: np.ndarray


@dataclasses.dataclass(frozen=True)
class Error:
    """One wrong prediction; the worst has the highest badness."""

    badness: float
    where: str
    text: str
    expected: str
    found: str


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a data set.

    Attributes:
      metrics: name -> value; shares are in [0, 1], as the field's libraries give them.
      classes: one row a class for people and JSON, as {"class": ..., "f1": ...}.
      confusion, certainty: None where the task has none.
      errors: wrong predictions, the worst first; all or a hundred at most.
      unseen: label that the model has not seen -> how often it is true.
      positive: of two classes, the one that `precision`, `recall` and `f1` are of.
    """

    metrics: dict[str, float]
    classes: tuple[dict[str, Any], ...] = ()
    confusion: Confusion | None = None
    certainty: Certainty | None = None
    errors: tuple[Error, ...] = ()
    unseen: Mapping[str, int] = dataclasses.field(default_factory=dict)
    positive: str = ""


def named(metric: str, positive: str) -> str:
    """Returns a metric with the class that it is of, if it is of one, for people.

    Args:
      metric: as `f1` or `dev/f1`.
      positive: of two classes, the one that counts; "" for none.

    >>> named("dev/f1", "spam"), named("macro_f1", "spam"), named("f1", "")
    ('dev/f1 (of "spam")', 'macro_f1', 'f1')
    """
    is_of_one = bool(positive) and metric.split("/")[-1] in _OF_ONE_CLASS
    return f'{metric} (of "{positive}")' if is_of_one else metric
