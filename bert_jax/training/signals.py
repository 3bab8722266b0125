"""Signals that ask a run to stop: noted at once, acted upon between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Notes SIGTERM and SIGINT while the context is open; handlers are put back after.

    The second signal acts as if nothing were installed, so that an impatient Ctrl-C
    works. In threads other than the main one nothing is caught. With several processes
    JAX's own notice of preemption decides, because all must stop at the same step.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and jax.process_count() == 1:
            for number in _STOPPING:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def requested(self, step: int) -> bool:
        """Returns whether the run must stop after this step, alike on all processes."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(
            step
        ):
            self.name = "a notice of preemption"
        return self.name is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame  # where the signal came does not matter
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
