"""Names and shapes in other people's files, as lists that one can check by eye."""

import jax.numpy as jnp
import numpy as np
import pytest
import small_models
import small_weights

from bert_jax.checkpoints import mapping, weights
from bert_jax.model import config

BERT = config.BertConfig(**small_weights.BERT_KEYS)  # 2 layers of width 12, 3 heads
EVERY = frozenset({"encoder", "pooler", "mlm_head", "nsp_head", "span"})

# As google-research/bert names them in modeling.py, run_pretraining.py, run_squad.py.
GOOGLE_LAYER = {
    "attention/self/query/kernel": (12, 12),
    "attention/self/query/bias": (12,),
    "attention/self/key/kernel": (12, 12),
    "attention/self/key/bias": (12,),
    "attention/self/value/kernel": (12, 12),
    "attention/self/value/bias": (12,),
    "attention/output/dense/kernel": (12, 12),
    "attention/output/dense/bias": (12,),
    "attention/output/LayerNorm/gamma": (12,),
    "attention/output/LayerNorm/beta": (12,),
    "intermediate/dense/kernel": (12, 17),
    "intermediate/dense/bias": (17,),
    "output/dense/kernel": (17, 12),
    "output/dense/bias": (12,),
    "output/LayerNorm/gamma": (12,),
    "output/LayerNorm/beta": (12,),
}
GOOGLE = {
    "bert/embeddings/word_embeddings": (31, 12),
    "bert/embeddings/position_embeddings": (9, 12),
    "bert/embeddings/token_type_embeddings": (2, 12),
    "bert/embeddings/LayerNorm/gamma": (12,),
    "bert/embeddings/LayerNorm/beta": (12,),
    **{f"bert/encoder/layer_0/{name}": x for name, x in GOOGLE_LAYER.items()},
    **{f"bert/encoder/layer_1/{name}": x for name, x in GOOGLE_LAYER.items()},
    "bert/pooler/dense/kernel": (12, 12),
    "bert/pooler/dense/bias": (12,),
    "cls/predictions/transform/dense/kernel": (12, 12),
    "cls/predictions/transform/dense/bias": (12,),
    "cls/predictions/transform/LayerNorm/gamma": (12,),
    "cls/predictions/transform/LayerNorm/beta": (12,),
    "cls/predictions/output_bias": (31,),
    "cls/seq_relationship/output_weights": (2, 12),
    "cls/seq_relationship/output_bias": (2,),
    "cls/squad/output_weights": (2, 12),
    "cls/squad/output_bias": (2,),
}


def stored(listed):
    """Returns the shapes of all tensors by name; fails if two have one name."""
    named = [(name, place.stored) for place in listed for name in place.theirs]
    made = dict(named)
    assert len(made) == len(named)
    return made


def test_googles_names_and_shapes():
    assert stored(mapping.tensorflow1_mapping(BERT, EVERY, 2)) == GOOGLE


@pytest.mark.parametrize(
    ("head", "rows"), [("classifier", 5), ("tagger", 5), ("multiple_choice", 1)]
)
def test_googles_name_of_whatever_classifies(head, rows):
    of_parts = frozenset({"encoder", "pooler", head})
    found = stored(mapping.tensorflow1_mapping(BERT, of_parts, 5))
    assert found["output_weights"] == (rows, 12)
    assert found["output_bias"] == (rows,)
    assert len(found) == 5 + 2 * 16 + 2 + 2


# One layer and the embeddings, as each model of transformers saves them.
HUGGING_FACE = {
    "bert": [
        "bert.embeddings.word_embeddings.weight (31, 12)",
        "bert.encoder.layer.1.attention.self.query.weight (12, 12)",
        "bert.encoder.layer.0.attention.output.LayerNorm.weight (12,)",
        "bert.encoder.layer.1.intermediate.dense.weight (17, 12)",
        "bert.encoder.layer.1.output.dense.weight (12, 17)",
        "bert.encoder.layer.0.output.LayerNorm.bias (12,)",
        "cls.predictions.transform.LayerNorm.weight (12,)",
        "cls.predictions.bias (31,)",
    ],
    "roberta": [
        "roberta.encoder.layer.1.intermediate.dense.weight (17, 12)",
        "lm_head.dense.weight (12, 12)",
        "lm_head.layer_norm.bias (12,)",
        "lm_head.bias (31,)",
    ],
    "albert": [
        "albert.embeddings.word_embeddings.weight (31, 5)",
        "albert.encoder.embedding_hidden_mapping_in.weight (12, 5)",
        "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight (17, 12)",
        "albert.encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm"
        ".bias (12,)",
        "predictions.dense.weight (5, 12)",
        "predictions.LayerNorm.weight (5,)",
        "predictions.bias (31,)",
    ],
    "electra": [
        "electra.embeddings_project.weight (12, 5)",
        "electra.encoder.layer.1.attention.output.dense.weight (12, 12)",
        "generator_predictions.dense.weight (5, 12)",
        "generator_predictions.LayerNorm.bias (5,)",
        "generator_lm_head.bias (31,)",
    ],
    "distilbert": [
        "distilbert.transformer.layer.1.attention.q_lin.weight (12, 12)",
        "distilbert.transformer.layer.0.sa_layer_norm.weight (12,)",
        "distilbert.transformer.layer.0.ffn.lin1.weight (17, 12)",
        "distilbert.transformer.layer.0.ffn.lin2.weight (12, 17)",
        "vocab_transform.weight (12, 12)",
        "vocab_layer_norm.weight (12,)",
        "vocab_projector.bias (31,)",
    ],
    "modernbert": [
        "model.embeddings.tok_embeddings.weight (31, 12)",
        "model.embeddings.norm.weight (12,)",
        "model.layers.0.attn.Wqkv.weight (36, 12)",
        "model.layers.0.attn.Wo.weight (12, 12)",
        "model.layers.0.mlp_norm.weight (12,)",
        "model.layers.1.attn_norm.weight (12,)",
        "model.layers.1.mlp.Wi.weight (34, 12)",
        "model.layers.1.mlp.Wo.weight (12, 17)",
        "model.final_norm.weight (12,)",
        "head.dense.weight (12, 12)",
        "head.norm.weight (12,)",
        "decoder.bias (31,)",
    ],
}
OWN = small_models.TYPES | {
    "albert": {"embedding_size": 5, "num_hidden_groups": 1},
    "modernbert": {"type_vocab_size": 0, "num_attention_heads": 2},
}
# Of the encoder and the MLM head: 16 a layer, 5 of embeddings, 5 of the head; of
# ModernBERT's without biases 6, but 5 of the first, 2 of embeddings, 1 behind, 3.
COUNTS = {
    "bert": 42,
    "roberta": 42,
    "albert": 28,
    "electra": 44,
    "distilbert": 41,
    "modernbert": 17,
}


@pytest.mark.parametrize("model_type", OWN)
def test_hugging_faces_names_and_shapes(model_type):
    keys = small_weights.BERT_KEYS | OWN[model_type] | {"model_type": model_type}
    of_parts = frozenset({"encoder", "mlm_head"})
    listed = mapping.huggingface_mapping(config.BertConfig(**keys), of_parts, 2)
    found = {f"{name} {shape}" for name, shape in stored(listed).items()}
    assert set(HUGGING_FACE[model_type]) <= found
    assert len(found) == COUNTS[model_type]


@pytest.mark.slow
def test_the_table_names_every_part_of_every_model():
    assert set(mapping.ENCODER) == set(mapping.HEADS) == set(config.MODEL_TYPES)
    assert set(mapping.CLASSES) == set(mapping.CLASS_PREFIX) == set(mapping.DECODER)
    for model_type, classes in mapping.CLASSES.items():
        keys = small_weights.BERT_KEYS | OWN[model_type] | {"model_type": model_type}
        for heads in classes:
            listed = mapping.huggingface_mapping(
                config.BertConfig(**keys), heads | {"encoder"}, 3
            )
            assert stored(listed)


def test_an_untied_decoder_is_the_table_of_the_decoder():
    bert = config.BertConfig(**small_weights.BERT_KEYS, tie_word_embeddings=False)
    listed = mapping.huggingface_mapping(bert, frozenset({"encoder", "mlm_head"}), 2)
    assert stored(listed)["cls.predictions.decoder.weight"] == (31, 12)


def place_of(ours, of=mapping.huggingface_mapping):
    return next(place for place in of(BERT, EVERY, 2) if place.ours == ours)


def test_kernels_are_transposed_stacked_and_cut_into_heads():
    place = place_of("encoder/layers/attention/query/kernel")
    assert place.shape == (2, 12, 3, 4)
    assert place.change == "transposed, stacked 2, cut into heads"
    rng = np.random.default_rng(2)
    stored = [rng.normal(size=(12, 12)).astype(np.float32) for _ in range(2)]
    joined = place.join(stored)
    for layer in range(2):
        for head in range(3):
            for at in range(4):
                row = stored[layer][4 * head + at]  # of torch's [out, in]
                np.testing.assert_array_equal(joined[layer, :, head, at], row)
    split = place.split(joined)
    assert list(split) == [
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.1.attention.self.query.weight",
    ]
    for found, given in zip(split.values(), stored, strict=True):
        np.testing.assert_array_equal(found, given)
        assert found.flags.c_contiguous


def test_the_output_of_attention_takes_heads_in():
    place = place_of(
        "encoder/layers/attention/output/kernel", mapping.tensorflow1_mapping
    )
    assert place.shape == (2, 3, 4, 12)
    assert place.change == "stacked 2, cut into heads"
    stored = [np.arange(144, dtype=np.float32).reshape(12, 12) + n for n in (0, 7)]
    joined = place.join(stored)
    np.testing.assert_array_equal(joined[1, 2, 3], stored[1][4 * 2 + 3])


def test_googles_output_weights_alone_are_transposed():
    changes = {
        p.ours: p.transposed for p in mapping.tensorflow1_mapping(BERT, EVERY, 2)
    }
    assert {name for name, turned in changes.items() if turned} == {
        "nsp_head/dense/kernel",
        "span/dense/kernel",
    }


@pytest.mark.parametrize(
    "of",
    [mapping.huggingface_mapping, mapping.tensorflow1_mapping, mapping.native_mapping],
)
def test_what_is_joined_splits_into_the_same(of):
    given = mapping.flatten(small_weights.weights_of(*EVERY - {"encoder"}).params)
    listed = of(BERT, EVERY, 2)
    assert {place.ours for place in listed} == set(given)
    for place in listed:
        parts = place.split(given[place.ours])
        assert {x.shape for x in parts.values()} == {place.stored}
        found = place.join([parts[name] for name in place.theirs])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, given[place.ours])


def test_any_dtype_becomes_float32():
    place = place_of("mlm_head/bias")
    for dtype in (np.float16, np.float64, jnp.bfloat16):
        made = place.join([np.linspace(-3, 3, 31).astype(dtype)])
        assert made.dtype == np.float32
        expected = np.linspace(-3, 3, 31).astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(made, expected)


def test_trees_are_flat_and_nested_again():
    tree = {"encoder": {"a": {"b": 1, "c": 2}}, "pooler": {"d": 3}}
    flat = {"encoder/a/b": 1, "encoder/a/c": 2, "pooler/d": 3}
    assert mapping.flatten(tree) == flat
    assert mapping.unflatten(flat) == tree


def test_the_vocabulary_of_a_file_is_not_padded():
    shapes = mapping.parameter_shapes(BERT, EVERY, 2)
    assert shapes["encoder/embeddings/word_embeddings/embedding"] == (31, 12)
    assert shapes["mlm_head/bias"] == (31,)


def test_names_that_differ_in_a_number_are_one():
    named = [f"encoder.layer.{n}.output.bias" for n in range(12)]
    assert weights.in_one(named) == "encoder.layer.{0..11}.output.bias"
    assert weights.in_one(named[:11]) == "encoder.layer.{0..10}.output.bias"
    assert weights.in_one(named[:1]) == "encoder.layer.0.output.bias"
