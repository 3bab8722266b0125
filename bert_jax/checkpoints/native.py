"""Our own folders: the parameter tree as it is, and what the task of a model knows.

`model.json` has the BertConfig, the labels and the dtype; `parameters.safetensors` has
one tensor a parameter, under its path, stacked over layers, the vocabulary not padded.
A fine-tuned model also has `task.json`: the settings of its run, what it learned from
the training examples (`tasks.spec.Metadata`), and the sha256 of all other files. A run
keeps its best model in `best/<step>/`.
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

from bert_jax import errors, tasks
from bert_jax.checkpoints import (
    huggingface,
    mapping,
    sentence_encoder,
    tensors,
    weights,
)
from bert_jax.config import finetuning
from bert_jax.foundation import files, hub, json_file
from bert_jax.model import config, network
from bert_jax.model import config as model_config
from bert_jax.model import heads as model_heads
from bert_jax.tasks import spec
from bert_jax.text.tokenizer import Tokenizer

CONFIG, PARAMETERS = "model.json", "parameters.safetensors"
FORMAT = "bert_jax 1"
_CLASSIFYING = ("classifier", "tagger")


def read(
    path: Path, choice: weights.Choice | None = None
) -> tuple[weights.Weights, weights.Report]:
    """Reads a folder that `write` wrote, or its file of parameters.

    Raises:
      InputError: as `weights.assemble`, or the files are not whole.
    """
    choice = choice or weights.Choice()
    folder = path if path.is_dir() else path.parent
    bert, labels, named = read_config(folder)
    _refuse_task_parts(folder, named, choice)
    raw = tensors.read(folder / PARAMETERS)
    own = {*named} & {*network.TASK_PARTS}  # which the choice leaves behind
    arrays = {n: x for n, x in raw.arrays.items() if n.split("/")[0] not in own}
    found = weights.Found(arrays, {n: n for n in arrays}, str(folder))
    inside = frozenset(name.split("/")[0] for name in arrays)
    wanted = frozenset({"encoder", *named}) - {*network.TASK_PARTS}
    wanted |= inside & set(network.PARTS)
    num_labels = _num_labels(found)
    if labels and inside & set(_CLASSIFYING) and len(labels) != num_labels:
        raise errors.InputError(
            f"{folder}: {CONFIG} names {len(labels)} classes, and the head has "
            f"{num_labels}"
        )
    params, report = weights.assemble(
        found,
        lambda of_parts: mapping.native_mapping(bert, of_parts, num_labels),
        wanted,
        choice,
    )
    nested = mapping.unflatten(params)
    task_model = weights.Weights(
        bert,
        nested,
        labels if {*_CLASSIFYING} & {*nested} else (),
        *_head(folder, frozenset(nested)),
    )
    dropped = tuple(sorted({*report.dropped, *own}))
    return task_model, dataclasses.replace(
        report, source="bert_jax", files=raw.files, dropped=dropped
    )


class BertJaxFiles(weights.ModelFiles):
    """A folder that `write` wrote."""

    format = "bert_jax"

    @property
    def config(self) -> config.BertConfig:
        """The architecture in model.json."""
        return read_config(self.folder)[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes in model.json."""
        return read_config(self.folder)[1]

    @property
    def head(self) -> str:
        """The head among the parts in model.json."""
        return huggingface.head_among(read_config(self.folder)[2])

    def weights(self, choice: weights.Choice) -> tuple[weights.Weights, weights.Report]:
        """Reads all parameters."""
        return read(self.path, choice)


def _refuse_task_parts(
    folder: Path, named: tuple[str, ...], choice: weights.Choice
) -> None:
    """Raises InputError for parts that only a task's model has, unless ignored."""
    own = [name for name in named if name in network.TASK_PARTS]
    if not {"pooler", model_heads.TRANSFORM} & {*named}:
        # It reads the tokens themselves by a linear map, as a mean or a maximum.
        own += [
            name
            for name in ("classifier", model_heads.MULTIPLE_CHOICE)
            if name in named
        ]
    left = [name for name in own if not weights.matches(name, choice.ignore)]
    if left:
        heads = {*own, *named} - {"encoder", "pooler"}
        way = ""
        if huggingface.can_separate(named):
            way = (
                f"; for transformers, {weights.CONVERT} --to=huggingface "
                f"--separate_head writes it to {huggingface.SEPARATE_HEAD}, with "
                "the code that computes it in README.md"
            )
        raise errors.InputError(
            f"{folder} has a head ({', '.join(left)}) that only a task of bert_jax "
            f"computes: finetune, evaluate and predict read it{way}; to have only the "
            f"encoder, {weights.CONVERT} --ignore={','.join(sorted(heads))}"
        )


def write(folder: Path, given: weights.Weights, *, dtype: str) -> None:
    """Writes the two files into a folder that is there."""
    tree = {
        "format": FORMAT,
        "model": dataclasses.asdict(given.config),
        "labels": list(given.labels),
        "parts": list(given.parts),
        "problem_type": given.problem_type,
        "head_dropout": given.head_dropout,
    }
    flat = mapping.flatten(given.params)
    task_model = {path: x.astype(tensors.DTYPES[dtype]) for path, x in flat.items()}
    tensors.write_safetensors(folder / PARAMETERS, task_model, {"format": FORMAT})
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _head(folder: Path, parts: frozenset[str]) -> tuple[str, float | None]:
    """Returns problem type and dropout of a head in the config, if it is there."""
    path = folder / CONFIG
    kind, dropout = weights.head_of(
        json_file.read_object(path), "head_dropout", str(path)
    )
    has_dropout = {*_CLASSIFYING, model_heads.MULTIPLE_CHOICE} & parts
    return (kind if "classifier" in parts else "", dropout if has_dropout else None)


def _num_labels(found: weights.Found) -> int:
    for part in _CLASSIFYING:
        name = f"{part}/dense/bias"
        if name in found.arrays:
            return found.arrays[name].size
    return 2


def read_config(
    folder: Path,
) -> tuple[config.BertConfig, tuple[str, ...], tuple[str, ...]]:
    """Reads the architecture, the labels and the parts of a folder of `write`'s.

    Raises:
      InputError: model.json is missing, or lacks a key.
    """
    path = folder / CONFIG
    tree: dict[str, Any] = json_file.read_object(path)
    if "format" not in tree or tree["format"] != FORMAT:
        raise errors.InputError(
            f"{path} is not of the format {FORMAT!r}: it was written by another "
            "version, or is not a model of bert_jax"
        )
    labels = tree["labels"] if "labels" in tree else []
    if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
        raise errors.InputError(f"{path}: labels must be a list of names")
    parts = tree["parts"] if "parts" in tree else None
    known = (*network.PARTS, *network.TASK_PARTS)
    if not isinstance(parts, list) or not all(x in known for x in parts):
        raise errors.InputError(
            f"{path}: parts must be a list of some of {', '.join(known)}"
        )
    if "model" not in tree or not isinstance(tree["model"], dict):
        raise errors.InputError(f"{path} has no group 'model'")
    try:
        return config.from_json(tree["model"]), tuple(labels), tuple(parts)
    except (TypeError, errors.InputError) as error:
        raise errors.InputError(f"{path}: {error}") from None


TASK, TASK_FORMAT = "task.json", "bert_jax task 1"
BEST = "best"


@dataclasses.dataclass(frozen=True, eq=False)
class TaskFolder:
    """A fine-tuned model as it is stored.

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
    """Returns whether a folder holds a fine-tuned model, or the run that made it."""
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


def write_best(workdir: Path, step: int, task_model: TaskFolder) -> None:
    """Writes the best model of a run and removes the one before.

    Raises:
      StorageError: the disk refuses it; the one before is then still there.
    """
    target = workdir / BEST / str(step)
    shutil.rmtree(target, ignore_errors=True)
    write_task(target, task_model)
    for entry in target.parent.iterdir():
        if entry != target and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry != target:  # the lock of a process that was killed
            entry.unlink()


def write_task(folder: Path, task_model: TaskFolder) -> None:
    """Writes a fine-tuned model into a folder that is not there yet.

    Raises:
      InputError: the folder is there, or a parameter is not finite.
      StorageError: the disk refuses it.
    """
    given = weights.Weights(
        task_model.bert,
        task_model.params,
        task_model.learned.labels if _named(task_model) else (),
        _problem_type(task_model.settings) if "classifier" in task_model.params else "",
        None
        if tasks.of(task_model.settings).gives_vectors
        else task_model.settings.head.dropout,
    )
    with files.building_folder(folder) as unfinished:
        write(unfinished, given, dtype="float32")
        task_model.tokenizer.save(unfinished)
        _write_record(unfinished, task_model, _sums(unfinished))


def write_exported(folder: Path, source: Path) -> None:
    """Writes the record of a fine-tuned model next to its weights in another format.

    Does nothing unless `source` is a fine-tuned model. The weights in `folder` give
    scores on their own scale (`on_scale`). The names of classes in a config.json may be
    changed by hand, so the files of other libraries have no checksums.
    """
    if not is_task(source):
        return
    task_model = read_task(source)
    exported = dataclasses.replace(task_model.learned, mean=0.0, deviation=1.0)
    is_ours = (folder / CONFIG).is_file()
    task_model = dataclasses.replace(task_model, learned=exported)
    _write_record(folder, task_model, _sums(folder) if is_ours else {})


def _sums(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file of a folder."""
    paths = (x for x in sorted(folder.iterdir()) if x.is_file())
    return {x.name: files.sha256(x) for x in paths}


def _write_record(
    folder: Path, task_model: TaskFolder, sums: Mapping[str, str]
) -> None:
    tree: dict[str, Any] = {
        "format": TASK_FORMAT,
        "settings": finetuning.to_dict(task_model.settings),
        "learned": dataclasses.asdict(task_model.learned),
        "metrics": task_model.metrics,
        "files": dict(sums),
    }
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    (folder / TASK).write_text(text, encoding="utf-8")


def _named(task_model: TaskFolder) -> bool:
    """Returns whether the head has one row a label, as those of `native` have."""
    parts = {"classifier", "tagger"} & set(task_model.params)
    return bool(task_model.learned.labels and parts)


def _problem_type(settings: finetuning.FinetuningConfig) -> str:
    """Returns what the outputs of a classifier mean, as Hugging Face names it."""
    if tasks.of(settings).is_number:
        return weights.REGRESSION
    return weights.MULTI_LABEL if settings.data.multi_label else weights.SINGLE_LABEL


def read_task(folder: Path) -> TaskFolder:
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
        raise errors.InputError(f"{folder} is not a fine-tuned model: {wanted}")
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
    is_ours = (folder / CONFIG).is_file()
    if not is_ours and huggingface.config_file(folder).is_file():
        return _read_exported(folder, settings, learned, metrics)
    bert, labels, parts = read_config(folder)
    raw = tensors.read(folder / PARAMETERS).arrays
    lacking = set(parts) - {name.split("/")[0] for name in raw}
    if lacking:
        raise errors.InputError(
            f"{folder / PARAMETERS} has no {', '.join(sorted(lacking))}: copy "
            "the folder again"
        )
    params = mapping.unflatten({name: x.astype(np.float32) for name, x in raw.items()})
    tokenizer = Tokenizer.load(folder, require_mask=False)
    if tokenizer.vocab_size > bert.vocab_size:
        raise errors.InputError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size} pieces, and the "
            f"table of embeddings {bert.vocab_size} rows. Copy the whole folder again"
        )
    task_model = TaskFolder(settings, learned, bert, params, tokenizer, metrics)
    if _named(task_model) and labels != learned.labels:
        raise errors.InputError(
            f"{folder}: {TASK} names the classes {', '.join(learned.labels)}, and "
            f"{CONFIG} {', '.join(labels)}: one was changed. Copy the whole "
            "folder again"
        )
    return task_model


def _record(folder: Path) -> dict[str, Any]:
    """Returns the content of task.json; only its format is checked."""
    tree = json_file.read_object(folder / TASK)
    if "format" not in tree or tree["format"] != TASK_FORMAT:
        raise errors.InputError(
            f"{folder / TASK} is not of the format {TASK_FORMAT!r}: it was written by "
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


def task_pooling(
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
    if not tasks.of(settings).gives_vectors or head.recurrent_size:
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
      InputError: the folder is not a fine-tuned model, or has another head.
    """
    task_model = read_task(source)
    if not huggingface.can_separate(task_model.params):
        raise errors.InputError(
            "--separate_head is for a linear classifier, regression or multiple choice "
            f"on the mean or the maximum of the tokens, and {source} has the parts "
            f"{', '.join(task_model.params)}: leave the flag out"
        )
    part = next(
        part for part in huggingface.SEPARATE_PARTS if part in task_model.params
    )
    dense, learned = task_model.params[part]["dense"], task_model.learned
    scale, shift = np.float32(learned.deviation), np.float32(learned.mean)
    return huggingface.SeparateHead(
        part,
        task_model.settings.head.pooling,
        np.ascontiguousarray(dense["kernel"].T) * scale,
        dense["bias"] * scale + shift,
        learned.labels if _named(task_model) else (),
        _problem_type(task_model.settings),
        task_model.settings.data.max_seq_length,
    )


_ACTIVATIONS = {"tanh": "Tanh", "gelu": "GELU", "relu": "ReLU"}


def _pooler(
    bert: model_config.BertConfig, params: PyTree
) -> tuple[sentence_encoder.Module, ...]:
    """Returns the modules that compute what `heads.Pooler` does."""
    dense = params["dense"]
    bias = dense["bias"] if "bias" in dense else None
    activation = _ACTIVATIONS[bert.pooler_act]
    task_model = sentence_encoder.Dense(dense["kernel"], bias, activation)
    if "layer_norm" not in params:
        return (task_model,)
    norm = params["layer_norm"]
    shift = norm["bias"] if "bias" in norm else np.zeros_like(norm["scale"])
    return task_model, sentence_encoder.VectorNorm(
        norm["scale"], shift, bert.layer_norm_eps
    )


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
    task_model = TaskFolder(settings, learned, given.config, params, tokenizer, metrics)
    if not (_named(task_model) and given.labels):
        return task_model
    if len(given.labels) != len(learned.labels):
        raise errors.InputError(
            f"{folder}: {TASK} names {len(learned.labels)} classes, and config.json "
            f"{len(given.labels)}: copy the whole folder again"
        )
    learned = dataclasses.replace(learned, labels=given.labels)
    return dataclasses.replace(task_model, learned=learned)


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
            raise ValueError(f"{name[:80]!r} is not a file of the folder")
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
    learned = read_task(folder).learned
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
