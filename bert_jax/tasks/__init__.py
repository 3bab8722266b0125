"""The tasks: one file each, listed here and nowhere else.

To add one, write its file (`spec.TaskSpec` says what belongs there) and add it to
`TASKS`.
"""

import functools
from typing import Any

from bert_jax import errors, fields
from bert_jax.tasks import (
    classification,
    matching,
    multiple_choice,
    regression,
    roles,
    span,
    tagging,
)
from bert_jax.tasks.spec import Settings, TaskSpec

# Name -> task, in the order in which messages list them.
TASKS: dict[str, TaskSpec] = {
    task.name: task
    for task in (
        classification.SPEC,
        regression.SPEC,
        tagging.SPEC,
        roles.SPEC,
        span.SPEC,
        multiple_choice.SPEC,
        matching.SPEC,
    )
}


def of(settings: Settings) -> TaskSpec:
    """Returns the task of a configuration; raises InputError for an unknown name."""
    name = settings.data.task
    if name not in TASKS:
        raise errors.InputError(
            f"data.task is {name!r}: use one of {', '.join(TASKS)}."
            f"{fields.nearest(name, TASKS)}"
        )
    return TASKS[name]


def check(settings: Settings) -> Settings:
    """Returns a configuration of fine-tuning, if it suits its task.

    A value that is set and not read is an error: it was meant to have an effect.

    Raises:
      InputError: a key that the task does not read is set; `run.keep_best` is not one
        of its metrics; texts are cleaned whose offsets are labels; or as
        `TaskSpec.check`.
    """
    task = of(settings)
    for key in sorted(frozenset().union(*(x.keys for x in TASKS.values())) - task.keys):
        value = _value(settings, key)
        if value != _default(settings, key):
            readers = ", ".join(x.name for x in TASKS.values() if key in x.keys)
            raise errors.InputError(
                f"{key} is {value!r}, which is for {readers}, and data.task is "
                f"{task.name}: leave it out"
            )
    steps = {step.strip() for step in settings.text.clean.split(",")} - {"", "none"}
    if (steps or settings.text.stop_words) and not task.cleans_text:
        raise errors.InputError(
            f"text.clean and text.stop_words shift the characters of a text, and the "
            f"labels of {task.name} are offsets: clean the files themselves, labels "
            "included, and leave both out"
        )
    name = settings.run.keep_best
    if name and name not in task.metrics:
        raise errors.InputError(
            f"run.keep_best is {name!r}: {task.name} has {', '.join(task.metrics)}"
        )
    task.check(settings)
    return settings


def _value(settings: Settings, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), settings)


def _default(settings: Settings, key: str) -> Any:
    group, _, name = key.partition(".")
    return functools.reduce(getattr, name.split("."), type(getattr(settings, group))())
