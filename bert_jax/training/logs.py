"""The logs of a run: `metrics.jsonl`, TensorBoard events and `curves.png`.

The JSON lines are the record; the other two are derived from them. A resumed run drops
the lines after its checkpoint, so the file reads as if the run had never stopped.
`events.jsonl` has what a person should look at: spikes, and steps that are not finite.
`examples-PROCESS.jsonl` has the sequences that a process loaded for each step, with a
checksum of each, so that two runs can be compared.
"""

import contextlib
import gc
import json
import logging
import math
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import jax
import numpy as np

from bert_jax import errors
from bert_jax.foundation import files, json_file
from bert_jax.training import curves, distributed

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
CURVES = "curves.png"
TENSORBOARD = "tensorboard"
DRAW_SECONDS = 30  # between two plots during a run: each takes 1 s

_log = logging.getLogger(__name__)


class Writer:
    """Writes the metrics of a run into its workdir; on process 0 only.

    Use it as a context manager: on exit it plots the curves, after errors too.
    """

    def __init__(
        self, workdir: Path, *, start_step: int, evaluates_again: bool = False
    ) -> None:
        """Opens the files for a run that continues after `start_step` steps done.

        Lines of later steps, and one cut short by a kill, are dropped. With a start at
        0 all are. Raises StorageError if the files cannot be written.

        Args:
          evaluates_again: what follows the step `start_step` is done again, so lines
            of it are dropped too.
        """
        self._workdir = workdir
        self._lines: TextIO | None = None
        self._events: _Events | None = None
        self._drawn_at = -math.inf
        self._is_drawn = False  # a run that was killed may have left an older one
        if jax.process_index() == 0:
            with _writing_into(workdir):
                self._open(start_step, evaluates_again)

    def _open(self, start_step: int, evaluates_again: bool) -> None:
        def is_kept(line: dict[str, Any]) -> bool:
            if evaluates_again and line["step"] == start_step:
                return any(name.startswith("train/") for name in line)
            return 0 < line["step"] <= start_step

        path = self._workdir / METRICS
        if start_step and not path.exists():
            _log.warning("%s is missing: the steps before are not in it now", path)
        cut(path, is_kept)
        if (self._workdir / EVENTS).exists():
            cut(self._workdir / EVENTS, lambda line: line["step"] <= start_step)
        self._lines = path.open("a", encoding="utf-8")
        self._events = _Events(self._workdir / TENSORBOARD, start_step + 1)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line, `step` first; a value that is not finite becomes null."""
        if self._lines is None or self._events is None:
            return
        self._is_drawn = False
        finite = {n: float(v) if math.isfinite(v) else None for n, v in values.items()}
        with _writing_into(self._workdir):
            self._lines.write(dump({"step": step, **finite}))
            self._lines.flush()
            for name, value in finite.items():
                if value is not None:
                    self._events.add(name, value, step)
            self._events.flush()

    def report(self, step: int, event: Mapping[str, Any]) -> None:
        """Appends a line to `events.jsonl`, and warns on stderr without its lists.

        `event` has the kind of event as "event", and JSON values.
        """
        if self._lines is None:
            return
        with _writing_into(self._workdir):
            with (self._workdir / EVENTS).open("a", encoding="utf-8") as file:
                file.write(dump({"step": step, **event}))
        shown = [f"{n} {x}" for n, x in event.items() if not isinstance(x, list)]
        _log.warning("step %d: %s (%s)", step, ", ".join(shown), EVENTS)

    def sync(self) -> None:
        """Waits until all lines are on the disk, where those of a saved step must be.

        Raises StorageError.
        """
        if self._lines is None:
            return
        with _writing_into(self._workdir):
            for name in (METRICS, EVENTS):
                if (self._workdir / name).exists():
                    files.sync(self._workdir / name)

    def draw(self) -> None:
        """Rewrites `curves.png` from `metrics.jsonl`, at most every `DRAW_SECONDS`."""
        if self._lines is not None:
            if time.monotonic() - self._drawn_at >= DRAW_SECONDS:
                self._draw()

    def _draw(self) -> None:
        lines = read(self._workdir / METRICS)
        if any(len(line) > 1 for line in lines):
            with _writing_into(self._workdir):
                files.replace(self._workdir / CURVES, curves.png(lines))
            gc.collect()  # figures are reference cycles with all their pixels
        self._drawn_at, self._is_drawn = time.monotonic(), True

    def close(self) -> None:
        """Plots the curves and closes the files; a second call does nothing."""
        if self._lines is None or self._events is None:
            return
        try:
            with _writing_into(self._workdir):
                if not self._is_drawn:
                    self._draw()
                self._events.close()
        finally:
            self._lines.close()
            self._lines = self._events = None


class _Events:
    """Writes scalars for TensorBoard, at once.

    A `SummaryWriter` hands them to a thread, which a full disk ends; the run would then
    wait for it for ever.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Opens a file; TensorBoard ignores what older ones have from a step on."""
        # also imports torch where that is installed: 3 s
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        result: Any = event_pb2
        self._make, self._summary = result.Event, summary
        self._writer = event_file_writer.EventsWriter(
            str(folder / "events"), f".{os.getpid()}"
        )
        self.flush, self.close = self._writer.flush, self._writer.close
        start = result.SessionLog(status=result.SessionLog.START)
        self._write(session_log=start, step=purge_step)

    def add(self, name: str, value: float, step: int) -> None:
        self._write(summary=self._summary.scalar(name, value), step=step)

    def _write(self, **event: Any) -> None:
        self._writer.write_event(self._make(wall_time=time.time(), **event))


@contextlib.contextmanager
def _writing_into(workdir: Path) -> Iterator[None]:
    """Raises StorageError for what the disk refuses in the context."""
    try:
        yield
    except OSError as error:
        raise errors.StorageError(f"cannot write into {workdir}: {error}") from error


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file; an unfinished last line is skipped.

    A file that does not exist has no lines. Raises InputError for another bad line.
    """
    if not path.exists():
        return []
    result = []
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = json_file.loads(text)
            result.append(_of_step(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise errors.InputError(
                f"{path}:{number} is not a JSON object with a step: move the file away "
                "or fix the line"
            ) from error
    return result


def _of_step(line: Any) -> dict[str, Any]:
    """Returns a line as it is; raises ValueError unless it could have been written."""
    numbers = [x for x in line.values() if isinstance(x, int | float)]
    if type(line["step"]) is not int or not all(abs(x) < 1e300 for x in numbers):
        raise ValueError("its step is not a count, or a number is not finite")
    return line


def cut(path: Path, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Atomically reduces a file to the given lines; creates it if it is missing."""
    kept = (line for line in read(path) if is_kept(line))
    files.replace(path, "".join(map(dump, kept)).encode())


def dump(line: Mapping[str, Any]) -> str:
    """Returns a line of JSON."""
    return json.dumps(line, allow_nan=False) + "\n"


Batch = dict[str, np.ndarray]
OnDevice = TypeVar("OnDevice")


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
        self._path = path = workdir / f"examples-{distributed.index()}.jsonl"
        with _writing_into(workdir):
            for old in _files_to_cut(workdir, path):
                cut(old, lambda line: line["step"] <= start_step)
            if distributed.is_first():  # others may have come later
                _warn_of_a_gap(path, start_step)
            self._lines = path.open("a", encoding="utf-8")

    def __enter__(self) -> "ExampleLog":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._lines is not None:
            self._lines.close()

    def sync(self) -> None:
        """Waits until all lines are on the disk; raises StorageError."""
        if self._lines is not None:
            with _writing_into(self._workdir):
                files.sync(self._path)

    def with_checksums(
        self, put: Callable[[Batch], OnDevice]
    ) -> Callable[[Batch], tuple[OnDevice, list[int]]]:
        """Returns `put`, which also returns the checksums of the sequences."""

        def put_and_sum(batch: Batch) -> tuple[OnDevice, list[int]]:
            return put(batch), [] if self._lines is None else checksums(batch)

        return put_and_sum

    def written(
        self,
        batches: Iterable[tuple[OnDevice, list[int]]],
        start_step: int,
        examples_at: Callable[[int], Sequence[str]],
    ) -> Iterator[OnDevice]:
        """Yields the batches of `with_checksums`, each after its line is written.

        `examples_at` names this process's sequences of a step, counted from 0.
        """
        for step, (batch, sums) in enumerate(batches, start_step):
            if self._lines is not None:
                names = list(examples_at(step))
                line = {"step": step + 1, "examples": names, "crc32": sums}
                with _writing_into(self._workdir):
                    self._lines.write(dump(line))
                    self._lines.flush()
            yield batch


def _warn_of_a_gap(path: Path, start_step: int) -> None:
    """Warns where a file with a line for every step ends before a step."""
    lines = read(path)
    last = lines[-1]["step"] if lines else 0
    if last < start_step:
        _log.warning(
            "%s ends with step %d, and the run continues after step %d: steps between "
            "are not in it",
            path,
            last,
            start_step,
        )


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
    if distributed.is_first():
        for path in workdir.glob("examples-*.jsonl"):
            number = re.fullmatch(r"examples-(\d+)\.jsonl", path.name)
            if number and int(number[1]) >= distributed.count():
                found.append(path)
    return found
