"""kill -9 of runs whose workdir is in an object store. A library of inject_faults.py.

A local folder (file://) replaces the store. After two of three kills the working copy
is deleted too, as if another machine resumed the run.
"""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import runs_lib
from trial_lib import Bench, Trial, last_line

from bert_jax.training import remote

# The store has 5 files, a checkpoint 23 or more; its manifest is uploaded last.
POINTS = (
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


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of runs that are killed between two files."""
    what = "kill -9 between the files of an object store"
    for number, point in enumerate(bench.some(POINTS)):
        yield Trial(what, point, _at_point(bench, point, is_kept=number % 3 == 2))


def _at_point(bench: Bench, point: str, is_kept: bool) -> str:
    store = bench.workdir(f"store-{point}")
    url = f"file://{store}"
    arguments = bench.setup.arguments(url)
    child = bench.fork_server.start("pretrain", *arguments, faults=f"{point}:SIGKILL")
    if (code := child.wait()) != -signal.SIGKILL:
        return f"was not killed: exit code {code}, {last_line(child.log)}"
    copy = remote.WorkingCopy(url).folder
    if not is_kept:
        shutil.rmtree(copy)
    child = bench.fork_server.start("pretrain", *arguments)
    if (code := child.wait()) != 0:
        return f"exit code {code} on resume: {last_line(child.log)}"
    if differs := runs_lib.trace(store).difference(bench.undisturbed):
        return f"{differs} differ from the undisturbed run"
    if left := runs_lib.leftovers(store):
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
