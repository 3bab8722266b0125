"""Every experiment in configs/ builds model and optimizer by shapes alone."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

from bert_jax.config import pretraining
from bert_jax.model import network
from bert_jax.training import optimizer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SIZES = ("tiny", "mini", "small", "medium", "base", "large")
NAMES = [
    "demo",
    "demo_bert",
    "demo_en",
    "demo_long:first",
    *(f"pretrain:{size}" for size in SIZES),
    "pretrain:xlarge",
    "pretrain:base,phase=2",
    "pretrain:base,both",
    "pretrain:large,lamb",
    "pretrain:large,phase=2,lamb",
    "pretrain:base,both,fast",
    "pretrain:large,phase=2,lamb,fast",
    "pretrain_modern:tiny",
    "pretrain_modern:base",
    "pretrain_modern:large",
    "pretrain_modern:xlarge",
    *(f"pretrain_zh:{size}" for size in SIZES),
    "pretrain_zh:base,phase=2",
    "pretrain_zh:base,phase=2,fast",
]
# Those of fine-tuning, which test_suite.py and the tests of fine-tuning parse.
OTHERS = {"clue", "demo_finetune", "finetune", "glue"}


def _module(stem: str):
    spec = importlib.util.spec_from_file_location(stem, CONFIGS / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _config(name: str):
    stem, _, options = name.partition(":")
    return _module(stem).get_config(*([options] if options else []))


def test_no_config_is_missing_here():
    found = {path.stem for path in CONFIGS.glob("*.py")}
    assert found == {name.partition(":")[0] for name in NAMES} | OTHERS


@pytest.mark.parametrize("name", NAMES)
def test_config_builds(name):
    settings = pretraining.parse(_config(name))
    bert = settings.bert(settings.text.vocab_size)
    model = network.for_pretraining(
        bert,
        settings.run.execution(),
        sentence_pairs=settings.data.objective != "full_sentences",
    )
    shapes = nn.unbox(model.shapes())
    steps = settings.run.num_train_steps
    made = optimizer.make(settings.optimizer, steps)
    moments = jax.eval_shape(made.init, shapes)
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
    each = 1 if settings.optimizer.name == "muon" else 2  # Muon's matrices have one
    assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(moments)) > each * count
    rate = optimizer.learning_rate(settings.optimizer, steps)
    assert 0 <= float(rate(steps - 1)) <= settings.optimizer.learning_rate


@pytest.mark.parametrize("name", sorted({name.partition(":")[0] for name in NAMES}))
def test_the_docstring_is_the_command(name):
    assert f"--config=configs/{name}.py" in _module(name).__doc__


@pytest.mark.parametrize(
    "name",
    ["pretrain:huge", "pretrain:base,phase=3", "pretrain:base,both,lamb"]
    + ["pretrain:base,quick", "pretrain_zh:base,both", "pretrain_modern:huge"],
)
def test_an_unknown_option_says_what_to_write(name):
    with pytest.raises(ValueError, match="write a size of tiny"):
        _config(name)


@pytest.mark.parametrize("recipe", ["pretrain", "pretrain_zh"])
def test_the_fast_recipe_differs_in_two_settings(recipe):
    plain = _config(f"{recipe}:base,phase=2")
    plain.model.attention_probs_dropout_prob = 0.0
    plain.run.unroll = -1
    assert _config(f"{recipe}:base,phase=2,fast") == plain


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_modern_recipe_has_the_published_architecture(size):
    """That of transformers' defaults, whatever the vocabulary; 22 layers or 28."""
    settings = pretraining.parse(_config(f"pretrain_modern:{size}"))
    bert = settings.bert(settings.text.vocab_size)
    inside = (bert.num_hidden_layers, bert.hidden_size, bert.intermediate_size)
    assert inside == {"base": (22, 768, 1152), "large": (28, 1024, 2624)}[size]
    kept = ("global_attn_every_n_layers", "local_attention", "global_rope_theta")
    assert [getattr(bert, key) for key in kept] == [3, 128, 160_000]
    assert settings.data.num_predictions == 308  # 30 % of 1,024


@pytest.mark.parametrize("recipe", ["pretrain", "pretrain_modern"])
def test_xlarge_has_13_hundred_million_parameters_cut_over_all_devices(recipe):
    config = _config(f"{recipe}:xlarge")
    assert (config.mesh.data, config.mesh.fsdp, config.mesh.tensor) == (1, -1, 1)
    settings = pretraining.parse(config)
    bert = settings.bert(settings.text.vocab_size)
    inside = (bert.num_hidden_layers, bert.hidden_size, bert.num_attention_heads)
    assert inside == (24, 2048, 32)
    model = network.for_pretraining(bert, settings.run.execution())
    shapes = jax.tree.leaves(nn.unbox(model.shapes()))
    assert 1.25e9 < sum(int(np.prod(x.shape)) for x in shapes) < 1.35e9


def test_chinese_configs_mask_whole_words():
    for size in SIZES:
        config = _config(f"pretrain_zh:{size}")
        assert config.data.whole_word
        assert config.text.segmenter == "jieba"


def test_the_second_phase_of_the_long_demo_takes_what_the_first_has():
    config = _config("demo_long:second")
    config.init_from = "runs/demo_long_first"
    settings = pretraining.parse(config)
    assert settings.size == settings.text.vocab == pretraining.FROM_INIT
    first = pretraining.parse(_config("demo_long:first"))
    assert settings.data.max_seq_length == 4 * first.data.max_seq_length
    assert settings.run.batch_size * 4 == first.run.batch_size
