"""What is asked of every file from elsewhere before a word of it is believed.

A checkpoint says how long it is, which shapes it holds and which files belong to it.
The readers compare all of that with the file itself, and ask here for what they share.
Names from a file are quoted and cut, so that they cannot fill or steer a terminal.
"""

import stat
from pathlib import Path

import ml_dtypes
import numpy as np

from bert_jax import errors, files

# Eight-bit floats and packed integers are missing: they need scales that stand
# elsewhere, and whoever read them as weights would have random ones.
DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
    )
} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}

AGAIN = "Download or export it again"

_SHOWN = 120
_PIECE = 1 << 24  # elements looked at together: 16 MB of booleans
_POINTER = b"version https://git-lfs"


def refusal(path: Path, what: str, remedy: str = AGAIN) -> errors.InputError:
    """Returns the error for a file that is not taken.

    >>> print(refusal(Path("a.bin"), "it is empty"))
    a.bin is refused: it is empty. Download or export it again.
    """
    return errors.InputError(f"{path} is refused: {what}. {remedy}.")


def quoted(name: object) -> str:
    """Returns a name from a file for a message: escaped, cut, and never evaluated.

    >>> print(quoted("a\\n"), quoted(("a", 1)))
    'a\\n' (a tuple, not a string)
    """
    if not isinstance(name, str):
        return f"(a {type(name).__name__}, not a string)"
    return repr(name) if len(name) <= _SHOWN else repr(name[:_SHOWN]) + "..."


def size_of(path: Path) -> int:
    """Returns the bytes of a regular file that can be read and is not empty.

    Raises InputError for a missing or empty file, a folder, a pipe or a device, a file
    that may not be read, and the few lines that Git leaves in place of a large file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise refusal(path, f"it is {kind}", "A file of weights is expected here")
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except FileNotFoundError:
        raise refusal(path, "it does not exist", "Give the whole checkpoint") from None
    except (OSError, ValueError) as error:
        what = f"it cannot be read ({getattr(error, 'strerror', error)})"
        raise refusal(path, what, "Change its mode or its place") from None
    if not start:
        raise refusal(path, "it is empty")
    if start == _POINTER:
        raise refusal(path, "it is a pointer of Git LFS", "Fetch it with git lfs pull")
    return status.st_size


def sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal, about a second per gigabyte."""
    size_of(path)
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
            "Its training went wrong: take an earlier checkpoint",
        )


def _not_finite(array: np.ndarray) -> int:
    """Counts NaN and infinite values in pieces, so that the memory stays bounded."""
    if array.dtype.kind in "biu":
        return 0
    flat = array.reshape(-1)
    pieces = (flat[at : at + _PIECE] for at in range(0, flat.size, _PIECE))
    with np.errstate(invalid="ignore"):  # a signalling NaN of bfloat16
        return sum(piece.size - int(np.isfinite(piece).sum()) for piece in pieces)
