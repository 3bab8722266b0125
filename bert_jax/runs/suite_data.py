"""The data of a suite: where it is, and that all of it can be read, before training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bert_jax import errors, files
from bert_jax.checkpoints import task_weights
from bert_jax.config import finetuning
from bert_jax.data.corpus import sources
from bert_jax.data.labeled import c3_file, read_examples
from bert_jax.runs import splits, suite_configuration, task_setup
from bert_jax.tasks import classification
from bert_jax.training import optimizer

Task = suite_configuration.Task
_ONE_ROW = ("classification", "regression", "matching", "multiple_choice")


@dataclasses.dataclass(frozen=True)
class Located:
    """A task whose data is there.

    Attributes:
      settings: of its runs, with the paths of its files.
      tests: output -> what is read for it.
    """

    task: Task
    settings: finetuning.FinetuningConfig
    tests: dict[str, read_examples.Request]


def check(
    plan: suite_configuration.Plan, tasks: list[Task], joined: Path
) -> dict[str, Located]:
    """Returns the tasks by name, after reading all of their data.

    Where the publisher has several files for one, the one is written into `joined`.

    Raises:
      InputError: data is missing, which is said of all tasks at once, or broken, or the
        model that is given cannot have a task's rows.
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


def file_digests(
    plan: suite_configuration.Plan, task: Task, joined: Path
) -> dict[str, dict[str, str]]:
    """Returns path and sha256 of the files of a task, as far as they are still there.

    By config key, as `splits.data_files`.
    """
    try:
        settings = _locate(plan, task, joined).settings
    except errors.InputError:
        return {}
    if plan.folder is None:  # of TFDS, whose versions have names
        return {}
    return splits.data_files(settings, {})


def _locate(plan: suite_configuration.Plan, task: Task, joined: Path) -> Located:
    """Finds the files of a task; raises InputError that says what to download."""
    if plan.folder is None:
        return _of_tfds(plan, task)
    for name in task.folders:
        for choice in task.files:
            if (plan.folder / name / choice.names[0]).is_file():
                return _of_folder(plan, task, plan.folder / name, choice, joined)
    places = " or ".join(str(plan.folder / name) for name in task.folders[:2])
    names = " or ".join(choice.names[0] for choice in task.files)
    raise errors.InputError(
        f"there is no {names} in {places}: download {task.download}"
    )


def _of_folder(
    plan: suite_configuration.Plan,
    task: Task,
    folder: Path,
    files: suite_configuration.Files,
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


def _of_tfds(plan: suite_configuration.Plan, task: Task) -> Located:
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
    asked = task_setup.request(settings, path)
    return dataclasses.replace(
        asked, columns=read_examples.Columns(), header="auto", needs_labels=False
    )


def _joined(folder: Path, name: str, target: Path) -> Path:
    """Returns the path of a file, or of several JSON lists made into one."""
    parts = name.split("+")
    if len(parts) == 1:
        return folder / name
    lists = [
        c3_file.documents(sources.NamedPath(part, folder / part)) for part in parts
    ]
    path = target / "+".join(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([each for found in lists for each in found], ensure_ascii=False)
    with files.writing(path) as file:
        file.write(text.encode("utf-8"))
    return path


def _read(plan: suite_configuration.Plan, located: Located) -> None:
    """Reads all files of a task; raises InputError for what is wrong with them."""
    settings = located.settings
    try:
        made = splits.read(settings)
        learned = task_setup.learn(settings, splits.that_name_labels(settings, made))
        _check_steps(settings, len(made["train"]))
        if settings.data.task == "classification":
            for name in sorted(set(made) - {"train"}):
                _check_labels(made[name], learned.labels)
        for request in located.tests.values():
            splits.report_first_line(request, setting="")
            for _ in read_examples.iterate(request):
                pass
    except errors.InputError as error:
        told = str(error)
        if plan.folder is None:
            remedy = "Or name a folder of the publisher's files: --config.folder=DIR"
            told = f"{told.removesuffix('.')}. {remedy}"
        raise errors.InputError(
            f"nothing is trained, as the data of {located.task.name} cannot be used: "
            f"{told}"
        ) from None


def _check_steps(settings: finetuning.FinetuningConfig, num_examples: int) -> None:
    """Raises InputError for a warm-up that does not fit into the steps of the run.

    Only for tasks with one row an example: others have more rows than examples.
    """
    if settings.data.task not in _ONE_ROW:
        return
    run = settings.run
    steps = run.num_train_steps
    if steps == -1:
        an_epoch = -(-num_examples // run.batch_size)
        steps = max(1, round(run.num_train_epochs * an_epoch))
    config = settings.optimizer.resolved(steps, max(settings.learning_rates))
    optimizer.learning_rate(config, steps)


def _check_labels(examples: list[Any], labels: tuple[str, ...]) -> None:
    """Raises InputError for a label that the training examples do not have."""
    for example in examples:
        for label in example.labels or ():
            if label not in labels:
                raise classification.unknown_label(example.where, label, labels)


def _check_lengths(found: list[Located]) -> None:
    """Raises InputError if the weights are not there, or have too few positions."""
    bert = task_weights.read(found[0].settings, ("encoder",)).bert
    for located in found:
        length = located.settings.data.max_seq_length
        if length > bert.max_length:
            raise errors.InputError(
                f"nothing is trained: {located.task.name} has rows of {length} tokens, "
                f"and the model {bert.max_length} positions: lower "
                "data.max_seq_length, or set model.max_position_embeddings with "
                "init.positions"
            )
