"""Says where a run hangs: the stack of every thread, when nothing moves for long."""

import faulthandler
import sys
import threading
import time
from types import TracebackType


class Watchdog:
    """Reports on stderr once when there was no `beat` for a time; a context manager.

    A report ends nothing: a step may be slow, and a peer may come back.
    """

    def __init__(self, seconds: int | float) -> None:
        """Watches for silence of so many seconds; 0 watches nothing."""
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
        """Says that the run moves, and what it does now, if that is something else."""
        self._doing = doing or self._doing
        self._last, self._reported = time.monotonic(), False

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / 4):
            silent = time.monotonic() - self._last
            if silent >= self._seconds and not self._reported:
                self._reported = True
                print(
                    f"watchdog: {self._doing} has taken {silent:.0f} s so far. What "
                    "every thread does (run.watchdog_seconds sets the time):",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(2, all_threads=True)
