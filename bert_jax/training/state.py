"""The train state and the jitted steps that read and change it.

A state is born sharded: no device ever holds more than its part. A step is a pure
function of (state, batch, seed): its key is `fold_in(key(seed), step)`. Losses and
metrics are (sum, weight) pairs; weights are taken over the whole batch before it is
cut into micro-batches, so accumulated gradients are those of the large batch.

`Adversarial` adds a second gradient to that of a step (Goodfellow et al. 2015; Miyato
et al. 2017): that of the same loss, with the same dropout, at an embedding table moved
by epsilon along the first gradient, g / |g|. The table itself is not changed.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.training import optimizer as recipe
from bert_jax.training import sharding

# gradients(params, batch, weights, key) -> (grads, loss, metrics).
Gradients = Callable[..., tuple[PyTree, Any, Any]]


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """What is perturbed, and how far.

    Attributes:
      path: keys that lead to the leaf, an embedding table.
      epsilon: the length of the step, above 0.

    Raises InputError for another epsilon.
    """

    path: tuple[str, ...]
    epsilon: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0.0:
            raise errors.InputError(
                f"the adversarial epsilon must be above 0; found {self.epsilon}"
            )

    def added(self, gradients: Gradients) -> Gradients:
        """Returns gradients at both points, added; loss and metrics are the clean."""

        def both(params: PyTree, batch: Any, weights: Any, key: Any) -> Any:
            clean, total, metrics = gradients(params, batch, weights, key)
            perturbed, _, _ = gradients(self.move(params, clean), batch, weights, key)
            return jax.tree.map(jnp.add, clean, perturbed), total, metrics

        return both

    def move(self, params: PyTree, grads: PyTree) -> PyTree:
        """Returns the parameters with the one leaf moved; not if its gradient is 0.

        Raises ValueError if there is no such leaf.
        """
        leaves = jax.tree_util.tree_leaves_with_path(params)
        if self.path not in [recipe.keys(path) for path, _ in leaves]:
            raise ValueError(f"there is no parameter {'/'.join(self.path)}")

        def moved(path: Any, param: Any, grad: Any) -> Any:
            if recipe.keys(path) != self.path:
                return param
            norm = jnp.sqrt(jnp.sum(jnp.square(grad)))
            return param + self.epsilon * grad / jnp.where(norm > 0, norm, 1.0)

        return jax.tree_util.tree_map_with_path(moved, params, grads)


Batch = dict[str, Any]
Sums = dict[str, tuple[Any, Any]]

# prepare(batch, key) -> batch: samples masks and the like, on the whole global batch.
Prepare = Callable[[Batch, Any], Batch]
# weights(batch) -> {loss name: the weight its sum is divided by}.
Weights = Callable[[Batch], Mapping[str, Any]]
# losses(params, batch, key) -> ({loss name: sum}, {metric name: (sum, weight)}).
Losses = Callable[[PyTree, Batch, Any], tuple[Mapping[str, Any], Sums]]


class TrainState(NamedTuple):
    """All that changes in training: steps done, parameters, optimizer state."""

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree


def abstract(
    init_fn: Callable[[Any], PyTree],
    optimizer: optax.GradientTransformation,
    mesh: sharding.AnyMesh,
) -> TrainState:
    """Returns the shapes, dtypes and shardings of the state, without allocating it.

    `init_fn(key)` returns parameters as a nested dict, boxed with logical axis names
    or not; the optimizer state is cut as the parameters it belongs to.
    """
    params = abstract_params(init_fn, mesh)
    everywhere = sharding.replicated(mesh)
    opt_state = optax.tree.map_params(
        optimizer,
        lambda leaf, param: leaf if _is_masked(leaf) else _shaped(leaf, param.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda leaf: _shaped(leaf, everywhere),
        is_leaf=_is_masked,
    )
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return TrainState(step, params, opt_state)


def _is_masked(leaf: Any) -> bool:
    """Returns whether one of several optimizers has no state for a parameter."""
    return isinstance(leaf, optax.MaskedNode)


def abstract_params(init_fn: Callable[[Any], PyTree], mesh: sharding.AnyMesh) -> PyTree:
    """Returns the shapes, dtypes and shardings of the parameters, unboxed."""
    boxed = jax.eval_shape(init_fn, jax.random.key(0))
    shardings = sharding.params_sharding(boxed, mesh)
    return jax.tree.map(_shaped, nn.unbox(boxed), shardings)


def mesh_of(shapes: TrainState) -> Mesh:
    """Returns the mesh of a state, abstract or not."""
    step_sharding: Any = shapes.step.sharding
    return step_sharding.mesh


def _shaped(leaf: Any, spread: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=spread)


def shardings(tree: PyTree) -> PyTree:
    """Returns the sharding of each leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def create(
    init_fn: Callable[[Any], PyTree],
    key: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainState:
    """Returns a fresh state at step 0, born sharded, with unboxed parameters."""

    def init(key: Any) -> TrainState:
        params = nn.unbox(init_fn(key))
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shapes = abstract(init_fn, optimizer, mesh)
    return jax.jit(init, out_shardings=shardings(shapes))(key)


def from_params(
    params: PyTree, shapes: TrainState, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns a state at step 0 with given parameters and a fresh optimizer state.

    `shapes` is the abstract state; `params` are host or device arrays of exactly its
    names, shapes and dtypes. Raises InputError naming the first that differs.
    """
    if differs := difference(params, shapes.params):
        raise errors.InputError(f"the set of given parameters {differs}")
    on_device = jax.tree.map(
        lambda x, s: jax.device_put(x, s.sharding), params, shapes.params
    )
    fresh = jax.jit(optimizer.init, out_shardings=shardings(shapes.opt_state))
    step = jax.device_put(jnp.zeros((), jnp.int32), shapes.step.sharding)
    return TrainState(step, on_device, fresh(on_device))


def difference(found: PyTree, wanted: PyTree) -> str | None:
    """Returns the first difference in names, shapes or dtypes, or None.

    The words continue "X ...": "lacks a/b, ...", "has a/b, ...".
    """
    found_leaves = named_leaves(found)
    wanted_leaves = named_leaves(wanted)
    for name in sorted(found_leaves.keys() | wanted_leaves.keys()):
        if name not in found_leaves:
            return f"lacks {name}, which this model has"
        if name not in wanted_leaves:
            return f"has {name}, which this model lacks"
        one, other = _kind(found_leaves[name]), _kind(wanted_leaves[name])
        if one != other:
            return f"has {name} as {one}, this model as {other}"
    return None


def _kind(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype)}{list(leaf.shape)}"


@dataclasses.dataclass(frozen=True, eq=False)
class StepSpec:
    """What a train step computes; the same for all members of a sweep.

    Attributes:
      prepare, weights, losses: the task's pure functions.
      accumulation_steps: number A of micro-batches; micro-batch `a` is the rows `a::A`.
      scales: the same as those of the optimizer. Gradients of parameters that never
        change are not computed, and "grad_norm" leaves them out.
      adversarial: adds the gradient at a perturbed embedding; loss and metrics are
        those without it.
    """

    prepare: Prepare
    weights: Weights
    losses: Losses
    accumulation_steps: int = 1
    scales: PyTree | None = None
    adversarial: Adversarial | None = None

    def gradients(self, shapes: TrainState, batch_axes: tuple[str, ...]) -> Gradients:
        """Returns the gradients of the total loss by the parameters."""
        losses = self.losses
        if self.scales is not None:
            losses = _without_frozen(losses, self.scales, self.adversarial)
        gradients = _gradient_function(
            losses, shapes, batch_axes, self.accumulation_steps
        )
        if self.adversarial is not None:
            gradients = self.adversarial.added(gradients)
        return gradients


def make_train_step(
    spec: StepSpec,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    shapes: TrainState,
    *,
    seed: int,
) -> sharding.OnMesh:
    """Returns `train_step(state, batch) -> (state, metrics)`: jitted, state donated.

    The arguments are those of `step_function`.
    """
    train_step = step_function(spec, optimizer, schedule, shapes, seed=seed)
    mesh = mesh_of(shapes)
    out_shardings = (shardings(shapes), sharding.replicated(mesh))
    return sharding.jit(train_step, mesh, donate_argnums=0, out_shardings=out_shardings)


def step_function(
    spec: StepSpec,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    shapes: TrainState,
    *,
    seed: Any,
    batch_axes: tuple[str, ...] = sharding.BATCH_AXES,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Returns `train_step(state, batch) -> (state, metrics)`, to be traced.

    The total loss is the sum over the names of sum / max(weight, 1). The metrics are
    those of `losses`, "loss" and "grad_norm" as (sum, weight), and as values of this
    step "learning_rate" and "finite" (`finite_checks`). If one of these is not
    finite, only the step count of the state changes.

    Args:
      schedule: the learning rate by step.
      shapes: the abstract state.
      seed: may be traced, and so may what `optimizer` and `schedule` hold.
      batch_axes: mesh axes along which the rows of the batch are sharded.
    """
    gradients = spec.gradients(shapes, batch_axes)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        prepare_key, key = jax.random.split(step_key)
        batch = spec.prepare(batch, prepare_key)
        weights = spec.weights(batch)
        grads, total, metrics = gradients(state.params, batch, weights, key)
        if spec.scales is not None:
            grads = recipe.zero_frozen(grads, spec.scales)
        squares = jax.tree.map(lambda x: jnp.sum(jnp.square(x)), grads)
        grad_norm = jnp.sqrt(optax.tree.sum(squares))
        learning_rate = jnp.asarray(schedule(state.step))
        finite = finite_checks(learning_rate, total, squares, grad_norm)
        one = jnp.ones(())
        metrics |= {
            "loss": (total, one),
            "grad_norm": (grad_norm, one),
            "learning_rate": learning_rate,
            "finite": finite,
        }
        return _update(state, grads, optimizer, finite.all()), metrics

    return train_step


def _without_frozen(
    losses: Losses, scales: PyTree, adversarial: Adversarial | None
) -> Losses:
    """Returns the losses without derivatives by parameters whose scale is 0.

    A perturbed embedding keeps its own: its direction is needed even if it stays.
    """
    perturbed = None if adversarial is None else adversarial.path

    def stop(path: Any, leaf: Array, scale: Any) -> Array:
        kept = not recipe.is_frozen(scale) or recipe.keys(path) == perturbed
        return leaf if kept else lax.stop_gradient(leaf)

    def stopped(params: PyTree, batch: Batch, key: Any) -> Any:
        params = jax.tree_util.tree_map_with_path(stop, params, scales)
        return losses(params, batch, key)

    return stopped


def _update(
    state: TrainState,
    grads: PyTree,
    optimizer: optax.GradientTransformation,
    finite: Bool[Array, ""],
) -> TrainState:
    """Returns the next state; if the step is not finite, the same with one step more.

    A branch, not a selection: choosing between the new and the old leaves doubled the
    time of the update on CPU (4 layers of width 256: 57 ms against 33).
    """

    def update(state: TrainState, grads: PyTree) -> TrainState:
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state)

    def leave_out(state: TrainState, grads: PyTree) -> TrainState:
        del grads
        return state._replace(step=state.step + 1)

    return lax.cond(finite, update, leave_out, state, grads)


def _gradient_function(
    losses: Losses,
    shapes: TrainState,
    batch_axes: tuple[str, ...],
    accumulation_steps: int,
) -> Gradients:
    """Returns the gradients of the losses, over micro-batches if there are several."""
    of_params = shardings(shapes.params)

    def one(params: PyTree, batch: Batch, totals: Mapping[str, Any], key: Any) -> Any:
        loss = lambda p: _loss(losses(p, batch, key), totals)  # noqa: E731
        (total, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return lax.with_sharding_constraint(grads, of_params), total, metrics

    def accumulated(
        params: PyTree, batch: Batch, totals: Mapping[str, Any], key: Any
    ) -> Any:
        mesh = mesh_of(shapes)
        micro_batches = _split(batch, accumulation_steps, mesh, batch_axes)

        def add(sums: Any, indexed: tuple[Any, Batch]) -> tuple[Any, None]:
            index, micro_batch = indexed
            part = one(params, micro_batch, totals, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, sums, part), None

        first = jax.tree.map(lambda x: x[0], micro_batches)
        like = jax.eval_shape(one, params, first, totals, key)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        indices = jnp.arange(accumulation_steps)
        return lax.scan(add, zeros, (indices, micro_batches))[0]

    return one if accumulation_steps == 1 else accumulated


def _loss(
    parts: tuple[Mapping[str, Any], Sums], totals: Mapping[str, Any]
) -> tuple[Float[Array, ""], Sums]:
    """Returns the contribution of some rows to the total loss, and their metrics."""
    sums, metrics = parts
    if sums.keys() != totals.keys():
        raise ValueError(f"losses {sorted(sums)} but weights {sorted(totals)}")
    terms = [sums[name] / jnp.maximum(totals[name], 1.0) for name in sorted(sums)]
    return sum(terms, start=jnp.zeros(())), dict(metrics)


def _split(
    batch: Batch, accumulation_steps: int, mesh: Mesh, axes: tuple[str, ...]
) -> Batch:
    """Returns the batch as [A, B / A, ...]: micro-batch `a` is the rows `a::A`.

    Strided rows keep every device's rows on that device.
    """
    spread = sharding.batch_sharding(mesh, leading_axes=1, axes=axes)

    def split(rows: Array) -> Array:
        sharding.check_batch_size(rows.shape[0], accumulation_steps, mesh, axes)
        cut = rows.reshape(-1, accumulation_steps, *rows.shape[1:])
        return lax.with_sharding_constraint(jnp.moveaxis(cut, 1, 0), spread)

    return jax.tree.map(split, batch)


def finite_checks(
    learning_rate: Any, loss: Any, squares: PyTree, grad_norm: Any
) -> Bool[Array, " checks"]:
    """Returns whether rate, loss, gradients and norm are finite; traced in the step.

    `squares` has the sum of squares of every gradient.
    """
    values = [learning_rate, loss, *jax.tree.leaves(squares), grad_norm]
    return jnp.stack([jnp.isfinite(x) for x in values])


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a tree by path, as "layers/bias", in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
