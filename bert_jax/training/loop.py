"""The loop: dispatch step t, then read the metrics of step t - 1.

The device never waits for the host between steps. It does at steps where a callback
is due or the state is saved: then the metrics of that very step are read first, so
that nothing is saved or evaluated after a step that is not finite.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from bert_jax import console, errors, faults, interrupts
from bert_jax.training import (
    bad_steps,
    host_memory,
    progress,
    record,
    signals,
    watchdog,
)
from bert_jax.training import metrics as sums_and_weights
from bert_jax.training.standing import Standing
from bert_jax.training.state import TrainState

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
    log: record.Log,
    tell: bad_steps.Tell,
    save: Save,
    check_saves: Callable[[], None] = lambda: None,
    callbacks: Sequence[Callback] = (),
    programs: Sequence[Program] = (),
    speed: progress.Speed,
    standing: Standing,
    names_at: Mapping[str, bad_steps.NamesAt],
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
        watchdog.Watchdog(limits.watchdog_seconds) as dog,
        signals.StopRequest(dog.beat) as stop,
    ):
        if start_step < limits.num_train_steps:
            _compile(programs, state, dog, stop)
        every = bad_steps.Members(
            names_at, standing=standing, tell=tell, max_bad_steps=limits.max_bad_steps
        )
        reader = record.Record(
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
        with progress.Progress(start_step, limits.num_train_steps, speed) as bar:
            return _Loop(parts, dog, stop, bar, state, start_step).run()


def _compile(
    programs: Sequence[Program],
    state: TrainState,
    dog: watchdog.Watchdog,
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
    every: bad_steps.Members
    reader: record.Record
    speed: progress.Speed


class _Loop:
    """The state of a loop, and what is done with it."""

    def __init__(
        self,
        parts: _Parts,
        dog: watchdog.Watchdog,
        stop: signals.StopRequest,
        bar: progress.Progress,
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
            host_memory.give_back()
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
        host_memory.give_back()
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
