"""What sharding saves: state and peak memory per device, from compiled train steps.

    python scripts/bench/sharding.py --sizes=base,large

Runs anywhere, on eight simulated CPU devices: the train step of configs/pretrain.py is
compiled for each mesh, which takes half a minute to a few, and read. `+` is how far the
fraction of the state on one device exceeds 1/n, where n is the number of devices that
the state is sharded over (fsdp times tensor). `gathered` is how often the step gathers
as many bytes as the parameters have: once for each pass that needs them, and more if it
also gathered optimizer state. With --topology, as in v5e:4x4, the step is compiled for
those chips instead of CPUs (extra `tpu`).
"""

import argparse
import dataclasses
import math
import os
import re
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax  # noqa: E402

from bert_jax import console  # noqa: E402
from bert_jax.config import file as config_file  # noqa: E402
from bert_jax.config import pretraining  # noqa: E402
from bert_jax.planning import hlo, program, topology  # noqa: E402
from bert_jax.training import state  # noqa: E402

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
_PARAMS, _OPTIMIZER = "state.params", "state.opt_state"
_ARGUMENT = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class ShardingReport:
    """The train state on one device, and what a step sends.

    Attributes:
      params_bytes, optimizer_bytes: on one device, by the arguments of the program.
      whole_params_bytes, whole_optimizer_bytes: of the unsharded state.
      parts: devices that share one copy of the state; there are `data` copies.
      peak_bytes: peak memory of one device in a step.
      replicated: names of the parameters that each device holds as a whole.
    """

    params_bytes: int
    optimizer_bytes: int
    whole_params_bytes: int
    whole_optimizer_bytes: int
    parts: int
    peak_bytes: int
    replicated: frozenset[str]
    collectives: tuple[hlo.Collective, ...]

    @property
    def gathered(self) -> float:
        """The bytes that a step gathers, as a multiple of those of the parameters."""
        every = [one.bytes for one in self.collectives if one.kind == "all-gather"]
        return sum(every) / self.whole_params_bytes


def measure(shapes: state.TrainState, compiled: Any) -> ShardingReport:
    """Returns what a compiled step holds and sends.

    Args:
      shapes: the abstract state that it was compiled for.
      compiled: the result of `program.build`, for any devices.
    """
    mesh = state.mesh_of(shapes)
    text = hlo.parse(compiled.as_text())
    arrays = arguments(text)
    memory = compiled.memory_analysis()
    new_outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return ShardingReport(
        params_bytes=_bytes_of(arrays, _PARAMS),
        optimizer_bytes=_bytes_of(arrays, _OPTIMIZER),
        whole_params_bytes=_whole(shapes.params),
        whole_optimizer_bytes=_whole(shapes.opt_state),
        parts=mesh.shape["fsdp"] * mesh.shape["tensor"],
        peak_bytes=memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + new_outputs,
        replicated=_replicated(arrays, shapes.params),
        collectives=tuple(hlo.collectives(text, mesh.size)),
    )


def _bytes_of(arrays: dict[str, hlo.Array], prefix: str) -> int:
    return sum(array.bytes for name, array in arrays.items() if name.startswith(prefix))


def _whole(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _replicated(arrays: dict[str, hlo.Array], params: Any) -> frozenset[str]:
    """Returns the names of parameters that the program takes as a whole."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    whole = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
    found = {
        "/".join(re.findall(r"\['([^']*)'\]", name)): array
        for name, array in arrays.items()
        if _PARAMS in name
    }
    return frozenset(name for name, x in found.items() if x.dims == whole[name].shape)


def arguments(text: hlo.HloProgram) -> dict[str, hlo.Array]:
    """Returns the array that one device holds of each argument, by JAX's name of it.

    Names are those of the traced function, as in `state.params['pooler']['kernel']`.
    Arguments that the program does not use are left out.
    """
    found = {}
    for x in text.computations[text.entry].instructions.values():
        name = _ARGUMENT.search(x.attributes)
        if x.opcode == "parameter" and name:
            found[name[1].replace("\\'", "'")] = x.shapes[0]
    return found


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
    rows = [[*HEADER, *(f"{kind}: number, MB" for kind in KINDS), "gathered"]]
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
    seen = measure(layout.shapes, program.build(layout, 128, options))
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
        f"{seen.gathered:.2f}",
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


def _sent(seen: ShardingReport, kind: str) -> str:
    found = [one for one in seen.collectives if one.kind == kind]
    if not found:
        return "0"
    count, size = sum(x.count for x in found), sum(x.bytes for x in found)
    return f"{count}, {size / 1e6:,.0f}"


if __name__ == "__main__":
    main()
