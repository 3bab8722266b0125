"""The published architectures, as literals."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

from bert_jax import errors
from bert_jax.model import config, encoder, network

# Parameters of encoder and pooler, and with the MLM and NSP heads (DESIGN.md's table
# and, for the grid, L * 12 H^2 and so on, counted by hand for two corners).
GOLDEN_COUNTS = {
    "tiny": (4_385_920, 4_433_468),
    "base": (109_482_240, 110_106_428),
    "base-chinese": (102_267_648, 102_882_442),
    "large": (335_141_888, 336_226_108),
    "xlarge": (1_276_360_704, 1_280_595_772),
}


def _count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _shapes(name: str) -> dict:
    execution = encoder.Execution(vocab_multiple=1)
    model = network.for_pretraining(config.published(name), execution)
    return nn.unbox(model.shapes())


@pytest.mark.parametrize("name", GOLDEN_COUNTS)
def test_golden_parameter_counts(name):
    shapes = _shapes(name)
    all_of_it = _count(shapes)
    heads_alone = _count(shapes["mlm_head"]) + _count(shapes["nsp_head"])
    assert (all_of_it - heads_alone, all_of_it) == GOLDEN_COUNTS[name]


def test_the_grid_has_24_small_models_and_all_build():
    grid = [f"L{n}_H{w}" for n in config.GRID_LAYERS for w in config.GRID_WIDTHS]
    assert len(grid) == 24
    for name in (*config.SIZES, *grid):
        bert = config.published(name)
        shapes = _shapes(name)["encoder"]["layers"]["intermediate"]["kernel"]
        layers, width = bert.num_hidden_layers, bert.hidden_size
        assert shapes.shape == (layers, width, 4 * width)
        assert bert.head_size == 64


def test_vocabulary_sizes_of_the_languages():
    assert config.published("base-multilingual-cased").vocab_size == 119_547
    assert config.published("tiny-english-cased").vocab_size == 28_996


def test_the_chinese_json_is_accepted_with_its_unused_keys():
    chinese = {
        "attention_probs_dropout_prob": 0.1,
        "directionality": "bidi",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pooler_fc_size": 768,
        "pooler_num_attention_heads": 12,
        "pooler_num_fc_layers": 3,
        "pooler_size_per_head": 128,
        "pooler_type": "first_token_transform",
        "type_vocab_size": 2,
        "vocab_size": 21128,
    }
    assert config.BertConfig(**chinese) == config.published("base-chinese")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("hidden_size", 770, "not a multiple"),
        ("num_hidden_layers", 0, "from 1"),
        ("hidden_dropout_prob", float("nan"), "0.999"),
        ("hidden_dropout_prob", 1.0, "0.999"),
        ("hidden_act", "swish", "gelu_new"),
        ("layer_norm_eps", -1e-12, "1e-15"),
        ("directionality", "left", "bidi"),
    ],
)
def test_a_wrong_value_is_named(key, value, words):
    with pytest.raises(errors.InputError, match=words) as caught:
        config.BertConfig(**{key: value})
    assert f"model.{key}" in str(caught.value)


@pytest.mark.parametrize("name", ["huge", "L3_H128", "L2_H100", "base-klingon"])
def test_an_unknown_size_is_refused(name):
    with pytest.raises(errors.InputError, match="use one of"):
        config.published(name)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.published("tiny").hidden_size = 64


@pytest.mark.parametrize("value", [768.0, True, "768", None])
def test_a_value_of_another_type_is_named(value):
    with pytest.raises(errors.InputError, match="model.hidden_size .* expected int"):
        config.from_json({"hidden_size": value})
