"""What recipes of pretraining learn in the same time: accuracy against seconds.

    python scripts/bench/speedrun.py --minutes=10 --seeds=0,1,2
    python scripts/bench/speedrun.py --minutes=2.5 --results=speedrun.jsonl \
        --variant="AdamW: optimizer.name=adamw" \
        --variant="width 192: model.hidden_size=192 model.intermediate_size=512"

Every run has the text, the split and the vocabulary of --config, and is scored on the
held-out documents with 15 % of the tokens behind [MASK]. The time runs from the first
step to the end of the last evaluation; compilation is done before. A few steps and an
evaluation are timed first, and the run gets as many steps as fit, so that the schedule
of the rate ends with it; --steps gives all runs as many steps instead. A variant that
changes the objective or the length of rows is scored on rows of its own, and the bigram
on the same masks. Other work on the machine costs steps. The script leaves glibc's
allocator as it is: MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1 in
the environment do what the commands do on a CPU.

With --results, each run is appended as a line of JSON, and what the file already has is
not run again. --plot draws the curves.
"""

import argparse
import dataclasses
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections

from bert_jax import console, errors
from bert_jax.checkpoints import initial_weights
from bert_jax.config import file as config_file
from bert_jax.config import pretraining
from bert_jax.data import stream
from bert_jax.foundation import fields
from bert_jax.runs import corpus_store
from bert_jax.runs import pretraining as pretraining_run
from bert_jax.training import curves
from bert_jax.training.state import TrainState

HEADER = ("recipe", "seed", "seconds", "steps", "tokens/s", "accuracy", "loss", "NSP")
SUMMARY = ("recipe", "runs", "steps", "accuracy", "loss", "bigram", "NSP", "majority")
_TIMED_STEPS, _WARM_STEPS = 40, 5
_AS_IS = "as it is"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A recipe of the comparison: a name, and keys of the config with their values."""

    name: str
    changes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
    """An evaluation: seconds since the first step began, and what it measured."""

    seconds: float
    step: int
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Result:
    """A run, as it is written to --results.

    Attributes:
      key: what the run depends on; a run with the same key is not repeated.
      tokens: of one step.
    """

    key: str
    name: str
    seed: int
    tokens: int
    points: list[Point]

    @property
    def last(self) -> Point:
        """The last evaluation."""
        return self.points[-1]

    def score(self, name: str) -> float | None:
        """Returns a metric of the last evaluation, if the run has it."""
        return self.last.metrics.get(f"eval/{name}")

    def row(self) -> tuple[str, ...]:
        """Returns the cells of `HEADER`."""
        last = self.last
        return (
            self.name,
            str(self.seed),
            f"{last.seconds:.0f}",
            f"{last.step:,}",
            f"{last.step * self.tokens / last.seconds:,.0f}",
            _percent(self.score("mlm_accuracy")),
            f"{self.score('mlm_loss'):.3f}",
            _percent(self.score("nsp_accuracy")),
        )


def main() -> None:
    """Prints a row for each run as it ends, and the means of the recipes last."""
    given = _arguments()
    try:
        results = _measure(given)
    except errors.BertJaxError as error:
        sys.exit(f"error: {error}")
    print(f"\n{console.table([HEADER, *(result.row() for result in results)])}")
    print(f"\n{console.table([SUMMARY, *_summary(results)])}")
    print("means over the seeds, after the last step; majority: NSP if the answer is")
    print("always the more frequent one")
    if given.plot is not None:
        given.plot.write_bytes(draw(results))


def _measure(given: argparse.Namespace) -> list[Result]:
    """Returns the runs of all variants and seeds."""
    variants = [read_variant(text) for text in given.variants] or [Variant(_AS_IS, {})]
    check(given.config, variants)
    known, results = _read(given.results), []
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants:
            for seed in given.seeds:
                result = _run_or_read(given, variant, seed, known, Path(folder))
                results.append(result)
                print("  ".join(result.row()), flush=True)
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo", help="a file or a recipe")
    parser.add_argument(
        "--variant",
        dest="variants",
        action="append",
        default=[],
        help='"NAME: key=value key=value", changes to the config; may be repeated. '
        "Without it, the config as it is",
    )
    parser.add_argument("--minutes", type=float, default=10, help="of each run")
    parser.add_argument("--steps", type=int, default=0, help="in place of --minutes")
    parser.add_argument("--seeds", type=_seeds, default=[0], help="as in 0,1,2")
    parser.add_argument(
        "--evaluations",
        type=int,
        default=6,
        choices=range(1, 101),
        metavar="N",
        help="of each run",
    )
    parser.add_argument("--results", type=Path, help="JSONL of the runs, read again")
    parser.add_argument("--plot", type=Path, help="PNG of the curves")
    return parser.parse_args()


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def read_variant(text: str) -> Variant:
    """Reads `NAME: key=value key=value`.

    >>> read_variant("wide: model.hidden_size=256 optimizer.name=adamw").changes
    {'model.hidden_size': 256, 'optimizer.name': 'adamw'}
    """
    name, colon, changes = text.partition(":")
    values = {}
    for change in changes.split():
        key, equals, value = change.partition("=")
        if not equals:
            raise errors.InputError(f"--variant {text!r}: {change!r} is not KEY=VALUE")
        values[key] = _value(value)
    if not colon or not name:
        raise errors.InputError(f'--variant {text!r}: write "NAME: key=value"')
    return Variant(name.strip(), values)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check(recipe: str, variants: list[Variant]) -> None:
    """Raises InputError for a config that is wrong, before the first run."""
    if len({variant.name for variant in variants}) < len(variants):
        raise errors.InputError("two variants have the same name")
    for variant in variants:
        pretraining.parse(_config(recipe, variant, seed=0))


def _config(recipe: str, variant: Variant, *, seed: int) -> ml_collections.ConfigDict:
    config = config_file.load(recipe)
    known = fields.flat(config.to_dict())
    for key, value in variant.changes.items():
        problem = f"variant {variant.name!r}: {key}={value}"
        if key not in known:
            near = fields.nearest(key, known)
            raise errors.InputError(f"{problem}: no such key.{near}")
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise errors.InputError(f"{problem}: {error}") from None
    config.run.seed = seed
    return config


def _read(path: Path | None) -> dict[str, Result]:
    """Returns the runs of a file by their keys."""
    if path is None or not path.exists():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        points = [Point(**point) for point in run.pop("points")]
        found[run["key"]] = Result(points=points, **run)
    return found


def _run_or_read(
    given: argparse.Namespace,
    variant: Variant,
    seed: int,
    results: dict[str, Result],
    folder: Path,
) -> Result:
    """Returns the run of a variant; one that was made is appended to --results."""
    config = _config(given.config, variant, seed=seed)
    length = given.steps or f"{given.minutes:g} minutes"
    key = f"{length}, {given.evaluations} evaluations: {config.to_json(sort_keys=True)}"
    if key in results:
        return dataclasses.replace(results[key], name=variant.name)
    begin = _assembler(config, folder)
    steps = given.steps or _steps_that_fit(begin, 60 * given.minutes, given.evaluations)
    points = timed(begin(steps), given.evaluations)
    tokens = config.run.batch_size * config.data.max_seq_length
    result = Result(key, variant.name, seed, tokens, points)
    if given.results is not None:
        with given.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(result)) + "\n")
    return result


def _assembler(
    config: ml_collections.ConfigDict, folder: Path
) -> Callable[[int], pretraining_run.PretrainingRun]:
    """Returns steps -> the run of that length; builds the store, once for a text."""
    store = Path(config.data.store or folder / _name_of_text(config))

    def assemble(steps: int) -> pretraining_run.PretrainingRun:
        config.run.num_train_steps = steps
        settings = pretraining.parse(config)
        pretraining_run.check(settings)
        resolved = initial_weights.resolve(settings, folder, store)
        corpus_store.ensure(resolved.text, settings.data, store)
        return pretraining_run.assemble(resolved, store, folder)

    return assemble


def _name_of_text(config: ml_collections.ConfigDict) -> str:
    """Returns a name for the stores that these settings of text and corpus make."""
    data = config.data
    tree = [config.text.to_dict(), data.corpus, data.held_out_fraction]
    text = json.dumps([*tree, data.drop_duplicates], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _steps_that_fit(
    assemble: Callable[[int], pretraining_run.PretrainingRun],
    seconds: float,
    evaluations: int,
) -> int:
    """Times some steps and an evaluation, and returns how many steps fit."""
    run = assemble(10**6)
    state = _train(run, run.initial_state(), 0, _WARM_STEPS, {})
    run.held_out.metrics(state.params)  # compiles
    start = time.perf_counter()
    run.held_out.metrics(state.params)
    middle = time.perf_counter()
    _train(run, state, _WARM_STEPS, _TIMED_STEPS, {})
    step = (time.perf_counter() - middle) / _TIMED_STEPS
    return max(evaluations, int((seconds - evaluations * (middle - start)) / step))


def timed(run: pretraining_run.PretrainingRun, evaluations: int) -> list[Point]:
    """Trains a run to its end; returns evenly spaced evaluations, the last at its end.

    The programs are compiled before the clock starts.
    """
    state = _train(run, run.initial_state(), 0, _WARM_STEPS, {})
    run.held_out.metrics(state.params)
    state, points = run.initial_state(), []
    start = time.perf_counter()

    def evaluate(step: int, state: TrainState) -> None:
        metrics = run.held_out.metrics(state.params)
        points.append(Point(time.perf_counter() - start, step, metrics))

    steps = run.num_train_steps
    due = {round(steps * (at + 1) / evaluations) for at in range(evaluations)}
    _train(run, state, 0, steps, dict.fromkeys(due, evaluate))
    return points


def _train(
    run: pretraining_run.PretrainingRun,
    state: TrainState,
    first: int,
    count: int,
    after: dict[int, Callable[[int, TrainState], None]],
) -> TrainState:
    """Does `count` steps, the next one dispatched before the last one is awaited.

    Args:
      after: what is called with the state after a step, counted from 1.
    """
    batches = stream.batches(run.batch_at, first, count, loader="thread", put=run.put)
    before = None
    for step, batch in enumerate(batches, first + 1):
        state, metrics = run.train_step(state, batch)
        jax.block_until_ready(before)
        before = metrics
        if step in after:
            jax.block_until_ready(metrics)
            after[step](step, state)
    jax.block_until_ready(before)
    return state


def _summary(results: list[Result]) -> list[tuple[str, ...]]:
    """Returns the cells of `SUMMARY`: means over the seeds, by recipe."""
    rows = []
    for name in dict.fromkeys(result.name for result in results):
        runs = [result for result in results if result.name == name]

        def mean(score: str, runs: list[Result] = runs) -> float | None:
            values = [run.score(score) for run in runs]
            found = [value for value in values if value is not None]
            return statistics.mean(found) if found else None

        loss, bigram = mean("mlm_loss"), mean("bigram_loss")
        rows.append(
            (
                name,
                str(len(runs)),
                f"{statistics.mean(run.last.step for run in runs):,.0f}",
                _percent(mean("mlm_accuracy")),
                f"{loss:.3f}",
                f"{_percent(mean('bigram_accuracy'))}, {bigram:.3f}",
                _percent(mean("nsp_accuracy")),
                _percent(mean("nsp_majority_accuracy")),
            )
        )
    return rows


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def draw(results: list[Result]) -> bytes:
    """Returns a PNG of the accuracies against seconds, and of the bigram's."""
    figure = curves.blank(9, 5)
    axes = figure.subplots()
    curves.style(axes, "Accuracy on held-out documents", "percent")
    axes.set_xlabel("seconds of training", fontsize=10, color="#6b7280")
    names = list(dict.fromkeys(result.name for result in results))
    for result in results:
        at = names.index(result.name)
        color, seen = curves.COLORS[at % len(curves.COLORS)], result.points
        axes.plot(
            [point.seconds for point in seen],
            [100 * point.metrics["eval/mlm_accuracy"] for point in seen],
            color=color,
            marker="o",
            markersize=3,
            label=result.name,
        )
        bigram = 100 * seen[-1].metrics["eval/bigram_accuracy"]
        axes.axhline(bigram, color=color, linewidth=0.8, linestyle=":")
    lines, labels = axes.get_legend_handles_labels()
    by_name = dict(zip(labels, lines, strict=True))
    axes.legend(by_name.values(), by_name.keys(), frameon=False, fontsize=10)
    axes.set_ylim(bottom=0)
    return curves.encode(figure)


if __name__ == "__main__":
    main()
