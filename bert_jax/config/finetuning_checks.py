"""Options of a fine-tuning run that would have no effect, or exclude each other.

A value that is set and not read is an error. What depends on the task is checked by
`bert_jax.tasks.check`.
"""

import functools
from typing import Any

from bert_jax import errors


def check(settings: Any) -> None:
    """Raises InputError for an option that its run does not read, whatever the task.

    Args:
      settings: a `finetuning.FinetuningConfig`.
    """
    _check_weights(settings)
    _check_splits(settings)
    _check_sweep(settings)
    if settings.data.pack and settings.run.accumulation_steps > 1:
        raise errors.InputError(
            "data.pack lets the texts of a batch share rows, and "
            f"run.accumulation_steps {settings.run.accumulation_steps} cuts the batch "
            "in parts: leave one of them out"
        )


def _value(groups: Any, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), groups)


def _default(settings: Any, key: str) -> Any:
    group, _, name = key.partition(".")
    return _value(type(getattr(settings, group))(), name)


def _check_weights(settings: Any) -> None:
    """Looks at what begins the training and what changes it."""
    recipe = settings.recipe
    if settings.init_from == "none" and settings.init != type(settings.init)():
        raise errors.InputError(
            "init asks for weights to start from, and init_from is none: set "
            "--config.init_from=FOLDER"
        )
    if not recipe.lora_rank and recipe.lora_alpha != _default(
        settings, "recipe.lora_alpha"
    ):
        raise errors.InputError(
            f"recipe.lora_alpha is {recipe.lora_alpha:g}, and recipe.lora_rank is 0: "
            "set the rank, as in 8, or leave both out"
        )
    if recipe.lora_rank and recipe.reinit_layers:
        raise errors.InputError(
            "recipe.reinit_layers draws layers that recipe.lora_rank then leaves as "
            "they were drawn: set one of them"
        )


def _check_splits(settings: Any) -> None:
    """Looks at what the run is scored on."""
    data = settings.data
    folds = data.folds or settings.sweep.folds
    if settings.sweep.folds and data.dev:
        raise errors.InputError(
            "sweep.folds scores on parts of data.train: leave data.dev empty"
        )
    if (data.dev or folds) and data.dev_share != _default(settings, "data.dev_share"):
        there = "folds are left out" if folds else "data.dev names a file"
        raise errors.InputError(
            f"data.dev_share is {data.dev_share:g}, and {there}: leave it out"
        )


def _check_sweep(settings: Any) -> None:
    """Looks at the members of a sweep."""
    sweep, rates = settings.sweep, settings.sweep.rates
    name = f"{'sweep' if rates else 'optimizer'}.learning_rate{'s'[: bool(rates)]}"
    settings.optimizer.check_end(min(settings.learning_rates), name)
    if rates and not sweep.is_on:
        raise errors.InputError(
            f"sweep.learning_rates has one rate, {rates[0]:g}: name several, or set "
            "optimizer.learning_rate"
        )
    if len(set(rates)) < len(rates):
        raise errors.InputError(
            f"sweep.learning_rates is {sweep.learning_rates!r}, with a rate that comes "
            "twice: for several runs of a rate set sweep.seeds"
        )
    if sweep.is_on and settings.run.log_examples:
        raise errors.InputError(
            "run.log_examples is of one run, and the members of a sweep see different "
            "examples: leave it off"
        )
    if sweep.is_on and settings.run.patience:
        raise errors.InputError(
            "run.patience ends one run, and the members of a sweep end together: "
            "leave it at 0"
        )
    if sweep.is_on and settings.data.folds:
        raise errors.InputError("data.folds is of one run: set sweep.folds")
