"""What may be missing or left over in a model folder, if it is named."""

import re
import shutil

import numpy as np
import pytest
import safetensors.numpy
import small_inputs
import small_weights

from bert_jax.checkpoints import huggingface, tensors
from bert_jax.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of Hugging Face's with a classifier and a vocabulary."""
    folder = tmp_path_factory.mktemp("published") / "model"
    folder.mkdir()
    weights = small_weights.weights_of(
        "pooler", "classifier", labels=("a", "b", "c"), vocab_size=37
    )
    huggingface.write(folder, weights, dtype="float32")
    pieces = tuple(small_inputs.TOKENS)
    Tokenizer("wordpiece", pieces, True, True).save(folder)
    return folder


@pytest.fixture
def model(published, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(published, tmp_path / "model")


def _weights(model, change):
    path = model / "model.safetensors"
    arrays = dict(tensors.read(path).arrays)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)  # which accepts what ours rejects


def _fewer_pieces(model):
    path = model / "vocab.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


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
    assert re.search(r"missing.*: classifier\.bias$", done.out, re.MULTILINE)
    assert re.search(r"ignored.*: classifier\.weight, more$", done.out, re.MULTILINE)
