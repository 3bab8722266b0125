"""The folder of a fine-tuned model: weights, tokenizer, and what its task must know.

`model.json` and `parameters.safetensors` are those of `formats.native`; `task.json` has
the settings of the run, what its training data said (the labels and their like) and the
sha256 of all other files. A run keeps its best model in `best/<step>/`.
"""

import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from bert_jax import errors, files, hub, json_file, tasks
from bert_jax.checkpoints import (
    huggingface,
    mapping,
    native,
    sentence_encoder,
    tensors,
    weights,
)
from bert_jax.config import finetuning
from bert_jax.model import config as model_config
from bert_jax.tasks import spec
from bert_jax.text.tokenizer import Tokenizer

TASK, FORMAT = "task.json", "bert_jax task 1"
BEST = "best"


@dataclasses.dataclass(frozen=True, eq=False)
class TaskFolder:
    """A fine-tuned model as it lies in its folder.

    Attributes:
      params: numpy arrays; the vocabulary has no padding.
      metrics: of the dev data, when it was kept.
    """

    settings: finetuning.FinetuningConfig
    learned: spec.Metadata
    bert: model_config.BertConfig
    params: PyTree
    tokenizer: Tokenizer
    metrics: dict[str, float]


def is_task(folder: Path) -> bool:
    """Says whether a folder holds a fine-tuned model, or the run that made it."""
    return (folder / TASK).is_file() or best(folder) is not None


def best(workdir: Path) -> Path | None:
    """Returns the folder of the best model of a run, or None if there is none yet."""
    folder = workdir / BEST
    if not folder.is_dir():
        return None
    steps = [
        x for x in folder.iterdir() if x.is_dir() and re.fullmatch("[0-9]+", x.name)
    ]
    return max(steps, key=lambda entry: int(entry.name), default=None)


def write_best(workdir: Path, step: int, made: TaskFolder) -> None:
    """Writes the best model of a run in place of the one before.

    Raises:
      StorageError: the disk refuses it; the one before is then still there.
    """
    target = workdir / BEST / str(step)
    shutil.rmtree(target, ignore_errors=True)
    write(target, made)
    for entry in target.parent.iterdir():
        if entry != target and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry != target:  # the lock of a process that was killed
            entry.unlink()


def write(folder: Path, made: TaskFolder) -> None:
    """Writes a fine-tuned model into a folder that is not there yet.

    Raises:
      InputError: the folder is there, or a parameter is not finite.
      StorageError: the disk refuses it.
    """
    given = weights.Weights(
        made.bert,
        made.params,
        made.learned.labels if _named(made) else (),
        _problem_type(made.settings) if "classifier" in made.params else "",
        made.settings.head.dropout if made.settings.data.task != "matching" else None,
    )
    with files.building_folder(folder) as unfinished:
        native.write(unfinished, given, dtype="float32")
        made.tokenizer.save(unfinished)
        _write_record(unfinished, made, _sums(unfinished))


def write_exported(folder: Path, source: Path) -> None:
    """Writes the record of a fine-tuned model beside its weights in another format.

    Does nothing unless `source` is a fine-tuned model. The weights in `folder` give
    scores on their own scale (`on_scale`). The names of classes in a config.json may be
    changed by hand, so the files of other libraries have no checksums.
    """
    if not is_task(source):
        return
    made = read(source)
    exported = dataclasses.replace(made.learned, mean=0.0, deviation=1.0)
    is_ours = (folder / native.CONFIG).is_file()
    made = dataclasses.replace(made, learned=exported)
    _write_record(folder, made, _sums(folder) if is_ours else {})


def _sums(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file of a folder."""
    paths = (x for x in sorted(folder.iterdir()) if x.is_file())
    return {x.name: files.sha256(x) for x in paths}


def _write_record(folder: Path, made: TaskFolder, sums: Mapping[str, str]) -> None:
    tree: dict[str, Any] = {
        "format": FORMAT,
        "settings": finetuning.to_dict(made.settings),
        "learned": dataclasses.asdict(made.learned),
        "metrics": made.metrics,
        "files": dict(sums),
    }
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    (folder / TASK).write_text(text, encoding="utf-8")


def _named(made: TaskFolder) -> bool:
    """Says whether the head has one row a label, as those of `native` have."""
    parts = {"classifier", "tagger"} & set(made.params)
    return bool(made.learned.labels and parts)


def _problem_type(settings: finetuning.FinetuningConfig) -> str:
    """Returns what the outputs of a classifier mean, as Hugging Face names it."""
    if settings.data.task == "regression":
        return weights.REGRESSION
    return weights.MULTI_LABEL if settings.data.multi_label else weights.SINGLE_LABEL


def read(folder: Path) -> TaskFolder:
    """Reads a fine-tuned model, or the best one of a run.

    Raises:
      InputError: it is none, or it is damaged.
    """
    wanted = "name the folder of a run of python -m bert_jax.finetune"
    if not folder.exists():
        raise errors.InputError(
            f"{folder} does not exist: {wanted}, or {hub.suggestion(folder)}"
        )
    if not is_task(folder):
        raise errors.InputError(f"{folder} is no fine-tuned model: {wanted}")
    folder = best(folder) or folder
    tree = _record(folder)
    try:
        settings = tasks.check(finetuning.parse_record(tree["settings"]))
        learned = _learned(tree["learned"])
        metrics = {name: float(value) for name, value in tree["metrics"].items()}
        sums = _names(tree["files"]) if "files" in tree else {}  # of before there were
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        errors.InputError,
    ) as error:
        raise errors.InputError(
            f"{folder / TASK} is damaged or was changed by hand: {error}"
        ) from None
    _check_sums(folder, sums)
    is_ours = (folder / native.CONFIG).is_file()
    if not is_ours and huggingface.config_file(folder).is_file():
        return _read_exported(folder, settings, learned, metrics)
    bert, labels, parts = native.read_config(folder)
    raw = tensors.read(folder / native.PARAMETERS).arrays
    lacking = set(parts) - {name.split("/")[0] for name in raw}
    if lacking:
        raise errors.InputError(
            f"{folder / native.PARAMETERS} has no {', '.join(sorted(lacking))}: copy "
            "the folder again"
        )
    params = mapping.unflatten({name: x.astype(np.float32) for name, x in raw.items()})
    tokenizer = Tokenizer.load(folder, require_mask=False)
    if tokenizer.vocab_size > bert.vocab_size:
        raise errors.InputError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size} pieces, and the "
            f"table of embeddings {bert.vocab_size} rows. Copy the whole folder again"
        )
    made = TaskFolder(settings, learned, bert, params, tokenizer, metrics)
    if _named(made) and labels != learned.labels:
        raise errors.InputError(
            f"{folder}: {TASK} names the classes {', '.join(learned.labels)}, and "
            f"{native.CONFIG} {', '.join(labels)}: one was changed. Copy the whole "
            "folder again"
        )
    return made


def _record(folder: Path) -> dict[str, Any]:
    """Returns what task.json says, unchecked but for its format."""
    tree = json_file.read_object(folder / TASK)
    if "format" not in tree or tree["format"] != FORMAT:
        raise errors.InputError(
            f"{folder / TASK} is not of the format {FORMAT!r}: it was written by "
            "another version, or is not of bert_jax"
        )
    return tree


def settings_of(folder: Path) -> finetuning.FinetuningConfig:
    """Returns the settings of a fine-tuned model, without reading its weights.

    Raises:
      InputError: task.json is damaged.
    """
    tree = _record(folder)
    try:
        return tasks.check(finetuning.parse_record(tree["settings"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.InputError(
            f"{folder / TASK} is damaged or was changed by hand: {error}"
        ) from None


def pooling(
    settings: finetuning.FinetuningConfig,
    bert: model_config.BertConfig,
    params: PyTree,
) -> sentence_encoder.Pooling | None:
    """Returns the vectors of a bi-encoder as sentence-transformers would make them.

    Its `cls` is the state of the [CLS] token, ours what the pooler makes of that.
    Returns None for another task, and with a BiLSTM, for which it has no module.

    Args:
      params: its parameters.
    """
    head = settings.head
    if settings.data.task != "matching" or head.recurrent_size:
        return None
    modules: tuple[sentence_encoder.Module, ...] = ()
    if head.pooling == "cls":
        modules = _pooler(bert, params["pooler"])
    return sentence_encoder.Pooling(
        head.pooling,
        max_seq_length=settings.data.max_seq_length,
        is_sentence_encoder=True,
        modules=modules,
        similarity="cosine",
    )


def separate_head(source: Path) -> huggingface.SeparateHead:
    """Returns the head of a fine-tuned model as a linear map of pooled texts.

    That of a regression gives scores on their own scale (`on_scale`).

    Raises:
      InputError: the folder is no fine-tuned model, or its head is another.
    """
    made = read(source)
    if not huggingface.can_separate(made.params):
        raise errors.InputError(
            "--separate_head is for a linear classifier, regression or multiple choice "
            f"on the mean or the maximum of the tokens, and {source} has the parts "
            f"{', '.join(made.params)}: leave the flag out"
        )
    part = next(part for part in huggingface.SEPARATE_PARTS if part in made.params)
    dense, learned = made.params[part]["dense"], made.learned
    scale, shift = np.float32(learned.deviation), np.float32(learned.mean)
    return huggingface.SeparateHead(
        part,
        made.settings.head.pooling,
        np.ascontiguousarray(dense["kernel"].T) * scale,
        dense["bias"] * scale + shift,
        learned.labels if _named(made) else (),
        _problem_type(made.settings),
        made.settings.data.max_seq_length,
    )


_ACTIVATIONS = {"tanh": "Tanh", "gelu": "GELU", "relu": "ReLU"}


def _pooler(
    bert: model_config.BertConfig, params: PyTree
) -> tuple[sentence_encoder.Module, ...]:
    """Returns the modules that compute what `heads.Pooler` does."""
    dense = params["dense"]
    bias = dense["bias"] if "bias" in dense else None
    activation = _ACTIVATIONS[bert.pooler_act]
    made = sentence_encoder.Dense(dense["kernel"], bias, activation)
    if "layer_norm" not in params:
        return (made,)
    norm = params["layer_norm"]
    shift = norm["bias"] if "bias" in norm else np.zeros_like(norm["scale"])
    return made, sentence_encoder.VectorNorm(norm["scale"], shift, bert.layer_norm_eps)


def _read_exported(
    folder: Path,
    settings: finetuning.FinetuningConfig,
    learned: spec.Metadata,
    metrics: dict[str, float],
) -> TaskFolder:
    """Reads a fine-tuned model that was exported to Hugging Face's format.

    The names of its classes are those of config.json, which may have been changed.
    """
    given, _ = huggingface.read(folder)
    tokenizer = Tokenizer.load(folder, require_mask=False)
    params = given.params | huggingface.read_separate_head(folder)
    made = TaskFolder(settings, learned, given.config, params, tokenizer, metrics)
    if not (_named(made) and given.labels):
        return made
    if len(given.labels) != len(learned.labels):
        raise errors.InputError(
            f"{folder}: {TASK} names {len(learned.labels)} classes, and config.json "
            f"{len(given.labels)}: copy the whole folder again"
        )
    learned = dataclasses.replace(learned, labels=given.labels)
    return dataclasses.replace(made, learned=learned)


def _learned(values: Mapping[str, Any]) -> spec.Metadata:
    """Reads what a task has learned; raises ValueError where that cannot be."""
    for name in ("mean", "deviation", "lowest", "highest", "threshold"):
        value = values[name]
        is_number = type(value) in (int, float) and math.isfinite(value)
        if not is_number and (name, value) != ("threshold", None):
            raise ValueError(f"learned has {value!r} for a number")
    if not isinstance(values["labels"], list):
        raise ValueError(f"learned has {values['labels']!r} for labels")
    for value in (*values["labels"], values["scheme"]):
        if not isinstance(value, str):
            raise ValueError(f"learned has {value!r} for a name")
    if values["deviation"] <= 0 or not isinstance(values["impossible"], bool):
        raise ValueError("learned has a value that cannot be")
    return spec.Metadata(**{**values, "labels": tuple(values["labels"])})


def _names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sums of files; raises ValueError for a name outside the folder."""
    for name in values.keys():
        if name != Path(name).name or not name.isprintable():
            raise ValueError(f"{name[:80]!r} is no file of the folder")
    return dict(values)


def _check_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Raises InputError for a file that is not the one that was written."""
    for name, wanted in sums.items():
        path = folder / name
        if not os.path.isfile(path):
            raise errors.InputError(f"{path} is missing: copy the whole folder again")
        if files.sha256(path) != wanted:
            raise errors.InputError(
                f"{path} is not the file that was written with the model (by its "
                "sha256): it was damaged or changed. Copy the whole folder again"
            )


def on_scale(
    folder: Path, given: weights.Weights, report: weights.Report
) -> tuple[weights.Weights, weights.Report]:
    """Returns a regression whose outputs are scores, as other libraries expect.

    Ours are on a scale of the head, which `learned` puts back; all other models are
    returned as they are.
    """
    is_regression = given.problem_type == weights.REGRESSION
    if not (folder / TASK).is_file() or not is_regression:
        return given, report
    learned = read(folder).learned
    dense = given.params["classifier"]["dense"]
    scaled = {
        "kernel": dense["kernel"] * np.float32(learned.deviation),
        "bias": dense["bias"] * np.float32(learned.deviation)
        + np.float32(learned.mean),
    }
    params = given.params | {"classifier": {"dense": scaled}}
    note = (
        f"classifier: on the scale of the scores (times {learned.deviation:g}, plus "
        f"{learned.mean:g})"
    )
    return (
        dataclasses.replace(given, params=params),
        dataclasses.replace(report, notes=(*report.notes, note)),
    )


def check_shapes(params: PyTree, shapes: PyTree, folder: Path) -> None:
    """Raises InputError unless the parameters are those of the task's model."""
    there = {name: x.shape for name, x in mapping.flatten(params).items()}
    wanted = {name: x.shape for name, x in mapping.flatten(shapes).items()}
    names = sorted(there.keys() ^ wanted.keys()) or [
        name for name in wanted if there[name] != wanted[name]
    ]
    if names:
        raise errors.InputError(
            f"{folder}: the parameter {names[0]} is not as the task's model has it: "
            "its files do not belong together. Copy the whole folder again"
        )
