"""kill -9 at fault points and at random moments. A library of inject_faults.py."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import runs_lib
from trial_lib import Bench, Trial, last_line

from bert_jax.training import checkpoint

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
    if (code := child.wait()) != -signal.SIGKILL:
        return f"was not killed: exit code {code}, {last_line(child.log)}"
    return bench.resume(workdir)


def _building(bench: Bench, point: str) -> str:
    """Kills a run that builds its own store, and resumes it."""
    workdir = bench.workdir(f"kill-{point}")
    arguments = bench.setup.arguments(workdir)
    child = bench.fork_server.start("pretrain", *arguments, faults=f"{point}:SIGKILL")
    if (code := child.wait()) != -signal.SIGKILL:
        return f"was not killed: exit code {code}, {last_line(child.log)}"
    return built(bench, workdir)


def built(bench: Bench, workdir: Path) -> str:
    """Resumes a run that builds its own store; returns how its result differs."""
    child = bench.fork_server.start("pretrain", *bench.setup.arguments(workdir))
    if code := child.wait():
        return f"exit code {code} on resume: {last_line(child.log)}"
    if differs := runs_lib.trace(workdir).difference(bench.undisturbed):
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
        if (code := child.wait()) != expected:
            return f"{faults}: exit code {code}, {last_line(child.log)}"
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
