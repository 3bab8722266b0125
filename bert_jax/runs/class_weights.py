"""The weights of classes in the loss, balanced or as they are given."""

import collections
import math
from collections.abc import Sequence
from typing import Any

from bert_jax import errors, fields
from bert_jax.checkpoints import task_folders
from bert_jax.config import finetuning
from bert_jax.data.labeled import examples as data_examples
from bert_jax.tasks import tag_schemes

Settings = finetuning.FinetuningConfig


def of(
    settings: Settings, learned: task_folders.Learned, examples: Sequence[Any]
) -> tuple[float, ...]:
    """Returns the weights of the classes that the recipe asks for, or none.

    `balanced` is as scikit-learn has it: n / (classes * examples of the class).
    """
    text = settings.recipe.class_weights
    if text == "none":
        return ()
    if text != "balanced":
        return _given_weights(text, learned.labels)
    counts = collections.Counter(
        label for x in examples for label in _classes_of(x, learned.scheme)
    )
    total = sum(counts[label] for label in learned.labels)
    return tuple(
        total / (len(learned.labels) * max(counts[label], 1))
        for label in learned.labels
    )


def _classes_of(example: Any, scheme: str) -> Sequence[str]:
    """Returns the classes that an example shows, its tags as the task writes them."""
    if isinstance(example, data_examples.TextExample):
        return example.labels or ()
    if scheme == tag_schemes.PLAIN or not example.tags:
        return example.tags or ()
    return tag_schemes.convert(example.tags, scheme)


def _given_weights(text: str, labels: tuple[str, ...]) -> tuple[float, ...]:
    """Returns the numbers of `recipe.class_weights`."""
    given = fields.numbers("recipe.class_weights", text)
    if len(given) != len(labels):
        raise errors.InputError(
            f"recipe.class_weights has {len(given)} numbers, and there are "
            f"{len(labels)} classes ({', '.join(labels)})"
        )
    if not all(0 <= x < math.inf for x in given) or not any(given):
        raise errors.InputError(
            f"recipe.class_weights is {text!r}: give finite numbers from 0 on, and not "
            "0 alone"
        )
    return given
