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

from bert_jax import commands, console, errors, files, json_file
from bert_jax.checkpoints import task_folders
from bert_jax.data import stream
from bert_jax.data.labeled import example_rows
from bert_jax.model import attention_plan
from bert_jax.runs import assembly, splits, task_setup
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
        return console.table(rows)

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


def members_of(run: assembly.FinetuningRun) -> list[Member]:
    """Returns the runs that the config asks for."""
    settings = run.settings
    asked = settings.sweep
    seeds = range(settings.run.seed, settings.run.seed + asked.seeds)
    rates = settings.learning_rates
    folds = range(asked.folds) if asked.folds else (-1,)
    return [
        Member(seed, rate, fold)
        for rate, fold, seed in itertools.product(rates, folds, seeds)
    ]


class Sweep:
    """The members of a sweep: their rows, their splits and their scores."""

    def __init__(
        self,
        run: assembly.FinetuningRun,
        members: list[Member],
        workdir: Path,
    ) -> None:
        self.run, self.members, self._workdir = run, members, workdir
        folds = run.settings.sweep.folds
        self.rows = [run.rows(m.seed, folds, max(m.fold, 0)) for m in members]
        self.record: dict[str, Any] = {
            "value": None,
            "step": 0,
            "member": 0,
            "best": [None] * len(members),
            "metrics": [{}] * len(members),
        }
        self.standing = guards.Standing()
        self._predictor = run.predictor()

    def dev(self, member: int) -> splits.Split:
        """Returns what a member is scored on."""
        return self.run.dev_of(self.rows[member])

    def score(
        self, step: int, states: state.TrainState, one: Any, tell: guards.Tell
    ) -> dict[str, float]:
        """Scores the members that did not diverge, and keeps the model of the best.

        Who says what is not finite has diverged. Raises NotFiniteError if all have.

        Args:
          states: of all members.
          one: the abstract parameters of one.

        Returns:
          The mean of each metric, and `deviation` of the one that counts.
        """
        stacked = self.run.scored(states)
        scored = self._scored(step, stacked, one, tell)
        self._keep(step, scored, stacked, one)
        every = list(scored.values())
        name = task_setup.kept_by(self.run.settings, every[0])
        values = np.array([metrics[name] for metrics in every])
        commands.say(
            f"dev after step {step}: {self._shown(name)} {values.mean():.4f} +- "
            f"{deviation(values):.4f} over {len(values)} members, best "
            f"{self.record['value']:.4f}"
        )
        means = {
            other: float(np.mean([metrics[other] for metrics in every]))
            for other in every[0]
            if all(other in metrics for metrics in every)
        }
        return means | {"deviation": deviation(values)}

    def _scored(
        self, step: int, stacked: Any, one: Any, tell: guards.Tell
    ) -> dict[int, dict[str, float]]:
        """Returns the metrics of who did not diverge, by number."""
        made: dict[int, dict[str, float]] = {}
        reason = ""
        for number, member in enumerate(self.members):
            if member.name in self.standing.diverged:
                continue
            try:
                made[number] = self._scores(number, sweep.member(stacked, number, one))
            except errors.NotFiniteError as error:
                reason = str(error)
                self.standing.diverged[member.name] = step
                event = {"event": "diverged", "member": member.name, "reason": reason}
                tell(step, event)
        if not made:
            raise errors.NotFiniteError(
                f"no member of the sweep is left after step {step}: {reason}"
            )
        return made

    def _scores(self, number: int, params: Any) -> dict[str, float]:
        """Scores a member, and notes its best."""
        dev, record = self.dev(number), self.record
        made, _ = self._predictor.scores(params, dev.examples, dev.table)
        name = task_setup.kept_by(self.run.settings, made.metrics)
        value = made.metrics[name]
        if task_setup.is_better(name, value, record["best"][number]):
            record["metrics"][number] = self._all_metrics(params, made.metrics)
            record["best"][number] = value
        return made.metrics

    def _keep(
        self, step: int, scored: dict[int, dict[str, float]], stacked: Any, one: Any
    ) -> None:
        """Keeps the best model so far, never that of a member that diverged."""
        record, best = self.record, None
        if self.members[record["member"]].name in self.standing.diverged:
            record["value"] = None
        for number, metrics in scored.items():
            name = task_setup.kept_by(self.run.settings, metrics)
            if task_setup.is_better(name, metrics[name], record["value"]):
                record |= {"value": metrics[name], "step": step, "member": number}
                best = number
        if best is not None:
            params = sweep.member(stacked, best, one)
            made = self._folder(best, params, scored[best])  # all processes gather it
            if distributed.is_first():
                task_folders.write_best(self._workdir, step, made)

    def _all_metrics(self, params: Any, dev: dict[str, float]) -> dict[str, float]:
        """Returns what a member's run alone would: all metrics of dev, and of test."""
        made = {f"dev/{name}": x for name, x in dev.items()}
        test = self.run.test
        if test is not None:
            found, _ = self._predictor.scores(params, test.examples, test.table)
            made |= {f"test/{name}": x for name, x in found.metrics.items()}
        return made

    def _folder(
        self, number: int, params: Any, metrics: dict[str, float]
    ) -> task_folders.TaskFolder:
        """Returns a member's model, with the settings of its own run."""
        made = self.run.folder(params, metrics)
        one, settings = self.members[number], made.settings
        data = settings.data
        if one.fold >= 0:
            data = dataclasses.replace(data, folds=settings.sweep.folds, fold=one.fold)
        own = dataclasses.replace(
            settings,
            data=data,
            run=dataclasses.replace(settings.run, seed=one.seed),
            optimizer=dataclasses.replace(
                settings.optimizer, learning_rate=one.learning_rate
            ),
            sweep=type(settings.sweep)(),
        )
        return dataclasses.replace(made, settings=own)

    def report(self, name: str) -> Report:
        """Returns what is said of the members, by the metric that counts."""
        return Report(name, self.members, self.record, self.standing, self._shown(name))

    def _shown(self, name: str) -> str:
        """Returns a metric as people read it."""
        labels = self.run.learned.labels
        return task_setup.shown_metric(self.run.settings, labels, name)


def train(run: assembly.FinetuningRun, copy: remote.WorkingCopy) -> Sweep:
    """Trains all members side by side, or resumes them."""
    settings, workdir = run.settings, copy.folder
    members = members_of(run)
    made = Sweep(run, members, workdir)
    steps = run.num_train_steps(made.rows[0])
    transformation, _ = run.optimizer(steps)
    one = state.abstract(run.init, transformation, run.mesh)
    shapes = _as_one(sweep.abstract(one, len(members)), one.step)
    commands.say(
        f"sweep: {len(members)} members side by side, {steps:,} steps each:\n  "
        + "\n  ".join(member.name for member in members)
    )
    bert, execution = run.start.bert, settings.execution()
    lengths = made.rows[0].encoded_lengths
    commands.say(attention_plan.kernels(bert, execution, lengths, run.mesh))
    with checkpoint.Checkpoints(
        workdir / "checkpoints", keep=settings.run.keep_checkpoints, copy=copy
    ) as checkpoints:
        resumed = checkpoints.restore_latest(shapes)
        if resumed is None:
            begin = signals.unless_asked(
                lambda: _fresh(run, members, one, transformation)
            )
            standing = made.standing
        else:
            begin, meta = resumed
            standing = guards.from_meta(meta)
            made.record, made.standing = meta["best"], standing
            commands.say(f"resuming after step {int(begin.step)}")
        start_step = int(begin.step)
        again = standing.callbacks_due
        if start_step >= steps and not again:
            commands.say(f"this run is finished: step {start_step} of {steps}")
            return made
        step_of_all = _step(run, members, steps, one)
        with logs.Writer(workdir, start_step=start_step, evaluates_again=again) as log:

            def score(step: int, now: state.TrainState) -> None:
                metrics = made.score(step, now, one.params, log.tell)
                log.write(step, {f"eval/{name}": x for name, x in metrics.items()})
                log.draw()

            def save(step: int, now: state.TrainState, at: guards.Standing) -> None:
                log.sync()
                copy.push()
                meta = {"standing": at.to_json(), "best": made.record}
                checkpoints.save(step, now, meta)

            often = run.interval(settings.run.eval_every_steps, made.rows[0])
            loop.run(
                step_of_all,
                begin,
                _batches(made, start_step, steps),
                start_step=start_step,
                limits=settings.run.limits(
                    steps, run.interval(settings.run.save_every_steps, made.rows[0])
                ),
                log=log.write,
                tell=log.tell,
                save=save,
                check_saves=checkpoints.check,
                callbacks=[loop.Callback(often, score)],
                programs=_programs(made, step_of_all, start_step, steps),
                speed=run.speed(made.rows[0], len(members)),
                standing=standing,
                names_at={
                    member.name: rows.names_at
                    for member, rows in zip(members, made.rows, strict=True)
                },
            )
    return made


def _as_one(states: state.TrainState, step: Any) -> state.TrainState:
    """Returns the state of all members with one count of the loop's steps.

    The count of each member is kept beside its optimizer state.
    """
    return state.TrainState(step, states.params, (states.opt_state, states.step))


def _fresh(
    run: assembly.FinetuningRun,
    members: list[Member],
    one: state.TrainState,
    transformation: Any,
) -> state.TrainState:
    """Returns all members at their beginning: given weights, a head of each seed."""
    by_seed = {
        seed: run.parameters(one.params, seed)
        for seed in dict.fromkeys(member.seed for member in members)
    }
    states = [
        state.from_params(by_seed[member.seed], one, transformation)
        for member in members
    ]
    step = jax.device_put(jnp.int32(0), one.step.sharding)
    return _as_one(sweep.stack(states, one), step)


def _step(
    run: assembly.FinetuningRun,
    members: list[Member],
    steps: int,
    one: state.TrainState,
) -> "_StepOfAll":
    """Returns the step of all members, as the loop takes it."""
    every = sweep.make_sweep_step(
        run.task.prepare,
        run.task.weights,
        run.losses,
        lambda peak: run.optimizer(steps, peak),
        one,
        seeds=[member.seed for member in members],
        peaks=[member.learning_rate for member in members],
        accumulation_steps=run.settings.run.accumulation_steps,
        at_once=1 if jax.default_backend() == "cpu" else 0,
        scales=run.scales,
        adversarial=run.adversarial(),
    )

    return _StepOfAll(every)


@dataclasses.dataclass(frozen=True)
class _StepOfAll:
    """The step of all members, on a state with one count of the loop's steps."""

    every: sharding.OnMesh

    def __call__(self, now: state.TrainState, batches: Any) -> Any:
        states, metrics = self.every(self._states(now), batches)
        return _as_one(states, now.step + 1), metrics

    def compile(self, now: state.TrainState, batches: Any) -> None:
        """Compiles the program for batches of these shapes."""
        self.every.compile(self._states(now), batches)

    @staticmethod
    def _states(now: state.TrainState) -> state.TrainState:
        opt_state, counts = now.opt_state
        return state.TrainState(counts, now.params, opt_state)


def _batch_at(made: Sweep, step: int) -> example_rows.Batch:
    """Returns the batches of all members at a step, stacked: arrays [M, B, ...]."""
    every = [rows.batch_at(step) for rows in made.rows]
    return {name: np.stack([batch[name] for batch in every]) for name in every[0]}


def _place(made: Sweep, batch: example_rows.Batch) -> Any:
    """Puts stacked batches onto the devices, each member's where it is trained."""
    count = len(made.members)
    of_members = [{name: x[at] for name, x in batch.items()} for at in range(count)]
    return sweep.place(of_members, made.run.mesh)


def _batches(made: Sweep, start_step: int, num_train_steps: int) -> Any:
    """Makes the batches of all members ahead of the devices."""
    return stream.batches(
        functools.partial(_batch_at, made),
        start_step,
        num_train_steps - start_step,
        loader=made.run.settings.data.loader,
        place=functools.partial(_place, made),
    )


def _programs(
    made: Sweep, step_of_all: _StepOfAll, start_step: int, num_train_steps: int
) -> list[loop.Program]:
    """Returns the programs of the steps to come, one for each length of rows."""

    def compile_for(step: int, now: state.TrainState) -> None:
        step_of_all.compile(now, _place(made, _batch_at(made, step)))

    lengths = made.rows[0].steps_by_length(start_step, num_train_steps)
    return [
        loop.Program(f"rows of {length} tokens", functools.partial(compile_for, step))
        for length, step in lengths.items()
    ]
