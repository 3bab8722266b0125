"""The mesh of devices, and the one table of how logical axes are sharded on it.

The mesh has the axes `data` (copies of the parameters), `fsdp` (shards parameters and
optimizer state along `embed`) and `tensor` (shards heads, MLP and vocabulary). The
batch is sharded along `data` and `fsdp`. Models name logical axes only; nothing outside
this file names a mesh axis. All mesh axes are Auto: XLA propagates the shardings.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.linen import spmd
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.foundation import devices
from bert_jax.training import distributed

AXES = ("data", "fsdp", "tensor")
# A mesh of devices, or of a number of devices that are not here.
AnyMesh = Mesh | AbstractMesh
BATCH_AXES = ("data", "fsdp")

# Logical axis -> mesh axis. In one array the first rule that fits takes a mesh axis,
# so the `embed` of an activation is not sharded: its `batch` already uses `fsdp`.
LOGICAL_RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", BATCH_AXES),
    ("vocab", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("embed", "fsdp"),
    ("head_dim", None),
    ("length", None),
    ("positions", None),
    ("layers", None),
)


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Returns the mesh of these sizes over all devices (or over `devices`).

    One size may be -1: the rest of the devices. Sizes that use fewer devices take the
    first ones, in one process only. Raises InputError for sizes that do not fit.
    """
    chosen = list(_all_devices() if devices is None else devices)
    sizes = _sizes(dict(zip(AXES, (data, fsdp, tensor), strict=True)), len(chosen))
    needed = math.prod(sizes)
    if needed < len(chosen) and jax.process_count() > 1:
        raise errors.InputError(
            f"the mesh {_text(sizes)} uses {needed} of {len(chosen)} devices, but with "
            "several processes it must use all: set one of its sizes to -1"
        )
    if getattr(chosen[0], "slice_index", 0) != getattr(chosen[-1], "slice_index", 0):
        return _over_slices(sizes, chosen)
    return jax.make_mesh(
        sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=chosen[:needed]
    )


def _over_slices(sizes: tuple[int, ...], devices: list[Any]) -> Mesh:
    """Returns the mesh over several TPU slices, which only the axis `data` crosses."""
    slices = len({device.slice_index for device in devices})
    if sizes[0] % slices or math.prod(sizes) != len(devices):
        raise errors.InputError(
            f"the mesh {_text(sizes)} does not fit the {slices} slices of "
            f"{len(devices)} devices: mesh.data must be a multiple of {slices}, and "
            "all devices must be used"
        )
    within = (sizes[0] // slices, *sizes[1:])
    across = (slices, *(1 for _ in sizes[1:]))
    grid = mesh_utils.create_hybrid_device_mesh(within, across, devices=devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def one_device() -> Mesh:
    """Returns a mesh of one device of this process, for its own work."""
    return make_mesh(1, 1, 1, devices=jax.local_devices()[:1])


def make_abstract_mesh(
    data: int, fsdp: int, tensor: int, *, num_devices: int
) -> AbstractMesh:
    """Returns a mesh over devices that are only counted, as for `state.abstract`.

    Raises InputError as `make_mesh` does.
    """
    sizes = _sizes(dict(zip(AXES, (data, fsdp, tensor), strict=True)), num_devices)
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _all_devices() -> list[Any]:
    """Returns all devices; raises InputError when JAX cannot start its platform."""
    devices.leave_out(report=distributed.is_first())
    try:
        found = jax.devices()
        devices.warn_if_unused(report=distributed.is_first())
        return found
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no platform that is installed"])[0]
        raise errors.InputError(
            f"JAX finds no devices: {reason}. Check JAX_PLATFORMS and the extra "
            "(cuda12, cuda13, tpu) that was installed"
        ) from None


def _sizes(wanted: Mapping[str, int], num_devices: int) -> tuple[int, ...]:
    """Returns the mesh sizes with -1 replaced by the rest of the devices."""
    if list(wanted.values()).count(-1) > 1:
        raise errors.InputError(
            f"only one mesh axis can be -1; found {_text(tuple(wanted.values()))}"
        )
    known = math.prod(size for size in wanted.values() if size != -1)
    if known > num_devices or (-1 in wanted.values() and num_devices % known):
        raise errors.InputError(
            f"the mesh {_text(tuple(wanted.values()))} does not fit the {num_devices} "
            f"device(s) here: the sizes of mesh.data, mesh.fsdp and mesh.tensor must "
            f"multiply to at most {num_devices}, and with a -1 to a divisor of it"
        )
    return tuple(num_devices // known if s == -1 else s for s in wanted.values())


def _text(sizes: tuple[int, ...]) -> str:
    return " x ".join(f"{a}={s}" for a, s in zip(AXES, sizes, strict=True))


Shapes = tuple[tuple[int, ...], ...]


def _shapes(tree: PyTree) -> Shapes:
    return tuple(x.shape for x in jax.tree.leaves(tree))


@dataclasses.dataclass(frozen=True)
class OnMesh:
    """A jitted function that is traced and run under its mesh and the rules.

    Attributes:
      batch_axes: along which the rows of activations are cut.
      programs: those compiled ahead, by the shapes of the last argument.
    """

    jitted: Any
    mesh: Mesh
    batch_axes: tuple[str, ...] = BATCH_AXES
    programs: dict[Shapes, Any] = dataclasses.field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self._rules):
            shapes = _shapes(args[-1]) if self.programs else None
            if shapes in self.programs:
                return self.programs[shapes](*args)
            return self.jitted(*args)

    def compile(self, *args: Any) -> None:
        """Compiles the program for these arguments, which later calls then run.

        The arguments are neither computed with nor donated. The shapes of the arrays of
        the last one, the batch, are the key of the program.
        """
        self.programs[_shapes(args[-1])] = self.lower(*args).compile()

    def lower(self, *args: Any, platforms: tuple[str, ...] | None = None) -> Any:
        """Returns the lowered program for these arguments or their shapes.

        `platforms` are others than that of the mesh, as JAX names them: `cuda`.
        """
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self._rules):
            return self.jitted.trace(*args).lower(lowering_platforms=platforms)

    @property
    def _rules(self) -> tuple[tuple[str, Any], ...]:
        return tuple(
            (logical, self.batch_axes if logical == "batch" else mesh_axis)
            for logical, mesh_axis in LOGICAL_RULES
        )


def jit(
    function: Callable[..., Any],
    mesh: Mesh,
    *,
    batch_axes: tuple[str, ...] = BATCH_AXES,
    **options: Any,
) -> OnMesh:
    """Returns `jax.jit(function, **options)` as a function bound to the mesh."""
    return OnMesh(jax.jit(function, **options), mesh, batch_axes)


def replicated(mesh: AnyMesh) -> NamedSharding:
    """Returns the sharding of a value that is replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(
    mesh: Mesh, *, leading_axes: int = 0, axes: tuple[str, ...] = BATCH_AXES
) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is the batch.

    `leading_axes` counts axes before the batch that stay whole (micro-batches).
    """
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading_axes, axes))


def row_shards(mesh: AnyMesh, axes: tuple[str, ...] = BATCH_AXES) -> int:
    """Returns into how many parts the mesh cuts the rows of a batch."""
    return math.prod(mesh.shape[axis] for axis in axes)


def check_batch_size(
    batch_size: int,
    accumulation_steps: int,
    mesh: AnyMesh,
    axes: tuple[str, ...] = BATCH_AXES,
) -> None:
    """Raises InputError unless the global batch divides over mesh and micro-batches."""
    shards = row_shards(mesh, axes)
    if accumulation_steps < 1:
        raise errors.InputError(
            f"run.accumulation_steps must be at least 1; found {accumulation_steps}"
        )
    if batch_size < 1 or batch_size % (shards * accumulation_steps):
        raise errors.InputError(
            f"run.batch_size must be a multiple of {shards * accumulation_steps} = "
            f"mesh.data * mesh.fsdp ({shards}) * run.accumulation_steps "
            f"({accumulation_steps}); found {batch_size}"
        )


def params_sharding(boxed: PyTree, mesh: AnyMesh) -> PyTree:
    """Returns the shardings of abstract parameters in linen's partitioning boxes.

    A leaf without a box is replicated. Raises InputError if an axis does not divide
    over its mesh axis, naming the parameter, and for logical names without a rule.
    """
    specs = nn.get_partition_spec(boxed)
    abstract = nn.unbox(boxed)

    def sharding(path: Any, leaf: Any, spec: PartitionSpec) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        unknown = set(spec) - {None} - {logical for logical, _ in LOGICAL_RULES}
        if unknown:
            raise errors.InputError(
                f"the parameter {name} has logical axes without a rule: "
                f"{sorted(unknown)}"
            )
        resolved = PartitionSpec(*spmd.logical_to_mesh(spec, LOGICAL_RULES))
        _check_divides(name, leaf.shape, spec, resolved, mesh)
        return NamedSharding(mesh, resolved)

    return jax.tree_util.tree_map_with_path(sharding, abstract, specs)


def _check_divides(
    name: str,
    shape: tuple[int, ...],
    logical: PartitionSpec,
    resolved: PartitionSpec,
    mesh: AnyMesh,
) -> None:
    for size, axis, mesh_axis in zip(shape, logical, resolved, strict=False):
        if mesh_axis is not None and size % mesh.shape[mesh_axis]:
            raise errors.InputError(
                f"the parameter {name} of shape {shape} cannot be cut along its axis "
                f"'{axis}' of size {size}: mesh.{mesh_axis} is {mesh.shape[mesh_axis]}."
                f" Choose a mesh.{mesh_axis} that divides {size}"
            )


def shard_params(params: PyTree, shapes: PyTree, source: object) -> PyTree:
    """Puts parameters onto the mesh, with the dtypes and shardings of `shapes`.

    Raises InputError, naming the `source`, for a parameter of another shape.

    Args:
      params: numpy arrays; the top level may have fewer parts than `shapes`.
    """

    def put(path: Any, array: np.ndarray, shape: jax.ShapeDtypeStruct) -> jax.Array:
        if array.shape != shape.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise errors.InputError(
                f"{name} of {source} has the shape {list(array.shape)}, and the run "
                f"wants {list(shape.shape)}"
            )
        assert shape.sharding is not None
        whole = array.astype(shape.dtype)
        return jax.make_array_from_callback(
            shape.shape, shape.sharding, lambda index: whole[index]
        )

    wanted = {name: shapes[name] for name in params}
    return jax.tree_util.tree_map_with_path(put, params, wanted)


def whole(tree: PyTree) -> PyTree:
    """Returns global arrays as complete numpy arrays; all processes must call it."""
    if jax.process_count() > 1:
        everywhere = jax.tree.map(lambda x: replicated(x.sharding.mesh), tree)
        tree = jax.jit(lambda x: x, out_shardings=everywhere)(tree)
    return jax.tree.map(np.asarray, jax.device_get(tree))


@functools.cache
def local_rows(batch_size: int, mesh: Mesh) -> slice:
    """Returns the rows of the global batch that this process must load.

    The sharding decides, not the process index: processes that differ only along
    `tensor` load the same rows.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    bounds = [index[0].indices(batch_size) for index in indices.values() if index]
    rows = slice(min(b[0] for b in bounds), max(b[1] for b in bounds))
    covered = {row for start, stop, _ in bounds for row in range(start, stop)}
    if len(covered) != rows.stop - rows.start:
        raise errors.InputError(
            f"the rows of process {jax.process_index()} are not contiguous on the mesh "
            f"{_text(tuple(mesh.shape.values()))}: order the devices by process"
        )
    return rows


def to_devices(
    batch: Mapping[str, np.ndarray], mesh: Mesh, batch_size: int | None = None
) -> dict[str, jax.Array]:
    """Returns this process's rows as parts of global arrays, cut by rows.

    `batch_size` is the global one; without it, the rows are the whole batch. Arrays of
    another number of rows are cut in the same proportion.
    """
    sharding = batch_sharding(mesh)
    parts = 1
    if batch_size is not None:
        mine = local_rows(batch_size, mesh)
        parts = batch_size // (mine.stop - mine.start)

    def put(rows: np.ndarray) -> jax.Array:
        shape = (rows.shape[0] * parts, *rows.shape[1:])
        return jax.make_array_from_process_local_data(sharding, rows, shape)

    return {name: put(rows) for name, rows in batch.items()}
