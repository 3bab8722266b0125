"""Our own folders: the parameter tree as it is, and what the task of a model knows.

`model.json` has the BertConfig, the labels and the dtype; `parameters.safetensors` has
one tensor a parameter, under its path, stacked over layers, the vocabulary not padded.
A fine-tuned model also has `task.json`: the settings of its run, what it learned from
the training examples (`tasks.spec.Metadata`), and the sha256 of all other files. A run
keeps its best model in `best/<step>/`.
"""

import dataclasses
import os
import re
import shutil
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
from bert_jax.model import config as model_config
from bert_jax.model import heads as model_heads
from bert_jax.model import network
from bert_jax.tasks import spec
from bert_jax.text.tokenizer import Tokenizer

CONFIG, PARAMETERS = "model.json", "parameters.safetensors"
FORMAT = "bert_jax 1"
TASK, TASK_FORMAT = "task.json", "bert_jax task 1"
BEST = "best"


class BertJaxFiles(weights.ModelFiles):
    """A folder that `write` wrote."""

    format = "bert_jax"

    def describe(self) -> weights.Described:
        """Returns what model.json says."""
        return read_config(self.folder)[0]

    @property
    def head(self) -> str:
        """The head among the parts in model.json."""
        return huggingface.head_among(read_config(self.folder)[1])

    def weights(self, choice: weights.Choice) -> tuple[weights.Weights, weights.Report]:
        """Reads all parameters."""
        return read(self.path, choice)


def read(
    path: Path, choice: weights.Choice = weights.WHOLE
) -> tuple[weights.Weights, weights.Report]:
    """Reads a folder that `write` wrote, or its file of parameters.

    Raises:
      InputError: as `weights.assemble`, or the files are not whole.
    """
    folder = path if path.is_dir() else path.parent
    described, named = read_config(folder)
    _refuse_task_parts(folder, named, choice)
    raw = tensors.read(folder / PARAMETERS)
    own = {*named} & {*network.TASK_PARTS}  # which the choice leaves behind
    arrays = {n: x for n, x in raw.arrays.items() if n.split("/")[0] not in own}
    inside = {name.split("/")[0] for name in arrays} & {*network.PARTS}
    given, report = weights.assemble(
        weights.Found(arrays, str(folder), raw.files),
        described,
        mapping.native_mapping,
        frozenset({"encoder", *named, *inside}) - own,
        choice,
        "bert_jax",
    )
    dropped = tuple(sorted({*report.dropped, *own}))
    return given, dataclasses.replace(report, dropped=dropped)


def _refuse_task_parts(
    folder: Path, named: tuple[str, ...], choice: weights.Choice
) -> None:
    """Raises InputError for parts that only a task's model has, unless ignored."""
    own = [name for name in named if name in network.TASK_PARTS]
    if not {"pooler", model_heads.TRANSFORM} & {*named}:
        # It reads the tokens themselves by a linear map, as a mean or a maximum.
        own += [name for name in huggingface.SEPARATE_PARTS if name in named]
    left = [name for name in own if not weights.matches(name, choice.ignore)]
    if left:
        heads = {*own, *named} - {"encoder", "pooler"}
        way = ""
        if huggingface.can_separate(named):
            way = (
                f"; for transformers, {weights.CONVERT} --to=huggingface "
                f"--separate_head writes it to {huggingface.SEPARATE_HEAD}"
            )
        raise errors.InputError(
            f"{folder} has a head ({', '.join(left)}) that only a task of bert_jax "
            f"computes: finetune, evaluate and predict read it{way}; to have only the "
            f"encoder, {weights.CONVERT} --ignore={','.join(sorted(heads))}"
        )


def read_config(folder: Path) -> tuple[weights.Described, tuple[str, ...]]:
    """Reads what model.json says of the model, and the names of its parts.

    Raises:
      InputError: model.json is missing, or lacks a key.
    """
    path = folder / CONFIG
    tree = _of_format(path, FORMAT)
    labels = tree.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
        raise errors.InputError(f"{path}: labels must be a list of names")
    parts, known = tree.get("parts"), (*network.PARTS, *network.TASK_PARTS)
    if not isinstance(parts, list) or not all(x in known for x in parts):
        raise errors.InputError(
            f"{path}: parts must be a list of some of {', '.join(known)}"
        )
    if not isinstance(tree.get("model"), dict):
        raise errors.InputError(f"{path} has no group 'model'")
    try:
        bert = model_config.from_json(tree["model"])
    except (TypeError, errors.InputError) as error:
        raise errors.InputError(f"{path}: {error}") from None
    head = weights.head_of(tree, "head_dropout", str(path))
    return weights.Described(bert, tuple(labels), *head), tuple(parts)


def _of_format(path: Path, wanted: str) -> dict[str, Any]:
    """Returns the JSON object in a file of ours; only its format is checked."""
    tree = json_file.read_object(path)
    if tree.get("format") != wanted:
        raise errors.InputError(
            f"{path} is not of the format {wanted!r}: it was written by another "
            "version, or is not of bert_jax"
        )
    return tree


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
    arrays = {path: x.astype(tensors.DTYPES[dtype]) for path, x in flat.items()}
    tensors.write_safetensors(folder / PARAMETERS, arrays, {"format": FORMAT})
    json_file.write(folder / CONFIG, tree)


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

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, if the head has one output for each."""
        return self.learned.labels if weights.classifying(self.params) else ()

    @property
    def problem_type(self) -> str:
        """What the outputs of a classifier mean, as Hugging Face names it."""
        if tasks.of(self.settings).is_number:
            return weights.REGRESSION
        multi_label = self.settings.data.multi_label
        return weights.MULTI_LABEL if multi_label else weights.SINGLE_LABEL


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
    gives_vectors = tasks.of(task_model.settings).gives_vectors
    given = weights.Weights(
        task_model.bert,
        task_model.params,
        task_model.labels,
        task_model.problem_type if "classifier" in task_model.params else "",
        None if gives_vectors else task_model.settings.head.dropout,
    )
    with files.building_folder(folder) as unfinished:
        write(unfinished, given, dtype="float32")
        task_model.tokenizer.save(unfinished)
        _write_record(unfinished, task_model)


def write_exported(folder: Path, source: Path) -> None:
    """Writes the record of a fine-tuned model next to its weights in another format.

    Does nothing unless `source` is a fine-tuned model. The weights in `folder` give
    scores on their own scale (`on_scale`).
    """
    if is_task(source):
        task_model = read_task(source)
        learned = dataclasses.replace(task_model.learned, mean=0.0, deviation=1.0)
        _write_record(folder, dataclasses.replace(task_model, learned=learned))


def _write_record(folder: Path, task_model: TaskFolder) -> None:
    """Writes task.json, with the sha256 of every other file of a folder of ours.

    The files of other libraries have none: users change the class names there.
    """
    is_ours = (folder / CONFIG).is_file()
    paths = (x for x in sorted(folder.iterdir()) if x.is_file() and is_ours)
    tree: dict[str, Any] = {
        "format": TASK_FORMAT,
        "settings": finetuning.to_dict(task_model.settings),
        "learned": dataclasses.asdict(task_model.learned),
        "metrics": task_model.metrics,
        "files": {x.name: files.sha256(x) for x in paths},
    }
    json_file.write(folder / TASK, tree)


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
    _check_sums(folder)
    is_ours = (folder / CONFIG).is_file()
    if not is_ours and huggingface.config_file(folder).is_file():
        return _read_exported(folder)
    settings, learned, metrics = read_record(folder)
    described, parts = read_config(folder)
    raw = tensors.read(folder / PARAMETERS).arrays
    lacking = set(parts) - {name.split("/")[0] for name in raw}
    if lacking:
        raise errors.InputError(
            f"{folder / PARAMETERS} has no {', '.join(sorted(lacking))}: copy "
            "the folder again"
        )
    params = mapping.unflatten({name: x.astype(np.float32) for name, x in raw.items()})
    tokenizer = Tokenizer.load(folder, require_mask=False)
    if tokenizer.vocab_size > described.bert.vocab_size:
        raise errors.InputError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size} pieces, and the "
            f"table of embeddings {described.bert.vocab_size} rows. Copy the whole "
            "folder again"
        )
    return TaskFolder(settings, learned, described.bert, params, tokenizer, metrics)


def _read_exported(folder: Path) -> TaskFolder:
    """Reads a fine-tuned model that was exported to Hugging Face's format.

    The names of its classes are those of config.json, which may have been changed.
    """
    settings, learned, metrics = read_record(folder)
    given, _ = huggingface.read(folder)
    tokenizer = Tokenizer.load(folder, require_mask=False)
    params = given.params | huggingface.read_separate_head(folder)
    task_model = TaskFolder(settings, learned, given.config, params, tokenizer, metrics)
    if not (task_model.labels and given.labels):
        return task_model
    if len(given.labels) != len(learned.labels):
        raise errors.InputError(
            f"{folder}: {TASK} names {len(learned.labels)} classes, and config.json "
            f"{len(given.labels)}: copy the whole folder again"
        )
    learned = dataclasses.replace(learned, labels=given.labels)
    return dataclasses.replace(task_model, learned=learned)


def read_record(
    folder: Path,
) -> tuple[finetuning.FinetuningConfig, spec.Metadata, dict[str, float]]:
    """Reads the settings, the metadata and the metrics in task.json.

    Raises:
      InputError: it is damaged, or of another version.
    """
    tree = _of_format(folder / TASK, TASK_FORMAT)
    try:
        settings = tasks.check(finetuning.parse_record(tree["settings"]))
        labels = tuple(tree["learned"]["labels"])
        learned = spec.Metadata(**{**tree["learned"], "labels": labels})
        return settings, learned, dict(tree["metrics"])
    except (KeyError, TypeError, ValueError, AttributeError, errors.InputError) as e:
        raise errors.InputError(
            f"{folder / TASK} is damaged or was changed by hand: {e}"
        ) from None


def _check_sums(folder: Path) -> None:
    """Raises InputError for a file that is not the one that was written."""
    sums = _of_format(folder / TASK, TASK_FORMAT).get("files", {})  # none in old ones
    if not isinstance(sums, dict) or not all(map(_is_inside, sums)):
        raise errors.InputError(f"{folder / TASK} is damaged or was changed: files")
    for name, wanted in sums.items():
        path = folder / name
        if not os.path.isfile(path):  # too long a name raises in `Path.is_file`
            raise errors.InputError(f"{path} is missing: copy the whole folder again")
        if files.sha256(path) != wanted:
            raise errors.InputError(
                f"{path} is not the file that was written with the model (by its "
                "sha256): it was damaged or changed. Copy the whole folder again"
            )


def _is_inside(name: str) -> bool:
    """Returns whether a name from a file is that of a file inside the folder."""
    path = Path(name)
    return name.isprintable() and not path.is_absolute() and ".." not in path.parts


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


_ACTIVATIONS = {"tanh": "Tanh", "gelu": "GELU", "relu": "ReLU"}


def _pooler(
    bert: model_config.BertConfig, params: PyTree
) -> tuple[sentence_encoder.Module, ...]:
    """Returns the modules that compute what the pooler of `model.heads` does."""
    kernel, bias = params["dense"]["kernel"], params["dense"].get("bias")
    dense = sentence_encoder.Dense(kernel, bias, _ACTIVATIONS[bert.pooler_act])
    if "layer_norm" not in params:
        return (dense,)
    scale = params["layer_norm"]["scale"]
    shift = params["layer_norm"].get("bias", np.zeros_like(scale))
    return dense, sentence_encoder.VectorNorm(scale, shift, bert.layer_norm_eps)


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
    (part,) = {*task_model.params} - {"encoder"}
    dense = _on_scale(task_model.params[part]["dense"], task_model.learned)
    return huggingface.SeparateHead(
        part,
        task_model.settings.head.pooling,
        np.ascontiguousarray(dense["kernel"].T),
        dense["bias"],
        task_model.labels,
        task_model.problem_type,
        task_model.settings.data.max_seq_length,
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
    dense = _on_scale(given.params["classifier"]["dense"], learned)
    params = given.params | {"classifier": {"dense": dense}}
    note = (
        f"classifier: on the scale of the scores (times {learned.deviation:g}, plus "
        f"{learned.mean:g})"
    )
    return (
        dataclasses.replace(given, params=params),
        dataclasses.replace(report, notes=(*report.notes, note)),
    )


def _on_scale(dense: PyTree, learned: spec.Metadata) -> PyTree:
    """Returns a linear map whose outputs have the mean and deviation of the scores."""
    scale, shift = np.float32(learned.deviation), np.float32(learned.mean)
    return {"kernel": dense["kernel"] * scale, "bias": dense["bias"] * scale + shift}


def check_shapes(params: PyTree, shapes: PyTree, folder: Path) -> None:
    """Raises InputError unless the parameters are those of the task's model."""
    there = {name: x.shape for name, x in mapping.flatten(params).items()}
    wanted = {name: x.shape for name, x in mapping.flatten(shapes).items()}
    differing = sorted(name for name, _ in there.items() ^ wanted.items())
    if differing:
        raise errors.InputError(
            f"{folder}: the parameter {differing[0]} is not as the task's model has "
            "it: its files do not belong together. Copy the whole folder again"
        )
