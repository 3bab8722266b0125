"""The loop: dispatch step t, then read the metrics of step t - 1.

The device never waits for the host between steps. It does at steps where a callback
is due or the state is saved: then the metrics of that very step are read first, so
that nothing is saved or evaluated after a step that is not finite. `Record` reads those
metrics; `Speed` and `Progress` report tokens per second, utilization and the time left.
"""

import contextlib
import dataclasses
import datetime
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import console, errors, faults, interrupts
from bert_jax.training import devices, guards, signals
from bert_jax.training import metrics as sums_and_weights
from bert_jax.training.guards import Standing
from bert_jax.training.state import TrainState


class Stretch(NamedTuple):
    """Steps of a run that cost the same.

    Attributes:
      last_step: the last of them, steps being counted from 1.
      tokens: of the global batch, a step.
      flops_per_token: of training, by the project's formula.
    """

    last_step: int
    tokens: int
    flops_per_token: float


@runtime_checkable
class _Computed(Protocol):
    """An array that may still be computed, as `jax.Array`."""

    def is_ready(self) -> bool: ...


class Speed:
    """Measures tokens per second, MFU and the share of waiting, over whole steps.

    The time before the first step ends (compilation) and that before a `resume`
    (evaluation, saving) are not counted.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        *,
        clock: Callable[[], float] = time.perf_counter,
        peak_flops: float | None = None,
    ) -> None:
        """Takes the stretches of the run in their order.

        `peak_flops` is that of all devices together, by default as far as the chip is
        known.
        """
        self._stretches = stretches
        self._peak_flops = _peak_of_all() if peak_flops is None else peak_flops
        self._clock = clock
        self._started: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._seconds = self._waited = self._saved = self._flops = 0.0
        self._tokens = 0

    def next_of(self, batches: Iterator[Any], running: Any = None) -> Any:
        """Returns the next batch.

        The time that it takes is waiting for the input, unless the devices still
        compute when it is there.

        Args:
          batches: where it comes from.
          running: what the step before returned, which may still be computed.
        """
        started = self._clock()
        batch = next(batches)
        if self._started is not None and _is_done(running):
            self._waited += self._clock() - started
        return batch

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measures a save, or what of it the run has to wait for."""
        started = self._clock()
        yield
        self._saved += self._clock() - started

    def step_done(self, step: int) -> None:
        """Counts the step that has just ended, unless its start was not seen."""
        now = self._clock()
        if self._started is not None:
            of_step = next(x for x in self._stretches if step <= x.last_step)
            self._seconds += now - self._started
            self._tokens += of_step.tokens
            self._flops += of_step.tokens * of_step.flops_per_token
        self._started = now

    def resume(self) -> None:
        """Starts the clock for the step that begins now."""
        self._started = self._clock()

    def read(self) -> dict[str, float]:
        """Returns the rates since the last reading; empty if nothing was timed.

        `input_wait` is the share of the time in which the devices had nothing to do
        for want of a batch, at most. `save_wait`, which is there if the state was
        saved, is the share of the time, with saving, that this took.
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
        """Returns the time of the steps after `step`, at this rate."""
        tokens, before = 0, step
        for stretch in self._stretches:
            end = min(stretch.last_step, last_step)
            tokens += max(0, end - before) * stretch.tokens
            before = max(before, end)
        return tokens / tokens_per_second


def _is_done(running: Any) -> bool:
    leaves = jax.tree.leaves(running)
    return all(x.is_ready() for x in leaves if isinstance(x, _Computed))


def _peak_of_all() -> float | None:
    peak = devices.peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else peak * jax.device_count()


class Progress:
    """Shows a bar, and in a log a line at each logged step; see `console.Bar`."""

    def __init__(self, start_step: int, num_train_steps: int, speed: Speed) -> None:
        self._total = num_train_steps
        self._speed = speed
        self._bar = console.Bar(
            num_train_steps,
            "steps",
            "training",
            initial=start_step,
            smoothing=0.05,
            is_kept=True,
            is_shown=jax.process_index() == 0,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def advance(self) -> None:
        """Counts one step more."""
        self._bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values logged at a step, and the time left."""
        text = "  ".join(_text(name, value) for name, value in values.items())
        self._bar.note(text)
        self._bar.log(f"step {step}/{self._total}  {text}{self._left(step, values)}")

    def _left(self, step: int, values: Mapping[str, float]) -> str:
        if "tokens_per_second" not in values:
            return ""
        rate = values["tokens_per_second"]
        seconds = round(self._speed.seconds_left(step, self._total, rate))
        return f"  ETA {datetime.timedelta(seconds=seconds)}"


def _text(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    if name == "mfu":
        return f"MFU {value:.1%}"
    if name in ("input_wait", "save_wait"):
        return f"{name.replace('_', ' ')} {value:.1%}"
    return f"{name} {value:.4g}"


Log = Callable[[int, dict[str, float]], None]


class Record:
    """Reads the metrics of steps, adds them up, and logs their means when due."""

    def __init__(
        self,
        standing: Standing,
        *,
        every: guards.Members,
        log: Log,
        tell: guards.Tell,
        log_every_steps: int,
        num_train_steps: int,
        speed: Speed,
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
        bar: Progress,
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


Save = Callable[[int, TrainState, Standing], None]


@dataclasses.dataclass(frozen=True)
class Callback:
    """A function of (steps done, state), called every so many steps and at the end.

    If it returns True the run ends there, saved, as after its last step. A long one
    does its parts in `signals.unless_asked`; one that this ends is called again when
    the run is resumed.
    """

    every_steps: int
    call: Callable[[int, TrainState], bool | None]


class Program(NamedTuple):
    """A program that the steps of a run need, compiled before the first of them.

    Attributes:
      name: what it is for, as "rows of 128 tokens".
      compile: compiles it for the state of the run, which it leaves as it is.
    """

    name: str
    compile: Callable[[TrainState], None]


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far and how often, and what is borne on the way; as in the group `run`."""

    num_train_steps: int
    log_every_steps: int
    save_every_steps: int
    max_bad_steps: int = 0
    watchdog_seconds: int = 0


def run(
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    state: TrainState,
    batches: Iterator[Any],
    *,
    start_step: int,
    limits: Limits,
    log: Log,
    tell: guards.Tell,
    save: Save,
    check_saves: Callable[[], None] = lambda: None,
    callbacks: Sequence[Callback] = (),
    programs: Sequence[Program] = (),
    speed: Speed,
    standing: Standing,
    names_at: Mapping[str, guards.NamesAt],
) -> TrainState:
    """Trains from `start_step` steps done to the last step; returns the last state.

    Steps are counted as done: the first one, made of `batch_at(0)`, is step 1. The last
    step is always logged, saved and given to all callbacks.

    Args:
      batches: begins with the batch of step `start_step`.
      log: gets (step, values), the means over the interval, as "train/...".
      tell: gets (step, event) for a spike of the loss and a step that is not finite.
      save: gets (step, state, standing); a resumed run must pass that `standing`.
      check_saves: raises if the save under way has failed; called after each step.
      programs: are compiled before the first step, so that no step waits for them.
      names_at: names the examples in the batch of a step, counted from 0: by member,
        or under `standing.ALONE`.

    Raises NotFiniteError, naming step, array and examples, if no member goes on, after
    which nothing is saved, and Stopped after SIGTERM or SIGINT, when the step under way
    is done and saved.
    """
    with (
        guards.Watchdog(limits.watchdog_seconds) as dog,
        signals.StopRequest(dog.beat) as stop,
    ):
        if start_step < limits.num_train_steps:
            _compile(programs, state, dog, stop)
        every = guards.Members(
            names_at, standing=standing, tell=tell, max_bad_steps=limits.max_bad_steps
        )
        reader = Record(
            standing,
            every=every,
            log=log,
            tell=tell,
            log_every_steps=limits.log_every_steps,
            num_train_steps=limits.num_train_steps,
            speed=speed,
        )
        saving = save, check_saves
        parts = _Parts(
            train_step, batches, limits, callbacks, *saving, every, reader, speed
        )
        with Progress(start_step, limits.num_train_steps, speed) as bar:
            return _Loop(parts, dog, stop, bar, state, start_step).run()


def _compile(
    programs: Sequence[Program],
    state: TrainState,
    dog: guards.Watchdog,
    stop: signals.StopRequest,
) -> None:
    """Compiles the programs of a run, and shows how many there are and which."""
    title = "compiling the train step"
    with console.Bar(
        len(programs),
        "programs",
        title,
        is_shown=bool(programs) and jax.process_index() == 0,
    ) as bar:
        for program in programs:
            dog.beat(f"{title} for {program.name}")
            bar.note(program.name)
            stop.unless_asked(functools.partial(program.compile, state))
            bar.update()


class _Parts(NamedTuple):
    """What a loop is made of, as `run` takes it."""

    train_step: Any
    batches: Iterator[Any]
    limits: Limits
    callbacks: Sequence[Callback]
    save: Save
    check_saves: Callable[[], None]
    every: guards.Members
    reader: Record
    speed: Speed


class _Loop:
    """The state of a loop, and what is done with it."""

    def __init__(
        self,
        parts: _Parts,
        dog: guards.Watchdog,
        stop: signals.StopRequest,
        bar: Progress,
        state: TrainState,
        start_step: int,
    ) -> None:
        self._parts, self._dog, self._stop, self._bar = parts, dog, stop, bar
        self._standing = parts.reader.standing
        self._state, self._step, self._start = state, start_step, start_step
        self._unread: tuple[int, dict[str, Any], Any] | None = None

    def run(self) -> TrainState:
        """Trains to the end, or to where a callback or a signal ends it."""
        limits, steps = self._parts.limits, self._parts.limits.num_train_steps
        ended = stopping = False
        if self._standing.callbacks_due:
            ended = self._finish_step(saving=True)
            stopping = self._standing.callbacks_due
        while self._step < steps and not (ended or stopping):
            self._one_step()
            stopping = self._stop.requested()
            saving = stopping or self._step % limits.save_every_steps == 0
            if saving or self._due() or self._step == steps:
                self._read()
                ended = self._finish_step(saving or self._step == steps)
                stopping |= self._standing.callbacks_due
        if stopping and (self._step < steps or self._standing.callbacks_due):
            interrupts.answer()
            raise errors.Stopped(
                f"stopped by {self._stop.name} after step {self._step} of {steps}, "
                "with everything saved: the same command resumes"
            )
        return self._state

    def _one_step(self) -> None:
        """Dispatches a step, and reads the metrics of the one before."""
        self._dog.beat(f"step {self._step + 1}")
        faults.point("loop/step", self._step + 1)
        running = None if self._unread is None else self._unread[1]
        batch = self._parts.speed.next_of(self._parts.batches, running=running)
        call = functools.partial(self._parts.train_step, self._state, batch)
        is_first = self._step == self._start
        self._state, metrics = self._stop.unless_asked(call) if is_first else call()
        if is_first:
            self._stop.share()
            guards.give_back_memory()
        self._step += 1
        self._read()
        self._parts.check_saves()
        self._unread = (self._step, metrics, batch)

    def _read(self) -> None:
        """Reads the metrics that are not read yet; raises NotFiniteError."""
        if self._unread is not None:
            self._parts.reader.read(*self._unread, self._state.params, self._bar)
            self._unread = None

    def _due(self) -> list[Callback]:
        last = self._step == self._parts.limits.num_train_steps
        every = self._parts.callbacks
        return [c for c in every if last or self._step % c.every_steps == 0]

    def _finish_step(self, saving: bool) -> bool:
        """Calls what is due and saves; returns whether a callback ends the run."""
        self._dog.beat(f"what follows step {self._step}")
        ended = self._call(self._due())
        if saving or ended or self._standing.callbacks_due:
            self._dog.beat(f"the save of step {self._step}")
            with self._parts.speed.saving():
                self._parts.every.check_params(self._step, self._state.params)
                self._parts.save(self._step, self._state, self._standing)
        guards.give_back_memory()
        self._parts.speed.resume()
        return ended

    def _call(self, due: list[Callback]) -> bool:
        """Calls all of them or, if the run must stop, notes that they are due still."""
        self._standing.callbacks_due = bool(due)
        if self._stop.name is not None:
            return False
        try:
            with self._stop.interrupting():
                faults.point("loop/callback", self._step)
                ended = [callback.call(self._step, self._state) for callback in due]
        except signals.Interrupted:
            return False
        self._standing.callbacks_due = False
        return True in ended


def evaluate(
    eval_step: Callable[[Any, Any], dict[str, Any]],
    params: Any,
    batches: Iterable[Any],
) -> dict[str, float]:
    """Returns the metrics over all batches: summed in order, divided once."""

    def parts() -> Iterator[dict[str, Any]]:
        for batch in batches:
            yield signals.unless_asked(functools.partial(eval_step, params, batch))

    return sums_and_weights.divide(sums_and_weights.total(parts()))
