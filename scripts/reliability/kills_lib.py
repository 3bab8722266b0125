"""kill -9 and signals at fault points and at random moments, here and in a store.

A library of inject_faults.py.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import trial_lib
from trial_lib import Bench, Trial, failed, last_line

from bert_jax.training import checkpoint, remote

# In the second save: the first is complete then, and the third starts to delete.
SAVES = (
    "checkpoint/before=8",
    "checkpoint/started=8",
    "checkpoint/written=8",
    "checkpoint/manifest=8",
    "checkpoint/renamed=8",
    "checkpoint/listed=8",
    "checkpoint/after=8",
)
FIRST_SAVE = ("checkpoint/written=4", "checkpoint/manifest=4")
DELETIONS = (
    "checkpoint/trash=1",
    "checkpoint/emptied=1",
)
STORE = (
    "vocabulary/before",
    "vocabulary/learned",
    "store/tokenizer",
    "store/manifest",
    "store/renamed",
    "store/shard=1",
    "store/shard=2",
)


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of runs that are killed."""
    for what, points in (
        ("kill -9 inside a save", (*FIRST_SAVE, *SAVES)),
        ("kill -9 inside a deletion", DELETIONS),
    ):
        for point in bench.some(points):
            yield Trial(what, point, _at_point(bench, point))
    late = "checkpoint/late_meta=8, keep 1"
    yield Trial("kill -9 inside a save", late, _second_save_of_a_step(bench))
    for point in bench.some(STORE):
        what = "kill -9 inside vocabulary and store"
        yield Trial(what, point, _building(bench, point))
    yield from _at_random(bench, bench.choose(1, 15, 100, 300))


def _at_point(bench: Bench, point: str) -> str:
    workdir = bench.workdir(f"kill-{point}")
    child = bench.train(workdir, faults=f"{point}:SIGKILL")
    return failed(child, -signal.SIGKILL) or bench.resume(workdir)


def _building(bench: Bench, point: str) -> str:
    """Kills a run that builds its own store, and resumes it."""
    workdir = bench.workdir(f"kill-{point}")
    arguments = bench.setup.arguments(workdir)
    child = bench.fork_server.start("pretrain", *arguments, faults=f"{point}:SIGKILL")
    return failed(child, -signal.SIGKILL) or built(bench, workdir)


def built(bench: Bench, workdir: Path) -> str:
    """Resumes a run that builds its own store; returns how its result differs."""
    child = bench.fork_server.start("pretrain", *bench.setup.arguments(workdir))
    if problem := failed(child):
        return problem
    if differs := trial_lib.trace(workdir).difference(bench.undisturbed):
        return f"{differs} differ from the undisturbed run"
    names = sorted(path.name for path in bench.store.iterdir())
    return _differing(bench.store, workdir / "store", names)


def _differing(one: Path, other: Path, names: list[str]) -> str:
    if sorted(path.name for path in other.iterdir()) != names:
        return "the store has different files"
    bad = [n for n in names if (one / n).read_bytes() != (other / n).read_bytes()]
    return f"different bytes in {', '.join(bad)}" if bad else ""


def _second_save_of_a_step(bench: Bench) -> str:
    """Kills a run while it saves its only checkpoint again, after a late evaluation."""
    workdir, changes = bench.workdir("kill-late"), {"run__keep_checkpoints": 1}
    for faults, expected in (
        ("loop/callback=8:SIGTERM", 75),
        ("checkpoint/late_meta=8:SIGKILL", -signal.SIGKILL),
    ):
        child = bench.train(workdir, faults=faults, **changes)
        if problem := failed(child, expected):
            return f"{faults}: {problem}"
        if checkpoint.steps(workdir / "checkpoints") != [8]:
            return f"{faults}: the checkpoint of step 8 is gone"
    return bench.resume(workdir, **changes)


def _at_random(bench: Bench, count: int) -> Iterator[Trial]:
    """Kills runs `count` times, at random moments between start and end."""
    began = time.monotonic()
    bench.trace_of("timed")
    whole = time.monotonic() - began
    rng = bench.random("kills")
    what = "kill -9 at a random moment"
    workdir, kills = bench.workdir("kill-random"), 0
    for _ in range(3 * count):
        moment = rng.uniform(0.0, 1.0) * whole
        child = bench.train(workdir)
        time.sleep(moment)
        os.kill(child.pid, signal.SIGKILL)
        code = child.wait()
        if code == 0:  # it had ended before the kill: no trial
            workdir = bench.workdir("kill-random")
            continue
        kills += 1
        problem = "" if code == -signal.SIGKILL else f"exit code {code}"
        # After every third kill it runs to its end; otherwise it is killed again.
        if kills % 3 == 0 or kills == count:
            problem = problem or bench.resume(workdir)
            workdir = bench.workdir("kill-random")
        yield Trial(what, f"after {moment:.1f} of {whole:.1f} s", problem)
        if kills == count:
            return
    yield Trial(what, "number of kills", f"only {kills} of {count} hit a live run")


STOP_SECONDS = 10.0
# Phase -> the fault point of the signal, and that of a second signal.
PHASES = {
    "start": ("vocabulary/before", "vocabulary/before"),
    "compile": ("loop/compile=1", "loop/step=1"),
    "step": ("loop/step=6", "checkpoint/started=6"),
    "save": ("checkpoint/started=8", "loop/step=9"),
    "eval": ("loop/callback=8", "checkpoint/written=8"),
    "last step": ("loop/step=24", "checkpoint/written=24"),
}


# Logs the time of each signal; the monotonic clock is the same in all processes.
_LOGGING = """
import os, time
kill = os.kill
def logging_kill(pid, number):
    with open({path!r}, "a") as file:
        file.write(f"{{time.monotonic()}}\\n")
    kill(pid, number)
os.kill = logging_kill
"""


def signal_trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of runs that receive a signal."""
    for phase, (first, second) in bench.some(PHASES.items()):
        once = [f"{first}:SIGTERM"], [f"{first}:SIGINT"]
        twice = [f"{first}:SIGTERM", f"{second}:SIGTERM"]
        for name, points in zip(
            ("SIGTERM", "SIGINT", "SIGTERM twice"), (*once, twice), strict=True
        ):
            problem = _signaled(bench, phase, ",".join(dict.fromkeys(points)))
            yield Trial("a signal", f"{name} in {phase}", problem)


def _signaled(bench: Bench, phase: str, faults: str) -> str:
    """Stops a run by signals, and resumes it."""
    # In the first phase the run builds its own store.
    changes = {"data__store": "" if phase == "start" else bench.store}
    workdir, times = bench.workdir(f"signal-{phase}"), bench.folder / "signals.txt"
    times.unlink(missing_ok=True)
    child = bench.fork_server.start(
        "pretrain",
        *bench.setup.arguments(workdir, **changes),
        faults=faults,
        patch=_LOGGING.format(path=str(times)),
    )
    code, ended = child.wait(), time.monotonic()
    if code != 75:
        return f"exit code {code}: {last_line(child.log)}"
    took = ended - float(times.read_text().splitlines()[0])
    if took > STOP_SECONDS:
        return f"ended {took:.0f} s after the signal"
    return bench.resume(workdir, **changes)


# The store has 5 files, a checkpoint 23 or more; its manifest is uploaded last.
REMOTE_POINTS = (
    "workdir/half_folder=2",
    "workdir/before_manifest=1",
    "workdir/folder=1",
    "workdir/file=1",
    "workdir/half_folder=9",
    "workdir/before_manifest=2",
    "workdir/folder=2",
    "workdir/file=9",
    "workdir/half_folder=44",
    "workdir/before_manifest=3",
    "workdir/folder=3",
    "workdir/half_deleted=1",
    "workdir/half_deleted=7",
)


def remote_trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of runs that are killed between two files."""
    what = "kill -9 between the files of an object store"
    for number, point in enumerate(bench.some(REMOTE_POINTS)):
        yield Trial(what, point, _between_files(bench, point, is_kept=number % 3 == 2))


def _between_files(bench: Bench, point: str, is_kept: bool) -> str:
    store = bench.workdir(f"store-{point}")
    url = f"file://{store}"
    arguments = bench.setup.arguments(url)
    child = bench.fork_server.start("pretrain", *arguments, faults=f"{point}:SIGKILL")
    if problem := failed(child, -signal.SIGKILL):
        return problem
    copy = remote.WorkingCopy(url).folder
    if not is_kept:
        shutil.rmtree(copy)
    if problem := failed(bench.fork_server.start("pretrain", *arguments)):
        return problem
    if differs := trial_lib.trace(store).difference(bench.undisturbed):
        return f"{differs} differ from the undisturbed run"
    if left := trial_lib.leftovers(store):
        return f"left over: {', '.join(left[:3])}"
    here, there = _names(copy), _names(store)
    if here != there:
        return f"different files in the store: {', '.join(sorted(here ^ there)[:3])}"
    shutil.rmtree(copy)
    shutil.rmtree(store)
    return ""


def _names(folder: Path) -> set[str]:
    """Returns the files of a run that are uploaded."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    ours = (x for x in files if x.parts[0] != "compilation_cache")
    of_stores = ("commit_success.txt", ".owner.json")
    return {str(x) for x in ours if x.name not in of_stores}
