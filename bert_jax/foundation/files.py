"""Files that appear whole and survive a power failure, locks, and sha256 digests.

Written data stays in memory for a while: after a power failure the file is empty or
missing. A name may reach the disk before the content does, so whatever is renamed, or
counts as complete, is synced first. Every room may import this module.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bert_jax import errors
from bert_jax.foundation import faults, interrupts

_CHUNK_BYTES = 1 << 22
_GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: another machine has removed it

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that gets its name when its content is on the disk: `atomic`.

    Raises StorageError if the disk refuses, within the context too.
    """
    try:
        with atomic(path) as file:
            yield file
    except OSError as error:
        raise refused(path, str(error.strerror or error)) from None


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that is renamed to `path` when its content is on the disk.

    No reader sees a part, and an interruption leaves nothing. Raises OSError.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with interrupts.unfinished(temporary), temporary.open("wb") as file:
            yield file
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace(path: Path, content: bytes) -> None:
    """Replaces the content of a file as `atomic` does. Raises OSError."""
    with atomic(path) as file:
        file.write(content)


def remove(path: Path) -> None:
    """Removes a file if it exists; raises StorageError if that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise refused(path, str(error.strerror or error)) from None


def refused(path: Path, reason: str) -> errors.StorageError:
    """Returns the error for a file that cannot be written.

    >>> print(refused(Path("a.bin"), "No space left on device"))
    a.bin cannot be written (No space left on device). Free some space or choose \
another location, and start again.
    """
    return errors.StorageError(
        f"{path} cannot be written ({reason}). "
        "Free some space or choose another location, and start again."
    )


def sync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync the names in a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until a folder and everything below it is on the disk."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.is_file():
            sync(path)
    sync(folder)


@contextlib.contextmanager
def building_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `folder` when nothing is raised.

    A lock file next to it keeps other processes out. A process that is killed leaves
    both, and the next one empties the folder.

    Raises:
      InputError: `folder` is in use, or another process is building it.
      StorageError: the disk refuses, within the context too.
    """
    check_can_build(folder)
    unfinished = folder.parent / f".{folder.name}.building"
    lock = folder.parent / f".{folder.name}.building.lock"
    in_use = f"another process is building {folder}. Wait until it is done."
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, in_use), interrupts.unfinished(unfinished):
            check_can_build(folder)  # another process may have finished it meanwhile
            try:
                _make_empty(unfinished)
                yield unfinished
                sync_tree(unfinished)
                os.replace(unfinished, folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        faults.point("store/renamed")
        sync(folder.parent)
    except OSError as error:
        raise refused(folder, str(error.strerror or error)) from None


def check_can_build(folder: Path) -> None:
    """Raises InputError if `folder` is not empty, or cannot be created."""
    if folder.parts and re.fullmatch(r"[a-z][a-z0-9]+:", folder.parts[0]):
        raise errors.InputError(
            f"{folder.parts[0]}//{'/'.join(folder.parts[1:])} is in an object store, "
            "where a store cannot be built. Choose a folder on a disk, which may be a "
            "mounted one, and copy the finished store."
        )
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise errors.InputError(
            f"{folder} exists already. Choose another location, or delete it."
        )
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise errors.InputError(
            f"{folder} cannot be created: {above} is a file. Choose another location."
        )
    check_writable(
        above,
        f"{folder} cannot be created: {above} is not writable. Choose another "
        "location, or change its mode.",
    )


def _make_empty(unfinished: Path) -> None:
    """Creates a folder, and removes what a killed build has left in it."""
    unfinished.mkdir(exist_ok=True)
    for path in unfinished.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_writable(folder: Path, message: str) -> None:
    """Raises InputError with this message if the mode of a folder forbids writing.

    Raises StorageError if its disk is read-only, which no mode can change.
    """
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise errors.StorageError(
            f"{folder} is on a read-only disk; systems remount a failing disk as "
            "read-only. Have it mounted for writing, or choose a location on another "
            "disk, and start again."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise errors.InputError(message)


@contextlib.contextmanager
def locked(path: Path, in_use: str) -> Iterator[None]:
    """Creates and locks a file, and removes it at the end.

    The lock is on a file that is open for writing, which NFS shares between machines; a
    lock on a folder would be local. It ends with its process, however that ends. Where
    the disk has no locks, a warning is logged.

    Raises InputError with the message `in_use` if another process has the lock.
    """
    descriptor = _lock_file(path, in_use)
    try:
        with interrupts.unfinished(path):
            yield
    finally:
        with contextlib.suppress(OSError):  # a failing disk was reported before
            path.unlink()  # while it is locked: a process that opened it looks again
        os.close(descriptor)


def _lock_file(path: Path, in_use: str) -> int:
    """Returns the descriptor of a locked file that has this name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _try_lock(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise errors.InputError(in_use) from None
        os.close(descriptor)


def _try_lock(descriptor: int, path: Path) -> bool:
    """Takes the lock; False if the file was removed since it was opened."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _GONE:
            _log.warning(
                "%s cannot be locked (%s): make sure that no second run starts there",
                path.parent,
                error.strerror,
            )
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise


def read(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a regular file of at most `max_bytes`.

    A link to a device would never end, and a pipe would keep the reader waiting.

    Raises:
      FileNotFoundError: the file does not exist.
      InputError: it is not a regular file, cannot be read, or is too long.
    """
    try:
        status = path.stat()
        mode, size = status.st_mode, min(status.st_size, max_bytes)
        if not stat.S_ISREG(mode):
            what = (
                "Is a directory" if stat.S_ISDIR(mode) else "it is not a regular file"
            )
            raise errors.InputError(f"{path} cannot be read: {what}")
        with path.open("rb") as file:
            content = file.read(size + 1)  # allocates as many bytes as are requested
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise errors.InputError(f"{path} cannot be read: {reason}") from None
    if len(content) > max_bytes:
        raise errors.InputError(
            f"{path} is longer than the {max_bytes >> 20} MiB allowed for such a file: "
            "is it the right one?"
        )
    return content


def sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal, about a second per gigabyte.

    Raises OSError, and what `interrupts.check` raises.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            interrupts.check()
            digest.update(chunk)
    return digest.hexdigest()
