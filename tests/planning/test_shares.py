"""FSDP and tensor parallel save what they should: read from compiled train steps."""

import math

import jax
import pytest
import small_programs

from bert_jax.planning import collectives, hlo, hlo_flow, program, shares, topology
from bert_jax.training import chips, optimizer

HERE = topology.Topology("cpu", chips.CHIPS[0], (), 1, 8)
LAYERS = 3

# The parameters that no mesh axis `fsdp` cuts: vectors that lie along no `embed`.
WHOLE_OVER_FSDP = {
    "encoder/layers/attention/key/bias",
    "encoder/layers/attention/query/bias",
    "encoder/layers/attention/value/bias",
    "encoder/layers/intermediate/bias",
    "mlm_head/bias",
    "mlm_head/transform/bias",
    "nsp_head/dense/bias",
    "pooler/dense/bias",
}
# And those that no axis `tensor` cuts: they have neither heads, MLP nor vocabulary.
WHOLE_OVER_TENSOR = {
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
    """The bytes of the parameters on one device, from the two lists of names alone."""
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes.params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts = 1 if name in WHOLE_OVER_FSDP else fsdp
        parts *= 1 if name in WHOLE_OVER_TENSOR else tensor
        total += 4 * math.prod(leaf.shape) // parts
    return total


def _check(shapes, compiled, mesh):
    """Asserts what a device holds, and that no moment is ever put together."""
    seen = shares.measure(shapes, compiled)
    params = _expected(shapes, *mesh[1:])
    assert seen.params_bytes == params
    assert seen.optimizer_bytes == 2 * params + 8  # two moments, two counts of steps
    assert seen.whole_optimizer_bytes == 2 * seen.whole_params_bytes + 8
    assert seen.parts == mesh[1] * mesh[2]
    names = {name for name in WHOLE_OVER_FSDP if mesh[2] == 1}
    names |= {name for name in WHOLE_OVER_TENSOR if mesh[1] == 1}
    assert seen.uncut >= names | (WHOLE_OVER_FSDP & WHOLE_OVER_TENSOR)
    if seen.parts > 1:
        assert seen.uncut == names | (WHOLE_OVER_FSDP & WHOLE_OVER_TENSOR)
    # Norms alone: a number, or one a layer where layers are stacked.
    assert {one.kind for one in seen.moments} <= {"all-reduce"}
    assert {one.array.dims for one in seen.moments} <= {(), (LAYERS,), (LAYERS, 1, 1)}
    _check_layers(shapes, hlo.read(compiled.as_text()))


def _check_layers(shapes, text):
    """Asserts that the layers of a loop are joined one at a time, and not kept so."""
    found = {array.dims for x, _, _ in text.runs() for array in x.shapes}
    for leaf in jax.tree.leaves(shapes.params["encoder"]["layers"]):
        joined = _joined(leaf)
        if joined != leaf.sharding.shard_shape(leaf.shape):
            assert joined not in found
            assert joined[1:] in found


def _joined(leaf):
    """The shape of a part along `tensor` alone."""
    parts = leaf.sharding.mesh.shape["tensor"]
    spec = (*leaf.sharding.spec, *[None] * leaf.ndim)
    pairs = zip(leaf.shape, spec, strict=False)
    return tuple(n // parts if axis == "tensor" else n for n, axis in pairs)


def test_the_state_of_a_device_falls_with_the_devices_that_share_it():
    for mesh in MESHES:
        layout = _layout(mesh, compiled=False)
        params = _expected(layout.shapes, *mesh[1:])
        assert layout.params_bytes == params, mesh
        assert layout.optimizer_bytes == 2 * params + 8, mesh


def test_a_compiled_step_holds_its_share_and_gathers_no_moments():
    mesh = (1, 4, 2)
    layout = _layout(mesh, "lamb")
    compiled = program.build(layout, 24, program.TO_READ)
    _check(layout.shapes, compiled, mesh)
    text = hlo.read(compiled.as_text())
    # Nothing that is sent escapes: with all arguments marked, all of it is found.
    everything = {
        hlo_flow.Sent(x.opcode.removesuffix("-start"), array)
        for x, _, _ in text.runs()
        if x.opcode.removesuffix("-start") in collectives.KINDS
        for array in collectives.results(x)
    }
    assert hlo_flow.sent(text, lambda name: True) == everything
    # The arguments are state and batch, to the byte, and nothing else
    # (no whole words are masked here, so that `word_start` is not taken).
    batch = 4 * 24 * 16 + 4 * 12
    state_bytes = layout.params_bytes + layout.optimizer_bytes + 4
    held = compiled.memory_analysis().argument_size_in_bytes
    assert held == state_bytes + batch


@pytest.mark.slow
@pytest.mark.parametrize("name", optimizer.NAMES)
@pytest.mark.parametrize("mesh", MESHES)
def test_every_optimizer_on_every_mesh(mesh, name):
    layout = _layout(mesh, name)
    _check(layout.shapes, program.build(layout, 24, program.TO_READ), mesh)


@pytest.mark.parametrize(
    ("size", "fsdp", "tensor"),
    [("base", 9.0e-4, 1.6e-2), ("large", 7.0e-4, 9.0e-3), ("xlarge", 4.0e-4, 8.0e-3)],
)
def test_what_is_not_cut_is_little_in_published_sizes(size, fsdp, tensor):
    """Bounds the share of the state that each device has whole."""
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
        share = layout.params_bytes / (4 * layout.num_params)
        assert 1 / math.prod(cut) < share < 1 / math.prod(cut) + bound
