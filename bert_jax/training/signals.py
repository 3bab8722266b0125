"""How a run stops on a signal, in every phase of it.

Before and after the loop there is nothing to save, and `interrupts.check` ends the run.
In the loop a `StopRequest` decides: the loop acts on it between two steps, or between
two batches of an evaluation, which is done again when the run is resumed.
"""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from bert_jax import errors
from bert_jax.foundation import interrupts
from bert_jax.training import distributed

# Numbers of JAX's sync points; a second loop must not start again at 1.
_sync_points = itertools.count(1)


class Interrupted(Exception):
    """An evaluation in the loop was interrupted by a request to stop."""


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Raises Stopped after SIGTERM or SIGINT, in the main thread only.

    It does where the work calls `interrupts.check`, and at the end at the latest; the
    process of a command ends itself.
    """
    with interrupts.listening():
        try:
            yield
        except interrupts.SignalReceived as received:
            text = interrupts.stopped_text(str(received))
            raise errors.Stopped(text) from None
        except errors.Stopped:  # of a loop, in all processes
            with interrupts.unsaved():  # one may save or upload for longer
                distributed.wait_for_all()
            raise
        name = interrupts.requested()
        if name is not None and interrupts.is_outermost():
            raise errors.Stopped(
                f"stopped by {name} when all was done: the same command finds it"
            )


class StopRequest:
    """Whether a loop must stop, while the context is open, in the main thread only.

    More of SIGTERM change nothing; a second SIGINT ends the process or raises
    KeyboardInterrupt. With several processes `stopping` acts on both until the first
    step is done, as none has anything to save. From then on JAX's preemption service
    decides, because all must stop at the same step; it handles SIGTERM, and SIGINT is
    forwarded as SIGTERM.
    """

    def __init__(self, on_check: Callable[[], None] = lambda: None) -> None:
        """Calls `on_check` whenever an evaluation checks whether it must stop."""
        self._on_check = on_check
        self._is_agreed = False  # whether all processes have agreed to stop
        self._is_shared = False  # whether JAX handles the signals of all processes
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        if distributed.count() == 1:
            self._open.enter_context(interrupts.listening())
            self._open.enter_context(interrupts.unsaved())
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    @property
    def name(self) -> str | None:
        """Name of the signal for which the run must stop, or None.

        Raises KeyboardInterrupt after a second Ctrl-C.
        """
        if distributed.count() == 1:
            return interrupts.requested()
        return "a signal" if self._is_agreed else None

    def requested(self) -> bool:
        """Returns whether the run must stop here, the same on all processes.

        All processes call it at the same points, in the same order.
        """
        point = next(_sync_points)
        if self._is_shared and not self._is_agreed:
            agreed = multihost_utils.reached_preemption_sync_point(point)
            self._is_agreed = bool(agreed)
        return self.name is not None

    def run_interruptible(self, call: Callable[[], Any]) -> Any:
        """Returns what `call` does; raises Stopped if a signal comes before it is done.

        For compilation before the first step, when there is nothing to save.
        """

        def look() -> None:
            if self.name is not None:
                interrupts.answer()
                raise errors.Stopped(
                    f"stopped by {self.name} before the first step was done, with "
                    "nothing to save: run the same command to resume"
                )
            interrupts.check()  # with several processes

        return interrupts.run_in_thread(call, look)

    def share(self) -> None:
        """Makes all processes stop at the same step from here to the end of the loop.

        After the loop `stopping` acts on both signals again.
        """
        if distributed.count() == 1:
            return
        self._open.enter_context(interrupts.unsaved())
        self._open.enter_context(_passing_on())
        distributed.enable_preemption_signal()
        self._is_shared = True
        if interrupts.requested() is not None:  # since the last look
            os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Lets `interrupts.run_interruptible` raise Interrupted in the context.

        With one process `interrupts.check` raises it too; several processes must stop
        at the same point.
        """
        kind = Interrupted if distributed.count() == 1 else None
        with interrupts.raising(kind), interrupts.checking(self.check):
            yield

    def check(self) -> None:
        """Resets the watchdog; raises Interrupted if the run must stop."""
        self._on_check()
        if self.requested():
            raise Interrupted


def _passing_on() -> contextlib.AbstractContextManager[None]:
    """Forwards SIGINT as SIGTERM while the context is open."""
    passed: list[bool] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        del number, frame
        if passed and not interrupts.is_owned():  # else the process is ended
            raise KeyboardInterrupt
        passed.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

    after = signal.getsignal(signal.SIGTERM)  # JAX installs its own
    return interrupts.handlers({signal.SIGINT: pass_on, signal.SIGTERM: after})
