"""The members of a sweep: bad steps are told and counted, and who has too many is out.

A run that is no sweep has one member, ALONE; its arrays have no axis of members.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.training import health
from bert_jax.training import metrics as sums_and_weights
from bert_jax.training.standing import ALONE, Standing

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
            if bad := health.first(params, self._at(number)):
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
        reason = health.first_bad(found, metrics, batch, params, at)
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
            f"norm {norm}). Its examples are {told(examples)}. {left_out}Nothing was "
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


def told(names: list[str]) -> str:
    """Returns the first few names.

    >>> told([f"0/{number}" for number in range(10)])
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
