"""What a suite of tasks is, and its configuration: a fine-tuning run's, and more.

A config file such as configs/glue.py lists the tasks. Every key of a fine-tuning run
may be set for all of them (`--config.run.dtype=bfloat16`); what is set there counts
before what a task's recipe says.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from bert_jax import errors, fields, home_folder
from bert_jax.checkpoints import workdirs
from bert_jax.config import finetuning

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
      test: labelled examples that are scored beside `dev`.
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
    """Examples without labels whose answers a server takes.

    Attributes:
      output: the file, as the server wants it named.
      files: names in the folder of the task; the first that is there is read.
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
      files: layouts of that folder; the first whose `train` is there counts.
      download: what to fetch.
      scores: its lines in the table; the best model is kept by the first.
      recipe: of its runs.
      tfds: its splits, or None where TFDS has none.
      submissions: written after training, where their examples are there.
      numbered: whether the server wants classes by their number.
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
    """Tasks, and what the table says beside their scores.

    Attributes:
      title: of the suite.
      tasks: in the order of the table.
      models: whose published figures stand in the table.
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
      tasks: those that were asked for.
      folder: of the publisher's files, or None for TFDS.
      changes: what is set for all tasks.
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
        return finetuning.parse(config)


# Keys that every task has its own value of.
_OF_TASKS = ("data.task", "data.train", "data.dev", "data.test", "run.keep_best")
_FOLDS = ("data.folds", "data.fold", "sweep.folds")
_OWN = ("suite", "folder", "tasks")


def default(suite: Suite) -> ml_collections.ConfigDict:
    """Returns the locked configuration of a suite: all its tasks, from TFDS.

    The keys beside those of a fine-tuning run are `folder`, of the publisher's files
    (empty takes TFDS), and `tasks`, names with commas (empty takes all).
    """
    config = finetuning.default()
    with config.unlocked():
        config.suite, config.folder, config.tasks = suite, "", ""
    return config.lock()


def parse(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Plan:
    """Turns a configuration into what is to be run.

    Raises:
      InputError: a key is unknown or missing, one is set that every task has its own
        value of, or a task is not of the suite.
    """
    is_config_dict = isinstance(config, ml_collections.ConfigDict)
    tree: dict[str, Any] = config.to_dict() if is_config_dict else dict(config)
    usual = finetuning.default().to_dict()
    fields.same_keys("", tree, (*_OWN, *usual))
    suite = tree["suite"]
    if not isinstance(suite, Suite):
        raise errors.InputError("suite is no Suite: begin with configs/glue.py")
    for name in ("folder", "tasks"):
        if not isinstance(tree[name], str):
            raise errors.InputError(f"{name} is {tree[name]!r}: give a text")
    own = {name: tree.pop(name) for name in _OWN}
    before, now = workdirs.flat(usual), workdirs.flat(tree)
    fields.same_keys("", now, tuple(before))
    changes = {key: value for key, value in now.items() if value != before[key]}
    _check_changes(changes)
    folder = home_folder.path(own["folder"]) if own["folder"] else None
    if folder is not None and not folder.is_dir():
        raise errors.InputError(f"folder is {folder}, and there is no such folder")
    plan = Plan(suite, _chosen(suite, own["tasks"]), folder, changes)
    for task in plan.tasks:  # whatever cannot be is said before data is looked for
        plan.settings(task, {"data.train": "given later"})
    return plan


def _check_changes(changes: Recipe) -> None:
    """Raises InputError for keys that cannot be set for all tasks."""
    for key in changes:
        if key in _OF_TASKS:
            raise errors.InputError(
                f"{key} is set, and every task of a suite has its own: leave it out, "
                "or use python -m bert_jax.finetune"
            )
        if key in _FOLDS:
            raise errors.InputError(
                f"{key} is set, and the tasks of a suite are scored on their own dev "
                "files: leave it out"
            )


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
