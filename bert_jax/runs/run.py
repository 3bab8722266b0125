"""The one function that trains: `train` locks, resumes, loops, saves and finishes.

`Run` is what it trains: `PretrainingRun`, `FinetuningRun` and `SweepRun` implement it.
A run is a function from step to batch, a train step, an evaluation, and what it does
when all steps are done; the same code resumes all of them.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from bert_jax.checkpoints import run_folder
from bert_jax.data import stream
from bert_jax.runs import workdirs
from bert_jax.training import (
    checkpoint,
    distributed,
    guards,
    logs,
    loop,
    optimizer,
    remote,
    sharding,
    signals,
    state,
)

Result = TypeVar("Result")
Batch = dict[str, np.ndarray]


class End(NamedTuple):
    """The state of a run when it ends, and the state of its loop."""

    state: state.TrainState
    loop_state: guards.LoopState


class Run(abc.ABC, Generic[Result]):
    """The interface of a training run for `train` and the loop; a `loop.Trainable`.

    Attributes:
      settings: the configuration, with the groups `run` and `data`.
    """

    settings: Any

    @property
    @abc.abstractmethod
    def num_train_steps(self) -> int:
        """Total number of steps of the run."""

    @property
    @abc.abstractmethod
    def state_shapes(self) -> state.TrainState:
        """The abstract train state."""

    @abc.abstractmethod
    def describe(self) -> str:
        """Describes the run before it starts, for the user."""

    @abc.abstractmethod
    def initial_state(self) -> state.TrainState:
        """Returns the state at step 0."""

    @property
    @abc.abstractmethod
    def train_step(self) -> sharding.OnMesh:
        """The jitted step."""

    @abc.abstractmethod
    def batch_at(self, step: int) -> Batch:
        """Returns the sequences of a step, from 0, that this process loads."""

    @abc.abstractmethod
    def put(self, batch: Batch) -> Any:
        """Puts what `batch_at` returned on the devices, sharded."""

    @property
    @abc.abstractmethod
    def examples_at(self) -> Mapping[str, guards.ExamplesAt]:
        """Names the examples in the global batch of a step, by member."""

    @abc.abstractmethod
    def local_examples_at(self, step: int) -> list[str]:
        """Names the examples in the sequences of `batch_at`, one name a sequence."""

    @abc.abstractmethod
    def first_step_of_lengths(self, start_step: int) -> dict[int, int]:
        """Returns the first step, from `start_step`, of each sequence length."""

    @property
    @abc.abstractmethod
    def segments(self) -> Sequence[loop.Segment]:
        """Steps that cost the same, in order."""

    @abc.abstractmethod
    def evaluate(
        self, step: int, state: state.TrainState, guard: guards.NonFiniteGuard
    ) -> loop.Evaluation:
        """Evaluates the state after `step` steps."""

    @abc.abstractmethod
    def finish(self, copy: remote.WorkingCopy, end: End) -> Result:
        """Returns the result of the run; `end` may be that of an earlier process."""

    def interval(self, name: str) -> int:
        """Returns an interval of group `run` in steps."""
        return getattr(self.settings.run, name)

    def meta(self) -> dict[str, Any]:
        """Returns the JSON that a checkpoint has besides the states."""
        return {}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Takes over what `meta` returned when the checkpoint was saved."""
        del meta

    @property
    def ended_early(self) -> bool:
        """Whether an evaluation has ended the run before its last step."""
        return False

    @property
    def limits(self) -> loop.Limits:
        """Length and intervals of the run, for the loop."""
        config = self.settings.run
        return loop.Limits(
            num_train_steps=self.num_train_steps,
            log_every_steps=config.log_every_steps,
            save_every_steps=self.interval("save_every_steps"),
            eval_every_steps=self.interval("eval_every_steps"),
            max_bad_steps=config.max_bad_steps,
            watchdog_seconds=config.watchdog_seconds,
        )

    def programs(self, start_step: int) -> list[loop.Program]:
        """Returns the programs of the steps to come, one for each sequence length."""

        def compile_for(step: int, state: Any) -> None:
            self.train_step.compile(state, self.put(self.batch_at(step)))

        return [
            loop.Program(
                f"rows of {length} tokens", functools.partial(compile_for, step)
            )
            for length, step in self.first_step_of_lengths(start_step).items()
        ]


class SingleRun(Run[Result]):
    """A run of one model: what pretraining and fine-tuning share.

    Attributes:
      mesh: mesh of devices.
    """

    mesh: jax.sharding.Mesh

    @abc.abstractmethod
    def init(self, key: jax.Array) -> PyTree:
        """Returns random parameters of all that is trained."""

    @abc.abstractmethod
    def make_optimizer(
        self, num_train_steps: int
    ) -> tuple[optax.GradientTransformation, optimizer.Schedule]:
        """Returns the optimizer and its learning rate by step."""

    @property
    @abc.abstractmethod
    def step_spec(self) -> state.StepSpec:
        """What a step computes, whatever its seed and rate."""

    @abc.abstractmethod
    def names_at(self, step: int, rows: slice = slice(None)) -> list[str]:
        """Names the examples in these rows of the global batch of a step."""

    @functools.cached_property
    def _optimizer(self) -> tuple[optax.GradientTransformation, optimizer.Schedule]:
        return self.make_optimizer(self.num_train_steps)

    @functools.cached_property
    def state_shapes(self) -> state.TrainState:
        """The abstract train state."""
        return state.abstract(self.init, self._optimizer[0], self.mesh)

    @functools.cached_property
    def train_step(self) -> sharding.OnMesh:
        """The jitted step."""
        seed, shapes = self.settings.run.seed, self.state_shapes
        return state.make_train_step(
            self.step_spec, *self._optimizer, shapes, seed=seed
        )

    @property
    def local_rows(self) -> slice:
        """The rows of a global batch that this process loads."""
        return sharding.local_rows(self.settings.run.batch_size, self.mesh)

    def put(self, batch: Batch) -> Any:
        """Puts this process's rows of a batch on the mesh."""
        return sharding.to_devices(batch, self.mesh, self.settings.run.batch_size)

    @property
    def examples_at(self) -> Mapping[str, guards.ExamplesAt]:
        """Names the examples in the global batch of a step."""
        return {guards.SINGLE: self.names_at}

    def local_examples_at(self, step: int) -> list[str]:
        """Names the examples in the rows of `batch_at`."""
        return self.names_at(step, self.local_rows)


def train(
    assemble: Callable[[remote.WorkingCopy], Run[Result]], workdir: str | Path
) -> Result:
    """Trains a run in a workdir, or resumes it; returns its result.

    Never ends the process: a signal raises `errors.Stopped`, with everything saved.

    Args:
      assemble: returns the run. It is called when the workdir is locked: it may build
        the corpus store there, and writes the record of the run (config.json).
      workdir: folder of the run, created if it does not exist, or a URL.

    Raises:
      InputError, CheckpointError, NotFiniteError, StorageError, Stopped.
    """
    with signals.stopping():
        copy = remote.WorkingCopy(workdir)
        with workdirs.locked(copy), copy.fetched():
            run = assemble(copy)
            # Only `finish` references the end: it may free the memory of the state.
            return run.finish(copy, _train(run, copy))


def _train(run: Run[Any], copy: remote.WorkingCopy) -> End:
    """Trains from the newest checkpoint, or from step 0, to the end of the run."""
    config, workdir = run.settings.run, copy.folder
    distributed.print_once(run.describe())
    with checkpoint.Checkpoints(
        workdir / run_folder.CHECKPOINTS, keep=config.keep_checkpoints, copy=copy
    ) as checkpoints:
        begin, loop_state = _begin(run, checkpoints)
        step = int(begin.step)
        distributed.require_same(str(step), f"the newest checkpoint in {workdir}")
        again = loop_state.callbacks_due
        if run.ended_early or (step >= run.num_train_steps and not again):
            distributed.print_once(
                f"this run is finished: step {step} of {run.num_train_steps}"
            )
            return End(begin, loop_state)
        is_on = config.log_examples
        with (
            logs.Writer(workdir, start_step=step, evaluates_again=again) as log,
            logs.ExampleLog(workdir, start_step=step, is_on=is_on) as examples,
        ):
            recorder = _Recorder(run, copy, checkpoints, log, examples)
            batches = _batches(run, step, examples)
            return End(loop.run(run, batches, begin, loop_state, recorder), loop_state)


def _begin(
    run: Run[Any], checkpoints: checkpoint.Checkpoints
) -> tuple[state.TrainState, guards.LoopState]:
    """Returns the newest checkpoint of a run, or its initial state."""
    resumed = checkpoints.restore_latest(run.state_shapes)
    if resumed is None:
        return run.initial_state(), guards.LoopState()
    begin, meta = resumed
    distributed.print_once(f"resuming after step {int(begin.step)}")
    run.restore(meta)
    return begin, guards.LoopState.from_meta(meta)


def _batches(
    run: Run[Any], start_step: int, examples: logs.ExampleLog
) -> Iterator[Any]:
    """Returns the batches of the steps to come, prepared ahead of the devices."""
    sharded = stream.batches(
        run.batch_at,
        start_step,
        max(0, run.num_train_steps - start_step),
        loader=run.settings.data.loader,
        put=examples.with_checksums(run.put),
    )
    return examples.written(sharded, start_step, run.local_examples_at)


@dataclasses.dataclass(frozen=True, eq=False)
class _Recorder:
    """Writes the reports of the loop into the workdir; a `loop.Recorder`."""

    run: Run[Any]
    copy: remote.WorkingCopy
    checkpoints: checkpoint.Checkpoints
    metrics: logs.Writer
    examples: logs.ExampleLog

    def log(self, step: int, values: dict[str, float]) -> None:
        """Appends a line to metrics.jsonl."""
        self.metrics.write(step, values)

    def report(self, step: int, event: Mapping[str, Any]) -> None:
        """Appends a line to events.jsonl, and warns."""
        self.metrics.report(step, event)

    def evaluated(self, step: int, evaluation: loop.Evaluation) -> None:
        """Writes and prints the metrics of an evaluation."""
        self.metrics.write(step, evaluation.metrics)
        self.metrics.draw()
        distributed.print_once(evaluation.summary)

    def save(
        self, step: int, state: state.TrainState, loop_state: guards.LoopState
    ) -> None:
        """Starts to save a checkpoint; its log lines are on disk before it is."""
        self.metrics.sync()
        self.examples.sync()
        self.copy.push()
        meta = {"standing": loop_state.to_json(), **self.run.meta()}
        self.checkpoints.save(step, state, meta)

    def check_saves(self) -> None:
        """Raises StorageError if the save in progress has failed."""
        self.checkpoints.check()
