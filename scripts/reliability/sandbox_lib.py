"""Runs cases in a forked process with little memory and time. A library of fuzz.py.

A case that ends the process, or keeps it for too long, is told as such, and the next
one begins in a new fork. A case says what became of it: "" is well, and so is a word
that begins with a letter; a complaint begins with "!".
"""

import dataclasses
import json
import os
import re
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

SECONDS = 30  # of a case; then the process is ended
MIB = 2048  # of a case, more than the process had
_NOT_READY = 99
_SIZES = re.compile(r"^(VmSize|VmRSS|VmHWM):\s+(\d+) kB", re.MULTILINE)

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case, and what it took at most."""

    said: str
    seconds: float
    mib: float

    @property
    def is_well(self) -> bool:
        """Whether there is no complaint."""
        return not self.said.startswith("!")


def outcomes(
    case: Callable[[Item], str],
    items: Sequence[Item],
    warm: Callable[[], Any] = lambda: None,
) -> Iterator[tuple[Item, Outcome]]:
    """Yields every item with what became of it, in their order.

    `warm` is called before memory is counted: it imports what a case needs.
    """
    done = 0
    while done < len(items):
        for outcome in _one_fork(case, items[done:], warm):
            yield items[done], outcome
            done += 1


def _one_fork(
    case: Callable[[Any], str], items: Sequence[Any], warm: Callable[[], Any]
) -> Iterator[Outcome]:
    """Yields the outcomes of one process; the last may be that it died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _live(case, items, warm, writing)
    os.close(writing)
    try:
        yield from _answers(reading, len(items), pid)
    finally:
        os.close(reading)
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _answers(reading: int, count: int, pid: int) -> Iterator[Outcome]:
    rest = b""
    began, patience = time.monotonic(), 300.0  # the first waits for `warm` too
    while count:
        ready, _, _ = select.select([reading], [], [], patience)
        read = os.read(reading, 1 << 16) if ready else b""
        if not read:
            if not ready:
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if os.waitstatus_to_exitcode(status) == _NOT_READY:
                raise AssertionError("the cage cannot be made ready: see above")
            how = f"ended the process ({os.waitstatus_to_exitcode(status)})"
            took = time.monotonic() - began
            yield Outcome(f"! {how if ready else 'took for ever'}", took, 0.0)
            return
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            yield Outcome(**json.loads(line))
            count -= 1
        began, patience = time.monotonic(), 2.0 * SECONDS


def _live(
    case: Callable[[Any], str],
    items: Sequence[Any],
    warm: Callable[[], Any],
    writing: int,
) -> None:
    """Does the cases; never returns."""
    code = 1
    try:
        warm()
    except BaseException:
        traceback.print_exc()
        os._exit(_NOT_READY)
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # code that panics says much
        most = _sizes()["VmSize"] + MIB * 1024
        resource.setrlimit(resource.RLIMIT_AS, (most * 1024, most * 1024))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for item in items:
            line = json.dumps(dataclasses.asdict(_outcome(case, item)))
            os.write(writing, line.encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _outcome(case: Callable[[Any], str], item: Any) -> Outcome:
    Path("/proc/self/clear_refs").write_text("5")  # the high water mark begins anew
    before, began = _sizes()["VmRSS"], time.monotonic()
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SECONDS)
    try:
        said = case(item)
    except BaseException as error:  # the point of the exercise
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        said = f"! {type(error).__name__}: {str(error)[:300]} ({where})"
    finally:
        signal.alarm(0)
    took = time.monotonic() - began
    return Outcome(said, took, (_sizes()["VmHWM"] - before) / 1024)


def _sizes() -> dict[str, int]:
    """Returns sizes of this process in KiB."""
    found = _SIZES.findall(Path("/proc/self/status").read_text())
    return {name: int(size) for name, size in found}


def _ring(number: int, frame: object) -> None:
    raise TimeoutError(f"no answer in {SECONDS} s")
