"""Which way imports run between the rooms, read from the source."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bert_jax"

LEAVES = {"console", "errors", "foundation"}
# Room -> the rooms it may import; a command may import anything. Those without any
# are leaves that all may import, see LEAVES, but for training, model and text,
# which import leaves alone.
ALLOWED = {
    **dict.fromkeys(LEAVES, set()),
    "training": set(),
    "model": set(),
    "text": set(),
    "metrics": {"training"},
    "data": {"text"},
    "contrib": {"data", "text"},
    "config": {"model", "text", "training"},
    "tasks": {"model", "data", "metrics", "text"},
    "checkpoints": {"model", "text", "data", "training", "config", "tasks"},
    "planning": {
        "checkpoints",
        "config",
        "data",
        "metrics",
        "model",
        "runs",
        "tasks",
        "text",
        "training",
    },
    "runs": {
        "checkpoints",
        "commands",
        "config",
        "data",
        "inference",
        "metrics",
        "model",
        "tasks",
        "text",
        "training",
    },
    "inference": {
        "checkpoints",
        "commands",
        "config",
        "data",
        "metrics",
        "model",
        "tasks",
        "text",
        "training",
    },
}
COMMANDS = {
    "__main__",
    "commands",
    "convert",
    "evaluate",
    "finetune",
    "plan",
    "predict",
    "prepare",
    "pretrain",
    "suite",
}
# Heavy or optional: imported inside the function that needs them, if at all.
LAZY = {
    "apache_beam",
    "huggingface_hub",
    "jieba",
    "sentencepiece",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "transformers",
    "yaml",
}
# Flags and ConfigDicts stop here.
NOT_IN_LIBRARY = {"absl", "ml_collections"}
AT_THE_DOOR = {"checkpoints", "config", "inference", "runs"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _rooms_imported(path: Path) -> set[str]:
    names = _imports(ast.parse(path.read_text(encoding="utf-8")))
    ours = {name.split(".")[1] for name in names if name.startswith("bert_jax.")}
    return ours - {_room(path), *LEAVES}


def test_there_is_something_to_check():
    assert len(_modules()) > 30
    assert _rooms_imported(PACKAGE / "tasks" / "pretraining.py") >= {"model"}


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = _room(path)
    if room in COMMANDS or room == "__init__":
        return
    forbidden = _rooms_imported(path) - ALLOWED[room]
    assert not forbidden, f"{room} imports {forbidden}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_imports_are_lazy_and_flags_stop_at_the_door(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_the_top = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _imports(node)
    }
    assert not at_the_top & LAZY
    if _room(path) in ALLOWED and _room(path) not in AT_THE_DOOR:
        anywhere = {name.split(".")[0] for name in _imports(tree)}
        assert not anywhere & NOT_IN_LIBRARY


def test_no_file_is_two_rooms_and_no_name_says_nothing():
    for path in _modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 700, path
        assert path.stem not in {"utils", "helpers", "common", "misc"}, path


def test_model_training_and_losses_import_without_tensorflow_and_flags():
    program = (
        "import sys\n"
        "for name in ('tensorflow', 'ml_collections', 'pyarrow'):\n"
        "    sys.modules[name] = None\n"
        "import bert_jax, bert_jax.tasks.losses\n"
        "from bert_jax.model import costs, encoder, heads\n"
        "from bert_jax.training import loop, checkpoint, state, logs\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_extras_have_names_that_every_pip_finds():
    """pip before 23.3 does not find an extra with an underscore, and only warns."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert "demo-en" in extras
    assert not [name for name in extras if name != name.lower().replace("_", "-")]
    named = set()
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'missing_extra\("\w+", "([\w-]+)"\)', text))
    assert "data" in named and named <= extras.keys()


def test_the_picture_of_the_rooms_is_drawn_from_the_code():
    program = PACKAGE.parent / "docs" / "draw_rooms.py"
    drawn = runpy.run_path(str(program))
    picture = (PACKAGE.parent / "docs" / "rooms.svg").read_text(encoding="utf-8")
    assert drawn["svg"]() == picture, "run: python docs/draw_rooms.py"
    assert max(drawn["floors"](drawn["rooms_imported"]()).values()) < 9
