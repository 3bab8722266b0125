"""Runs cases in a forked process with limited memory and time. A library of fuzz.py.

A case that crashes the process, or exceeds the time, is reported as such, and the next
one runs in a new fork. A case returns its result: a failure begins with "!", and
anything else, "" included, is a success. `audited` also reports what a reader must not
do: open files for writing or outside its folder, or start processes.
"""

import dataclasses
import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bert_jax import errors

MIB = 2048  # a case, in addition to what the process had
_NOT_READY = 99
# Folders of Python and its libraries.
_OWN = (sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/dev/null", "/lib")
_OWN += ("/dev/urandom", str(Path(__file__).resolve().parents[2]))
_HARMFUL = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"}
_HARMFUL |= {"os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink"}
_HARMFUL |= {"os.truncate"}
_SCRATCH = os.path.join(tempfile.gettempdir(), tempfile.gettempprefix())
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
    seconds: int = 30,
) -> Iterator[tuple[Item, Outcome]]:
    """Yields each item with its outcome, in order.

    `warm` runs before memory is measured; it imports what a case needs. A case that
    takes longer than `seconds` of processor time fails.
    """
    done = 0
    while done < len(items):
        for outcome in _one_fork(case, items[done:], warm, seconds):
            yield items[done], outcome
            done += 1


def _one_fork(
    case: Callable[[Any], str],
    items: Sequence[Any],
    warm: Callable[[], Any],
    seconds: int,
) -> Iterator[Outcome]:
    """Yields the outcomes of one process; the last may be its crash."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _work(case, items, warm, writing, seconds)
    os.close(writing)
    try:
        yield from _answers(reading, len(items), pid, seconds)
    finally:
        os.close(reading)
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _answers(reading: int, count: int, pid: int, seconds: int) -> Iterator[Outcome]:
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
        began, patience = time.monotonic(), 20.0 * seconds


def _work(
    case: Callable[[Any], str],
    items: Sequence[Any],
    warm: Callable[[], Any],
    writing: int,
    seconds: int,
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
            line = json.dumps(dataclasses.asdict(_outcome(case, item, seconds)))
            os.write(writing, line.encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _outcome(case: Callable[[Any], str], item: Any, seconds: int) -> Outcome:
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, began = _sizes()["VmRSS"], time.monotonic()
    signal.signal(signal.SIGPROF, _time_out)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        result = case(item)
    except BaseException as error:  # whatever a case raises is its result
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        result = f"! {type(error).__name__}: {str(error)[:300]} ({where})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    took = time.monotonic() - began
    return Outcome(result, took, (_sizes()["VmHWM"] - before) / 1024)


def _sizes() -> dict[str, int]:
    """Returns sizes of this process in KiB."""
    found = _SIZES.findall(Path("/proc/self/status").read_text())
    return {name: int(size) for name, size in found}


def _time_out(number: int, frame: object) -> None:
    raise TimeoutError("no result in time")


_seen: list[str] | None = None  # while a reader is watched: what it did


def audited(read: Callable[[], str]) -> str:
    """Calls `read` under an audit hook; returns "read", "refused" or a failure."""
    global _seen
    seen = _seen = []
    try:
        with warnings.catch_warnings(action="error"):
            outcome = read()
    except (errors.InputError, errors.StorageError) as error:
        outcome = "refused" if "\n" not in str(error) else f"! message: {error}"
    finally:
        stop_watching()
    return f"! did {seen[0]}" if seen else outcome


def stop_watching() -> None:
    """Ends the watch of `audited`, for what a check of the result does itself."""
    global _seen
    _seen = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Records files opened for writing or outside the folder, and subprocesses."""
    if _seen is None or "__pycache__" in str(arguments):
        return
    if event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        is_written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        is_outside = not path.startswith((*_OWN, tempfile.gettempdir()))
        if is_written or is_outside or path.endswith("secret"):
            _seen.append(f"open {path}")
    elif event == "os.mkdir" and str(arguments[0]).startswith(_SCRATCH):
        pass  # torch makes a temporary folder before it refuses a tar archive
    elif event in _HARMFUL:
        _seen.append(f"{event} {arguments}")


sys.addaudithook(_listen)
