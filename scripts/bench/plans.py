"""What BERT is bound by on TPU pods, and how far it scales: from compiled steps.

    pip install "bert_jax[tpu]"
    python scripts/bench/plans.py --results=plans.jsonl --out=plans

Nothing runs on a TPU: every step is compiled for it on this machine, which takes one to
ten minutes, and what it computes, moves and sends is read from the program
(`bert_jax.plan`). The first table has base and large in rows of 128 and 512 tokens on
three pods, as published and with the option `fast` of configs/pretrain.py; the second
has base on 1 to 256 chips with as many rows a chip, copied (data) and cut (fsdp). Cases
that --results holds are not compiled again, so several processes with different --only
may share it.
"""

import argparse
import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import timing_lib

from bert_jax import plan
from bert_jax.planning import plan_making, topology
from bert_jax.settings import config_file

ROWS = {128: 64, 512: 16}  # a chip, at a time
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
      axis: of the mesh, over which all chips lie.
      unroll: of `run`; None as the recipe says.
    """

    size: str
    length: int
    topology: str
    recipe: str
    axis: str = "data"
    unroll: int | None = None

    @property
    def name(self) -> str:
        """All of it, to be known by."""
        loop = "" if self.unroll is None else f" unroll={self.unroll}"
        return (
            f"{self.size} {self.length} {self.topology} {self.recipe} {self.axis}{loop}"
        )

    def plan(self) -> plan_making.Plan:
        """Compiles the step."""
        options = [self.size]
        options += ["phase=2"] * (self.length == 512)
        options += ["fast"] * (self.recipe == "fast")
        config = config_file.load(f"configs/pretrain.py:{','.join(options)}")
        chips = topology.parse(self.topology).num_chips
        config.run.batch_size = ROWS[self.length] * chips
        config.mesh.update({"data": 1, "fsdp": 1, self.axis: -1})
        if self.unroll is not None:
            config.run.unroll = self.unroll
        return plan.plan(config, self.topology)


def pods() -> list[Case]:
    """Returns the cases of the first table; on v6e the state is cut, not copied."""
    return [
        Case(*case, "fsdp" if case[2].startswith("v6e") else "data")
        for case in POD_CASES
    ]


def slices() -> list[Case]:
    """Returns the cases of the second table; in a loop, which compiles faster."""
    return [
        Case("base", 128, f"v5e:{shape}", "fast", axis, 1)
        for axis in ("data", "fsdp")
        for shape in SLICES
    ]


def main() -> None:
    """Compiles what is missing, prints the tables and draws the second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="JSON lines")
    parser.add_argument("--out", type=Path, help="folder of the picture")
    parser.add_argument("--only", default="", help="compile names that this finds")
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    for case in (*pods(), *slices()):
        if case.name not in _read(given.results) and re.search(given.only, case.name):
            record = _record(case)
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    found = _read(given.results)
    print(_pod_table(found), _slice_table(found), sep="\n\n")
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
    made = case.plan()
    phase = made.longest
    return {
        "name": case.name,
        "jax": jax.__version__,
        "seconds": time.perf_counter() - started,
        "refusal": phase.refusal,
        "fits": made.fits,
        "bound": phase.prediction.bound,
        "flops": phase.needs.flops,
        "main_bytes": phase.needs.main_bytes,
        "peak_bytes": phase.needs.peak_bytes,
        "chips": made.layout.chips,
        "tokens": ROWS[case.length] * case.length,
        **dataclasses.asdict(phase.prediction),
    }


def _pod_table(found: dict[str, Any]) -> str:
    header = ["", "L", "chips", "mesh", "recipe", "GiB", "TFLOP", "GB moved"]
    header += ["compute ms", "move ms", "move/compute", "talk ms", "MFU", "bound by"]
    rows = [header]
    for case in pods():
        if (x := found.get(case.name)) is None:
            continue
        cells = [case.size, str(case.length), case.topology, case.axis, case.recipe]
        if x["refusal"]:
            rows.append([*cells, *[""] * 8, "does not fit"])
            continue
        cells += [f"{x['peak_bytes'] / 2**30:.2f}", f"{x['flops'] / 1e12:.2f}"]
        cells += [f"{x['main_bytes'] / 1e9:.1f}", *_milliseconds(x)]
        cells.insert(-1, f"{x['memory'] / x['compute']:.2f}")
        rows.append([*cells, f"{x['utilisation']:.1%}", x["bound"]])
    return timing_lib.table(rows)


def _milliseconds(record: dict[str, Any]) -> list[str]:
    kinds = ("compute", "memory", "communication")
    return [f"{1000 * record[kind]:.1f}" for kind in kinds]


def _slice_table(found: dict[str, Any]) -> str:
    header = ["chips", "mesh", "GiB", "compute ms", "move ms", "talk ms"]
    rows = [[*header, "tokens/s a chip", "bound by"]]
    for case in slices():
        if x := found.get(case.name):
            cells = [str(x["chips"]), case.axis, f"{x['peak_bytes'] / 2**30:.2f}"]
            cells += [*_milliseconds(x), f"{x['tokens'] / _seconds(x):,.0f}"]
            rows.append([*cells, x["bound"]])
    return timing_lib.table(rows)


def _seconds(record: dict[str, Any]) -> float:
    return max(record[kind] for kind in ("compute", "memory", "communication"))


def _draw(found: dict[str, Any], path: Path) -> None:
    """Draws the tokens a second of a chip over the chips."""
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
    axes.set(xlabel="TPU v5e chips", ylabel="thousand tokens/s a chip, at most")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
