import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec
from small_model import init_fn

from bert_jax import errors
from bert_jax.training import sharding


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((2, 2, 2), (2, 2, 2)),
        ((-1, 4, 1), (2, 4, 1)),
        ((1, 2, -1), (1, 2, 4)),
        ((1, 1, 1), (1, 1, 1)),
        ((3, 1, 1), (3, 1, 1)),
    ],
)
def test_mesh_sizes(sizes, shape):
    mesh = sharding.make_mesh(*sizes)
    assert tuple(mesh.shape.items()) == tuple(
        zip(("data", "fsdp", "tensor"), shape, strict=True)
    )
    assert mesh.axis_types == (AxisType.Auto,) * 3


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((9, 1, 1), "data=9 x fsdp=1 x tensor=1 does not fit the 8 device"),
        ((-1, 3, 1), "does not fit the 8 device"),
        ((-1, -1, 1), "only one mesh axis can be -1"),
    ],
)
def test_bad_mesh(sizes, words):
    with pytest.raises(errors.InputError) as caught:
        sharding.make_mesh(*sizes)
    assert words in str(caught.value)


def test_an_abstract_mesh_lays_out_states_for_devices_that_are_not_here():
    mesh = sharding.make_abstract_mesh(-1, 8, 2, num_devices=256)
    assert tuple(mesh.shape.values()) == (16, 8, 2)
    boxed = jax.eval_shape(init_fn, jax.random.key(0))
    placed = sharding.params_sharding(boxed, mesh)
    assert {leaf.mesh for leaf in jax.tree.leaves(placed)} == {mesh}
    with pytest.raises(errors.InputError, match="4 device"):
        sharding.make_abstract_mesh(-1, 3, 1, num_devices=4)


def test_only_the_axis_data_crosses_slices():
    devices = [types.SimpleNamespace(slice_index=n // 4) for n in range(8)]
    for sizes in ((1, 8, 1), (2, 2, 1), (4, 1, 1)):
        with pytest.raises(errors.InputError, match="mesh.data .*2"):
            sharding.make_mesh(*sizes, devices=devices)


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (RuntimeError("Unable to initialize backend 'cuda'"), "backend 'cuda'. Check"),
        (AssertionError(), "no platform that is installed. Check JAX_PLATFORMS"),
    ],
)
def test_no_devices(monkeypatch, raised, words):
    def devices():
        raise raised

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(errors.InputError, match=f"JAX finds no devices: .*{words}"):
        sharding.make_mesh(1, 1, 1)


def test_parameters_follow_the_rules():
    mesh = sharding.make_mesh(2, 2, 2)
    boxed = jax.eval_shape(init_fn, jax.random.key(0))
    found = jax.tree.map(lambda s: s.spec, sharding.params_sharding(boxed, mesh))
    assert found == {
        "embedding": PartitionSpec("tensor", "fsdp"),
        "layers": {
            "up": {"kernel": PartitionSpec(None, "fsdp", "tensor")},
            "down": {"kernel": PartitionSpec(None, "tensor", "fsdp")},
            "bias": PartitionSpec(None, "fsdp"),
            "scale": PartitionSpec(),
        },
    }


def box(shape, *names):
    return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)


def test_size_that_does_not_divide_names_parameter_and_axis():
    mesh = sharding.make_mesh(1, 2, 4)
    with pytest.raises(errors.InputError) as caught:
        sharding.params_sharding(
            {"head": {"kernel": box((6, 30), None, "vocab")}}, mesh
        )
    message = str(caught.value)
    assert "head/kernel of shape (6, 30)" in message
    assert "'vocab' of size 30: mesh.tensor is 4" in message


def test_logical_name_without_a_rule_is_refused():
    with pytest.raises(errors.InputError, match=r"w has logical .* \['embd'\]"):
        sharding.params_sharding({"w": box((6,), "embd")}, sharding.make_mesh())


@pytest.mark.parametrize(
    ("batch_size", "accumulation_steps"), [(12, 2), (4, 2), (0, 1), (13, 1)]
)
def test_batch_that_does_not_divide(batch_size, accumulation_steps):
    mesh = sharding.make_mesh(2, 2, 2)
    with pytest.raises(errors.InputError, match="run.batch_size"):
        sharding.check_batch_size(batch_size, accumulation_steps, mesh)


def test_batch_that_divides():
    mesh = sharding.make_mesh(2, 2, 2)
    sharding.check_batch_size(12, 3, mesh)
    with pytest.raises(errors.InputError, match="accumulation_steps"):
        sharding.check_batch_size(12, 0, mesh)


def test_place_cuts_rows_over_data_and_fsdp():
    mesh = sharding.make_mesh(2, 2, 2)
    rows = np.arange(24).reshape(8, 3)
    placed = sharding.to_devices({"ids": rows}, mesh)["ids"]
    assert placed.sharding.spec == PartitionSpec(("data", "fsdp"))
    np.testing.assert_array_equal(placed, rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}
    assert sharding.local_rows(8, mesh) == slice(0, 8)


def test_a_function_on_the_mesh_sees_mesh_and_rules():
    mesh = sharding.make_mesh(4, 2, 1)

    def constrain(x):
        return nn.with_logical_constraint(x, ("batch", "embed"))

    result = sharding.jit(constrain, mesh)(np.ones((16, 6), np.float32))
    assert result.sharding.spec == PartitionSpec(("data", "fsdp"))
    assert jax.sharding.get_mesh().empty


def test_a_program_that_is_compiled_ahead_is_the_one_that_runs():
    mesh = sharding.make_mesh(2, 1, 1)
    traced = []

    def double(scale, batch):
        traced.append(batch["x"].shape)
        return scale * batch["x"]

    step = sharding.jit(double, mesh)
    rows = {
        n: sharding.to_devices({"x": np.ones((n, 3), np.float32)}, mesh) for n in (2, 4)
    }
    step.compile(2.0, rows[4])
    np.testing.assert_array_equal(step(2.0, rows[4]), np.full((4, 3), 2.0))
    assert traced == [(4, 3)]
    np.testing.assert_array_equal(step(3.0, rows[2]), np.full((2, 3), 3.0))
    assert traced == [(4, 3), (2, 3)]
