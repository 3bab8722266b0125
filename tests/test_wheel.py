"""The wheel from an empty folder: README's commands, as someone without a checkout.

Marked `slow`: it downloads the package's dependencies, or takes them from uv's cache.
"""

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
# What makes the demo a matter of seconds: a text of its own, and four steps.
SHORT = {
    "pretrain": [
        "--config.data.corpus=text.txt",
        "--config.data.held_out_fraction=0.1",
        "--config.text.segmenter=jieba",
        "--config.text.segmenter_fallback=none",
        "--config.text.vocab_size=200",
        "--config.data.loader=thread",
        "--config.optimizer.warmup_steps=2",
        "--config.run.num_train_steps=4",
    ],
}
WORDS = "今天 天气 很 好 我们 在 北京 看 书 酒店 房间 太 小 价格 不 贵".split()


@pytest.fixture(scope="module")
def uv() -> str:
    """The installer, which the extra `dev` brings."""
    found = shutil.which(
        "uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip("uv is not installed: pip install -e '.[dev]'")
    return found


@pytest.fixture(scope="module")
def wheel(uv, tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([uv, "build", "-q", "--wheel", "-o", folder, ROOT], check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bin_folder(uv, wheel, tmp_path_factory) -> Path:
    """The commands of a fresh environment with the wheel and what the demo needs."""
    env = tmp_path_factory.mktemp("fresh") / "env"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, env], check=True)
    words = [uv, "pip", "install", "-q", "--python", env / "bin" / "python"]
    # Without the extra `demo`, whose TensorFlow the loader `thread` does not need.
    subprocess.run([*words, f"bert_jax[zh] @ {wheel.as_uri()}"], check=True)
    return env / "bin"


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """The folder in which the commands run, empty but for a text of 60 documents."""
    folder = tmp_path_factory.mktemp("empty")
    draw = random.Random(20)
    lines = ["".join(draw.choices(WORDS, k=12)) + "。" for _ in range(240)]
    documents = ["\n".join(lines[start : start + 4]) for start in range(0, 240, 4)]
    (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return folder


def _readme(command: str) -> list[str]:
    """Returns the words of README's first line for the demo that runs a command."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pattern = rf"python -m (bert_jax\.{command} .*runs/demo\b.*)$"
    match = re.search(pattern, text, re.M)
    assert match is not None, f"README.md has no line for {command}"
    return [*shlex.split(match[1]), *SHORT.get(command, [])]


def _run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XLA_"))}
    env = kept | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


def test_the_wheel_has_the_recipes_and_no_more(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"bert_jax/configs/{p.name}" for p in (ROOT / "configs").glob("*.py")}
    assert {name for name in names if "/configs/" in name} == recipes
    assert "bert_jax/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "configs"))]
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "bert_jax").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules | recipes


@pytest.mark.parametrize("command", ["pretrain", "evaluate", "predict"])
def test_readme_s_commands_run(bin_folder, empty, command):
    module, *rest = _readme(command)
    done = _run([str(bin_folder / "python"), "-m", module, *rest], empty)
    assert done.returncode == 0, done.stderr
    expected = {"pretrain": "this model", "evaluate": "MLM", "predict": "guesses"}
    assert expected[command] in done.stdout


def test_the_console_command_finds_recipes_by_name(bin_folder, empty):
    script = str(bin_folder / "bert_jax")
    assert _run([script, "--version"], empty).stdout.startswith("bert_jax ")
    helped = _run([script, "pretrain", "-h"], empty)
    assert helped.returncode == 0 and "pretrain_zh:OPTION" in helped.stdout
    for config in ("pretrain:tiny", "configs/pretrain.py:tiny"):  # read, then refused
        wrong = [f"--config={config}", "--config.run.sed=3", "--workdir=runs/wrong"]
        done = _run([script, "pretrain", *wrong], empty)
        assert done.returncode == 2 and "Did you mean run.seed?" in done.stderr
