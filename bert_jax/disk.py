"""What a disk allows a process: to write in a folder, and to be alone in it.

The lock is on a file that is open for writing, which NFS shares between machines; that
on a folder would be this machine's alone. It goes with its process, however that ends.
"""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from bert_jax import errors, interrupts

_GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: another machine has removed it

_log = logging.getLogger(__name__)


def check_writable(folder: Path, refused: str) -> None:
    """Raises InputError with the words `refused` if the mode of a folder forbids it.

    Raises StorageError if its disk is read-only, which no mode can change.
    """
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise errors.StorageError(
            f"{folder} is on a disk that is read-only, as the system makes one that "
            "fails. Have it mounted for writing, or choose a place on another disk, "
            "and start again."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise errors.InputError(refused)


@contextlib.contextmanager
def held(path: Path, in_use: str) -> Iterator[None]:
    """Makes a file, keeps others from holding it, and removes it at the end.

    Raises InputError with the words `in_use` if another process holds it. Where the
    disk has no locks, a warning is all.
    """
    descriptor = _taken(path, in_use)
    try:
        with interrupts.unfinished(path):
            yield
    finally:
        with contextlib.suppress(OSError):  # a disk that fails has been told of before
            path.unlink()  # while it is held: who opened it before looks again
        os.close(descriptor)


def _taken(path: Path, in_use: str) -> int:
    """Returns the descriptor of a file that has this name and is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _locked(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise errors.InputError(in_use) from None
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool:
    """Takes the lock; False if the file was removed since it was opened."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _GONE:
            _log.warning(
                "%s cannot be locked (%s): see to it that no second run starts there",
                path.parent,
                error.strerror,
            )
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
