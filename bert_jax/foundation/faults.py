"""Faults on purpose: a process ends itself at a named point, to see what survives.

Nothing happens unless the environment asks so: BERT_JAX_FAULTS=POINT[=NUMBER]:SIGNAL,
several with commas, as in `checkpoint/manifest=6:SIGKILL,loop/step=9:SIGTERM`. The
points are the calls of `point`, named by the operation that starts, or has just
finished, there. The number is that of the step at the point, or, where there is none,
how often the point has been passed.
"""

import collections
import os
import re
import signal

VARIABLE = "BERT_JAX_FAULTS"


def _parse(text: str) -> dict[tuple[str, int | None], signal.Signals]:
    """Returns the signal by point and number.

    >>> _parse("loop/step=9:SIGTERM")
    {('loop/step', 9): <Signals.SIGTERM: 15>}
    """
    armed: dict[tuple[str, int | None], signal.Signals] = {}
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([a-z_/]+)(?:=(\d+))?:(SIG[A-Z]+)", part)
        if match is None:
            raise ValueError(f"{VARIABLE} has {part!r}: write POINT[=NUMBER]:SIGNAL")
        number = int(match[2]) if match[2] else None
        armed[match[1], number] = signal.Signals[match[3]]
    return armed


_armed = _parse(os.environ.get(VARIABLE, ""))
_passed: collections.Counter[str] = collections.Counter()


def arm(text: str) -> None:
    """Uses the points of this text from now on, instead of the environment's."""
    _armed.clear()
    _armed.update(_parse(text))
    _passed.clear()


def point(name: str, number: int | None = None) -> None:
    """Kills or pauses the process here if the fault plan asks for it."""
    if not _armed:
        return
    _passed[name] += 1
    at = _passed[name] if number is None else number
    for key in ((name, at), (name, None)):
        if key in _armed:
            os.kill(os.getpid(), _armed[key])
