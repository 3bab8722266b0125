"""One name, two functions: gelu by erf and by tanh, in and out of every format."""

import json
import math

import numpy as np
import pytest
import small_weights

from bert_jax import checkpoints, convert, errors
from bert_jax.checkpoints import (
    hf_config,
    huggingface,
    tensorflow1,
    weights,
)
from bert_jax.model import layers

WITHOUT_TOKENIZER = weights.Choice(allow_missing=("tokenizer",))


@pytest.mark.parametrize("name", hf_config.ACTIVATIONS)
def test_a_name_is_the_function_that_transformers_has(name):
    torch = pytest.importorskip("torch")
    table = pytest.importorskip("transformers.activations").ACT2FN
    x = np.linspace(-4, 4, 161, dtype=np.float32)
    theirs = table[name](torch.tensor(x)).numpy()
    ours = layers.ACTIVATIONS[hf_config.activation_of(name)](x)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_erf_and_tanh_differ_by_what_the_docs_say():
    x = np.linspace(-8, 8, 16_001)
    by_erf = x * np.array([1 + math.erf(value / math.sqrt(2)) for value in x]) / 2
    by_tanh = x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    assert 4.7e-4 < np.abs(by_erf - by_tanh).max() < 4.8e-4
    ours = (
        layers.ACTIVATIONS[name](x.astype(np.float32)) for name in ("gelu", "gelu_new")
    )
    for found, expected in zip(ours, (by_erf, by_tanh), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["quick_gelu", "gelu_10", "silu", "GELU"])
def test_another_function_is_refused(tmp_path, name):
    with pytest.raises(errors.InputError, match="gelu_pytorch_tanh"):
        convert.Request("huggingface", hidden_act=name)
    huggingface.write(tmp_path, small_weights.weights_of("pooler"), dtype="float32")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_act": name}))
    with pytest.raises(errors.InputError, match="hidden_act"):
        huggingface.read(tmp_path)


@pytest.fixture
def google(tmp_path):
    folder = tmp_path / "google"
    folder.mkdir()
    tensorflow1.write(
        folder, small_weights.weights_of("pooler", "mlm_head", "nsp_head")
    )
    return folder


@pytest.mark.parametrize("to", convert.FORMATS)
@pytest.mark.parametrize("asked", ["gelu_new", "gelu_pytorch_tanh"])
def test_the_activation_that_is_asked_for_is_written(google, tmp_path, to, asked):
    request = convert.Request(to, hidden_act=asked, choice=WITHOUT_TOKENIZER)
    convert.convert(google, tmp_path / "out", request)
    read = checkpoints.open(tmp_path / "out").read(WITHOUT_TOKENIZER)
    before = small_weights.weights_of(
        "pooler", "mlm_head", "nsp_head", hidden_act="gelu_new"
    )
    assert small_weights.same(read.weights, before)
    assert "activation | gelu_new" in (tmp_path / "out" / "README.md").read_text()
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert any("instead of gelu" in note for note in record["notes"])


def test_cards_and_verification_name_the_tanh_form(google, tmp_path, capsys):
    request = convert.Request("huggingface", verify=True, choice=WITHOUT_TOKENIZER)
    convert.convert(google, tmp_path / "hf", request)
    told = (tmp_path / "hf" / "README.md").read_text()
    for words in ("TensorFlow 1", "model garden", "keras-hub", "4.8e-4"):
        assert words in told
    shown = capsys.readouterr().out
    assert shown.count("note: gelu is computed by erf here") == 2
    assert "--hidden_act=gelu_new" in shown
    again = convert.Request("tensorflow1", choice=WITHOUT_TOKENIZER)
    convert.convert(tmp_path / "hf", tmp_path / "tf", again)
    assert "--hidden_act=gelu_new" in (tmp_path / "tf" / "README.md").read_text()


def test_a_folder_for_keras_hub_says_so_and_others_do_not():
    bert = small_weights.weights_of().config
    assert "keras-hub" in hf_config.gelu_note(bert, ("bert_jax", "huggingface"))
    assert hf_config.gelu_note(bert, ("workdir", "bert_jax")) == ""
    relu = small_weights.weights_of(hidden_act="relu").config
    assert hf_config.gelu_note(relu, ("tensorflow1", "huggingface")) == ""
