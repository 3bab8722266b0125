"""Compares fine-tuning with torch, and pretrained with random weights, in one table.

    pip install "bert_jax[tasks,torch]"
    python scripts/compare/finetune.py --model=FOLDER --zh_model=RUN --data=FOLDER \
        --results=results.jsonl --jobs=2
    python scripts/compare/finetune.py --model=FOLDER --data=FOLDER \
        --results=results.jsonl --only=sst2,cola --sides=ours

English models are fine-tuned from the weights in `--model`, a folder of `transformers`:
by bert_jax, and by `transformers` in torch with the same batches, learning rates and
steps. Chinese ones are fine-tuned by bert_jax from the weights in `--zh_model`, a run
of `pretrain`, and from random weights. Data sets and recipes are those of
`finetune_cases_lib.py`. Dev is scored once, after the last step. A run that is in
`--results` is not repeated unless its recipe has changed, so an interrupted command
resumes where it stopped. `--jobs=2` runs two data sets at a time, each on half of the
cores: a model this small gains little from a second core.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import finetune_cases_lib
import jax
import jax.numpy as jnp
import torch_finetune_lib
from absl import flags

from bert_jax import commands, errors
from bert_jax.data import stream
from bert_jax.inference import answer
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.runs import splits
from bert_jax.tasks import spec
from bert_jax.training import distributed, sharding, state

_EXAMPLE = (
    "python scripts/compare/finetune.py --model=FOLDER --zh_model=RUN --data=FOLDER "
    "--results=results.jsonl"
)
ENGLISH_SIDES = ("ours", "torch")
CHINESE_SIDES = ("pretrained", "fresh")
Case = finetune_cases_lib.Case
Record = dict[str, Any]
# (seed) -> the predictions for dev of the model trained with it.
Trained = Callable[[int], list[spec.Prediction]]


@dataclasses.dataclass(frozen=True, eq=False)
class Ours:
    """Runs of bert_jax that differ in their seed and share compiled programs."""

    run: finetuning_run.FinetuningRun
    num_train_steps: int
    shapes: state.TrainState
    transformation: Any
    step: sharding.OnMesh
    predictor: answer.Predictor

    def predictions(self, seed: int) -> list[spec.Prediction]:
        """Trains with a seed, and returns the predictions for dev.

        Raises:
          NotFiniteError: a step is not finite.
        """
        run, steps = self.run, self.num_train_steps
        params = run.parameters(self.shapes.params, seed)
        now = state.from_params(params, self.shapes, self.transformation)
        loader = run.settings.data.loader
        rows = run.rows(seed)
        batches = stream.batches(rows.batch_at, 0, steps, loader=loader, put=run.put)
        for number, batch in enumerate(batches):
            now, metrics = self.step(now, batch, jnp.int32(seed))
            if not metrics["finite"].all():
                raise errors.NotFiniteError(f"step {number + 1} is not finite")
        dev = run.dev
        return self.predictor.predictions(run.scored(now), dev.examples, dev.table)


def ours(run: finetuning_run.FinetuningRun, num_train_steps: int) -> Ours:
    """Compiles the step of `finetune.train`, with the seed as an argument."""
    transformation, schedule = run.make_optimizer(num_train_steps)
    shapes = state.abstract(run.init, transformation, run.mesh)

    def step(now: state.TrainState, batch: Any, seed: Any) -> Any:
        one = state.step_function(
            run.step_spec, transformation, schedule, shapes, seed=seed
        )
        return one(now, batch)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    replicated = sharding.replicated(run.mesh)
    jitted = sharding.jit(
        step, run.mesh, donate_argnums=0, out_shardings=(shardings, replicated)
    )
    return Ours(run, num_train_steps, shapes, transformation, jitted, run.predictor)


def assemble(
    case: Case, data: Path, start: dict[str, Any]
) -> finetuning_run.FinetuningRun:
    """Reads the data and weights of a case, and reduces dev to the part it scores."""
    settings = finetune_cases_lib.settings(case, data, start)
    run = finetuning_run.assemble(settings, Path())
    if case.dev_part == 1.0:
        return run
    _, examples = splits.held_out(run.dev.examples, case.dev_part)
    table = splits.table("part of dev", run.task, examples)
    dev = splits.Split("dev", examples, table)
    return dataclasses.replace(run, dev=dev)


def sides(case: Case, model: str, zh_model: str) -> dict[str, dict[str, Any]]:
    """Returns, for each side of a case, the config keys of its initial weights.

    Empty if the model that the case needs was not given.
    """
    if case in finetune_cases_lib.ENGLISH:
        return {side: {"init_from": model} for side in ENGLISH_SIDES if model}
    fresh = {"init_from": "none", "model.size": zh_model, "text.vocab": zh_model}
    starts = {"init_from": zh_model}, fresh
    return dict(zip(CHINESE_SIDES, starts, strict=True)) if zh_model else {}


def fingerprint(case: Case, start: dict[str, Any]) -> str:
    """Returns a hash of all that determines a result, except seed and data folder."""
    config = finetune_cases_lib.settings(case, Path(), start)
    tree = [dataclasses.asdict(config), case.dev_part]
    return hashlib.sha256(repr(tree).encode()).hexdigest()[:16]


def measure(
    cases: Sequence[tuple[Case, dict[str, dict[str, Any]]]],
    seeds: int,
    data: Path,
    results: Path,
) -> Iterator[Record]:
    """Yields the record of each run, new or from the file of results."""
    known = {_key(record): record for record in read(results)}
    for case, starts in cases:
        prepared: dict[str, tuple[finetuning_run.FinetuningRun, Trained]] = {}
        for seed in range(seeds):
            for side, start in starts.items():
                record = {
                    "case": case.name,
                    "side": side,
                    "seed": seed,
                    "recipe": fingerprint(case, start),
                }
                if _key(record) not in known:
                    begin = time.perf_counter()
                    if side not in prepared:
                        prepared[side] = _prepared(case, side, data, start, prepared)
                    run, trained = prepared[side]
                    metrics = run.task.score(run.dev.examples, trained(seed)).metrics
                    record |= {"seconds": time.perf_counter() - begin}
                    record |= {"metric": case.metric, "metrics": metrics}
                    append(results, record)
                    known[_key(record)] = record
                yield known[_key(record)]


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("case", "side", "seed", "recipe"))


def _prepared(
    case: Case,
    side: str,
    data: Path,
    start: dict[str, Any],
    prepared: dict[str, tuple[finetuning_run.FinetuningRun, Trained]],
) -> tuple[finetuning_run.FinetuningRun, Trained]:
    """Returns the run of a side and the function that trains it.

    The English sides share their run.
    """
    shared = [run for run, _ in prepared.values()] if side in ENGLISH_SIDES else []
    run = shared[0] if shared else assemble(case, data, start)
    steps = run.num_train_steps
    if side == "torch":
        return run, lambda seed: torch_finetune_lib.predictions(run, seed, steps)
    return run, ours(run, steps).predictions


def read(results: Path) -> list[Record]:
    """Returns the records of a file, and removes an incomplete last one."""
    if not results.exists():
        return []
    text = results.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        distributed.print_once(
            f"{results}: the last record is incomplete; its run is repeated"
        )
        results.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def append(results: Path, record: Record) -> None:
    """Appends a record, and prints it."""
    value = 100 * record["metrics"][record["metric"]]
    distributed.print_once(
        f"{record['case']} {record['side']} seed {record['seed']}: {record['metric']} "
        f"{value:.2f} in {record['seconds']:.0f} s"
    )
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


HEADER = (
    "| data set | metric | {0} | {1} | s per run, {0} | {1} | verdict |",
    "|---|---|---|---|---|---|---|",
)


def table(records: Sequence[Record], columns: tuple[str, str]) -> str:
    """Returns the Markdown table of the two sides."""
    lines = [line.format(*columns) for line in HEADER]
    for case in (*finetune_cases_lib.ENGLISH, *finetune_cases_lib.CHINESE):
        own = [record for record in records if record["case"] == case.name]
        pair = [[r for r in own if r["side"] == side] for side in columns]
        if not any(pair):
            continue
        values = [[100 * r["metrics"][case.metric] for r in side] for side in pair]
        times = [f"{_mean([r['seconds'] for r in s]):.0f}" if s else "" for s in pair]
        shown = [_shown(side) for side in values]
        compared = verdict(*values) if all(pair) else ""
        cells = (case.title, case.metric, *shown, *times, compared)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def standard_deviation(values: Sequence[float]) -> float:
    """Returns the standard deviation of a sample; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _shown(values: Sequence[float]) -> str:
    return f"{_mean(values):.2f} ± {standard_deviation(values):.2f}" if values else ""


def verdict(first: Sequence[float], second: Sequence[float]) -> str:
    """Compares means: do they differ by more than the larger standard deviation?

    >>> verdict([90.0, 92.0], [91.5, 92.5]), verdict([90.0, 90.2], [88.0, 88.1])
    ('no difference', 'better by 2.05')
    """
    difference = _mean(first) - _mean(second)
    if abs(difference) <= max(standard_deviation(first), standard_deviation(second)):
        return "no difference"
    return f"{'better' if difference > 0 else 'worse'} by {abs(difference):.2f}"


def chosen(
    model: str, zh_model: str, only: Sequence[str], wanted: Sequence[str]
) -> list[tuple[Case, dict[str, dict[str, Any]]]]:
    """Returns the cases to run with their sides.

    Raises:
      InputError: a name is unknown, or no case is selected.
    """
    cases = (*finetune_cases_lib.ENGLISH, *finetune_cases_lib.CHINESE)
    _check("only", only, [case.name for case in cases])
    _check("sides", wanted, [*ENGLISH_SIDES, *CHINESE_SIDES])
    selected = []
    for case in cases:
        starts = sides(case, model, zh_model)
        kept = {side: x for side, x in starts.items() if not wanted or side in wanted}
        if kept and (not only or case.name in only):
            selected.append((case, kept))
    if not selected:
        raise errors.InputError(
            "nothing to run: English data sets need --model, Chinese ones --zh_model. "
            f"Example: {_EXAMPLE}"
        )
    return selected


def in_parallel(cases: Sequence[Case], jobs: int) -> None:
    """Runs this command once per case, `jobs` at a time, each on its part of the cores.

    If one fails, exits with its code when all have ended.
    """
    cores = sorted(os.sched_getaffinity(0))
    jobs = min(jobs, len(cases), len(cores))
    parts: queue.Queue[list[int]] = queue.Queue()
    for number in range(jobs):
        parts.put(cores[number::jobs])

    def run(case: Case) -> int:
        command = [sys.executable, *sys.argv, f"--only={case.name}", "--jobs=1"]
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode

    with concurrent.futures.ThreadPoolExecutor(
        jobs,
        # Processes inherit the cores of the thread that starts them.
        initializer=lambda: os.sched_setaffinity(0, parts.get()),
    ) as pool:
        codes = list(pool.map(run, cases))
    if any(codes):
        sys.exit(next(code for code in codes if code))


def _check(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise errors.InputError(
                f"--{flag}: unknown {name!r}; choose from {', '.join(known)}"
            )


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    given = flags.FLAGS
    data, results = map(Path, commands.required("data", "results"))
    cases = chosen(given.model, given.zh_model, given.only, given.sides)
    results.parent.mkdir(parents=True, exist_ok=True)
    cache = results.absolute().with_name("compilation_cache")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    if given.jobs > 1:
        read(results)
        in_parallel([case for case, _ in cases], given.jobs)
    records = list(measure(cases, given.seeds, data, results))
    for columns in (ENGLISH_SIDES, CHINESE_SIDES):
        if any(record["side"] in columns for record in records):
            print(f"\n{table(records, columns)}")
    seconds = sum(record["seconds"] for record in records)
    print(f"\n{len(records)} runs, {seconds / 60:.0f} minutes of training and scoring")


if __name__ == "__main__":
    flags.DEFINE_string("model", "", "English model, a folder of transformers.")
    flags.DEFINE_string("zh_model", "", "Chinese model, a run or a folder.")
    flags.DEFINE_string("data", "", "Folder of the data sets.")
    flags.DEFINE_string("results", "", "File of the results, one JSON object per run.")
    flags.DEFINE_list("only", [], "Data sets, comma-separated (all).")
    flags.DEFINE_list("sides", [], "Some of ours,torch,pretrained,fresh (all).")
    flags.DEFINE_integer("seeds", 3, "Runs of each side.", lower_bound=1)
    flags.DEFINE_integer("jobs", 1, "Data sets at a time.", lower_bound=1)
    commands.run(main)
