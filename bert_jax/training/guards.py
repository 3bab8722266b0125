"""Guards of a long run: a watchdog for hangs, and host memory that does not grow."""

import contextlib
import ctypes
import faulthandler
import gc
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType


class Watchdog:
    """Reports a run that hangs: prints all stacks if `beat` is not called for a time.

    Use it as a context manager. The run continues: a step may only be slow, and a peer
    may come back.
    """

    def __init__(self, seconds: int | float) -> None:
        """Reports after this many seconds without a `beat`; 0 never reports."""
        self._seconds = seconds
        self._doing = "the start"
        self._last = time.monotonic()
        self._reported = False
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="watchdog", daemon=True
        )

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()

    def beat(self, doing: str = "") -> None:
        """Resets the timer; `doing` names what the run does now, if that changed."""
        self._doing = doing or self._doing
        self._last, self._reported = time.monotonic(), False

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / 4):
            silent = time.monotonic() - self._last
            if silent >= self._seconds and not self._reported:
                self._reported = True
                print(
                    f"watchdog: {self._doing} has taken {silent:.0f} s so far. The "
                    "stacks of all threads (run.watchdog_seconds sets this time):",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(2, all_threads=True)


def trim_memory() -> None:
    """Returns freed host memory to the system, where the C library can (glibc).

    Otherwise it keeps half a gigabyte after a compilation, and a little more after each
    save and evaluation, which run in other threads.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def collect_young_garbage() -> Iterator[None]:
    """Frees reference cycles created in the context, as matplotlib's figures are.

    Python would keep them until a full collection, which is rare and slow; this looks
    only at objects that were created in the context.
    """
    was_on = gc.isenabled()
    gc.disable()  # so that all new objects stay in the youngest generation
    try:
        yield
    finally:
        gc.collect(0)
        if was_on:
            gc.enable()
