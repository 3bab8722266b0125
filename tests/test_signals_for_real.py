"""Real signals to real commands at random moments: 75, whole files, and a resumption.

All of it, some two hours: `pytest -m slow -n 0 -s tests/test_signals_for_real.py`.
"""

import dataclasses
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run
import tiny_suites
import tiny_tasks

ROOT = Path(__file__).resolve().parents[1]
MOMENTS = 20  # of each signal and command
SECONDS = 15  # from the signal to the end, on two busy cores
ENDS = {"train/tokens_per_second", "train/input_wait", "train/save_wait"}  # of speed
LEFT = ("*.tmp", "*.part", ".*.building*", ".lock")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that is tried.

    Attributes:
      module: of bert_jax.
      arguments: of the place with what it needs, and of a fresh folder for what it
        makes.
      made: files in that folder that must be as those of an undisturbed command.
    """

    module: str
    arguments: Callable[[Path, Path], list[str]]
    made: tuple[str, ...] = ()


def _train(config, *more):
    return lambda place, folder: [
        f"--config={place / config}",
        f"--workdir={folder / 'run'}",
        *more,
    ]


def _suite(place, folder):
    values = tiny_suites.SMALL | {
        "folder": place / "glue",
        "text.vocab": place / "vocab.txt",
        "tasks": "cola,stsb",
        "sweep.seeds": 2,
    }
    words = [f"--config.{key}={value}" for key, value in values.items()]
    return [f"--config={ROOT / 'configs/glue.py'}", f"--workdir={folder}", *words]


COMMANDS = {
    "pretrain": Command("pretrain", _train("tiny.py"), ("run/metrics.jsonl",)),
    "finetune": Command("finetune", _train("tasks.py"), ("run/metrics.jsonl",)),
    "sweep": Command(
        "finetune",
        _train("tasks.py", "--config.sweep.seeds=2", "--config.run.num_train_steps=20"),
        ("run/metrics.jsonl",),
    ),
    "baselines": Command(
        "finetune",
        _train("tasks.py", "--config.run.baselines=tfidf"),
        ("run/metrics.jsonl", "run/eval/baselines.json"),
    ),
    "suite": Command("suite", _suite, ("suite.md",)),
    "prepare": Command(
        "prepare",
        lambda place, folder: [
            f"--config={place / 'long.py'}",
            f"--store={folder / 's'}",
        ],
        ("s/manifest.json",),
    ),
    "evaluate": Command(
        "evaluate",
        lambda place, folder: [f"--workdir={_copy(place / 'run', folder / 'run')}"],
        ("run/eval/heldout.json",),
    ),
    "evaluate a task": Command(
        "evaluate",
        lambda place, folder: [
            f"--workdir={_copy(place / 'tuned', folder / 'tuned')}",
            f"--data={place / 'train.tsv'}",
        ],
        ("tuned/eval/train.json",),
    ),
    "answers": Command(
        "predict",
        lambda place, folder: [
            f"--model={place / 'tuned'}",
            f"--input={place / 'train.tsv'}",
            f"--output={folder / 'answers.jsonl'}",
        ],
        ("answers.jsonl",),
    ),
    "vectors": Command(
        "predict",
        lambda place, folder: [
            f"--model={place / 'run'}",
            "--task=features",
            f"--input={place / 'text.txt'}",
            f"--output={folder / 'vectors.npy'}",
        ],
        ("vectors.npy",),
    ),
    "convert": Command(
        "convert",
        lambda place, folder: [
            f"--input={place / 'run'}",
            f"--output={folder / 'exported'}",
            "--to=bert_jax",
            "--verify",
        ],
        ("exported/parameters.safetensors",),
    ),
    "plan": Command(
        "plan",
        lambda place, folder: [f"--config={place / 'tiny.py'}", "--topology=here"],
    ),
}


def _copy(run: Path, copy: Path) -> Path:
    """Returns a copy of a run for a command that writes into it."""
    if not copy.exists():
        shutil.copytree(run, copy)
        shutil.rmtree(copy / "eval", ignore_errors=True)
    return copy


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Configs and data, without any model."""
    folder = tmp_path_factory.mktemp("place")
    changes = {"run__num_train_steps": 12, "run__eval_every_steps": 4}
    tiny_run.write_file(folder, run__save_every_steps=4, **changes)
    tiny_run.write_corpus(folder / "long.txt", documents=30_000)
    text = (folder / "tiny.py").read_text()
    (folder / "long.py").write_text(text.replace("text.txt", "long.txt"))
    tiny_tasks.write_vocab(folder)
    tiny_tasks.write_classes(folder / "train.tsv", count=200)
    tiny_tasks.write_classes(folder / "dev.tsv", seed=1)
    (folder / "tasks.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests' / 'support')!r})\n"
        "import pathlib\nimport tiny_tasks\n"
        "def get_config():\n"
        f"    return tiny_tasks.config(pathlib.Path({str(folder)!r}))\n"
    )
    (folder / "glue").mkdir()
    tiny_suites.write_glue(folder / "glue")
    return folder


@pytest.fixture(scope="module")
def trained(place):
    """The place, with a run of `pretrain` and one of `finetune`."""
    for module, config, name in (
        ("pretrain", "tiny.py", "run"),
        ("finetune", "tasks.py", "tuned"),
    ):
        words = [f"--config={place / config}", f"--workdir={place / name}"]
        done = _start(module, words, place, is_cached=True)
        _, said = done.communicate()
        assert done.returncode == 0, said
    return place


def _start(module, arguments, place, *, is_cached):
    """Starts a command; compiled programs are kept, or compiled again."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(place),
        "JAX_ENABLE_COMPILATION_CACHE": str(is_cached).lower(),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", f"bert_jax.{module}", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(command, place, folder, *, is_cached=True):
    """Runs a command to its end; returns the seconds that it took."""
    began = time.monotonic()
    process = _start(
        command.module, command.arguments(place, folder), place, is_cached=is_cached
    )
    said, _ = process.communicate()
    assert process.returncode == 0, said[-3000:]
    return time.monotonic() - began


def interrupt(command, place, folder, number, moment):
    """Sends a signal at a moment; returns the exit code, and what was said."""
    arguments = command.arguments(place, folder)
    process = _start(command.module, arguments, place, is_cached=False)
    time.sleep(moment)
    process.send_signal(number)
    try:
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, said


def content(folder, made):
    """Returns what must be the same in a file that two commands made."""
    path = folder / made
    if path.name != "metrics.jsonl":
        return path.read_bytes().replace(str(folder).encode(), b"")
    lines = map(json.loads, path.read_text().splitlines())
    return [{n: x for n, x in line.items() if n not in ENDS} for line in lines]


def left(folder):
    """Returns what should have been removed."""
    found = [path for pattern in LEFT for path in folder.rglob(pattern)]
    return [path for path in found if "checkpoint-tmp" not in str(path)]


@functools.cache
def undisturbed(name, place, folder):
    """Runs a command; returns its seconds, and what it made."""
    command = COMMANDS[name]
    folder.mkdir()
    seconds = run(command, place, folder, is_cached=False)
    return seconds, {made: content(folder, made) for made in command.made}


def stop_and_go_on(name, place, folder, number, moment, expected):
    """Sends a signal to a command at a moment, and starts it again."""
    command = COMMANDS[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    code, said = interrupt(command, place, folder, number, moment)
    what = f"{name}, {number.name} after {moment:.2f} s: exit code {code}\n{said}"
    assert code in (0, 75), what
    assert "Traceback" not in said and "Exception ignored" not in said, what
    assert "Fatal" not in said, what
    assert (f"stopped by {number.name}" in said) == (code == 75), what
    assert not left(folder) and not list(place.glob("tmp*")), what
    run(command, place, folder)
    for made, wanted in expected.items():
        assert content(folder, made) == wanted, (made, what)
    return code


NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_moment(trained, tmp_path, tmp_path_factory, name, number):
    base = tmp_path_factory.getbasetemp() / f"undisturbed-{name}"
    seconds, expected = undisturbed(name, trained, base)
    rng = random.Random(f"{name} {number.name}")
    codes = []
    for _ in range(MOMENTS):
        moment = rng.uniform(0.1, seconds)
        code = stop_and_go_on(name, trained, tmp_path / "f", number, moment, expected)
        codes.append(code)
    print(f"{name} ({seconds:.1f} s), {number.name}: {codes.count(75)} of {codes}")
    assert codes.count(75) >= MOMENTS // 2


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_while_a_step_compiles(place, tmp_path, number):
    """The sample of all this that is always run; the other one is of the imports."""
    command = COMMANDS["finetune" if number == signal.SIGINT else "pretrain"]
    arguments = command.arguments(place, tmp_path)
    process = _start(command.module, arguments, place, is_cached=False)
    assert process.stdout is not None
    said = ""
    while "plan: " not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    time.sleep(0.5)
    process.send_signal(number)
    more, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 75, said + more
    assert f"error: stopped by {number.name}" in more
    assert "Fatal" not in more and "Traceback" not in more
    assert not left(tmp_path)


def _catches(process, number):
    """Returns whether a process has a handler of a signal, as Linux tells."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(x for x in status.splitlines() if x.startswith("SigCgt:"))
    return int(caught.split()[1], 16) >> (number - 1) & 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_signal_while_modules_are_imported(place, tmp_path):
    command = COMMANDS["pretrain"]
    arguments = command.arguments(place, tmp_path)
    process = _start(command.module, arguments, place, is_cached=True)
    while not _catches(process, signal.SIGTERM):  # some milliseconds
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 75, said
    assert said.startswith("error: stopped by SIGTERM") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
