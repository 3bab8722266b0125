"""Fine-tunes a model on all tasks of a suite, and writes one table of their scores.

python -m bert_jax.suite --config=configs/glue.py --config.init_from=FOLDER --workdir=runs/glue

The data comes from TFDS, or from the publisher's own files: --config.folder=DIR. All of
it is read before anything is trained. --config.tasks=cola,rte runs only these tasks; any
key of a fine-tuning run holds for all of them, as in --config.sweep.seeds=5 or
--config.run.dtype=bfloat16.

Each task has its own folder in the workdir, a workdir of `finetune`. suite.json and
suite.md have the table: mean and standard deviation over the seeds, next to the
published figures. results/ has the metrics of the runs of each finished task, and
predictions/ a submission for each test file that is there, in the format of the
benchmark's server. The same command resumes a suite that was stopped; finished tasks are
not run again.
"""  # noqa: E501

from pathlib import Path
from typing import Any

from absl import flags

from bert_jax import commands, errors, tasks
from bert_jax.config import finetuning
from bert_jax.data.labeled import read_examples
from bert_jax.foundation import fields, files
from bert_jax.inference import answer, outputs
from bert_jax.runs import best_model, suite, sweep, workdirs
from bert_jax.training import distributed, remote, signals

PREDICTIONS = "predictions"


def run(config: Any, workdir: str | Path) -> dict[str, suite.Result]:
    """Runs the tasks of a suite that are not finished, and writes their table.

    Args:
      config: as `runs.suite.default` makes it.
      workdir: folder of the suite, created if missing; or a URL, as
        gs://bucket/runs/glue, of which working copies are kept in $TMPDIR.

    Returns:
      The results of all tasks of the suite that are finished, by name.

    Raises:
      InputError: data of a task is missing or broken; nothing has been trained then.
      CheckpointError, NotFiniteError, StorageError, Stopped: as `sweep.train_in`.
    """
    plan = suite.parse(config)
    parts = [task.name for task in plan.suite.tasks]
    with signals.stopping():
        copy = remote.WorkingCopy(workdir, parts=parts)
        workdirs.prepare(copy.folder)
        with copy.fetched():
            return _run(plan, copy)


def _run(plan: suite.Plan, copy: remote.WorkingCopy) -> dict[str, suite.Result]:
    results = _finished(plan, copy)
    pending = [task for task in plan.tasks if task.name not in results]
    for task in plan.tasks:
        if task not in pending:
            distributed.print_once(f"{task.name}: finished before")
    located = suite.check(plan, pending, copy.common / "data")
    for number, task in enumerate(pending, start=1):
        distributed.print_once(f"\n{task.name}, {number} of {len(pending)}")
        results[task.name] = _train(plan, located[task.name], copy)
        if distributed.is_first():
            suite.write(copy.folder, plan.suite, results)
        copy.push()
    if distributed.is_first():
        suite.write(copy.folder, plan.suite, results)
    return results


def _finished(plan: suite.Plan, copy: remote.WorkingCopy) -> dict[str, suite.Result]:
    """Returns the existing results; those of tasks to run must match the settings."""
    results = {}
    for task in plan.suite.tasks:
        path = suite.result_path(copy.folder, task.name)
        result = suite.read_result(path)
        if result is None:
            continue
        results[task.name] = result
        if task not in plan.tasks:
            continue
        changed = workdirs.changed_keys(
            result.recipe,
            plan.recipe(task),
            fields.free_keys(finetuning.FinetuningConfig),
        )
        data = workdirs.Data(suite.file_digests(plan, task, copy.common / "data"), [])
        changed += data.changes_since(workdirs.Data(result.data, []))
        if changed:
            there = path.relative_to(copy.folder)
            raise errors.InputError(
                f"{task.name} is finished in {copy.name} with other settings or data: "
                f"{'; '.join(changed)}. Use another --workdir, or remove {task.name} "
                f"and {there} there"
            )
    return results


def _train(
    plan: suite.Plan,
    located: suite.Located,
    copy: remote.WorkingCopy,
) -> suite.Result:
    """Trains the runs of a task, and writes its submissions and results."""
    task, settings = located.task, located.settings
    task_workdir = f"{copy.name}/{task.name}"
    results = sweep.train_in(task_workdir, tasks.check(settings))
    runs = [
        {
            "seed": settings.run.seed,
            "learning_rate": settings.optimizer.learning_rate,
            "metrics": results.metrics,
        }
    ]
    folder = remote.WorkingCopy(task_workdir).folder
    if settings.sweep.is_on:
        members = sweep.read_ended(folder)
        runs = [{name: member[name] for name in runs[0]} for member in members]
    chosen = suite.best_rate(runs, task.scores[0].metric)
    data = workdirs.read_data(folder) or workdirs.NO_DATA
    shown = {
        score.metric: best_model.shown_metric(settings, data.classes, score.metric)
        for score in task.scores
    }
    result = suite.Result(plan.recipe(task), chosen, data.files, shown)
    _submit(plan.suite, located, folder, copy.folder / PREDICTIONS)
    if distributed.is_first():
        suite.write_result(suite.result_path(copy.folder, task.name), result)
    return result


def _submit(
    asked: suite.Suite,
    located: suite.Located,
    trained: Path,
    predictions: Path,
) -> None:
    """Writes the submissions of a task, by the best model of its workdir."""
    if not located.tests:
        return
    task = located.task
    model = answer.load(trained, located.settings.run.dtype)
    labels = list(model.task_folder.learned.labels)
    is_squad = "squad" in model.task_spec.formats
    form = "squad" if is_squad else asked.format

    def numbered(answered: Any) -> Any:
        example, result = answered
        if task.numbered:
            result = result | {"label": str(labels.index(result["label"]))}
        return example, result

    for output, request in located.tests.items():
        answers = map(numbered, model.stream(read_examples.iterate(request)))
        lines = outputs.lines(form, model.task_spec, answers)
        if not distributed.is_first():  # it helps to predict, and writes nothing
            for _ in lines:
                pass
            continue
        path = predictions / output
        predictions.mkdir(exist_ok=True)
        with files.writing(path) as file:
            for line in lines:
                file.write(line.encode("utf-8"))
        distributed.print_once(f"answers for the server: {path}")


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config, workdir = commands.required("config", "workdir")
    results = run(config, workdir)
    if distributed.is_first():
        print(f"\n{suite.text(config.suite, results)}")
        print(f"\ntable        {workdir.rstrip('/')}/{suite.MARKDOWN}")
        print(f"all digits   {workdir.rstrip('/')}/{suite.JSON}")


if __name__ == "__main__":
    commands.define_config(finetuning.FinetuningConfig, finetuning.SuiteConfig)
    commands.define_processes()
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the suite, created if missing; or a URL as gs://bucket/glue or "
        "s3://..., of which each process keeps working copies in $TMPDIR.",
    )
    commands.run(main)
