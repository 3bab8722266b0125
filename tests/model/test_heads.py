"""Heads of tasks: shapes, poolings by hand, padding, refusals, dead parameters."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert_jax import errors
from bert_jax.model import config, encoder, heads, network
from bert_jax.training import optimizer, sharding, state

NAMES = ("input_ids", "token_type_ids", "segment_ids")
BERT = config.BertConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=17,
    max_position_embeddings=11,
    type_vocab_size=2,
)
HEADS = {
    "classifier": heads.HeadSpec("classifier", 3),
    "mean": heads.HeadSpec("classifier", 3, pooling="mean"),
    "max": heads.HeadSpec("classifier", 3, pooling="max"),
    "mean of bilstm": heads.HeadSpec("classifier", 3, "mean", 5),
    "bilstm": heads.HeadSpec("classifier", 3, "bilstm", 5),
    "tagger": heads.HeadSpec("tagger", 4),
    "bilstm-crf": heads.HeadSpec("tagger", 4, recurrent_size=5, crf=True),
    "roles": heads.HeadSpec("tagger", 4, crf=True, at_predicate=True),
    "span": heads.HeadSpec("span"),
    "multiple_choice": heads.HeadSpec("multiple_choice"),
    "vectors": heads.HeadSpec("vectors", pooling="mean"),
}
# Rows 13, tokens 7, predicates 2, texts of a row 3; the BiLSTM is 2 x 5 wide.
SHAPES = {
    "classifier": {"logits": (13, 3)},
    "mean": {"logits": (13, 3)},
    "max": {"logits": (13, 3)},
    "mean of bilstm": {"logits": (13, 3)},
    "bilstm": {"logits": (13, 3)},
    "tagger": {"logits": (13, 7, 4)},
    "bilstm-crf": {
        "logits": (13, 7, 4),
        "transitions": (4, 4),
        "starts": (4,),
        "ends": (4,),
    },
    "roles": {
        "logits": (13, 2, 7, 4),
        "transitions": (4, 4),
        "starts": (4,),
        "ends": (4,),
    },
    "span": {"logits": (13, 7, 2)},
    "multiple_choice": {"logits": (13, 3)},
    "vectors": {"vectors": (13, 3, 12)},
}
WIDTHS = {
    "mean of bilstm": (10, 3),
    "bilstm": (10, 3),
    "bilstm-crf": (10, 4),
    "roles": (12, 4),
}
each_head = pytest.mark.parametrize("name", HEADS)


def model_of(name):
    return network.Network(BERT, encoder.Execution(vocab_multiple=1), (HEADS[name],))


def params_of(model):
    """Returns parameters that are all different."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(nn.unbox(shapes))
    rng = np.random.default_rng(6)
    made = [jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(tree, made)


def inputs(head):
    """Returns a batch of 7 tokens; row 1 ends after 4, row 2 is only padding."""
    rng = np.random.default_rng(1)
    shape = (13, 3, 7) if head.kind in ("multiple_choice", "vectors") else (13, 7)
    segments = np.ones(shape, np.int32)
    segments[1, ..., 4:] = 0
    segments[2] = 0
    ids = rng.integers(1, 31, shape).astype(np.int32) * segments
    types = rng.integers(0, 2, shape).astype(np.int32) * segments
    predicates = np.stack([np.arange(13) % 4, np.zeros(13)], 1).astype(np.int32)
    batch = dict(zip(NAMES, (ids, types, segments), strict=True))
    return batch | {"predicate_positions": predicates}


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, batch, key):
    return model.apply(params, batch, dropout_key=key)


def outputs_of(model, params, batch, key=None):
    """Returns the outputs of the head, without those of the encoder."""
    batch = {name: jnp.asarray(x) for name, x in batch.items()}
    outputs = _apply(model, params, batch, key)
    encoded = ("sequence_output", "pooled_output")
    return {name: x for name, x in outputs.items() if name not in encoded}


def sequence_output(model, params, batch):
    """Returns the states of the encoder without a head."""
    ids, types, segments = (jnp.asarray(batch[name]).reshape(-1, 7) for name in NAMES)
    bert = encoder.Bert(model.config, model.execution)
    positions = jnp.broadcast_to(jnp.arange(7), ids.shape)
    return jax.jit(functools.partial(bert.apply, deterministic=True))(
        {"params": params["encoder"]},
        *(ids, types, segments, positions * (segments > 0)),
    )


@each_head
def test_outputs_are_finite_float32_of_the_promised_shapes(name):
    model, head = model_of(name), HEADS[name]
    outputs = outputs_of(model, params_of(model), inputs(head))
    assert {key: x.shape for key, x in outputs.items()} == SHAPES[name]
    for x in outputs.values():
        assert x.dtype == jnp.float32 and np.isfinite(x).all()


@each_head
def test_parts_are_the_top_of_the_tree_and_every_parameter_is_used(name):
    model, head = model_of(name), HEADS[name]
    params, given = params_of(model), inputs(head)
    assert set(params) == {"encoder", *head.parts} == set(model.parts)
    if name in WIDTHS:
        assert params[head.kind]["dense"]["kernel"].shape == WIDTHS[name]

    def loss(params):
        outputs = outputs_of(model, params, given, jax.random.key(2))
        return sum(jnp.sum(x**3) for x in outputs.values())

    gradients = jax.jit(jax.grad(loss))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


@each_head
def test_padding_is_not_seen(name):
    model, head = model_of(name), HEADS[name]
    params, given = params_of(model), inputs(head)
    padding = given["segment_ids"] == 0
    changes = {
        "input_ids": given["input_ids"] + 3 * padding,
        "token_type_ids": given["token_type_ids"] + padding,
    }
    other = given | changes
    one, two = outputs_of(model, params, given), outputs_of(model, params, other)
    seen = given["segment_ids"] > 0
    for name_, x in one.items():
        kept = np.arange(13) != 2
        x, y = np.asarray(x), np.asarray(two[name_])
        if name_ == "logits" and head.kind in ("tagger", "span"):
            if head.at_predicate:
                x, y = x.swapaxes(1, 2), y.swapaxes(1, 2)
            x, y, kept = x[seen], y[seen], slice(None)
        elif name_ in ("transitions", "starts", "ends"):
            kept = slice(None)
        np.testing.assert_array_equal(x[kept], y[kept])


@pytest.mark.parametrize("name", ["mean", "max", "classifier", "vectors"])
def test_poolings_are_those_of_numpy(name):
    model, head = model_of(name), HEADS[name]
    params, given = params_of(model), inputs(head)
    x = np.asarray(sequence_output(model, params, given), np.float64)
    lengths = given["segment_ids"].reshape(-1, 7).sum(1)
    rows = [row[:count] for row, count in zip(x, lengths, strict=True)]
    if name == "classifier":
        dense = jax.tree.map(np.asarray, params["pooler"]["dense"])
        pooled = np.tanh(x[:, 0] @ dense["kernel"] + dense["bias"])
    elif name == "max":
        pooled = np.stack([r.max(0) if len(r) else np.zeros(12) for r in rows])
    else:
        pooled = np.stack([r.mean(0) if len(r) else np.zeros(12) for r in rows])
    found = outputs_of(model, params, given)
    if name == "vectors":
        expected = pooled.reshape(13, 3, 12)
        np.testing.assert_allclose(found["vectors"], expected, rtol=1e-4, atol=1e-5)
        return
    dense = jax.tree.map(np.asarray, params["classifier"]["dense"])
    expected = pooled @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)


def _dense(params, row):
    return row @ np.asarray(params["dense"]["kernel"]) + params["dense"]["bias"]


def test_a_tagger_at_predicates_joins_the_token_and_the_predicate():
    model = model_of("roles")
    params, given = params_of(model), inputs(model.head)
    x = np.asarray(sequence_output(model, params, given))
    found = outputs_of(model, params, given)["logits"]
    part = params["at_predicate"]
    for row, query, token in [(0, 0, 5), (3, 0, 2), (3, 1, 2), (5, 0, 6)]:
        at = int(given["predicate_positions"][row, query])
        both = _dense(part["token"], x[row, token])
        both = both + _dense(part["predicate"], x[row, at])
        hidden = 0.5 * both * (1 + jax.scipy.special.erf(both / np.sqrt(2)))
        expected = _dense(params["tagger"], hidden)
        np.testing.assert_allclose(
            found[row, query, token], expected, rtol=1e-4, atol=1e-5
        )


def test_each_choice_is_scored_alone():
    model = model_of("multiple_choice")
    params, given = params_of(model), inputs(model.head)
    swapped = {name: given[name][:, np.array([2, 0, 1])] for name in NAMES}
    found = outputs_of(model, params, given)["logits"]
    again = outputs_of(model, params, swapped)["logits"]
    np.testing.assert_allclose(again, found[:, [2, 0, 1]], rtol=1e-5, atol=1e-6)
    assert len(set(np.asarray(found[0]).round(4))) == 3


@pytest.mark.parametrize("kind", ["classifier", "tagger", "span", "multiple_choice"])
def test_dropout_of_the_head_is_its_own(kind):
    quiet = dataclasses.replace(
        BERT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    head = heads.HeadSpec(kind, 3, dropout=0.5)
    model = network.Network(quiet, encoder.Execution(), (head,))
    params, given = params_of(model), inputs(head)
    one, same, other = (
        outputs_of(model, params, given, jax.random.key(seed))["logits"]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    none = dataclasses.replace(model, heads=(dataclasses.replace(head, dropout=0.0),))
    np.testing.assert_array_equal(
        outputs_of(none, params, given, jax.random.key(1))["logits"],
        outputs_of(model, params, given)["logits"],
    )


@each_head
def test_every_parameter_has_a_rule_for_decay_and_a_place_on_the_mesh(name):
    model = model_of(name)
    mesh = sharding.make_mesh(2, 2, 1)
    optim = optimizer.make(optimizer.OptimizerConfig(learning_rate=0.1), 10)
    shapes = state.abstract(model.init, optim, mesh)
    names = {"/".join(str(k.key) for k in path) for path, decays in _decays(shapes)}
    assert "encoder/embeddings/word_embeddings/embedding" in names
    assert not [n for n in names if n.startswith("crf/") or n.endswith("bias")]
    assert shapes.params["encoder"]["layers"]["output"]["kernel"].sharding.spec[2]


def _decays(shapes):
    mask = optimizer.decay_mask(shapes.params)
    return [(p, d) for p, d in jax.tree_util.tree_leaves_with_path(mask) if d]


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"kind": "tags"}, "head.kind"),
        ({"kind": "classifier", "pooling": "first"}, "head.pooling"),
        ({"kind": "classifier", "classes": 0}, "head.classes"),
        ({"kind": "classifier", "dropout": 1.0}, "head.dropout"),
        ({"kind": "classifier", "crf": True}, "head.crf"),
        ({"kind": "span", "at_predicate": True}, "head.at_predicate"),
        ({"kind": "classifier", "pooling": "bilstm"}, "head.recurrent_size"),
        ({"kind": "vectors", "recurrent_size": 4}, "head.recurrent_size"),
        ({"kind": "tagger", "recurrent_size": -4}, "head.recurrent_size"),
        ({"kind": "vectors", "transform": True}, "head.transform"),
        ({"kind": "classifier", "transform": True}, "head.pooling"),
        (
            {"kind": "tagger", "transform": True, "recurrent_size": 4},
            "head.recurrent_size",
        ),
    ],
)
def test_impossible_heads_are_refused(keys, key):
    with pytest.raises(errors.InputError) as caught:
        heads.HeadSpec(**keys)
    assert key in str(caught.value)


@pytest.mark.parametrize("name", ["classifier", "tagger", "span", "multiple_choice"])
def test_a_head_is_that_of_a_checkpoint_with_its_parts(name):
    """So what is trained here is exported as what others load."""
    model, head = model_of(name), HEADS[name]
    params, given = params_of(model), inputs(head)
    (of_parts,) = (
        x for x in heads.heads_of(model.parts, head.classes) if x.kind == head.kind
    )
    checkpoint = network.for_parts(BERT, model.execution, model.parts, head.classes)
    assert of_parts in checkpoint.heads and of_parts.dropout == 0.0
    expected = network.shapes(BERT, model.parts, head.classes)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda x: x.shape, expected)
    found = outputs_of(model, params, given)["logits"]
    again = outputs_of(checkpoint, params, given)["logits"]
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("kind", ["classifier", "tagger"])
def test_a_fresh_head_deviates_as_the_range_says(kind):
    bert = dataclasses.replace(BERT, hidden_size=510, num_hidden_layers=1)
    model = network.Network(
        bert, encoder.Execution(), (heads.HeadSpec(kind, classes=40, pooling="mean"),)
    )
    params = nn.unbox(model.init(jax.random.key(0)))
    kernel = params[kind]["dense"]["kernel"]
    assert abs(float(kernel.std()) / bert.initializer_range - 1) < 0.02


def test_gathered_rows_add_their_gradients_to_zeros_of_another_shape_than_rows():
    """XLA for GPUs would share zeros of that shape with dropout, in memory."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32)
    positions = jnp.asarray([[4, 0, 4, 1], [2, 2, 2, 0]])
    scale = jnp.arange(1.0, 25.0).reshape(2, 4, 3)
    gradient = jax.grad(lambda x: jnp.sum(scale * heads.take_rows(x, positions)))
    expected = np.zeros((2, 5, 3), np.float32)
    for row in range(2):
        np.add.at(expected[row], np.asarray(positions[row]), np.asarray(scale[row]))
    np.testing.assert_array_equal(gradient(x), expected)
    added = re.findall(
        r"f32\[([\d,]+)\] = scatter-add", str(jax.make_jaxpr(gradient)(x))
    )
    assert added == ["2,5,1,3"]
