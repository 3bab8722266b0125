import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_model
from jax.sharding import PartitionSpec

from bert_jax import errors
from bert_jax.training import optimizer, sharding, state

CONFIG = optimizer.OptimizerConfig(learning_rate=0.01, name="lamb")
OPTIMIZER = optimizer.make(CONFIG, 100)
SCHEDULE = optimizer.learning_rate(CONFIG, 100)


def shapes_on(mesh, init_fn=small_model.init_fn):
    return state.abstract(init_fn, OPTIMIZER, mesh)


def make_step(
    mesh,
    *,
    accumulation_steps=1,
    dropout=0.0,
    prepare=small_model.prepare,
    losses=None,
):
    return state.make_train_step(
        state.StepSpec(
            prepare,
            small_model.weights,
            losses or small_model.losses(dropout),
            accumulation_steps=accumulation_steps,
        ),
        OPTIMIZER,
        SCHEDULE,
        shapes_on(mesh),
        seed=5,
    )


def train(mesh, steps, **options):
    """Returns the state and the list of metrics after some steps on a mesh."""
    train_step = make_step(mesh, **options)
    current = state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)
    metrics = []
    for step in range(steps):
        batch = sharding.to_devices(small_model.batch_at(step), mesh)
        current, found = train_step(current, batch)
        metrics.append(jax.device_get(found))
    assert train_step.jitted._cache_size() == 1
    return current, metrics


def test_state_is_born_sharded_unboxed_and_at_step_zero():
    mesh = sharding.make_mesh(2, 2, 2)
    found = state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)
    assert int(found.step) == 0
    assert sorted(found.params["layers"]) == ["bias", "down", "scale", "up"]
    kernel = found.params["layers"]["up"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    assert kernel.addressable_shards[0].data.shape == (3, 4, 6)
    moments = optax.tree.get(found.opt_state, "mu")
    assert moments["layers"]["up"]["kernel"].sharding == kernel.sharding
    for leaf, shape in zip(
        jax.tree.leaves(found), jax.tree.leaves(shapes_on(mesh)), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)


def test_state_does_not_depend_on_the_mesh():
    key = jax.random.key(3)
    one, many = (
        state.create(small_model.init_fn, key, OPTIMIZER, sharding.make_mesh(*sizes))
        for sizes in ((1, 1, 1), (2, 2, 2))
    )
    chex.assert_trees_all_close(one, many, rtol=0, atol=0)


@pytest.mark.parametrize(
    "sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)]
)
def test_every_mesh_gives_the_same_training_with_dropout(sizes):
    one, metrics_one = train(sharding.make_mesh(1, 1, 1), 5, dropout=0.2)
    many, metrics_many = train(sharding.make_mesh(*sizes), 5, dropout=0.2)
    chex.assert_trees_all_close(metrics_many, metrics_one, rtol=1e-5)
    chex.assert_trees_all_close(many.params, one.params, rtol=1e-4, atol=1e-5)


def test_muon_on_every_mesh_is_muon_on_one_device(monkeypatch):
    """Its steps are of whole matrices, its momentum is sharded as they are."""
    config = dataclasses.replace(CONFIG, name="muon")
    monkeypatch.setitem(globals(), "OPTIMIZER", optimizer.make(config, 100))
    one, metrics_one = train(sharding.make_mesh(1, 1, 1), 5)
    many, metrics_many = train(sharding.make_mesh(2, 2, 2), 5)
    chex.assert_trees_all_close(metrics_many, metrics_one, rtol=1e-5)
    chex.assert_trees_all_close(many.params, one.params, rtol=1e-3, atol=1e-5)
    layers = many.params["layers"]["up"]["kernel"]
    momentum = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(many.opt_state)
        if optimizer.keys(path)[-3:] == ("layers", "up", "kernel")
    ]
    assert [leaf.sharding for leaf in momentum] == [layers.sharding]


@pytest.mark.parametrize(
    "sizes", [pytest.param((1, 1, 1), marks=pytest.mark.slow), (2, 2, 2)]
)
def test_accumulation_equals_the_large_batch(sizes):
    mesh = sharding.make_mesh(*sizes)
    large, metrics_large = train(mesh, 3)
    accumulated, metrics = train(mesh, 3, accumulation_steps=4)
    chex.assert_trees_all_close(metrics, metrics_large, rtol=1e-5)
    chex.assert_trees_all_close(accumulated.params, large.params, rtol=1e-4, atol=1e-6)


def test_the_micro_batches_of_that_test_weigh_differently():
    batch = small_model.batch_at(0)
    batch = small_model.prepare(batch, jax.random.key(1))
    counts = [float(batch["chosen"][a::4].sum()) for a in range(4)]
    assert len(set(counts)) > 1


def test_micro_batches_are_strided_rows():
    mesh = sharding.make_mesh(2, 1, 1)
    with jax.set_mesh(mesh):
        split = jax.jit(lambda x: state._split(x, 2, mesh, sharding.BATCH_AXES))(
            {"ids": np.arange(8)}
        )
    np.testing.assert_array_equal(split["ids"], [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_keys_differ_between_steps_and_micro_batches():
    def draws(params, batch, key):
        draw = jax.random.uniform(key)
        sums = {"token": 0.0 * params["embedding"][0, 0], "row": draw}
        return sums, {"draw": (draw, 1.0), "square": (draw**2, 1.0)}

    mesh = sharding.make_mesh(1, 1, 1)
    train_step = make_step(mesh, accumulation_steps=2, losses=draws)
    current = state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)
    current, one = train_step(current, small_model.batch_at(0))
    _, two = train_step(current, small_model.batch_at(0))
    assert one["draw"][0] != two["draw"][0]
    # a + b and a * a + b * b of the two micro-batches fit together only if a == b.
    (total, weight), (square, _) = one["draw"], one["square"]
    assert weight == 2 and abs(total**2 - 2 * square) > 1e-4


def test_metrics_are_sums_and_values():
    _, (metrics,) = train(sharding.make_mesh(1, 1, 1), 1)
    assert set(metrics) == {
        "accuracy", "loss", "grad_norm", "learning_rate", "finite"
    }  # fmt: skip
    assert metrics["accuracy"][1] == pytest.approx(0.33 * 16 * 7, rel=0.3)
    assert metrics["loss"][1] == metrics["grad_norm"][1] == 1
    assert metrics["learning_rate"] == pytest.approx(0.01)
    assert metrics["finite"].all()


def test_loss_is_the_sum_over_the_weight_of_the_whole_batch():
    mesh = sharding.make_mesh(1, 1, 1)
    fresh = state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)
    # The key of step 0 under seed 5, as documented; its first part draws the masks.
    key = jax.random.split(jax.random.fold_in(jax.random.key(5), 0))[0]
    batch = small_model.prepare(small_model.batch_at(0), key)
    sums, _ = small_model.losses()(fresh.params, batch, key)
    expected = float(sums["token"]) / float(batch["chosen"].sum()) + float(
        sums["row"]
    ) / float(batch["row_weight"].sum())
    _, (metrics,) = train(mesh, 1)
    assert metrics["loss"][0] == pytest.approx(expected, rel=1e-6)


def test_batch_without_any_weight_is_harmless():
    def nothing(batch, key):
        del key  # nothing is drawn
        return batch | {"chosen": jnp.zeros_like(batch["ids"], jnp.float32)}

    current, metrics = train(sharding.make_mesh(1, 1, 1), 1, prepare=nothing)
    assert metrics[0]["accuracy"] == (0, 0)
    assert metrics[0]["finite"].all() and int(current.step) == 1


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_the_count_of_steps_alone(poison):
    mesh = sharding.make_mesh(2, 2, 2)
    current, _ = train(mesh, 2)
    before = jax.device_get(current)
    batch = small_model.batch_at(2)
    batch["row_weight"][11] = poison
    after, metrics = make_step(mesh)(current, sharding.to_devices(batch, mesh))
    assert not metrics["finite"].all()
    counted = before._replace(step=before.step + 1)
    chex.assert_trees_all_close(jax.device_get(after), counted, rtol=0, atol=0)


def test_a_step_is_a_function_of_seed_and_step_alone():
    mesh = sharding.make_mesh(1, 1, 1)
    one, _ = train(mesh, 4, dropout=0.3)
    two, _ = train(mesh, 4, dropout=0.3)
    chex.assert_trees_all_close(one, two, rtol=0, atol=0)


def test_state_is_donated():
    mesh = sharding.make_mesh(1, 1, 1)
    current = state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)
    make_step(mesh)(current, sharding.to_devices(small_model.batch_at(0), mesh))
    assert current.params["embedding"].is_deleted()


def test_from_params_starts_anew_with_given_weights():
    mesh = sharding.make_mesh(2, 2, 2)
    trained, _ = train(mesh, 3)
    params = jax.device_get(trained.params)
    found = state.from_params(params, shapes_on(mesh), OPTIMIZER)
    assert int(found.step) == 0
    chex.assert_trees_all_close(found.params, params, rtol=0, atol=0)
    assert float(optax.tree.norm(optax.tree.get(found.opt_state, "mu"))) == 0
    assert jax.tree.map(lambda x: x.sharding, found.params) == jax.tree.map(
        lambda x: x.sharding, shapes_on(mesh).params
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embedding": np.zeros((27, 8), np.float32)}, "embedding as float32[27, 8]"),
        ({"embedding": np.zeros((26, 8), np.float16)}, "embedding as float16[26, 8]"),
        ({"pooler": np.zeros(8, np.float32)}, "has pooler, which this model lacks"),
        ({"layers": {}}, "lacks layers/bias, which this model has"),
    ],
)
def test_given_weights_that_do_not_fit(change, words):
    mesh = sharding.make_mesh(1, 1, 1)
    fresh = state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)
    params = jax.device_get(fresh.params) | change
    with pytest.raises(errors.InputError) as caught:
        state.from_params(params, shapes_on(mesh), OPTIMIZER)
    assert words in str(caught.value)


def test_names_of_losses_and_weights_must_agree():
    train_step = state.make_train_step(
        state.StepSpec(
            small_model.prepare,
            lambda batch: {"token": jnp.sum(batch["chosen"])},
            small_model.losses(),
        ),
        OPTIMIZER,
        SCHEDULE,
        shapes_on(sharding.make_mesh(1, 1, 1)),
        seed=0,
    )
    with pytest.raises(ValueError, match="row"):
        train_step.lower(
            shapes_on(sharding.make_mesh(1, 1, 1)), small_model.batch_at(0)
        )
