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

from bert_jax.planning import hlo, program, topology
from bert_jax.training import devices, optimizer, sharding, state

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "bench"
sys.path.insert(0, str(SCRIPTS))
import sharding_lib  # noqa: E402

sys.path.remove(str(SCRIPTS))


# Arguments x and m go around a loop that swaps them on its way, so that what is m at
# first is gathered only in the second trip. A branch sums m, a fusion makes two values.
_TEXT = """\
HloModule small

%pair (p0: f32[4], p1: f32[4]) -> (f32[4], f32[4]) {
  %p0 = f32[4]{0} parameter(0)
  %p1 = f32[4]{0} parameter(1)
  %twice = f32[4]{0} add(%p0, %p0)
  ROOT %both = (f32[4]{0}, f32[4]{0}) tuple(%twice, %p1)
}

%body (arg: (s32[], f32[4], f32[4])) -> (s32[], f32[4], f32[4]) {
  %arg = (s32[], f32[4]{0}, f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %a = f32[4]{0} get-tuple-element(%arg), index=1
  %b = f32[4]{0} get-tuple-element(%arg), index=2
  %gathered = f32[8]{0} all-gather(%a), channel_id=1, replica_groups={{0,1}}
  ROOT %out = (s32[], f32[4]{0}, f32[4]{0}) tuple(%i, SWAPPED)
}

%condition (arg: (s32[], f32[4], f32[4])) -> pred[] {
  %limit = s32[] constant(5)
  %arg.1 = (s32[], f32[4]{0}, f32[4]{0}) parameter(0)
  %j = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[] compare(%j, %limit), direction=LT
}

%summed (arg: f32[4]) -> f32[] {
  %arg.2 = f32[4]{0} parameter(0)
  %part = f32[] reduce(%arg.2), to_apply=%add
  ROOT %sum = f32[] all-reduce(%part), channel_id=2, to_apply=%add
}

%nothing (arg: f32[4]) -> f32[] {
  %arg.3 = f32[4]{0} parameter(0)
  ROOT %zero = f32[] constant(0)
}

ENTRY %main (x: f32[4], m: f32[4], p: pred[]) -> (f32[], f32[2,4], f32[2,4]) {
  %x = f32[4]{0} parameter(0), metadata={op_name="state.params[\\'w\\']"}
  %m = f32[4]{0} parameter(1), metadata={op_name="state.opt_state[1].mu[\\'w\\']"}
  %p = pred[] parameter(2), metadata={op_name="batch['p']"}
  %both = (f32[4]{0}, f32[4]{0}) fusion(%x, %m), kind=kLoop, calls=%pair
  %first = f32[4]{0} get-tuple-element(%both), index=0
  %second = f32[4]{0} get-tuple-element(%both), index=1
  %start = s32[] constant(0)
  %carry = (s32[], f32[4]{0}, f32[4]{0}) tuple(%start, %first, %second)
  %loop = (s32[], f32[4]{0}, f32[4]{0}) while(%carry), condition=%condition, body=%body
  %left = f32[] conditional(%p, %m, %x), \
branch_computations={%summed, %nothing}
  %moved = (f32[4]{0}, f32[2,4]{1,0}) all-gather-start(%x), replica_groups={{0,1}}
  %done = f32[2,4]{1,0} all-gather-done(%moved)
  %two = (f32[4]{0}, f32[4]{0}) all-to-all(%x, %second), replica_groups={{0,1}}
  ROOT %last = (f32[], f32[2,4]{1,0}) tuple(%left, %done)
}
"""
_FOUR = hlo.Array("f32", (4,))


def _sent(word, swapped="%b, %a"):
    text = _TEXT.replace("SWAPPED", swapped)
    return sharding_lib.sent(hlo.parse(text), lambda name: word in name)


def test_arguments_have_the_names_of_the_traced_function():
    found = sharding_lib.arguments(hlo.parse(_TEXT))
    assert found == {
        "state.params['w']": _FOUR,
        "state.opt_state[1].mu['w']": _FOUR,
        "batch['p']": hlo.Array("pred", ()),
    }


def test_marks_pass_through_loops_branches_and_fusions():
    assert _sent(".mu") == {
        sharding_lib.Sent("all-gather", hlo.Array("f32", (8,))),
        sharding_lib.Sent("all-reduce", hlo.Array("f32", ())),
        sharding_lib.Sent("all-to-all", _FOUR),
    }


def test_parts_of_a_tuple_are_marked_separately():
    """Unswapped, the loop gathers only x."""
    assert sharding_lib.Sent("all-gather", hlo.Array("f32", (8,))) not in _sent(
        ".mu", "%a, %b"
    )
    assert _sent(".params", "%a, %b") == {
        sharding_lib.Sent("all-gather", hlo.Array("f32", (8,))),
        sharding_lib.Sent("all-gather", hlo.Array("f32", (2, 4))),
        sharding_lib.Sent("all-to-all", _FOUR),
    }


def test_without_marks_nothing_is_found():
    assert _sent("nobody") == set()


@pytest.mark.parametrize("opcode", ["optimization-barrier", "copy"])
def test_tuples_that_pass_through_whole_keep_their_parts(opcode):
    text = small_programs.entry(
        '%x = f32[4]{0} parameter(0), metadata={op_name="x"}',
        '%m = f32[4]{0} parameter(1), metadata={op_name="m"}',
        "%t = (f32[4]{0}, f32[4]{0}) tuple(%x, %m)",
        f"%u = (f32[4]{{0}}, f32[4]{{0}}) {opcode}(%t)",
        "%v = f32[4]{0} get-tuple-element(%u), index=0",
        "ROOT %w = f32[8]{0} all-gather(%v), replica_groups={{0,1}}",
    )
    found = [
        sharding_lib.sent(hlo.parse(text), lambda name, m=m: name == m) for m in "xm"
    ]
    assert found == [{sharding_lib.Sent("all-gather", hlo.Array("f32", (8,)))}, set()]


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
    """Asserts what a device holds, and that no moment is ever gathered."""
    seen = sharding_lib.measure(shapes, compiled)
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
    # Only norms: a number, or one per layer for stacked layers.
    assert {one.kind for one in seen.moments} <= {"all-reduce"}
    assert {one.array.dims for one in seen.moments} <= {(), (LAYERS,), (LAYERS, 1, 1)}
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
    text = hlo.parse(compiled.as_text())
    # With all arguments marked, all collectives are found.
    everything = {
        sharding_lib.Sent(hlo.collective_kind(x), array)
        for x, _, _ in text.executions()
        if hlo.collective_kind(x)
        for array in hlo.results(x)
    }
    assert sharding_lib.sent(text, lambda name: True) == everything
    # The arguments are state and batch, to the byte, and nothing else
    # (without whole word masking, `word_start` is not used).
    batch = 4 * 24 * 16 + 4 * 12
    state_bytes = layout.params_bytes + layout.optimizer_bytes + 4
    arguments_bytes = compiled.memory_analysis().argument_size_in_bytes
    assert arguments_bytes == state_bytes + batch


@pytest.mark.slow
@pytest.mark.parametrize("name", optimizer.NAMES)
@pytest.mark.parametrize("mesh", MESHES)
def test_every_optimizer_on_every_mesh(mesh, name):
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
    seen = sharding_lib.measure(shapes, compiled)
    assert seen.params_bytes == PARAMS_BYTES
    assert seen.optimizer_bytes == 3 * PARAMS_BYTES + 3 * 4
    assert {one.kind for one in seen.moments} <= {"all-reduce"}
    assert seen.replicated == {"layers/scale"}


def test_a_replicated_moment_is_detected():
    def replicated(shapes):
        return shapes._replace(
            opt_state=jax.tree_util.tree_map_with_path(
                _replicate_first_moment, shapes.opt_state
            )
        )

    seen = sharding_lib.measure(*_small_step(replicated))
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
    seen = sharding_lib.measure(shapes, _compiled(transformation, shapes, mesh))
    gathered = {one.array.dims for one in seen.moments if one.kind == "all-gather"}
    assert (26, 8) in gathered or (208,) in gathered
