"""Fine-tunes a model on a task: data to rows, training, scores, the best model kept.

python -m bert_jax.finetune --config=configs/finetune.py:sst2 --config.init_from=FOLDER --workdir=runs/sst2

`configs/finetune.py` has a recipe for every task; any file of your own needs no code:

python -m bert_jax.finetune --config=configs/finetune.py:classification --config.init_from=FOLDER --config.data.train=train.tsv --config.data.dev=dev.tsv --config.data.columns.text=sentence --config.data.columns.label=label --workdir=runs/mine

FOLDER is a run of `pretrain` or anything that `convert` reads. The same command again
resumes, or says that the run is finished. The best model is kept in best/, its scores
in eval/, what it predicts in predictions/. `--config.sweep.seeds=5` trains five side by
side; docs/en/config.md explains every key.
"""  # noqa: E501

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from bert_jax import commands, console, errors, faults, fields, files, reference, tasks
from bert_jax.checkpoints import (
    hf_config,
    huggingface,
    run_folder,
    task_folders,
)
from bert_jax.config import finetuning
from bert_jax.data.labeled import example_rows, python_examples
from bert_jax.inference import task_predictor
from bert_jax.metrics import report
from bert_jax.metrics import scores as scores_lib
from bert_jax.model import attention_plan, task_model
from bert_jax.runs import assembly, baselines, splits, sweep, task_setup, workdirs
from bert_jax.tasks import spec
from bert_jax.training import (
    checkpoint,
    distributed,
    guards,
    logs,
    loop,
    remote,
    saved_steps,
    signals,
    state,
)

_EXAMPLE = (
    "python -m bert_jax.finetune --config=configs/finetune.py:sst2 "
    "--config.init_from=FOLDER --workdir=runs/sst2"
)
_OF_ONE_TEXT = ("classification", "regression", "tagging")
_EXAMPLE_LENGTH = 40  # characters of a text that is shown as an example


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """What `train` returns.

    Attributes:
      metrics: of the best model, as `dev/accuracy` and `test/accuracy`.
      folder: of the best model; for a URL, in its working copy on this machine.
      example: arguments with which `predict` answers an example like those of `dev`.
    """

    metrics: dict[str, float]
    folder: Path
    example: str = ""


def train(
    config: Any,
    workdir: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    allow_changed_config: bool = False,
) -> Finetuned:
    """Trains, or resumes, and scores the best model.

    Never ends the process: a signal raises `errors.Stopped`, with everything saved.

    Args:
      config: a ConfigDict or a plain tree, as `finetuning.default` makes.
      workdir: folder of the run, made if it is not there; or a URL, as
        gs://bucket/runs/sst2, of which a working copy is kept in $TMPDIR.
      data: examples from Python in place of files, as {"train": [(text, label), ...],
        "dev": ..., "test": ...}; `data.python_examples` has the forms of all tasks. The
        record of the run has their sha256, and a resumed run must be given the same.
      allow_changed_config: resume even if the config changes the result.

    Raises:
      InputError, CheckpointError, NotFiniteError, StorageError, Stopped.
    """
    data = {} if data is None else python_examples.by_split(data)
    settings = tasks.check(finetuning.parse(config, given=tuple(data)))
    with signals.stopping():
        copy = remote.WorkingCopy(workdir)
        settings, given = splits.from_python(settings, data)
        return _run(settings, copy, allow_changed_config, given)


def _run(
    settings: finetuning.FinetuningConfig,
    copy: remote.WorkingCopy,
    allow_changed_config: bool,
    given: splits.Given | None = None,
) -> Finetuned:
    """Does what `train` does, for settings that are parsed."""
    tree = finetuning.to_dict(settings)
    distributed.agree(json.dumps(tree), "the config")
    workdir = copy.folder
    with workdirs.held(copy), copy.fetched():
        settings = workdirs.pinned(settings, workdir)
        tree = finetuning.to_dict(settings)
        distributed.agree(json.dumps(tree), "names of the hub")
        run = assembly.assemble(settings, workdir, given)
        _record(run, workdir, allow_changed_config)
        check_exports(settings, run.learned, run.start.bert.model_type)
        if not settings.sweep.is_on:
            _train(run, copy)
            copy.share()
            return _finish(run, workdir, given)
        made = sweep.train(run, copy)
        copy.share()
        return _finish_sweep(made, workdir, given)


def check_exports(
    settings: finetuning.FinetuningConfig,
    learned: spec.Metadata,
    model_type: str,
) -> None:
    """Reports a head that no class of transformers has, before it is trained.

    A bi-encoder has none there, and is exported for sentence-transformers.
    """
    head = tasks.of(settings).head(settings, learned)
    parts = task_model.parts(head)
    if not {*parts} - {"encoder", "pooler", "recurrent"}:
        return
    needs_transform = model_type == "modernbert" and not head.pools
    keys = "head.pooling=cls, " if head.pools else ""
    keys += f"head.transform={str(needs_transform).lower()}, "
    try:
        hf_config.class_of(model_type, frozenset(parts))
    except errors.InputError:
        heads = ",".join(sorted({*parts} - {"encoder", "pooler"}))
        way = "No file for transformers holds this head"
        if {*parts} == {"encoder", "tagger", "crf"}:
            way = (
                "convert --ignore=crf keeps the scores of tokens, without the CRF over "
                "them"
            )
        if huggingface.can_separate(parts):
            way = (
                "convert --separate_head writes the head to "
                "classifier.safetensors, with lines for transformers in README.md"
            )
        commands.say(
            f"note: transformers has no class with the parts {', '.join(parts)}. "
            "bert_jax loads this model, predicts with it and scores it; convert "
            "exports its encoder alone to Hugging Face "
            f"(--ignore={heads}). {way}. For a whole export set {keys}"
            "head.recurrent_size=0 and head.crf=false"
        )


def _record(run: assembly.FinetuningRun, workdir: Path, allow_changed: bool) -> None:
    """Writes the settings, the data and the tokenizer of the run."""
    bert = dataclasses.asdict(run.start.bert)
    full = dataclasses.replace(run.settings, model=bert)
    before = None
    if saved_steps.steps(workdir / run_folder.CHECKPOINTS):
        before = finetuning.to_dict(assembly.recorded(workdir))
    read = {"train": run.train, "dev": run.dev, "test": run.test}
    examples = {name: x.examples for name, x in read.items() if x is not None}
    workdirs.write_record(
        workdir,
        finetuning.to_dict(full),
        before,
        run.start.tokenizer,
        fields.free_keys(finetuning.FinetuningConfig),
        data=workdirs.Data(
            splits.data_files(run.settings, examples), list(run.learned.labels)
        ),
        allow_changed=allow_changed,
    )


def _train(run: assembly.FinetuningRun, copy: remote.WorkingCopy) -> None:
    """Runs the loop from where the run stands to its end."""
    settings, data, workdir = run.settings, run.settings.data, copy.folder
    rows = run.rows(settings.run.seed, data.folds, data.fold)
    steps = run.num_train_steps(rows)
    transformation, schedule = run.optimizer(steps)
    shapes = state.abstract(run.init, transformation, run.mesh)
    commands.say(_plan(run, rows, steps))
    with checkpoint.Checkpoints(
        workdir / run_folder.CHECKPOINTS, keep=settings.run.keep_checkpoints, copy=copy
    ) as checkpoints:
        begin, standing, best = _start(run, checkpoints, shapes, transformation)
        start_step = int(begin.step)
        distributed.agree(str(start_step), f"the newest checkpoint in {workdir}")
        again = standing.callbacks_due
        if (start_step >= steps and not again) or best["ended"]:
            commands.say(f"this run is finished: step {start_step} of {steps}")
            return
        train_step = run.train_step(transformation, shapes, schedule)
        dev = run.dev_of(rows)
        save_every_steps = run.interval(settings.run.save_every_steps, rows)
        eval_every_steps = run.interval(settings.run.eval_every_steps, rows)
        with (
            logs.Writer(workdir, start_step=start_step, evaluates_again=again) as log,
            logs.ExampleLog(
                workdir, start_step=start_step, is_on=settings.run.log_examples
            ) as examples,
        ):
            keeper = _Keeper(run, dev, workdir, log, best)

            def save(step: int, now: state.TrainState, at: guards.Standing) -> None:
                log.sync()  # the lines of a step are there before it is
                examples.sync()
                copy.push()
                meta = {"standing": at.to_json(), "best": keeper.record}
                checkpoints.save(step, now, meta)

            loop.run(
                train_step,
                begin,
                run.batches(rows, start_step, steps, examples),
                start_step=start_step,
                limits=settings.run.limits(steps, save_every_steps),
                log=log.write,
                tell=log.tell,
                save=save,
                check_saves=checkpoints.check,
                callbacks=[loop.Callback(eval_every_steps, keeper)],
                programs=run.programs(train_step, rows, start_step, steps),
                speed=run.speed(rows),
                standing=standing,
                names_at={guards.ALONE: rows.names_at},
            )


def _start(
    run: assembly.FinetuningRun,
    checkpoints: checkpoint.Checkpoints,
    shapes: state.TrainState,
    transformation: Any,
) -> tuple[state.TrainState, guards.Standing, dict[str, Any]]:
    """Resumes this workdir, or begins with the given weights and a fresh head.

    Also returns what is known of the best model so far.
    """
    resumed = checkpoints.restore_latest(shapes)
    if resumed is not None:
        begin, meta = resumed
        commands.say(f"resuming after step {int(begin.step)}")
        return begin, guards.from_meta(meta), meta["best"]
    params = signals.unless_asked(
        lambda: run.parameters(shapes.params, run.settings.run.seed)
    )
    begin = state.from_params(params, shapes, transformation)
    return begin, guards.Standing(), _NONE_YET


_NONE_YET = {"value": None, "step": 0, "without_better": 0, "ended": False}


class _Keeper:
    """Scores the dev data, keeps the best model, and ends the run without progress."""

    def __init__(
        self,
        run: assembly.FinetuningRun,
        dev: splits.Split,
        workdir: Path,
        log: logs.Writer,
        record: dict[str, Any],
    ) -> None:
        self.record = dict(record)
        self._run, self._dev, self._workdir, self._log = run, dev, workdir, log
        self._predictor = run.predictor()

    def __call__(self, step: int, now: state.TrainState) -> bool:
        params = self._run.scored(now)
        dev = self._dev
        scores, _ = self._predictor.scores(params, dev.examples, dev.table)
        name = task_setup.kept_by(self._run.settings, scores.metrics)
        value = scores.metrics[name]
        self._log.write(step, {f"eval/{n}": x for n, x in scores.metrics.items()})
        self._log.draw()
        better = task_setup.is_better(name, value, self.record["value"])
        commands.say(_line(step, name, scores, better))
        if better:
            self.record |= {"value": value, "step": step, "without_better": 0}
            made = self._run.folder(params, scores.metrics)
            if distributed.is_first():
                task_folders.write_best(self._workdir, step, made)
        else:
            self.record["without_better"] += 1
        patience = self._run.settings.run.patience
        self.record["ended"] = 0 < patience <= self.record["without_better"]
        if self.record["ended"]:
            shown = task_setup.shown_metric(
                self._run.settings, self._run.learned.labels, name
            )
            commands.say(f"no better {shown} in {patience} evaluations: the run ends")
        return self.record["ended"]


def _line(step: int, name: str, scored: scores_lib.Scores, better: bool) -> str:
    """Returns an evaluation in one line, the metric that counts first."""
    metrics, positive = scored.metrics, console.visible(scored.positive)
    others = [other for other in metrics if other != name][:4]
    shown = [
        f"{scores_lib.named(n, positive)} {metrics[n]:.4f}" for n in (name, *others)
    ]
    return f"dev after step {step}: {'  '.join(shown)}{'  (best)' if better else ''}"


def _plan(
    run: assembly.FinetuningRun, rows: example_rows.TrainingRows, steps: int
) -> str:
    """Returns what is about to be trained."""
    bert, settings = run.start.bert, run.settings
    count = sum(x.size for x in jax.tree.leaves(run.shapes))
    classes = f"{len(run.learned.labels)} classes, " if run.learned.labels else ""
    together = rows.encoded_rows // settings.run.accumulation_steps
    metric = settings.run.keep_best or tasks.of(settings).expected_metric(
        settings, run.learned, run.dev_of(rows).examples
    )
    metric = task_setup.shown_metric(settings, run.learned.labels, metric)
    attention = attention_plan.describe(
        bert, settings.execution(), rows.encoded_lengths, together, run.mesh
    )
    return (
        f"task: {settings.data.task}, {classes}the best model is kept by {metric}\n"
        f"model: {bert.num_hidden_layers} layers of width {bert.hidden_size}, "
        f"{count:,} parameters\n"
        f"{attention}\n"
        f"plan: {steps:,} steps of {settings.run.batch_size} rows {rows.shapes}, "
        f"{steps / rows.steps_per_epoch:.1f} epochs of {rows.num_rows:,} rows"
    )


def _finish(
    run: assembly.FinetuningRun, workdir: Path, given: splits.Given | None
) -> Finetuned:
    """Scores the best model, writes what it predicts, and returns the metrics."""
    folder = task_folders.best(workdir)
    if folder is None:
        raise errors.CheckpointError(
            f"{workdir} has no best model, though its run is finished: it was removed. "
            "Train again in another workdir"
        )
    faults.point("finetune/scores")
    best = task_predictor.load(folder, run.settings.run.dtype)
    predictor = dataclasses.replace(
        best.predictor, num_lengths=run.settings.data.num_lengths
    )
    data = run.settings.data
    rows = run.rows(run.settings.run.seed, data.folds, data.fold)
    dev = run.dev_of(rows)
    metrics: dict[str, float] = {}
    for split in (dev, run.test):
        if split is not None:
            scores, predictions = predictor.scores(
                best.params, split.examples, split.table
            )
            metrics |= {f"{split.name}/{n}": x for n, x in scores.metrics.items()}
            if distributed.is_first():
                about = {"model": str(folder), "data": split.name}
                report.write(scores, workdir / "eval", split.name, about)
                _write_predictions(workdir, split.name, predictions)
                print(f"\n{split.name}:\n{report.text(scores)}")
    compared = baselines.compare(
        run,
        metrics,
        workdir,
        lambda alone, place: (
            _run(alone, remote.WorkingCopy(place), False, given).metrics
        ),
    )
    if compared and distributed.is_first():
        print(f"\n{compared}")
    return Finetuned(metrics, folder, _example(data, dev.examples))


def _example(data: finetuning.FinetuningDataConfig, dev: Sequence[Any]) -> str:
    """Returns arguments of `predict`: a text of `dev`; of other tasks, a file."""
    first = dev[0]
    is_one_text = (
        data.task in _OF_ONE_TEXT and getattr(first, "text_pair", None) is None
    )
    if is_one_text:
        return shlex.quote(first.text.strip()[:_EXAMPLE_LENGTH].lstrip("-"))
    return f"--input={shlex.quote(data.dev or data.train)} --output=answers.jsonl"


def _finish_sweep(
    made: sweep.Sweep, workdir: Path, given: splits.Given | None
) -> Finetuned:
    """Prints the table of a sweep, and scores its best model as that of a run."""
    best = task_folders.best(workdir)
    if best is not None and distributed.is_first():
        name = task_setup.kept_by(made.run.settings, task_folders.read(best).metrics)
        report = made.report(name)
        report.write(workdir)
        print(f"\n{report.text()}")
    dev = made.dev(made.record["member"])
    return _finish(dataclasses.replace(made.run, dev=dev), workdir, given)


def _write_predictions(workdir: Path, name: str, predictions: list[Any]) -> None:
    """Writes predictions/NAME.jsonl, one object an example."""
    path = workdir / "predictions" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps(made, ensure_ascii=False) for made in predictions)
    with files.writing(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config = commands.required("config", flags.FLAGS.config, _EXAMPLE)
    workdir = commands.required("workdir", flags.FLAGS.workdir, _EXAMPLE)
    made = train(config, workdir, allow_changed_config=flags.FLAGS.allow_changed_config)
    if distributed.is_first():
        print(f"\nbest model   {made.folder}")
        place = made.folder.parents[1]  # of a URL, the working copy
        print(f"scores       {place / 'eval'}")
        print(f"predictions  {place / 'predictions'}")
        command = f"python -m bert_jax.predict --model={shlex.quote(str(place))}"
        print(f"next         {command} {made.example}")


if __name__ == "__main__":
    commands.define_config(reference.Keys(finetuning.FinetuningConfig))
    commands.define_processes()
    commands.define_workdir()
    flags.DEFINE_bool(
        "allow_changed_config",
        False,
        "Resume even if the config changes the result of the run.",
    )
    commands.run(main)
