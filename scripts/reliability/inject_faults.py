"""Injects faults into training runs, and checks that results do not change.

    F=scripts/reliability/inject_faults.py
    python $F --level=ci                 # one fault of each kind, minutes
    python $F --level=pr                 # some 25 minutes on two cores
    python $F --level=nightly --only=kills,resume
    python $F --level=release --only=soak --picture=docs/soak.png

Each trial ends with a run that is compared with an undisturbed one: parameters,
optimizer state, losses and examples must be bit-identical. A soak is compared with
bounds on memory, handles and disk usage. Some kinds are tests of faults, which below
the level `nightly` run without those marked slow, and fuzz.py. Prints a table at the
end, and exits with 1 if a trial failed.
"""

import argparse
import contextlib
import dataclasses
import functools
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import damage_lib
import disks_lib
import finetune_lib
import fork_server_lib
import kills_lib
import resume_lib
import soak_lib
import trial_lib
from trial_lib import Bench, Trial

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "several processes": [
        "tests/test_many_processes.py",
        "tests/test_interrupted_processes.py",
    ],
    "non-finite numbers": ["tests/training/test_bad_numbers.py"],
    "a hung step": ["tests/training/test_guards.py"],
    "bad files and ids": ["tests/bad_input"],
}
LEVELS = ("ci", "pr", "nightly", "release")
Part = Callable[[Bench], Iterator[Trial]]


def _tests(bench: Bench, what: str) -> Iterator[Trial]:
    """Yields each test of a kind that was not skipped."""
    report = bench.workdir(what).with_suffix(".xml")
    marks = "" if bench.level > 1 else "not slow"
    options = ["-q", "--numprocesses=0", "-m", marks, f"--junitxml={report}"]
    options += ["-o", "junit_family=xunit1"]  # which has the properties of a test
    done = _python("-m", "pytest", *options, *TESTS[what])
    if not report.exists():
        yield Trial(what, "pytest", done.stdout.strip()[-300:] + done.stderr[-300:])
        return
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            bad = [*case.iter("failure"), *case.iter("error")]
            problem = bad[0].get("message", "failed")[:300] if bad else ""
            seconds = float(case.get("time", 0))
            yield Trial(what, case.get("name", "?"), problem, seconds)


def _fuzz(bench: Bench) -> Iterator[Trial]:
    """Yields each line of the table of fuzz.py."""
    count = bench.choose(100, 500, 20_000, 20_000)
    every = bench.choose(20, 4, 1, 1)
    done = _python(
        "scripts/reliability/fuzz.py", f"--count={count}", f"--every={every}"
    )
    _, _, table = done.stdout.partition("|---|---|---|---|\n")
    for line in table.splitlines():
        what, tried, survived, worst = map(str.strip, line.strip("| ").split("|"))
        problem = "" if tried == survived else f"survived {survived} of {tried}"
        yield Trial("a fuzzed kind of file", f"{what} ({tried}; {worst})", problem)
    if done.returncode or not table:
        output = (done.stdout + done.stderr).strip()[-300:]
        problem = f"exit code {done.returncode}: {output}"
        yield Trial("a fuzzed kind of file", "fuzz.py", problem)


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


# The longest first, so that all workers end at about the same time.
KINDS: dict[str, Sequence[Part]] = {
    "resume": [
        *(
            functools.partial(resume_lib.trials, objective=objective)
            for objective in resume_lib.OBJECTIVES
        ),
        resume_lib.ends,
    ],
    "kills": [kills_lib.trials, finetune_lib.trials],
    "signals": [kills_lib.signal_trials],
    "remote": [kills_lib.remote_trials],
    "soak": [soak_lib.trials],
    "disk": [disks_lib.trials],
    "power": [disks_lib.power_trials],
    "damage": [damage_lib.trials],
    "controls": [resume_lib.controls],
    "fuzz": [_fuzz],
    "tests": [functools.partial(_tests, what=what) for what in TESTS],
}


@dataclasses.dataclass
class Row:
    """One line of the table."""

    what: str
    tried: int = 0
    survived: int = 0
    seconds: float = 0.0
    worst: str = ""

    def add(self, trial: Trial, seconds: float) -> None:
        """Counts a trial; the worst is the first that failed, or the slowest."""
        self.tried += 1
        self.survived += not trial.problem
        if trial.problem and not self.worst.startswith("!"):
            self.worst = f"! {trial.name}: {trial.problem}"
        elif not self.worst.startswith("!") and seconds > self.seconds:
            self.worst = f"{trial.name}: {seconds:.0f} s"
        self.seconds = max(self.seconds, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--level", choices=LEVELS, default="pr")
    parser.add_argument("--only", default="", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument(
        "--jobs", type=int, default=2, help="parts at a time, one core each (2)"
    )
    parser.add_argument("--picture", type=Path, help="file for the soak's plot")
    given = parser.parse_args()
    wanted = [x for x in given.only.split(",") if x] or list(KINDS)
    if unknown := set(wanted) - set(KINDS):
        parser.error(
            f"--only: unknown {', '.join(sorted(unknown))}; choose from {[*KINDS]}"
        )
    if given.jobs < 1:
        parser.error(f"--jobs is {given.jobs}, and must be 1 or more")
    began = time.monotonic()
    rows = _run_all(wanted, given)
    _print(given.level, rows)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes, {given.jobs} at a time")
    return int(any(row.survived < row.tried for row in rows))


def _run_all(wanted: Sequence[str], given: argparse.Namespace) -> list[Row]:
    """Runs the parts of kinds, several at a time, each on its own bench."""
    parts = [part for kind in wanted for part in KINDS[kind]]
    with contextlib.ExitStack() as stack:
        benches: queue.SimpleQueue[Bench] = queue.SimpleQueue()
        for _ in range(min(given.jobs, len(parts))):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-"))
            folder = Path(name)
            fork_server = stack.enter_context(fork_server_lib.ForkServer(folder))
            setup = trial_lib.make_setup(folder / "setup")
            level = LEVELS.index(given.level)
            benches.put(
                Bench(folder, setup, fork_server, level, given.seed, given.picture)
            )

        def run(part: Part) -> list[tuple[Trial, float]]:
            bench = benches.get()
            try:
                return _run(part, bench)
            finally:
                benches.put(bench)

        rows: dict[str, Row] = {}
        with ThreadPoolExecutor(given.jobs) as pool:
            for tried in pool.map(run, parts):
                for trial, seconds in tried:
                    rows.setdefault(trial.what, Row(trial.what)).add(trial, seconds)
        return list(rows.values())


def _run(part: Part, bench: Bench) -> list[tuple[Trial, float]]:
    """Returns the trials of a part and their seconds; prints each as it ends."""
    tried = []
    began = time.monotonic()
    for trial in part(bench):
        seconds = trial.seconds
        if seconds is None:
            seconds = time.monotonic() - began
        tried.append((trial, seconds))
        outcome = trial.problem or "survived"
        print(f"{trial.what}: {trial.name}: {outcome} ({seconds:.1f} s)", flush=True)
        began = time.monotonic()
    return tried


def _print(level: str, rows: Sequence[Row]) -> None:
    print(f"\n| what (level {level}) | tried | survived | worst |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.tried} | {row.survived} | {row.worst} |")


if __name__ == "__main__":
    sys.exit(main())
