"""Runs cases in a forked process with limited memory and time. A library of fuzz.py.

A case that crashes the process, or exceeds the time, is reported as such, and the next
one runs in a new fork. A case returns its result: a failure begins with "!", and
anything else, "" included, is a success.
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

SECONDS = 30  # a case; then the process is killed
MIB = 2048  # a case, in addition to what the process had
_NOT_READY = 99
_SIZES = re.compile(r"^(VmSize|VmRSS|VmHWM):\s+(\d+) kB", re.MULTILINE)

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a case, its time, and its peak memory."""

    result: str
    seconds: float
    mib: float

    @property
    def is_ok(self) -> bool:
        """Whether the case succeeded."""
        return not self.result.startswith("!")


def outcomes(
    case: Callable[[Item], str],
    items: Sequence[Item],
    warm: Callable[[], Any] = lambda: None,
) -> Iterator[tuple[Item, Outcome]]:
    """Yields each item with its outcome, in order.

    `warm` runs before memory is measured; it imports what a case needs.
    """
    done = 0
    while done < len(items):
        for outcome in _one_fork(case, items[done:], warm):
            yield items[done], outcome
            done += 1


def _one_fork(
    case: Callable[[Any], str], items: Sequence[Any], warm: Callable[[], Any]
) -> Iterator[Outcome]:
    """Yields the outcomes of one process; the last may be its crash."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _work(case, items, warm, writing)
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
    began, patience = time.monotonic(), 300.0  # the first includes `warm`
    while count:
        ready, _, _ = select.select([reading], [], [], patience)
        read = os.read(reading, 1 << 16) if ready else b""
        if not read:
            if not ready:
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if os.waitstatus_to_exitcode(status) == _NOT_READY:
                raise AssertionError("the sandbox failed to start: see above")
            how = f"ended the process ({os.waitstatus_to_exitcode(status)})"
            took = time.monotonic() - began
            yield Outcome(f"! {how if ready else 'timed out'}", took, 0.0)
            return
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            yield Outcome(**json.loads(line))
            count -= 1
        began, patience = time.monotonic(), 2.0 * SECONDS


def _work(
    case: Callable[[Any], str],
    items: Sequence[Any],
    warm: Callable[[], Any],
    writing: int,
) -> None:
    """Runs the cases; never returns."""
    code = 1
    try:
        warm()
    except BaseException:
        traceback.print_exc()
        os._exit(_NOT_READY)
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Rust panics are verbose
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
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, began = _sizes()["VmRSS"], time.monotonic()
    signal.signal(signal.SIGALRM, _time_out)
    signal.alarm(SECONDS)
    try:
        result = case(item)
    except BaseException as error:  # whatever a case raises is its result
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        result = f"! {type(error).__name__}: {str(error)[:300]} ({where})"
    finally:
        signal.alarm(0)
    took = time.monotonic() - began
    return Outcome(result, took, (_sizes()["VmHWM"] - before) / 1024)


def _sizes() -> dict[str, int]:
    """Returns sizes of this process in KiB."""
    found = _SIZES.findall(Path("/proc/self/status").read_text())
    return {name: int(size) for name, size in found}


def _time_out(number: int, frame: object) -> None:
    raise TimeoutError(f"no result in {SECONDS} s")
