"""Signals in every phase of a run. A library of inject_faults.py."""

import time
from collections.abc import Iterator

from trial_lib import Bench, Trial, last_line

SECONDS = 10.0
# Phase -> the fault point of the signal, and that of a second signal.
PHASES = {
    "start": ("vocabulary/before", "vocabulary/before"),
    "compile": ("loop/step=1", "loop/step=1"),
    "step": ("loop/step=6", "checkpoint/started=6"),
    "save": ("checkpoint/started=8", "loop/step=9"),
    "eval": ("loop/callback=8", "checkpoint/written=8"),
    "last step": ("loop/step=24", "checkpoint/written=24"),
}


# Logs the time of each signal; the monotonic clock is the same in all processes.
_LOGGING = """
import os, time
kill = os.kill
def logging_kill(pid, number):
    with open({path!r}, "a") as file:
        file.write(f"{{time.monotonic()}}\\n")
    kill(pid, number)
os.kill = logging_kill
"""


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of runs that receive a signal."""
    for phase, (first, second) in bench.some(PHASES.items()):
        once = [f"{first}:SIGTERM"], [f"{first}:SIGINT"]
        twice = [f"{first}:SIGTERM", f"{second}:SIGTERM"]
        for name, points in zip(
            ("SIGTERM", "SIGINT", "SIGTERM twice"), (*once, twice), strict=True
        ):
            problem = _stopped(bench, phase, ",".join(dict.fromkeys(points)))
            yield Trial("a signal", f"{name} in {phase}", problem)


def _stopped(bench: Bench, phase: str, faults: str) -> str:
    """Stops a run by signals, and resumes it."""
    # In the first phase the run builds its own store.
    changes = {"data__store": "" if phase == "start" else bench.store}
    workdir, times = bench.workdir(f"signal-{phase}"), bench.folder / "signals.txt"
    times.unlink(missing_ok=True)
    child = bench.fork_server.start(
        "pretrain",
        *bench.setup.arguments(workdir, **changes),
        faults=faults,
        patch=_LOGGING.format(path=str(times)),
    )
    code, ended = child.wait(), time.monotonic()
    if code != 75:
        return f"exit code {code}: {last_line(child.log)}"
    took = ended - float(times.read_text().splitlines()[0])
    if took > SECONDS:
        return f"ended {took:.0f} s after the signal"
    return bench.resume(workdir, **changes)
