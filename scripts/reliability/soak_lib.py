"""Long runs that save often: memory, handles and disk usage do not grow.

A library of inject_faults.py.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import finetune_lib
import fork_server_lib
import growth_lib
import trial_lib
from trial_lib import Bench, Trial, failed

from bert_jax.training import checkpoint

KEEP = 3
EPOCHS = 10
SETTINGS = trial_lib.SETTINGS | {
    "data.held_out_fraction": 0.1,
    "run.batch_size": 4,
    "run.log_every_steps": 10,
    "run.keep_checkpoints": KEEP,
}
# The leaks of the negative control: 40 MB per 1,000 steps, a handle and a thread every
# 10 steps, every checkpoint, a folder and a file per save, and log lines that grow.
LEAKS = """
import threading
from bert_jax.training import checkpoint, logs, loop
leaked, init, read = [], checkpoint.Checkpoints.__init__, loop.MetricsLogger.read
save, write = checkpoint.Checkpoints.save, logs.Writer.write
def leaking_read(self, step, *rest):
    leaked.append(b"x" * 40_000)
    if step % 10 == 0:
        leaked.append(open("/dev/null"))
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return read(self, step, *rest)
def leaking_init(self, folder, *, keep, **rest):
    init(self, folder, keep=1000, **rest)
def leaking_save(self, step, *rest):
    save(self, step, *rest)
    (self.folder / f"left-{step}").mkdir()
    (self.folder.parent / f"left-{step}.txt").touch()
def leaking_write(self, step, values):
    write(self, step, values)
    with (self._workdir / "left.jsonl").open("a") as file:
        file.write(" " * 50 * step)
loop.MetricsLogger.read, logs.Writer.write = leaking_read, leaking_write
checkpoint.Checkpoints.__init__ = leaking_init
checkpoint.Checkpoints.save = leaking_save
"""
# The fields of growth_lib.Growth in which the leaks are seen.
LEAKED = (
    *("memory", "handles", "threads", "files", "checkpoints", "unfinished", "saved"),
    "logged",
)


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields whether long runs grew, and whether a run that leaks is detected."""
    steps = bench.choose(400, 2000, 20000, 20000)
    saves = bench.choose(10, 60, 1000, 1000)
    setup = _setup(bench, steps)
    every = {"save": steps // saves, "eval": steps // EPOCHS}
    workdir, child = _pretrain(bench, setup, steps, every)
    growth, problems = _watched(bench, child, workdir, steps, bench.picture)
    if not problems and (epochs := _epochs(workdir)) < EPOCHS:
        problems = {"epochs": f"only {epochs} epochs"}
    name = f"pretraining, {steps:,} steps, {saves:,} saves: {growth}"
    yield Trial("a soak", name, "; ".join(problems.values()))
    shutil.rmtree(workdir, ignore_errors=True)
    steps = bench.choose(300, 500, 10000, 10000)
    workdir, child = _finetune(bench, steps)
    growth, problems = _watched(bench, child, workdir, steps)
    name = f"fine-tuning, {steps:,} steps, {EPOCHS} epochs: {growth}"
    yield Trial("a soak", name, "; ".join(problems.values()))
    shutil.rmtree(workdir, ignore_errors=True)
    yield _control(bench, setup)


def _control(bench: Bench, setup: trial_lib.Setup) -> Trial:
    steps = bench.choose(500, 2000, 2000, 2000)
    every = {"save": steps // 20, "eval": steps // EPOCHS}
    workdir, child = _pretrain(bench, setup, steps, every, patch=LEAKS)
    _, problems = _watched(bench, child, workdir, steps)
    wanted = LEAKED[1:] if _is_short(bench) else LEAKED
    missed = [name for name in wanted if name not in problems]
    problem = f"not detected: {', '.join(missed)} ({problems})" if missed else ""
    shutil.rmtree(workdir, ignore_errors=True)
    return Trial("negative control: a run that leaks", f"{steps:,} steps", problem)


def _is_short(bench: Bench) -> bool:
    """Whether runs end before memory pools are full, so that memory proves nothing."""
    return bench.level == 0


def _setup(bench: Bench, steps: int) -> trial_lib.Setup:
    """Writes a corpus of which `steps` steps are a little more than ten epochs."""
    return trial_lib.make_setup(bench.folder / "soak", SETTINGS, steps // 7)


def _pretrain(
    bench: Bench,
    setup: trial_lib.Setup,
    steps: int,
    every: dict[str, int],
    patch: str = "",
) -> tuple[Path, fork_server_lib.Child]:
    workdir = bench.workdir("soak-pretrain")
    flags = setup.arguments(
        workdir,
        run__num_train_steps=steps,
        run__save_every_steps=every["save"],
        run__eval_every_steps=every["eval"],
    )
    return workdir, bench.fork_server.start("pretrain", *flags, patch=patch)


def _finetune(bench: Bench, steps: int) -> tuple[Path, fork_server_lib.Child]:
    """Starts a run that evaluates and saves after each of ten epochs."""
    workdir = bench.workdir("soak-finetune")
    values = {
        "run.num_train_epochs": float(EPOCHS),
        "run.log_every_steps": 10,
        "run.keep_checkpoints": KEEP,
    }
    flag = finetune_lib.config(bench.folder / "soak-task", 8 * steps // EPOCHS, values)
    return workdir, bench.fork_server.start("finetune", flag, f"--workdir={workdir}")


def _watched(
    bench: Bench,
    child: fork_server_lib.Child,
    workdir: Path,
    steps: int,
    picture: Path | None = None,
) -> tuple[str, dict[str, str]]:
    """Samples a run to its end; returns its growth and its problems by name."""
    seconds = bench.choose(1, 5, 10, 10) / 20
    samples = list(growth_lib.watch(child.pid, workdir, seconds))
    if problem := failed(child):
        return "", {"exit": problem}
    if left := trial_lib.leftovers(workdir):
        return "", {"leftovers": f"left over: {', '.join(left[:3])}"}
    grown = growth_lib.measure(samples, steps)
    if picture is not None:
        growth_lib.draw(samples, grown, picture)
    folder = workdir / "checkpoints"
    last = folder / str(max(checkpoint.steps(folder)))
    problems = growth_lib.problems(grown, steps, KEEP, growth_lib.size(last))
    if _is_short(bench):
        problems.pop("memory", None)
    return str(grown), problems


def _epochs(workdir: Path) -> int:
    """Returns the number of epochs that were completed before the last example."""
    last = (workdir / "examples-0.jsonl").read_text().splitlines()[-1]
    return int(last.split('"examples": ["')[1].split("/")[0])
