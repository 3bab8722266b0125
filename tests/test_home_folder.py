"""`~` is the home folder in the flags, the keys and the arguments that are paths."""

import sys

import pytest
from absl import flags

from bert_jax import commands, evaluate
from bert_jax.config import file as config_file
from bert_jax.config import finetuning, pretraining
from bert_jax.foundation import hub
from bert_jax.training import remote


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Makes a folder the home of the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_flags(home, monkeypatch):
    own = flags.FlagValues()
    for name in (*commands.PATH_FLAGS, "name"):
        flags.DEFINE_string(name, None, "", flag_values=own)
    monkeypatch.setattr(flags, "FLAGS", own)
    monkeypatch.setattr(sys, "argv", ["predict"])
    words = [f"--{name}=~/x" for name in (*commands.PATH_FLAGS[1:], "name")]
    commands._parse_flags(["predict", *words])
    assert own.workdir is None and own.name == "~/x"
    assert {own[name].value for name in commands.PATH_FLAGS[1:]} == {f"{home}/x"}


def test_keys_of_configurations(home):
    tree = pretraining.default().to_dict()
    tree["text"] |= {"vocab": "~/v.txt", "stop_words": "~/s.txt"}
    tree["data"] |= {"store": "~/st", "corpus": "~/a.txt@2,text:~/b~/c.txt, ~/d"}
    settings = pretraining.parse(tree)
    assert (settings.text.vocab, settings.text.stop_words) == (
        f"{home}/v.txt",
        f"{home}/s.txt",
    )
    assert settings.data.store == f"{home}/st"
    assert settings.data.corpus == f"{home}/a.txt@2,text:{home}/b~/c.txt, {home}/d"
    assert tree["data"]["store"] == "~/st"

    tree = finetuning.default().to_dict()
    tree["init_from"] = "~/model"
    tree["data"] |= {name: f"~/{name}" for name in ("train", "dev", "test", "labels")}
    made = finetuning.parse(tree)
    assert made.init_from == f"{home}/model"
    for name in ("train", "dev", "test", "labels"):
        assert getattr(made.data, name) == f"{home}/{name}"


def test_arguments_and_config_files(home):
    assert hub.folder("~/model") == home / "model"
    assert remote.WorkingCopy("~/run").folder == home / "run"
    with pytest.raises(Exception, match=str(home)):
        evaluate.evaluate("~/run")
    (home / "my.py").write_text(
        "from bert_jax.config import pretraining\n"
        "def get_config():\n    return pretraining.default()\n"
    )
    assert config_file.load("~/my.py").init_from == "none"
