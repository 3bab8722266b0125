"""The command `bert_jax`, its help, and what the package shows of itself."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import command_line
import pytest

import bert_jax
from bert_jax import __main__ as cli
from bert_jax import predict

ROOT = Path(__file__).resolve().parents[1]


def _run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["bert_jax", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("word", ["-h", "--help", "-help"])
def test_help_names_commands_and_recipes(monkeypatch, capsys, word):
    code, out, err = _run(monkeypatch, capsys, word)
    assert (code, err) == (0, "")
    for name in (*cli.COMMANDS, "demo", "pretrain_zh", "glue"):
        assert re.search(rf"^  {name}  +\S", out, re.M), name
    assert max(map(len, out.splitlines())) <= 80


def test_every_command_of_the_package_is_a_command():
    mains = re.compile(r'^if __name__ == "__main__":$', re.M)
    found = {
        path.stem
        for path in (ROOT / "bert_jax").glob("*.py")
        if mains.search(path.read_text(encoding="utf-8"))
    }
    assert found - {"__main__"} == set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "a command is missing"),
        (("pretain",), "unknown command 'pretain'. Did you mean pretrain?"),
        (("--config=demo",), "unknown command '--config=demo'. Write"),
        (("commands",), "one of pretrain, finetune, evaluate"),
    ],
)
def test_what_is_no_command_ends_with_2(monkeypatch, capsys, arguments, words):
    code, out, err = _run(monkeypatch, capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_the_version_is_one(monkeypatch, capsys):
    version = bert_jax.__version__
    assert _run(monkeypatch, capsys, "--version") == (0, f"bert_jax {version}\n", "")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "bert_jax/__init__.py"
    assert project["project"]["scripts"] == {"bert_jax": "bert_jax.__main__:main"}


def test_what_the_package_shows_of_itself():
    program = (
        "import sys, bert_jax; assert 'jax' not in sys.modules; "
        "assert {'load', '__version__'} <= set(dir(bert_jax)); "
        "assert 'jax' not in sys.modules; from bert_jax import *; assert callable(load)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert (ROOT / "bert_jax" / "py.typed").read_text() == ""


def test_a_command_answers_and_fails_as_its_module_does(tmp_path):
    words = [sys.executable, "-m", "bert_jax", "predict"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True}
    missing = subprocess.run([*words, "--model=nothing", "a text"], **options)
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: ") and missing.stderr.count("\n") == 1
    helped = subprocess.run([*words, "--help"], **options)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith((predict.__doc__ or "?").split("\n")[0])


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_a_command_has_its_own_flags_first(monkeypatch, capfd, command):
    done = command_line.in_process(monkeypatch, capfd, command, "-h")
    assert (done.code, done.err) == (0, "")
    flags = re.findall(r"^  --(?:\[no\])?(\w+):$", done.out, re.M)
    first = {"evaluate": "workdir", "predict": "model", "convert": "input"}
    assert flags[0] == first.get(command, "config")
    assert "cluster" not in flags[:-5]  # those of several processes come last
    assert ("recipes, as in --config=" in done.out) == ("config" in flags)
    assert "logtostderr" not in done.out


@pytest.mark.parametrize(
    ("command", "recipe", "other"),
    [
        ("pretrain", "pretrain_modern:OPTION", "glue"),
        ("plan", "demo_long:OPTION", "finetune:OPTION"),
        ("finetune", "finetune:OPTION", "demo"),
        ("suite", "clue", "pretrain:OPTION"),
    ],
)
def test_the_help_lists_the_recipes_of_the_command(
    monkeypatch, capfd, command, recipe, other
):
    out = command_line.in_process(monkeypatch, capfd, command, "--help").out
    assert re.search(rf"^  {recipe}  ?", out, re.M)
    assert not re.search(rf"^  {other}  ", out, re.M)
