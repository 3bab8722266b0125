"""Bad command lines, and bad texts to fill."""

import json

import pytest

from bert_jax.inference.model import Model
from bert_jax.model import config as model_config
from bert_jax.text.tokenizer import Tokenizer

SHELL = [
    (["--config=nope.py"], "nope.py"),
    (["--config=configs"], "configs"),
    (["--config=configs/demo.py:huge"], "'huge'"),
    (["--config=configs/pretrain.py:huge"], "tiny, mini"),
    (["--config.run.seed=1"], "config.run.seed"),
    (["--config.run.seed=1", "TINY"], "--config"),
    (["TINY", "oops"], "'oops'"),
    (["TINY", "--wordkir=x"], "workdir"),
]


@pytest.mark.parametrize(("arguments", "words"), SHELL, ids=lambda x: str(x)[:60])
def test_a_bad_command_line(shell, inputs, tmp_path, arguments, words):
    tiny = f"--config={inputs / 'tiny.py'}"
    arguments = [tiny if word == "TINY" else word for word in arguments]
    done = shell("pretrain", f"--workdir={tmp_path / 'run'}", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "missing"),
    [("pretrain", "config"), ("prepare", "config"), ("evaluate", "workdir")]
    + [("predict", "model"), ("finetune", "config")],
)
def test_a_missing_flag_is_shown_with_an_example(shell, command, missing):
    done = shell(command)
    assert done.code == 2
    assert f"--{missing} " in done.message
    assert f"python -m bert_jax.{command}" in done.message


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("pretrain", ["--config:", "--workdir:", "--[no]allow_changed_config:"]),
        ("prepare", ["--config:", "--store:"]),
        ("evaluate", ["--workdir:", "--data:", "--name:", "--[no]repair:"]),
        ("predict", ["--model:", "--input:", "--top:", "--format:", "--columns:"]),
        ("finetune", ["--config:", "--workdir:", "--[no]allow_changed_config:"]),
    ],
)
def test_help_explains(shell, command, flags):
    done = shell(command, "--help")
    assert done.code == 0
    assert f"python -m bert_jax.{command} --" in done.out
    for flag in flags:
        assert f"  {flag}" in done.out
    assert done.err == ""


@pytest.fixture
def untrained(monkeypatch, store):
    """A model that `predict` loads, without weights."""
    tokenizer = Tokenizer.load(store)
    bert = model_config.BertConfig(vocab_size=tokenizer.vocab_size)
    model = Model(tokenizer, bert, {"mlm_head": {}}, 24)
    monkeypatch.setattr(Model, "fill_ids", _guess, raising=True)
    monkeypatch.setattr("bert_jax.inference.model.load", lambda folder, dtype: model)


_fill_ids = Model.fill_ids


def _guess(model, ids, top=5):
    has_mask = model.tokenizer.mask_id in ids
    return [[("cat", 0.5)]] if has_mask else _fill_ids(model, ids, top)


PREDICTIONS = [
    (["no mask"], b"", "argument 1: "),
    (["--top=0", "a [MASK]"], b"", "--top is 0"),
    (["--top=x", "a [MASK]"], b"", "flag --top=x"),
    ([], b"", "standard input"),
    ([], b"\n \n", "standard input"),
    ([], b"\xef\xbb\xbfa [MASK]\r\nno\n", "standard input:2: "),
    ([], b"a [MASK]\nb\xff\n", "standard input:2: byte 2"),
    (["--input=nope.txt"], b"", "nope.txt"),
    (["--input=."], b"", "Is a directory"),
]


@pytest.mark.parametrize(("arguments", "stdin", "words"), PREDICTIONS)
def test_a_bad_text_to_fill(shell, untrained, arguments, stdin, words):
    done = shell("predict", "--model=runs/x", *arguments, stdin=stdin)
    assert done.code == 2
    assert words in done.message
    assert all(json.loads(line) for line in done.out.splitlines())
