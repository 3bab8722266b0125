"""Named arrays in and out of checkpoint files, whatever model they are of.

    found = tensors.read(Path("bert-base-chinese"))
    found.arrays["bert.pooler.dense.bias"].shape     # (768,)
    found.files                                      # {"model.safetensors": "4f1a..."}

The files may come from anywhere. The libraries that read them refuse damage. Checked
here is what they accept: a tensor that is listed twice (safetensors), an archive or a
view that is larger than its file (torch), NaN, and a shard outside the folder of its
index. Pickles are only read by `torch.load(weights_only=True)`.
"""

import json
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from bert_jax import errors, files, json_file

SINGLE = "model.safetensors"
INDEX = ".index.json"  # ends the name of an index of shards
# In the order in which `transformers` looks for them.
WEIGHTS = (SINGLE, SINGLE + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)
# By the names of safetensors. Eight-bit floats and packed integers need scales that are
# stored elsewhere: read as weights they would be wrong.
_CODES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "I8": "int8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "U8": "uint8",
}
DTYPES = {
    name: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    for name in _CODES.values()
}
AGAIN = "Download or export it again"
_METADATA = "__metadata__"
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
# `transformers` requires it: the layout of the tensors is that of PyTorch.
_LAYOUT = {"format": "pt"}


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

    It names the format and what to do. The weights of OpenVINO are a .bin file, as
    those of PyTorch are, next to an .xml file of the same name.
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

    Of several such files the first by name in the order of `OTHERS` is named; they may
    be in the folder or, as optimum puts them, in onnx/ or openvino/.
    """
    candidates = [
        file
        for inside in (folder, folder / "onnx", folder / "openvino")
        if inside.is_dir()
        for file in sorted(inside.iterdir())
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
    file = _weights_of(path) if path.is_dir() else path
    if not file.name.endswith(INDEX):
        return Tensors(files={file.name: sha256(file)}, arrays=_read(file))
    digests = {file.name: sha256(file)}
    arrays: dict[str, np.ndarray] = {}
    for shard, names in sorted(read_index(file).items()):
        digests[shard.name] = sha256(shard)
        found = _read(shard)
        _check_names(shard, found, names)
        arrays |= found
    return Tensors({name: arrays[name] for name in sorted(arrays)}, digests)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors of a folder or file by their names.

    Of safetensors only the headers are read.

    Raises:
      InputError: as `read`.
    """
    file = _weights_of(path) if path.is_dir() else path
    shards = sorted(read_index(file)) if file.name.endswith(INDEX) else [file]
    found: dict[str, tuple[int, ...]] = {}
    for shard in shards:
        if shard.suffix == ".safetensors":
            with _opened(shard) as opened:
                names = opened.keys()
                found |= {x: tuple(opened.get_slice(x).get_shape()) for x in names}
        else:
            found |= {name: array.shape for name, array in _read(shard).items()}
    return found


def _weights_of(folder: Path) -> Path:
    """Returns the file of weights, or the index, that a folder is read from."""
    for name in WEIGHTS:
        if os.path.lexists(folder / name):
            return folder / name
    if refused := other_weights(folder):
        raise refused
    raise refusal(
        folder, f"it has none of {', '.join(WEIGHTS)}", "Give the folder of the weights"
    )


def _read(file: Path) -> dict[str, np.ndarray]:
    """Reads one file by its suffix."""
    if refused := other_format(file):
        raise refused
    match file.suffix:
        case ".safetensors":
            return _read_safetensors(file)
        case ".bin":
            return _read_torch(file)
    raise refusal(
        file,
        f"its name ends in {quoted(file.suffix)}",
        "Give a .safetensors or .bin file, an .index.json, or the folder of one",
    )


def refusal(path: Path, what: str, advice: str = AGAIN) -> errors.InputError:
    """Returns the error for a file that is not read.

    >>> print(refusal(Path("a.bin"), "it is empty"))
    a.bin is refused: it is empty. Download or export it again.
    """
    return errors.InputError(f"{path} is refused: {what}. {advice}.")


def quoted(name: object) -> str:
    """Returns a name from a file for a message: escaped, cut, and never evaluated.

    >>> print(quoted("a\\n"), quoted(("a", 1)))
    'a\\n' (a tuple, not a string)
    """
    if not isinstance(name, str):
        return f"(a {type(name).__name__}, not a string)"
    return repr(name) if len(name) <= _SHOWN else repr(name[:_SHOWN]) + "..."


def check_file(path: Path) -> int:
    """Returns the size of a regular file that can be read and is not empty.

    Raises:
      InputError: it is missing or empty, a folder, a pipe or a device, may not be read,
        or is the pointer that Git leaves for a large file.
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
    except (OSError, ValueError) as error:
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
    if array.dtype not in DTYPES.values():
        raise refusal(path, f"tensor {quoted(name)} has the dtype {array.dtype}")
    if array.size == 0:
        raise refusal(
            path,
            f"tensor {quoted(name)} has no elements",
            "Gather a model that was trained in parts before you export it",
        )
    if count := _not_finite(array):
        raise refusal(
            path,
            f"tensor {quoted(name)} holds {count:,} NaN or infinite values "
            f"of {array.size:,}",
            "Its training diverged: take an earlier checkpoint",
        )


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
    """Opens a safetensors file; what the library refuses is an InputError.

    The library takes a tensor that is listed twice, which the header is read for.
    """
    check_file(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            with path.open("rb") as raw:
                length = int.from_bytes(raw.read(8), "little")
                names = json_file.parse_object(raw.read(length), str(path))
            if not names.keys() - {_METADATA}:
                raise refusal(path, "it holds no tensors")
            yield file
    except errors.InputError:
        raise
    except Exception as error:  # its own, and those of numpy for shapes and dtypes
        reason = (
            str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        )
        raise refusal(path, f"it is damaged ({reason})") from None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a file, in the order of the names."""
    with _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    for name, array in arrays.items():
        check_array(path, name, array)
    return arrays


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
      metadata: strings for the header, next to the one that `transformers` asks for.
      max_shard_bytes: with more bytes of tensors than this, shards and an index.

    Raises:
      InputError: there is nothing to write, or it could not be read again.
      StorageError: the disk refuses it.
    """
    metadata = _LAYOUT | dict(metadata or {})
    total = sum(array.nbytes for array in arrays.values())
    if max_shard_bytes is None or total <= max_shard_bytes:
        _write_file(path, arrays, metadata)
    else:
        _write_shards(path, arrays, metadata, max_shard_bytes)


def _write_file(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file that appears whole, the same bytes for the same arrays.

    The widest dtypes come first, then the order of the names, so that all are aligned.

    Raises:
      InputError: nothing to write, or what `check_array` refuses.
      StorageError: the disk refuses it.
    """
    if not arrays or _METADATA in arrays:
        raise refusal(path, f"no tensors, or one called {_METADATA}", "Rename")
    for name, array in arrays.items():
        check_array(path, name, array)
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    with files.writing(path) as file:
        header = _header({name: arrays[name] for name in order}, metadata)
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            flat = np.asarray(arrays[name], order="C").reshape(-1)
            file.write(flat.view(np.uint8).data)


def _header(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the header, filled with spaces so that the tensors begin aligned."""
    codes = {name: code for code, name in _CODES.items()}
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))}
    begin = 0
    for name, array in arrays.items():
        end = begin + array.nbytes
        header[name] = {
            "dtype": codes[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return text + b" " * (-len(text) % 8)


def read_index(path: Path) -> dict[Path, set[str]]:
    """Reads which tensors are in which file; all the files are there, in the folder.

    Raises:
      InputError: the index is damaged, names a file outside its folder, or one that is
        missing.
    """
    check_file(path)
    index = json_file.read_object(path)
    match index:
        case {"weight_map": dict(weight_map)} if weight_map:
            pass
        case _:
            raise refusal(path, "it has no 'weight_map' with tensors")
    shards: dict[Path, set[str]] = {}
    known: dict[str, Path] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard not in known:
            known[shard] = _inside(path, name, shard)
        shards.setdefault(known[shard], set()).add(name)
    return shards


def _inside(index: Path, name: str, shard: object) -> Path:
    """Returns the file of a name in an index, which is in the folder of the index."""
    suffix = Path(index.name.removesuffix(INDEX)).suffix
    if (
        not isinstance(shard, str)
        or not shard.endswith(suffix)
        or any(character in shard for character in "/\\:\0")
        or not shard.isprintable()
    ):
        raise refusal(
            index,
            f"it puts tensor {quoted(name)} in {quoted(shard)}, "
            f"which is not the name of a '{suffix}' file next to it",
            "Move the files into one folder and correct the index",
        )
    file = index.parent / shard
    check_file(file)
    return file


def _check_names(shard: Path, found: Collection[str], expected: set[str]) -> None:
    """Raises InputError unless a shard holds the tensors of the index and no others."""
    for names, what in [
        (expected - set(found), "lacks a tensor that the index puts there"),
        (set(found) - expected, "holds a tensor that the index does not put there"),
    ]:
        if names:
            first = quoted(min(names))
            what = f"it {what}: {first} ({len(names):,} in all)"
            raise refusal(shard, what, "Take the index and its files from one source")


def _write_shards(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    max_shard_bytes: int,
) -> None:
    """Writes `model.safetensors` as shards of a size, with their index.

    In the order of the names; a tensor that is larger than a shard has its own. The
    index is removed first and written last: no crash leaves it with mixed files.
    """
    if path.exists():
        advice = "Delete it or choose another folder"
        raise refusal(path, "readers would prefer it to its shards", advice)
    shards = _split(arrays, max_shard_bytes)
    index = path.with_name(path.name + INDEX)
    files.remove(index)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        name = f"{path.stem}-{number:05d}-of-{len(shards):05d}{path.suffix}"
        part = {tensor: arrays[tensor] for tensor in names}
        _write_file(path.with_name(name), part, metadata)
        weight_map |= dict.fromkeys(names, name)
    total = sum(array.nbytes for array in arrays.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    with files.writing(index) as file:
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        file.write(text.encode("utf-8") + b"\n")


def _split(arrays: Mapping[str, np.ndarray], max_shard_bytes: int) -> list[list[str]]:
    """Cuts the names, in order, wherever the next tensor would not fit."""
    shards: list[list[str]] = []
    room = 0
    for name in sorted(arrays):
        room -= arrays[name].nbytes
        if room < 0 or not shards:
            shards.append([])
            room = max_shard_bytes - arrays[name].nbytes
        shards[-1].append(name)
    return shards


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads a saved dictionary of tensors, in the order of the names, C-contiguous.

    Both formats of torch are read, zip and the older pickle.

    Raises:
      InputError: torch is not installed, or the file holds anything else.
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
    _check_state(path, state)
    _check_sizes(path, state, size)
    arrays = {name: _array(state[name]) for name in sorted(state)}
    for name, array in arrays.items():
        check_array(path, name, array)
    return arrays


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


def _check_state(path: Path, state: Any) -> None:
    """Raises InputError unless all is plain tensors in memory under strings."""
    import torch  # pyright: ignore[reportMissingImports]

    if not isinstance(state, dict) or not state:
        what = "it is not a dictionary of tensors"
        raise refusal(path, what, "Save only the model's state_dict()")
    for name, tensor in state.items():
        if not isinstance(name, str):
            what = f"the name of a tensor is {quoted(name)}"
        elif type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            what = f"{quoted(name)} is a {type(tensor).__name__}, not a tensor"
        elif tensor.layout != torch.strided or tensor.device.type != "cpu":
            what = f"tensor {quoted(name)} is sparse or has no values"
        elif _dtype(tensor) not in DTYPES:
            what = f"tensor {quoted(name)} has the dtype {tensor.dtype}"
        else:
            continue
        raise refusal(path, what, "Save only the model's state_dict()")


def _check_sizes(path: Path, state: dict[str, Any], size: int) -> None:
    """Raises InputError when views of the tensors are much larger than the file."""
    shown = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if shown > _MAX_VIEW * size:
        raise refusal(path, f"its tensors need {shown:,} bytes and it has {size:,}")


def _dtype(tensor: Any) -> str:
    """Returns the name of a dtype, which torch and numpy share."""
    return str(tensor.dtype).removeprefix("torch.")


def _array(tensor: Any) -> np.ndarray:
    """Returns a tensor's values in C order; torch has no bfloat16 for numpy."""
    import torch  # pyright: ignore[reportMissingImports]

    tensor = tensor.detach().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
