"""The registry of tasks. Each task has its own module and is listed only here.

To add a task, write a module with a `spec.TaskSpec` subclass and add its `SPEC` to
`TASKS`.
"""

import functools
from typing import Any

from bert_jax import errors
from bert_jax.foundation import fields
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

# Name -> task. Error messages list the tasks in this order.
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
    """Returns the task that `data.task` names; raises InputError if unknown."""
    name = settings.data.task
    if name not in TASKS:
        raise errors.InputError(
            f"data.task is {name!r}: use one of {', '.join(TASKS)}."
            f"{fields.nearest(name, TASKS)}"
        )
    return TASKS[name]


def check(settings: Settings) -> Settings:
    """Checks a fine-tuning configuration against its task and returns it.

    Setting a key that the task ignores is an error, because the user expects it to
    have an effect.

    Raises:
      InputError: a key that the task does not read is set; `run.keep_best` is not one
        of its metrics; `text.clean` would shift offsets that are labels; or
        `TaskSpec.check` fails.
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
