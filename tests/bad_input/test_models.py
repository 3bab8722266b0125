"""What a model folder can have wrong, seen from the commands that read one."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import small_place
import small_weights

from bert_jax.formats import huggingface, native, tensors
from bert_jax.text import tokenizer as tokenizers


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of Hugging Face's with a classifier and a vocabulary."""
    folder = tmp_path_factory.mktemp("published") / "model"
    folder.mkdir()
    made = small_weights.weights_of(
        "pooler", "classifier", labels=("a", "b", "c"), vocab_size=37
    )
    huggingface.write(folder, made, dtype="float32")
    pieces = tuple(small_place.PIECES)
    tokenizers.Tokenizer("wordpiece", pieces, True, True).save(folder)
    return folder


@pytest.fixture
def model(published, tmp_path):
    """A copy that a test may harm."""
    return shutil.copytree(published, tmp_path / "model")


def _config(model, **keys):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def _weights(model, change):
    path = model / "model.safetensors"
    arrays = dict(tensors.read(path).arrays)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)  # which takes what ours refuses


def _cut(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _flip_header(model):
    path = model / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[:8] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(content)


def _double_key(model):
    path = model / "config.json"
    path.write_text('{"vocab_size": 5, ' + path.read_text()[1:])


def _more_pieces(model):
    with (model / "vocab.txt").open("a") as file:
        file.write("more\n")


def _fewer_pieces(model):
    path = model / "vocab.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def _escape(model):
    index = {"weight_map": {"x": "../../secret.safetensors"}, "metadata": {}}
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


HARM = {
    "cut": (_cut, "model.safetensors"),
    "header lies": (_flip_header, "model.safetensors"),
    "key twice": (_double_key, "has the key 'vocab_size' twice"),
    "not finite": (
        lambda m: _weights(m, lambda a: a["bert.pooler.dense.bias"].fill(np.nan)),
        "bert.pooler.dense.bias",
    ),
    "tensor missing": (
        lambda m: _weights(m, lambda a: a.pop("classifier.bias")),
        "--allow_missing=classifier",
    ),
    "tensor left over": (
        lambda m: _weights(m, lambda a: a.update(more=np.ones(2, np.float32))),
        "--ignore=more",
    ),
    "shape lies": (lambda m: _config(m, hidden_size=15), "shape"),
    "another model": (lambda m: _config(m, model_type="gpt2"), "model_type is 'gpt2'"),
    "labels": (lambda m: _config(m, id2label={"0": "x"}), "id2label"),
    "table too small": (_more_pieces, "has 38 pieces, and the table"),
    "table too large": (_fewer_pieces, "--ignore=vocab_rows"),
    "no vocabulary": (lambda m: (m / "vocab.txt").unlink(), "has no tokenizer"),
    "no config": (lambda m: (m / "config.json").unlink(), "config.json"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "holds no model"),
    "path outside": (_escape, "../../secret.safetensors"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_harmed_model_is_one_message_and_nothing_is_written(
    shell, model, tmp_path, harm
):
    change, words = HARM[harm]
    change(model)
    before = small_place.files(model)
    output = tmp_path / "out"
    done = shell("convert", f"--input={model}", f"--output={output}", "--to=bert_jax")
    assert (done.code, done.out) == (2, ""), done.err
    assert words in done.message
    assert small_place.files(model) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    vectors = tmp_path / "vectors.npy"
    options = ("--task=features", f"--output={vectors}", "a")
    done = shell("predict", f"--model={model}", *options)
    assert done.code == 2 and words in done.message
    assert not vectors.exists()


def test_our_own_export_is_held_to_the_same(shell, model, tmp_path):
    done = shell(
        "convert", f"--input={model}", f"--output={tmp_path / 'a'}", "--to=bert_jax"
    )
    assert done.code == 0, done.err
    path = tmp_path / "a" / native.CONFIG
    tree = json.loads(path.read_text())
    for change, words in (
        ({"format": "bert_jax 9"}, "written by another version"),
        ({"labels": "abc"}, "labels must be a list"),
        ({"model": tree["model"] | {"hidden_size": "12"}}, "hidden_size is '12'"),
        ({"model": tree["model"] | {"depth": 3}}, "depth"),
        ({"model": None}, "has no group 'model'"),
    ):
        path.write_text(json.dumps(tree | change))
        done = shell(
            "predict",
            f"--model={tmp_path / 'a'}",
            "--task=features",
            f"--output={tmp_path / 'v.npy'}",
            "a",
        )
        assert done.code == 2 and words in done.message


def test_what_is_named_may_be_missing_or_left_over(shell, model, tmp_path):
    _weights(model, lambda a: a.pop("classifier.bias"))
    _weights(model, lambda a: a.update(more=np.ones(2, np.float32)))
    _fewer_pieces(model)
    done = shell(
        "convert",
        f"--input={model}",
        f"--output={tmp_path / 'out'}",
        "--to=huggingface",
        "--allow_missing=classifier",
        "--ignore=more,vocab_rows",
    )
    assert done.code == 0, done.err
    assert "missing, allowed: classifier.bias" in done.out
    assert "parts left out: classifier" in done.out
    assert "left over, ignored: classifier.weight, more" in done.out
