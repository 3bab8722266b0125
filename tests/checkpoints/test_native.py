"""Our own folder of exchange: its bytes, its labels, and what can be wrong with it."""

import dataclasses
import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import native, weights
from bert_jax.model import config

PRETRAINING = ("pooler", "mlm_head", "nsp_head")


@pytest.fixture
def given():
    return small_weights.weights_of(*PRETRAINING)


def change_tree(folder, **keys):
    """Changes keys of model.json; DELETED removes one."""
    path = folder / "model.json"
    tree = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in tree.items() if v != "DELETED"}))


def change_arrays(folder, change):
    """Changes the tensors of a folder."""
    path = folder / "parameters.safetensors"
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)


def test_the_files_are_the_tree_as_it_is(given, tmp_path):
    native.write(tmp_path, given, dtype="float32")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.json", "parameters.safetensors"]
    arrays = safetensors.numpy.load_file(tmp_path / "parameters.safetensors")
    kernel = given.params["encoder"]["layers"]["attention"]["query"]["kernel"]
    found = arrays["encoder/layers/attention/query/kernel"]
    assert found.shape == (2, 12, 3, 4)
    np.testing.assert_array_equal(found, kernel)
    tree = json.loads((tmp_path / "model.json").read_text())
    assert tree["format"] == "bert_jax 1"
    assert tree["parts"] == ["encoder", "pooler", "nsp_head", "mlm_head"]
    assert tree["labels"] == []
    assert tree["model"]["intermediate_size"] == 17


def test_folder_and_file_are_read_to_the_bit_with_a_report(given, tmp_path):
    native.write(tmp_path, given, dtype="float32")
    digest = hashlib.sha256((tmp_path / "parameters.safetensors").read_bytes())
    for path in (tmp_path, tmp_path / "parameters.safetensors"):
        read, report = native.read(path)
        assert small_weights.same(read, given)
        assert report.source == "bert_jax"
        assert report.files == {"parameters.safetensors": digest.hexdigest()}
        assert {row.change for row in report.rows} == {"as it is"}
        assert (report.missing, report.ignored, report.dropped) == ((), (), ())


def test_the_same_weights_are_the_same_bytes(given, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        native.write(tmp_path / name, given, dtype="float32")
    for name in ("model.json", "parameters.safetensors"):
        one, other = ((tmp_path / x / name).read_bytes() for x in "ab")
        assert one == other


def test_bfloat16_is_half_the_bytes_and_rounded_once(given, tmp_path):
    native.write(tmp_path, given, dtype="bfloat16")
    read, report = native.read(tmp_path)
    assert {row.dtype for row in report.rows} == {"bfloat16"}
    kernel = given.params["pooler"]["dense"]["kernel"]
    rounded = kernel.astype(ml_dtypes.bfloat16).astype(np.float32)
    found = read.params["pooler"]["dense"]["kernel"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rounded)


@pytest.mark.parametrize(
    ("head", "kind"),
    [("classifier", "regression"), ("tagger", ""), ("multiple_choice", "")],
)
def test_the_dropout_and_the_problem_belong_to_the_head(tmp_path, head, kind):
    made = small_weights.weights_of("pooler", head)
    made = dataclasses.replace(made, problem_type="regression", head_dropout=0.25)
    native.write(tmp_path, made, dtype="float32")
    read, _ = native.read(tmp_path)
    assert (read.problem_type, read.head_dropout) == (kind, 0.25)
    without, _ = native.read(tmp_path, weights.Choice(ignore=(head,)))
    assert (without.problem_type, without.head_dropout) == ("", None)
    change_tree(tmp_path, problem_type="DELETED", head_dropout="DELETED")
    read, _ = native.read(tmp_path)  # as files of before have it
    assert (read.problem_type, read.head_dropout) == ("", None)
    change_tree(tmp_path, head_dropout=2)
    with pytest.raises(errors.InputError, match="model.json: head_dropout is 2: it"):
        native.read(tmp_path)


@pytest.mark.parametrize("head", ["classifier", "tagger"])
def test_labels_belong_to_the_head(tmp_path, head):
    labels = ("负面", "neutral", "positive")
    made = small_weights.weights_of("pooler", head, labels=labels)
    native.write(tmp_path, made, dtype="float32")
    assert "负面" in (tmp_path / "model.json").read_text(encoding="utf-8")
    read, _ = native.read(tmp_path)
    assert small_weights.same(read, made)
    without, _ = native.read(tmp_path, weights.Choice(ignore=(head,)))
    assert without.labels == () and head not in without.params
    (tmp_path / "again").mkdir()
    native.write(tmp_path / "again", without, dtype="float32")
    assert small_weights.same(native.read(tmp_path / "again")[0], without)
    change_tree(tmp_path, labels=["a", "b"])
    with pytest.raises(errors.InputError, match="bias has 3 classes, and .* are 2"):
        native.read(tmp_path)


def test_a_head_that_is_gone_whole_is_missed(given, tmp_path):
    native.write(tmp_path, given, dtype="float32")

    def without(arrays):
        for name in [name for name in arrays if name.startswith("mlm_head/")]:
            del arrays[name]

    change_arrays(tmp_path, without)
    with pytest.raises(errors.InputError) as caught:
        native.read(tmp_path)
    assert "lacks 5 tensors: mlm_head/bias" in str(caught.value)
    assert "--allow_missing=mlm_head" in str(caught.value)
    read, report = native.read(tmp_path, weights.Choice(("mlm_head",)))
    assert read.parts == ("encoder", "pooler", "nsp_head")
    assert report.dropped == ("mlm_head",)


MODEL = {"vocab_size": 31, "hidden_size": 12}
TREES = [
    ({"format": "bert_jax 2"}, "is not of the format 'bert_jax 1'"),
    ({"format": "DELETED"}, "is not of the format 'bert_jax 1'"),
    ({"labels": "abc"}, "labels must be a list of names"),
    ({"labels": [1]}, "labels must be a list of names"),
    ({"parts": "DELETED"}, "parts must be a list of some of encoder, pooler"),
    ({"parts": "encoder"}, "parts must be a list"),
    ({"parts": ["encoder", "lm"]}, "parts must be a list"),
    ({"model": "DELETED"}, "has no group 'model'"),
    ({"model": [1]}, "has no group 'model'"),
    ({"model": MODEL | {"depth": 3}}, "'depth'"),
    ({"model": MODEL | {"hidden_size": 3.5}}, "model.hidden_size is 3.5"),
    ({"model": MODEL | {"num_attention_heads": 5}}, "is not a multiple of"),
]


@pytest.mark.parametrize(("keys", "words"), TREES)
def test_what_can_be_wrong_with_the_config(given, tmp_path, keys, words):
    native.write(tmp_path, given, dtype="float32")
    change_tree(tmp_path, **keys)
    with pytest.raises(errors.InputError) as caught:
        native.read(tmp_path)
    assert words in str(caught.value) and "model.json" in str(caught.value)


def test_a_folder_without_one_of_the_files_is_refused(given, tmp_path):
    native.write(tmp_path, given, dtype="float32")
    (tmp_path / "parameters.safetensors").unlink()
    with pytest.raises(errors.InputError, match="parameters.safetensors .*exist"):
        native.read(tmp_path)
    described, parts = native.read_config(tmp_path)  # which needs no weights
    assert described.bert == config.BertConfig(**small_weights.BERT_KEYS)
    assert (described.labels, len(parts)) == ((), 4)
    (tmp_path / "model.json").unlink()
    with pytest.raises(errors.InputError, match="model.json does not exist"):
        native.read(tmp_path)


def test_every_architecture_comes_back_as_it_was(tmp_path):
    made = small_weights.weights_of(
        "mlm_head",
        model_type="albert",
        embedding_size=5,
        num_hidden_groups=1,
        hidden_act="gelu_new",
        tie_word_embeddings=False,
        layer_norm_eps=1e-6,
    )
    native.write(tmp_path, made, dtype="float32")
    read, _ = native.read(tmp_path)
    assert small_weights.same(read, made)
    assert read.params["mlm_head"]["decoder"].shape == (31, 5)
