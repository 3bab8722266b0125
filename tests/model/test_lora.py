"""Updates of low rank: flattened as the layers see kernels, and what they add."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import errors
from bert_jax.model import config, layers, network

BERT = config.BertConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=17,
    max_position_embeddings=11,
)
RANK = 5
# Module -> (inputs, outputs) of its kernel as a matrix.
KERNELS = {
    "attention/query": (12, 12),
    "attention/key": (12, 12),
    "attention/value": (12, 12),
    "attention/output": (12, 12),
    "intermediate": (12, 17),
    "output": (17, 12),
}


def params_of():
    shapes = network.shapes(BERT, ("encoder",), 2)
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(6)
    made = [jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(tree, made)


def at(tree, path):
    for key in path.split("/"):
        tree = tree[key]
    return tree


def full(names, seed=1):
    """Returns updates whose A and B are both drawn."""
    made = network.init_lora(jax.random.key(seed), params_of(), names, RANK)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), made
    )


def test_updates_have_the_kernels_inputs_and_outputs_and_begin_at_nothing():
    params = params_of()
    made = network.init_lora(jax.random.key(3), params, list(KERNELS), RANK)
    for path, (inputs, outputs) in KERNELS.items():
        update = at(made["encoder"]["layers"], path)
        assert update["lora_a"].shape == (2, inputs, RANK)
        assert update["lora_b"].shape == (2, RANK, outputs)
        assert not update["lora_b"].any()
        deviation = float(jnp.std(update["lora_a"])) * inputs**0.5
        assert 0.75 < deviation < 1.25
    draws = [leaf for leaf in jax.tree.leaves(made) if leaf.any()]
    assert len({float(leaf.ravel()[0]) for leaf in draws}) == len(KERNELS)
    merged = network.merge_lora(params, made, 16.0)
    chex.assert_trees_all_equal(merged, params)


def test_a_merged_kernel_is_the_sum_of_matrices():
    params, update = params_of(), full(["attention/output", "intermediate"])
    found = network.merge_lora(params, update, 10)["encoder"]["layers"]
    for path, (inputs, outputs) in KERNELS.items():
        kernel = np.asarray(at(params["encoder"]["layers"], path)["kernel"])
        expected = kernel.reshape(2, inputs, outputs)
        if path in ("attention/output", "intermediate"):
            ab = at(update["encoder"]["layers"], path)
            product = np.asarray(ab["lora_a"]) @ np.asarray(ab["lora_b"])
            expected = expected + 10 / RANK * product
        made = np.asarray(at(found, path)["kernel"])
        assert made.shape == kernel.shape
        made = made.reshape(2, inputs, outputs)
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", ["attention/query", "attention/output", "output"])
def test_the_matrix_is_the_one_that_the_layer_multiplies_with(path):
    """x (W + A B) = x W + (x A) B, by the layer's own projection."""
    params, update = params_of(), full([path])
    equation, inner, outer = {
        "attention/query": ("BLD,DNH->BLNH", (12,), (3, 4)),
        "attention/output": ("BLNH,NHD->BLD", (3, 4), (12,)),
        "output": ("BLF,FD->BLD", (17,), (12,)),
    }[path]
    x = jax.random.normal(jax.random.key(0), (5, 7, *inner))
    project = layers.Projection(equation, (*inner, *outer), (), len(outer), 0.02)

    def through(tree):
        layer = jax.tree.map(lambda leaf: leaf[1], at(tree["encoder"]["layers"], path))
        return project.apply({"params": layer}, x).reshape(5, 7, -1)

    ab = at(update["encoder"]["layers"], path)
    expected = through(params) + 2.0 * (
        x.reshape(5, 7, -1) @ ab["lora_a"][1] @ ab["lora_b"][1]
    )
    found = through(network.merge_lora(params, update, 2 * RANK))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_both_and_the_base_is_left_alone():
    params, update = params_of(), full(["attention/value"])
    before = jax.tree.map(np.array, params)

    def loss(update):
        merged = network.merge_lora(params, update, 3.0)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(merged))

    for gradient in jax.tree.leaves(jax.grad(loss)(update)):
        assert np.abs(gradient).max() > 0
    chex.assert_trees_all_equal(params, before)


def test_a_name_that_ends_two_paths_is_both():
    made = network.init_lora(jax.random.key(3), params_of(), ["output"], RANK)
    found = made["encoder"]["layers"]
    assert set(found) == {"attention", "output"}
    assert set(found["attention"]) == {"output"}


@pytest.mark.parametrize(
    ("names", "rank", "words"),
    [
        (["query", "wq"], 4, "no kernel 'wq' in the layers: there are attention/key, "),
        (["uery"], 4, "no kernel 'uery'"),
        (["layer_norm"], 4, "no kernel 'layer_norm'"),
        (["query"], 0, "the rank of LoRA is 0"),
    ],
)
def test_what_is_not_there_is_refused(names, rank, words):
    with pytest.raises(errors.InputError) as caught:
        network.init_lora(jax.random.key(0), params_of(), names, rank)
    assert words in str(caught.value)


def test_kernels_without_biases_have_the_same_inputs_and_outputs():
    sizes = {"vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 2}
    bert = config.BertConfig(
        **sizes,
        num_attention_heads=3,
        intermediate_size=17,
        type_vocab_size=0,
        model_type="modernbert",
    )
    params = network.shapes(bert, ("encoder",), 2)
    wanted = {
        "attention/query_key_value": (12, 36),
        "attention/output": (12, 12),
        "intermediate": (12, 34),
        "output": (17, 12),
    }
    made = network.init_lora(jax.random.key(3), params, list(wanted), RANK)
    for path, (inputs, outputs) in wanted.items():
        update = at(made["encoder"]["layers"], path)
        assert update["lora_a"].shape == (2, inputs, RANK)
        assert update["lora_b"].shape == (2, RANK, outputs)
