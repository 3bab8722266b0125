"""The modern encoder against an independent float64 reading of its paper."""

import functools
from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert_jax import errors
from bert_jax.model import config, costs, encoder, layers, modern, network

# Global: layers 0, 2 and 4. Behind the first, two groups of two and one layer more.
SIZES = {
    "model_type": "modernbert",
    "vocab_size": 41,
    "hidden_size": 36,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 19,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-5,
    "global_attn_every_n_layers": 2,
    "local_attention": 5,
    "global_rope_theta": 400.0,
    "local_rope_theta": 30.0,
}
SMALL = config.BertConfig(**SIZES)
BIASED = config.BertConfig(**SIZES, norm_bias=True, attention_bias=True, mlp_bias=True)


def _inputs(rows=4, length=13):
    rng = np.random.default_rng(7)
    segments = np.ones((rows, length), np.int32)
    segments[1, 9:] = 0
    segments[2, 4:] = 2
    places = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    places[2, 4:] -= 4
    return {
        "input_ids": rng.integers(0, 41, (rows, length)).astype(np.int32),
        "token_type_ids": rng.integers(0, 2, (rows, length)).astype(np.int32),
        "segment_ids": segments,
        "position_ids": places,
    }


def _drawn(bert):
    model = modern.ModernBert(bert, encoder.Execution(vocab_multiple=1))
    ids = jnp.zeros((1, 4), jnp.int32)
    made = jax.jit(model.init, static_argnames="deterministic")(
        jax.random.key(3), ids, ids, ids, ids, deterministic=True
    )
    leaves, tree = jax.tree.flatten(nn.unbox(made["params"]))
    rng = np.random.default_rng(5)
    noisy = [x + rng.normal(0, 0.15, x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(tree, noisy)


@pytest.fixture(scope="module")
def params():
    return _drawn(SMALL)


@functools.cache
def _compiled(bert, options):
    """Returns (params, inputs) -> output and states of all layers."""
    execution = encoder.Execution(vocab_multiple=1, **dict(options))
    model = modern.ModernBert(bert, execution)

    def run(params, inputs):
        output, kept = model.apply(
            {"params": params}, **inputs, deterministic=True, mutable=["intermediates"]
        )
        return output, network.stacked_states(kept["intermediates"])

    return jax.jit(run)


def _run(params, inputs, bert=SMALL, **execution):
    inputs = {name: jnp.asarray(x) for name, x in inputs.items()}
    return _compiled(bert, tuple(execution.items()))(params, inputs)[0]


def _norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p.get(
        "bias", 0.0
    )


def _turn(x, places, theta):
    """Turns pairs of a row of one head as complex numbers."""
    half = x.shape[-1] // 2
    pairs = x[:, :half] + 1j * x[:, half:]
    angles = places[:, None] * theta ** (-np.arange(half) / half)
    pairs = pairs * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def _reference(params, inputs):
    """Yields the output of each row in float64, one layer and one head at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for ids, _, segments, places in zip(*inputs.values(), strict=True):
        x = p["embeddings"]["word_embeddings"]["embedding"][ids]
        x = _norm(x, p["embeddings"]["layer_norm"])
        for number in range(6):
            x = _reference_layer(p["layers"], number, x, segments, places)
        yield _norm(x, p["final_layer_norm"])


def _reference_layer(stack, number, x, segments, places):
    own = {k: v for k, v in stack.items() if k != "attention_layer_norm"}
    q = jax.tree.map(lambda leaf: leaf[number], own)
    before = x
    if number:
        norms = stack["attention_layer_norm"]
        before = _norm(x, {k: v[number - 1] for k, v in norms.items()})
    sees = segments[:, None] == segments[None, :]
    theta = 400.0
    if number % 2:  # two to either side, of five that are seen
        index = np.arange(len(x))
        sees &= np.abs(index[:, None] - index[None, :]) <= 2
        theta = 30.0
    fused, out = q["attention"]["query_key_value"], q["attention"]["output"]
    mixed = out.get("bias", 0.0)
    for head in range(3):
        made = [
            before @ fused["kernel"][:, i, head]
            + (fused["bias"][i, head] if "bias" in fused else 0.0)
            for i in range(3)
        ]
        query, key = (_turn(y, places, theta) for y in made[:2])
        scores = np.where(sees, query @ key.T / np.sqrt(12), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = mixed + weights @ made[2] @ out["kernel"][head]
    x = x + mixed
    wide = q["intermediate"]
    inner = np.einsum("ld,dgf->lgf", _norm(x, q["mlp_layer_norm"]), wide["kernel"])
    inner = inner + wide.get("bias", 0.0)
    gelu = inner[:, 0] * 0.5 * (1 + np.vectorize(erf)(inner[:, 0] / np.sqrt(2)))
    output = q["output"]
    return x + (gelu * inner[:, 1]) @ output["kernel"] + output.get("bias", 0.0)


@pytest.mark.parametrize("bert", [SMALL, BIASED], ids=["plain", "with biases"])
def test_equals_the_paper_in_float64(bert):
    params, inputs = _drawn(bert), _inputs()
    expected = np.stack(list(_reference(params, inputs)))
    found = _run(params, inputs, bert)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def _gradients(params, **execution):
    def loss(params):
        return jnp.sum(jnp.sin(_run(params, _inputs(), **execution)))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def gradients(params):
    return _gradients(params)


def test_there_is_nothing_that_no_layer_reads(gradients):
    """Every parameter has a gradient, those of the first and the last layer too."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients[1]):
        layers = leaf if "layers" in jax.tree_util.keystr(path) else leaf[None]
        assert (jnp.abs(layers).reshape(len(layers), -1).max(axis=1) > 1e-4).all(), path


@pytest.mark.parametrize(
    ("unroll", "remat"), [(-1, "dots"), pytest.param(4, "full", marks=pytest.mark.slow)]
)
def test_execution_does_not_change_outputs_or_gradients(
    params, gradients, unroll, remat
):
    value, grads = gradients
    other = _gradients(params, unroll=unroll, remat=remat)
    np.testing.assert_allclose(other[0], value, rtol=1e-5)
    for one, two in zip(jax.tree.leaves(grads), jax.tree.leaves(other[1]), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


@pytest.mark.parametrize(
    ("every", "layers"),
    [
        pytest.param(1, 3, marks=pytest.mark.slow),
        pytest.param(9, 3, marks=pytest.mark.slow),
        (3, 5),
        (3, 1),
    ],
)
def test_every_pattern_of_near_and_far_is_that_of_the_unrolled_layers(every, layers):
    sizes = SIZES | {"global_attn_every_n_layers": every, "num_hidden_layers": layers}
    bert = config.BertConfig(**sizes)
    params = _drawn(bert)
    seen = []
    inputs = {name: jnp.asarray(x) for name, x in _inputs().items()}
    for unroll in (1, -1):
        output, states = _compiled(bert, (("unroll", unroll),))(params, inputs)
        assert states.shape[0] == layers + 1
        np.testing.assert_array_equal(states[-1], output)
        seen.append(np.asarray(states))
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-5)


def test_near_layers_see_what_is_near_and_no_more():
    """One near layer behind the first: a token reaches as far as its window."""
    sizes = SIZES | {"num_hidden_layers": 2, "global_attn_every_n_layers": 2}
    bert = config.BertConfig(**sizes)
    params = _drawn(bert)
    kernel = params["layers"]["attention"]["output"]["kernel"]
    params["layers"]["attention"]["output"]["kernel"] = kernel.at[0].set(0.0)
    inputs = {name: x[:1] for name, x in _inputs().items()}
    changed = inputs | {"input_ids": inputs["input_ids"].copy()}
    changed["input_ids"][0, 6] = (changed["input_ids"][0, 6] + 1) % 41
    moved = _run(params, inputs, bert) != _run(params, changed, bert)
    expected = [abs(place - 6) <= 2 for place in range(13)]
    assert moved[0].any(axis=-1).tolist() == expected


def test_positions_matter_only_by_their_distance(params):
    inputs = _inputs()
    moved = inputs | {"position_ids": inputs["position_ids"] + 1000}
    np.testing.assert_allclose(_run(params, inputs), _run(params, moved), atol=2e-4)
    stretched = inputs | {"position_ids": inputs["position_ids"] * 2}
    apart = np.abs(_run(params, inputs) - _run(params, stretched))
    assert apart.max() > 1e-2


def test_padding_and_neighbours_leave_every_other_output_bit_identical(params):
    inputs = _inputs()
    changed = {**inputs, "input_ids": inputs["input_ids"].copy()}
    changed["input_ids"][1, 9:] = 40  # padding
    changed["input_ids"][2, 4:] = 17  # the other segment of a packed row
    before, after = (np.asarray(_run(params, rows)) for rows in (inputs, changed))
    np.testing.assert_array_equal(before[1, :9], after[1, :9])
    np.testing.assert_array_equal(before[2, :4], after[2, :4])
    assert (before[2, 4:] != after[2, 4:]).any()


def test_a_packed_segment_equals_the_same_sequence_alone(params):
    inputs = _inputs()
    alone = {name: x[2:3, 4:] for name, x in inputs.items()}
    packed = _run(params, inputs)[2:3, 4:]
    np.testing.assert_allclose(_run(params, alone), packed, atol=1e-5)


def test_token_types_change_nothing(params):
    inputs = _inputs()
    other = inputs | {"token_type_ids": 1 - inputs["token_type_ids"]}
    np.testing.assert_array_equal(_run(params, inputs), _run(params, other))


def test_bfloat16_computes_in_bfloat16_and_stays_near(params):
    half = _run(params, _inputs(), dtype="bfloat16")
    assert half.dtype == jnp.bfloat16
    full = _run(params, _inputs())
    assert np.abs(np.asarray(half, np.float32) - np.asarray(full)).max() < 0.3


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
    model = modern.ModernBert(SMALL, encoder.Execution(vocab_multiple=1))
    rngs = {"dropout": jax.random.key(1)}
    jax.jit(functools.partial(model.apply, deterministic=False))(
        {"params": params}, **inputs, rngs=rngs
    )
    jax.effects_barrier()
    # One in the embeddings and three in each of six layers, with keys of their own.
    assert len(seen) == 19


def test_parameters_are_stacked_over_layers_and_what_adds_up_begins_smaller():
    model = network.for_pretraining(SMALL, encoder.Execution(), sentence_pairs=False)
    drawn = nn.unbox(jax.jit(model.init)(jax.random.key(0)))
    layers = drawn["encoder"]["layers"]
    assert layers["attention"]["query_key_value"]["kernel"].shape == (6, 36, 3, 3, 12)
    assert layers["attention_layer_norm"]["scale"].shape == (5, 36)
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
    # Normals of 0.02 cut at two deviations keep 0.88 of it; 2 * 6 outputs are added.
    deviations = [
        float(jnp.std(layers[name]["kernel"])) for name in ("intermediate", "output")
    ]
    expected = [0.88 * 0.02, 0.88 * 0.02 / 12**0.5]
    np.testing.assert_allclose(deviations, expected, rtol=0.03)
    both = layers["output"]["kernel"]
    assert not np.array_equal(both[0], both[1])


def test_axes_have_names_for_the_mesh():
    shapes = network.for_pretraining(SMALL, encoder.Execution()).shapes()
    layers = shapes["encoder"]["layers"]
    kernel = layers["attention"]["query_key_value"]["kernel"]
    assert kernel.names == ("layers", "embed", None, "heads", "head_dim")
    assert layers["intermediate"]["kernel"].names == ("layers", "embed", None, "mlp")


def test_modernbert_base_has_as_many_parameters_as_the_published_model():
    """149,014,272 of the encoder; the head adds a dense map, a norm and a bias."""
    bert = config.BertConfig(
        vocab_size=50368,
        hidden_size=768,
        num_hidden_layers=22,
        num_attention_heads=12,
        intermediate_size=1152,
        max_position_embeddings=8192,
        type_vocab_size=0,
        model_type="modernbert",
    )
    model = network.for_pretraining(
        bert, encoder.Execution(vocab_multiple=1), sentence_pairs=False
    )
    shapes = nn.unbox(model.shapes())
    count = {
        part: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes[part]))
        for part in shapes
    }
    assert count == {"encoder": 149_014_272, "mlm_head": 768 * 768 + 768 + 50368}


def test_the_cost_of_every_term_by_hand():
    # 6 * 6 * (4 * 36^2 + 3 * 36 * 50), attention of three layers over 7 positions and
    # of three over 5 (two to either side), 6 * (36 * 41 + 36^2) * 0.5.
    terms = 36 * (5184 + 5400), 12 * 36 * (3 * 7 + 3 * 5), 3 * (1476 + 1296)
    assert costs.training_flops_per_token(SMALL, 7, 0.5) == sum(terms)
    # Rows shorter than the window cost as much near as far.
    assert costs.training_flops_per_token(SMALL, 4, 0.0) == terms[0] + 12 * 36 * 24


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type_vocab_size": 2}, "model.type_vocab_size is 2, and modernbert has no"),
        ({"num_attention_heads": 4}, "an odd width"),
        ({"num_hidden_groups": 1}, "model.num_hidden_groups is 1, and modernbert doe"),
        ({"local_attention": 1}, "model.local_attention is 1:"),
        ({"local_rope_theta": 0.5}, "model.local_rope_theta is 0.5"),
        ({"model_type": "bert"}, "model.global_attn_every_n_layers is 2, and bert do"),
    ],
)
def test_what_does_not_fit_or_would_do_nothing_is_refused(change, words):
    with pytest.raises(errors.InputError, match=words):
        config.BertConfig(**SIZES | change)
