"""What all kinds of trials share. A library of inject_faults.py."""

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
    """What was done to a run, and what was wrong after it; empty if nothing was.

    Takes the seconds since the trial before it, if it does not say its own.
    """

    what: str
    name: str
    problem: str
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where trials are made.

    Attributes:
      level: 0 for `ci`, 1 for `pr`, 2 for `nightly`, 3 for `release`.
      seed: of random moments and places.
      picture: where that of the soak is drawn; None = nowhere.
    """

    folder: Path
    place: runs_lib.Place
    fork_server: fork_server_lib.ForkServer
    level: int
    seed: int
    picture: Path | None = None

    def choose(self, ci: int, pr: int, nightly: int, release: int) -> int:
        """Returns the number of this level."""
        return (ci, pr, nightly, release)[self.level]

    def some(self, trials: Iterable[Any], ci: int = 1) -> list[Any]:
        """Returns all trials, or at the level `ci` the last few."""
        made = list(trials)
        return made if self.level else made[-ci:]

    def random(self, kind: str) -> random.Random:
        """Returns the random numbers of a kind of trials."""
        return random.Random(f"{self.seed} {kind}")

    def workdir(self, name: str) -> Path:
        """Returns a folder that is not there yet."""
        path = self.folder / name.replace("/", "-").replace(" ", "-")
        shutil.rmtree(path, ignore_errors=True)
        return path

    @functools.cached_property
    def store(self) -> Path:
        """The store of the corpus, which most runs share."""
        path = self.folder / "store"
        code = self.fork_server.run("prepare", self.place.config, f"--store={path}")
        assert code == 0, code
        return path

    @functools.cached_property
    def undisturbed(self) -> runs_lib.Trace:
        """The run with which others are compared."""
        return self.trace_of("undisturbed")

    def trace_of(self, name: str, **changes: Any) -> runs_lib.Trace:
        """Trains without any disturbance; returns what the run was."""
        workdir = self.workdir(name)
        child = self.train(workdir, **changes)
        assert child.wait() == 0, child.said.read_text()[-2000:]
        return runs_lib.trace(workdir)

    def train(
        self, workdir: Path, faults: str = "", **changes: Any
    ) -> fork_server_lib.Child:
        """Starts, or resumes, the training in a workdir."""
        settings = {"data__store": self.store, **changes}
        arguments = self.place.arguments(workdir, **settings)
        return self.fork_server.start("pretrain", *arguments, faults=faults)

    def goes_on(
        self,
        workdir: Path,
        expected: runs_lib.Trace | None = None,
        **changes: Any,
    ) -> str:
        """Resumes a run to its end; returns what differs from the undisturbed one."""
        child = self.train(workdir, **changes)
        code = child.wait()
        if code != 0:
            return f"exit code {code} when it went on: {last_line(child.said)}"
        found = runs_lib.trace(workdir)
        if differs := found.difference(expected or self.undisturbed):
            return f"other {differs} than the undisturbed run"
        if left := runs_lib.leftovers(workdir):
            return f"left behind: {', '.join(left[:3])}"
        shutil.rmtree(workdir)
        return ""


def last_line(said: Path) -> str:
    """Returns the last line that a command said."""
    lines = said.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "nothing was said"
