"""What a run writes down: `metrics.jsonl`, TensorBoard events and `curves.png`.

The JSON lines are the record; the other two are made from them. A resumed run drops
the lines after its checkpoint, so the file reads as if the run had never stopped.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import jax

from bert_jax import errors
from bert_jax.training import curves

METRICS = "metrics.jsonl"
CURVES = "curves.png"
TENSORBOARD = "tensorboard"


class Writer:
    """Writes the metrics of a run into its workdir; on process 0 only.

    Use it as a context manager: leaving it draws the curves, after errors too.
    """

    def __init__(self, workdir: Path, *, start_step: int) -> None:
        """Opens the files for a run that continues after `start_step` steps done.

        Lines of later steps, and one cut short by a kill, are dropped. With a start at
        0 all are. Raises StorageError if the files cannot be written.
        """
        self._workdir = workdir
        self._lines: TextIO | None = None
        self._events: Any = None
        if jax.process_index() == 0:
            try:
                self._open(start_step)
            except OSError as error:
                raise _failure(workdir, error) from error

    def _open(self, start_step: int) -> None:
        import tensorboardX  # takes torch along where that is installed: 3 s

        path = self._workdir / METRICS
        kept = [line for line in read(path) if 0 < line["step"] <= start_step]
        _replace(path, "".join(_dump(line) for line in kept).encode())
        self._lines = path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(
            str(self._workdir / TENSORBOARD), purge_step=start_step + 1
        )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line, `step` first; a value that is not finite becomes null."""
        if self._lines is None:
            return
        finite = {n: float(v) if math.isfinite(v) else None for n, v in values.items()}
        try:
            self._lines.write(_dump({"step": step, **finite}))
            self._lines.flush()
            for name, value in finite.items():
                if value is not None:
                    self._events.add_scalar(name, value, step)
        except OSError as error:
            raise _failure(self._workdir, error) from error

    def draw(self) -> None:
        """Draws `curves.png` anew from `metrics.jsonl`."""
        if self._lines is None:
            return
        lines = read(self._workdir / METRICS)
        if any(len(line) > 1 for line in lines):
            try:
                _replace(self._workdir / CURVES, curves.png(lines))
            except OSError as error:
                raise _failure(self._workdir, error) from error

    def close(self) -> None:
        """Draws the curves and closes the files; a second call does nothing."""
        if self._lines is not None:
            self.draw()
            self._lines.close()
            self._events.close()
            self._lines = None


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file; an unfinished last line is left out.

    A file that does not exist has no lines. Raises InputError for another bad line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    result = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            result.append(json.loads(line))
            _ = result[-1]["step"] + 0
        except (ValueError, KeyError, TypeError) as error:
            raise errors.InputError(
                f"{path}:{number} is not a JSON object with a step: move the file away "
                "or mend the line"
            ) from error
    return result


def _dump(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def _replace(path: Path, content: bytes) -> None:
    """Puts the content in the place of a file at once: no reader sees a part."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _failure(workdir: Path, error: OSError) -> errors.StorageError:
    return errors.StorageError(f"cannot write into {workdir}: {error}")
