"""How a run stops when a signal asks it to, in every phase of it.

Before and after the loop there is nothing to save, and `interrupts.check` ends the run.
In the loop a `StopRequest` decides: the loop acts on it between two steps, or between
two batches of an evaluation, which is done again when the run is resumed.
"""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from jax.experimental import multihost_utils

from bert_jax import errors, interrupts
from bert_jax.training import distributed

Result = TypeVar("Result")
# JAX names one for all to stop at: a second loop must not count from the beginning.
_places = itertools.count(1)


class Interrupted(Exception):
    """A callback of the loop was cut short by a request to stop."""


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Raises Stopped out of here after SIGTERM or SIGINT, in the main thread only.

    Where the work calls `interrupts.check`; at the end at the latest, unless the
    process goes on to end itself, as that of a command does.
    """
    with interrupts.listening():
        try:
            yield
        except interrupts.SignalReceived as heard:
            text = interrupts.stopped_text(str(heard))
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
    """Whether a loop must stop, while the context is open.

    More of SIGTERM change nothing; a second SIGINT is an impatient Ctrl-C, which ends
    the process or raises KeyboardInterrupt. In threads other than the main one nothing
    is noted. With several processes `stopping` goes on to act on both until the first
    step is done, as the one that ends tells the others, and nothing of theirs is new.
    From then on JAX's own notice of preemption decides, because all must stop at the
    same place; it hears SIGTERM, and SIGINT is passed on as that.
    """

    def __init__(self, on_check: Callable[[], None] = lambda: None) -> None:
        """Calls `on_check` whenever a callback asks whether it must stop."""
        self._on_check = on_check
        self._is_agreed = False  # whether all processes stop here
        self._is_shared = False  # whether JAX hears the signals of all processes
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        if distributed.count() == 1:
            self._open.enter_context(interrupts.listening())
            self._open.enter_context(interrupts.unsaved())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def name(self) -> str | None:
        """Of the signal for which the run must stop, as far as is known; or None.

        Raises KeyboardInterrupt after a second Ctrl-C.
        """
        if distributed.count() == 1:
            return interrupts.requested()
        return "a signal" if self._is_agreed else None

    def requested(self) -> bool:
        """Returns whether the run must stop here, alike on all processes.

        All processes ask at the same places, in the same order.
        """
        place = next(_places)
        if self._is_shared and not self._is_agreed:
            agreed = multihost_utils.reached_preemption_sync_point(place)
            self._is_agreed = bool(agreed)
        return self.name is not None

    def run_interruptible(self, call: Callable[[], Any]) -> Any:
        """Returns what `call` does; raises Stopped if a signal comes before it is done.

        For what compiles for minutes before the first step is done, until when nothing
        is to be saved.
        """

        def look() -> None:
            if self.name is not None:
                interrupts.answer()
                raise errors.Stopped(
                    f"stopped by {self.name} before the first step was done, with "
                    "nothing to save: the same command goes on"
                )
            interrupts.check()  # with several processes

        return interrupts.run_in_thread(call, look)

    def share(self) -> None:
        """Has all processes stop at the same step from here on, if there are several.

        Until the end of the loop: `stopping` acts on both again then.
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
        """Lets this module's `run_interruptible` raise Interrupted in the context.

        With one process `interrupts.check` raises it too; several processes must stop
        at the same point.
        """
        kind = Interrupted if distributed.count() == 1 else None
        _interrupting.append(self)
        try:
            with interrupts.raising(kind):
                yield
        finally:
            _interrupting.remove(self)

    def check(self) -> None:
        """Says that the run moves; raises Interrupted if it must stop."""
        self._on_check()
        if self.requested():
            raise Interrupted


_interrupting: list[StopRequest] = []


def run_interruptible(call: Callable[[], Result]) -> Result:
    """Returns what `call` does, a part of a long callback of the loop or of a command.

    In a callback it says that the run moves, and raises Interrupted if it must stop;
    elsewhere it does what `interrupts.check` does. A call that compiles for minutes is
    abandoned when a signal comes meanwhile, but in the loop of several processes; so it
    must not donate what it is given.
    """
    for request in _interrupting:
        request.check()
    return interrupts.run_in_thread(call)


def _passing_on() -> contextlib.AbstractContextManager[None]:
    """Passes SIGINT on as SIGTERM while the context is open."""
    passed: list[bool] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        del number, frame
        if passed and not interrupts.is_owned():  # else the process is ended
            raise KeyboardInterrupt
        passed.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

    after = signal.getsignal(signal.SIGTERM)  # JAX puts its own there
    return interrupts.handlers({signal.SIGINT: pass_on, signal.SIGTERM: after})
