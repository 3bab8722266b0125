"""Signals in every phase of a run. A library of torture.py."""

import time
from collections.abc import Iterator

from torture_trial import Bench, Trial, last_line

SECONDS = 10.0
# Phase -> the point where the signal comes, and, for a double one, that of the second.
PHASES = {
    "start": ("vocabulary/before", "vocabulary/before"),
    "compile": ("loop/step=1", "loop/step=1"),
    "step": ("loop/step=6", "checkpoint/started=6"),
    "save": ("checkpoint/started=8", "loop/step=9"),
    "eval": ("loop/callback=8", "checkpoint/written=8"),
    "last step": ("loop/step=24", "checkpoint/written=24"),
}


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields what became of runs that got a signal."""
    bench.trace_of("compiled")
    began = time.monotonic()
    bench.trace_of("timed")
    whole = time.monotonic() - began
    for phase, (first, second) in bench.some(PHASES.items()):
        once = [f"{first}:SIGTERM"], [f"{first}:SIGINT"]
        twice = [f"{first}:SIGTERM", f"{second}:SIGTERM"]
        for name, points in zip(
            ("SIGTERM", "SIGINT", "SIGTERM twice"), (*once, twice), strict=True
        ):
            # The first phase has a store of its own to build.
            changes = {"data__store": ""} if phase == "start" else {}
            workdir = bench.workdir(f"signal-{phase}")
            began = time.monotonic()
            faults = ",".join(dict.fromkeys(points))
            child = bench.train(workdir, faults=faults, **changes)
            code, took = child.wait(), time.monotonic() - began
            if code != 75:
                problem = f"exit code {code}: {last_line(child.said)}"
            elif took > whole + SECONDS:
                problem = f"took {took:.0f} s, and a whole run {whole:.0f} s"
            else:
                problem = bench.goes_on(workdir, **changes)
            yield Trial("a signal", f"{name} in {phase}", problem)
