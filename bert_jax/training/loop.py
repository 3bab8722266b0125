"""The loop: dispatch step t, then read the metrics of step t - 1.

The device never waits for the host between steps. It does at steps where an evaluation
is due or the state is saved: then the metrics of that very step are read first, so
that nothing is saved or evaluated after a step that is not finite.

After every step `MetricsLogger.read` waits for its metrics, `NonFiniteGuard.filter`
refuses what is not finite, and the rest is added to the interval in `LoopState`, looked
at for a spike of the loss, and logged and shown when due.
"""

import contextlib
import dataclasses
import datetime
import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import console, errors
from bert_jax.foundation import devices, faults, host_memory, interrupts
from bert_jax.training import signals
from bert_jax.training.guards import (
    ExamplesAt,
    LoopState,
    NonFiniteGuard,
    Sums,
    Watchdog,
)
from bert_jax.training.state import TrainState


def add(total: Mapping[str, Any], more: Mapping[str, Any]) -> Sums:
    """Returns the sums and weights of both, by name.

    >>> add({"accuracy": (3.0, 4.0)}, {"accuracy": (1, 6), "loss": (2, 1)})
    {'accuracy': (4.0, 10.0), 'loss': (2.0, 1.0)}
    """
    result = {name: (float(s), float(w)) for name, (s, w) in total.items()}
    for name, (part, weight) in more.items():
        old_sum, old_weight = result.get(name, (0.0, 0.0))
        result[name] = (old_sum + float(part), old_weight + float(weight))
    return result


def divide(sums: Mapping[str, Any]) -> dict[str, float]:
    """Returns sum / weight by name; names of weight 0 are skipped.

    >>> divide({"accuracy": (4.0, 10.0), "empty": (0.0, 0.0)})
    {'accuracy': 0.4}
    """
    return {name: float(s) / float(w) for name, (s, w) in sums.items() if w}


def evaluate(
    eval_step: Callable[[Any, Any], dict[str, Any]],
    params: Any,
    batches: Iterable[Any],
) -> dict[str, float]:
    """Returns the metrics over all batches: summed in order, divided once."""
    sums: Sums = {}
    for batch in batches:
        call = functools.partial(eval_step, params, batch)
        sums = add(sums, jax.device_get(interrupts.run_interruptible(call)))
    return divide(sums)


class Segment(NamedTuple):
    """Steps of a run that cost the same.

    Attributes:
      last_step: the last of these steps, counted from 1.
      tokens: tokens of the global batch in one step.
      flops_per_token: training FLOPs a token (see `model.costs`).
    """

    last_step: int
    tokens: int
    flops_per_token: float


class ThroughputMeter:
    """Measures tokens per second, MFU and time spent waiting, over whole steps.

    The time until the first step ends (compilation) and the time before a `resume`
    (evaluation, saving) are not counted.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Starts with nothing measured; there is no MFU for an unknown chip."""
        self._segments = segments
        self._peak_flops = _total_peak()
        self._started: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._seconds = self._waited = self._saved = self._flops = 0.0
        self._tokens = 0

    def next_batch(self, batches: Iterator[Any], running: Any = None) -> Any:
        """Returns the next batch.

        The time it takes counts as waiting for input, unless the devices are still
        computing `running`, the result of the step before, when the batch arrives.
        """
        started = time.perf_counter()
        batch = next(batches)
        if self._started is not None and _is_done(running):
            self._waited += time.perf_counter() - started
        return batch

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Times the part of a save that the run has to wait for."""
        started = time.perf_counter()
        yield
        self._saved += time.perf_counter() - started

    def step_done(self, step: int) -> None:
        """Counts the step that has just ended, if its start was timed."""
        now = time.perf_counter()
        if self._started is not None:
            segment = next(x for x in self._segments if step <= x.last_step)
            self._seconds += now - self._started
            self._tokens += segment.tokens
            self._flops += segment.tokens * segment.flops_per_token
        self._started = now

    def resume(self) -> None:
        """Restarts the clock for the step that starts now."""
        self._started = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Returns the rates since the last reading; empty if nothing was timed.

        `input_wait` is an upper bound of the fraction of the time in which the devices
        were idle for lack of a batch. `save_wait`, present if the state was saved, is
        the fraction of the time, saving included, that saving took.
        """
        if not self._tokens or self._seconds <= 0:
            return {}
        rates = {"tokens_per_second": self._tokens / self._seconds}
        rates["input_wait"] = self._waited / self._seconds
        if self._saved:
            rates["save_wait"] = self._saved / (self._seconds + self._saved)
        if self._peak_flops:
            rates["mfu"] = self._flops / self._seconds / self._peak_flops
        self._clear()
        return rates

    def seconds_left(
        self, step: int, last_step: int, tokens_per_second: float
    ) -> float:
        """Returns the seconds that the steps after `step` take, at this rate."""
        tokens, before = 0, step
        for segment in self._segments:
            end = min(segment.last_step, last_step)
            tokens += max(0, end - before) * segment.tokens
            before = max(before, end)
        return tokens / tokens_per_second


def _is_done(running: Any) -> bool:
    arrays = [x for x in jax.tree.leaves(running) if hasattr(x, "is_ready")]
    return all(x.is_ready() for x in arrays)


def _total_peak() -> float | None:
    peak = devices.peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else peak * jax.device_count()


@dataclasses.dataclass(frozen=True)
class Limits:
    """Length of a run, intervals in steps, and what it tolerates; as in group `run`."""

    num_train_steps: int
    log_every_steps: int
    save_every_steps: int
    eval_every_steps: int = sys.maxsize
    max_bad_steps: int = 0
    watchdog_seconds: int = 0


class Program(NamedTuple):
    """A program that the steps of a run need, compiled before the first of them.

    Attributes:
      name: what it is for, as "rows of 128 tokens".
      compile: compiles it for the state of the run, which it leaves unchanged.
    """

    name: str
    compile: Callable[[TrainState], None]


class Evaluation(NamedTuple):
    """Result of an evaluation.

    Attributes:
      metrics: by the names under which they are logged, as "eval/mlm_loss".
      summary: text for the user.
      ends_run: whether the run ends here, saved, as after its last step.
    """

    metrics: dict[str, float]
    summary: str
    ends_run: bool = False


@runtime_checkable
class Trainable(Protocol):
    """What the loop trains.

    Attributes:
      segments: steps that cost the same, in order, for tokens per second.
      train_step: `train_step(state, batch) -> (state, metrics)`, as
        `state.make_train_step` returns it.
      examples_at: names the examples in the batch of a step, counted from 0: by member,
        or under SINGLE.
    """

    @property
    def limits(self) -> Limits: ...

    @property
    def segments(self) -> Sequence[Segment]: ...

    @property
    def train_step(self) -> Callable[[TrainState, Any], tuple[TrainState, Any]]: ...

    @property
    def examples_at(self) -> Mapping[str, ExamplesAt]: ...

    def programs(self, start_step: int) -> Sequence[Program]:
        """Returns the programs of the steps after `start_step`."""
        ...

    def evaluate(
        self, step: int, state: TrainState, guard: NonFiniteGuard
    ) -> Evaluation:
        """Evaluates the state after `step` steps.

        Long parts run in `interrupts.run_interruptible`. An evaluation that a signal
        interrupts is done again when the run is resumed.
        """
        ...


@runtime_checkable
class Recorder(Protocol):
    """Where the loop writes."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Logs the means over an interval, as "train/..."."""
        ...

    def report(self, step: int, event: Mapping[str, Any]) -> None:
        """Reports a spike of the loss, or a step that is not finite."""
        ...

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Logs an evaluation."""
        ...

    def save(self, step: int, state: TrainState, loop_state: LoopState) -> None:
        """Starts to save; a resumed run must get this `loop_state`."""
        ...

    def check_saves(self) -> None:
        """Raises if the save in progress has failed; called after each step."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class MetricsLogger:
    """Reads the metrics of steps, adds them up, and logs and shows means when due."""

    limits: Limits
    loop_state: LoopState
    guard: NonFiniteGuard
    recorder: Recorder
    meter: ThroughputMeter
    bar: console.Bar

    def read(
        self, step: int, metrics: dict[str, Any], batch: PyTree, params: PyTree
    ) -> None:
        """Waits for a step, computed from `batch`.

        Raises NotFiniteError if no active member is left. `params` may be those of a
        later step.
        """
        metrics = jax.device_get(metrics)
        self.meter.step_done(step)
        self.bar.update()
        self._count(step, self.guard.filter(step, metrics, batch, params))
        if step % self.limits.log_every_steps and step != self.limits.num_train_steps:
            return
        values = divide(self.loop_state.interval) | _latest(metrics) | self.meter.read()
        if self.loop_state.bad_steps:
            values["bad_steps"] = float(sum(self.loop_state.bad_steps.values()))
        self.loop_state.interval = {}
        self.recorder.log(step, {f"train/{name}": v for name, v in values.items()})
        self.show(step, values)

    def _count(self, step: int, sums: Sums) -> None:
        """Adds a step to the interval, unless it was refused, and checks its loss."""
        if not sums:
            return
        self.loop_state.interval = add(self.loop_state.interval, sums)
        usual = self.loop_state.mean
        loss = sums["loss"][0] / sums["loss"][1]
        if self.loop_state.is_spike(loss):
            event = {"event": "spike", "loss": loss, "usual_loss": usual}
            examples = self.guard.examples(step - 1)
            self.recorder.report(step, {**event, "examples": examples})

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values logged at a step, and the time left."""
        steps = self.limits.num_train_steps
        text = "  ".join(_text(name, value) for name, value in values.items())
        left = ""
        if "tokens_per_second" in values:
            rate = values["tokens_per_second"]
            seconds = round(self.meter.seconds_left(step, steps, rate))
            left = f"  ETA {datetime.timedelta(seconds=seconds)}"
        self.bar.note(text)
        self.bar.log(f"step {step}/{steps}  {text}{left}")


def _latest(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the values of the step itself; of a sweep, the means over its members."""
    single = {n: m for n, m in metrics.items() if not isinstance(m, tuple)}
    return {n: float(np.mean(m)) for n, m in single.items() if n != "finite"}


def _text(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    if name == "mfu":
        return f"MFU {value:.1%}"
    if name in ("input_wait", "save_wait"):
        return f"{name.replace('_', ' ')} {value:.1%}"
    return f"{name} {value:.4g}"


def run(
    run: Trainable,
    batches: Iterator[Any],
    state: TrainState,
    loop_state: LoopState,
    recorder: Recorder,
) -> TrainState:
    """Trains from `state` to the last step; returns the last state.

    Steps are counted as done: the first one, computed from `batch_at(0)`, is step 1.
    The last step is always logged, evaluated and saved.

    Args:
      batches: starts with the batch of the step `state.step`.
      loop_state: as saved with `state`; it is changed.

    Raises NotFiniteError, naming step, array and examples, if no active member is left,
    after which nothing is saved, and Stopped after SIGTERM or SIGINT, when the step
    under way is done and saved.
    """
    limits, start_step = run.limits, int(state.step)
    with (
        Watchdog(limits.watchdog_seconds) as watchdog,
        signals.StopRequest(watchdog.beat) as stop,
    ):
        if start_step < limits.num_train_steps:
            _compile(run.programs(start_step), state, watchdog, stop)
        guard = NonFiniteGuard(
            run.examples_at, loop_state, recorder.report, limits.max_bad_steps
        )
        meter = ThroughputMeter(run.segments)
        with console.Bar(
            limits.num_train_steps,
            "steps",
            "training",
            initial=start_step,
            is_kept=True,
            is_shown=jax.process_index() == 0,
        ) as bar:
            metrics = MetricsLogger(limits, loop_state, guard, recorder, meter, bar)
            return _Loop(run, batches, state, metrics, watchdog, stop).run()


def _compile(
    programs: Sequence[Program],
    state: TrainState,
    watchdog: Watchdog,
    stop: signals.StopRequest,
) -> None:
    """Compiles the programs of a run, and shows how many there are and which."""
    title = "compiling the train step"
    is_shown = bool(programs) and jax.process_index() == 0
    with console.Bar(len(programs), "programs", title, is_shown=is_shown) as bar:
        for number, program in enumerate(programs, start=1):
            watchdog.beat(f"{title} for {program.name}")
            bar.note(program.name)
            faults.point("loop/compile", number)
            stop.run_interruptible(functools.partial(program.compile, state))
            bar.update()


class _Loop:
    """A running loop: the newest state, and the metrics that are not read yet."""

    def __init__(
        self,
        run: Trainable,
        batches: Iterator[Any],
        state: TrainState,
        metrics: MetricsLogger,
        watchdog: Watchdog,
        stop: signals.StopRequest,
    ) -> None:
        self._run, self._batches, self._metrics = run, batches, metrics
        self._watchdog, self._stop = watchdog, stop
        self._limits, self._loop_state = metrics.limits, metrics.loop_state
        self._state, self._step = state, int(state.step)
        self._is_first = True
        self._unread: tuple[int, dict[str, Any], Any] | None = None

    def run(self) -> TrainState:
        """Trains to the end, or until an evaluation or a signal ends the run."""
        steps = self._limits.num_train_steps
        ended = stopping = False
        if self._loop_state.callbacks_due:
            ended = self._finish_step(saving=True)
            stopping = self._loop_state.callbacks_due
        while self._step < steps and not (ended or stopping):
            self._one_step()
            stopping = self._stop.requested()
            saving = stopping or self._step % self._limits.save_every_steps == 0
            if saving or self._evaluation_is_due() or self._step == steps:
                self._read()
                ended = self._finish_step(saving or self._step == steps)
                stopping |= self._loop_state.callbacks_due
        if stopping and (self._step < steps or self._loop_state.callbacks_due):
            interrupts.answer()
            raise errors.Stopped(
                f"stopped by {self._stop.name} after step {self._step} of {steps}, "
                "with everything saved: the same command resumes"
            )
        return self._state

    def _one_step(self) -> None:
        """Dispatches a step, and reads the metrics of the one before."""
        self._watchdog.beat(f"step {self._step + 1}")
        faults.point("loop/step", self._step + 1)
        running = None if self._unread is None else self._unread[1]
        batch = self._metrics.meter.next_batch(self._batches, running=running)
        call = functools.partial(self._run.train_step, self._state, batch)
        if self._is_first:  # it may compile for minutes
            self._state, metrics = self._stop.run_interruptible(call)
            self._stop.share()
            host_memory.trim()
            self._is_first = False
        else:
            self._state, metrics = call()
        self._step += 1
        self._read()
        self._metrics.recorder.check_saves()
        self._unread = (self._step, metrics, batch)

    def _read(self) -> None:
        """Reads the metrics that are not read yet; raises NotFiniteError."""
        if self._unread is not None:
            self._metrics.read(*self._unread, self._state.params)
            self._unread = None

    def _evaluation_is_due(self) -> bool:
        is_last = self._step == self._limits.num_train_steps
        return is_last or self._step % self._limits.eval_every_steps == 0

    def _finish_step(self, saving: bool) -> bool:
        """Evaluates if due, and saves; returns whether the evaluation ends the run."""
        self._watchdog.beat(f"the evaluation after step {self._step}")
        self._loop_state.callbacks_due = self._evaluation_is_due()
        ended = self._loop_state.callbacks_due and self._evaluate()
        if saving or ended or self._loop_state.callbacks_due:
            self._watchdog.beat(f"the save of step {self._step}")
            with self._metrics.meter.saving():
                self._metrics.guard.check_params(self._step, self._state.params)
                self._metrics.recorder.save(self._step, self._state, self._loop_state)
        host_memory.trim()
        self._metrics.meter.resume()
        return ended

    def _evaluate(self) -> bool:
        """Evaluates or, if the run must stop, notes that this is still to be done."""
        if self._stop.name is not None:
            return False
        try:
            with self._stop.interruptible():
                faults.point("loop/callback", self._step)
                guard = self._metrics.guard
                evaluation = self._run.evaluate(self._step, self._state, guard)
                self._metrics.recorder.evaluated(self._step, evaluation)
        except signals.Interrupted:
            return False
        self._loop_state.callbacks_due = False
        return evaluation.ends_run
