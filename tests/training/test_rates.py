"""Rates by layer as numbers one can check by eye, freezing, and fresh top layers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model

from bert_jax import errors
from bert_jax.training import optimizer, sharding, state

PARAMS = {
    "encoder": {
        "embeddings": {
            "word": {"embedding": np.zeros((5, 2))},
            "layer_norm": {"scale": np.zeros(2), "bias": np.zeros(2)},
        },
        "layers": {"mlp": {"kernel": np.zeros((3, 2, 4)), "bias": np.zeros((3, 4))}},
    },
    "pooler": {"dense": {"kernel": np.zeros((2, 2))}},
    "classifier": {"dense": {"kernel": np.zeros((2, 7))}},
}
BELOW = ("encoder", "embeddings")


def scales(**options):
    """Returns (of the embeddings, of the layers, of the pooler, of the classifier)."""
    made = optimizer.layer_scales(PARAMS, num_layers=3, below=BELOW, **options)
    below = jax.tree.leaves(made["encoder"]["embeddings"])
    assert len(below) == 3 and len(set(below)) == 1
    mlp = made["encoder"]["layers"]["mlp"]
    assert mlp["kernel"].shape == (3, 1, 1) and mlp["bias"].shape == (3, 1)
    np.testing.assert_array_equal(mlp["kernel"].ravel(), mlp["bias"].ravel())
    heads = [made[part]["dense"]["kernel"] for part in ("pooler", "classifier")]
    return below[0], mlp["bias"].ravel().tolist(), *heads


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1.0, [1.0, 1.0, 1.0], 1.0, 1.0)),
        ({"layer_decay": 0.5}, (0.125, [0.25, 0.5, 1.0], 1.0, 1.0)),
        ({"frozen_layers": 2}, (0.0, [0.0, 0.0, 1.0], 1.0, 1.0)),
        ({"frozen_layers": 3}, (0.0, [0.0, 0.0, 0.0], 1.0, 1.0)),
        ({"freeze_below": True}, (0.0, [1.0, 1.0, 1.0], 1.0, 1.0)),
        (
            {"frozen_layers": 1, "layer_decay": 0.5},
            (0.0, [0.0, 0.5, 1.0], 1.0, 1.0),
        ),
    ],
    ids=str,
)
def test_scales(options, expected):
    assert scales(**options) == expected


def test_of_trained_parts_all_else_is_frozen():
    made = optimizer.layer_scales(
        PARAMS, num_layers=3, below=BELOW, trained_parts=("classifier",)
    )
    assert jax.tree.leaves(made) == [1.0, *[0.0] * 6]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_layers": 12}, "12 layers share the parameters of 3 here"),
        ({"layer_decay": 0.0}, "above 0 and at most 1"),
        ({"layer_decay": 1.5}, "above 0 and at most 1"),
        ({"frozen_layers": 4}, "this model has 3"),
        ({"frozen_layers": -1}, "this model has 3"),
        (
            {"trained_parts": ("classifier", "tagger")},
            "classifier, encoder, pooler",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(errors.InputError) as caught:
        optimizer.layer_scales(PARAMS, **{"num_layers": 3, "below": BELOW} | options)
    assert words in str(caught.value)


def train(steps, **options):
    """Returns the parameters before and after steps, and the last metrics."""
    mesh = sharding.make_mesh(2, 2, 2)
    config = optimizer.OptimizerConfig(learning_rate=0.01)
    plain = optimizer.make(config, 20)
    params = state.abstract(small_model.init_fn, plain, mesh).params
    given = optimizer.layer_scales(
        params, num_layers=3, below=("embedding",), **options
    )
    optim = optimizer.make(config, 20, scales=given)
    step = state.make_train_step(
        state.StepSpec(
            small_model.prepare,
            small_model.weights,
            small_model.losses(0.1),
            accumulation_steps=2,
            scales=given,
        ),
        optim,
        optimizer.learning_rate(config, 20),
        state.abstract(small_model.init_fn, optim, mesh),
        seed=5,
    )
    current = state.create(small_model.init_fn, jax.random.key(0), optim, mesh)
    before = jax.device_get(current.params)
    metrics = {}
    for number in range(steps):
        batch = sharding.to_devices(small_model.batch_at(number), mesh)
        current, metrics = step(current, batch)
    return before, jax.device_get(current.params), jax.device_get(metrics)


def test_frozen_layers_stay_to_the_bit_and_the_others_learn():
    before, after, metrics = train(3, frozen_layers=2)
    np.testing.assert_array_equal(after["embedding"], before["embedding"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(after["layers"]):
        was = before["layers"]
        for key in path:
            was = was[key.key]
        np.testing.assert_array_equal(leaf[:2], was[:2])
        assert (leaf[2] != was[2]).any()
    # All that counts as the gradient is that of the top layer.
    everything = train(3, layer_decay=1.0)[2]
    assert 0 < metrics["grad_norm"][0] < 0.7 * everything["grad_norm"][0]


def test_adam_steps_shrink_by_layer():
    """The first step of Adam is the rate itself, wherever there is a gradient."""
    before, after, _ = train(1, layer_decay=0.5)
    moved = np.abs(after["layers"]["bias"] - before["layers"]["bias"]).max(axis=1)
    np.testing.assert_allclose(moved, [0.0025, 0.005, 0.01], rtol=2e-3)


def test_top_layers_are_replaced_and_nothing_else():
    rng = np.random.default_rng(1)
    one, two = (
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), PARAMS)
        for _ in range(2)
    )
    found = optimizer.replace_top_layers(one, two, 2, num_layers=3)
    for name in ("kernel", "bias"):
        old, new, made = (
            t["encoder"]["layers"]["mlp"][name] for t in (one, two, found)
        )
        np.testing.assert_array_equal(made[0], old[0])
        np.testing.assert_array_equal(made[1:], new[1:])
    for part in ("pooler", "classifier"):
        chex.assert_trees_all_equal(found[part], one[part])
    same = optimizer.replace_top_layers(one, two, 0, num_layers=3)
    chex.assert_trees_all_equal(same, one)
    for count, num_layers in ((4, 3), (-1, 3), (1, 12)):
        with pytest.raises(errors.InputError):
            optimizer.replace_top_layers(one, two, count, num_layers=num_layers)


def test_stacks_with_fewer_rows_are_of_the_top_layers():
    """As a norm that the first layer lacks."""
    layers = {"kernel": np.zeros((3, 2, 4)), "scale": np.zeros((2, 4))}
    tree = {"layers": layers}
    made = optimizer.layer_scales(tree, num_layers=3, below=(), layer_decay=0.5)
    assert made["layers"]["kernel"].ravel().tolist() == [0.25, 0.5, 1.0]
    assert made["layers"]["scale"].shape == (2, 1)
    assert made["layers"]["scale"].ravel().tolist() == [0.5, 1.0]
    ones = {"layers": {name: leaf + 1 for name, leaf in layers.items()}}
    for count, expected in ((1, [0, 1]), (2, [1, 1]), (3, [1, 1])):
        found = optimizer.replace_top_layers(tree, ones, count, num_layers=3)["layers"]
        assert found["scale"][:, 0].tolist() == expected
        assert found["kernel"][:, 0, 0].sum() == count
