"""scripts/bench/modern.py: each element of the recipe can be turned back alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
from flax import linen as nn

from bert_jax.config import file as config_file
from bert_jax.config import pretraining
from bert_jax.foundation import fields
from bert_jax.model import encoder, network

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "bench"
sys.path.insert(0, str(SCRIPTS))
import modern as bench_modern  # noqa: E402

sys.path.remove(str(SCRIPTS))


def _settings(changes=None):
    recipe = config_file.load(f"{bench_modern.RECIPE}:tiny")
    made = recipe if changes is None else bench_modern.turned_back(recipe, changes)
    return pretraining.parse(made)


def _flat(settings):
    bert = settings.bert(8192)
    tree = pretraining.to_dict(settings) | {"model": vars(bert)}
    return fields.flat(tree)


# Element -> the keys that it is.
KEYS = {
    "pre-norm, rotary and GeGLU": {
        "model.model_type",
        "model.type_vocab_size",
        "model.layer_norm_eps",
        "model.intermediate_size",
    },
    "no biases": {"model.norm_bias", "model.attention_bias", "model.mlp_bias"},
    "near and far layers": {"model.global_attn_every_n_layers"},
    "30 % masked": {"data.masked_lm_prob"},
    "no next sentences": {"data.objective"},
    "packed rows": {"data.pack"},
    "no dropout": {"model.hidden_dropout_prob", "model.attention_probs_dropout_prob"},
    "StableAdamW": {"optimizer.name"},
    "WSD schedule": {"optimizer.schedule"},
    "bfloat16": {"run.dtype"},
    "long rows": {"data.max_seq_length", "run.batch_size"},
}


@pytest.mark.parametrize("name", bench_modern.ELEMENTS)
def test_an_element_is_its_own_keys_and_no_others(name):
    with_it, without = (
        _flat(_settings()),
        _flat(_settings(bench_modern.ELEMENTS[name][1])),
    )
    assert with_it.keys() == without.keys()
    assert {key for key in with_it if with_it[key] != without[key]} == KEYS[name]


def test_no_element_is_missing():
    assert set(bench_modern.ELEMENTS) == set(KEYS)


def test_the_layers_of_bert_have_as_many_numbers_in_their_kernels():
    counts = []
    for changes in (None, bench_modern.ELEMENTS["pre-norm, rotary and GeGLU"][1]):
        bert = _settings(changes).bert(8192)
        model = network.for_pretraining(bert, encoder.Execution())
        layers = nn.unbox(model.shapes())["encoder"]["layers"]
        modules = [*layers["attention"].values(), *layers.values()]
        kernels = [node["kernel"].shape for node in modules if "kernel" in node]
        counts.append(sum(int(np.prod(shape)) for shape in kernels))
    # Four layers of width 128: 4 D^2 and, with D = 128, 4.5 D^2 of the rest.
    assert counts == [4 * (4 + 4.5) * 128**2] * 2
