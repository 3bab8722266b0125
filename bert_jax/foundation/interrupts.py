"""Signals that ask a process to stop: noted at once, acted on where it is safe.

A handler of SIGINT (Ctrl-C) or SIGTERM raises nothing: JAX, the garbage collector and
C libraries swallow what is raised inside of them. It notes the signal, and `check`,
which long work calls again and again, raises `SignalReceived`.

A process that runs one of our commands (`own`) also has a thread that sees signals
while the main thread is in C code, in a compiler for example. It ends the process at
once after a second Ctrl-C, and a few seconds after any signal if the main thread calls
no `check`, unless something is `unsaved`. That is safe at any time: files get their
names when they are whole. The process ends without the interpreter's own shutdown,
which crashes while another thread compiles.

A leaf module without dependencies, so that it can be imported before everything else.
"""

import contextlib
import itertools
import logging
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from bert_jax import errors

Result = TypeVar("Result")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_LOOK_SECONDS = 0.1  # between two looks at a thread, or at what the main thread does
# For the main thread to come to a `check`: a third of it if nothing is `unfinished`.
_PATIENCE_SECONDS = 3.0
_CLEANUP_SECONDS = 20.0  # for it to end after `check` has raised
# Two of SIGINT within this time are one Ctrl-C: `timeout` and some launchers send it
# to the process and to its group.
_SAME_PRESS_SECONDS = 0.1
_FLUSH_SECONDS = 1.0  # a reader of our output may have stopped reading


class SignalReceived(BaseException):
    """A signal asks to stop; a BaseException, which no `except Exception` takes."""


class _Noted:
    """The request to stop, if there is one, and what the process does about it."""

    def __init__(self) -> None:
        self.name: str | None = None  # of the first signal
        self.at = 0.0  # when it came, by `time.monotonic`
        self.is_impatient = False  # whether Ctrl-C came after it
        self.is_answered = False  # whether the main thread is on its way out
        self.waiting_since = 0.0  # when the watching thread began to wait

    def note(self, number: int) -> None:
        """Notes a signal: the first one decides the name."""
        if self.name is None:
            self.at = self.waiting_since = time.monotonic()
            self.name = signal.Signals(number).name

    def answer(self) -> None:
        """Notes that the main thread stops: it gets time to clean up."""
        self.is_answered, self.waiting_since = True, time.monotonic()


_noted = _Noted()
_levels = 0  # of `listening`, one within the other
_is_owned = False
_patience = 0.0  # of an owned process while it imports: nothing is there to clean up
# What `check` raises, the last of them now; None means nothing. Each context that is
# open has an entry of its own, as they need not close in the order of a stack.
_checks: list[Callable[[], None]] = []  # of evaluations in progress
_raised: list[tuple[type[BaseException] | None, object]] = []
_unsaved: list[bool] = []  # one entry for each `unsaved` that is open
_unfinished: list[tuple[Path, ...]] = []
_ending = threading.Event()  # set when the watching thread ends the process
# What the watching thread calls with the message and code before it ends the process.
_farewells: list[Callable[[str, int], None]] = []


def requested() -> str | None:
    """Returns the name of the signal that asks to stop, or None.

    Raises KeyboardInterrupt after a second Ctrl-C.
    """
    if _noted.is_impatient:
        raise KeyboardInterrupt
    return _noted.name


def check() -> None:
    """Raises `SignalReceived` if a signal came, unless something is unsaved.

    Long work calls it again and again.

    Does nothing in other threads than the main one, outside of `listening`, and after
    it has raised `SignalReceived`, so that cleaning up is not disturbed.
    """
    if _noted.name is None or threading.current_thread() is not threading.main_thread():
        return
    kind = _raised[-1][0] if _raised else None
    if requested() and kind is not None:
        if kind is not SignalReceived:
            raise kind
        if not _noted.is_answered:
            _noted.answer()
            raise SignalReceived(_noted.name)


def answer() -> None:
    """Notes that the main thread stops because of the signal."""
    _noted.answer()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Notes SIGINT and SIGTERM while the context is open, in the main thread only.

    The outermost context puts the former handlers back and forgets the signal. Unless
    the process is owned, a second SIGINT raises KeyboardInterrupt, at once and in
    `check`.
    """
    global _levels, _noted
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_first = _levels == 0 and not _is_owned
    _levels += 1
    try:
        with handlers(dict.fromkeys(SIGNALS if is_first else (), _note)):
            with raising(SignalReceived):
                yield
    finally:
        _levels -= 1
        if is_first:
            _noted = _Noted()


@contextlib.contextmanager
def handlers(installed: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Installs handlers of signals in the main thread; puts the former ones back."""
    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {n: signal.signal(n, handler) for n, handler in installed.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None is a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def is_outermost() -> bool:
    """Returns whether the caller's `listening` is the only one of this process."""
    return _levels == 1 and not _is_owned


@contextlib.contextmanager
def raising(kind: type[BaseException] | None) -> Iterator[None]:
    """Has `check` raise this kind of error in the context; None means nothing."""
    entry = (kind, object())
    _raised.append(entry)
    try:
        yield
    finally:
        _raised.remove(entry)


@contextlib.contextmanager
def unsaved() -> Iterator[None]:
    """Keeps the process alive while the context is open, whatever signal has come.

    For what must be finished first, like a save. `check` raises nothing in it, and a
    second Ctrl-C ends the process all the same.
    """
    _unsaved.append(True)
    try:
        with raising(None):
            yield
    finally:
        _noted.waiting_since = time.monotonic()
        _unsaved.pop()


@contextlib.contextmanager
def unfinished(*paths: Path) -> Iterator[None]:
    """Names files and folders that are of no use if the process ends in the context.

    Ended for the main thread, which would remove them, an owned process removes them.
    """
    _unfinished.append(paths)
    try:
        yield
    finally:
        _unfinished.remove(paths)


@contextlib.contextmanager
def checking(check: Callable[[], None]) -> Iterator[None]:
    """Has `run_interruptible` call this first in the context, an evaluation."""
    _checks.append(check)
    try:
        yield
    finally:
        _checks.remove(check)


def run_interruptible(call: Callable[[], Result]) -> Result:
    """Returns what `call` does, a part of a long evaluation or of a command.

    In an evaluation it resets the watchdog, and raises what ends it if the run must
    stop; elsewhere it does what `check` does. A signal abandons the call while it
    compiles (but not with several processes), so it must not donate arguments.
    """
    for check_first in _checks:
        check_first()
    return run_in_thread(call)


def run_in_thread(
    call: Callable[[], Result],
    look: Callable[[], None] = check,
    *,
    waits: bool = False,
) -> Result:
    """Returns what `call` returns, run in a thread while this one sees signals.

    For what waits or compiles for long: Python calls no handler before it is done.

    Args:
      look: called every moment. What it raises is raised at once, and the thread is
        abandoned.
      waits: the call only waits for others, so that the interpreter may shut down
        meanwhile. It would crash while the call compiles, and waits for it.

    Raises:
      What `call`, `look` or a handler raises.
    """
    results: list[Result] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work, name="work", daemon=waits or _is_owned)
    worker.start()
    while worker.is_alive():
        worker.join(_LOOK_SECONDS)
        if worker.is_alive():
            look()
    if failures:
        raise failures[0]
    return results[0]


def own() -> None:
    """Makes this process one of a command: signals end it with 75, whatever it does.

    Called before the first long import. Until `begin` there is nothing to clean
    up, and a signal ends the process at once.
    """
    global _is_owned
    if _is_owned or threading.current_thread() is not threading.main_thread():
        return
    _is_owned = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in SIGNALS:
        signal.signal(number, _note)
    # C writes the number of each signal there, while Python waits for C code to return.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(
        before=lambda: _mask(signal.SIG_BLOCK),
        after_in_parent=lambda: _mask(signal.SIG_UNBLOCK),
        after_in_child=_disown,
    )
    threading.Thread(None, _watch, "signals", (reader,), daemon=True).start()


def is_owned() -> bool:
    """Returns whether this process is one of a command."""
    return _is_owned


def begin() -> None:
    """Gives the main thread time to come to a `check`: the command begins."""
    global _patience
    _patience = _PATIENCE_SECONDS


def call_before_end(farewell: Callable[[str, int], None]) -> None:
    """Has `farewell(message, code)` called before a signal ends an owned process."""
    _farewells.append(farewell)


def end(code: int) -> NoReturn:
    """Ends the process with an exit code.

    An owned process ends without the shutdown of the interpreter, another one by
    SystemExit.
    """
    if not _is_owned:
        sys.exit(code)
    end_at_once(code)


def end_at_once(code: int) -> NoReturn:
    """Ends the process without the shutdown of the interpreter; flushes its streams."""
    _flush()
    if _ending.is_set():
        time.sleep(_CLEANUP_SECONDS)  # the watching thread ends it, with its own code
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a full disk was reported before
            stream.flush()
    logging.shutdown()


def _end_for_main(code: int, text: str) -> NoReturn:
    """Ends an owned process for the main thread, which may hold its streams."""

    def report() -> None:
        with contextlib.suppress(Exception):
            bar = "\n" if sys.stderr.isatty() else ""  # which has not ended its line
            print(f"{bar}error: {text}", file=sys.stderr)
        _flush()

    for farewell in _farewells:
        with contextlib.suppress(Exception):  # the process ends in any case
            farewell(text, code)
    reporting = threading.Thread(target=report, daemon=True)
    reporting.start()
    reporting.join(_FLUSH_SECONDS)
    _ending.set()
    for path in itertools.chain(*_unfinished):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    os._exit(code)


def _note(number: int, frame: FrameType | None) -> None:
    """Is the handler of both signals."""
    del frame  # where the signal came does not matter
    again = number == signal.SIGINT and _noted.name is not None
    if again and not _is_owned:  # else the watching thread acts
        _noted.is_impatient = True
        raise KeyboardInterrupt
    _noted.note(number)


def _mask(how: int) -> None:
    """Blocks signals, so that a child that forks gets none for its parent."""
    signal.pthread_sigmask(how, SIGNALS)


def _disown() -> None:
    """Makes a forked child a process that signals end as usual."""
    global _is_owned, _noted
    _is_owned, _noted = False, _Noted()
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _mask(signal.SIG_UNBLOCK)


def _watch(reader: int) -> None:
    """Acts on signals where the main thread does not: a thread of an owned process."""
    while True:
        wait = None if _noted.name is None else _LOOK_SECONDS
        if select.select([reader], [], [], wait)[0]:
            for number in os.read(reader, 64):
                if number in SIGNALS:
                    _see(number)
        if _noted.name is not None and not _unsaved and _has_waited_long():
            _end_for_main(errors.Stopped.exit_code, stopped_text(_noted.name))


def _see(number: int) -> None:
    """Notes a signal, or ends the process if it is the second Ctrl-C."""
    is_late = time.monotonic() - _noted.at > _SAME_PRESS_SECONDS
    if number == signal.SIGINT and _noted.name is not None and is_late:
        text = "interrupted again: ended at once, the same command resumes"
        _end_for_main(INTERRUPTED, text)
    _noted.note(number)


def _has_waited_long() -> bool:
    """Returns whether the main thread had its time to end the process itself."""
    waited = time.monotonic() - _noted.waiting_since
    if _noted.is_answered:
        return waited >= _CLEANUP_SECONDS
    return waited >= (_patience if _unfinished else _patience / 3)


def stopped_text(name: str) -> str:
    """Returns the message for a signal that came when there was nothing to save."""
    return f"stopped by {name}, with nothing left to save: the same command resumes"
