"""Files that are there when they are whole, and not before."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bert_jax import durable, errors


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that is there when all of it is on the disk: `durable.writing`.

    Raises StorageError for what the disk refuses, within the context too.
    """
    try:
        with durable.writing(path) as file:
            yield file
    except OSError as error:
        raise refused(path, str(error.strerror or error)) from None


def remove(path: Path) -> None:
    """Removes a file that may be there; raises StorageError when it stays."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise refused(path, str(error.strerror or error)) from None


def refused(path: Path, reason: str) -> errors.StorageError:
    """Returns the error for a file that the disk does not take.

    >>> print(refused(Path("a.bin"), "No space left on device"))
    a.bin cannot be written (No space left on device). Free some space or choose \
another place, and start again.
    """
    return errors.StorageError(
        f"{path} cannot be written ({reason}). "
        "Free some space or choose another place, and start again."
    )
