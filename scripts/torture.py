"""Does to training runs what the world does, and looks whether they are the same runs.

python scripts/torture.py --level=ci                # one of each kind, minutes
python scripts/torture.py --level=pr                # some 25 minutes of two cores
python scripts/torture.py --level=nightly --only=kills,resume
python scripts/torture.py --level=release --only=soak --picture=docs/soak.png

Every trial ends with a run that is compared with one that nobody disturbed: parameters,
optimizer state, losses and examples must be equal to the bit; a soak, with what a run
may hold. Prints one table last, and exits with 1 if anything was missed.
"""

import argparse
import contextlib
import dataclasses
import functools
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torture_damage
import torture_disk
import torture_finetune
import torture_kills
import torture_nursery
import torture_power
import torture_remote
import torture_resume
import torture_runs
import torture_signals
import torture_soak
import torture_tests
from torture_trial import Bench, Trial

LEVELS = ("ci", "pr", "nightly", "release")
Part = Callable[[Bench], Iterator[Trial]]
# The longest first, so that all who take from here end together.
KINDS: dict[str, Sequence[Part]] = {
    "resume": [
        *(
            functools.partial(torture_resume.trials, objective=objective)
            for objective in torture_resume.OBJECTIVES
        ),
        torture_resume.ends,
    ],
    "kills": [torture_kills.trials, torture_finetune.trials],
    "signals": [torture_signals.trials],
    "remote": [torture_remote.trials],
    "soak": [torture_soak.trials],
    "disk": [torture_disk.trials],
    "power": [torture_power.trials],
    "damage": [torture_damage.trials],
    "controls": [torture_resume.controls],
    "attack": [torture_tests.attacks],
    "tests": [
        functools.partial(torture_tests.trials, what=what)
        for what in torture_tests.TESTS
    ],
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
    parser.add_argument("--only", default="", help=f"of {','.join(KINDS)}, with commas")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument(
        "--jobs", type=int, default=2, help="parts at a time, a core each (2)"
    )
    parser.add_argument("--picture", type=Path, help="draw the soak into this file")
    given = parser.parse_args()
    wanted = [x for x in given.only.split(",") if x] or list(KINDS)
    if unknown := set(wanted) - set(KINDS):
        parser.error(f"--only has {', '.join(sorted(unknown))}, none of {list(KINDS)}")
    if given.jobs < 1:
        parser.error(f"--jobs is {given.jobs}, and must be 1 or more")
    began = time.monotonic()
    rows = _run_all(wanted, given)
    _print(given.level, rows)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes, {given.jobs} at a time")
    return int(any(row.survived < row.tried for row in rows))


def _run_all(wanted: Sequence[str], given: argparse.Namespace) -> list[Row]:
    """Runs parts of kinds, several at a time, each on a bench of its own."""
    parts = [part for kind in wanted for part in KINDS[kind]]
    with contextlib.ExitStack() as stack:
        benches: queue.SimpleQueue[Bench] = queue.SimpleQueue()
        for _ in range(min(given.jobs, len(parts))):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-"))
            folder = Path(name)
            nursery = stack.enter_context(torture_nursery.Nursery(folder))
            place = torture_runs.make_place(folder / "place")
            level = LEVELS.index(given.level)
            benches.put(Bench(folder, place, nursery, level, given.seed, given.picture))

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
    """Returns the trials of a part and their seconds, telling each as it ends."""
    tried = []
    began = time.monotonic()
    for trial in part(bench):
        seconds = trial.seconds
        if seconds is None:
            seconds = time.monotonic() - began
        tried.append((trial, seconds))
        said = trial.problem or "survived"
        print(f"{trial.what}: {trial.name}: {said} ({seconds:.1f} s)", flush=True)
        began = time.monotonic()
    return tried


def _print(level: str, rows: Sequence[Row]) -> None:
    print(f"\n| what (level {level}) | tried | survived | worst |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.tried} | {row.survived} | {row.worst} |")


if __name__ == "__main__":
    sys.exit(main())
