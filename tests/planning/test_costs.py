"""Costs by formula, and lower bounds of time."""

import pytest
import small_programs

from bert_jax import errors
from bert_jax.planning import costs, hlo, program, topology
from bert_jax.training import sharding

EIGHT = small_programs.topology_of(small_programs.H100, 8)


def _layout(**changes):
    settings = small_programs.settings(**{"mesh__data": -1, **changes})
    return program.lay_out(settings, EIGHT, for_compiling=False)


def test_the_mesh_shards_the_state():
    whole = _layout()
    assert whole.params_bytes == 4 * whole.num_params
    assert whole.optimizer_bytes == 8 * whole.num_params + 8  # and counts of steps
    sharded = _layout(mesh__fsdp=8)
    # Biases of heads and of the vocabulary have no axis `embed`: they are replicated.
    assert 4 / 8 < sharded.params_bytes / sharded.num_params < 4 / 6
    assert sharded.num_params == whole.num_params


def test_chips_share_the_work():
    one = program.lay_out(
        small_programs.settings(),
        small_programs.topology_of(small_programs.H100, 1),
        for_compiling=False,
    )
    assert costs.useful_flops(_layout(), 24) == costs.useful_flops(one, 24) / 8
    assert _layout().micro_batch_rows == 1 and one.micro_batch_rows == 8


def test_full_remat_is_a_third_more_work():
    plain, full = (_layout(run__remat=remat) for remat in ("none", "full"))
    needs = costs.by_formula(full, 24)
    assert needs.flops == needs.useful_flops * 4 / 3
    assert needs.temporary_bytes < costs.by_formula(plain, 24).temporary_bytes
    assert needs.useful_flops == costs.by_formula(plain, 24).flops


def test_collectives_of_each_mesh():
    gradients = _layout().params_bytes
    (one,) = costs.by_formula(_layout(), 24).collectives
    assert (one.kind, one.group, one.count) == ("all-reduce", 8, 1)
    assert one.sent == gradients * 2 * 7 / 8
    mixed = _layout(mesh__fsdp=2, mesh__tensor=2, model__num_attention_heads=2)
    each = costs.by_formula(mixed, 24).collectives
    assert [(x.kind, x.group, x.count) for x in each] == [
        ("all-reduce", 2, 1),
        ("all-gather", 2, 2),
        ("reduce-scatter", 2, 1),
        ("all-reduce", 2, 8),  # 4 a layer
    ]
    assert each[3].bytes == 8 * mixed.micro_batch_rows * 24 * 32 * 4
    parts = _layout(run__batch_size=32, run__accumulation_steps=4)
    assert costs.by_formula(parts, 24).collectives[0].count == 4


def test_the_attention_kernel_is_that_of_the_planned_chips():
    changes = {"run__dtype": "bfloat16", "model__attention_probs_dropout_prob": 0.0}
    assert costs.attention_kernel(_layout(**changes), 24).kernel == "cudnn"
    assert costs.attention_kernel(_layout(), 24).kernel == "xla"
    forced = _layout(run__attention="splash", **changes)
    with pytest.raises(errors.InputError, match="run.attention"):
        costs.by_formula(forced, 24)


def test_meshes_and_batches_that_do_not_fit_are_errors():
    with pytest.raises(errors.InputError, match="8 device"):
        _layout(mesh__fsdp=3)
    with pytest.raises(errors.InputError, match="run.batch_size"):
        _layout(run__batch_size=9)
    with pytest.raises(errors.InputError):
        program.lay_out(
            small_programs.settings(mesh__data=1, mesh__fsdp=64, run__batch_size=64),
            topology.parse("h100:64"),
            for_compiling=False,
        )


def test_the_mesh_of_a_layout_has_no_devices():
    assert isinstance(_layout().mesh, sharding.AbstractMesh)


def _cost(flops=0.0, moved=0.0, collectives=()):
    return costs.StepCost(flops / 2, flops, moved, collectives, 0.0, 0.0)


def _all_reduce(group, size):
    sent = hlo.sent_bytes("all-reduce", group, size)
    return hlo.Collective("all-reduce", group, 1, float(size), sent)


V5E = topology.parse("v5e:16x16")  # 197 TFLOP/s, 819 GB/s, 200 GB/s each way


@pytest.mark.parametrize(
    ("cost", "bound", "seconds", "utilization"),
    [
        (_cost(197e12, 81.9e9), "compute", 1.0, 0.5),
        (_cost(98.5e12, 819e9), "memory", 1.0, 0.25),
        (
            _cost(9.85e12, 8.19e9, (_all_reduce(256, 100e9),)),
            "communication",
            0.996,
            0.0251,
        ),
    ],
)
def test_the_step_takes_as_long_as_its_longest_part(cost, bound, seconds, utilization):
    time = costs.step_time(cost, V5E)
    assert time.bound == bound
    assert time.seconds == pytest.approx(seconds, rel=1e-3)
    assert time.utilization == pytest.approx(utilization, rel=1e-2)


def test_groups_larger_than_a_slice_use_the_network_too():
    two = topology.parse("v5e:4x4*2")
    seconds = costs.collective_seconds(_all_reduce(32, 16e9), two)
    inside = 2 * 15 / 16 * 16e9 / 200e9
    between = 2 * 1 / 2 * 1e9 / 3.125e9  # each chip sends its sixteenth
    assert seconds == pytest.approx(inside + between)
    assert costs.collective_seconds(_all_reduce(16, 16e9), two) == inside


def test_machines_of_eight_gpus():
    many = small_programs.topology_of(small_programs.H100, 16)
    seconds = costs.collective_seconds(_all_reduce(16, 8e9), many)
    assert seconds == pytest.approx(2 * 7 / 8 * 8e9 / 450e9 + 1e9 / 50e9)
