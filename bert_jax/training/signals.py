"""Signals that ask a run to stop, heard in every phase of it.

Before and after the loop there is nothing to save, so `stopping` raises at once. In the
loop a `StopRequest` notes the signal, and the loop acts on it between two steps, or
between two batches of an evaluation, which is done again when the run is resumed.
"""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, TypeVar

from jax.experimental import multihost_utils

from bert_jax import errors
from bert_jax.training import processes

Made = TypeVar("Made")
_STOPPING = (signal.SIGTERM, signal.SIGINT)
# JAX names one for all to stop at: a second loop must not count from the beginning.
_places = itertools.count(1)


class Interrupted(Exception):
    """A callback of the loop was cut short by a request to stop."""


class Heard(BaseException):
    """A signal came within `stopping`: no `except Exception` takes it for its own."""


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Raises Stopped out of here when SIGTERM or SIGINT comes, in the main thread only.

    Only the first does so: more of them do not disturb the cleaning up.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame  # where the signal came does not matter
        for other in _STOPPING:
            signal.signal(other, signal.SIG_IGN)
        raise Heard(
            f"stopped by {signal.Signals(number).name}, with nothing left to save: the "
            "same command goes on"
        )

    with _handlers(dict.fromkeys(_STOPPING, stop)):
        try:
            yield
        except Heard as heard:
            raise errors.Stopped(str(heard)) from None
        except errors.Stopped:  # of a loop, in all processes
            processes.wait_for_all()  # one may save or upload for longer
            raise


class StopRequest:
    """Notes SIGTERM and SIGINT while the context is open; handlers are put back after.

    More of SIGTERM change nothing; a second SIGINT raises KeyboardInterrupt, for an
    impatient Ctrl-C. In threads other than the main one nothing is caught. With several
    processes `stopping` goes on to hear both until the first step is done, as the one
    that ends tells the others, and nothing of theirs is new. From then on JAX's own
    notice of preemption decides, because all must stop at the same place; it hears
    SIGTERM, and SIGINT is passed on as that.
    """

    def __init__(self, on_check: Callable[[], None] = lambda: None) -> None:
        """Calls `on_check` whenever a callback asks whether it must stop."""
        self.name: str | None = None
        self._on_check = on_check
        self._is_shared = False  # whether JAX hears the signals of all processes
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        if processes.count() == 1:
            handlers = dict.fromkeys(_STOPPING, self._note)
            self._open.enter_context(_handlers(handlers))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def requested(self) -> bool:
        """Returns whether the run must stop here, alike on all processes.

        All processes ask at the same places, in the same order.
        """
        place = next(_places)
        if self.name is None and self._is_shared:
            if multihost_utils.reached_preemption_sync_point(place):
                self.name = "a signal"
        return self.name is not None

    def unless_asked(self, call: Callable[[], Any]) -> Any:
        """Returns what `call` does; raises Stopped if a signal comes before it is done.

        For what compiles for minutes before the first step is done, until when nothing
        is to be saved.
        """

        def look() -> None:
            if self.name is not None:
                raise errors.Stopped(
                    f"stopped by {self.name} before the first step was done, with "
                    "nothing to save: the same command goes on"
                )

        return processes.apart(call, look)

    def share(self) -> None:
        """Has all processes stop at the same step from here on, if there are several.

        Until the end of the loop: `stopping` hears both again then.
        """
        if processes.count() == 1:
            return
        after = signal.getsignal(signal.SIGTERM)
        handlers = {signal.SIGINT: _pass_on, signal.SIGTERM: after}
        self._open.enter_context(_handlers(handlers))
        processes.hear_preemption()
        self._is_shared = True

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Lets `unless_asked` of this module raise Interrupted in here."""
        _interrupting.append(self)
        try:
            yield
        finally:
            _interrupting.remove(self)

    def check(self) -> None:
        """Says that the run moves; raises Interrupted if it must stop."""
        self._on_check()
        if self.requested():
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame  # where the signal came does not matter
        if number == signal.SIGINT and self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


_interrupting: list[StopRequest] = []


def unless_asked(call: Callable[[], Made]) -> Made:
    """Returns what `call` does, a part of a long callback of the loop.

    Says that the run moves, and raises Interrupted if it must stop. A call that
    compiles for minutes is left behind when a signal comes meanwhile, but in the loop
    of several processes; so it must not donate what it is given.
    """

    def look() -> None:
        if any(request.name is not None for request in _interrupting):
            raise Interrupted

    for request in _interrupting:
        request.check()
    return processes.apart(call, look)


@contextlib.contextmanager
def _handlers(handlers: Mapping[Any, Any]) -> Iterator[None]:
    """Installs handlers of signals in the main thread; puts the former ones back."""
    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {n: signal.signal(n, handler) for n, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _pass_on(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.kill(os.getpid(), signal.SIGTERM)
