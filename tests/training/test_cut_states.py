"""What the measure of cut states must see: averages, copies and gathers of moments."""

import functools

import jax
import optax
import small_model

from bert_jax.planning import program, shares
from bert_jax.training import optimizer, sharding, state

# A table, two matrices a layer and a bias are cut over eight; the scale is whole.
PARAMS_BYTES = 4 * ((26 * 8 + 3 * (2 * 8 * 12 + 8)) // 8 + 3 * 8)


def _small_step(change=lambda shapes: shapes, **options):
    """Compiles the step of a small model on fsdp=8, with shapes that are changed."""
    config = optimizer.OptimizerConfig(learning_rate=1e-3)
    made = optimizer.make(config, 10, **options)
    mesh = sharding.make_mesh(1, 8, 1)
    shapes = change(state.abstract(small_model.init_fn, made, mesh))
    return shapes, _compiled(made, shapes, mesh)


def _compiled(made, shapes, mesh):
    schedule = optax.constant_schedule(1e-3)
    step = state.make_train_step(
        small_model.prepare,
        small_model.weights,
        small_model.losses(),
        made,
        shapes,
        seed=3,
        accumulation_steps=1,
        schedule=schedule,
    )
    place = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        for name, x in small_model.batch_at(0).items()
    }
    return step.lower(shapes, batch).compile(compiler_options=program.TO_READ)


def test_averages_are_cut_as_the_parameters_are():
    shapes, compiled = _small_step(average_decay=0.9)
    seen = shares.measure(shapes, compiled)
    assert seen.params_bytes == PARAMS_BYTES
    assert seen.optimizer_bytes == 3 * PARAMS_BYTES + 3 * 4
    assert {one.kind for one in seen.moments} <= {"all-reduce"}
    assert seen.uncut == {"layers/scale"}


def test_a_moment_that_every_device_holds_is_seen():
    def replicated(shapes):
        return shapes._replace(
            opt_state=jax.tree_util.tree_map_with_path(_first_whole, shapes.opt_state)
        )

    seen = shares.measure(*_small_step(replicated))
    assert seen.params_bytes == PARAMS_BYTES
    assert seen.optimizer_bytes == 2 * PARAMS_BYTES + 8 + 4 * (26 * 8 - 26)


def _first_whole(path, leaf):
    name = jax.tree_util.keystr(path)
    if ".mu" not in name or "embedding" not in name:
        return leaf
    whole = sharding.replicated(leaf.sharding.mesh)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)


def test_a_moment_that_is_gathered_is_seen():
    """Of an optimizer that puts its first moment together before it uses it."""
    mesh = sharding.make_mesh(1, 8, 1)
    adam = optax.scale_by_adam()

    def update(updates, old, params=None):
        updates, new = adam.update(updates, old, params)
        whole = functools.partial(
            jax.lax.with_sharding_constraint, shardings=sharding.replicated(mesh)
        )
        return jax.tree.map(lambda u, m: u + 0.1 * whole(m), updates, new.mu), new

    made = optax.GradientTransformation(adam.init, update)
    shapes = state.abstract(small_model.init_fn, made, mesh)
    seen = shares.measure(shapes, _compiled(made, shapes, mesh))
    gathered = {one.array.dims for one in seen.moments if one.kind == "all-gather"}
    assert (26, 8) in gathered or (208,) in gathered
