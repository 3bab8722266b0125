"""The loop: dispatch step t, then read the metrics of step t - 1.

The device never waits for the host between steps. It does at steps where a callback
is due or the state is saved: then the metrics of that very step are read first, so
that nothing is saved or evaluated after a step that is not finite.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from bert_jax import errors
from bert_jax.training import metrics as sums_and_weights
from bert_jax.training import progress, signals
from bert_jax.training.state import TrainState

Log = Callable[[int, dict[str, float]], None]
Save = Callable[[int, TrainState, dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Callback:
    """A function of (steps done, state), called every so many steps and at the end.

    If it returns True the run ends there, saved, as after its last step.
    """

    every_steps: int
    call: Callable[[int, TrainState], bool | None]


def run(
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    state: TrainState,
    batches: Iterator[Any],
    *,
    start_step: int,
    num_train_steps: int,
    log_every_steps: int,
    log: Log,
    save_every_steps: int,
    save: Save,
    callbacks: Sequence[Callback] = (),
    speed: progress.Speed,
    interval: Mapping[str, Any] | None = None,
    describe_batch: Callable[[int], str] = "batch_at({})".format,
) -> TrainState:
    """Trains from `start_step` steps done to `num_train_steps`; returns the last state.

    `batches` begins with the batch of step `start_step`. Steps are counted as done:
    the first one, made of `batch_at(0)`, is step 1. `log(step, values)` gets the means
    over the interval, as "train/..."; `save(step, state, interval)` also gets the JSON
    object that a resumed run must pass as `interval`, for equal means. The last step
    is always logged, saved and given to all callbacks.

    Raises NotFiniteError, naming step and batch, after which nothing is saved, and
    Stopped after SIGTERM or SIGINT, when the step under way is done and saved.
    """
    record = _Record(log, log_every_steps, num_train_steps, speed, describe_batch)
    record.interval = sums_and_weights.add({}, interval or {})
    bar = progress.Progress(start_step, num_train_steps, speed)
    unread: tuple[int, dict[str, Any]] | None = None
    with signals.StopRequest() as stop, bar:
        for step in range(start_step + 1, num_train_steps + 1):
            batch = speed.next_of(batches, running=unread)
            state, metrics = train_step(state, batch)
            if unread is not None:
                record.read(*unread, bar)
            unread = (step, metrics)
            last, stopped = step == num_train_steps, stop.requested(step)
            ended = False
            due = [c for c in callbacks if last or step % c.every_steps == 0]
            saving = last or stopped or step % save_every_steps == 0
            if due or saving:
                record.read(*unread, bar)
                unread = None
                for callback in due if last or not stopped else []:
                    ended |= callback.call(step, state) is True
                if saving or ended:
                    with speed.saving():
                        save(step, state, dict(record.interval))
                speed.resume()
            if ended:
                break
            if stopped and not last:
                raise errors.Stopped(
                    f"stopped by {stop.name} after step {step} of {num_train_steps}, "
                    "with everything saved: the same command resumes"
                )
    return state


class _Record:
    """Reads the metrics of steps, adds them up, and logs their means when due."""

    def __init__(
        self,
        log: Log,
        log_every_steps: int,
        num_train_steps: int,
        speed: progress.Speed,
        describe_batch: Callable[[int], str],
    ) -> None:
        self.interval: sums_and_weights.Sums = {}
        self._log = log
        self._log_every_steps = log_every_steps
        self._num_train_steps = num_train_steps
        self._speed = speed
        self._describe_batch = describe_batch

    def read(self, step: int, metrics: dict[str, Any], bar: progress.Progress) -> None:
        """Waits for a step; raises NotFiniteError if the device refused it."""
        metrics = jax.device_get(metrics)
        self._speed.step_done(step)
        bar.advance()
        if not metrics.pop("finite"):
            raise self._not_finite(step, metrics)
        pairs = {name: m for name, m in metrics.items() if isinstance(m, tuple)}
        self.interval = sums_and_weights.add(self.interval, pairs)
        if step % self._log_every_steps == 0 or step == self._num_train_steps:
            latest = {n: float(m) for n, m in metrics.items() if n not in pairs}
            values = sums_and_weights.divide(self.interval)
            values |= latest | self._speed.read()
            self.interval = {}
            self._log(step, {f"train/{name}": v for name, v in values.items()})
            bar.show(step, values)

    def _not_finite(self, step: int, metrics: dict[str, Any]) -> errors.NotFiniteError:
        return errors.NotFiniteError(
            f"step {step} ({self._describe_batch(step - 1)}) is not finite: loss "
            f"{metrics['loss'][0]}, gradient norm {metrics['grad_norm'][0]}. Nothing "
            "was saved after it. Lower optimizer.learning_rate, lengthen "
            "optimizer.warmup_steps, or look at this batch, and resume"
        )


def evaluate(
    eval_step: Callable[[Any, Any], dict[str, Any]],
    params: Any,
    batches: Iterable[Any],
) -> dict[str, float]:
    """Returns the metrics over all batches: summed in order, divided once."""
    parts = (eval_step(params, batch) for batch in batches)
    return sums_and_weights.divide(sums_and_weights.total(parts))
