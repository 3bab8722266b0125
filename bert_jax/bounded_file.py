"""Files that are read as a whole: regular ones, and no longer than they may be.

And the sha256 of files of any length. A leaf module. A link to a device would never
end, and a pipe keeps its reader waiting.
"""

import hashlib
import stat
from pathlib import Path

from bert_jax import errors, interrupts

_CHUNK_BYTES = 1 << 22


def read(path: Path, most: int) -> bytes:
    """Returns the content of a file of at most so many bytes.

    Raises:
      FileNotFoundError: there is none.
      InputError: it is no regular file, cannot be read, or is longer.
    """
    try:
        status = path.stat()
        mode, size = status.st_mode, min(status.st_size, most)
        if not stat.S_ISREG(mode):
            what = "Is a directory" if stat.S_ISDIR(mode) else "it is no regular file"
            raise errors.InputError(f"{path} cannot be read: {what}")
        with path.open("rb") as file:
            content = file.read(size + 1)  # memory is taken for as much as is asked for
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise errors.InputError(f"{path} cannot be read: {reason}") from None
    if len(content) > most:
        raise errors.InputError(
            f"{path} is longer than the {most >> 20} MiB that such a file may have: "
            "is it the right one?"
        )
    return content


def sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal, about a second per gigabyte.

    Raises OSError, and what `interrupts.check` does.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            interrupts.check()
            digest.update(chunk)
    return digest.hexdigest()
