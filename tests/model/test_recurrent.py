"""The BiLSTM beside torch's over packed rows, and what padding must not do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert_jax.model import heads

LENGTHS = [7, 1, 4, 0, 6]
WIDTH, HIDDEN = 3, 5
MODEL = heads.BiLSTM(HIDDEN)


def inputs():
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (5, 7, WIDTH)).astype(np.float32)
    segments = (np.arange(7) < np.array(LENGTHS)[:, None]).astype(np.int32)
    return jnp.asarray(x), jnp.asarray(segments)


def drawn():
    made = MODEL.init(jax.random.key(0), *inputs())
    return nn.unbox(made)["params"]


def params_of():
    """Returns parameters that are all different."""
    leaves, tree = jax.tree.flatten(drawn())
    rng = np.random.default_rng(6)
    made = [jnp.asarray(rng.normal(0, 0.6, x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(tree, made)


def run(params, x, segments):
    return MODEL.apply({"params": params}, x, segments)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loop(params, rows):
    """Returns the states after each token of one row, in float64 (the equations)."""
    read = {name: np.asarray(x, np.float64) for name, x in _flat(params).items()}
    hidden, cell, states = np.zeros(HIDDEN), np.zeros(HIDDEN), []
    for x in np.asarray(rows, np.float64):
        gates = np.einsum("d,dkh->kh", x, read["input/kernel"]) + read["input/bias"]
        gates += np.einsum("g,gkh->kh", hidden, read["state/kernel"])
        enter, forget, new, leave = gates
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(leave) * np.tanh(cell)
        states.append(hidden)
    return np.array(states).reshape(-1, HIDDEN)


def _flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def test_states_are_those_of_a_loop_over_the_real_tokens():
    params, (x, segments) = params_of(), inputs()
    outputs, last = run(params, x, segments)
    assert outputs.shape == (5, 7, 10) and last.shape == (5, 10)
    for row, length in enumerate(LENGTHS):
        forward = loop(params["forward"], x[row, :length])
        backward = loop(params["backward"], x[row, :length][::-1])[::-1]
        expected = np.concatenate([forward, backward], axis=1)
        np.testing.assert_allclose(outputs[row, :length], expected, atol=2e-6)
        assert not outputs[row, length:].any()
        ends = [forward[-1], backward[0]] if length else [np.zeros(10)]
        np.testing.assert_allclose(last[row], np.concatenate(ends), atol=2e-6)


def test_states_are_those_of_torch_over_packed_rows():
    torch = pytest.importorskip("torch")
    params, (x, segments) = params_of(), inputs()
    rows = [row for row, length in enumerate(LENGTHS) if length]  # torch has no empty
    lengths = [LENGTHS[row] for row in rows]
    lstm = torch.nn.LSTM(WIDTH, HIDDEN, bidirectional=True, batch_first=True)
    for suffix, name in (("", "forward"), ("_reverse", "backward")):
        read = {key: np.asarray(value) for key, value in _flat(params[name]).items()}
        # Ours are [in, 4, H], torch's [4 H, in].
        kernels = {
            "weight_ih_l0": read["input/kernel"].transpose(1, 2, 0),
            "weight_hh_l0": read["state/kernel"].transpose(1, 2, 0),
            "bias_ih_l0": read["input/bias"],
            "bias_hh_l0": 0 * read["input/bias"],
        }
        for key, value in kernels.items():
            weight = getattr(lstm, key + suffix)
            value = torch.tensor(value.reshape(tuple(weight.shape)))
            weight.data.copy_(value)
    pack = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(np.asarray(x)[rows]), lengths, True, enforce_sorted=False
    )
    with torch.no_grad():
        packed, (hidden, _) = lstm(pack)
        expected, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, True)
    outputs, last = run(params, x, segments)
    found = np.asarray(outputs)[rows]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)
    ends = np.concatenate([hidden[0].numpy(), hidden[1].numpy()], axis=1)
    np.testing.assert_allclose(np.asarray(last)[rows], ends, atol=2e-6)


def test_the_contents_of_padding_change_nothing():
    params, (x, segments) = params_of(), inputs()
    other = jnp.where((segments > 0)[..., None], x, 1e6 + x)
    one, two = run(params, x, segments), run(params, other, segments)
    chex.assert_trees_all_equal(one, two)


def test_padding_before_the_tokens_changes_nothing():
    params, (x, segments) = params_of(), inputs()
    outputs, last = run(params, x[:1, :4], segments[:1, :4])
    shifted = jnp.pad(x[:1, :4], ((0, 0), (3, 0), (0, 0)), constant_values=9.0)
    found, ends = run(params, shifted, jnp.pad(segments[:1, :4], ((0, 0), (3, 0))))
    np.testing.assert_allclose(found[:, 3:], outputs, atol=1e-6)
    np.testing.assert_allclose(ends, last, atol=1e-6)


def test_forget_gates_begin_open_and_kernels_within_torchs_bound():
    made = _flat(drawn()["forward"])
    assert {name: x.shape for name, x in made.items()} == {
        "input/kernel": (WIDTH, 4, HIDDEN),
        "input/bias": (4, HIDDEN),
        "state/kernel": (HIDDEN, 4, HIDDEN),
    }
    np.testing.assert_array_equal(made["input/bias"].sum(1), [0, HIDDEN, 0, 0])
    widest = np.abs(made["state/kernel"]).max()
    assert 0.8 * HIDDEN**-0.5 < widest <= HIDDEN**-0.5


def test_gradients_pass_padding_without_nan():
    x, segments = inputs()
    x = jnp.where((segments > 0)[..., None], x, jnp.float32(3e4))

    def loss(params):
        outputs, last = run(params, x, segments)
        return jnp.sum(outputs**2) + jnp.sum(last)

    for gradient in jax.tree.leaves(jax.grad(loss)(params_of())):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_activations_of_bfloat16_stay_so_with_float32_states():
    x, segments = inputs()
    outputs, last = run(params_of(), x.astype(jnp.bfloat16), segments)
    assert outputs.dtype == last.dtype == jnp.bfloat16
    exact, _ = run(params_of(), x, segments)
    np.testing.assert_allclose(outputs.astype(np.float32), exact, atol=0.03)
