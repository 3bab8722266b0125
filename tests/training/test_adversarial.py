"""The second gradient: by hand, with dropout, accumulated, and of a frozen table."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_model

from bert_jax import errors
from bert_jax.training import optimizer, sharding, state

CONFIG = optimizer.OptimizerConfig(learning_rate=0.01, max_grad_norm=1e9)
SCHEDULE = optimizer.learning_rate(CONFIG, 20)
MOVED = state.Adversarial(("embedding",), 0.7)


def scales_of(params):
    """Returns 0 for the table and 1 for the layers."""
    return {
        "embedding": 0.0,
        "layers": jax.tree.map(lambda _: 1.0, params["layers"]),
    }


def step_once(mesh, dropout=0.0, frozen=False, **options):
    """Returns the parameters before and after a step, and its metrics.

    The optimizer is plain descent, so that the difference is the gradient.
    """
    descent = optax.sgd(1.0)
    shapes = state.abstract(small_model.init_fn, descent, mesh)
    step = state.make_train_step(
        state.StepSpec(
            small_model.prepare,
            small_model.weights,
            small_model.losses(dropout),
            scales=scales_of(shapes.params) if frozen else None,
            **options,
        ),
        descent,
        SCHEDULE,
        shapes,
        seed=5,
    )
    current = state.create(small_model.init_fn, jax.random.key(0), descent, mesh)
    before = jax.device_get(current.params)
    after, metrics = step(current, sharding.to_devices(small_model.batch_at(0), mesh))
    return before, jax.device_get(after.params), jax.device_get(metrics)


def expected_gradient(params, dropout):
    """Returns g(params) + g(params moved along g), and the clean loss."""
    prepare_key, key = jax.random.split(jax.random.fold_in(jax.random.key(5), 0))
    batch = small_model.prepare(small_model.batch_at(0), prepare_key)
    weights = small_model.weights(batch)

    def loss(params):
        sums, _ = small_model.losses(dropout)(params, batch, key)
        return sums["token"] / weights["token"] + sums["row"] / weights["row"]

    value, clean = jax.value_and_grad(loss)(params)
    table = np.asarray(clean["embedding"], np.float64)
    moved = params["embedding"] + 0.7 * table / np.sqrt((table**2).sum())
    moved = params | {"embedding": jnp.asarray(moved, jnp.float32)}
    return jax.tree.map(jnp.add, clean, jax.grad(loss)(moved)), value


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_step_goes_along_both_gradients_and_the_loss_is_the_clean_one(dropout):
    mesh = sharding.make_mesh(1, 1, 1)
    before, after, metrics = step_once(mesh, dropout, adversarial=MOVED)
    wanted, loss = expected_gradient(before, dropout)
    found = jax.tree.map(lambda a, b: a - b, before, after)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert metrics["loss"][0] == pytest.approx(float(loss), rel=1e-6)
    _, _, plain = step_once(mesh, dropout)
    assert metrics["loss"][0] == plain["loss"][0]
    assert metrics["accuracy"] == plain["accuracy"]
    assert metrics["grad_norm"][0] > 1.2 * plain["grad_norm"][0]


@pytest.mark.parametrize(
    "sizes", [pytest.param((1, 1, 1), marks=pytest.mark.slow), (2, 2, 2)]
)
def test_accumulation_equals_the_large_batch(sizes):
    mesh = sharding.make_mesh(*sizes)
    one = step_once(mesh, adversarial=MOVED)
    many = step_once(mesh, adversarial=MOVED, accumulation_steps=4)
    chex.assert_trees_all_close(many, one, rtol=1e-4, atol=1e-6)


def test_a_frozen_table_is_perturbed_all_the_same():
    mesh = sharding.make_mesh(1, 1, 1)
    before, after, _ = step_once(mesh, frozen=True, adversarial=MOVED)
    np.testing.assert_array_equal(after["embedding"], before["embedding"])
    wanted, _ = expected_gradient(before, 0.0)
    found = jax.tree.map(lambda a, b: a - b, before, after)
    chex.assert_trees_all_close(found["layers"], wanted["layers"], rtol=1e-4, atol=1e-5)


def test_a_gradient_of_zero_moves_nothing():
    params = {"embedding": jnp.ones((3, 2)), "kernel": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    chex.assert_trees_all_close(MOVED.move(params, zeros), params, rtol=0, atol=0)


def test_what_is_not_there_and_no_length_are_refused():
    params = {"encoder": {"embedding": jnp.ones((3, 2))}}
    with pytest.raises(ValueError, match="there is no parameter embedding"):
        MOVED.move(params, params)
    for epsilon in (0.0, -1.0, float("nan")):
        with pytest.raises(errors.InputError, match="must be above 0"):
            state.Adversarial(("embedding",), epsilon)
