"""Pretrains BERT from raw text: vocabulary, store, training and evaluation in one go.

python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo

The same command again resumes, or says that the run is finished.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
from absl import flags

from bert_jax import commands, configuration, errors, loading, prepare, report
from bert_jax.data import instances, store, stream
from bert_jax.model import config as model_config
from bert_jax.model import flops, heads
from bert_jax.objectives import Masking
from bert_jax.tasks import baselines, heldout, pretraining
from bert_jax.text import tokenizer as tokenizers
from bert_jax.training import (
    checkpoint,
    loop,
    optimizer,
    progress,
    sharding,
    state,
    writer,
)

_EXAMPLE = "python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo"

# Keys that may change between a run and its resumption: they change no result, or, as
# the mesh and the compiled loop do, only the order of sums.
_FREE_KEYS = (
    "data.loader",
    "data.store",
    "data.workers",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "run.eval_every_steps",
    "run.keep_checkpoints",
    "run.log_every_steps",
    "run.remat",
    "run.save_every_steps",
    "run.unroll",
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `train` returns: the last state, the last metrics, and where all lies."""

    state: state.TrainState
    metrics: dict[str, float]
    workdir: Path


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts of a run, made from its settings and its store alone."""

    settings: configuration.PretrainingConfig
    tokenizer: tokenizers.Tokenizer
    bert: model_config.BertConfig
    task: pretraining.Pretraining
    store_folder: Path
    mesh: jax.sharding.Mesh

    def place(self, batch: dict[str, Any]) -> Any:
        """Puts this process's rows of a batch onto the mesh."""
        return sharding.place(batch, self.mesh, self.settings.run.batch_size)

    @property
    def local_rows(self) -> slice:
        """The rows of a global batch that this process makes."""
        return sharding.local_rows(self.settings.run.batch_size, self.mesh)

    def training_rows(self) -> instances.Instances:
        """Makes the table of training rows."""
        data = self.settings.data
        return instances.Instances(
            store.open_store(self.store_folder, "train"),
            objective=data.objective,
            max_seq_length=data.max_seq_length,
            short_seq_prob=data.short_seq_prob,
            seed=self.settings.run.seed,
            cls_id=self.tokenizer.cls_id,
            sep_id=self.tokenizer.sep_id,
        )

    def held_out(self) -> heldout.HeldOut:
        """Opens the held-out documents and scores the baselines on them."""
        data = self.settings.data
        rows = heldout.held_out_rows(
            store.open_store(self.store_folder, "heldout"),
            data.objective,
            data.max_seq_length,
            self.tokenizer,
        )
        train = store.open_store(self.store_folder, "train", verify=False)
        eval_step = sharding.jit(
            self.task.evaluate, self.mesh, out_shardings=sharding.replicated(self.mesh)
        )
        special_ids = self.tokenizer.special_ids
        return heldout.HeldOut(
            self.task,
            rows,
            baselines.count(train, self.tokenizer.vocab_size, special_ids),
            batch_size=self.settings.run.batch_size,
            local_rows=self.local_rows,
            evaluate=functools.partial(loop.evaluate, eval_step),
            place=self.place,
        )

    def optimizer(self, num_train_steps: int):
        """Returns the optimizer and its learning rate by step."""
        config = self.settings.optimizer
        schedule = optimizer.learning_rate(config, num_train_steps)
        return optimizer.make(config, num_train_steps), schedule


def assemble(
    settings: configuration.PretrainingConfig, store_folder: Path
) -> Experiment:
    """Makes the parts of a run for a store that is there.

    Raises:
      InputError: the vocabulary, the model, the batch and the mesh do not fit.
    """
    tokenizer = tokenizers.load(store_folder)
    bert = settings.bert(tokenizer.vocab_size)
    data, run = settings.data, settings.run
    mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    model = heads.BertForPreTraining(
        bert, run.execution(), data.objective != "full_sentences"
    )
    masking = Masking(
        masked_lm_prob=data.masked_lm_prob,
        max_predictions=data.num_predictions,
        whole_word=data.whole_word,
        max_ngram=data.max_ngram,
        mask_id=tokenizer.mask_id,
        special_ids=tokenizer.special_ids,
        vocab_size=tokenizer.vocab_size,
    )
    evaluation = pretraining.eval_masking(masking, data.max_seq_length)
    task = pretraining.Pretraining(model, masking, evaluation)
    return Experiment(settings, tokenizer, bert, task, store_folder, mesh)


def train(
    config: Any, workdir: str | Path, *, allow_changed_config: bool = False
) -> Trained:
    """Trains, or resumes, and returns the final state and metrics.

    Never ends the process: a signal raises `errors.Stopped`, with everything saved.

    Args:
      config: a ConfigDict or a plain tree, as `configuration.default` makes.
      workdir: folder of the run, made if it is not there.
      allow_changed_config: resume even if the config changes the result.

    Raises:
      InputError, CheckpointError, NotFiniteError, StorageError, Stopped.
    """
    settings, workdir = configuration.parse(config), Path(workdir)
    _open_workdir(workdir)
    store_folder = store_of(settings, workdir)
    commands.say(f"store: {store_folder}")
    built = prepare.ensure(settings.text, settings.data, store_folder)
    commands.say(prepare.describe(built))
    experiment = assemble(settings, store_folder)
    _record(experiment, workdir, allow_changed_config)
    return _train(experiment, workdir)


def store_of(settings: configuration.PretrainingConfig, workdir: Path) -> Path:
    """Returns the folder of the store: as configured, or in the workdir."""
    return Path(settings.data.store) if settings.data.store else workdir / "store"


def _open_workdir(workdir: Path) -> None:
    """Makes the workdir, and keeps compiled programs in it unless told otherwise."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise errors.InputError(
            f"the workdir {workdir} is a file or lies below one: name a folder"
        ) from None
    except OSError as error:
        raise errors.InputError(f"cannot make the workdir {workdir}: {error}") from None
    if not os.access(workdir, os.W_OK):
        raise errors.InputError(
            f"the workdir {workdir} is not writable: choose another or change its mode"
        )
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore
    if chosen is None:
        cache = workdir.absolute() / "compilation_cache"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _record(experiment: Experiment, workdir: Path, allow_changed: bool) -> None:
    """Writes config.json and the tokenizer, or compares with those of the run."""
    settings = experiment.settings
    full = dataclasses.replace(settings, model=dataclasses.asdict(experiment.bert))
    path, tree = workdir / loading.CONFIG, configuration.to_dict(full)
    if path.exists():
        changed = _changed(configuration.to_dict(loading.read_settings(workdir)), tree)
        if changed and not allow_changed:
            raise errors.InputError(
                f"{path} is of a run with other settings: {'; '.join(changed)}. Use "
                "another --workdir, or resume nevertheless with --allow_changed_config"
            )
    if jax.process_index() == 0:
        experiment.tokenizer.save(workdir / loading.TOKENIZER)
        beside = path.with_name(path.name + ".tmp")
        beside.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
        os.replace(beside, path)


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names the keys that differ and change the result, with both values."""
    before, after = _flat(old), _flat(new)
    return [
        f"{key} was {before.get(key)!r} and is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in _FREE_KEYS
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        flat |= {f"{prefix}{name}": value} if inner is None else inner
    return flat


def num_train_steps(settings: configuration.PretrainingConfig, rows: int) -> int:
    """Returns the steps of the run: as set, or from epochs of `rows` instances."""
    run = settings.run
    if run.num_train_steps != -1:
        return run.num_train_steps
    return max(1, round(run.num_train_epochs * rows / run.batch_size))


def _train(experiment: Experiment, workdir: Path) -> Trained:
    """Runs the loop from where the run stands to its end, and evaluates."""
    settings, run = experiment.settings, experiment.settings.run
    rows = experiment.training_rows()
    steps = num_train_steps(settings, rows.num_instances)
    transformation, schedule = experiment.optimizer(steps)
    task, mesh = experiment.task, experiment.mesh
    shapes = state.abstract(task.init, transformation, mesh)
    held_out = experiment.held_out()
    commands.say(report.describe(settings, experiment.bert, rows, steps, shapes, mesh))
    with checkpoint.Checkpoints(
        workdir / loading.CHECKPOINTS, keep=run.keep_checkpoints
    ) as checkpoints:
        begin, interval = _start(experiment, checkpoints, shapes, transformation)
        start_step = int(begin.step)
        if start_step >= steps:
            commands.say(f"this run is finished: step {start_step} of {steps}")
            return Trained(begin, held_out.metrics(begin.params), workdir)
        train_step = state.make_train_step(
            task.prepare,
            task.weights,
            task.losses,
            transformation,
            shapes,
            seed=run.seed,
            accumulation_steps=run.accumulation_steps,
            schedule=schedule,
        )
        batches = stream.batches(
            lambda step: rows.batch_at(step, run.batch_size, experiment.local_rows),
            start_step,
            steps - start_step,
            loader=settings.data.loader,
            place=experiment.place,
        )
        metrics: dict[str, float] = {}
        with writer.Writer(workdir, start_step=start_step) as log:

            def evaluate(step: int, now: state.TrainState) -> None:
                metrics.update(held_out.metrics(now.params))
                log.write(step, metrics)
                log.draw()
                commands.say(report.line(step, metrics))

            end = loop.run(
                train_step,
                begin,
                batches,
                start_step=start_step,
                num_train_steps=steps,
                log_every_steps=run.log_every_steps,
                log=log.write,
                save_every_steps=run.save_every_steps,
                save=lambda step, now, means: checkpoints.save(
                    step, now, {"interval": means}
                ),
                callbacks=[loop.Callback(run.eval_every_steps, evaluate)],
                speed=_speed(experiment),
                interval=interval,
                describe_batch=lambda step: report.describe_batch(rows, step, run),
            )
    return Trained(end, metrics, workdir)


def _start(
    experiment: Experiment,
    checkpoints: checkpoint.Checkpoints,
    shapes: state.TrainState,
    transformation: Any,
) -> tuple[state.TrainState, dict[str, Any]]:
    """Resumes this workdir; else loads given weights; else draws fresh ones."""
    resumed = checkpoints.restore_latest(shapes)
    if resumed is not None:
        begin, meta = resumed
        commands.say(f"resuming after step {int(begin.step)}")
        return begin, meta["interval"]
    settings = experiment.settings
    if settings.init_from != "none":
        params = loading.initial_params(Path(settings.init_from), shapes.params)
        commands.say(f"weights: {settings.init_from}")
        return state.from_params(params, shapes, transformation), {}
    commands.say("weights: fresh (init_from is none)")
    key = jax.random.key(settings.run.seed)
    return state.create(experiment.task.init, key, transformation, experiment.mesh), {}


def _speed(experiment: Experiment) -> progress.Speed:
    data, run = experiment.settings.data, experiment.settings.run
    length = data.max_seq_length
    cost = flops.training_flops_per_token(
        experiment.bert, length, data.num_predictions / length
    )
    return progress.Speed(run.batch_size * length, cost)


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config = commands.required("config", flags.FLAGS.config, _EXAMPLE)
    workdir = commands.required("workdir", flags.FLAGS.workdir, _EXAMPLE)
    trained = train(
        config, workdir, allow_changed_config=flags.FLAGS.allow_changed_config
    )
    if jax.process_index() == 0:
        print(report.final(trained.workdir, trained.metrics))


if __name__ == "__main__":
    commands.define_config()
    flags.DEFINE_string("workdir", None, "Folder of the run; made if it is not there.")
    flags.DEFINE_bool(
        "allow_changed_config",
        False,
        "Resume even if the config changes the result of the run.",
    )
    commands.run(main)
