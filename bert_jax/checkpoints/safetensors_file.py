"""Safetensors files: a header of JSON, then the bytes of the tensors, one by one.

The header is checked here against the size of the file, and more strictly than the
library does (which takes a tensor that stands twice); then the library maps the file
into memory and reads. Writing streams the arrays, and gives the same bytes for the
same arrays: a digest of the file is a digest of the model.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from bert_jax import files, json_file
from bert_jax.checkpoints import untrusted

CODES = {
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
# 100,000 tensors; the library takes 100 MB, which as JSON may need 3 GB of memory.
MAX_HEADER = 1 << 24
_MAX_RANK = 32  # numpy has 64
_METADATA = "__metadata__"


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a file, in the order of the names.

    Raises InputError for a file that says anything about itself that is not so, and
    for arrays that `untrusted.check_array` refuses.
    """
    names = read_header(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in sorted(names)}
    except (safetensors.SafetensorError, OSError) as error:
        raise untrusted.refusal(path, f"it is damaged ({error})") from None
    for name, array in arrays.items():
        untrusted.check_array(path, name, array)
    return arrays


def read_header(path: Path) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Reads dtype and shape of every tensor; the bytes they need are in the file."""
    size = untrusted.size_of(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        room = min(size - 8, MAX_HEADER)
        if len(start) < 8 or length > room:
            what = f"its header should have {length:,} bytes and can have {room:,}"
            raise untrusted.refusal(path, what)
        header = json_file.parse_object(file.read(length), str(path))
    _check_metadata(path, header.pop(_METADATA, {}))
    if not header:
        raise untrusted.refusal(path, "it holds no tensors")
    end = 0
    for begin, next_begin, name in sorted(
        (*_offsets(path, name, entry), name) for name, entry in header.items()
    ):
        if begin != end:
            what = (
                f"tensor {untrusted.quoted(name)} begins at {begin:,}, not at {end:,}"
            )
            raise untrusted.refusal(path, what)
        end = next_begin
    if end != size - 8 - length:
        what = f"its tensors need {end:,} bytes and it has {size - 8 - length:,}"
        raise untrusted.refusal(path, what)
    return {
        name: (_dtype(entry["dtype"]), tuple(entry["shape"]))
        for name, entry in header.items()
    }


def _check_metadata(path: Path, metadata: Any) -> None:
    """Raises InputError unless the metadata are strings under strings."""
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise untrusted.refusal(path, "its metadata are not all strings")


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Returns begin and end of a tensor whose shape and dtype make up just that."""
    what = "has no dtype, shape and offsets of whole numbers in the header"
    match entry:
        case {
            "dtype": str(code),
            "shape": [*shape],
            "data_offsets": [begin, end],
            **others,
        } if not others and all(
            type(n) is int and n >= 0 for n in [*shape, begin, end]
        ):
            what = _problem(code, shape, end - begin)
            if what is None:
                return begin, end
    raise untrusted.refusal(path, f"tensor {untrusted.quoted(name)} {what}")


def _problem(code: str, shape: list[int], count: int) -> str | None:
    """Says what is wrong with an entry for so many bytes."""
    if code not in CODES:
        return f"has the dtype {untrusted.quoted(code)}, which is not known here"
    if len(shape) > _MAX_RANK:
        return f"has {len(shape):,} dimensions"
    if 0 in shape:
        return "has no elements"
    if math.prod(shape) * _dtype(code).itemsize != count:
        return f"has {count:,} bytes, which is not what its shape and dtype need"
    return None


def _dtype(code: str) -> np.dtype:
    """Returns numpy's dtype for a header's.

    >>> _dtype("F16")
    dtype('float16')
    """
    return untrusted.DTYPES[CODES[code]]


def write(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file that is there when it is whole, the same bytes for the same arrays.

    The widest dtypes come first, then the order of the names, so that all are aligned.

    Raises:
      InputError: nothing to write, or what `untrusted.check_array` refuses.
      StorageError: the disk refuses it.
    """
    if not arrays or _METADATA in arrays:
        raise untrusted.refusal(
            path, f"no tensors, or one called {_METADATA}", "Rename"
        )
    for name, array in arrays.items():
        untrusted.check_array(path, name, array)
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    with files.writing(path) as file:
        header = _header({name: arrays[name] for name in order}, metadata)
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            flat = np.asarray(arrays[name], order="C").reshape(-1)
            file.write(flat.view(np.uint8).data)


def _header(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the header, filled with spaces so that the tensors begin aligned."""
    codes = {name: code for code, name in CODES.items()}
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
