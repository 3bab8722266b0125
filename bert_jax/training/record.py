"""Reads the metrics of steps: means for the log, and spikes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax.training import bad_steps, progress
from bert_jax.training import metrics as sums_and_weights
from bert_jax.training.standing import Standing

Log = Callable[[int, dict[str, float]], None]


class Record:
    """Reads the metrics of steps, adds them up, and logs their means when due."""

    def __init__(
        self,
        standing: Standing,
        *,
        every: bad_steps.Members,
        log: Log,
        tell: bad_steps.Tell,
        log_every_steps: int,
        num_train_steps: int,
        speed: progress.Speed,
    ) -> None:
        """Goes on from `standing`, and changes it, as `every` does; see `loop.run`."""
        self.standing, self._every = standing, every
        self._log, self._tell = log, tell
        self._log_every_steps = log_every_steps
        self._num_train_steps = num_train_steps
        self._speed = speed

    def read(
        self,
        step: int,
        metrics: dict[str, Any],
        batch: PyTree,
        params: PyTree,
        bar: progress.Progress,
    ) -> None:
        """Waits for a step, made of `batch`.

        Raises NotFiniteError if no member goes on. `params` may be those of a later
        step.
        """
        metrics = jax.device_get(metrics)
        self._speed.step_done(step)
        bar.advance()
        self._count(step, self._every.good(step, metrics, batch, params))
        if step % self._log_every_steps == 0 or step == self._num_train_steps:
            values = sums_and_weights.divide(self.standing.interval)
            values |= _latest(metrics) | self._speed.read()
            if self.standing.bad_steps:
                values["bad_steps"] = float(sum(self.standing.bad_steps.values()))
            self.standing.interval = {}
            self._log(step, {f"train/{name}": v for name, v in values.items()})
            bar.show(step, values)

    def _count(self, step: int, sums: sums_and_weights.Sums) -> None:
        """Adds a step to the interval, unless none did it, and looks at its loss."""
        if not sums:
            return
        standing = self.standing
        standing.interval = sums_and_weights.add(standing.interval, sums)
        usual = standing.mean
        loss = sums["loss"][0] / sums["loss"][1]
        if standing.is_spike(loss):
            event = {"event": "spike", "loss": loss, "usual_loss": usual}
            self._tell(step, {**event, "examples": self._every.examples(step - 1)})


def _latest(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the values of the step itself; of a sweep, the means over its members."""
    single = {n: m for n, m in metrics.items() if not isinstance(m, tuple)}
    return {n: float(np.mean(m)) for n, m in single.items() if n != "finite"}
