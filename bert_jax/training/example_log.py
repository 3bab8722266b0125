"""Which examples each step saw: `examples-PROCESS.jsonl`, one line a step.

Each process writes the rows that it made, with a checksum of what was in them, so that
two runs can be compared row by row. A resumed run drops the lines after its checkpoint.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

import numpy as np

from bert_jax import durable
from bert_jax.training import processes, writer

Batch = dict[str, np.ndarray]
Placed = TypeVar("Placed")


class ExampleLog:
    """Writes the rows of every step of this process; use it as a context manager."""

    def __init__(self, workdir: Path, *, start_step: int, is_on: bool) -> None:
        """Opens the file of a run that continues after `start_step` steps done.

        Raises StorageError if it cannot be written.
        """
        self._workdir = workdir
        self._lines: TextIO | None = None
        if not is_on:
            return
        self._path = path = workdir / f"examples-{processes.index()}.jsonl"
        try:
            for old in _files_to_cut(workdir, path):
                writer.cut(old, lambda line: line["step"] <= start_step)
            if processes.is_first():  # others may have come later
                writer.warn_of_a_gap(path, start_step)
            self._lines = path.open("a", encoding="utf-8")
        except OSError as error:
            raise writer.failure(workdir, error) from error

    def __enter__(self) -> "ExampleLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lines is not None:
            self._lines.close()

    def sync(self) -> None:
        """Waits until all lines are on the disk; raises StorageError."""
        if self._lines is None:
            return
        try:
            durable.sync(self._path)
        except OSError as error:
            raise writer.failure(self._workdir, error) from error

    def placing(self, place: Callable[[Batch], Placed]) -> Callable[[Batch], Any]:
        """Returns `place` with the checksums of the rows beside what it returns."""

        def place_and_sum(batch: Batch) -> tuple[Placed, list[int]]:
            return place(batch), [] if self._lines is None else checksums(batch)

        return place_and_sum

    def following(
        self,
        placed: Iterable[tuple[Placed, list[int]]],
        start_step: int,
        names_at: Callable[[int], Sequence[str]],
    ) -> Iterator[Placed]:
        """Yields the batches that `placing` placed, each after it was written down.

        `names_at` names this process's rows of the batch of a step, from 0.
        """
        for step, (batch, sums) in enumerate(placed, start_step):
            if self._lines is not None:
                names = list(names_at(step))
                line = {"step": step + 1, "examples": names, "crc32": sums}
                try:
                    self._lines.write(writer.dump(line))
                    self._lines.flush()
                except OSError as error:
                    raise writer.failure(self._workdir, error) from error
            yield batch


# For batches that nobody wants to look at.
OFF = ExampleLog(Path(), start_step=0, is_on=False)


def checksums(batch: Batch) -> list[int]:
    """Returns the CRC-32 of each row, over all arrays that have as many as the first.

    >>> checksums({"input_ids": np.array([[1, 2], [1, 3], [1, 2]])})
    [16178617, 3428637991, 16178617]
    """
    rows = len(next(iter(batch.values())))
    sums = [0] * rows
    for name in sorted(batch):
        if len(batch[name]) == rows:
            content = np.ascontiguousarray(batch[name])
            sums = [zlib.crc32(content[row], sums[row]) for row in range(rows)]
    return sums


def _files_to_cut(workdir: Path, own: Path) -> list[Path]:
    """Returns the file of this process; in the first, those of processes gone too."""
    found = [own] if own.exists() else []
    if processes.is_first():
        for path in workdir.glob("examples-*.jsonl"):
            number = re.fullmatch(r"examples-(\d+)\.jsonl", path.name)
            if number and int(number[1]) >= processes.count():
                found.append(path)
    return found
