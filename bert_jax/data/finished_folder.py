"""A folder that is there when it is finished, and not before.

It grows beside its place under another name and is renamed at the end. While a process
is at work it holds a lock, a file beside that folder. One that is killed leaves both,
and the next one empties the folder.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from bert_jax import disk, durable, errors, faults, interrupts


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Gives an empty folder that becomes `folder` when nothing is raised.

    Raises InputError when `folder` is in use or is being built by another process, and
    StorageError for what the disk refuses, within the context too.
    """
    check(folder)
    unfinished = folder.parent / f".{folder.name}.building"
    lock = folder.parent / f".{folder.name}.building.lock"
    in_use = f"another process is building {folder}. Wait until it is done."
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with disk.held(lock, in_use), interrupts.unfinished(unfinished):
            check(folder)  # before the lock was taken another one may have ended
            try:
                _make_empty(unfinished)
                yield unfinished
                durable.sync_tree(unfinished)
                os.replace(unfinished, folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        faults.point("store/renamed")
        durable.sync(folder.parent)
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
    disk.check_writable(
        above,
        f"{folder} cannot be made: {above} is not writable. Choose another place, or "
        "change its mode.",
    )


def _make_empty(unfinished: Path) -> None:
    """Makes a folder, without what a build that was killed has left there."""
    unfinished.mkdir(exist_ok=True)
    for path in unfinished.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
