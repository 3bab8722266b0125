"""Our own folder of exchange: the parameter tree as it is, and a config.

`model.json` has the BertConfig, the labels and the dtype; `parameters.safetensors` has
one tensor a parameter, under its path, stacked over layers, the vocabulary not padded.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bert_jax import errors, json_file
from bert_jax.checkpoints import huggingface, mapping, tensors, weights
from bert_jax.model import config, network
from bert_jax.model import heads as model_heads

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
    made = weights.Weights(
        bert,
        nested,
        labels if {*_CLASSIFYING} & {*nested} else (),
        *_head(folder, frozenset(nested)),
    )
    dropped = tuple(sorted({*report.dropped, *own}))
    return made, dataclasses.replace(
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
        own += [name for name in ("classifier", "multiple_choice") if name in named]
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
    made = {path: x.astype(tensors.DTYPES[dtype]) for path, x in flat.items()}
    tensors.write_safetensors(folder / PARAMETERS, made, {"format": FORMAT})
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _head(folder: Path, parts: frozenset[str]) -> tuple[str, float | None]:
    """Returns what the config says of a head, if it is there."""
    path = folder / CONFIG
    kind, dropout = weights.head_of(
        json_file.read_object(path), "head_dropout", str(path)
    )
    has_dropout = {*_CLASSIFYING, "multiple_choice"} & parts
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
      InputError: model.json is missing, or does not say what it should.
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
