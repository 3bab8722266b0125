"""A trial, and the bench that all kinds of trials share.

A library of inject_faults.py.
"""

import dataclasses
import functools
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fork_server_lib
import runs_lib


@dataclasses.dataclass(frozen=True)
class Trial:
    """A fault injected into a run, and what was wrong afterwards.

    Attributes:
      what: the kind of fault, a line of the table.
      name: of the trial among those of its kind.
      problem: empty if the run survived.
      seconds: of the trial; None = since the previous one.
    """

    what: str
    name: str
    problem: str
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Bench:
    """The environment of trials.

    Attributes:
      level: 0 for `ci`, 1 for `pr`, 2 for `nightly`, 3 for `release`.
      folder: for workdirs and temporary files.
      setup: the corpus and config that runs train on.
      fork_server: starts runs.
      seed: of random moments and offsets.
      picture: file of the soak's plot; None = no plot.
    """

    folder: Path
    setup: runs_lib.Setup
    fork_server: fork_server_lib.ForkServer
    level: int
    seed: int
    picture: Path | None = None

    def choose(self, ci: int, pr: int, nightly: int, release: int) -> int:
        """Returns the number of this level."""
        return (ci, pr, nightly, release)[self.level]

    def some(self, trials: Iterable[Any], ci: int = 1) -> list[Any]:
        """Returns all trials, or at the level `ci` the last few."""
        every = list(trials)
        return every if self.level else every[-ci:]

    def random(self, kind: str) -> random.Random:
        """Returns the random generator of a kind of trials."""
        return random.Random(f"{self.seed} {kind}")

    def workdir(self, name: str) -> Path:
        """Returns the path of a folder that does not exist."""
        path = self.folder / name.replace("/", "-").replace(" ", "-")
        shutil.rmtree(path, ignore_errors=True)
        return path

    @functools.cached_property
    def store(self) -> Path:
        """The store of the corpus, which most runs share."""
        path = self.folder / "store"
        code = self.fork_server.run("prepare", self.setup.config, f"--store={path}")
        assert code == 0, code
        return path

    @functools.cached_property
    def undisturbed(self) -> runs_lib.Trace:
        """The run that others are compared with."""
        return self.trace_of("undisturbed")

    def trace_of(self, name: str, **changes: Any) -> runs_lib.Trace:
        """Trains undisturbed; returns the trace of the run."""
        workdir = self.workdir(name)
        child = self.train(workdir, **changes)
        assert child.wait() == 0, child.log.read_text()[-2000:]
        return runs_lib.trace(workdir)

    def train(
        self, workdir: Path, faults: str = "", **changes: Any
    ) -> fork_server_lib.Child:
        """Starts or resumes training in a workdir."""
        settings = {"data__store": self.store, **changes}
        arguments = self.setup.arguments(workdir, **settings)
        return self.fork_server.start("pretrain", *arguments, faults=faults)

    def resume(
        self,
        workdir: Path,
        expected: runs_lib.Trace | None = None,
        **changes: Any,
    ) -> str:
        """Resumes a run to its end; returns how it differs from the undisturbed one."""
        child = self.train(workdir, **changes)
        code = child.wait()
        if code != 0:
            return f"exit code {code} on resume: {last_line(child.log)}"
        found = runs_lib.trace(workdir)
        if differs := found.difference(expected or self.undisturbed):
            return f"{differs} differ from the undisturbed run"
        if left := runs_lib.leftovers(workdir):
            return f"left over: {', '.join(left[:3])}"
        shutil.rmtree(workdir)
        return ""


def last_line(log: Path) -> str:
    """Returns the last line of a command's output."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no output"
