"""Reads the metrics of steps: means for the log, steps that went bad, spikes."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.training import health, progress
from bert_jax.training import metrics as sums_and_weights
from bert_jax.training.standing import Standing

_NAMES_TOLD = 8

Log = Callable[[int, dict[str, float]], None]
# tell(step, event): something that a person should look at.
Tell = Callable[[int, Mapping[str, Any]], None]


class Record:
    """Reads the metrics of steps, adds them up, and logs their means when due."""

    def __init__(
        self,
        standing: Standing,
        *,
        log: Log,
        tell: Tell,
        log_every_steps: int,
        num_train_steps: int,
        max_bad_steps: int,
        speed: progress.Speed,
        names_at: Callable[[int], list[str]],
    ) -> None:
        """Goes on from `standing`, and changes it; see `loop.run` for the others."""
        self.standing = standing
        self._log, self._tell = log, tell
        self._log_every_steps = log_every_steps
        self._num_train_steps = num_train_steps
        self._max_bad_steps = max_bad_steps
        self._speed = speed
        self._names_at = names_at

    def read(
        self,
        step: int,
        metrics: dict[str, Any],
        batch: PyTree,
        params: PyTree,
        bar: progress.Progress,
    ) -> None:
        """Waits for a step, made of `batch`.

        Raises NotFiniteError if the step was refused and no more may be left out.
        `params` may be those of a later step.
        """
        metrics = jax.device_get(metrics)
        self._speed.step_done(step)
        bar.advance()
        found = metrics.pop("finite")
        if found.all():
            self._count(step, metrics)
        else:
            self._refused(step, found, metrics, batch, params)
        if step % self._log_every_steps == 0 or step == self._num_train_steps:
            latest = {
                n: float(m) for n, m in metrics.items() if not isinstance(m, tuple)
            }
            values = sums_and_weights.divide(self.standing.interval)
            values |= latest | self._speed.read()
            if self.standing.bad_steps:
                values["bad_steps"] = float(self.standing.bad_steps)
            self.standing.interval = {}
            self._log(step, {f"train/{name}": v for name, v in values.items()})
            bar.show(step, values)

    def _count(self, step: int, metrics: dict[str, Any]) -> None:
        """Adds a good step to the interval, and looks at its loss."""
        pairs = {n: m for n, m in metrics.items() if isinstance(m, tuple)}
        standing = self.standing
        standing.interval = sums_and_weights.add(standing.interval, pairs)
        usual = standing.mean
        loss = float(pairs["loss"][0]) / float(pairs["loss"][1])
        if standing.is_spike(loss):
            names = self._names_at(step - 1)
            event = {"event": "spike", "loss": loss, "usual_loss": usual}
            self._tell(step, {**event, "examples": names})

    def _refused(
        self,
        step: int,
        found: np.ndarray,
        metrics: dict[str, Any],
        batch: PyTree,
        params: PyTree,
    ) -> None:
        """Counts a step that is not finite, or raises NotFiniteError."""
        reason = health.first_bad(found, metrics, batch, params)
        names = self._names_at(step - 1)
        event = {
            "event": "not_finite",
            "reason": reason,
            "loss": _or_none(metrics["loss"][0]),
            "grad_norm": _or_none(metrics["grad_norm"][0]),
            "examples": names,
        }
        self._tell(step, event)
        self.standing.bad_steps += 1
        if self.standing.bad_steps <= self._max_bad_steps:
            return
        allowed = self._max_bad_steps
        left_out = f"{allowed} such steps were left out before. " if allowed else ""
        raise errors.NotFiniteError(
            f"step {step} is not finite: {reason} (loss {metrics['loss'][0]}, gradient "
            f"norm {metrics['grad_norm'][0]}). Its examples are {told(names)}. "
            f"{left_out}Nothing was saved after it. Lower optimizer.learning_rate, "
            "lengthen optimizer.warmup_steps, look at these examples, or leave such "
            "steps out with run.max_bad_steps, and resume"
        )


def told(names: list[str]) -> str:
    """Returns the first few names.

    >>> told([f"0/{number}" for number in range(10)])
    '0/0, 0/1, 0/2, 0/3, 0/4, 0/5, 0/6, 0/7 and 2 more (events.jsonl has all)'
    """
    rest = len(names) - _NAMES_TOLD
    more = f" and {rest} more (events.jsonl has all)" if rest > 0 else ""
    return f"{', '.join(names[:_NAMES_TOLD])}{more}"


def _or_none(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
