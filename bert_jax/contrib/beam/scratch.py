"""Intermediate files of a distributed build, on a disk that the workers share.

Files are written atomically, and a step that runs twice writes the same file again.
Every build has its own folder, which workers do not create, so a worker that outlives
its build cannot write.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bert_jax import errors

_FOLDERS = ("blocks", "repeats", "plan", "shards")


@dataclass(frozen=True)
class Scratch:
    """The folder; names of files in it are like "blocks/train-00000-00000003"."""

    folder: Path

    def check(self) -> None:
        """Raises StorageError if this machine does not see the folder."""
        if not self.folder.is_dir():
            raise errors.StorageError(
                f"the worker on {socket.gethostname()} does not see {self.folder}. "
                "Put the store on a disk that all workers share under one name."
            )

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Writes arrays by name."""
        with self._appearing(name) as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def read_arrays(self, name: str, *keys: str) -> list[np.ndarray]:
        """Reads some of the arrays; raises StorageError if they do not exist."""
        try:
            with np.load(self.folder / name, allow_pickle=False) as arrays:
                return [arrays[key] for key in keys]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _unreadable(self.folder / name, error) from None

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON value."""
        with self._appearing(name) as file:
            file.write(json.dumps(value).encode())

    def read_json(self, name: str) -> Any:
        """Reads a JSON value; raises StorageError if it does not exist."""
        try:
            return json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise _unreadable(self.folder / name, error) from None

    @contextlib.contextmanager
    def appearing_folder(self, name: str) -> Iterator[Path]:
        """Yields a folder whose files move to the folder of this name at the end."""
        attempt = self.folder / name / f"{secrets.token_hex(8)}.part"
        attempt.mkdir()
        yield attempt
        for path in attempt.iterdir():
            os.replace(path, self.folder / name / path.name)
        attempt.rmdir()

    @contextlib.contextmanager
    def _appearing(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file that gets its name when it is complete."""
        path = self.folder / name
        attempt = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        with open(attempt, "wb") as file:
            yield file
        os.replace(attempt, path)


@contextlib.contextmanager
def temporary(folder: Path) -> Iterator[Scratch]:
    """Creates a scratch folder inside a folder, and removes it at the end."""
    scratch = folder / f"scratch-{secrets.token_hex(8)}"
    for name in _FOLDERS:
        (scratch / name).mkdir(parents=True)
    try:
        yield Scratch(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unreadable(path: Path, error: Exception) -> errors.StorageError:
    """Returns the error for a missing file of another worker."""
    return errors.StorageError(
        f"{path}, which another worker wrote, cannot be read ({error}). Put the store "
        "on a disk that all workers share under one name, and start again."
    )
