"""Many fine-tuning runs as one program: seeds x learning rates x folds.

Every member is the run that `finetune` would train on its own; see `training.sweep`.
sweep.json has the scores of all members at the end, and `Report` prints them.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import console, errors
from bert_jax.checkpoints import native
from bert_jax.config import finetuning as finetuning_config
from bert_jax.foundation import files, interrupts, json_file
from bert_jax.metrics import scores as scores_lib
from bert_jax.model import costs
from bert_jax.runs import best_model, finetuning, splits
from bert_jax.runs.finetuning import Finetuned, FinetuningRun
from bert_jax.runs.run import Batch, End, Run, train
from bert_jax.training import (
    distributed,
    guards,
    loop,
    remote,
    sharding,
    state,
    sweep,
)

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
        """Its name, as `seed 3, rate 5e-05, fold 1`."""
        fold = "" if self.fold < 0 else f", fold {self.fold}"
        return f"seed {self.seed}, rate {self.learning_rate!r}{fold}"


@dataclasses.dataclass(frozen=True)
class SweepReport:
    """The scores of the members.

    Attributes:
      metric: metric that the best model is kept by.
      record: "best" and "metrics" of each member, None and {} for one that was never
        scored, and the "member" and the "step" of the best model.
      loop_state: bad steps, and the members that diverged.
      shown: the metric as it is shown to people; empty for its name.
    """

    metric: str
    members: Sequence[Member]
    record: Mapping[str, Any]
    loop_state: guards.LoopState
    shown: str = ""

    def text(self) -> str:
        """Returns the table, the members that diverged, and the best member."""
        lines = [self.table()]
        for name, step in self.loop_state.diverged.items():
            count = self.loop_state.bad_steps.get(name, 0)
            lines.append(f"diverged: {name}, at step {step} ({count} bad steps)")
        best = self.members[self.record["member"]].name
        return "\n".join([*lines, f"best: {best}"])

    def table(self) -> str:
        """Returns mean, deviation and best score per rate, without diverged members."""
        title = ["learning rate", "runs", f"mean {self.shown or self.metric}"]
        rows = [[*title, "deviation", "best", "worst"]]
        scores = list(zip(self.members, self.record["best"], strict=True))
        for rate in dict.fromkeys(member.learning_rate for member in self.members):
            values = [
                value
                for member, value in scores
                if member.learning_rate == rate
                and member.name not in self.loop_state.diverged
            ]
            numbers = self._numbers(np.array(values)) if values else ["-"] * 4
            rows.append([f"{rate:g}", str(len(values)), *numbers])
        return console.table(rows)

    def write(self, workdir: Path) -> None:
        """Writes sweep.json: each member with its best score, and all its metrics.

        "bad_steps" counts skipped steps; "diverged" is the step after which
        a member was dropped, or null. Its scores are from before.
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
        member = self.members[number]
        return dataclasses.asdict(member) | {
            self.metric: self.record["best"][number],
            "bad_steps": self.loop_state.bad_steps.get(member.name, 0),
            "diverged": self.loop_state.diverged.get(member.name),
            "metrics": self.record["metrics"][number],
        }

    def _numbers(self, values: np.ndarray) -> list[str]:
        ends = values.min(), values.max()
        is_low_good = self.metric in scores_lib.LOWER_IS_BETTER
        worst, best = ends[::-1] if is_low_good else ends
        return [f"{x:.4f}" for x in (values.mean(), deviation(values), best, worst)]


def read_ended(workdir: Path) -> list[dict[str, Any]]:
    """Returns the members in sweep.json that did not diverge."""
    members = json_file.read_object(workdir / FILE)["members"]
    return [member for member in members if member["diverged"] is None]


def deviation(values: np.ndarray) -> float:
    """Returns the standard deviation of a sample; 0 of one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def members_of(settings: finetuning_config.FinetuningConfig) -> list[Member]:
    """Returns the runs of the config."""
    sweep_config, seed = settings.sweep, settings.run.seed
    seeds = range(seed, seed + sweep_config.seeds)
    rates = settings.learning_rates
    folds = range(sweep_config.folds) if sweep_config.folds else (-1,)
    return [
        Member(seed, rate, fold)
        for rate, fold, seed in itertools.product(rates, folds, seeds)
    ]


def train_in(
    workdir: str | Path,
    settings: finetuning_config.FinetuningConfig,
    data: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
) -> Finetuned:
    """Trains one model, or a sweep if the config has one; see `finetune.train`."""

    def assemble_run(copy: remote.WorkingCopy) -> Run[Finetuned]:
        own, in_memory = splits.from_python(settings, data or {})
        return assemble(own, in_memory, allow_changed, copy)

    return train(assemble_run, workdir)


def assemble(
    settings: finetuning_config.FinetuningConfig,
    in_memory: splits.Given | None,
    allow_changed: bool,
    copy: remote.WorkingCopy,
) -> Run[Finetuned]:
    """Returns the run of a locked workdir: one model, or a sweep if the config has one.

    The arguments are those of `finetuning.assemble_in`.
    """
    run = finetuning.assemble_in(settings, in_memory, allow_changed, copy)
    return SweepRun(run) if settings.sweep.is_on else run


class SweepRun(Run[Finetuned]):
    """Members that are trained as one program, with their rows and their scores."""

    def __init__(self, run: FinetuningRun) -> None:
        """Takes the run whose settings the members share."""
        self.one, self.settings = run, run.settings
        self.members = members_of(run.settings)
        folds = run.settings.sweep.folds
        self.rows = [run.rows(m.seed, folds, max(m.fold, 0)) for m in self.members]
        self.record: dict[str, Any] = {
            "value": None,
            "step": 0,
            "member": 0,
            "best": [None] * len(self.members),
            "metrics": [{}] * len(self.members),
        }

    @property
    def num_train_steps(self) -> int:
        """Number of steps of every member."""
        return self.one.num_train_steps

    def interval(self, name: str) -> int:
        """Returns an interval of group `run` in steps; -1 is an epoch."""
        return self.one.interval(name)

    @functools.cached_property
    def state_shapes(self) -> state.TrainState:
        """The abstract state of all members."""
        one = self.one.state_shapes
        return _with_step(sweep.abstract(one, len(self.members)), one.step)

    def initial_state(self) -> state.TrainState:
        """Returns all members at step 0: given weights, and a head of each seed."""
        return interrupts.run_interruptible(self._initial_state)

    def _initial_state(self) -> state.TrainState:
        one = self.one.state_shapes
        transformation, _ = self.one.make_optimizer(self.num_train_steps)
        by_seed = {
            seed: self.one.parameters(one.params, seed)
            for seed in dict.fromkeys(member.seed for member in self.members)
        }
        states = [
            state.from_params(by_seed[member.seed], one, transformation)
            for member in self.members
        ]
        step = jax.device_put(jnp.int32(0), one.step.sharding)
        return _with_step(sweep.stack(states, one), step)

    @functools.cached_property
    def train_step(self) -> "_SweepStep":
        """The jitted step of all members."""
        steps = self.num_train_steps
        every = sweep.make_sweep_step(
            self.one.step_spec,
            lambda peak: self.one.make_optimizer(steps, peak),
            self.one.state_shapes,
            seeds=[member.seed for member in self.members],
            peaks=[member.learning_rate for member in self.members],
            at_once=1 if jax.default_backend() == "cpu" else 0,
        )
        return _SweepStep(every)

    def batch_at(self, step: int) -> Batch:
        """Returns the batches of all members at a step, stacked: arrays [M, B, ...]."""
        every = [rows.batch_at(step) for rows in self.rows]
        return {name: np.stack([batch[name] for batch in every]) for name in every[0]}

    def put(self, batch: Batch) -> Any:
        """Puts stacked batches on the devices that train their members."""
        count = len(self.members)
        batches = [{name: x[at] for name, x in batch.items()} for at in range(count)]
        return sweep.to_devices(batches, self.one.mesh)

    @property
    def examples_at(self) -> Mapping[str, guards.ExamplesAt]:
        """Names the examples in the batch of a step, by member."""
        return {
            member.name: rows.names_at
            for member, rows in zip(self.members, self.rows, strict=True)
        }

    def local_examples_at(self, step: int) -> list[str]:
        """Names the examples of all members; sweeps keep no log of examples."""
        return [name for rows in self.rows for name in rows.names_at(step)]

    def first_step_of_lengths(self, start_step: int) -> dict[int, int]:
        """Returns the first step of each row length that is still to come."""
        return self.rows[0].steps_by_length(start_step, self.num_train_steps)

    @property
    def segments(self) -> list[loop.Segment]:
        """Tokens and FLOPs of a step of all members."""
        return self.one.segments_of(len(self.members))

    def meta(self) -> dict[str, Any]:
        """Returns the scores of the members so far."""
        return {"best": self.record}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Takes over the scores of the members."""
        self.record = meta["best"]

    def describe(self) -> str:
        """Describes the sweep before it starts."""
        names = "\n  ".join(member.name for member in self.members)
        attention = costs.kernels(
            self.one.start.bert,
            self.settings.execution(),
            self.rows[0].encoded_lengths,
            self.one.mesh,
        )
        return (
            f"sweep: {len(self.members)} members side by side, "
            f"{self.num_train_steps:,} steps each:\n  {names}\n{attention}"
        )

    def dev(self, member: int) -> splits.Split:
        """Returns the data on which a member is scored."""
        return self.one.dev_of(self.rows[member])

    def evaluate(
        self, step: int, state: state.TrainState, guard: guards.NonFiniteGuard
    ) -> loop.Evaluation:
        """Scores the active members, and keeps the model of the best.

        A member whose outputs are not finite is dropped. The metrics are the means over
        the members, and `deviation` of the metric that selects the best model.
        """
        stacked = self.one.scored(state)
        by_member = self._score(step, stacked, guard)
        self._keep(step, by_member, stacked, guard)
        every = list(by_member.values())
        name = best_model.kept_by(self.settings, every[0])
        values = np.array([metrics[name] for metrics in every])
        summary = (
            f"dev after step {step}: {self._shown(name)} {values.mean():.4f} +- "
            f"{deviation(values):.4f} over {len(values)} members, best "
            f"{self.record['value']:.4f}"
        )
        means = {
            f"eval/{other}": float(np.mean([metrics[other] for metrics in every]))
            for other in every[0]
            if all(other in metrics for metrics in every)
        }
        metrics = means | {"eval/deviation": deviation(values)}
        return loop.Evaluation(metrics, summary)

    def _score(
        self, step: int, stacked: Any, guard: guards.NonFiniteGuard
    ) -> dict[int, dict[str, float]]:
        """Returns the metrics of the active members, by their index."""
        shapes = self.one.state_shapes.params
        by_member: dict[int, dict[str, float]] = {}
        for index, name in guard.active():
            try:
                params = sweep.member(stacked, index, shapes)
                by_member[index] = self._score_member(index, params)
            except errors.NotFiniteError as error:
                guard.drop(step, name, str(error), f"after step {step}: {error}")
        return by_member

    def _score_member(self, index: int, params: Any) -> dict[str, float]:
        """Scores a member, and records its best metrics."""
        dev, record = self.dev(index), self.record
        scored, _ = self.one.predictor.scores(params, dev.examples, dev.table)
        name = best_model.kept_by(self.settings, scored.metrics)
        value = scored.metrics[name]
        if scores_lib.is_better(name, value, record["best"][index]):
            record["metrics"][index] = self._all_metrics(params, scored.metrics)
            record["best"][index] = value
        return scored.metrics

    def _keep(
        self,
        step: int,
        by_member: dict[int, dict[str, float]],
        stacked: Any,
        guard: guards.NonFiniteGuard,
    ) -> None:
        """Writes the best model so far, which is never that of a dropped member.

        It is the one with the highest score of any member at any evaluation; with folds
        each is scored on its own. If the member of the best model was dropped, the
        model is replaced now.
        """
        record, best = self.record, None
        if record["member"] not in [index for index, _ in guard.active()]:
            record["value"] = None
        for index, metrics in by_member.items():
            name = best_model.kept_by(self.settings, metrics)
            if scores_lib.is_better(name, metrics[name], record["value"]):
                record |= {"value": metrics[name], "step": step, "member": index}
                best = index
        if best is not None:
            params = sweep.member(stacked, best, self.one.state_shapes.params)
            folder = self._folder(best, params, by_member[best])  # all processes gather
            if distributed.is_first():
                native.write_best(self.one.workdir, step, folder)

    def _all_metrics(self, params: Any, dev: dict[str, float]) -> dict[str, float]:
        """Returns all metrics of a member's own run, those of test included."""
        metrics = {f"dev/{name}": x for name, x in dev.items()}
        if (test := self.one.test) is not None:
            found, _ = self.one.predictor.scores(params, test.examples, test.table)
            metrics |= {f"test/{name}": x for name, x in found.metrics.items()}
        return metrics

    def _folder(
        self, index: int, params: Any, metrics: dict[str, float]
    ) -> native.TaskFolder:
        """Returns a member's model, with the settings of its own run."""
        folder = self.one.folder(params, metrics)
        member, settings = self.members[index], folder.settings
        data, rate = settings.data, member.learning_rate
        if member.fold >= 0:
            folds = settings.sweep.folds
            data = dataclasses.replace(data, folds=folds, fold=member.fold)
        own = dataclasses.replace(
            settings,
            data=data,
            run=dataclasses.replace(settings.run, seed=member.seed),
            optimizer=dataclasses.replace(settings.optimizer, learning_rate=rate),
            sweep=type(settings.sweep)(),
        )
        return dataclasses.replace(folder, settings=own)

    def _shown(self, name: str) -> str:
        """Returns a metric as it is shown to people."""
        labels = self.one.learned.labels
        return best_model.shown_metric(self.settings, labels, name)

    def finish(self, copy: remote.WorkingCopy, end: End) -> Finetuned:
        """Prints the table of the sweep, and scores the best model as that of a run."""
        loop_state = end.loop_state
        del end  # frees the memory of the states
        copy.share()
        best = native.best(self.one.workdir)
        if best is not None and distributed.is_first():
            name = best_model.kept_by(self.settings, native.read_task(best).metrics)
            report = SweepReport(
                name, self.members, self.record, loop_state, self._shown(name)
            )
            report.write(self.one.workdir)
            print(f"\n{report.text()}")
        dev = self.dev(self.record["member"])
        return dataclasses.replace(self.one, dev=dev).score_best(dev)


def _with_step(states: state.TrainState, step: Any) -> state.TrainState:
    """Returns the state of all members with one step count, as the loop reads one.

    The members' own counts [M] are stored as `(opt_state, counts)` in its place of the
    optimizer state; `_SweepStep._states` undoes it.
    """
    return state.TrainState(step, states.params, (states.opt_state, states.step))


@dataclasses.dataclass(frozen=True)
class _SweepStep:
    """The step of all members, on a state with one step count."""

    every: sharding.OnMesh

    def __call__(self, now: state.TrainState, batches: Any) -> Any:
        states, metrics = self.every(self._states(now), batches)
        return _with_step(states, now.step + 1), metrics

    def compile(self, now: state.TrainState, batches: Any) -> None:
        """Compiles the program for batches of these shapes."""
        self.every.compile(self._states(now), batches)

    @staticmethod
    def _states(now: state.TrainState) -> state.TrainState:
        opt_state, counts = now.opt_state
        return state.TrainState(counts, now.params, opt_state)
