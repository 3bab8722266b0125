"""Small fine-tuning runs that are killed and stopped.

A library of inject_faults.py.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trial_lib
from trial_lib import Bench, Trial, failed, last_line

EPOCHS = 3
STEPS = 24
_WORDS = ("the", "a", "sat", "ran", "home", "fast", "here", "there", "today")
# It evaluates and saves after each epoch of 8 steps, and keeps its best model.
POINTS = (
    "loop/step=5:SIGKILL",
    "store/renamed=1:SIGKILL",
    "loop/callback=16:SIGTERM",
    "checkpoint/renamed=16:SIGKILL",
    "finetune/scores:SIGTERM",
)


def config(folder: Path, examples: int, values: dict[str, Any]) -> str:
    """Writes a config and its examples of two classes; returns the config's flag.

    `values` override the settings of a small run.
    """
    folder.mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", *_WORDS]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    _write_examples(folder / "train.tsv", examples)
    _write_examples(folder / "dev.tsv", 100)
    shapes = {n: x for n, x in trial_lib.SETTINGS.items() if n.startswith("model.")}
    settings: dict[str, Any] = shapes | {
        "init_from": "none",
        "model.size": "tiny",
        "text.vocab": str(folder / "vocab.txt"),
        "data.train": str(folder / "train.tsv"),
        "data.dev": str(folder / "dev.tsv"),
        "data.max_seq_length": 24,
        "data.num_lengths": 2,
        "data.loader": "thread",
        "run.batch_size": 8,
        "run.log_examples": True,
    }
    path = folder / "task.py"
    trial_lib.write_config(path, "finetuning", settings | values)
    return f"--config={path}"


def _write_examples(path: Path, count: int) -> None:
    """Writes sentences that name an animal; seven in ten name that of their label."""
    rng = random.Random(path.name)
    lines = ["sentence\tlabel"]
    for _ in range(count):
        animal = rng.choice(("cat", "dog"))
        word = animal if rng.random() < 0.7 else rng.choice(("cat", "dog"))
        lines.append(f"{' '.join(rng.choices(_WORDS, k=6))} {word}\t{animal}")
    path.write_text("\n".join(lines) + "\n")


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of fine-tuning runs that are killed."""
    values = {"run.num_train_epochs": float(EPOCHS), "run.log_every_steps": 1}
    flag = config(bench.folder / "task", 8 * STEPS // EPOCHS, values)
    for _ in range(2):  # the second one has nothing to compile
        whole, began = bench.workdir("whole-task"), time.monotonic()
        code = bench.fork_server.run("finetune", flag, f"--workdir={whole}")
        assert code == 0, code
    seconds = time.monotonic() - began
    what = "kill -9 of fine-tuning"
    for point in bench.some(POINTS):
        yield Trial(what, point, _stopped(bench, flag, whole, point))
    rng = bench.random("finetune")
    for _ in range(bench.choose(0, 3, 20, 40)):
        moment = rng.uniform(0.0, 0.8) * seconds
        problem = _killed(bench, flag, whole, moment)
        yield Trial(what, f"after {moment:.1f} of {seconds:.1f} s", problem)


def _stopped(bench: Bench, flag: str, whole: Path, point: str) -> str:
    workdir = bench.workdir("killed-task")
    child = bench.fork_server.start(
        "finetune", flag, f"--workdir={workdir}", faults=point
    )
    if (code := child.wait()) not in (75, -signal.SIGKILL):
        return f"was not stopped: exit code {code}, {last_line(child.log)}"
    return _resume(bench, flag, whole, workdir)


def _killed(bench: Bench, flag: str, whole: Path, moment: float) -> str:
    """Kills a run at a moment, or earlier if it had ended by then."""
    for earlier in (1.0, 0.7, 0.4):
        workdir = bench.workdir("killed-task")
        child = bench.fork_server.start("finetune", flag, f"--workdir={workdir}")
        time.sleep(moment * earlier)
        os.kill(child.pid, signal.SIGKILL)
        if code := child.wait():
            break
    if code != -signal.SIGKILL:
        return f"was not killed: exit code {code}, {last_line(child.log)}"
    return _resume(bench, flag, whole, workdir)


def _resume(bench: Bench, flag: str, whole: Path, workdir: Path) -> str:
    """Resumes a run to its end; returns how it differs from the undisturbed one."""
    child = bench.fork_server.start("finetune", flag, f"--workdir={workdir}")
    if problem := failed(child):
        return problem
    for part in ("best", "predictions"):
        if _content(workdir / part) != _content(whole / part):
            return f"{part} differs from the undisturbed run"
    return bench.compare(workdir, trial_lib.trace(whole))


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
