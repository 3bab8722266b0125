"""Named arrays in and out of checkpoint files, whatever model they are of.

    found = tensors.read(Path("bert-base-chinese"))
    found.arrays["bert.pooler.dense.bias"].shape     # (768,)
    found.files                                      # {"model.safetensors": "4f1a..."}

The files may come from anywhere. The libraries that read them refuse damage, and
pickles are only read by `torch.load(weights_only=True)`. Checked here is what the
libraries accept: NaN, an archive or a view that is larger than its file (torch), and a
shard outside the folder of its index.
"""

import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from bert_jax import errors
from bert_jax.foundation import files, json_file

SINGLE = "model.safetensors"
INDEX = ".index.json"  # ends the name of an index of shards
# In the order in which `transformers` looks for them.
WEIGHTS = (SINGLE, SINGLE + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)
# Eight-bit floats and packed integers need scales that are stored elsewhere: read as
# weights they would be wrong.
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16)} | {
    name: np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}
AGAIN = "Download or export it again"
_SHOWN = 120  # characters of a name
_CHUNK = 1 << 24  # elements checked at once: 16 MB of booleans
_LFS_POINTER = b"version https://git-lfs"
# Tied weights have two or three names. A larger view is not a model.
_MAX_VIEW = 8
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
# Formats that are not read, by suffix: what they are, what to do instead.
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


@dataclass(frozen=True)
class Tensors:
    """What was read: arrays as stored, C-contiguous, and the digests of the files."""

    arrays: dict[str, np.ndarray]  # by the name in the file, in order of the names
    files: dict[str, str]  # by the name in the folder: sha256 in hexadecimal


def has_weights(folder: Path) -> bool:
    """Returns whether a folder has weights that `read` reads."""
    return any(os.path.lexists(folder / name) for name in WEIGHTS)


def other_format(file: Path) -> errors.InputError | None:
    """Returns the refusal of a file in a known format that is not read, or None.

    The weights of OpenVINO are a .bin file, as those of PyTorch are, next to an .xml
    file of the same name.
    """
    suffix = file.suffix.lower()
    if suffix == ".bin" and file.with_suffix(".xml").is_file():
        suffix = ".xml"
    if suffix not in OTHERS:
        return None
    what, advice = OTHERS[suffix]
    return refusal(file, f"it is {what}, which is not read", advice)


def other_weights(folder: Path) -> errors.InputError | None:
    """Returns the refusal of a folder whose weights are in a format that is not read.

    Of several such files the first in the order of `OTHERS` is named. They may be in
    the folder or, as optimum puts them, in onnx/ or openvino/.
    """
    candidates = [
        file
        for inside in (folder, folder / "onnx", folder / "openvino")
        for file in sorted(inside.glob("*"))
        if file.is_file()
    ]
    for suffix in OTHERS:
        for file in candidates:
            if file.suffix.lower() == suffix:
                return other_format(file)
    return None


def read(path: Path) -> Tensors:
    """Reads a folder's weights, or one file or index of weights.

    Of a folder with several, the safetensors are read, as `transformers` does.

    Raises:
      InputError: a file is missing, damaged or not finite, or not of its format. The
        message has the file and the tensor.
    """
    file = _weights_of(path)
    shards = read_index(file) if file.name.endswith(INDEX) else {file: None}
    digests = {x.name: sha256(x) for x in (file, *shards)}
    arrays: dict[str, np.ndarray] = {}
    for shard, names in shards.items():
        found = _read(shard)
        if names is not None and names != found.keys():
            first = min(names ^ found.keys())
            what = f"it and its index disagree on tensor {quoted(first)}"
            raise refusal(shard, what, "Take the index and its files from one source")
        arrays |= found
    return Tensors({name: arrays[name] for name in sorted(arrays)}, digests)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors of a folder or file by their names.

    Of safetensors only the headers are read.

    Raises:
      InputError: as `read`.
    """
    file = _weights_of(path)
    shards = read_index(file) if file.name.endswith(INDEX) else [file]
    found: dict[str, tuple[int, ...]] = {}
    for shard in shards:
        if shard.suffix == ".safetensors":
            with _opened(shard) as opened:
                names = opened.keys()
                found |= {x: tuple(opened.get_slice(x).get_shape()) for x in names}
        else:
            found |= {name: array.shape for name, array in _read(shard).items()}
    return found


def _weights_of(path: Path) -> Path:
    """Returns the file of weights, or the index, that a folder is read from."""
    if not path.is_dir():
        return path
    for name in WEIGHTS:
        if os.path.lexists(path / name):
            return path / name
    if refused := other_weights(path):
        raise refused
    raise refusal(
        path, f"it has none of {', '.join(WEIGHTS)}", "Give the folder of the weights"
    )


def _read(file: Path) -> dict[str, np.ndarray]:
    """Reads one file by its suffix, in the order of the names."""
    if refused := other_format(file):
        raise refused
    if file.suffix == ".safetensors":
        with _opened(file) as opened:
            arrays = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    elif file.suffix == ".bin":
        arrays = _read_torch(file)
    else:
        raise refusal(
            file,
            f"its name ends in {quoted(file.suffix)}",
            "Give a .safetensors or .bin file, an .index.json, or the folder of one",
        )
    for name, array in arrays.items():
        check_array(file, name, array)
    return arrays


def refusal(path: Path, what: str, advice: str = AGAIN) -> errors.InputError:
    """Returns the error for a file that is not read.

    >>> print(refusal(Path("a.bin"), "it is empty"))
    a.bin is refused: it is empty. Download or export it again.
    """
    return errors.InputError(f"{path} is refused: {what}. {advice}.")


def quoted(name: object) -> str:
    """Returns a name from a file for a message: escaped and cut."""
    if not isinstance(name, str):
        return f"(a {type(name).__name__}, not a string)"
    return repr(name) if len(name) <= _SHOWN else repr(name[:_SHOWN]) + "..."


def check_file(path: Path) -> int:
    """Returns the size of a regular file that can be read and is not empty.

    Raises:
      InputError: it is missing, empty, not a regular file, not readable, or the pointer
        that Git leaves for a large file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise refusal(path, f"it is {kind}", "A file of weights is expected here")
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
    except FileNotFoundError:
        raise refusal(path, "it does not exist", "Give the whole checkpoint") from None
    except (OSError, ValueError) as error:  # a null byte in a name is a ValueError
        what = f"it cannot be read ({getattr(error, 'strerror', error)})"
        raise refusal(path, what, "Change its mode, or move it") from None
    if not start:
        raise refusal(path, "it is empty")
    if start == _LFS_POINTER:
        raise refusal(path, "it is a pointer of Git LFS", "Fetch it with git lfs pull")
    return status.st_size


def sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal, about a second per gigabyte."""
    check_file(path)
    return files.sha256(path)


def check_array(path: Path, name: str, array: np.ndarray) -> None:
    """Raises InputError for an array of another dtype, an empty or a not finite one."""
    advice = AGAIN
    if array.dtype not in DTYPES.values():
        what = f"has the dtype {array.dtype}"
    elif array.size == 0:
        what = "has no elements"
        advice = "Gather a model that was trained in parts before you export it"
    elif count := _not_finite(array):
        what = f"holds {count:,} NaN or infinite values of {array.size:,}"
        advice = "Its training diverged: take an earlier checkpoint"
    else:
        return
    raise refusal(path, f"tensor {quoted(name)} {what}", advice)


def _not_finite(array: np.ndarray) -> int:
    """Counts NaN and infinite values in chunks, so that the memory stays bounded."""
    if array.dtype.kind in "biu":
        return 0
    flat = array.reshape(-1)
    chunks = (flat[at : at + _CHUNK] for at in range(0, flat.size, _CHUNK))
    with np.errstate(invalid="ignore"):  # a signalling NaN of bfloat16
        return sum(chunk.size - int(np.isfinite(chunk).sum()) for chunk in chunks)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file; what the library refuses is an InputError."""
    check_file(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            if not file.keys():
                raise refusal(path, "it holds no tensors")
            yield file
    except errors.InputError:
        raise
    except Exception as error:  # its own, and those of numpy for shapes and dtypes
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise refusal(path, f"it is damaged ({reason})") from None


def write_safetensors(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays so that `read` and `transformers` load them, always the same bytes.

    Args:
      path: the file, such as `folder/model.safetensors`; the folder exists.
      arrays: of the dtypes in `DTYPES`, finite; any strides.
      metadata: strings for the header; by default what `transformers` requires.

    Raises:
      InputError: an array could not be read again.
      StorageError: the disk refuses it.
    """
    for name, array in arrays.items():
        check_array(path, name, array)
    # The library writes the memory of an array, whatever its strides.
    given = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = safetensors.numpy.save(given, dict(metadata or {"format": "pt"}))
    with files.writing(path) as file:
        file.write(content)


def read_index(path: Path) -> dict[Path, set[str]]:
    """Reads which tensors are in which file; all the files are there, in the folder.

    Raises:
      InputError: the index is damaged, names a file outside its folder, or one that is
        missing.
    """
    check_file(path)
    match json_file.read_object(path):
        case {"weight_map": dict(weight_map)} if weight_map:
            pass
        case _:
            raise refusal(path, "it has no 'weight_map' with tensors")
    suffix = Path(path.name.removesuffix(INDEX)).suffix
    shards: dict[Path, set[str]] = {}
    for name, shard in weight_map.items():
        is_name = isinstance(shard, str) and shard == os.path.basename(shard)
        if not is_name or not shard.endswith(suffix) or not shard.isprintable():
            raise refusal(
                path,
                f"it puts tensor {quoted(name)} in {quoted(shard)}, "
                f"which is not the name of a '{suffix}' file next to it",
                "Move the files into one folder and correct the index",
            )
        shards.setdefault(path.parent / shard, set()).add(name)
    for shard in shards:
        check_file(shard)
    return dict(sorted(shards.items()))


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads a saved dictionary of tensors, in the order of the names, C-contiguous.

    Both formats of torch are read, zip and the older pickle.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise errors.missing_extra("torch", "torch") from None
    size = check_file(path)
    _check_zip(path, size)
    try:
        with warnings.catch_warnings(action="ignore"):  # of older and damaged pickles
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle makes of the reader
        raise _unreadable(path, error) from None
    _check_state(path, state, size)
    return {name: _array(state[name]) for name in sorted(state)}


def _check_zip(path: Path, size: int) -> None:
    """Raises InputError for a zip file that unpacks to more than it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return  # an older pickle, or damage, which torch refuses
    if unpacked > size:
        raise refusal(path, "its archive unpacks to more than the file")


def _unreadable(path: Path, error: Exception) -> errors.InputError:
    """Returns the error for a pickle that is damaged or holds other objects."""
    name = re.search(r"GLOBAL ([\w.]+)", str(error))
    if name is None:
        return refusal(path, f"it is damaged ({type(error).__name__})")
    return refusal(
        path,
        f"it asks for the object {quoted(name[1])}, and only tensors are read",
        "Export the weights as safetensors, or save only its state_dict()",
    )


def _check_state(path: Path, state: Any, size: int) -> None:
    """Raises InputError unless all is plain tensors in memory under strings."""
    import torch  # pyright: ignore[reportMissingImports]

    advice = "Save only the model's state_dict()"
    if not isinstance(state, dict) or not state:
        raise refusal(path, "it is not a dictionary of tensors", advice)
    for name, tensor in state.items():
        if not isinstance(name, str):
            what = f"the name of a tensor is {quoted(name)}"
        elif not isinstance(tensor, torch.Tensor):
            what = f"{quoted(name)} is a {type(tensor).__name__}, not a tensor"
        elif tensor.layout != torch.strided or tensor.device.type != "cpu":
            what = f"tensor {quoted(name)} is sparse or has no values"
        elif str(tensor.dtype).removeprefix("torch.") not in DTYPES:
            what = f"tensor {quoted(name)} has the dtype {tensor.dtype}"
        else:
            continue
        raise refusal(path, what, advice)
    shown = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if shown > _MAX_VIEW * size:
        raise refusal(path, f"its tensors need {shown:,} bytes and it has {size:,}")


def _array(tensor: Any) -> np.ndarray:
    """Returns a tensor's values in C order; torch has no bfloat16 for numpy."""
    import torch  # pyright: ignore[reportMissingImports]

    tensor = tensor.detach().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
