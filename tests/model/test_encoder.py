"""The encoder against an independent float64 reading of the paper, and its promises."""

import functools
from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert_jax import errors
from bert_jax.model import config, encoder, layers, network

SMALL = config.BertConfig(
    vocab_size=41,
    hidden_size=36,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=50,
    max_position_embeddings=19,
)


def _inputs(rows=5, length=13, seed=7):
    rng = np.random.default_rng(seed)
    segments = np.ones((rows, length), np.int32)
    segments[1, 9:] = 0
    segments[2, 4:] = 2
    segments[3, 1:] = 0
    return {
        "input_ids": rng.integers(0, 41, (rows, length)).astype(np.int32),
        "token_type_ids": rng.integers(0, 2, (rows, length)).astype(np.int32),
        "segment_ids": segments,
        "position_ids": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
    }


@pytest.fixture(scope="module")
def params():
    model = encoder.Bert(SMALL, encoder.Execution(vocab_multiple=1))
    ids = jnp.zeros((1, 4), jnp.int32)
    key = jax.random.key(3)
    init = jax.jit(functools.partial(model.init, deterministic=True))
    params = nn.unbox(init(key, ids, ids, ids, ids))
    # Biases and scales away from 0 and 1, so that a forgotten one shows.
    leaves, tree = jax.tree.flatten(params["params"])
    keys = jax.random.split(jax.random.key(5), len(leaves))
    noisy = [
        x + 0.1 * jax.random.normal(k, x.shape)
        for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


def _run(params, inputs, **execution):
    model = encoder.Bert(SMALL, encoder.Execution(vocab_multiple=1, **execution))
    inputs = {name: jnp.asarray(x) for name, x in inputs.items()}
    return _apply(model, params, inputs)


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, inputs):
    return model.apply({"params": params}, **inputs, deterministic=True)


def _layer_norm(x, p):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * p["scale"] + p[
        "bias"
    ]


def _reference(params, inputs):
    """BERT in float64 numpy, one row and one head at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    emb = p["embeddings"]
    rows = []
    for ids, types, segments, positions in zip(*inputs.values(), strict=True):
        x = emb["word_embeddings"]["embedding"][ids]
        x = x + emb["position_embeddings"]["embedding"][positions]
        x = x + emb["token_type_embeddings"]["embedding"][types]
        x = _layer_norm(x, emb["layer_norm"])
        for layer in range(3):
            q = jax.tree.map(lambda a, layer=layer: a[layer], p["layers"])
            x = _reference_layer(q, x, segments)
        rows.append(x)
    return np.stack(rows)


def _reference_layer(p, x, segments):
    att, mixed = p["attention"], 0.0
    for head in range(4):
        q, k, v = (
            x @ att[n]["kernel"][:, head] + att[n]["bias"][head]
            for n in ("query", "key", "value")
        )
        scores = q @ k.T / 3.0  # the root of the head width 9
        scores[segments[:, None] != segments[None, :]] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = mixed + weights @ v @ att["output"]["kernel"][head]
    x = _layer_norm(x + mixed + att["output"]["bias"], p["attention_layer_norm"])
    inner = x @ p["intermediate"]["kernel"] + p["intermediate"]["bias"]
    inner = inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
    outer = inner @ p["output"]["kernel"] + p["output"]["bias"]
    return _layer_norm(x + outer, p["output_layer_norm"])


def test_equals_the_paper_in_float64(params):
    inputs = _inputs()
    expected = _reference(params, inputs)
    np.testing.assert_allclose(_run(params, inputs), expected, atol=2e-5)


def _loss_and_gradients(params, **execution):
    def loss(params):
        return jnp.sum(jnp.sin(_run(params, _inputs(), **execution)))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def looped(params):
    """The loss of a loop over layers, and its gradients."""
    return _loss_and_gradients(params)


@pytest.mark.parametrize(("unroll", "remat"), [(2, "full"), (-1, "dots")])
def test_execution_does_not_change_outputs_or_gradients(params, looped, unroll, remat):
    value, grads = looped
    other = _loss_and_gradients(params, unroll=unroll, remat=remat)
    np.testing.assert_allclose(other[0], value, rtol=1e-5)
    for one, two in zip(jax.tree.leaves(grads), jax.tree.leaves(other[1]), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


def test_padding_and_neighbours_leave_every_other_output_bit_identical(params):
    inputs = _inputs()
    changed = {**inputs, "input_ids": inputs["input_ids"].copy()}
    changed["input_ids"][1, 9:] = 40  # padding
    changed["input_ids"][2, 4:] = 17  # the other segment of a packed row
    run = jax.jit(lambda i: _run(params, i))
    before, after = np.asarray(run(inputs)), np.asarray(run(changed))
    np.testing.assert_array_equal(before[1, :9], after[1, :9])
    np.testing.assert_array_equal(before[2, :4], after[2, :4])
    assert (before[2, 4:] != after[2, 4:]).any()


def test_a_packed_segment_equals_the_same_sequence_alone(params):
    inputs = _inputs()
    alone = {name: x[2:3, 4:] for name, x in inputs.items()}
    packed = _run(params, inputs)[2:3, 4:]
    np.testing.assert_allclose(_run(params, alone), packed, atol=2e-6)


def test_bfloat16_computes_in_bfloat16_and_stays_near(params):
    inputs = _inputs()
    half = _run(params, inputs, dtype="bfloat16")
    assert half.dtype == jnp.bfloat16
    full = _run(params, inputs)
    assert np.abs(np.asarray(half, np.float32) - np.asarray(full)).max() < 0.15


def test_every_layer_drops_other_elements(params, monkeypatch):
    seen, drop = set(), layers.drop

    def note(words):
        seen.add(np.asarray(words).tobytes())
        return words

    def spy(x, rate, key):
        words = jax.random.key_data(key)
        noted = jax.pure_callback(note, words, words)
        return drop(x, rate, jax.random.wrap_key_data(noted))

    monkeypatch.setattr(layers, "drop", spy)
    inputs = {name: jnp.asarray(x) for name, x in _inputs().items()}
    model = encoder.Bert(SMALL, encoder.Execution(vocab_multiple=1))
    rngs = {"dropout": jax.random.key(1)}
    jax.jit(functools.partial(model.apply, deterministic=False))(
        {"params": params}, **inputs, rngs=rngs
    )
    jax.effects_barrier()
    # One in the embeddings and three in each of three layers, with keys of their own.
    assert len(seen) == 10


@pytest.mark.parametrize("width", [37, 64])
def test_dropout_keeps_its_rate_and_its_mean(key, width):
    x = jnp.ones((400, width))
    y = layers.drop(x, 0.1, key)
    assert abs(float(jnp.mean(y == 0)) - 0.1) < 0.01
    np.testing.assert_allclose(np.unique(y), [0.0, 1 / 0.9], rtol=1e-4)
    halves = np.asarray(y == 0)[:, : width // 2].mean(), np.asarray(y == 0).mean()
    assert abs(halves[0] - halves[1]) < 0.01


def test_the_vocabulary_is_padded_inside_and_never_predicted(key):
    model = network.for_pretraining(SMALL, encoder.Execution())
    params = nn.unbox(jax.jit(model.init)(key))
    table = params["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    assert table.shape == (128, 36)
    inputs = {name: jnp.asarray(x) for name, x in _inputs().items()}
    positions = jnp.zeros((5, 3), jnp.int32)
    inputs |= {"masked_lm_positions": positions, "cls_positions": positions[:, :1]}
    outputs = jax.jit(functools.partial(model.apply, dropout_key=None))(params, inputs)
    mlm_logits, nsp_logits = outputs["mlm_scores"].logits(), outputs["nsp_logits"]
    assert mlm_logits.shape == (5, 3, 128) and nsp_logits.shape == (5, 1, 2)
    probabilities = jax.nn.softmax(mlm_logits)
    assert float(probabilities[..., 41:].max()) == 0.0


def test_without_sentence_pairs_there_is_no_pooler_and_no_nsp_head():
    model = network.for_pretraining(SMALL, encoder.Execution(), sentence_pairs=False)
    assert set(model.shapes()) == {"encoder", "mlm_head"}


def test_parameters_are_stacked_over_layers_and_float32():
    model = network.for_pretraining(SMALL, encoder.Execution(dtype="bfloat16"))
    shapes = nn.unbox(model.shapes())
    query = shapes["encoder"]["layers"]["attention"]["query"]
    assert query["kernel"].shape == (3, 36, 4, 9)
    assert query["bias"].shape == (3, 4, 9)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("key_", "value"),
    [("dtype", "float16"), ("remat", "some"), ("unroll", 0), ("attention", "flash")],
)
def test_a_wrong_execution_is_named(key_, value):
    with pytest.raises(errors.InputError, match=f"run.{key_}"):
        encoder.Execution(**{key_: value})
