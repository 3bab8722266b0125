"""Our own folder of exchange: the parameter tree as it is, and a config.

`model.json` has the BertConfig, the labels and the dtype; `parameters.safetensors` has
one tensor a parameter, under its path, stacked over layers, the vocabulary not padded.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bert_jax import errors, json_file
from bert_jax.formats import places, tensors, weights
from bert_jax.model import config
from bert_jax.model import parts as model_parts

CONFIG, PARAMETERS = "model.json", "parameters.safetensors"
FORMAT = "bert_jax 1"


def read(
    path: Path, choice: weights.Choice | None = None
) -> tuple[weights.Weights, weights.Report]:
    """Reads a folder that `write` wrote, or its file of parameters.

    Raises:
      InputError: as `weights.assemble`, or the files are not whole.
    """
    choice = choice or weights.Choice()
    folder = path if path.is_dir() else path.parent
    bert, labels = read_config(folder)
    raw = tensors.read(folder / PARAMETERS)
    found = weights.Found(raw.arrays, {n: n for n in raw.arrays}, str(folder))
    wanted = frozenset({"encoder"} | {name.split("/")[0] for name in raw.arrays})
    known = wanted & set(model_parts.PARTS)
    num_labels = _num_labels(found)
    if labels and len(labels) != num_labels:
        raise errors.InputError(
            f"{folder}: {CONFIG} names {len(labels)} classes, and the head has "
            f"{num_labels}"
        )
    params, report = weights.assemble(
        found, lambda of_parts: places.native(bert, of_parts, num_labels), known, choice
    )
    made = weights.Weights(bert, places.nested(params), labels)
    return made, dataclasses.replace(report, source="bert_jax", files=raw.files)


def write(folder: Path, given: weights.Weights, *, dtype: str) -> None:
    """Writes the two files into a folder that is there."""
    tree = {
        "format": FORMAT,
        "model": dataclasses.asdict(given.config),
        "labels": list(given.labels),
        "parts": list(given.parts),
    }
    flat = places.flat(given.params)
    made = {path: x.astype(tensors.DTYPES[dtype]) for path, x in flat.items()}
    tensors.write_safetensors(folder / PARAMETERS, made, {"format": FORMAT})
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _num_labels(found: weights.Found) -> int:
    for part in ("classifier", "tagger"):
        name = f"{part}/dense/bias"
        if name in found.arrays:
            return found.arrays[name].size
    return 2


def read_config(folder: Path) -> tuple[config.BertConfig, tuple[str, ...]]:
    """Reads the architecture and the labels of a folder that `write` wrote.

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
    if "model" not in tree or not isinstance(tree["model"], dict):
        raise errors.InputError(f"{path} has no group 'model'")
    try:
        return config.from_json(tree["model"]), tuple(labels)
    except (TypeError, errors.InputError) as error:
        raise errors.InputError(f"{path}: {error}") from None
