"""What is said of the members of a sweep at its end: sweep.json, and a table."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import files, json_file
from bert_jax.metrics import text_table
from bert_jax.runs import task_setup
from bert_jax.training import guards

FILE = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the runs.

    Attributes:
      fold: the part of the training examples that it is scored on; -1 = none.
    """

    seed: int
    learning_rate: float
    fold: int

    @property
    def name(self) -> str:
        """What sets it apart, as `seed 3, rate 5e-05, fold 1`."""
        fold = "" if self.fold < 0 else f", fold {self.fold}"
        return f"seed {self.seed}, rate {self.learning_rate!r}{fold}"


@dataclasses.dataclass(frozen=True)
class Report:
    """What is known of the members.

    Attributes:
      metric: the one that counts.
      record: "best" and "metrics" of each member, None and {} of one that was never
        scored, and the "member" and the "step" of the model that is kept.
      standing: who had bad steps, and who diverged.
      shown: the metric as people read it; empty for its own name.
    """

    metric: str
    members: Sequence[Member]
    record: Mapping[str, Any]
    standing: guards.Standing
    shown: str = ""

    def text(self) -> str:
        """Returns the table, who diverged, and who is best."""
        lines = [self.table()]
        for name, step in self.standing.diverged.items():
            lines.append(
                f"diverged: {name}, at step {step} ({self._bad_steps(name)} bad steps)"
            )
        best = self.members[self.record["member"]].name
        return "\n".join([*lines, f"best: {best}"])

    def table(self) -> str:
        """Returns mean, deviation and best of each rate, without who diverged."""
        title = ["learning rate", "runs", f"mean {self.shown or self.metric}"]
        rows = [[*title, "deviation", "best", "worst"]]
        for rate in dict.fromkeys(m.learning_rate for m in self.members):
            values = [
                value
                for member, value in zip(self.members, self.record["best"], strict=True)
                if member.learning_rate == rate
                and member.name not in self.standing.diverged
            ]
            numbers = self._numbers(np.array(values)) if values else ["-"] * 4
            rows.append([f"{rate:g}", str(len(values)), *numbers])
        return text_table.table(rows)

    def write(self, workdir: Path) -> None:
        """Writes sweep.json: each member with its best score, and all its metrics.

        "bad_steps" counts those that were left out; "diverged" is the step after which
        a member was out, or null. Its scores are those before.
        """
        tree = {
            "metric": self.metric,
            "best": self.members[self.record["member"]].name,
            "step": self.record["step"],
            "members": [self._of(number) for number in range(len(self.members))],
        }
        text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
        with files.writing(workdir / FILE) as file:
            file.write(text.encode())

    def _of(self, number: int) -> dict[str, Any]:
        member, out = self.members[number], self.standing.diverged
        return dataclasses.asdict(member) | {
            self.metric: self.record["best"][number],
            "bad_steps": self._bad_steps(member.name),
            "diverged": out[member.name] if member.name in out else None,
            "metrics": self.record["metrics"][number],
        }

    def _bad_steps(self, name: str) -> int:
        counts = self.standing.bad_steps
        return counts[name] if name in counts else 0

    def _numbers(self, values: np.ndarray) -> list[str]:
        ends = values.min(), values.max()
        is_low_good = self.metric in task_setup.LOWER_IS_BETTER
        worst, best = ends[::-1] if is_low_good else ends
        return [f"{x:.4f}" for x in (values.mean(), deviation(values), best, worst)]


def read_ended(workdir: Path) -> list[dict[str, Any]]:
    """Returns the members in sweep.json that did not diverge."""
    members = json_file.read_object(workdir / FILE)["members"]
    return [member for member in members if member["diverged"] is None]


def deviation(values: np.ndarray) -> float:
    """Returns the standard deviation of a sample; 0 of one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
