"""Files that are still there when the power fails; a leaf that every room may import.

What is written lies in memory for a while, and is empty or gone after a power failure.
A name may reach the disk before what is in the file: so whatever is renamed, or counts
as there, must be waited for before.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bert_jax import interrupts


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such thing for the names in a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until a folder is on the disk, with all that lies below it."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.is_file():
            sync(path)
    sync(folder)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file beside `path` that takes its name when all of it is on the disk.

    No reader sees a part, and what is interrupted leaves nothing. Raises OSError.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        with interrupts.unfinished(beside), beside.open("wb") as file:
            yield file
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def replace(path: Path, content: bytes) -> None:
    """Puts the content in the place of a file, as `writing` does."""
    with writing(path) as file:
        file.write(content)
