"""A suite of tasks: its configuration, its data, its runs and its table of scores.

A config file such as configs/glue.py lists the tasks. Every key of a fine-tuning run
may be set for all of them (`--config.run.dtype=bfloat16`); it overrides the task's
recipe. `check` finds and reads all data before anything is trained. The table has means
and standard deviations over the seeds, next to the published figures.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from bert_jax import console, errors, tasks
from bert_jax.checkpoints import initial_weights
from bert_jax.config import finetuning
from bert_jax.data import text_files
from bert_jax.data.labeled import read_examples, tables
from bert_jax.foundation import fields, files, json_file
from bert_jax.inference import answer, inputs, outputs
from bert_jax.runs import best_model, splits, sweep, workdirs
from bert_jax.tasks import class_names
from bert_jax.training import distributed, optimizer, remote, signals

PREDICTIONS = "predictions"
Recipe = Mapping[str, Any]  # what differs from the default, as {"group.key": value}


@dataclasses.dataclass(frozen=True)
class Score:
    """A line of the table.

    Attributes:
      title: as the publisher writes it, `MNLI-m`.
      metric: of a run, as `dev/accuracy`.
      published: figures of the suite's models, as they were published; "" where none.
    """

    title: str
    metric: str
    published: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Files:
    """Files of a task, in its folder, or splits of TFDS.

    Attributes:
      train: `a+b` joins two files that are JSON lists.
      dev: empty holds examples of `train` out.
      test: labeled examples that are scored in addition to `dev`.
      recipe: how they are read.
    """

    train: str
    dev: str = ""
    test: str = ""
    recipe: Recipe = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All files that must be there."""
        parts = (self.train, self.dev, self.test)
        return tuple(name for part in parts for name in part.split("+") if name)


@dataclasses.dataclass(frozen=True)
class Submission:
    """Examples without labels whose answers are submitted to a server.

    Attributes:
      output: the file, with the name that the server requires.
      files: names in the folder of the task; the first that exists is read.
      tfds: a split of TFDS, or empty.
    """

    output: str
    files: tuple[str, ...]
    tfds: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of a suite.

    Attributes:
      name: of its folder in the workdir.
      folders: names that its folder of publisher's files has; the first there counts.
      files: layouts of that folder; the first whose `train` exists is used.
      download: what to fetch.
      scores: its lines in the table; the best model is kept by the first.
      recipe: of its runs.
      tfds: its splits, or None where TFDS has none.
      submissions: written after training, if their examples exist.
      numbered: whether the server requires numbers of classes.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[Files, ...]
    download: str
    scores: tuple[Score, ...]
    recipe: Recipe
    tfds: Files | None = None
    submissions: tuple[Submission, ...] = ()
    numbered: bool = False


@dataclasses.dataclass(frozen=True)
class Suite:
    """Tasks, and what the table of their scores has in addition.

    Attributes:
      title: of the suite.
      tasks: in the order of the table.
      models: names of those with published figures in the table.
      about: where the figures are from, and what they are measured on.
      format: of submissions, `glue` or `clue`; those of questions are `squad`.
    """

    title: str
    tasks: tuple[Task, ...]
    models: tuple[str, ...]
    about: str
    format: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """A suite that is to be run.

    Attributes:
      tasks: the selected ones.
      folder: of the publisher's files, or None for TFDS.
      changes: settings for all tasks.
    """

    suite: Suite
    tasks: tuple[Task, ...]
    folder: Path | None
    changes: Recipe

    def recipe(self, task: Task, files: Recipe | None = None) -> dict[str, Any]:
        """Returns what differs from the default in a task's runs."""
        metric = task.scores[0].metric.removeprefix("dev/")
        best = {"run.keep_best": metric}
        return {**best, **task.recipe, **(files or {}), **self.changes}

    def settings(self, task: Task, files: Recipe) -> finetuning.FinetuningConfig:
        """Returns the configuration of a task's runs.

        Raises:
          InputError: a value cannot be.
        """
        config = finetuning.default()
        config.update_from_flattened_dict(self.recipe(task, files))
        return tasks.check(finetuning.parse(config))


# Keys that every task has its own value of.
_OF_TASKS = ("data.task", "data.train", "data.dev", "data.test", "run.keep_best")
_FOLDS = ("data.folds", "data.fold", "sweep.folds")


def default(suite: Suite) -> ml_collections.ConfigDict:
    """Returns the locked configuration of a suite: all its tasks, from TFDS.

    Its keys are those of a fine-tuning run and of `finetuning.SuiteConfig`.
    """
    config = finetuning.default()
    with config.unlocked():
        config.suite = suite
        config.update(dataclasses.asdict(finetuning.SuiteConfig()))
    return config.lock()


def parse(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Plan:
    """Returns the plan of a configuration.

    Raises:
      InputError: a key is unknown or missing, one is set that every task has its own
        value of, or a task is not of the suite.
    """
    is_config_dict = isinstance(config, ml_collections.ConfigDict)
    tree: dict[str, Any] = config.to_dict() if is_config_dict else dict(config)
    usual = finetuning.default().to_dict()
    names = [item.name for item in dataclasses.fields(finetuning.SuiteConfig)]
    fields.same_keys("", tree, ("suite", *names, *usual))
    suite = tree.pop("suite")
    if not isinstance(suite, Suite):
        raise errors.InputError("suite is not a Suite: start from configs/glue.py")
    values = {name: tree.pop(name) for name in names}
    own = fields.build("", finetuning.SuiteConfig, values)
    before, now = fields.flat(usual), fields.flat(tree)
    fields.same_keys("", now, tuple(before))
    changes = {key: value for key, value in now.items() if value != before[key]}
    _check_changes(changes)
    folder = Path(own.folder) if own.folder else None
    if folder is not None and not folder.is_dir():
        raise errors.InputError(f"folder is {folder}, which does not exist")
    plan = Plan(suite, _chosen(suite, own.tasks), folder, changes)
    for task in plan.tasks:  # configuration errors come before missing data
        plan.settings(task, {"data.train": "given later"})
    return plan


def _check_changes(changes: Recipe) -> None:
    """Raises InputError for keys that cannot be set for all tasks."""
    for key in changes:
        if key in (*_OF_TASKS, *_FOLDS):
            reason = "every task of a suite has its own"
            if key in _FOLDS:
                reason = "the tasks of a suite are scored on their own dev files"
            raise errors.InputError(f"{key} is set, and {reason}: leave it out")


def _chosen(suite: Suite, text: str) -> tuple[Task, ...]:
    """Returns the tasks that `tasks` names, in the order of the suite."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [task.name for task in suite.tasks]
    for name in names:
        if name not in known:
            raise errors.InputError(
                f"tasks has {name!r}: {suite.title} has {', '.join(known)}"
            )
    return tuple(task for task in suite.tasks if not names or task.name in names)


@dataclasses.dataclass(frozen=True)
class Located:
    """A task whose data was found.

    Attributes:
      settings: of its runs, with the paths of its files.
      tests: output -> how its file is read.
    """

    task: Task
    settings: finetuning.FinetuningConfig
    tests: dict[str, read_examples.Request]


def check(plan: Plan, tasks: list[Task], joined: Path) -> dict[str, Located]:
    """Returns the tasks by name, after reading all of their data.

    Where the publisher has several files for one, the one is written into `joined`.

    Raises:
      InputError: data is missing (all tasks are listed at once) or broken, or the
        rows of a task are too long for the model.
    """
    found, missing = {}, []
    for task in tasks:
        try:
            found[task.name] = _locate(plan, task, joined)
        except errors.InputError as error:
            missing.append(f"{task.name}: {error}")
    if missing:
        lines = "\n  ".join(missing)
        raise errors.InputError(f"nothing is trained, as data is missing:\n  {lines}")
    if found:
        _check_lengths(list(found.values()))
    for located in found.values():
        _read(plan, located)
    return found


def file_digests(plan: Plan, task: Task, joined: Path) -> dict[str, dict[str, str]]:
    """Returns path and sha256 of the files of a task that still exist.

    By config key, as `splits.data_files`.
    """
    try:
        settings = _locate(plan, task, joined).settings
    except errors.InputError:
        return {}
    if plan.folder is None:  # of TFDS, whose versions have names
        return {}
    return splits.data_files(settings, {})


def _locate(plan: Plan, task: Task, joined: Path) -> Located:
    """Finds the files of a task; raises InputError with what to download."""
    if plan.folder is None:
        return _of_tfds(plan, task)
    for name in task.folders:
        for choice in task.files:
            if (plan.folder / name / choice.names[0]).is_file():
                return _of_folder(plan, task, plan.folder / name, choice, joined)
    searched = " or ".join(str(plan.folder / name) for name in task.folders[:2])
    names = " or ".join(choice.names[0] for choice in task.files)
    raise errors.InputError(
        f"there is no {names} in {searched}: download {task.download}"
    )


def _of_folder(
    plan: Plan,
    task: Task,
    folder: Path,
    files: Files,
    joined: Path,
) -> Located:
    lacking = [name for name in files.names if not (folder / name).is_file()]
    if lacking:
        raise errors.InputError(
            f"there is no {' and no '.join(lacking)} in {folder}: download "
            f"{task.download}"
        )
    named = {"train": files.train, "dev": files.dev, "test": files.test}
    paths = {
        f"data.{split}": str(_joined(folder, name, joined / task.name))
        for split, name in named.items()
        if name
    }
    settings = plan.settings(task, {**files.recipe, **paths})
    tests = {}
    for submission in task.submissions:
        there = [folder / x for x in submission.files if (folder / x).is_file()]
        if there and submission.output not in tests:
            tests[submission.output] = _asked(settings, str(there[0]))
    return Located(task, settings, tests)


def _of_tfds(plan: Plan, task: Task) -> Located:
    if task.tfds is None:
        raise errors.InputError(
            f"TFDS has no such data set: download {task.download} and name the folder "
            "above it, as in --config.folder=data/clue"
        )
    named = {"train": task.tfds.train, "dev": task.tfds.dev, "test": task.tfds.test}
    paths = {f"data.{split}": name for split, name in named.items() if name}
    settings = plan.settings(task, {**task.tfds.recipe, **paths})
    tests = {x.output: _asked(settings, x.tfds) for x in task.submissions if x.tfds}
    return Located(task, settings, tests)


def _asked(settings: finetuning.FinetuningConfig, path: str) -> read_examples.Request:
    """Returns how a file without labels is read; its columns have usual names."""
    asked = inputs.training_request(settings, path)
    return dataclasses.replace(
        asked, columns=read_examples.Columns(), header="auto", needs_labels=False
    )


def _joined(folder: Path, name: str, target: Path) -> Path:
    """Returns the path of a file, or of several JSON lists merged into one."""
    parts = name.split("+")
    if len(parts) == 1:
        return folder / name
    lists = [
        tables.c3_documents(text_files.NamedPath(part, folder / part)) for part in parts
    ]
    path = target / "+".join(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([each for found in lists for each in found], ensure_ascii=False)
    with files.writing(path) as file:
        file.write(text.encode("utf-8"))
    return path


def _read(plan: Plan, located: Located) -> None:
    """Reads all files of a task; raises InputError if one is invalid."""
    settings = located.settings
    try:
        result = splits.read(settings)
        task = tasks.of(settings)
        learned = task.learn(settings, splits.that_name_labels(settings, result))
        _check_steps(settings, len(result["train"]))
        for name in sorted(set(result) - {"train"}):
            unknown = task.unknown_classes(result[name], learned.labels)
            for at, label in unknown.items():
                where = result[name][at].where
                raise class_names.unknown_label(where, label, learned.labels)
        for request in located.tests.values():
            inputs.report_table_header(request)
            for _ in read_examples.iterate(request):
                pass
    except errors.InputError as error:
        reason = str(error)
        if plan.folder is None:
            hint = "Or name a folder of the publisher's files: --config.folder=DIR"
            reason = f"{reason.removesuffix('.')}. {hint}"
        raise errors.InputError(
            f"nothing is trained, as the data of {located.task.name} cannot be used: "
            f"{reason}"
        ) from None


def _check_steps(settings: finetuning.FinetuningConfig, num_examples: int) -> None:
    """Raises InputError for a warm-up that does not fit into the steps of the run.

    Only for tasks with one row an example: others have more rows than examples.
    """
    if not tasks.of(settings).one_row_each:
        return
    run = settings.run
    steps = run.num_train_steps
    if steps == -1:
        an_epoch = -(-num_examples // run.batch_size)
        steps = max(1, round(run.num_train_epochs * an_epoch))
    config = settings.optimizer.resolved(steps, max(settings.learning_rates))
    optimizer.learning_rate(config, steps)


def _check_lengths(found: list[Located]) -> None:
    """Raises InputError if the weights are not there, or have too few positions."""
    bert = initial_weights.read_start(found[0].settings, ("encoder",)).bert
    for located in found:
        length = located.settings.data.max_seq_length
        if length > bert.max_length:
            raise errors.InputError(
                f"nothing is trained: {located.task.name} has rows of {length} tokens, "
                f"and the model {bert.max_length} positions: lower "
                "data.max_seq_length, or set model.max_position_embeddings with "
                "init.positions"
            )


JSON, MARKDOWN = "suite.json", "suite.md"
RESULTS = "results"  # a file of each task that is finished


@dataclasses.dataclass(frozen=True)
class Result:
    """The results of the runs of a task.

    Attributes:
      recipe: the requested settings, as {"group.key": value}.
      runs: one a seed, {"seed", "learning_rate", "metrics": {"dev/accuracy": ...}}.
      data: path and sha256 of each file that they were trained and scored on; empty
        in results of earlier versions.
      shown: metric -> how people read it, where that differs, as `dev/f1 (of "1")`.
    """

    recipe: dict[str, Any]
    runs: list[dict[str, Any]]
    data: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    shown: dict[str, str] = dataclasses.field(default_factory=dict)

    def values(self, metric: str) -> np.ndarray:
        """Returns a metric of every run, [runs]."""
        return np.array([run["metrics"][metric] for run in self.runs], np.float64)


Results = Mapping[str, Result]


def best_rate(runs: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Returns the runs of the learning rate whose mean of a metric is highest."""
    by_rate: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        by_rate.setdefault(run["learning_rate"], []).append(run)
    return max(
        by_rate.values(),
        key=lambda found: float(np.mean([run["metrics"][metric] for run in found])),
    )


def result_path(workdir: Path, task: str) -> Path:
    """Returns where the result of a task is, when it is finished."""
    return workdir / RESULTS / f"{task}.json"


def write_result(path: Path, result: Result) -> None:
    """Writes the results of the runs of a task."""
    path.parent.mkdir(exist_ok=True)
    _write(path, json.dumps(dataclasses.asdict(result), indent=2) + "\n")


def read_result(path: Path) -> Result | None:
    """Reads the results of the runs of a task; None if they are not finished.

    Raises:
      InputError: the file is damaged.
    """
    if not path.exists():
        return None
    tree = json_file.read_object(path)
    if set(tree) - {"data", "shown"} != {"recipe", "runs"}:
        raise errors.InputError(f"{path} is damaged: remove it to run the task again")
    return Result(**tree)


def rows(suite: Suite, results: Results) -> list[dict[str, Any]]:
    """Returns the lines of the table; `mean` and `deviation` are fractions, not in %.

    A task without a result has no `values`; `deviation` of one run is None.
    """
    return [
        _row(task, score, results.get(task.name), suite.models)
        for task in suite.tasks
        for score in task.scores
    ]


def _row(
    task: Task, score: Score, result: Result | None, models: tuple[str, ...]
) -> dict[str, Any]:
    shown, values = score.metric, np.array([])
    if result is not None:
        shown = result.shown.get(score.metric, shown)
        values = result.values(score.metric)
    count = len(values)
    return {
        "title": score.title,
        "task": task.name,
        "metric": score.metric.partition("/")[2],
        "shown": shown.partition("/")[2],
        "values": values.tolist(),
        "mean": float(values.mean()) if count else None,
        "deviation": float(values.std(ddof=1)) if count > 1 else None,
        "published": {
            model: figure
            for model, figure in zip(models, score.published, strict=False)
            if figure
        },
    }


def cells(suite: Suite, result: list[dict[str, Any]]) -> list[list[str]]:
    """Returns the table as cells, in per cent, its header first."""
    header = ["task", "metric", "mean", "deviation", "runs", *suite.models]
    return [header, *(_cells(row, suite.models) for row in result)]


def _cells(row: dict[str, Any], models: tuple[str, ...]) -> list[str]:
    numbers = [_per_cent(row["mean"]), _per_cent(row["deviation"])]
    published = [row["published"].get(model, "-") for model in models]
    count = str(len(row["values"]))
    return [row["title"], row["shown"], *numbers, count, *published]


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def text(suite: Suite, results: Results) -> str:
    """Returns the table for a terminal, with what its figures mean."""
    result = cells(suite, rows(suite, results))
    return f"{console.table(result, left=(0, 1))}\n\n{_note(suite)}"


def _note(suite: Suite) -> str:
    return (
        "In per cent; mean and sample deviation over the runs (seeds), each at its "
        "best evaluation on dev; of several learning rates the one of the best mean. "
        f"{suite.about}"
    )


def write(workdir: Path, suite: Suite, results: Results) -> None:
    """Writes suite.json and suite.md."""
    result = rows(suite, results)
    tree = {"suite": suite.title, "about": _note(suite), "rows": result}
    _write(workdir / JSON, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    header, *lines = cells(suite, result)
    marks = ["---", "---", *["---:"] * (len(header) - 2)]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *lines))
    _write(workdir / MARKDOWN, f"# {suite.title}\n\n{table}\n\n{_note(suite)}\n")


def _write(path: Path, content: str) -> None:
    with files.writing(path) as file:
        file.write(content.encode("utf-8"))


def run(plan: Plan, workdir: str | Path) -> dict[str, Result]:
    """Trains the tasks of a suite that are not finished, and writes their table.

    Returns and raises what the `run` of the command does.
    """
    parts = [task.name for task in plan.suite.tasks]
    with signals.stopping():
        copy = remote.WorkingCopy(workdir, parts=parts)
        workdirs.prepare(copy.folder)
        with copy.fetched():
            return _run(plan, copy)


def _run(plan: Plan, copy: remote.WorkingCopy) -> dict[str, Result]:
    results = _finished(plan, copy)
    pending = [task for task in plan.tasks if task.name not in results]
    for task in plan.tasks:
        if task not in pending:
            distributed.print_once(f"{task.name}: finished before")
    located = check(plan, pending, copy.common / "data")
    for number, task in enumerate(pending, start=1):
        distributed.print_once(f"\n{task.name}, {number} of {len(pending)}")
        results[task.name] = _train(plan, located[task.name], copy)
        if distributed.is_first():
            write(copy.folder, plan.suite, results)
        copy.push()
    if distributed.is_first():
        write(copy.folder, plan.suite, results)
    return results


def _finished(plan: Plan, copy: remote.WorkingCopy) -> dict[str, Result]:
    """Returns the existing results; those of tasks to run must match the settings."""
    results = {}
    for task in plan.suite.tasks:
        path = result_path(copy.folder, task.name)
        result = read_result(path)
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
        data = workdirs.Data(file_digests(plan, task, copy.common / "data"), [])
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
    plan: Plan,
    located: Located,
    copy: remote.WorkingCopy,
) -> Result:
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
    chosen = best_rate(runs, task.scores[0].metric)
    data = workdirs.read_data(folder) or workdirs.NO_DATA
    shown = {
        score.metric: best_model.shown_metric(settings, data.classes, score.metric)
        for score in task.scores
    }
    result = Result(plan.recipe(task), chosen, data.files, shown)
    _submit(plan.suite, located, folder, copy.folder / PREDICTIONS)
    if distributed.is_first():
        write_result(result_path(copy.folder, task.name), result)
    return result


def _submit(
    asked: Suite,
    located: Located,
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
