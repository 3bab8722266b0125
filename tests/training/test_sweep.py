"""Each member of a sweep beside its own single run, on one device and on several."""

import chex
import jax
import numpy as np
import pytest
import small_model

from bert_jax.training import optimizer, sharding, state, sweep

SEEDS, PEAKS, STEPS = (5, 9, 5), (0.01, 0.01, 0.003), 5
CONFIG = optimizer.OptimizerConfig(learning_rate=0.5, warmup_steps=2)
BELOW = ("embedding",)


def recipe(peak, scales=None):
    config = CONFIG
    made = optimizer.make(
        config, 20, peak=peak, scales=scales, average_decay=0.9 if scales else 0.0
    )
    return made, optimizer.learning_rate(config, 20, peak=peak)


def scales_of(mesh):
    params = state.abstract(small_model.init_fn, recipe(1.0)[0], mesh).params
    return optimizer.layer_scales(
        params, num_layers=3, below=BELOW, layer_decay=0.5, frozen_layers=1
    )


def batch_of(step, member, poison=None):
    """Returns the batch of a member, as if each had a fold of its own."""
    batch = small_model.batch_at(100 * member + step)
    if poison == (step, member):
        batch["row_weight"][3] = np.nan
    return batch


def single(mesh, member, poison=None, scales=None, **options):
    """Returns the last state and the metrics of a run of its own."""
    made, schedule = recipe(PEAKS[member], scales)
    step = state.make_train_step(
        state.StepSpec(
            small_model.prepare,
            small_model.weights,
            small_model.losses(0.2),
            scales=scales,
            **options,
        ),
        made,
        schedule,
        state.abstract(small_model.init_fn, made, mesh),
        seed=SEEDS[member],
    )
    current = state.create(small_model.init_fn, jax.random.key(member), made, mesh)
    metrics = []
    for number in range(STEPS):
        batch = sharding.to_devices(batch_of(number, member, poison), mesh)
        current, found = step(current, batch)
        metrics.append(jax.device_get(found))
    return jax.device_get(current), metrics


def together(mesh, members=3, poison=None, scales=None, at_once=0, **options):
    """Returns the last states and the metrics of all members, and the shapes of one."""
    made, _ = recipe(1.0, scales)
    shapes = state.abstract(small_model.init_fn, made, mesh)
    step = sweep.make_sweep_step(
        state.StepSpec(
            small_model.prepare,
            small_model.weights,
            small_model.losses(0.2),
            scales=scales,
            **options,
        ),
        lambda peak: recipe(peak, scales),
        shapes,
        seeds=[SEEDS[m % 3] for m in range(members)],
        peaks=[PEAKS[m % 3] for m in range(members)],
        at_once=at_once,
    )
    fresh = [
        state.create(small_model.init_fn, jax.random.key(m % 3), made, mesh)
        for m in range(members)
    ]
    current, metrics = sweep.stack(fresh, shapes), []
    for number in range(STEPS):
        batches = [batch_of(number, m % 3, poison) for m in range(members)]
        current, found = step(current, sweep.to_devices(batches, mesh))
        metrics.append(jax.device_get(found))
    assert step.jitted._cache_size() == 1
    return current, metrics, shapes


def assert_members_are_single_runs(current, metrics, shapes, singles):
    for index in range(metrics[0]["finite"].shape[0]):
        expected, expected_metrics = singles[index % 3]
        found = jax.device_get(sweep.member(current, index, shapes))
        chex.assert_trees_all_close(found, expected, rtol=0, atol=1e-6)
        for one, other in zip(metrics, expected_metrics, strict=True):
            own = jax.tree.map(lambda x, at=index: x[at], one)
            chex.assert_trees_all_close(own, other, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def singles():
    mesh = sharding.make_mesh(1, 1, 1)
    return [single(mesh, member) for member in range(3)]


def test_each_member_equals_its_own_run(singles):
    current, metrics, shapes = together(sharding.make_mesh(1, 1, 1))
    assert_members_are_single_runs(current, metrics, shapes, singles)
    params = [run.params["embedding"] for run, _ in singles]
    assert all(np.abs(params[0] - other).max() > 1e-3 for other in params[1:])


# Members on devices of their own; members whole everywhere with their rows cut; both
# with parameters that are cut.
@pytest.mark.parametrize(
    ("sizes", "members"),
    [
        ((2, 1, 1), 6),
        pytest.param((3, 2, 1), 3, marks=pytest.mark.slow),
        pytest.param((2, 1, 1), 3, marks=pytest.mark.slow),
        ((2, 2, 2), 3),
    ],
)
def test_every_mesh_gives_the_same_members(singles, sizes, members):
    mesh = sharding.make_mesh(*sizes)
    current, metrics, shapes = together(mesh, members)
    assert_members_are_single_runs(current, metrics, shapes, singles)
    table = current.params["embedding"]
    held = table.addressable_shards[0].data.shape[0]
    spread = sweep.are_spread(members, mesh)
    assert held == (members // sizes[0] if spread else members)
    wanted = sweep.abstract(shapes, members)
    for leaf, shape in zip(
        jax.tree.leaves(current), jax.tree.leaves(wanted), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)


@pytest.mark.parametrize(
    ("devices", "members", "at_once"),
    [
        (1, 3, 2),
        pytest.param(1, 3, 1, marks=pytest.mark.slow),
        pytest.param(3, 6, 1, marks=pytest.mark.slow),
    ],
)
def test_members_in_turn_are_the_same(singles, devices, members, at_once):
    mesh = sharding.make_mesh(devices, 1, 1)
    current, metrics, shapes = together(mesh, members, at_once=at_once)
    assert_members_are_single_runs(current, metrics, shapes, singles)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 1, 1)])
def test_members_equal_their_runs_under_all_recipes(sizes):
    mesh = sharding.make_mesh(*sizes)
    options = {
        "accumulation_steps": 2,
        "adversarial": state.Adversarial(BELOW, 0.5),
        "scales": scales_of(mesh),
    }
    alone = sharding.make_mesh(1, 1, 1)
    singles = [single(alone, member, **options) for member in range(3)]
    current, metrics, shapes = together(mesh, **options)
    assert_members_are_single_runs(current, metrics, shapes, singles)
    found = optimizer.read_average(current.opt_state)
    assert found is not None and found["embedding"].shape == (3, 26, 8)


def test_a_member_that_is_not_finite_is_left_alone(singles):
    """Member 1 meets a NaN at its third step; the others do not notice."""
    mesh = sharding.make_mesh(1, 1, 1)
    current, metrics, shapes = together(mesh, poison=(2, 1))
    finite = np.stack([found["finite"].all(axis=1) for found in metrics])
    assert finite.sum() == STEPS * 3 - 1 and not finite[2, 1]
    np.testing.assert_array_equal(current.step, [5, 5, 5])
    expected, _ = single(mesh, 1, poison=(2, 1))
    found = jax.device_get(sweep.member(current, 1, shapes))
    chex.assert_trees_all_close(found, expected, rtol=0, atol=1e-6)
    for index in (0, 2):
        found = jax.device_get(sweep.member(current, index, shapes))
        chex.assert_trees_all_close(found, singles[index][0], rtol=0, atol=1e-6)


def test_a_rate_for_every_seed():
    mesh = sharding.make_mesh(1, 1, 1)
    shapes = state.abstract(small_model.init_fn, recipe(1.0)[0], mesh)
    with pytest.raises(ValueError, match="2 seeds but 1 learning rates"):
        sweep.make_sweep_step(
            state.StepSpec(
                small_model.prepare, small_model.weights, small_model.losses()
            ),
            recipe,
            shapes,
            seeds=[1, 2],
            peaks=[0.1],
        )
