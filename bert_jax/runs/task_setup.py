"""A task, built from the settings of a run and from what its training data said.

Training, evaluation and prediction build it here alike.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import console, errors
from bert_jax.checkpoints import task_folders
from bert_jax.config import finetuning
from bert_jax.data import text_files
from bert_jax.data.labeled import python_examples, read_examples
from bert_jax.metrics import scores
from bert_jax.model import config as model_config
from bert_jax.model import task_model
from bert_jax.tasks import (
    classification,
    losses,
    matching,
    multiple_choice,
    regression,
    roles,
    span,
    spec,
    tag_schemes,
    tagging,
)
from bert_jax.text.tokenizer import Tokenizer

Settings = finetuning.FinetuningConfig

# The metrics by which the best model is kept, unless the config names one: the first
# that the scores have.
_USUAL = {
    "classification": ("accuracy", "micro_f1"),
    "regression": ("spearman",),
    "tagging": ("entity_f1", "token_accuracy"),
    "srl": ("role_f1",),
    "span": ("f1",),
    "multiple_choice": ("accuracy",),
    "matching": ("spearman", "accuracy", "mrr"),
}
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
    return name or next(x for x in _USUAL[settings.data.task] if x in metrics)


def shown_metric(settings: Settings, labels: Sequence[str], metric: str) -> str:
    """Returns a metric as people read it: of two classes, with the one it is of.

    Args:
      labels: of the model.
    """
    positive, task = "", settings.data.task
    if task == "matching":
        positive = labels[-1] if labels else ""
    elif task == "classification" and not settings.data.multi_label:
        positive = labels[1] if len(labels) == 2 else ""
    return scores.named(metric, console.visible(positive))


def usual_metric(
    settings: Settings, learned: task_folders.Learned, dev: Sequence[Any]
) -> str:
    """Returns the metric by which the best model is kept if the config names none.

    Args:
      learned: its tags are spans of entities, or not.
      dev: examples; their labels or scores decide what matching is measured by.
    """
    task, (name, *others) = settings.data.task, _USUAL[settings.data.task]
    if task == "matching":
        has_score, has_label = dev[0].score is not None, bool(dev[0].labels)
        return name if has_score else others[0] if has_label else others[1]
    is_other = settings.data.multi_label if task == "classification" else False
    if task == "tagging":
        is_other = not learned.scheme
    return others[0] if is_other else name


def is_better(name: str, value: float, best: float | None) -> bool:
    """Says whether a value of a metric is better than the best so far, if there is."""
    if best is None:
        return True
    return value < best if name in LOWER_IS_BETTER else value > best


# Task -> the metric that is the threshold it decides by.
_THRESHOLDS = {"span": "best_f1_threshold", "matching": "threshold"}


def tuned(
    kind: str, learned: task_folders.Learned, metrics: Mapping[str, float]
) -> task_folders.Learned:
    """Returns what a model keeps, with the threshold that is best on the dev data."""
    name = _THRESHOLDS[kind] if kind in _THRESHOLDS else ""
    if name not in metrics:
        return learned
    return dataclasses.replace(learned, threshold=metrics[name])


def request(
    settings: Settings, path: str, *, is_scored: bool = False
) -> read_examples.Request:
    """Returns how a file of the run's task is read, to learn from it or to score."""
    data = settings.data
    return read_examples.Request(
        path=path,
        task=data.task,
        format=data.format,
        header=data.header.lower(),
        columns=_columns(data.columns),
        multi_label=data.multi_label,
        skip_labels=_names(data.skip_labels),
        repair=data.repair,
        strip_digit=data.strip_digit,
        is_scored=is_scored,
    )


def _columns(given: finetuning.ColumnsConfig) -> read_examples.Columns:
    values: dict[str, Any] = dataclasses.asdict(given)
    values["choices"] = _names(given.choices)
    return read_examples.Columns(**values)


def _names(text: str) -> tuple[str, ...]:
    """Returns the names that a text lists with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def learn(
    settings: Settings,
    examples: Sequence[Any],
    given: task_folders.Learned | None = None,
) -> task_folders.Learned:
    """Returns what a task must know of its training examples.

    Args:
      given: what the head that is given has learned; its classes and scale stay.

    Raises:
      InputError: labels are missing, or not those of the config; a class has one
        example only; all scores are equal.
    """
    kind = settings.data.task
    if kind in ("classification", "tagging", "srl") and given is not None:
        return _with_labels(settings, given)
    if kind == "classification":
        return task_folders.Learned(labels=_classes(settings, examples))
    if kind == "regression" and given is not None:
        return given
    if kind in ("regression", "matching"):
        return _scores(settings, examples)
    if kind in ("tagging", "srl"):
        labels, scheme = tagging.learn(examples)
        return task_folders.Learned(labels, scheme)
    if kind == "span":
        unanswered = any(x.impossible for x in examples)
        return task_folders.Learned(impossible=unanswered)
    return task_folders.Learned()


_NUMBERED = re.compile(r"LABEL_\d+")  # what transformers calls classes without names


def _with_labels(
    settings: Settings, given: task_folders.Learned
) -> task_folders.Learned:
    """Returns what a given head has learned, with the names of its classes.

    Raises:
      InputError: it has none and `data.labels` neither, or other ones.
    """
    named, names = given_labels(settings.data.labels), given.labels
    if not named and not names:
        raise errors.InputError(
            f"init.head is given, and {settings.init_from} names no classes: give a "
            f"model for {settings.data.task}, or name those of its head in data.labels"
        )
    are_numbered = all(map(_NUMBERED.fullmatch, names))
    fits = named == names or (are_numbered and len(named) == len(names))
    if named and names and not fits:
        raise errors.InputError(
            f"data.labels names {', '.join(named)}, and the head of "
            f"{settings.init_from} has {', '.join(names)}: leave data.labels out"
        )
    labels, scheme = named or names, given.scheme
    if settings.data.task != "classification":
        scheme = scheme or tag_schemes.of_labels(labels)
    return dataclasses.replace(given, labels=labels, scheme=scheme)


def _classes(settings: Settings, examples: Sequence[Any]) -> tuple[str, ...]:
    """Returns the names of the classes: as given, or those of the examples."""
    counts: collections.Counter[str] = collections.Counter()
    first = {}
    for example in examples:
        for label in example.labels or ():
            counts[label] += 1
            first.setdefault(label, example.where)
    given = given_labels(settings.data.labels)
    if given:
        unknown = [label for label in counts if label not in given]
        if unknown:
            raise classification.unknown_label(
                first[unknown[0]],
                unknown[0],
                given,
                "correct it, add it to data.labels, or set data.repair, which leaves "
                "such examples out",
            )
        return given
    if len(counts) < 2:
        source = python_examples.source_name("train", settings.data.train)
        raise errors.InputError(
            f"{source} has {len(counts)} class ({', '.join(counts)}): "
            "classification needs two or more; is data.columns.label the right column?"
        )
    once = sorted(label for label, count in counts.items() if count == 1)
    if once:
        raise errors.InputError(
            f"{first[once[0]]}: the class {once[0]!r} is seen once: correct it, name "
            "all classes that are meant in data.labels, or set data.repair, which "
            "leaves such examples out"
        )
    return tuple(sorted(counts, key=_by_number))


def without_class(
    kind: str, examples: Sequence[Any], given: tuple[str, ...]
) -> dict[int, str]:
    """Returns the label that is no class, by the position of its example.

    Args:
      given: the classes; without them those of a classification are the labels that
        more than one example has.
    """
    known = set(given)
    if kind == "classification" and not known:
        counts = collections.Counter(x for one in examples for x in one.labels or ())
        known = {label for label, count in counts.items() if count > 1}
    if kind not in ("classification", "matching") or not known:
        return {}
    found = {}
    for at, example in enumerate(examples):
        others = [label for label in example.labels or () if label not in known]
        if others:
            found[at] = others[0]
    return found


def _by_number(label: str) -> tuple[bool, float, str]:
    """Sorts numbers by their size, and before names."""
    number = re.fullmatch(r"-?[0-9]+", label) is not None
    return (not number, float(label) if number else 0.0, label)


def given_labels(text: str) -> tuple[str, ...]:
    """Returns the classes that `data.labels` names, by commas or in a file.

    Raises:
      InputError: a class is named twice, or there is one alone.
    """
    names = text.split(",")
    path = Path(text)
    is_file = os.path.isfile(text)  # Path.is_file raises for names that are too long
    if is_file:
        named = text_files.NamedPath(path.name, path)
        names = [line for _, line in text_files.lines(named, text_files.Tally())]
    labels = tuple(name.strip() for name in names if name.strip())
    twice = [x for x, count in collections.Counter(labels).items() if count > 1]
    if twice:
        raise errors.InputError(f"data.labels names {twice[0]!r} twice")
    if text and len(labels) < 2:
        what = "a file with" if is_file else "no file, and names"
        raise errors.InputError(
            f"data.labels is {text!r}, {what} {len(labels)} class: name two or more "
            "with commas, or a file that has one a line"
        )
    return labels


def named(examples: Sequence[Any], labels: tuple[str, ...]) -> list[Any]:
    """Returns examples whose labels are names, where the file numbers the classes.

    Where a class is named by a number itself, nothing is counted.
    """
    numbers = {str(number): name for number, name in enumerate(labels)}
    if any(label.isdigit() for label in labels):
        numbers = {}

    def name(label: str) -> str:
        return numbers[label] if label in numbers else label

    return [
        example
        if example.labels is None
        else dataclasses.replace(example, labels=tuple(map(name, example.labels)))
        for example in examples
    ]


def _scores(settings: Settings, examples: Sequence[Any]) -> task_folders.Learned:
    """Returns scale and range of scores, or the labels of pairs that have those."""
    given = np.array([x.score for x in examples if x.score is not None], np.float64)
    if not len(given):
        labels = {label for x in examples for label in x.labels or ()}
        given_names = given_labels(settings.data.labels)
        return task_folders.Learned(
            labels=given_names or tuple(sorted(labels, key=_by_number))
        )
    if given.min() == given.max():
        raise errors.InputError(
            f"{examples[0].where}: all {len(given)} scores are {given[0]:g}: there is "
            "nothing to learn; is data.columns.score the right column?"
        )
    return task_folders.Learned(
        mean=float(given.mean()),
        deviation=float(given.std()),
        lowest=float(given.min()),
        highest=float(given.max()),
    )


def head(settings: Settings, learned: task_folders.Learned) -> task_model.Head:
    """Returns what sits on the encoder."""
    given, kind = settings.head, settings.data.task
    kinds = {
        "classification": ("classifier", len(learned.labels)),
        "regression": ("classifier", 1),
        "tagging": ("tagger", len(learned.labels)),
        "srl": ("tagger", len(learned.labels)),
        "span": ("span", 2),
        "multiple_choice": ("multiple_choice", 1),
        "matching": ("vectors", 1),
    }
    name, classes = kinds[kind]
    return task_model.Head(
        name,
        classes,
        given.pooling,
        given.recurrent_size,
        given.crf,
        kind == "srl" and settings.data.predicates == "joint",
        given.dropout,
        given.transform,
    )


def build(
    settings: Settings,
    learned: task_folders.Learned,
    bert: model_config.BertConfig,
    tokenizer: Tokenizer,
    class_weights: tuple[float, ...] = (),
) -> spec.FineTuned:
    """Returns the task.

    Raises:
      InputError: rows are longer than the model's positions, or the head cannot be.
    """
    data = settings.data
    if data.max_seq_length > bert.max_length:
        raise errors.InputError(
            f"data.max_seq_length {data.max_seq_length} exceeds the {bert.max_length} "
            "positions of the model: lower it, or set model.max_position_embeddings "
            "with init.positions"
        )
    model = task_model.TaskModel(bert, settings.execution(), head(settings, learned))
    changes = losses.Recipe(
        settings.recipe.label_smoothing,
        settings.recipe.focal_gamma,
        class_weights,
        settings.recipe.r_drop,
    )
    common: dict[str, Any] = {
        "model": model,
        "tokenizer": tokenizer,
        "max_seq_length": data.max_seq_length,
    }
    if data.task == "span":
        return _span(settings, learned, common | {"recipe": changes})
    if data.task in ("tagging", "srl"):
        kind = tagging.Tagging if data.task == "tagging" else roles.Roles
        return kind(
            **common,
            labels=learned.labels,
            scheme=learned.scheme,
            recipe=changes,
            repair=data.repair,
        )
    common["truncation"] = data.truncation
    if data.task == "classification":
        several = bool(data.multi_label)
        return classification.Classification(
            **common, labels=learned.labels, multi_label=several, recipe=changes
        )
    if data.task == "regression":
        common |= {"mean": learned.mean, "deviation": learned.deviation}
        return regression.Regression(**common, r_drop=changes.r_drop)
    if data.task == "multiple_choice":
        return multiple_choice.MultipleChoice(**common, recipe=changes)
    return matching.Matching(
        **common,
        objective=settings.head.objective,
        lowest=learned.lowest,
        highest=learned.highest,
        temperature=settings.head.temperature,
        labels=learned.labels or ("0", "1"),
        threshold=learned.threshold,
    )


def _span(
    settings: Settings, learned: task_folders.Learned, common: dict[str, Any]
) -> spec.FineTuned:
    data = settings.data
    return span.Span(
        **common,
        doc_stride=data.doc_stride,
        doc_overlap=data.doc_overlap,
        max_answer_length=data.max_answer_length,
        version2=learned.impossible,
        null_threshold=learned.threshold or 0.0,
    )
