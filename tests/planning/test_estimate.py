import pytest
import small_programs

from bert_jax import errors
from bert_jax.planning import estimate, program, topology
from bert_jax.training import sharding

EIGHT = small_programs.topology_of(small_programs.H100, 8)


def _layout(**changes):
    settings = small_programs.settings(**{"mesh__data": -1, **changes})
    return program.lay_out(settings, EIGHT, for_compiling=False)


def test_a_state_is_cut_as_the_mesh_says():
    whole = _layout()
    assert whole.params_bytes == 4 * whole.num_params
    assert whole.optimizer_bytes == 8 * whole.num_params + 8  # and counts of steps
    cut = _layout(mesh__fsdp=8)
    # Biases of heads and of the vocabulary have no axis `embed`, and are whole.
    assert 4 * cut.num_params / 8 < cut.params_bytes < 4 * cut.num_params / 6
    assert cut.num_params == whole.num_params


def test_work_is_shared_by_the_chips():
    one = program.lay_out(
        small_programs.settings(),
        small_programs.topology_of(small_programs.H100, 1),
        for_compiling=False,
    )
    assert estimate.useful_flops(_layout(), 24) == estimate.useful_flops(one, 24) / 8
    assert _layout().rows_a_chip == 1 and one.rows_a_chip == 8


def test_recomputing_everything_is_a_third_more_work():
    plain, full = (_layout(run__remat=remat) for remat in ("none", "full"))
    needs = estimate.needs(full, 24)
    assert needs.flops == needs.useful_flops * 4 / 3
    assert needs.temporary_bytes < estimate.needs(plain, 24).temporary_bytes
    assert needs.useful_flops == estimate.needs(plain, 24).flops


def test_what_chips_send_by_mesh():
    gradients = _layout().params_bytes
    (one,) = estimate.needs(_layout(), 24).talk
    assert (one.kind, one.group, one.count) == ("all-reduce", 8, 1)
    assert one.sent == gradients * 2 * 7 / 8
    mixed = _layout(mesh__fsdp=2, mesh__tensor=2, model__num_attention_heads=2)
    talk = estimate.needs(mixed, 24).talk
    assert [(x.kind, x.group, x.count) for x in talk] == [
        ("all-reduce", 2, 1),
        ("all-gather", 2, 2),
        ("reduce-scatter", 2, 1),
        ("all-reduce", 2, 8),  # 4 a layer
    ]
    assert talk[3].bytes == 8 * mixed.rows_a_chip * 24 * 32 * 4
    parts = _layout(run__batch_size=32, run__accumulation_steps=4)
    assert estimate.needs(parts, 24).talk[0].count == 4


def test_the_kernel_is_that_of_the_chips_and_not_of_this_machine():
    changes = {"run__dtype": "bfloat16", "model__attention_probs_dropout_prob": 0.0}
    assert estimate.attention(_layout(**changes), 24).kernel == "cudnn"
    assert estimate.attention(_layout(), 24).kernel == "xla"
    forced = _layout(run__attention="splash", **changes)
    with pytest.raises(errors.InputError, match="run.attention is splash"):
        estimate.needs(forced, 24)


def test_meshes_and_batches_that_do_not_fit_are_refused():
    with pytest.raises(errors.InputError, match="does not fit the 8 device"):
        _layout(mesh__fsdp=3)
    with pytest.raises(errors.InputError, match="run.batch_size must be a multiple"):
        _layout(run__batch_size=9)
    with pytest.raises(errors.InputError, match="cannot be cut"):
        program.lay_out(
            small_programs.settings(mesh__data=1, mesh__fsdp=64, run__batch_size=64),
            topology.parse("h100:64"),
            for_compiling=False,
        )


def test_the_mesh_of_a_layout_has_no_devices():
    assert isinstance(_layout().mesh, sharding.AbstractMesh)
