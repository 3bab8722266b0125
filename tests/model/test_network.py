"""Heads by part, hidden states, shared layers as an unrolled loop, dead parameters."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models
from flax import linen as nn

from bert_jax import errors
from bert_jax.model import config, encoder, network
from bert_jax.training import sharding

SIZES = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 11,
}


def bert_of(model_type, **changes):
    keys = SIZES | small_models.TYPES[model_type] | changes
    return config.BertConfig(**keys, model_type=model_type)


def params_of(bert, of_parts, labels=2):
    """Returns parameters that are all different, the vocabulary not padded."""
    return random_like(network.shapes(bert, of_parts, labels))


def random_like(shapes):
    """Returns parameters of these shapes."""
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(6)
    made = [jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(tree, made)


def inputs(rows=5, length=7):
    rng = np.random.default_rng(1)
    segments = np.ones((rows, length), np.int32)
    segments[1, 4:] = 0
    ids = rng.integers(0, 31, (rows, length)).astype(np.int32)
    positions = np.arange(length, dtype=np.int32) * segments
    names = ("input_ids", "token_type_ids", "segment_ids", "position_ids")
    arrays = (ids, 0 * ids, segments, positions)
    return {name: jnp.asarray(x) for name, x in zip(names, arrays, strict=True)}


def run(bert, params, of_parts, labels=2, **execution):
    execution = encoder.Execution(vocab_multiple=1, **execution)
    model = network.for_parts(bert, execution, of_parts, labels)
    return with_logits(_apply(model, params, inputs()))


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, batch):
    return model.apply(params, batch, dropout_key=None, hidden_states=True)


def with_logits(outputs):
    """Returns the outputs with the MLM logits in place of their factors."""
    if "mlm_scores" in outputs:
        outputs["mlm_logits"] = outputs.pop("mlm_scores").logits()
    return outputs


OUTPUTS = {
    ("encoder",): {},
    ("encoder", "pooler"): {"pooled_output": (5, 12)},
    ("encoder", "pooler", "nsp_head"): {"nsp_logits": (5, 2)},
    ("encoder", "pooler", "classifier"): {"logits": (5, 3)},
    ("encoder", "pooler", "multiple_choice"): {"logits": (5, 1)},
    ("encoder", "mlm_head"): {"mlm_logits": (5, 7, 31)},
    ("encoder", "rtd_head"): {"rtd_logits": (5, 7)},
    ("encoder", "tagger"): {"logits": (5, 7, 3)},
    ("encoder", "span"): {"logits": (5, 7, 2)},
    ("encoder", "head_transform", "classifier"): {"logits": (5, 3)},
    ("encoder", "head_transform", "multiple_choice"): {"logits": (5, 1)},
    ("encoder", "head_transform", "tagger"): {"logits": (5, 7, 3)},
}


@pytest.mark.parametrize("of_parts", OUTPUTS, ids="+".join)
def test_every_part_has_its_outputs_and_its_parameters(of_parts):
    bert = bert_of("bert")
    params = params_of(bert, of_parts, 3)
    assert set(params) == set(of_parts)
    outputs = run(bert, params, of_parts, 3)
    shapes = {name: x.shape for name, x in outputs.items()}
    assert shapes.pop("hidden_states") == (5, 5, 7, 12)
    assert shapes.pop("sequence_output") == (5, 7, 12)
    if "pooler" in of_parts:
        assert shapes["pooled_output"] == (5, 12)
    assert OUTPUTS[of_parts].items() <= shapes.items()
    assert len(shapes) == len({*OUTPUTS[of_parts]} | {"pooled_output"} & {*shapes})


def test_the_table_has_every_part_once():
    assert {name for of_parts in OUTPUTS for name in of_parts} == set(network.PARTS)
    assert len(set(network.PARTS)) == len(network.PARTS)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("encoder",), ()),
        (("encoder", "mlm_head", "span"), ()),
        (("mlm_head",), ("encoder",)),
        (("encoder", "nsp_head"), ("pooler",)),
        (("multiple_choice",), ("encoder", "pooler")),
        (("encoder", "pooler", "classifier"), ()),
        (("encoder", "head_transform", "classifier"), ()),
        (("encoder", "head_transform", "nsp_head"), ("pooler",)),
        ((), ("encoder",)),
    ],
)
def test_parts_that_others_need_are_named(given, missing):
    assert network.missing_parts(given) == missing


@pytest.mark.parametrize("unroll", [1, -1])
@pytest.mark.parametrize("model_type", ["bert", "albert"])
def test_hidden_states_are_those_of_an_unrolled_loop(model_type, unroll):
    bert = bert_of(model_type)
    params = params_of(bert, ("encoder",))
    outputs = jax.jit(lambda p: run(bert, p, ("encoder",), unroll=unroll))(params)
    states = outputs["hidden_states"]
    assert states.shape == (5, 5, 7, 12)
    ids, types, segments, positions = inputs().values()
    given = params["encoder"]
    embeddings = encoder.Embeddings(bert, encoder.Execution(vocab_multiple=1))
    x = embeddings.apply(
        {"params": given["embeddings"]}, ids, types, positions, deterministic=True
    )
    layer = encoder.EncoderLayer(bert, encoder.Execution(), deterministic=True)
    expected = [x]
    # ALBERT of two groups: layers 0 and 1 are the first, 2 and 3 the second.
    for number in {"bert": (0, 1, 2, 3), "albert": (0, 0, 1, 1)}[model_type]:
        own = jax.tree.map(lambda leaf, n=number: leaf[n], given["layers"])
        x, _ = layer.apply({"params": own}, x, segments)
        expected.append(x)
    np.testing.assert_allclose(states, np.stack(expected), atol=5e-6)
    np.testing.assert_allclose(states[-1], outputs["sequence_output"], atol=1e-6)
    apart = [np.abs(a - b).max() for a, b in zip(expected, expected[1:], strict=False)]
    assert min(apart) > 0.1


def test_groups_have_as_many_parameters_as_layers_of_their_own():
    for groups, layers in ((1, 1), (2, 2), (4, 4), (-1, 4)):
        bert = bert_of("albert", num_hidden_groups=groups)
        shapes = network.shapes(bert, ("encoder",), 2)["encoder"]["layers"]
        assert {x.shape[0] for x in jax.tree.leaves(shapes)} == {layers}
    with pytest.raises(errors.InputError, match="not a multiple of .*num_hidden_gro"):
        bert_of("albert", num_hidden_groups=3)


def test_what_is_padded_is_cut_again():
    bert = bert_of("bert", tie_word_embeddings=False)
    given = jax.tree.map(np.asarray, params_of(bert, ("encoder", "mlm_head", "pooler")))
    padded = network.pad_vocabulary(given, 40)
    tables = (
        padded["encoder"]["embeddings"]["word_embeddings"]["embedding"],
        padded["mlm_head"]["decoder"],
        padded["mlm_head"]["bias"],
    )
    assert [x.shape for x in tables] == [(40, 12), (40, 12), (40,)]
    assert not any(x[31:].any() for x in tables)
    changed = [
        name
        for (name, before), after in zip(
            jax.tree_util.tree_leaves_with_path(given),
            jax.tree.leaves(padded),
            strict=True,
        )
        if before.shape != after.shape
    ]
    assert len(changed) == 3
    cut = network.cut_vocabulary(padded, 31)
    chex.assert_trees_all_equal(cut, given)
    chex.assert_trees_all_equal(network.pad_vocabulary(given, 31), given)


def test_a_padded_vocabulary_changes_no_output():
    bert, of_parts = bert_of("albert"), ("encoder", "mlm_head")
    given = params_of(bert, of_parts)
    padded = network.pad_vocabulary(jax.tree.map(np.asarray, given), 128)
    model = network.for_parts(bert, encoder.Execution(), of_parts)
    padded = jax.tree.map(jnp.asarray, padded)
    found = with_logits(model.apply(padded, inputs(), dropout_key=None))
    expected = run(bert, given, of_parts)
    np.testing.assert_allclose(
        found["mlm_logits"][..., :31], expected["mlm_logits"], atol=1e-5
    )
    assert found["mlm_logits"].shape[-1] == 128
    assert (found["mlm_logits"][..., 31:] <= -1e8).all()


PRETRAINING = {name: name in ("bert", "albert") for name in small_models.TYPES}


def pretraining(model_type, **changes):
    """Returns the network of pretraining, and the batch of a step."""
    model = network.for_pretraining(
        bert_of(model_type, **changes),
        encoder.Execution(vocab_multiple=8),
        sentence_pairs=PRETRAINING[model_type],
    )
    ids, types, segments, positions = inputs(8).values()
    if model_type in ("bert", "albert"):
        types = jnp.asarray(np.arange(7)[None] >= 3, jnp.int32) * jnp.ones_like(ids)
    # Every row of the tables is used: ids and positions of a full range.
    ids = jnp.arange(56, dtype=jnp.int32).reshape(8, 7) % 31
    chosen = jnp.tile(jnp.asarray([[1, 5]], jnp.int32), (8, 1))
    first = jnp.zeros((8, 1), jnp.int32)
    return model, {
        "input_ids": ids,
        "token_type_ids": types,
        "segment_ids": segments,
        "position_ids": positions,
        "masked_lm_positions": chosen,
        "cls_positions": first,
    }


@pytest.mark.parametrize("model_type", small_models.TYPES)
def test_a_step_of_training_changes_every_parameter(model_type):
    model, batch = pretraining(model_type, hidden_dropout_prob=0.0)
    params = random_like(nn.unbox(model.shapes()))

    @jax.jit
    def step(params):
        def loss(params):
            outputs = model.apply(params, batch, dropout_key=jax.random.key(4))
            labels = jnp.arange(16, dtype=jnp.int32).reshape(8, 2)
            mlm_logits = outputs["mlm_scores"].logits()
            total = optax.softmax_cross_entropy_with_integer_labels(mlm_logits, labels)
            total = jnp.mean(total)
            if "nsp_logits" in outputs:
                total += jnp.mean(jax.nn.log_softmax(outputs["nsp_logits"])[:, 0, 0])
            return total

        # The sign of the gradient: what has none stays as it is.
        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * jnp.sign(g), params, grads)

    after = step(params)
    dead = {
        jax.tree_util.keystr(path, simple=True, separator="/"): x
        for path, x in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda a, b: float(np.mean(a != b)), params, after)
        )
    }
    # Tables have rows that no row of the batch uses; a bias of keys moves no softmax.
    for name, share in dead.items():
        assert share > (0.3 if "embedding" in name or "bias" in name else 0.9), name
    assert len(dead) == len(jax.tree.leaves(params))


def test_parameters_of_an_albert_are_cut_over_eight_devices():
    bert = bert_of(
        "albert",
        vocab_size=32,
        hidden_size=16,
        embedding_size=8,
        num_attention_heads=4,
        intermediate_size=24,
    )
    model = network.for_pretraining(bert, encoder.Execution(vocab_multiple=8))
    mesh = sharding.make_mesh(2, 2, 2)
    placed = sharding.params_sharding(model.shapes(), mesh)
    layers, tables = placed["encoder"]["layers"], placed["encoder"]["embeddings"]
    specs = {
        "query": layers["attention"]["query"]["kernel"].spec,
        "output": layers["attention"]["output"]["kernel"].spec,
        "intermediate": layers["intermediate"]["kernel"].spec,
        "scale": layers["output_layer_norm"]["scale"].spec,
        "projection": tables["projection"]["kernel"].spec,
        "words": tables["word_embeddings"]["embedding"].spec,
    }
    assert {name: tuple(spec) for name, spec in specs.items()} == {
        "query": (None, "fsdp", "tensor", None),
        "output": (None, "tensor", None, "fsdp"),
        "intermediate": (None, "fsdp", "tensor"),
        "scale": (None, "fsdp"),
        "projection": (None, "fsdp"),
        "words": ("tensor", "fsdp"),
    }


def test_an_albert_on_eight_devices_is_an_albert_on_one():
    model, batch = pretraining(
        "albert",
        hidden_size=16,
        embedding_size=8,
        intermediate_size=24,
        num_attention_heads=4,
        vocab_size=32,
    )
    mesh = sharding.make_mesh(2, 2, 2)
    params = random_like(nn.unbox(model.shapes()))
    apply = functools.partial(model.apply, dropout_key=None)
    expected = jax.jit(apply)(params, batch)
    placed = jax.device_put(params, sharding.params_sharding(model.shapes(), mesh))
    rows = jax.device_put(batch, sharding.batch_sharding(mesh))
    found = sharding.jit(apply, mesh)(placed, rows)
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=1e-5)
