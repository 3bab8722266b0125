"""Options of a fine-tuning run that would do nothing, or that exclude each other.

Whatever is set and not read is an error: it was meant to do something.
"""

import functools
from typing import Any

from bert_jax import errors
from bert_jax.text import cleaning

_TEXTS = ("classification", "regression", "matching")
_TABLES = (*_TEXTS, "multiple_choice")
_TAGS = ("tagging", "srl")
_CLASSES = ("classification", *_TAGS, "span", "multiple_choice")

# Key -> the tasks that read it; the keys that are not here, all do.
_READ_BY = {
    "data.header": _TABLES,
    "data.columns.id": _TABLES,
    "data.columns.text": (*_TABLES, "tagging"),
    "data.columns.text_pair": _TABLES,
    "data.columns.label": (*_TABLES, "tagging"),
    "data.columns.score": ("regression", "matching"),
    "data.columns.choices": ("multiple_choice",),
    "data.columns.token": _TAGS,
    "data.columns.tag": _TAGS,
    "data.columns.predicate": ("srl",),
    "data.labels": ("classification", "matching"),
    "data.multi_label": ("classification",),
    "data.skip_labels": ("classification", "matching"),
    "data.strip_digit": ("tagging",),
    "data.truncation": _TABLES,
    "data.doc_stride": ("span",),
    "data.doc_overlap": ("span",),
    "data.max_answer_length": ("span",),
    "data.predicates": ("srl",),
    "head.pooling": _TABLES,
    "head.crf": _TAGS,
    "head.dropout": ("regression", *_CLASSES),
    "head.transform": ("regression", *_CLASSES),
    "head.objective": ("matching",),
    "head.temperature": ("matching",),
    "recipe.class_weights": ("classification", *_TAGS),
    "recipe.label_smoothing": _CLASSES,
    "recipe.focal_gamma": _CLASSES,
    "recipe.r_drop": ("regression", *_CLASSES),
}

# Task -> the metrics that its scores can have; some of them only of some data.
_MEANS = tuple(
    f"{kind}_{name}"
    for kind in ("macro", "micro")
    for name in ("precision", "recall", "f1")
)
_TWO_CLASSES = ("accuracy", "precision", "recall", "f1", "auc")
_ANSWERS = tuple(
    f"{of}{name}"
    for of in ("", "has_answer_", "no_answer_", "best_")
    for name in ("exact_match", "f1")
)
METRICS = {
    "classification": (
        *_TWO_CLASSES,
        *_MEANS,
        "matthews",
        "subset_accuracy",
        "ece",
        "brier",
    ),
    "regression": ("pearson", "spearman", "rmse", "mae"),
    "tagging": (
        "entity_precision",
        "entity_recall",
        "entity_f1",
        "entity_macro_f1",
        "entity_weighted_f1",
        "macro_f1",
        "token_accuracy",
        "ece",
    ),
    "srl": (
        "role_precision",
        "role_recall",
        "role_f1",
        "core_f1",
        "adjunct_f1",
        "role_macro_f1",
        "token_accuracy",
        "ece",
    ),
    "span": _ANSWERS,
    "multiple_choice": ("accuracy",),
    "matching": (
        "spearman",
        "pearson",
        *_TWO_CLASSES,
        "mrr",
        "recall@1",
        "recall@5",
        "recall@10",
    ),
}


def check(settings: Any) -> None:
    """Raises InputError for an option that its run does not read.

    Args:
      settings: a `finetuning.FinetuningConfig`.
    """
    task = settings.data.task
    for key, tasks in _READ_BY.items():
        value = _value(settings, key)
        if task not in tasks and value != _default(settings, key):
            raise errors.InputError(
                f"{key} is {value!r}, which is for {', '.join(tasks)}, and data.task "
                f"is {task}: leave it out"
            )
    _check_cleaning(settings)
    name = settings.run.keep_best
    if name and name not in METRICS[task]:
        raise errors.InputError(
            f"run.keep_best is {name!r}: {task} has {', '.join(METRICS[task])}"
        )
    _check_weights(settings)
    _check_splits(settings)
    _check_sweep(settings)
    if settings.data.pack and settings.run.accumulation_steps > 1:
        raise errors.InputError(
            "data.pack lets the texts of a batch share rows, and "
            f"run.accumulation_steps {settings.run.accumulation_steps} cuts the batch "
            "in parts: leave one of them out"
        )


def _check_cleaning(settings: Any) -> None:
    """Raises InputError for a cleaning where the positions of characters count."""
    text, task = settings.text, settings.data.task
    cleans = text.clean if cleaning.parse_steps(text.clean) else text.stop_words
    if cleans and task not in _TABLES:
        raise errors.InputError(
            f"text.clean and text.stop_words move the characters of a text, and for "
            f"{task} their positions are the labels: clean the files themselves, "
            "labels included, and leave both out"
        )


def _value(groups: Any, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), groups)


def _default(settings: Any, key: str) -> Any:
    group, _, name = key.partition(".")
    return _value(type(getattr(settings, group))(), name)


def _check_weights(settings: Any) -> None:
    """Looks at what begins the training and what changes it."""
    head, recipe = settings.head, settings.recipe
    if settings.init_from == "none" and settings.init != type(settings.init)():
        raise errors.InputError(
            "init asks for weights to start from, and init_from is none: set "
            "--config.init_from=FOLDER"
        )
    if head.objective == "cosine" and head.temperature != _default(
        settings, "head.temperature"
    ):
        raise errors.InputError(
            f"head.temperature is {head.temperature:g}, which is for head.objective "
            "in_batch and simcse, and it is cosine: leave it out"
        )
    steps = settings.run.accumulation_steps
    if settings.data.task == "matching" and head.objective != "cosine" and steps > 1:
        raise errors.InputError(
            f"run.accumulation_steps is {steps}: with head.objective {head.objective} "
            "the other pairs of the batch are the wrong answers, so it cannot be "
            "computed in parts"
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
