"""scripts/bench/sharding.py: FSDP and tensor parallelism save what they should."""

import functools
import math
import sys
from pathlib import Path

import jax
import optax
import pytest
import small_model
import small_programs

from bert_jax.foundation import devices
from bert_jax.planning import hlo, program, topology
from bert_jax.training import optimizer, sharding, state

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "bench"
sys.path.insert(0, str(SCRIPTS))
import sharding as bench_sharding  # noqa: E402

sys.path.remove(str(SCRIPTS))
HERE = topology.Topology("cpu", devices.CHIPS[0], (), 1, 8)
LAYERS = 3

# The parameters that `fsdp` does not shard: vectors without an axis `embed`.
NOT_OVER_FSDP = {
    "encoder/layers/attention/key/bias",
    "encoder/layers/attention/query/bias",
    "encoder/layers/attention/value/bias",
    "encoder/layers/intermediate/bias",
    "mlm_head/bias",
    "mlm_head/transform/bias",
    "nsp_head/dense/bias",
    "pooler/dense/bias",
}
# Those that `tensor` does not shard: they have no axis of heads, MLP or vocabulary.
NOT_OVER_TENSOR = {
    "encoder/embeddings/layer_norm/bias",
    "encoder/embeddings/layer_norm/scale",
    "encoder/embeddings/position_embeddings/embedding",
    "encoder/embeddings/token_type_embeddings/embedding",
    "encoder/layers/attention/output/bias",
    "encoder/layers/attention_layer_norm/bias",
    "encoder/layers/attention_layer_norm/scale",
    "encoder/layers/output/bias",
    "encoder/layers/output_layer_norm/bias",
    "encoder/layers/output_layer_norm/scale",
    "mlm_head/layer_norm/bias",
    "mlm_head/layer_norm/scale",
    "mlm_head/transform/bias",
    "mlm_head/transform/kernel",
    "nsp_head/dense/bias",
    "nsp_head/dense/kernel",
    "pooler/dense/bias",
    "pooler/dense/kernel",
}
# (data, fsdp, tensor) of eight devices.
MESHES = [
    (8, 1, 1),
    (4, 2, 1),
    (2, 4, 1),
    (1, 8, 1),
    (4, 1, 2),
    (2, 1, 4),
    (2, 2, 2),
    (1, 4, 2),
]


def _layout(mesh, name="adamw", compiled=True):
    data, fsdp, tensor = mesh
    settings = small_programs.settings(
        model__num_hidden_layers=LAYERS,
        model__hidden_size=64,
        model__num_attention_heads=8,
        model__intermediate_size=256,
        mesh__data=data,
        mesh__fsdp=fsdp,
        mesh__tensor=tensor,
        run__batch_size=16,
        optimizer__name=name,
    )
    return program.lay_out(settings, HERE, for_compiling=compiled)


def _expected(shapes, fsdp, tensor):
    """Returns the bytes of the parameters on one device, by the two lists of names."""
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes.params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts = 1 if name in NOT_OVER_FSDP else fsdp
        parts *= 1 if name in NOT_OVER_TENSOR else tensor
        total += 4 * math.prod(leaf.shape) // parts
    return total


def _check(shapes, compiled, mesh):
    """Asserts what a device holds, and that it gathers parameters only."""
    seen = bench_sharding.measure(shapes, compiled)
    params = _expected(shapes, *mesh[1:])
    assert seen.params_bytes == params
    assert seen.optimizer_bytes == 2 * params + 8  # two moments, two counts of steps
    assert seen.whole_optimizer_bytes == 2 * seen.whole_params_bytes + 8
    assert seen.parts == mesh[1] * mesh[2]
    names = {name for name in NOT_OVER_FSDP if mesh[2] == 1}
    names |= {name for name in NOT_OVER_TENSOR if mesh[1] == 1}
    assert seen.replicated >= names | (NOT_OVER_FSDP & NOT_OVER_TENSOR)
    if seen.parts > 1:
        assert seen.replicated == names | (NOT_OVER_FSDP & NOT_OVER_TENSOR)
    # In the forward and the backward pass, and a little of the batch: at most two times
    # what a device holds after one gathering over `fsdp`; a moment would be one more.
    once = _expected(shapes, 1, mesh[2]) / seen.whole_params_bytes
    assert seen.gathered < 2 * once
    _check_layers(shapes, hlo.parse(compiled.as_text()))


def _check_layers(shapes, text):
    """Asserts that the layers of a loop are gathered one at a time, and not kept."""
    found = {array.dims for x, _, _ in text.executions() for array in x.shapes}
    for leaf in jax.tree.leaves(shapes.params["encoder"]["layers"]):
        gathered = _gathered(leaf)
        if gathered != leaf.sharding.shard_shape(leaf.shape):
            assert gathered not in found
            assert gathered[1:] in found


def _gathered(leaf):
    """Returns the shape when sharded only over `tensor`."""
    parts = leaf.sharding.mesh.shape["tensor"]
    spec = (*leaf.sharding.spec, *[None] * leaf.ndim)
    pairs = zip(leaf.shape, spec, strict=False)
    return tuple(n // parts if axis == "tensor" else n for n, axis in pairs)


def test_the_state_per_device_falls_with_the_devices_that_share_it():
    for mesh in MESHES:
        layout = _layout(mesh, compiled=False)
        params = _expected(layout.shapes, *mesh[1:])
        assert layout.params_bytes == params, mesh
        assert layout.optimizer_bytes == 2 * params + 8, mesh


def test_a_compiled_step_holds_its_shard_and_gathers_no_moments():
    mesh = (1, 4, 2)
    layout = _layout(mesh, "lamb")
    compiled = program.build(layout, 24, program.FAST_COMPILE)
    _check(layout.shapes, compiled, mesh)
    # The arguments are state and batch, to the byte, and nothing else
    # (without whole word masking, `word_start` is not used).
    batch = 4 * 24 * 16 + 4 * 12
    state_bytes = layout.params_bytes + layout.optimizer_bytes + 4
    arguments_bytes = compiled.memory_analysis().argument_size_in_bytes
    assert arguments_bytes == state_bytes + batch


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in optimizer.NAMES if x != "muon"])
@pytest.mark.parametrize("mesh", MESHES)
def test_every_optimizer_with_two_moments_on_every_mesh(mesh, name):
    layout = _layout(mesh, name)
    _check(layout.shapes, program.build(layout, 24, program.FAST_COMPILE), mesh)


@pytest.mark.parametrize(
    ("size", "fsdp", "tensor"),
    [("base", 9.0e-4, 1.6e-2), ("large", 7.0e-4, 9.0e-3), ("xlarge", 4.0e-4, 8.0e-3)],
)
def test_little_is_replicated_in_published_sizes(size, fsdp, tensor):
    """Bounds the fraction of the parameters that each device holds replicated."""
    for mesh, bound in (((1, 8, 1), fsdp), ((2, 1, 4), tensor), ((1, 4, 2), tensor)):
        data, *cut = mesh
        settings = small_programs.settings(
            model__size=size,
            model__hidden_size=None,
            model__num_attention_heads=None,
            model__intermediate_size=None,
            model__max_position_embeddings=None,
            mesh__data=data,
            mesh__fsdp=cut[0],
            mesh__tensor=cut[1],
            text__vocab_size=30_522,
        )
        layout = program.lay_out(settings, HERE, for_compiling=False)
        fraction = layout.params_bytes / (4 * layout.num_params)
        assert 1 / math.prod(cut) < fraction < 1 / math.prod(cut) + bound


# A table, and two matrices and a bias per layer, are sharded over eight devices; the
# scale is replicated.
PARAMS_BYTES = 4 * ((26 * 8 + 3 * (2 * 8 * 12 + 8)) // 8 + 3 * 8)


def _small_step(change=lambda shapes: shapes, **options):
    """Compiles the step of a small model on fsdp=8, with changed shapes."""
    config = optimizer.OptimizerConfig(learning_rate=1e-3)
    transformation = optimizer.make(config, 10, **options)
    mesh = sharding.make_mesh(1, 8, 1)
    shapes = change(state.abstract(small_model.init_fn, transformation, mesh))
    return shapes, _compiled(transformation, shapes, mesh)


def _compiled(transformation, shapes, mesh):
    schedule = optax.constant_schedule(1e-3)
    step = state.make_train_step(
        state.StepSpec(small_model.prepare, small_model.weights, small_model.losses()),
        transformation,
        schedule,
        shapes,
        seed=3,
    )
    by_row = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_row)
        for name, x in small_model.batch_at(0).items()
    }
    return step.lower(shapes, batch).compile(compiler_options=program.FAST_COMPILE)


def test_averages_are_sharded_as_the_parameters_are():
    shapes, compiled = _small_step(average_decay=0.9)
    seen = bench_sharding.measure(shapes, compiled)
    assert seen.params_bytes == PARAMS_BYTES
    assert seen.optimizer_bytes == 3 * PARAMS_BYTES + 3 * 4
    assert seen.replicated == {"layers/scale"}


def test_a_replicated_moment_is_detected():
    def replicated(shapes):
        return shapes._replace(
            opt_state=jax.tree_util.tree_map_with_path(
                _replicate_first_moment, shapes.opt_state
            )
        )

    seen = bench_sharding.measure(*_small_step(replicated))
    assert seen.params_bytes == PARAMS_BYTES
    assert seen.optimizer_bytes == 2 * PARAMS_BYTES + 8 + 4 * (26 * 8 - 26)


def _replicate_first_moment(path, leaf):
    name = jax.tree_util.keystr(path)
    if ".mu" not in name or "embedding" not in name:
        return leaf
    whole = sharding.replicated(leaf.sharding.mesh)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)


def test_a_gathered_moment_is_detected():
    """The optimizer gathers its first moment before it uses it."""
    mesh = sharding.make_mesh(1, 8, 1)
    adam = optax.scale_by_adam()

    def update(updates, old, params=None):
        updates, new = adam.update(updates, old, params)
        whole = functools.partial(
            jax.lax.with_sharding_constraint, shardings=sharding.replicated(mesh)
        )
        return jax.tree.map(lambda u, m: u + 0.1 * whole(m), updates, new.mu), new

    transformation = optax.GradientTransformation(adam.init, update)
    shapes = state.abstract(small_model.init_fn, transformation, mesh)
    seen = bench_sharding.measure(shapes, _compiled(transformation, shapes, mesh))
    usual = bench_sharding.measure(*_small_step())
    assert seen.gathered > usual.gathered + 0.8
