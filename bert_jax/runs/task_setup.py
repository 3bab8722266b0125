"""A run and its task: how files are read, by which metric the best model is kept.

Also the weights of classes in the loss.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax import console, errors, tasks
from bert_jax.config import finetuning
from bert_jax.foundation import fields
from bert_jax.metrics import scores
from bert_jax.tasks import spec

Settings = finetuning.FinetuningConfig
LOWER_IS_BETTER = frozenset({"rmse", "mae", "ece", "brier"})


def kept_by(settings: Settings, metrics: Mapping[str, float]) -> str:
    """Returns the name of the metric by which the best model is kept.

    Raises:
      InputError: `run.keep_best` names one that the task does not have.
    """
    name = settings.run.keep_best
    if name and name not in metrics:
        raise errors.InputError(
            f"run.keep_best is {name!r}: {settings.data.task} has "
            f"{', '.join(sorted(metrics))}"
        )
    return name or next(x for x in tasks.of(settings).default_metrics if x in metrics)


def shown_metric(settings: Settings, labels: Sequence[str], metric: str) -> str:
    """Returns a metric for people: of two classes, with the class that it is of.

    Args:
      labels: the labels of the model.
    """
    positive = tasks.of(settings).positive(settings, labels)
    return scores.named(metric, console.visible(positive))


def is_better(name: str, value: float, best: float | None) -> bool:
    """Returns whether a value of a metric is better than the best so far, if any."""
    if best is None:
        return True
    return value < best if name in LOWER_IS_BETTER else value > best


def tuned(
    task: spec.TaskSpec, metadata: spec.Metadata, metrics: Mapping[str, float]
) -> spec.Metadata:
    """Returns what a model keeps, with the best threshold on the dev data."""
    name = task.threshold_metric
    if name not in metrics:
        return metadata
    return dataclasses.replace(metadata, threshold=metrics[name])


def class_weights(
    settings: Settings, metadata: spec.Metadata, examples: Sequence[Any]
) -> tuple[float, ...]:
    """Returns the weights of the classes that `recipe.class_weights` names, or none.

    `balanced` is as in scikit-learn: n / (classes * examples of the class).
    """
    text, task = settings.recipe.class_weights, tasks.of(settings)
    if text == "none":
        return ()
    if text != "balanced":
        return _configured_weights(text, metadata.labels)
    counts = collections.Counter(
        label for x in examples for label in task.classes_of(x, metadata)
    )
    total = sum(counts[label] for label in metadata.labels)
    return tuple(
        total / (len(metadata.labels) * max(counts[label], 1))
        for label in metadata.labels
    )


def _configured_weights(text: str, labels: tuple[str, ...]) -> tuple[float, ...]:
    """Returns the numbers of `recipe.class_weights`."""
    given = fields.numbers("recipe.class_weights", text)
    if len(given) != len(labels):
        raise errors.InputError(
            f"recipe.class_weights has {len(given)} numbers, and there are "
            f"{len(labels)} classes ({', '.join(labels)})"
        )
    if not all(0 <= x < math.inf for x in given) or not any(given):
        raise errors.InputError(
            f"recipe.class_weights is {text!r}: use finite numbers that are not "
            "negative, and not all 0"
        )
    return given
