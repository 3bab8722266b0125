"""What keeps a long run healthy: run state, bad steps, hung steps, host memory.

`Standing` is what a resumed run must know besides its train state. `Members` counts
steps that are not finite and drops members of a sweep that have too many; a run that is
not a sweep has one member, ALONE, and its arrays have no axis of members. `Watchdog`
reports where a run hangs. `give_back_memory` returns freed host memory to the system.
"""

import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.training import metrics as sums_and_weights
from bert_jax.training import state

# A loss is unusual when it is so many deviations above the mean, of which a step
# weighs so much, once so many steps were seen.
SPIKE_DEVIATIONS = 6.0
_WEIGHT = 0.05
_STEPS_SEEN = 50

ALONE = ""  # the name of the one member of a run that is no sweep


@dataclasses.dataclass
class Standing:
    """Where a run stands.

    Attributes:
      interval: the metrics since the last log, as (sum, weight).
      bad_steps: how many steps so far were not finite and left out, by the names of
        the members that have any.
      diverged: members that are out of a sweep, and after which step.
      callbacks_due: whether the callbacks of the last step are still to be called.
      seen, mean, variance: of the losses so far, the newer the more.
    """

    interval: sums_and_weights.Sums = dataclasses.field(default_factory=dict)
    bad_steps: dict[str, int] = dataclasses.field(default_factory=dict)
    diverged: dict[str, int] = dataclasses.field(default_factory=dict)
    callbacks_due: bool = False
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def is_spike(self, loss: float) -> bool:
        """Returns whether a loss is far above the usual, and learns it if finite."""
        if not math.isfinite(loss):
            return False
        above = loss - self.mean
        enough = self.seen >= _STEPS_SEEN
        spike = enough and above > SPIKE_DEVIATIONS * math.sqrt(self.variance)
        weight = max(_WEIGHT, 1 / (self.seen + 1))
        self.seen += 1
        self.mean += weight * above
        self.variance = (1 - weight) * (self.variance + weight * above * above)
        return spike

    def count_bad(self, member: str) -> int:
        """Counts a step that is left out; returns how many of the member's were."""
        before = self.bad_steps[member] if member in self.bad_steps else 0
        self.bad_steps[member] = before + 1
        return before + 1

    def to_json(self) -> dict[str, Any]:
        """Returns what is saved."""
        return dataclasses.asdict(self)


def from_meta(meta: Mapping[str, Any]) -> Standing:
    """Returns what was saved with a checkpoint; earlier runs saved less.

    The object is under "standing", or only its "interval" is there. "bad_steps" may be
    one number, of the run as a whole.
    """
    saved = meta["standing"] if "standing" in meta else {"interval": meta["interval"]}
    read = {**saved, "interval": sums_and_weights.add({}, saved["interval"])}
    if "bad_steps" in saved and isinstance(bad := saved["bad_steps"], int):
        read["bad_steps"] = {ALONE: bad} if bad else {}
    return Standing(**read)


_NAMES_TOLD = 8

# tell(step, event): something that a person should look at.
Tell = Callable[[int, Mapping[str, Any]], None]
# names_at(step): the examples in the batch of a step, counted from 0.
NamesAt = Callable[[int], list[str]]


class Members:
    """Looks at each step of each member, and changes `standing`."""

    def __init__(
        self,
        names_at: Mapping[str, NamesAt],
        *,
        standing: Standing,
        tell: Tell,
        max_bad_steps: int,
    ) -> None:
        """`names_at` is by the names of the members, in the order of their axis.

        Args:
          max_bad_steps: that are left out of each member; one more, and it is out.
        """
        self._names_at, self._standing = names_at, standing
        self._tell, self._max_bad_steps = tell, max_bad_steps

    def good(
        self, step: int, metrics: Mapping[str, Any], batch: PyTree, params: PyTree
    ) -> sums_and_weights.Sums:
        """Returns the metrics of the members that did a step, added; {} if none did.

        The others are refused. Raises NotFiniteError if no member goes on. All
        processes must call it.

        Args:
          metrics: on the host; with the `health.checks` as "finite".
          batch, params: what the step was computed from; `params` may be later ones.
        """
        finite = np.atleast_1d(np.asarray(metrics["finite"]).all(axis=-1))
        for number, name in self._going():
            if not finite[number]:
                one = jax.tree.map(lambda x, n=number: self._of(x, n), metrics)
                self._refuse(step, number, name, one, batch, params)
        good = [number for number, _ in self._going() if finite[number]]
        return {
            name: (_sum(pair[0], good), _sum(pair[1], good))
            for name, pair in metrics.items()
            if good and isinstance(pair, tuple)
        }

    def check_params(self, step: int, params: PyTree) -> None:
        """Puts out who has parameters that must not be saved.

        Raises NotFiniteError if no member goes on. All processes must call it.
        """
        for number, name in self._going():
            if bad := state.first_not_finite(params, self._at(number)):
                reason = f"the parameter {bad} has values that are not finite"
                self._put_out(
                    step,
                    name,
                    reason,
                    f"after step {step}{_of(name)} {reason}: the state was not saved. "
                    "Lower optimizer.learning_rate and resume from the checkpoint "
                    "before",
                )

    def examples(self, step: int) -> list[str]:
        """Returns the examples in a step of all who go on, counted from 0."""
        return [
            f"{name}: {example}" if name else example
            for _, name in self._going()
            for example in self._names_at[name](step)
        ]

    def _going(self) -> list[tuple[int, str]]:
        out = self._standing.diverged
        return [(at, name) for at, name in enumerate(self._names_at) if name not in out]

    def _at(self, number: int) -> tuple[int, ...]:
        """Returns the index of a member in arrays of all."""
        return () if ALONE in self._names_at else (number,)

    def _of(self, value: Any, number: int) -> Any:
        return np.asarray(value)[self._at(number)]

    def _refuse(
        self,
        step: int,
        number: int,
        name: str,
        metrics: Mapping[str, Any],
        batch: PyTree,
        params: PyTree,
    ) -> None:
        """Tells and counts a member's step that is not finite."""
        found, at = metrics["finite"], self._at(number)
        reason = state.first_bad(found, metrics, batch, params, at)
        examples = self._names_at[name](step - 1)
        loss, norm = metrics["loss"][0], metrics["grad_norm"][0]
        event = {
            "event": "not_finite",
            **({"member": name} if name else {}),
            "reason": reason,
            "loss": _or_none(loss),
            "grad_norm": _or_none(norm),
            "examples": examples,
        }
        self._tell(step, event)
        if self._standing.count_bad(name) <= self._max_bad_steps:
            return
        allowed = self._max_bad_steps
        left_out = f"{allowed} such steps were left out before. " if allowed else ""
        self._put_out(
            step,
            name,
            reason,
            f"step {step}{_of(name)} is not finite: {reason} (loss {loss}, gradient "
            f"norm {norm}). Its examples are {listed(examples)}. {left_out}Nothing was "
            "saved after it. Lower optimizer.learning_rate, lengthen "
            "optimizer.warmup_steps, look at these examples, or leave such steps out "
            "with run.max_bad_steps, and resume",
        )

    def _put_out(self, step: int, name: str, reason: str, message: str) -> None:
        """Notes that a member diverged; raises NotFiniteError if none is left."""
        self._standing.diverged[name] = step
        if name:
            self._tell(step, {"event": "diverged", "member": name, "reason": reason})
        if not self._going():
            raise errors.NotFiniteError(
                f"no member of the sweep is left: {message}" if name else message
            )


def listed(names: list[str]) -> str:
    """Returns the first few names.

    >>> listed([f"0/{number}" for number in range(10)])
    '0/0, 0/1, 0/2, 0/3, 0/4, 0/5, 0/6, 0/7 and 2 more (events.jsonl has all)'
    """
    rest = len(names) - _NAMES_TOLD
    more = f" and {rest} more (events.jsonl has all)" if rest > 0 else ""
    return f"{', '.join(names[:_NAMES_TOLD])}{more}"


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def _sum(values: Any, chosen: list[int]) -> float:
    return float(np.atleast_1d(values)[chosen].sum(dtype=np.float64))


def _or_none(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


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


def give_back_memory() -> None:
    """Gives back what is freed already, where the C library can (glibc).

    It keeps half a gigabyte after a compilation otherwise, and a little more after each
    save and evaluation, as other threads do these.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def freeing_cycles() -> Iterator[None]:
    """Frees what was made within and refers to itself in a circle, as pictures do.

    Python would keep it until it looks at all objects, which it seldom does and takes
    long; here it looks at those alone that were made within.
    """
    was_on = gc.isenabled()
    gc.disable()  # so that no object counts as an old one
    try:
        yield
    finally:
        gc.collect(0)
        if was_on:
            gc.enable()
