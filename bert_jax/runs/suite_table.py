"""The table of a suite: means and deviations over seeds, published figures beside."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import errors, files, json_file
from bert_jax.metrics import text_table
from bert_jax.runs import suite_configuration

JSON, MARKDOWN = "suite.json", "suite.md"
RESULTS = "results"  # a file of each task that is finished


@dataclasses.dataclass(frozen=True)
class Result:
    """What the runs of a task found.

    Attributes:
      recipe: what was asked for, as {"group.key": value}.
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
    """Writes what the runs of a task found."""
    path.parent.mkdir(exist_ok=True)
    _write(path, json.dumps(dataclasses.asdict(result), indent=2) + "\n")


def read_result(path: Path) -> Result | None:
    """Reads what the runs of a task found, or None if they are not finished.

    Raises:
      InputError: the file is damaged.
    """
    if not path.exists():
        return None
    tree = json_file.read_object(path)
    if set(tree) - {"data", "shown"} != {"recipe", "runs"}:
        raise errors.InputError(f"{path} is damaged: remove it to run the task again")
    return Result(**tree)


def rows(suite: suite_configuration.Suite, results: Results) -> list[dict[str, Any]]:
    """Returns the lines of the table; `mean` and `deviation` are shares, not per cent.

    A task without a result has no `values`; `deviation` of one run is None.
    """
    return [
        {
            "title": score.title,
            "task": task.name,
            "metric": score.metric.partition("/")[2],
            "shown": _shown(results, task, score).partition("/")[2],
            **_numbers(results, task, score),
            "published": {
                model: figure
                for model, figure in zip(suite.models, score.published, strict=False)
                if figure
            },
        }
        for task in suite.tasks
        for score in task.scores
    ]


def _shown(
    results: Results, task: suite_configuration.Task, score: suite_configuration.Score
) -> str:
    """Returns a metric as people read it, once its task has a result."""
    shown = results[task.name].shown if task.name in results else {}
    return shown[score.metric] if score.metric in shown else score.metric


def _numbers(
    results: Results, task: suite_configuration.Task, score: suite_configuration.Score
) -> dict[str, Any]:
    if task.name not in results:
        return {"values": [], "mean": None, "deviation": None}
    values = results[task.name].values(score.metric)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    mean = float(values.mean())
    return {"values": values.tolist(), "mean": mean, "deviation": deviation}


def cells(
    suite: suite_configuration.Suite, made: list[dict[str, Any]]
) -> list[list[str]]:
    """Returns the table as cells, in per cent, its header first."""
    header = ["task", "metric", "mean", "deviation", "runs", *suite.models]
    return [
        header,
        *(
            [
                row["title"],
                row["shown"],
                _per_cent(row["mean"]),
                _per_cent(row["deviation"]),
                str(len(row["values"])),
                *(
                    row["published"][model] if model in row["published"] else "-"
                    for model in suite.models
                ),
            ]
            for row in made
        ),
    ]


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def text(suite: suite_configuration.Suite, results: Results) -> str:
    """Returns the table for a terminal, with what its figures mean."""
    made = cells(suite, rows(suite, results))
    return f"{text_table.table(made, left=(0, 1))}\n\n{_note(suite)}"


def _note(suite: suite_configuration.Suite) -> str:
    return (
        "In per cent; mean and sample deviation over the runs (seeds), each at its "
        "best evaluation on dev; of several learning rates the one of the best mean. "
        f"{suite.about}"
    )


def write(workdir: Path, suite: suite_configuration.Suite, results: Results) -> None:
    """Writes suite.json and suite.md."""
    made = rows(suite, results)
    tree = {"suite": suite.title, "about": _note(suite), "rows": made}
    _write(workdir / JSON, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    header, *lines = cells(suite, made)
    marks = ["---", "---", *["---:"] * (len(header) - 2)]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *lines))
    _write(workdir / MARKDOWN, f"# {suite.title}\n\n{table}\n\n{_note(suite)}\n")


def _write(path: Path, content: str) -> None:
    with files.writing(path) as file:
        file.write(content.encode("utf-8"))
