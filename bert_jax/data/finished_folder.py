"""A folder that is there when it is finished, and not before.

It grows beside its place under another name and is renamed at the end. A process that
is killed leaves a folder of that other name, which the next one empties; while one is
at work it holds a lock on it.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from bert_jax import durable, errors, faults


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Gives an empty, locked folder that becomes `folder` when nothing is raised.

    Raises InputError when `folder` is in use or is being built by another process, and
    StorageError for what the disk refuses, within the context too.
    """
    check(folder)
    unfinished = folder.parent / f".{folder.name}.building"
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with _locked(unfinished, folder):
            try:
                _empty(unfinished)
                yield unfinished
                durable.sync_tree(unfinished)
                os.replace(unfinished, folder)
                faults.point("store/renamed")
                durable.sync(folder.parent)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    except OSError as error:
        raise errors.StorageError(
            f"{folder} cannot be written ({error.strerror or error}). "
            "Free some space or choose another place, and start again."
        ) from None


def check(folder: Path) -> None:
    """Raises InputError when building would overwrite something or cannot begin."""
    if folder.parts and re.fullmatch(r"[a-z][a-z0-9]+:", folder.parts[0]):
        raise errors.InputError(
            f"{folder.parts[0]}//{'/'.join(folder.parts[1:])} is in an object store, "
            "where a store cannot be built. Choose a folder on a disk, which may be a "
            "mounted one, and copy what is finished."
        )
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise errors.InputError(
            f"{folder} exists already. Choose another place, or delete it."
        )
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise errors.InputError(
            f"{folder} cannot be made: {above} is a file. Choose another place."
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise errors.InputError(
            f"{folder} cannot be made: {above} is not writable. Choose another place, "
            "or change its mode."
        )


@contextlib.contextmanager
def _locked(unfinished: Path, folder: Path) -> Iterator[None]:
    """Holds a folder for this process; the system lets go when the process ends."""
    descriptor = os.open(unfinished, os.O_RDONLY)
    try:
        if not _is_free(descriptor, unfinished):
            raise errors.InputError(
                f"another process is building {folder}. Wait until it is done."
            )
        yield
    finally:
        os.close(descriptor)


def _is_free(descriptor: int, unfinished: Path) -> bool:
    """Takes the lock if nobody has it and the folder still has its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between mkdir and the lock another build may have finished and renamed it.
        return os.path.samestat(os.fstat(descriptor), os.stat(unfinished))
    except (BlockingIOError, FileNotFoundError):
        return False


def _empty(unfinished: Path) -> None:
    """Removes what a build that was killed has left."""
    for path in unfinished.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
