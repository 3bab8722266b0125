"""Many fine-tuning runs as one program: seeds x learning rates x folds.

Every member is the run that `finetune` would make of it alone; see `training.sweep`.
"""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import commands
from bert_jax.data import labelled_rows, stream
from bert_jax.exchange import task_folders
from bert_jax.finetuning import assembly, splits, task_setup
from bert_jax.formats import whole_file
from bert_jax.model import attention_plan
from bert_jax.reporting import text_table
from bert_jax.training import (
    checkpoint,
    loop,
    processes,
    state,
    sweep,
    working_copy,
    writer,
)
from bert_jax.training import standing as standings

REPORT = "sweep.json"


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
        return f"seed {self.seed}, rate {self.learning_rate:g}{fold}"


def members_of(run: assembly.FinetuningRun) -> list[Member]:
    """Returns the runs that the config asks for."""
    settings = run.settings
    asked = settings.sweep
    seeds = range(settings.run.seed, settings.run.seed + asked.seeds)
    rates = asked.rates or (settings.optimizer.learning_rate,)
    folds = range(asked.folds) if asked.folds else (-1,)
    return [
        Member(seed, rate, fold)
        for rate, fold, seed in itertools.product(rates, folds, seeds)
    ]


class Sweep:
    """The members of a sweep: their rows, their splits and their scores."""

    def __init__(
        self, run: assembly.FinetuningRun, members: list[Member], workdir: Path
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
        self._predictor = run.predictor()

    def dev(self, member: int) -> splits.Split:
        """Returns what a member is scored on."""
        return self.run.dev_of(self.rows[member])

    def score(self, step: int, states: state.TrainState, one: Any) -> dict[str, float]:
        """Scores every member, and keeps the model of the best so far.

        Args:
          states: of all members.
          one: the abstract parameters of one.

        Returns:
          The mean of each metric, and `deviation` of the one that counts.
        """
        every: list[dict[str, float]] = []
        stacked = self.run.scored(states)
        for number in range(len(self.members)):
            params = sweep.member(stacked, number, one)
            dev = self.dev(number)
            made, _ = self._predictor.scores(params, dev.examples, dev.table)
            every.append(made.metrics)
            self._keep(number, step, params, made.metrics)
        name = task_setup.kept_by(self.run.settings, every[0])
        values = np.array([metrics[name] for metrics in every])
        commands.say(
            f"dev after step {step}: {name} {values.mean():.4f} +- "
            f"{_deviation(values):.4f} over {len(values)} members, best "
            f"{self.record['value']:.4f}"
        )
        means = {
            other: float(np.mean([metrics[other] for metrics in every]))
            for other in every[0]
            if all(other in metrics for metrics in every)
        }
        return means | {"deviation": _deviation(values)}

    def _keep(
        self, number: int, step: int, params: Any, metrics: dict[str, float]
    ) -> None:
        name = task_setup.kept_by(self.run.settings, metrics)
        value, record = metrics[name], self.record
        if task_setup.is_better(name, value, record["best"][number]):
            record["best"][number] = value
            record["metrics"][number] = self._all_metrics(params, metrics)
        if task_setup.is_better(name, value, record["value"]):
            record |= {"value": value, "step": step, "member": number}
            made = self._folder(number, params, metrics)  # all processes gather it
            if processes.is_first():
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

    def table(self, name: str) -> str:
        """Returns mean, deviation and best of each learning rate."""
        rows = [["learning rate", "runs", f"mean {name}", "deviation", "best", "worst"]]
        for rate in dict.fromkeys(m.learning_rate for m in self.members):
            values = np.array(
                [
                    value
                    for member, value in zip(
                        self.members, self.record["best"], strict=True
                    )
                    if member.learning_rate == rate
                ]
            )
            ends = values.min(), values.max()
            worst, best = ends[::-1] if name in task_setup.LOWER_IS_BETTER else ends
            numbers = (values.mean(), _deviation(values), best, worst)
            rows.append([f"{rate:g}", str(len(values)), *(f"{x:.4f}" for x in numbers)])
        return text_table.table(rows)

    def write(self, name: str) -> None:
        """Writes sweep.json: every member with its best score, and all its metrics."""
        record = self.record
        scored = zip(self.members, record["best"], record["metrics"], strict=True)
        tree = {
            "metric": name,
            "best": self.members[self.record["member"]].name,
            "step": self.record["step"],
            "members": [
                dataclasses.asdict(member) | {name: value, "metrics": metrics}
                for member, value, metrics in scored
            ],
        }
        text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
        with whole_file.writing(self._workdir / REPORT) as file:
            file.write(text.encode())


def _deviation(values: np.ndarray) -> float:
    """Returns the standard deviation of a sample; 0 of one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def train(run: assembly.FinetuningRun, copy: working_copy.WorkingCopy) -> Sweep:
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
            begin = _fresh(run, members, one, transformation)
            standing = standings.Standing()
        else:
            begin, meta = resumed
            standing = standings.from_meta(meta)
            made.record = meta["best"]
            commands.say(f"resuming after step {int(begin.step)}")
        start_step = int(begin.step)
        again = standing.callbacks_due
        if start_step >= steps and not again:
            commands.say(f"this run is finished: step {start_step} of {steps}")
            return made
        step_of_all = _step(run, members, steps, one)
        with writer.Writer(
            workdir, start_step=start_step, evaluates_again=again
        ) as log:

            def score(step: int, now: state.TrainState) -> None:
                metrics = made.score(step, now, one.params)
                log.write(step, {f"eval/{name}": x for name, x in metrics.items()})
                log.draw()

            def save(step: int, now: state.TrainState, at: standings.Standing) -> None:
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
                speed=run.speed(made.rows[0], len(members)),
                standing=standing,
                names_at=lambda step: _names(made, step),
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
) -> Any:
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

    def step_of_all(now: state.TrainState, batches: Any) -> Any:
        opt_state, counts = now.opt_state
        states = state.TrainState(counts, now.params, opt_state)
        states, metrics = every(states, batches)
        sums = {
            name: tuple(jnp.sum(x) for x in values)
            for name, values in metrics.items()
            if isinstance(values, tuple)
        }
        found = metrics["finite"]
        latest = {
            "learning_rate": jnp.mean(metrics["learning_rate"]),
            # One member that goes on is enough; if none does, what is wrong in any.
            "finite": found.all(axis=0) | found.all(axis=1).any(),
        }
        return _as_one(states, now.step + 1), sums | latest

    return step_of_all


def _names(made: Sweep, step: int) -> list[str]:
    """Names the examples of all members in a step: "MEMBER: EPOCH/EXAMPLE"."""
    return [
        f"{member.name}: {name}"
        for member, rows in zip(made.members, made.rows, strict=True)
        for name in rows.names_at(step)
    ]


def _batches(made: Sweep, start_step: int, num_train_steps: int) -> Any:
    """Makes the batches of all members ahead of the devices."""
    run = made.run

    def batch_at(step: int) -> labelled_rows.Batch:
        every = [rows.batch_at(step) for rows in made.rows]
        return {name: np.stack([batch[name] for batch in every]) for name in every[0]}

    def place(batch: labelled_rows.Batch) -> Any:
        count = len(made.members)
        apart = [{name: x[at] for name, x in batch.items()} for at in range(count)]
        return sweep.place(apart, run.mesh)

    return stream.batches(
        batch_at,
        start_step,
        num_train_steps - start_step,
        loader=run.settings.data.loader,
        place=place,
    )
