"""What watches a run: steps that are not finite, spikes of the loss, and hangs.

Every step checks its own numbers on the device (`state.finite_checks`); a guard
reads the result on the host, names the first bad array and the examples, and skips the
step or ends the run. `LoopState` counts, and is saved with a checkpoint.
"""

import dataclasses
import faulthandler
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from bert_jax import errors
from bert_jax.training import state

# name -> (sum, weight), on the host as Python floats (float64).
Sums = dict[str, tuple[float, float]]
# report(step, event): an event for a person to inspect.
Report = Callable[[int, Mapping[str, Any]], None]
# examples_at(step): the ids of the examples in the batch of a step, counted from 0.
ExamplesAt = Callable[[int], list[str]]

# A loss is a spike if it is this many standard deviations above the running mean, of
# which a step has this weight, once this many steps were seen.
SPIKE_DEVIATIONS = 6.0
_WEIGHT = 0.05
_STEPS_SEEN = 50

SINGLE = ""  # name of the one member of a run that is not a sweep
_LISTED_EXAMPLES = 8
# The checks of a step, in this order, then each gradient, and their norm.
_LEARNING_RATE, _LOSS = 0, 1


@dataclasses.dataclass
class LoopState:
    """The state of the loop that a resumed run needs besides its train state.

    Attributes:
      interval: metrics since the last log, as (sum, weight).
      bad_steps: number of steps that were skipped as not finite, by the names of the
        members that have any.
      diverged: members that were dropped from a sweep, and after which step.
      callbacks_due: whether the evaluation after the last step is still to be done.
      seen, mean, variance: number, running mean and running variance of the losses.
    """

    interval: Sums = dataclasses.field(default_factory=dict)
    bad_steps: dict[str, int] = dataclasses.field(default_factory=dict)
    diverged: dict[str, int] = dataclasses.field(default_factory=dict)
    callbacks_due: bool = False
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def is_spike(self, loss: float) -> bool:
        """Returns whether a loss is far above the mean; updates the mean if finite."""
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

    def to_json(self) -> dict[str, Any]:
        """Returns what is saved with a checkpoint, under "standing"."""
        return dataclasses.asdict(self)

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "LoopState":
        """Returns what was saved with a checkpoint.

        Earlier versions saved only "interval", or one number as "bad_steps".
        """
        saved = (
            meta["standing"] if "standing" in meta else {"interval": meta["interval"]}
        )
        sums = saved["interval"].items()
        interval = {name: (float(s), float(w)) for name, (s, w) in sums}
        read = {**saved, "interval": interval}
        if "bad_steps" in saved and isinstance(bad := saved["bad_steps"], int):
            read["bad_steps"] = {SINGLE: bad} if bad else {}
        return cls(**read)


class NonFiniteGuard:
    """Refuses steps that are not finite, and drops members that have too many.

    A run that is not a sweep has one member, SINGLE, and no axis of members.
    """

    def __init__(
        self,
        examples_at: Mapping[str, ExamplesAt],
        loop_state: LoopState,
        report: Report,
        max_bad_steps: int,
    ) -> None:
        """Continues from `loop_state`, and changes it.

        Args:
          examples_at: by the names of the members, in the order of their axis.
          report: called for each step of a member that is refused.
          max_bad_steps: steps that are skipped per member; one more drops it.
        """
        self._examples_at, self._loop_state = examples_at, loop_state
        self._report, self._max_bad_steps = report, max_bad_steps

    def active(self) -> list[tuple[int, str]]:
        """Returns the members that were not dropped: index on the axis, and name."""
        dropped = self._loop_state.diverged
        members = enumerate(self._examples_at)
        return [(index, name) for index, name in members if name not in dropped]

    def filter(
        self, step: int, metrics: Mapping[str, Any], batch: PyTree, params: PyTree
    ) -> Sums:
        """Returns the metrics of the finite members, added; {} if there are none.

        The others are refused. Raises NotFiniteError if no active member is left. All
        processes must call it.

        Args:
          metrics: of the step, on the host; "finite" has the `state.finite_checks`.
          batch, params: inputs of the step; `params` may be later ones.
        """
        finite = np.atleast_1d(np.asarray(metrics["finite"]).all(axis=-1))
        for index, name in self.active():
            if not finite[index]:
                own = jax.tree.map(lambda x, n=index: self._entry(x, n), metrics)
                self._refuse(step, (index, name), own, batch, params)
        good = [index for index, _ in self.active() if finite[index]]
        return {
            name: (_sum(pair[0], good), _sum(pair[1], good))
            for name, pair in metrics.items()
            if good and isinstance(pair, tuple)
        }

    def check_params(self, step: int, params: PyTree) -> None:
        """Drops members whose parameters are not finite, so that none is saved.

        Raises NotFiniteError if no active member is left. All processes must call it.
        """
        for index, name in self.active():
            if bad := first_not_finite(params, self._at(index)):
                reason = f"the parameter {bad} has values that are not finite"
                message = (
                    f"after step {step}{_of(name)} {reason}: the state was not saved. "
                    "Lower optimizer.learning_rate and resume"
                )
                self.drop(step, name, reason, message)

    def examples(self, step: int) -> list[str]:
        """Returns the examples in a step, counted from 0, of all active members."""
        return [
            f"{name}: {example}" if name else example
            for _, name in self.active()
            for example in self._examples_at[name](step)
        ]

    def drop(self, step: int, name: str, reason: str, message: str) -> None:
        """Drops a member that diverged; raises NotFiniteError if none is left."""
        self._loop_state.diverged[name] = step
        if name:
            self._report(step, {"event": "diverged", "member": name, "reason": reason})
        if not self.active():
            raise errors.NotFiniteError(
                f"no member of the sweep is left: {message}" if name else message
            )

    def _at(self, index: int) -> tuple[int, ...]:
        """Returns the index of a member in arrays of all members."""
        return () if SINGLE in self._examples_at else (index,)

    def _entry(self, value: Any, index: int) -> Any:
        return np.asarray(value)[self._at(index)]

    def _refuse(
        self,
        step: int,
        member: tuple[int, str],
        metrics: Mapping[str, Any],
        batch: PyTree,
        params: PyTree,
    ) -> None:
        """Reports and counts a member's step that is not finite."""
        index, name = member
        reason = first_bad(metrics, batch, params, self._at(index))
        examples = self._examples_at[name](step - 1)
        loss, norm = metrics["loss"][0], metrics["grad_norm"][0]
        event = {
            "event": "not_finite",
            **({"member": name} if name else {}),
            "reason": reason,
            "loss": _or_none(loss),
            "grad_norm": _or_none(norm),
            "examples": examples,
        }
        self._report(step, event)
        skipped = self._loop_state.bad_steps.get(name, 0)
        self._loop_state.bad_steps[name] = skipped + 1
        allowed = self._max_bad_steps
        if skipped < allowed:
            return
        before = f"{allowed} such steps were left out before. " if allowed else ""
        message = (
            f"step {step}{_of(name)} is not finite: {reason} (loss {loss}, gradient "
            f"norm {norm}). Its examples are {_listed(examples)}. {before}Nothing was "
            "saved after it. Lower optimizer.learning_rate, lengthen "
            "optimizer.warmup_steps, or skip such steps with run.max_bad_steps, and "
            "resume"
        )
        self.drop(step, name, reason, message)


def _listed(names: list[str]) -> str:
    """Returns the first few names.

    >>> _listed([f"0/{number}" for number in range(10)])
    '0/0, 0/1, 0/2, 0/3, 0/4, 0/5, 0/6, 0/7 and 2 more (events.jsonl has all)'
    """
    rest = len(names) - _LISTED_EXAMPLES
    more = f" and {rest} more (events.jsonl has all)" if rest > 0 else ""
    return f"{', '.join(names[:_LISTED_EXAMPLES])}{more}"


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def _sum(values: Any, chosen: list[int]) -> float:
    return float(np.atleast_1d(values)[chosen].sum(dtype=np.float64))


def _or_none(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def first_bad(
    metrics: Mapping[str, Any], batch: PyTree, params: PyTree, at: tuple[int, ...] = ()
) -> str:
    """Returns the first array that is not finite, in the order in which they are used.

    The learning rate, the arrays of the batch, the parameters, the losses, the
    gradients. All processes must call it.

    Args:
      metrics: of the step: (sum, weight) pairs, single values, and "finite".
      batch, params: inputs of the step.
      at: the index of the run in the arrays of these two; (3,) for the fourth member
        of a sweep.
    """
    found = metrics["finite"]
    if not found[_LEARNING_RATE]:
        return f"the learning rate is {float(metrics['learning_rate'])}"
    if name := first_not_finite(batch, at):
        return f"the array {name} of the batch has values that are not finite"
    if name := first_not_finite(params, at):
        return f"the parameter {name} has values that are not finite"
    parts = {n: m[0] for n, m in metrics.items() if isinstance(m, tuple)}
    for name, value in parts.items():
        if name.endswith("loss") and name != "loss" and not np.isfinite(value):
            return f"{name} is {float(value)}"
    if not found[_LOSS]:
        return f"the loss is {float(parts['loss'])}"
    gradients = found[_LOSS + 1 : -1]
    if gradients.all():
        return f"the gradient norm is {float(parts['grad_norm'])}"
    bad = list(state.named_leaves(params))[int(np.argmin(gradients))]
    return f"the gradient of {bad} has values that are not finite"


def first_not_finite(tree: PyTree, at: tuple[int, ...] = ()) -> str | None:
    """Returns the name of the first array of floats with a value that is not finite.

    All processes must call it. `at` is as in `first_bad`.
    """
    floats = {
        name: leaf
        for name, leaf in state.named_leaves(tree).items()
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
    }
    good = jax.device_get(_all_finite(list(floats.values()), at))
    bad = [name for name, is_good in zip(floats, good, strict=True) if not is_good]
    return bad[0] if bad else None


@jax.jit
def _all_finite(leaves: list[Array], at: tuple[Any, ...]) -> list[Bool[Array, ""]]:
    return [jnp.isfinite(leaf[at]).all() for leaf in leaves]


class Watchdog:
    """Reports a run that hangs: prints all stacks if `beat` is not called for a time.

    Use it as a context manager. The run continues: a step may only be slow, and a peer
    may come back.
    """

    def __init__(self, seconds: int | float) -> None:
        """Reports after this many seconds without a `beat`; 0 never reports."""
        self._seconds = seconds
        self._closed = threading.Event()
        self.beat("the start")

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            threading.Thread(None, self._watch, "watchdog", daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._closed.set()

    def beat(self, doing: str = "") -> None:
        """Resets the timer; `doing` names the new activity of the run, if any."""
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
