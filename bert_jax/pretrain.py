"""Pretrains BERT from raw text: vocabulary, store, training and evaluation in one go.

python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo

The same command again resumes, or says that the run is finished.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

from bert_jax import commands, prepare, reference, report
from bert_jax.checkpoints import initial_weights, run_folder
from bert_jax.config import pretraining
from bert_jax.data import stream
from bert_jax.data.corpus import manifest, python_documents, sources
from bert_jax.data.pretraining import phases as phase_rows
from bert_jax.runs import experiments, workdirs
from bert_jax.tasks import pretraining as pretraining_task
from bert_jax.training import (
    checkpoint,
    distributed,
    guards,
    logs,
    loop,
    remote,
    sharding,
    signals,
    state,
)

_ON_ACCURACY = (  # asked by everybody who sees the log
    "mlm_accuracy is higher in training than in evaluations: training leaves 10 % of "
    "the tokens to predict unchanged, evaluations replace all of them by [MASK]"
)
_EXAMPLE = "python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo"


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `train` returns.

    Attributes:
      state: the last one.
      metrics: of the last evaluation.
      workdir: the folder of the run; of a URL, its working copy on this machine.
    """

    state: state.TrainState
    metrics: dict[str, float]
    workdir: Path

    def __repr__(self) -> str:
        """Returns the step and the metrics, without the arrays of the state."""
        count = sum(int(x.size) for x in jax.tree.leaves(self.state.params))
        shown = {name: round(value, 4) for name, value in self.metrics.items()}
        return (
            f"Trained(workdir={str(self.workdir)!r}, step={int(self.state.step)}, "
            f"parameters={count:,}, metrics={shown})"
        )


def train(
    config: Any,
    workdir: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    allow_changed_config: bool = False,
) -> Trained:
    """Trains, or resumes, and returns the final state and metrics.

    Never ends the process: a signal raises `errors.Stopped`, with everything saved.

    Args:
      config: a ConfigDict or a plain tree, as `pretraining.default` makes.
      workdir: folder of the run, made if it is not there; or a URL, as
        gs://bucket/runs/zh, of which a working copy is kept in $TMPDIR.
      data: documents from Python in place of `config.data.corpus`, as {"train":
        documents, "dev": documents}; a document is a text or a list of sentences, and
        `dev` the held-out ones (see `data.memory_documents`). The record of the run has
        their sha256, and a resumed run must be given the same.
      allow_changed_config: resume even if the config changes the result.

    Raises:
      InputError, CheckpointError, NotFiniteError, StorageError, Stopped.
    """
    settings = pretraining.parse(config)
    with signals.stopping():
        copy = remote.WorkingCopy(workdir)
        if data is None:
            return _run(settings, copy, allow_changed_config)
        with python_documents.written(data) as given:
            own = dataclasses.replace(settings.data, corpus=given.corpus)
            settings = dataclasses.replace(settings, data=own)
            return _run(settings, copy, allow_changed_config, given)


def _run(
    settings: pretraining.PretrainingConfig,
    copy: remote.WorkingCopy,
    allow_changed: bool,
    given: python_documents.PythonDocuments = python_documents.NONE,
) -> Trained:
    """Does what `train` does, for settings that are parsed."""
    distributed.agree(json.dumps(pretraining.to_dict(settings)), "the config")
    workdir = copy.folder
    store_folder = run_folder.store_of(settings, workdir)
    with workdirs.held(copy), copy.fetched():
        settings = workdirs.pinned(settings, workdir)
        distributed.agree(json.dumps(pretraining.to_dict(settings)), "names of the hub")
        resolved = initial_weights.resolve(settings, workdir, store_folder)
        experiments.check(resolved)
        commands.say(f"store: {store_folder}")
        built = distributed.first_then_all(
            lambda: _store(
                resolved.text, settings.data, store_folder, copy, given.places
            )
        )
        distributed.agree(manifest.to_json(built), f"the store {store_folder}")
        commands.say(prepare.describe(built))
        if distributed.is_first():
            places = given.places or prepare.places_of(settings.data.corpus)
            prepare.check_text(built, resolved.data.objective, store_folder, places)
        experiment = experiments.assemble(resolved, store_folder)
        workdirs.record(
            workdir,
            settings,
            experiment.bert,
            experiment.tokenizer,
            data=workdirs.data_of_store(built, store_folder, given.files),
            allow_changed=allow_changed,
        )
        return _train(experiment, copy)


def _store(
    text: pretraining.PretrainingTextConfig,
    data: pretraining.PretrainingDataConfig,
    folder: Path,
    copy: remote.WorkingCopy,
    given: tuple[sources.Source, ...],
) -> manifest.Manifest:
    """Builds or opens the store, which an object store has if it is the run's own."""
    if data.store:
        return prepare.ensure(text, data, folder, given=given)
    copy.fetch_folder(run_folder.STORE)
    built = prepare.ensure(text, data, folder, given=given)
    copy.push_folder(folder, run_folder.STORE)
    return built


def _train(experiment: experiments.Experiment, copy: remote.WorkingCopy) -> Trained:
    """Runs the loop from where the run stands to its end, and evaluates."""
    settings, workdir = experiment.settings, copy.folder
    phases = experiment.phases()
    steps = phases[-1].last_step
    transformation, schedule = experiment.optimizer(steps)
    task, mesh = experiment.task, experiment.mesh
    shapes = state.abstract(task.init, transformation, mesh)
    held_out = experiment.held_out()
    commands.say(report.describe(settings, experiment.bert, phases, shapes, mesh))
    with checkpoint.Checkpoints(
        workdir / run_folder.CHECKPOINTS, keep=settings.run.keep_checkpoints, copy=copy
    ) as checkpoints:
        begin, stood = _start(experiment, checkpoints, shapes, transformation, workdir)
        start_step = int(begin.step)
        distributed.agree(str(start_step), f"the newest checkpoint in {workdir}")
        if start_step >= steps and not stood.callbacks_due:
            commands.say(f"this run is finished: step {start_step} of {steps}")
            return Trained(begin, held_out.metrics(begin.params), workdir)
        train_step = experiments.make_train_step(
            settings.run, task, shapes, transformation, schedule
        )
        again = stood.callbacks_due
        with (
            logs.Writer(workdir, start_step=start_step, evaluates_again=again) as log,
            logs.ExampleLog(
                workdir, start_step=start_step, is_on=settings.run.log_examples
            ) as examples,
        ):
            evaluation = _Evaluation(held_out, log)

            def save(step: int, now: state.TrainState, at: guards.Standing) -> None:
                log.sync()  # the lines of a step are there before it is
                examples.sync()
                copy.push()
                checkpoints.save(step, now, {"standing": at.to_json()})

            commands.say(_ON_ACCURACY)
            end = loop.run(
                train_step,
                begin,
                _batches(experiment, phases, start_step, examples),
                start_step=start_step,
                limits=settings.run.limits(steps),
                log=log.write,
                tell=log.tell,
                save=save,
                check_saves=checkpoints.check,
                callbacks=[loop.Callback(settings.run.eval_every_steps, evaluation)],
                programs=_programs(experiment, phases, start_step, train_step),
                speed=experiment.speed(phases),
                standing=stood,
                names_at={
                    guards.ALONE: lambda step: phase_rows.at(phases, step).names_at(
                        step, settings.run.batch_size
                    )
                },
            )
    return Trained(end, evaluation.metrics, workdir)


def _batches(
    experiment: experiments.Experiment,
    phases: list[phase_rows.Phase],
    start_step: int,
    examples: logs.ExampleLog,
) -> Iterator[Any]:
    """Makes batches ahead of the devices, this process's rows of each."""
    batch_size, local = experiment.settings.run.batch_size, experiment.local_rows
    for phase in phases:
        begin = max(start_step, phase.first_step)
        placed = stream.batches(
            lambda step, phase=phase: phase.batch_at(step, batch_size, local),
            begin,
            max(0, phase.last_step - begin),
            loader=experiment.settings.data.loader,
            place=examples.placing(experiment.place),
        )
        yield from examples.following(
            placed,
            begin,
            lambda step, phase=phase: phase.names_at(step, batch_size, local),
        )


def _programs(
    experiment: experiments.Experiment,
    phases: list[phase_rows.Phase],
    start_step: int,
    train_step: sharding.OnMesh,
) -> list[loop.Program]:
    """Returns the programs of the steps to come: one for each length of rows."""
    batch_size, local = experiment.settings.run.batch_size, experiment.local_rows

    def compile_for(phase: phase_rows.Phase, state: Any) -> None:
        batch = phase.batch_at(phase.first_step, batch_size, local)
        train_step.compile(state, experiment.place(batch))

    return [
        loop.Program(
            f"rows of {phase.length} tokens", functools.partial(compile_for, phase)
        )
        for phase in phases
        if start_step < phase.last_step
    ]


class _Evaluation:
    """Evaluates, writes and tells the metrics; keeps the last ones."""

    def __init__(self, held_out: pretraining_task.HeldOut, log: logs.Writer) -> None:
        self.metrics: dict[str, float] = {}
        self._held_out, self._log = held_out, log

    def __call__(self, step: int, now: state.TrainState) -> None:
        self.metrics = self._held_out.metrics(now.params)
        self._log.write(step, self.metrics)
        self._log.draw()
        commands.say(report.line(step, self.metrics))


def _start(
    experiment: experiments.Experiment,
    checkpoints: checkpoint.Checkpoints,
    shapes: state.TrainState,
    transformation: Any,
    workdir: Path,
) -> tuple[state.TrainState, guards.Standing]:
    """Resumes this workdir; else loads given weights; else draws fresh ones."""
    resumed = checkpoints.restore_latest(shapes)
    if resumed is not None:
        begin, meta = resumed
        commands.say(f"resuming after step {int(begin.step)}")
        return begin, guards.from_meta(meta)
    settings = experiment.settings
    if settings.init_from == "none":
        commands.say("weights: randomly initialized (init_from is none)")
        key = jax.random.key(settings.run.seed)
        init = experiment.task.init
        begin = signals.unless_asked(
            lambda: state.create(init, key, transformation, experiment.mesh)
        )
        return begin, guards.Standing()
    commands.say(f"weights: {settings.init_from}")
    params = initial_weights.read(
        settings,
        experiment.bert,
        experiment.tokenizer,
        shapes.params,
        experiment.task.init,
        workdir,
    )
    return state.from_params(params, shapes, transformation), guards.Standing()


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config = commands.required("config", flags.FLAGS.config, _EXAMPLE)
    workdir = commands.required("workdir", flags.FLAGS.workdir, _EXAMPLE)
    trained = train(
        config, workdir, allow_changed_config=flags.FLAGS.allow_changed_config
    )
    text = report.final(trained.workdir, trained.metrics)  # all read the checkpoint
    if distributed.is_first():
        print(text)


if __name__ == "__main__":
    commands.define_config(reference.Keys(pretraining.PretrainingConfig))
    commands.define_processes()
    commands.define_workdir()
    flags.DEFINE_bool(
        "allow_changed_config",
        False,
        "Resume even if the config changes the result of the run.",
    )
    commands.run(main)
