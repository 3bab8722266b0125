"""Many runs as one program: the step of `state`, mapped over members by `vmap`.

Members differ in their seed, peak learning rate and batches, and share all else. Their
states are stacked on a first axis, M; so are their batches. If M is a multiple of the
mesh axis `data`, each device trains its own members without communication; otherwise
every device holds all members, and their batches are sharded as those of one run.

A device trains its members side by side, or a few at once and the rest in turn: batched
products of small matrices are fast on accelerators, and slow on CPUs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from bert_jax.training import sharding, state

_MEMBERS_AXIS = "data"

# recipe(peak learning rate) -> (optimizer, schedule), of a rate that is traced.
Recipe = Callable[[Any], tuple[optax.GradientTransformation, Callable[[Any], Any]]]


def are_spread(members: int, mesh: Mesh) -> bool:
    """Returns whether every device has its own members."""
    return members % mesh.shape[_MEMBERS_AXIS] == 0


def _batch_axes(members: int, mesh: Mesh) -> tuple[str, ...]:
    """Returns the mesh axes along which the batch of one member is sharded."""
    taken = _MEMBERS_AXIS if are_spread(members, mesh) else None
    return tuple(axis for axis in sharding.BATCH_AXES if axis != taken)


def _members_sharding(one: Any, members: int) -> NamedSharding:
    """Returns the sharding of M stacked arrays, each of which is sharded as `one`."""
    first = _MEMBERS_AXIS if are_spread(members, one.mesh) else None
    return NamedSharding(one.mesh, PartitionSpec(first, *one.spec))


def abstract(shapes: state.TrainState, members: int) -> state.TrainState:
    """Returns the abstract state of all members from that of one."""

    def stacked(leaf: Any) -> Any:
        spread = _members_sharding(leaf.sharding, members)
        return jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype, sharding=spread)

    return jax.tree.map(stacked, shapes)


def stack(
    states: Sequence[state.TrainState], shapes: state.TrainState
) -> state.TrainState:
    """Returns the states of members as one, each leaf [M, ...], on the mesh."""
    shardings = state.shardings(abstract(shapes, len(states)))
    together = jax.jit(
        lambda *trees: jax.tree.map(lambda *xs: jnp.stack(xs), *trees),
        out_shardings=shardings,
    )
    return together(*states)


def member(states: PyTree, index: int, shapes: PyTree) -> PyTree:
    """Returns one member of a stacked tree (a state or its parameters), unstacked.

    `shapes` is the abstract tree of one member.
    """
    pick = jax.jit(
        lambda tree, at: jax.tree.map(lambda x: x[at], tree),
        out_shardings=state.shardings(shapes),
    )
    return pick(states, index)


def to_devices(
    batches: Sequence[dict[str, np.ndarray]], mesh: Mesh
) -> dict[str, jax.Array]:
    """Returns the full batches of all members as global arrays [M, B, ...]."""
    members = len(batches)
    rows = sharding.batch_sharding(mesh, axes=_batch_axes(members, mesh))
    spread = _members_sharding(rows, members)

    def put(*arrays: np.ndarray) -> jax.Array:
        stacked = np.stack(arrays)
        return jax.make_array_from_callback(
            stacked.shape, spread, lambda index: stacked[index]
        )

    return {name: put(*(batch[name] for batch in batches)) for name in batches[0]}


def make_sweep_step(
    spec: state.StepSpec,
    recipe: Recipe,
    shapes: state.TrainState,
    *,
    seeds: Sequence[int],
    peaks: Sequence[float],
    at_once: int = 0,
) -> sharding.OnMesh:
    """Returns `sweep_step(states, batches) -> (states, metrics)`: jitted, donating.

    Member m does what `state.make_train_step` does with seed `seeds[m]` and the
    optimizer of peak rate `peaks[m]`; its metrics are entry m of arrays [M]. A step
    that is not finite leaves its own member unchanged, and the others are trained.

    Args:
      recipe: returns the optimizer and the schedule of a member, as `optimizer.make`
        and `optimizer.learning_rate` do with `peak`.
      shapes: the abstract state of one member.
      seeds: M seeds.
      peaks: M peak learning rates; the caller checks their range.
      at_once: members that a device trains side by side; 0 for all that it has.
    """
    mesh, members = state.mesh_of(shapes), len(seeds)
    if len(peaks) != members:
        raise ValueError(f"{members} seeds but {len(peaks)} learning rates")
    axes = _batch_axes(members, mesh)
    own = np.array(seeds, np.int32), np.array(peaks, np.float32)

    def one(current: state.TrainState, batch: state.Batch, seed: Any, peak: Any) -> Any:
        optimizer, schedule = recipe(peak)
        train_step = state.step_function(
            spec, optimizer, schedule, shapes, seed=seed, batch_axes=axes
        )
        return train_step(current, batch)

    every = _over_members(one, members, mesh, at_once)

    def sweep_step(states: state.TrainState, batches: state.Batch) -> Any:
        return every(states, batches, *map(jnp.asarray, own))

    shardings = state.shardings(abstract(shapes, members)), sharding.replicated(mesh)
    return sharding.jit(
        sweep_step, mesh, batch_axes=axes, donate_argnums=0, out_shardings=shardings
    )


def _over_members(
    one: Callable[..., Any], members: int, mesh: Mesh, at_once: int
) -> Callable[..., Any]:
    """Returns the function of one member as one of all, over the first axes."""
    devices = mesh.shape[_MEMBERS_AXIS] if are_spread(members, mesh) else 1
    own = members // devices
    at_once = min(at_once, own) or own

    def of_device(*args: Any) -> Any:
        if at_once == own:
            return jax.vmap(one)(*args)
        size = None if at_once == 1 else at_once
        return lax.map(lambda each: one(*each), args, batch_size=size)

    if devices == 1:
        return of_device

    def every(*args: Any) -> Any:
        split = jax.tree.map(lambda x: x.reshape(devices, own, *x.shape[1:]), args)
        results = jax.vmap(of_device, spmd_axis_name=_MEMBERS_AXIS)(*split)
        return jax.tree.map(lambda x: x.reshape(members, *x.shape[2:]), results)

    return every
