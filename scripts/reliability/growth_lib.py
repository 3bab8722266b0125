"""Memory, handles and threads of a long run, and whether they grow.

A library of inject_faults.py.

Memory, handles and threads are read from /proc; a healthy run has no more of them at
its end than early on, and its files grow by a constant number of bytes per step.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from bert_jax.training import curves

WARM_UP = 0.2  # of the steps: programs are compiled, pools are filled
HALF = WARM_UP + (1 - WARM_UP) / 2
POOLS = 4  # threads: pools of them start one only when all others are busy
MEGABYTES = 1.0  # per 1,000 steps, less than which memory may grow in a long run
LONG = 5000  # steps
POOLED = 16.0  # MB in all, which a shorter one may still put into pools


@dataclasses.dataclass(frozen=True)
class Sample:
    """The resources of a run at one moment.

    Attributes:
      step: the last one that was logged.
      memory: resident, in MB.
      checkpoints: finished ones.
      unfinished: temporary folders, and those that wait to be deleted.
      saved, logged: bytes of all checkpoints, and of metrics, events and examples.
      files: outside the checkpoints.
    """

    step: int
    memory: float
    handles: int
    threads: int
    checkpoints: int
    unfinished: int
    saved: int
    logged: int
    files: int


@dataclasses.dataclass(frozen=True)
class Growth:
    """The change from the first half of a run (after the warm-up) to the second.

    Attributes:
      memory: MB per 1,000 steps, by least squares.
      resident: MB, the mean of the second half.
      handles, threads, files: the minimum of each half; saves need more for a while.
      most_handles: the maximum.
      checkpoints, unfinished, saved: the maximum over the run.
      logged: bytes per step of each half.
    """

    memory: float
    resident: float
    handles: tuple[int, int]
    threads: tuple[int, int]
    files: tuple[int, int]
    most_handles: int
    checkpoints: int
    unfinished: int
    saved: int
    logged: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"{self.memory:+.2f} MB per 1,000 steps at {self.resident:.0f} MB, "
            f"{self.handles[0]} -> {self.handles[1]} handles "
            f"(at most {self.most_handles}), {self.threads[0]} -> "
            f"{self.threads[1]} threads, at most {self.checkpoints} checkpoints "
            f"of {self.saved / 1e6:.1f} MB"
        )


def watch(pid: int, workdir: Path, seconds: float) -> Iterator[Sample]:
    """Samples a run every `seconds` from its first step to its end."""
    while (status := _status(pid)) is not None:
        if step := _last_step(workdir / "metrics.jsonl"):
            gone = (FileNotFoundError, ProcessLookupError, PermissionError)
            with contextlib.suppress(*gone):
                yield _sample(pid, workdir, step, status)
        time.sleep(seconds)


def measure(samples: Sequence[Sample], steps: int) -> Growth:
    """Returns the growth over a run of `steps` steps."""
    halves = [
        [x for x in samples if begin * steps <= x.step < end * steps]
        for begin, end in ((WARM_UP, HALF), (HALF, 1.0))
    ]
    both = [*halves[0], *halves[1]]
    slope, _ = np.polyfit([x.step for x in both], [x.memory for x in both], 1)

    def minima(name: str) -> tuple[int, int]:
        first, second = (min(getattr(x, name) for x in half) for half in halves)
        return first, second

    return Growth(
        memory=1000 * float(slope),
        resident=float(np.mean([x.memory for x in halves[1]])),
        handles=minima("handles"),
        threads=minima("threads"),
        files=minima("files"),
        most_handles=max(x.handles for x in both),
        checkpoints=max(x.checkpoints for x in samples),
        unfinished=max(x.unfinished for x in samples),
        saved=max(x.saved for x in samples),
        logged=_logged(samples, steps),
    )


def allowed(steps: int) -> float:
    """Returns the bound on a run's memory growth, in MB per 1,000 steps.

    >>> allowed(20_000), allowed(2_000)
    (1.0, 10.0)
    """
    return MEGABYTES if steps >= LONG else 1000 * POOLED / ((1 - WARM_UP) * steps)


def problems(grown: Growth, steps: int, keep: int, checkpoint: int) -> dict[str, str]:
    """Returns a message for each field of `Growth` that exceeds its bound.

    Args:
      steps: of the run.
      keep: checkpoints that the run keeps; one more may wait for its deletion, while
        another is written.
      checkpoint: bytes of one.
    """
    found = {}
    if grown.memory >= allowed(steps):
        found["memory"] = f"memory grows by {grown.memory:.2f} MB per 1,000 steps"
    for name, more in (("handles", 0), ("threads", POOLS), ("files", 0)):
        first, second = getattr(grown, name)
        if second > first + more:
            found[name] = f"{name} grow from {first} to {second}"
    if grown.checkpoints > keep + 1:
        found["checkpoints"] = f"{grown.checkpoints} checkpoints"
    if grown.unfinished > 3:
        found["unfinished"] = f"{grown.unfinished} unfinished or deleted folders"
    if grown.saved > (keep + 2.1) * checkpoint:
        found["saved"] = f"checkpoints took {grown.saved} bytes, one takes {checkpoint}"
    early, late = grown.logged
    # The step of a sample is up to ten old, at each end of a half of the run.
    if late > (1.1 + 50 / steps) * early + 4096 / max(1.0, early):
        found["logged"] = f"logs grow by {early:.0f} bytes per step, then by {late:.0f}"
    return found


def size(folder: Path) -> int:
    """Returns the bytes of all files in a folder.

    Each counts once, even if it is renamed during the walk.
    """
    return sum({found.st_ino: found.st_size for _, found in _files(folder)}.values())


def _logged(samples: Sequence[Sample], steps: int) -> tuple[float, float]:
    bounds = [share * steps for share in (WARM_UP, HALF, 1.0)]
    of_bound = np.interp(bounds, [x.step for x in samples], [x.logged for x in samples])
    first, second = np.diff(of_bound) / np.diff(bounds)
    return float(first), float(second)


def _status(pid: int) -> dict[str, str] | None:
    """Returns the fields of a process's status file; None if it has ended."""
    try:
        return alive(Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(text: str) -> dict[str, str] | None:
    """Returns the fields of a status file; None if it is of a process that is ending.

    Its memory is gone first, while its state may still be "running".
    """
    lines = text.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    is_ending = status["State"].startswith(("Z", "X")) or "VmRSS" not in status
    return None if is_ending else status


def _last_step(path: Path) -> int:
    """Returns the step of the last whole line of a metrics file; 0 if there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        return int(json.loads(file.read().split(b"\n")[-2])["step"])
    return 0


def _sample(pid: int, workdir: Path, step: int, status: dict[str, str]) -> Sample:
    saved = workdir / "checkpoints"
    names = [path.name for path in saved.iterdir()] if saved.is_dir() else []
    others = [name for name in names if not name.isdigit() and name != "deleted"]
    trash = saved / "deleted"
    with contextlib.suppress(FileNotFoundError):
        others += os.listdir(trash)
    outside = list(_files(workdir, leaving_out="checkpoints"))
    return Sample(
        step=step,
        memory=int(status["VmRSS"].split()[0]) / 1024,
        handles=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
        checkpoints=sum(map(str.isdigit, names)),
        unfinished=len(others),
        saved=size(saved),
        logged=sum(found.st_size for path, found in outside if _is_log(path)),
        files=len(outside),
    )


def _is_log(path: str) -> bool:
    return path.endswith(".jsonl") or "/tensorboard/" in path


def _files(folder: Path, leaving_out: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yields paths with their `lstat`; some files may disappear meanwhile."""
    for parent, folders, names in os.walk(folder):
        if leaving_out in folders:
            folders.remove(leaving_out)
        for path in itertools.starmap(os.path.join, ((parent, x) for x in names)):
            with contextlib.suppress(OSError):
                yield path, os.lstat(path)


_PANELS = (
    ("Resident memory", "MB", {"memory": 1.0}),
    ("Handles and threads", "number", {"handles": 1.0, "threads": 1.0}),
    ("Bytes on disk", "MB", {"saved": 1e-6, "logged": 1e-6}),
    ("Checkpoints", "number", {"checkpoints": 1.0}),
)
_NAMES = {
    "memory": "of the process",
    "handles": "open handles",
    "threads": "threads",
    "saved": "checkpoints",
    "logged": "metrics, events, examples",
    "checkpoints": "finished checkpoints",
}


def draw(
    samples: Sequence[Sample],
    grown: Growth,
    path: Path,
) -> None:
    """Writes the plot as PNG."""
    figure = curves.blank(12, 8.5)
    panels = figure.subplots(2, 2, sharex=True).flat
    for axes, (title, unit, names) in zip(panels, _PANELS, strict=True):
        curves.style(axes, title, unit)
        _draw(axes, samples, names)
    warm = WARM_UP * samples[-1].step
    text = f"{grown.memory:+.2f} MB per 1,000 steps after step {warm:,.0f}"
    figure.axes[0].lines[0].set_label(text)
    for axes in figure.axes:
        # Below the axes, where it covers no line.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
                    frameon=False, fontsize=9, labelcolor=curves.INK)  # fmt: skip
    path.write_bytes(curves.encode(figure))


def _draw(axes: Axes, samples: Sequence[Sample], names: dict[str, float]) -> None:
    steps = [sample.step for sample in samples]
    for color, (name, unit) in zip(curves.COLORS, names.items(), strict=False):
        values = [unit * getattr(sample, name) for sample in samples]
        axes.plot(steps, values, color=color, lw=1.0, label=_NAMES[name])
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.set_xlabel("step", fontsize=10, color="#6b7280")
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
