"""Named arrays in and out of checkpoint files; which model they are is not known here.

    found = tensors.read(Path("bert-base-chinese"))
    found.arrays["bert.pooler.dense.bias"].shape     # (768,)
    found.files                                      # {"model.safetensors": "4f1a..."}

Google's TensorFlow 1 checkpoints are in `tensorflow1_file`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_jax import errors
from bert_jax.checkpoints import safetensors_file, shards, torch_file, untrusted

SINGLE = "model.safetensors"
DTYPES = untrusted.DTYPES  # by numpy's names, such as `bfloat16`
# In the order in which `transformers` looks for them.
WEIGHTS = (
    SINGLE,
    SINGLE + shards.SUFFIX,
    "pytorch_model.bin",
    "pytorch_model.bin" + shards.SUFFIX,
)
_SOURCE = "Give the folder of the model that it was exported from"
_TRANSFORMERS = (
    "Convert it with transformers before version 5: "
    "AutoModel.from_pretrained(folder, {}=True).save_pretrained(new_folder), with the "
    "class of the model for AutoModel"
)
_STATE = (
    "Save the model's state_dict() as pytorch_model.bin or model.safetensors, with its "
    "config.json and tokenizer"
)
# Formats that are not read, by how their names end: what they are, what to do instead.
OTHERS: dict[str, tuple[str, str]] = {
    ".h5": ("TensorFlow 2 or Keras weights", _TRANSFORMERS.format("from_tf")),
    ".msgpack": ("Flax weights", _TRANSFORMERS.format("from_flax")),
    ".onnx": ("an ONNX export", _SOURCE),
    ".xml": ("an OpenVINO export", _SOURCE),
    ".gguf": ("a GGUF file of llama.cpp", _SOURCE),
    ".tflite": ("a TensorFlow Lite export", _SOURCE),
    ".keras": ("a Keras model", _SOURCE),
    ".pt": ("a PyTorch file of unknown content", _STATE),
    ".pth": ("a PyTorch file of unknown content", _STATE),
    ".ckpt": ("a checkpoint of PyTorch Lightning or of another program", _STATE),
}
# Tells `transformers` that the layout is PyTorch's; it asks for it.
_LAYOUT = {"format": "pt"}


@dataclass(frozen=True)
class Tensors:
    """What was read: arrays as stored, C-contiguous, and the digests of the files."""

    arrays: dict[str, np.ndarray]  # by the name in the file, in order of the names
    files: dict[str, str]  # by the name in the folder: sha256 in hexadecimal


def has_weights(folder: Path) -> bool:
    """Says whether `read` would find something to read in a folder."""
    return any(os.path.lexists(folder / name) for name in WEIGHTS)


def other_format(file: Path) -> errors.InputError | None:
    """Returns the refusal of a file in a known format that is not read, or None.

    It names the format and what to do. The weights of OpenVINO are a .bin file, as
    those of PyTorch are, beside an .xml file of the same name.
    """
    suffix = file.suffix.lower()
    if suffix == ".bin" and file.with_suffix(".xml").is_file():
        suffix = ".xml"
    if suffix not in OTHERS:
        return None
    what, remedy = OTHERS[suffix]
    return untrusted.refusal(file, f"it is {what}, which is not read", remedy)


def other_weights(folder: Path) -> errors.InputError | None:
    """Returns the refusal of a folder whose weights are in a format that is not read.

    Of several such files the first by name in the order of `OTHERS` is named; they may
    be in the folder or, as optimum puts them, in onnx/ or openvino/.
    """
    files = [
        file
        for place in (folder, folder / "onnx", folder / "openvino")
        if place.is_dir()
        for file in sorted(place.iterdir())
        if file.is_file()
    ]
    for suffix in OTHERS:
        for file in files:
            if file.suffix.lower() == suffix:
                return other_format(file)
    return None


def read(path: Path) -> Tensors:
    """Reads a folder's weights, or one file or index of weights.

    Of a folder with several, the safetensors are read, as `transformers` does.

    Raises InputError, with the file and the tensor, for whatever is missing, damaged,
    not finite, or not what it says it is.
    """
    file = _weights_of(path) if path.is_dir() else path
    if not file.name.endswith(shards.SUFFIX):
        return Tensors(files={file.name: untrusted.sha256(file)}, arrays=_read(file))
    files = {file.name: untrusted.sha256(file)}
    arrays: dict[str, np.ndarray] = {}
    for shard, names in sorted(shards.read_index(file).items()):
        files[shard.name] = untrusted.sha256(shard)
        found = _read(shard)
        shards.check_names(shard, found, names)
        arrays |= found
    return Tensors({name: arrays[name] for name in sorted(arrays)}, files)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors of a folder or file by their names.

    Of safetensors only the headers are read.

    Raises InputError as `read`.
    """
    file = _weights_of(path) if path.is_dir() else path
    files = [file]
    if file.name.endswith(shards.SUFFIX):
        files = sorted(shards.read_index(file))
    made: dict[str, tuple[int, ...]] = {}
    for one in files:
        if one.suffix == ".safetensors":
            header = safetensors_file.read_header(one)
            made |= {name: shape for name, (_, shape) in header.items()}
        else:
            made |= {name: array.shape for name, array in _read(one).items()}
    return made


def _weights_of(folder: Path) -> Path:
    """Returns the file of weights, or the index, that a folder is read from."""
    for name in WEIGHTS:
        if os.path.lexists(folder / name):
            return folder / name
    if refused := other_weights(folder):
        raise refused
    raise untrusted.refusal(
        folder, f"it has none of {', '.join(WEIGHTS)}", "Give the folder of the weights"
    )


def _read(file: Path) -> dict[str, np.ndarray]:
    """Reads one file by the end of its name."""
    if refused := other_format(file):
        raise refused
    match file.suffix:
        case ".safetensors":
            return safetensors_file.read(file)
        case ".bin":
            return torch_file.read(file)
    raise untrusted.refusal(
        file,
        f"its name ends in {untrusted.quoted(file.suffix)}",
        "Give a .safetensors or .bin file, an .index.json, or the folder of one",
    )


def write_safetensors(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
) -> None:
    """Writes arrays so that `read` and `transformers` load them, always the same bytes.

    Args:
      path: the file, such as `folder/model.safetensors`; the folder exists.
      arrays: of the dtypes in `DTYPES`, finite; any strides.
      metadata: strings for the header, beside the one that `transformers` asks for.
      max_shard_bytes: with more bytes of tensors than this, shards and an index.

    Raises:
      InputError: there is nothing to write, or it could not be read again.
      StorageError: the disk refuses it.
    """
    metadata = _LAYOUT | dict(metadata or {})
    total = sum(array.nbytes for array in arrays.values())
    if max_shard_bytes is None or total <= max_shard_bytes:
        safetensors_file.write(path, arrays, metadata)
    else:
        shards.write(path, arrays, metadata, max_shard_bytes)
