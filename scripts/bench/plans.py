"""What bounds BERT on TPU pods and GPUs, and how it scales: from compiled train steps.

    pip install "bert_jax[tpu,gpu-plan]"
    python scripts/bench/plans.py --results=plans.jsonl --out=plans

Nothing runs on a TPU or GPU: each step is compiled for it on this machine, which takes
one to ten minutes, and its FLOPs, traffic and communication are read from the program
(`bert_jax.plan`). The first table has base and large with 128 and 512 tokens on three
pods, as published and with the option `fast` of configs/pretrain.py; the second has
base on 1 to 256 chips with a constant batch per chip, replicated (data) and sharded
(fsdp); the third is the first for one GPU. Cases already in --results are not compiled
again, so several processes with different --only may share it.
"""

import argparse
import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import jax

from bert_jax import console, plan
from bert_jax.config import file as config_file
from bert_jax.planning import costs, topology

ROWS = {128: 64, 512: 16}  # per TPU and micro-batch
GPU_ROWS = {128: 256, 512: 64}
POD_CASES = [
    (size, length, topology, recipe)
    for topology in ("v5e:16x16", "v5p:4x4x4", "v6e:16x16")
    for size in ("base", "large")
    for length in (128, 512)
    for recipe in ("published", "fast")
]
SLICES = ("1x1", "2x2", "4x4", "8x8", "16x16")


@dataclasses.dataclass(frozen=True)
class Case:
    """One step on one pod.

    Attributes:
      recipe: `published` or `fast`, the option of configs/pretrain.py.
      axis: the mesh axis that all chips are on.
      unroll: `run.unroll`; None for that of the recipe.
    """

    size: str
    length: int
    topology: str
    recipe: str
    axis: str = "data"
    unroll: int | None = None

    @property
    def rows(self) -> int:
        """Sequences per chip."""
        is_tpu = topology.parse(self.topology).chip.is_tpu
        return (ROWS if is_tpu else GPU_ROWS)[self.length]

    @property
    def name(self) -> str:
        """All fields as one key."""
        loop = "" if self.unroll is None else f" unroll={self.unroll}"
        return (
            f"{self.size} {self.length} {self.topology} {self.recipe} {self.axis}{loop}"
        )

    def plan(self) -> costs.RunPlan:
        """Compiles the step."""
        options = [self.size]
        options += ["phase=2"] * (self.length == 512)
        options += ["fast"] * (self.recipe == "fast")
        config = config_file.load(f"configs/pretrain.py:{','.join(options)}")
        chips = topology.parse(self.topology).num_chips
        config.run.batch_size = self.rows * chips
        config.mesh.update({"data": 1, "fsdp": 1, self.axis: -1})
        if self.unroll is not None:
            config.run.unroll = self.unroll
        return plan.plan(config, self.topology)


def pods() -> list[Case]:
    """Returns the cases of the first table; on v6e the state is sharded."""
    return [
        Case(*case, "fsdp" if case[2].startswith("v6e") else "data")
        for case in POD_CASES
    ]


def slices() -> list[Case]:
    """Returns the cases of the second table, in a loop, which compiles faster."""
    return [
        Case("base", 128, f"v5e:{shape}", "fast", axis, 1)
        for axis in ("data", "fsdp")
        for shape in SLICES
    ]


def gpus() -> list[Case]:
    """Returns the cases of the third table."""
    return [
        Case(size, length, "h100:1", recipe)
        for size in ("base", "large")
        for length in (128, 512)
        for recipe in ("published", "fast")
    ]


def main() -> None:
    """Compiles missing cases, prints the tables and plots the second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="JSON lines")
    parser.add_argument("--out", type=Path, help="folder of the plot")
    parser.add_argument(
        "--only", default="", help="compile only cases that match this regex"
    )
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    for case in (*pods(), *slices(), *gpus()):
        if case.name not in _read(given.results) and re.search(given.only, case.name):
            record = _record(case)
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    found = _read(given.results)
    tables = (_step_table(found, pods()), _slice_table(found))
    print(*tables, _step_table(found, gpus()), sep="\n\n")
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        _draw(found, given.out / "weak_scaling.png")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {record["name"]: record for record in records}


def _record(case: Case) -> dict[str, Any]:
    started = time.perf_counter()
    run_plan = case.plan()
    phase = run_plan.longest
    return {
        "name": case.name,
        "jax": jax.__version__,
        "seconds": time.perf_counter() - started,
        "refusal": phase.refusal,
        "fits": run_plan.fits,
        "bound": phase.time.bound,
        "flops": phase.cost.flops,
        "main_bytes": phase.cost.main_bytes,
        "peak_bytes": phase.cost.peak_bytes,
        "chips": run_plan.layout.chips,
        "tokens": case.rows * case.length,
        **dataclasses.asdict(phase.time),
    }


def _step_table(found: dict[str, Any], cases: list[Case]) -> str:
    header = ["", "L", "chips", "mesh", "recipe", "GiB", "TFLOP", "GB moved"]
    header += ["compute ms", "memory ms", "memory/compute", "comm. ms", "MFU"]
    header.append("bound by")
    rows = [header]
    for case in cases:
        if (x := found.get(case.name)) is None:
            continue
        cells = [case.size, str(case.length), case.topology, case.axis, case.recipe]
        if x["refusal"]:
            rows.append([*cells, *[""] * 8, "does not fit"])
            continue
        cells += [f"{x['peak_bytes'] / 2**30:.2f}", f"{x['flops'] / 1e12:.2f}"]
        cells += [f"{x['main_bytes'] / 1e9:.1f}", *_milliseconds(x)]
        cells.insert(-1, f"{x['memory'] / x['compute']:.2f}")
        bound = x["bound"] if x["fits"] else "does not fit"
        rows.append([*cells, f"{x['utilization']:.1%}", bound])
    return console.table(rows)


def _milliseconds(record: dict[str, Any]) -> list[str]:
    kinds = ("compute", "memory", "communication")
    return [f"{1000 * record[kind]:.1f}" for kind in kinds]


def _slice_table(found: dict[str, Any]) -> str:
    header = ["chips", "mesh", "GiB", "compute ms", "memory ms", "comm. ms"]
    rows = [[*header, "tokens/s per chip", "bound by"]]
    for case in slices():
        if x := found.get(case.name):
            cells = [str(x["chips"]), case.axis, f"{x['peak_bytes'] / 2**30:.2f}"]
            cells += [*_milliseconds(x), f"{x['tokens'] / _seconds(x):,.0f}"]
            rows.append([*cells, x["bound"]])
    return console.table(rows)


def _seconds(record: dict[str, Any]) -> float:
    return max(record[kind] for kind in ("compute", "memory", "communication"))


def _draw(found: dict[str, Any], path: Path) -> None:
    """Plots tokens per second and chip over the number of chips."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.set_xscale("log", base=2)
    for axis in ("data", "fsdp"):
        seen = [found[c.name] for c in slices() if c.axis == axis and c.name in found]
        chips = [x["chips"] for x in seen]
        rates = [x["tokens"] / _seconds(x) / 1000 for x in seen]
        axes.plot(chips, rates, marker="o", label=f"mesh.{axis}=-1")
        axes.set_xticks(chips, [str(number) for number in chips])
    axes.set(xlabel="TPU v5e chips", ylabel="thousand tokens/s per chip, upper bound")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
