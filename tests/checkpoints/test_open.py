"""Folders of every kind: which kind it is, what is read, what is missing."""

import json
import shutil

import numpy as np
import pytest
import small_weights
import tiny_run

from bert_jax import checkpoints, errors, pretrain
from bert_jax.checkpoints import (
    huggingface,
    native,
    sentence_encoder,
    tensorflow1,
    weights,
)
from bert_jax.inference.model import load
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
TOKENIZER = Tokenizer("wordpiece", PIECES, True, True)
FILES = {
    "huggingface": ["model.safetensors"],
    "bert_jax": ["parameters.safetensors", "model.json"],
    "tensorflow1": ["bert_model.ckpt", "bert_model.ckpt.index"],
}


@pytest.fixture(scope="module")
def given():
    return small_weights.weights_of("pooler", "mlm_head", "nsp_head")


@pytest.fixture(scope="module")
def folders(given, tmp_path_factory):
    """A folder of each format, with a tokenizer."""
    pytest.importorskip("tensorflow")
    place = tmp_path_factory.mktemp("folders")
    made = {name: place / name for name in FILES}
    for folder in made.values():
        folder.mkdir()
        TOKENIZER.save(folder)
    huggingface.write(made["huggingface"], given, dtype="float32")
    native.write(made["bert_jax"], given, dtype="float32")
    tensorflow1.write(made["tensorflow1"], given)
    return made


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of Hugging Face's that a test may harm."""
    return shutil.copytree(folders["huggingface"], tmp_path / "model")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps, which keeps the checkpoint of each."""
    place = tmp_path_factory.mktemp("run")
    corpus = tiny_run.write_corpus(place / "text.txt")
    changes = {
        "run__num_train_steps": 2,
        "run__save_every_steps": 1,
        "run__keep_checkpoints": 2,
    }
    return pretrain.train(tiny_run.config(corpus, **changes), place / "run")


@pytest.mark.parametrize("kind", FILES)
def test_a_folder_and_its_files_are_of_one_kind_and_one_model(folders, given, kind):
    for name in ("", *FILES[kind]):
        path = folders[kind] / name
        assert checkpoints.open(path).format == kind
        found = checkpoints.open(path).read()
        assert (found.format, found.max_seq_length) == (kind, 9)
        assert small_weights.same(found.weights, given)
        assert found.tokenizer == TOKENIZER
        assert checkpoints.open(path).config == given.config
        assert checkpoints.open(path).tokenizer_folder == folders[kind]


@pytest.mark.parametrize("kind", FILES)
def test_the_architecture_needs_no_weights(folders, given, tmp_path, kind):
    folder = shutil.copytree(folders[kind], tmp_path / "model")
    for path in folder.iterdir():
        if path.suffix == ".safetensors" or path.name.startswith("bert_model"):
            path.write_bytes(b"damaged")
    assert checkpoints.open(folder).config == given.config
    with pytest.raises(errors.InputError):
        checkpoints.open(folder).read()


def test_a_prefix_is_meant_even_where_there_are_other_weights(folders, folder):
    for path in folders["tensorflow1"].iterdir():
        shutil.copy(path, folder)
    assert checkpoints.open(folder).format == "huggingface"
    assert checkpoints.open(folder / "bert_model.ckpt").format == "tensorflow1"
    found = checkpoints.open(folder / "bert_model.ckpt").read()
    assert found.report.source == "Google, TensorFlow 1"


def test_an_older_folder_with_googles_name_of_the_config(folder, given):
    (folder / "config.json").rename(folder / "bert_config.json")
    assert checkpoints.open(folder).format == "huggingface"
    assert checkpoints.open(folder).config == given.config
    assert small_weights.same(checkpoints.open(folder).read().weights, given)


WRONG = [
    ("nope", "nope does not exist: give the folder of a model"),
    ("nope.safetensors", "does not exist: give the folder"),
    ("model/vocab.txt", "vocab.txt is not a file of weights"),
    ("empty", "empty holds no model: expected checkpoints/ of a run, parameters"),
    ("model/nope/deeper", "deeper does not exist"),
]


@pytest.mark.parametrize(("name", "words"), WRONG)
def test_what_is_no_model_is_refused(folder, tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputError) as caught:
        checkpoints.open(tmp_path / name)
    assert words in str(caught.value)


OTHERS = [
    ("model.onnx", "an ONNX export", "exported from"),
    ("onnx/model.onnx", "an ONNX export", "exported from"),
    ("tf_model.h5", "TensorFlow 2 or Keras weights", "from_tf=True"),
    ("flax_model.msgpack", "Flax weights", "from_flax=True"),
    ("model.Q4.GGUF", "a GGUF file", "exported from"),
    ("model.pt", "a PyTorch file", "state_dict()"),
    ("model.pth", "a PyTorch file", "state_dict()"),
    ("last.ckpt", "PyTorch Lightning", "state_dict()"),
    ("openvino_model.xml", "an OpenVINO export", "exported from"),
    ("openvino_model.bin", "an OpenVINO export", "exported from"),
]


@pytest.mark.parametrize(("name", "what", "remedy"), OTHERS)
def test_weights_in_another_format_are_refused_by_name(tmp_path, name, what, remedy):
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    if file.suffix == ".bin":
        file.with_suffix(".xml").touch()
    for given in (tmp_path, file):
        with pytest.raises(errors.InputError) as caught:
            checkpoints.open(given).read()
        assert what in str(caught.value) and remedy in str(caught.value)


def test_a_config_without_its_checkpoint_is_refused(tmp_path, folders):
    shutil.copy(folders["tensorflow1"] / "bert_config.json", tmp_path)
    assert checkpoints.open(tmp_path).format == "tensorflow1"
    with pytest.raises(errors.InputError, match="one checkpoint is expected"):
        checkpoints.open(tmp_path).read()


def save_pieces(folder, pieces):
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


def test_a_vocabulary_smaller_than_the_table_must_be_named(folder):
    save_pieces(folder, PIECES[:-2])
    with pytest.raises(errors.InputError) as caught:
        checkpoints.open(folder).read()
    assert "has 29 tokens" in str(caught.value)
    assert "--ignore=vocab_rows" in str(caught.value)
    found = checkpoints.open(folder).read(weights.Choice(ignore=("vocab_rows",)))
    assert found.tokenizer.vocab_size == 29
    assert found.weights.config.vocab_size == 31


def test_a_vocabulary_larger_than_the_table_is_of_another_model(folder):
    save_pieces(folder, [*PIECES, "more"])
    for choice in (weights.WHOLE, weights.Choice(ignore=("vocab_rows",))):
        with pytest.raises(errors.InputError) as caught:
            checkpoints.open(folder).read(choice)
        assert "has 32 tokens" in str(caught.value)
        assert "--ignore" not in str(caught.value)


def test_a_tokenizer_may_be_missing_only_by_name(folder, given):
    (folder / "vocab.txt").unlink()
    with pytest.raises(errors.InputError, match="--allow_missing=tokenizer"):
        checkpoints.open(folder).read()
    found = checkpoints.open(folder).read(weights.Choice(("tokenizer",)))
    assert found.tokenizer is None
    assert small_weights.same(found.weights, given)
    assert checkpoints.open(folder).read(needs_tokenizer=False).tokenizer is None
    with pytest.raises(errors.InputError, match="put its vocab.txt there"):
        load(folder, allow_missing=("tokenizer",))


def test_a_vocabulary_without_a_mask_encodes_and_fills_none(folder):
    save_pieces(folder, ["*" if piece == "[MASK]" else piece for piece in PIECES])
    model = load(folder)
    assert model.encode(["a b"]).shape == (1, 12)
    with pytest.raises(errors.InputError, match="31 tokens has no mask"):
        model.fill_mask("a [MASK]")


def test_a_sentence_encoder_is_no_longer_than_its_positions(folder):
    for longest, expected in ((5, 5), (0, 9), (512, 9)):
        pooling = sentence_encoder.Pooling("cls", True, longest, True)
        shutil.rmtree(folder / "1_Pooling", ignore_errors=True)
        sentence_encoder.write(folder, pooling, 12)
        found = checkpoints.open(folder).read()
        assert found.max_seq_length == expected
        assert found.pooling == pooling
        model = load(folder)
        assert (model.max_seq_length, model.pooling) == (expected, pooling)
        assert model.encode(["a " * 30]).shape == (1, 12)


def test_positions_before_the_first_are_none_of_a_row(tmp_path):
    made = small_weights.weights_of(
        "mlm_head", model_type="roberta", type_vocab_size=1, pad_token_id=1
    )
    huggingface.write(tmp_path, made, dtype="float32")
    TOKENIZER.save(tmp_path)
    assert checkpoints.open(tmp_path).read().max_seq_length == 7  # of nine rows


def test_a_run_is_its_newest_checkpoint(run):
    assert checkpoints.open(run.workdir).format == "workdir"
    found = checkpoints.open(run.workdir).read()
    state, bert = run.state.params, found.weights.config
    table = state["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    mine = found.weights.params["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    assert mine.shape == (found.tokenizer.vocab_size, 32)
    np.testing.assert_array_equal(mine, np.asarray(table)[: len(mine)])
    kernel = found.weights.params["pooler"]["dense"]["kernel"]
    np.testing.assert_array_equal(kernel, state["pooler"]["dense"]["kernel"])
    assert found.weights.parts == ("encoder", "pooler", "nsp_head", "mlm_head")
    assert found.max_seq_length == 24
    assert found.report.source == "run of bert_jax, step 2"
    assert found.report.files and all(len(x) == 64 for x in found.report.files.values())
    assert checkpoints.open(run.workdir).config == bert
    where = checkpoints.open(run.workdir).tokenizer_folder
    assert where == run.workdir / "tokenizer"
    assert Tokenizer.load(where) == found.tokenizer


def test_a_run_with_a_damaged_checkpoint_is_the_one_before(run, tmp_path):
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    newest = workdir / "checkpoints" / "2"
    manifest = json.loads((newest / "manifest.json").read_text())
    name = next(iter(manifest["sha256"]))
    (newest / name).write_bytes(b"damaged")
    found = checkpoints.open(workdir).read()
    assert found.report.source == "run of bert_jax, step 1"
    older = workdir / "checkpoints" / "1" / "manifest.json"
    assert found.report.files == json.loads(older.read_text())["sha256"]
    kernel = found.weights.params["pooler"]["dense"]["kernel"]
    assert (kernel != np.asarray(run.state.params["pooler"]["dense"]["kernel"])).any()


def test_parts_of_a_run_may_be_left_out(run):
    choice = weights.Choice(ignore=("nsp_head",))
    found = checkpoints.open(run.workdir).read(choice)
    assert found.weights.parts == ("encoder", "pooler", "mlm_head")
    assert found.report.ignored == ("nsp_head/dense/bias", "nsp_head/dense/kernel")


def test_a_run_without_checkpoints_is_a_run(run, tmp_path):
    shutil.copytree(run.workdir / "tokenizer", tmp_path / "tokenizer")
    shutil.copy(run.workdir / "config.json", tmp_path)
    assert checkpoints.open(tmp_path).format == "workdir"
    with pytest.raises(errors.CheckpointError, match="no usable checkpoint"):
        checkpoints.open(tmp_path).read()
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_a_run_goes_through_our_own_format_bit_for_bit(run, tmp_path):
    found = checkpoints.open(run.workdir).read()
    native.write(tmp_path, found.weights, dtype="float32")
    found.tokenizer.save(tmp_path)
    again = checkpoints.open(tmp_path).read()
    assert small_weights.same(again.weights, found.weights)
    assert again.tokenizer == found.tokenizer
