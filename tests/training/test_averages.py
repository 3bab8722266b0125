"""Averages of parameters: by hand, on the mesh, through a checkpoint."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model

from bert_jax import errors
from bert_jax.training import checkpoint, optimizer, sharding, state

CONFIG = optimizer.OptimizerConfig(learning_rate=0.01)
DECAY = 0.8
OPTIMIZER = optimizer.make(CONFIG, 20, average_decay=DECAY)


def make_step(mesh, shapes):
    return state.make_train_step(
        state.StepSpec(small_model.prepare, small_model.weights, small_model.losses()),
        OPTIMIZER,
        optimizer.learning_rate(CONFIG, 20),
        shapes,
        seed=5,
    )


@pytest.fixture(scope="module")
def run():
    """Returns the shapes, the step, the state after 4 steps, and all parameters."""
    mesh = sharding.make_mesh(2, 2, 2)
    shapes = state.abstract(small_model.init_fn, OPTIMIZER, mesh)
    step = make_step(mesh, shapes)
    current = state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)

    def kept(current):
        average = optimizer.read_average(current.opt_state)
        return jax.device_get((current.params, average))

    seen = [kept(current)]
    for number in range(4):
        batch = sharding.to_devices(small_model.batch_at(number), mesh)
        current, _ = step(current, batch)
        seen.append(kept(current))
    return shapes, step, current, seen


def test_the_average_is_the_weighted_mean_of_the_parameters_after_each_step(run):
    *_, seen = run
    chex.assert_trees_all_close(seen[0][1], seen[0][0], rtol=0, atol=0)
    for last in range(1, 5):
        shares = np.array([DECAY ** (last - t) for t in range(1, last + 1)])
        shares /= shares.sum()
        params = [seen[t][0] for t in range(1, last + 1)]
        expected = jax.tree.map(
            lambda *xs, shares=shares: sum(
                s * x.astype(np.float64) for s, x in zip(shares, xs, strict=True)
            ),
            *params,
        )
        chex.assert_trees_all_close(seen[last][1], expected, rtol=1e-5, atol=1e-6)
    assert np.abs(seen[4][1]["embedding"] - seen[4][0]["embedding"]).max() > 1e-3


def test_averages_lie_where_the_parameters_lie(run):
    shapes, _, current, _ = run
    for tree in (shapes, current):
        average = optimizer.read_average(tree.opt_state)
        assert average is not None
        jax.tree.map(
            lambda x, y: (
                pytest.fail("cut otherwise") if x.sharding != y.sharding else None
            ),
            average,
            tree.params,
        )


def test_averages_survive_a_checkpoint(run, tmp_path):
    shapes, _, current, _ = run
    with checkpoint.Checkpoints(tmp_path, keep=1) as saved:
        saved.save(4, current, {})
        saved.wait()
        found, _ = saved.restore_latest(shapes)
    chex.assert_trees_all_close(found, current, rtol=0, atol=0)
    assert optimizer.read_average(found.opt_state) is not None


def test_they_change_no_update_and_what_stays_stays():
    params = {"kernel": jnp.full((2, 3), 0.1), "bias": jnp.full(3, 1 / 3)}
    scales = {"kernel": 1.0, "bias": 0.0}
    grads = jax.tree.map(jnp.ones_like, params)
    one = optimizer.make(CONFIG, 20, scales=scales)
    two = optimizer.make(CONFIG, 20, scales=scales, average_decay=DECAY)
    states = one.init(params), two.init(params)
    for _ in range(3):
        plain, first = one.update(grads, states[0], params)
        same, second = two.update(grads, states[1], params)
        states = first, second
        chex.assert_trees_all_close(same, plain, rtol=0, atol=0)
        params = jax.tree.map(jnp.add, params, same)
    average = optimizer.read_average(states[1])
    assert average is not None
    np.testing.assert_array_equal(average["bias"], params["bias"])
    assert (average["kernel"] > params["kernel"]).all()


def test_a_state_without_averages_has_none():
    params = {"kernel": jnp.ones((2, 3))}
    assert optimizer.read_average(optimizer.make(CONFIG, 20).init(params)) is None


@pytest.mark.parametrize("decay", [1.0, -0.1, 0.0, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(errors.InputError, match="above 0 and below 1"):
        optimizer.keep_average(decay)
