"""What the command line or a text to fill can have wrong."""

import json

import pytest

from bert_jax.inference.model import Model
from bert_jax.model import config as model_config
from bert_jax.text.tokenizer import Tokenizer

SHELL = [
    (["--config=nope.py"], "there is no config file nope.py"),
    (["--config=configs"], "there is no config file configs"),
    (["--config=configs/demo.py:huge"], "takes no option 'huge'"),
    (["--config=configs/pretrain.py:huge"], "write a size of tiny, mini"),
    (["--config.run.seed=1"], "Unknown command line flag"),
    (["--config.run.seed=1", "TINY"], "before a value for --config"),
    (["TINY", "oops"], "unexpected argument 'oops'"),
    (["TINY", "--wordkir=x"], "Did you mean: workdir"),
]


@pytest.mark.parametrize(("arguments", "words"), SHELL, ids=lambda x: str(x)[:60])
def test_what_the_shell_can_say_wrong(shell, place, tmp_path, arguments, words):
    tiny = f"--config={place / 'tiny.py'}"
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
    assert f"--{missing} is missing, as in: python -m bert_jax" in done.message


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
    (["no mask"], b"", "argument 1: the text has no [MASK]"),
    (["--top=0", "a [MASK]"], b"", "--top is 0: give at least 1"),
    (["--top=x", "a [MASK]"], b"", "flag --top=x"),
    ([], b"", "standard input has no text"),
    ([], b"\n \n", "standard input has no text"),
    ([], b"\xef\xbb\xbfa [MASK]\r\nno\n", "standard input:2: the text has no [MASK]"),
    ([], b"a [MASK]\nb\xff\n", "standard input:2: byte 2 of the line is not UTF-8"),
    (["--input=nope.txt"], b"", "nope.txt cannot be read (No such file"),
    (["--input=."], b"", ". cannot be read (Is a directory)"),
]


@pytest.mark.parametrize(("arguments", "stdin", "words"), PREDICTIONS)
def test_what_can_be_wrong_with_text_to_fill(shell, untrained, arguments, stdin, words):
    done = shell("predict", "--model=runs/x", *arguments, stdin=stdin)
    assert done.code == 2
    assert words in done.message
    assert all(json.loads(line) for line in done.out.splitlines())
