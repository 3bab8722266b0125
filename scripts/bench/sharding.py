"""What sharding saves: state and peak memory per device, from compiled train steps.

    python scripts/bench/sharding.py --sizes=base,large

Runs anywhere, on eight simulated CPU devices: the train step of configs/pretrain.py is
compiled for each mesh, which takes half a minute to a few, and read. `+` is how far the
fraction of the state on one device exceeds 1/n, where n is the number of devices that
the state is sharded over (fsdp times tensor). `moments` is what the step sends of the
optimizer state: at most the norms of LAMB, if all is well. With --topology, as in
v5e:4x4, the step is compiled for those chips instead of CPUs (extra `tpu`).
"""

import argparse
import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import sharding_lib  # noqa: E402

from bert_jax import console
from bert_jax.config import file as config_file
from bert_jax.config import pretraining
from bert_jax.planning import program, topology  # noqa: E402

# (data, fsdp, tensor); -1 means all remaining devices.
MESHES = (
    (-1, 1, 1),
    (-1, 2, 1),
    (-1, 4, 1),
    (-1, 8, 1),
    (-1, 1, 2),
    (-1, 1, 4),
    (-1, 2, 2),
    (-1, 4, 2),
)
HEADER = ("", "mesh", "params MiB", "+", "optimizer MiB", "+", "peak MiB")
KINDS = ("all-gather", "reduce-scatter", "all-reduce")


def main() -> None:
    """Compiles the steps and prints the table, row by row and then aligned."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="base,large", help="of configs/pretrain.py")
    parser.add_argument("--optimizer", default="adamw", help="adamw, lamb, ...")
    parser.add_argument("--topology", default="cpu", help="as for bert_jax.plan")
    parser.add_argument(
        "--rows", type=int, default=64, help="sequences of 128 tokens, in total"
    )
    given = parser.parse_args()
    rows = [[*HEADER, *(f"{kind}: number, MB" for kind in KINDS), "moments"]]
    for size in given.sizes.split(","):
        for mesh in MESHES:
            rows.append(_row(size, mesh, given))
            print(" | ".join(rows[-1]), flush=True)
    print(f"\n{console.table(rows)}")


def _row(size: str, mesh: tuple[int, int, int], given: argparse.Namespace) -> list[str]:
    layout = program.lay_out(
        _settings(size, mesh, given), topology.parse(given.topology), for_compiling=True
    )
    options = program.FAST_COMPILE if given.topology in topology.HERE else None
    seen = sharding_lib.measure(layout.shapes, program.build(layout, 128, options))
    sizes = " x ".join(f"{n} {k}" for k, n in layout.mesh.shape.items() if n > 1)
    return [
        size,
        sizes,
        _mebibytes(seen.params_bytes),
        f"+{seen.params_fraction - 1 / seen.parts:.2%}",
        _mebibytes(seen.optimizer_bytes),
        f"+{seen.optimizer_fraction - 1 / seen.parts:.2%}",
        _mebibytes(seen.peak_bytes),
        *(_sent(seen, kind) for kind in KINDS),
        _moments(seen),
    ]


def _settings(
    size: str, mesh: tuple[int, int, int], given: argparse.Namespace
) -> pretraining.PretrainingConfig:
    config = config_file.load(f"configs/pretrain.py:{size}")
    config.mesh.update(dict(zip(("data", "fsdp", "tensor"), mesh, strict=True)))
    config.run.batch_size = given.rows
    config.optimizer.name = given.optimizer
    if given.topology in topology.HERE:  # CPU programs send bfloat16 as float32
        config.run.dtype = "float32"
    return pretraining.parse(config)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f}"


def _sent(seen: sharding_lib.ShardingReport, kind: str) -> str:
    found = [one for one in seen.collectives if one.kind == kind]
    if not found:
        return "0"
    count, size = sum(x.count for x in found), sum(x.bytes for x in found)
    return f"{count}, {size / 1e6:,.0f}"


def _moments(seen: sharding_lib.ShardingReport) -> str:
    """Returns the kinds of collectives on moments, and the largest array sent."""
    if not seen.moments:
        return "none"
    kinds: dict[str, Any] = {one.kind: None for one in seen.moments}
    most = max(one.array.bytes for one in seen.moments)
    return f"{', '.join(sorted(kinds))} of {most} bytes at most"


if __name__ == "__main__":
    main()
