"""The loop: dispatch step t, then read the metrics of step t - 1.

The device never waits for the host between steps. It does at steps where an evaluation
is due or the state is saved: then the metrics of that very step are read first, so
that nothing is saved or evaluated after a step that is not finite.

After every step `MetricsLogger.read` waits for its metrics, `NonFiniteGuard.filter`
refuses what is not finite, and the rest is added to the interval in `LoopState`, looked
at for a spike of the loss, and logged and shown when due.
"""

import ctypes
import dataclasses
import faulthandler
import functools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import console, errors
from bert_jax.foundation import faults, interrupts
from bert_jax.training import signals
from bert_jax.training import state as train_state
from bert_jax.training.progress import ProgressBar, Segment, ThroughputMeter
from bert_jax.training.state import TrainState

# name -> (sum, weight), on the host as Python floats (float64).
Sums = dict[str, tuple[float, float]]


def add(total: Mapping[str, Any], more: Mapping[str, Any]) -> Sums:
    """Returns the sums and weights of both, by name.

    >>> add({"accuracy": (3.0, 4.0)}, {"accuracy": (1, 6), "loss": (2, 1)})
    {'accuracy': (4.0, 10.0), 'loss': (2.0, 1.0)}
    """
    result = {name: (float(s), float(w)) for name, (s, w) in total.items()}
    for name, (part, weight) in more.items():
        old_sum, old_weight = result[name] if name in result else (0.0, 0.0)
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
        sums = add(sums, jax.device_get(signals.run_interruptible(call)))
    return divide(sums)


# A loss is a spike if it is this many standard deviations above the running mean, of
# which a step has this weight, once this many steps were seen.
SPIKE_DEVIATIONS = 6.0
_WEIGHT = 0.05
_STEPS_SEEN = 50

SINGLE = ""  # name of the one member of a run that is not a sweep


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

    def count_bad(self, member: str) -> int:
        """Counts a skipped step; returns the count of the member."""
        before = self.bad_steps[member] if member in self.bad_steps else 0
        self.bad_steps[member] = before + 1
        return before + 1

    def to_json(self) -> dict[str, Any]:
        """Returns what is saved with a checkpoint, under "standing"."""
        return dataclasses.asdict(self)

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "LoopState":
        """Returns what was saved with a checkpoint; earlier versions saved less.

        The object is under "standing", or only its "interval" is there. "bad_steps" may
        be one number, for the entire run.
        """
        saved = (
            meta["standing"] if "standing" in meta else {"interval": meta["interval"]}
        )
        read = {**saved, "interval": add({}, saved["interval"])}
        if "bad_steps" in saved and isinstance(bad := saved["bad_steps"], int):
            read["bad_steps"] = {SINGLE: bad} if bad else {}
        return cls(**read)


# report(step, event): an event for a person to inspect.
Report = Callable[[int, Mapping[str, Any]], None]
# examples_at(step): the ids of the examples in the batch of a step, counted from 0.
ExamplesAt = Callable[[int], list[str]]

_LISTED_EXAMPLES = 8


class NonFiniteGuard:
    """Refuses steps that are not finite, and drops members that have too many.

    A run that is not a sweep has one member, SINGLE, and its arrays have no axis of
    members.
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
            if bad := train_state.first_not_finite(params, self._at(index)):
                reason = f"the parameter {bad} has values that are not finite"
                self.drop(
                    step,
                    name,
                    reason,
                    f"after step {step}{_of(name)} {reason}: the state was not saved. "
                    "Lower optimizer.learning_rate and resume from the checkpoint "
                    "before",
                )

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
        checks, at = metrics["finite"], self._at(index)
        reason = train_state.first_bad(checks, metrics, batch, params, at)
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
        if self._loop_state.count_bad(name) <= self._max_bad_steps:
            return
        allowed = self._max_bad_steps
        left_out = f"{allowed} such steps were left out before. " if allowed else ""
        self.drop(
            step,
            name,
            reason,
            f"step {step}{_of(name)} is not finite: {reason} (loss {loss}, gradient "
            f"norm {norm}). Its examples are {listed(examples)}. {left_out}Nothing was "
            "saved after it. Lower optimizer.learning_rate, lengthen "
            "optimizer.warmup_steps, look at these examples, or leave such steps out "
            "with run.max_bad_steps, and resume",
        )


def listed(names: list[str]) -> str:
    """Returns the first few names.

    >>> listed([f"0/{number}" for number in range(10)])
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
      limits: length and intervals.
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

        Long parts run in `signals.run_interruptible`. An evaluation that a signal
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
    """Reads the metrics of steps, adds them up, and logs their means when due."""

    limits: Limits
    loop_state: LoopState
    guard: NonFiniteGuard
    recorder: Recorder
    meter: ThroughputMeter
    bar: ProgressBar

    def read(
        self, step: int, metrics: dict[str, Any], batch: PyTree, params: PyTree
    ) -> None:
        """Waits for a step, computed from `batch`.

        Raises NotFiniteError if no active member is left. `params` may be those of a
        later step.
        """
        metrics = jax.device_get(metrics)
        self.meter.step_done(step)
        self.bar.advance()
        self._count(step, self.guard.filter(step, metrics, batch, params))
        if step % self.limits.log_every_steps and step != self.limits.num_train_steps:
            return
        values = divide(self.loop_state.interval) | _latest(metrics) | self.meter.read()
        if self.loop_state.bad_steps:
            values["bad_steps"] = float(sum(self.loop_state.bad_steps.values()))
        self.loop_state.interval = {}
        self.recorder.log(step, {f"train/{name}": v for name, v in values.items()})
        self.bar.show(step, values)

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


def _latest(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the values of the step itself; of a sweep, the means over its members."""
    single = {n: m for n, m in metrics.items() if not isinstance(m, tuple)}
    return {n: float(np.mean(m)) for n, m in single.items() if n != "finite"}


class Watchdog:
    """Reports a run that hangs: prints all stacks if `beat` is not called for a time.

    Use it as a context manager. The run continues: a step may only be slow, and a peer
    may come back.
    """

    def __init__(self, seconds: int | float) -> None:
        """Reports after this many seconds without a `beat`; 0 never reports."""
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


def trim_memory() -> None:
    """Returns freed host memory to the system, where the C library can (glibc).

    Otherwise it keeps half a gigabyte after a compilation, and a little more after each
    save and evaluation, which run in other threads.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


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
        with ProgressBar(start_step, limits.num_train_steps, meter) as bar:
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
        for program in programs:
            watchdog.beat(f"{title} for {program.name}")
            bar.note(program.name)
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
            trim_memory()
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
        trim_memory()
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
