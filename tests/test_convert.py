"""Conversions from end to end: a run leaves, comes back, and is what it was."""

import json

import numpy as np
import pytest
import small_weights
import tiny_run

import bert_jax
from bert_jax import checkpoints, convert, errors, pretrain
from bert_jax.checkpoints import (
    huggingface,
    mapping,
    sentence_encoder,
    verify,
    weights,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("run")
    corpus = tiny_run.write_corpus(folder / "text.txt")
    config = tiny_run.config(corpus, run__num_train_steps=2, run__save_every_steps=2)
    pretrain.train(config, folder / "run")
    return folder / "run"


def _same(one, other):
    before, after = (mapping.flatten(folder.weights.params) for folder in (one, other))
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert np.array_equal(array, after[name]), name
    assert one.tokenizer.fingerprint == other.tokenizer.fingerprint


@pytest.mark.parametrize(
    ("to", "files"),
    [
        (
            "huggingface",
            {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"}
            | {"tokenizer_config.json", "special_tokens_map.json"},
        ),
        ("bert_jax", {"model.json", "parameters.safetensors", "vocab.txt"}),
        ("tensorflow1", {"bert_config.json", "bert_model.ckpt.index", "vocab.txt"}),
    ],
)
def test_a_run_leaves_and_comes_back_bit_for_bit(run, tmp_path, to, files):
    if to == "tensorflow1":
        pytest.importorskip("tensorflow")
    convert.convert(run, tmp_path / "out", convert.Request(to))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert files | {"README.md", "conversion.json"} <= names
    _same(checkpoints.open(run).read(), checkpoints.open(tmp_path / "out").read())
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["source"] == "run of bert_jax, step 2"
    assert all(len(digest) == 64 for digest in record["files"].values())
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "## Training" in card and "| steps | 2 |" in card
    assert bert_jax.load(tmp_path / "out").fill_mask("the [MASK] sat", top=3)


def test_a_chain_through_every_format_ends_where_it_began(run, tmp_path):
    pytest.importorskip("tensorflow")
    source = run
    for number, to in enumerate(("huggingface", "tensorflow1", "bert_jax")):
        output = tmp_path / str(number)
        convert.convert(source, output, convert.Request(to))
        source = output
    _same(checkpoints.open(run).read(), checkpoints.open(source).read())


def test_transformers_takes_a_run_with_nothing_missing_or_left(run, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    convert.convert(run, tmp_path / "out", convert.Request("huggingface"))
    for name in ("AutoModelForPreTraining",):
        _, info = getattr(transformers, name).from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        assert not any(info.values()), info
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = checkpoints.open(run).read().tokenizer
    for text in (*tiny_run.ENGLISH, *tiny_run.CHINESE):
        assert theirs(text)["input_ids"] == ours.build(ours.encode([text])[0])[0]


def test_verification_compares_both_ends(run, tmp_path, capsys):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    request = convert.Request("huggingface", verify=True)
    convert.convert(run, tmp_path / "out", request)
    shown = capsys.readouterr().out
    assert shown.count("passed") == 2
    assert "layer 2" in shown and "mlm_logits" in shown


def test_a_conversion_that_differs_is_not_kept(run, tmp_path, monkeypatch):
    class Differs:
        passed, first_differing = False, verify.LayerDifference("layer 1", 2.0, 1.0)

        def table(self):
            return "layer 1 differs"

    monkeypatch.setattr(verify, "verify", lambda *rest: Differs())
    request = convert.Request("bert_jax", verify=True)
    with pytest.raises(errors.InputError, match="differ, first at layer 1"):
        convert.convert(run, tmp_path / "out", request)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_never_overwritten(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(errors.InputError, match="exists already"):
        convert.convert(run, tmp_path, convert.Request("huggingface"))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_bfloat16_halves_the_file(run, tmp_path):
    for dtype in ("float32", "bfloat16"):
        request = convert.Request("huggingface", dtype=dtype)
        convert.convert(run, tmp_path / dtype, request)
    whole, half = (
        (tmp_path / dtype / "model.safetensors").stat().st_size
        for dtype in ("float32", "bfloat16")
    )
    assert 0.45 < half / whole < 0.6
    read = checkpoints.open(tmp_path / "bfloat16").read()
    assert {row.dtype for row in read.report.rows} == {"bfloat16"}


def test_a_sentence_encoder_says_how_it_pools(run, tmp_path):
    choice = weights.Choice(ignore=("mlm_head", "nsp_head"))
    request = convert.Request("huggingface", pooling="cls", choice=choice)
    convert.convert(run, tmp_path / "out", request)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"modules.json", "sentence_bert_config.json", "1_Pooling"} <= names
    pooling = sentence_encoder.read(tmp_path / "out")
    assert pooling == sentence_encoder.Pooling("cls", False, 24, True)
    assert bert_jax.load(tmp_path / "out").encode(["the cat"]).shape == (1, 32)


def test_the_report_lists_every_parameter(run):
    shown = convert.load_report(checkpoints.open(run).read())
    lines = shown.splitlines()
    assert lines[0] == "read: run of bert_jax, step 2"
    assert sum(line.startswith("encoder/") for line in lines) == 21
    assert "missing, allowed: none" in lines
    assert "parts: encoder, pooler, nsp_head, mlm_head" in shown


def test_a_model_without_a_tokenizer_is_carried_only_on_request(tmp_path):
    made = small_weights.weights_of("pooler")
    (tmp_path / "in").mkdir()
    huggingface.write(tmp_path / "in", made, dtype="float32")
    with pytest.raises(errors.InputError, match="--allow_missing=tokenizer"):
        convert.convert(tmp_path / "in", tmp_path / "out", convert.Request("bert_jax"))
    choice = weights.Choice(allow_missing=("tokenizer",))
    request = convert.Request("bert_jax", choice=choice)
    convert.convert(tmp_path / "in", tmp_path / "out", request)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "vocab.txt" not in names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "onnx"}, "--to is 'onnx'"),
        ({"to": "tensorflow1", "dtype": "bfloat16"}, "leave out --dtype"),
        ({"to": "bert_jax", "pooling": "mean"}, "--pooling is for"),
    ],
)
def test_a_request_that_has_no_meaning_is_refused(options, words):
    with pytest.raises(errors.InputError, match=words):
        convert.Request(**options)
