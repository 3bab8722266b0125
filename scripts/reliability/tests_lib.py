"""Tests of faults, and fuzz.py, as trials of inject_faults.py.

Below the level `nightly` the tests run without those marked slow.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from trial_lib import Bench, Trial

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "several processes": [
        "tests/test_many_processes.py",
        "tests/test_interrupted_processes.py",
    ],
    "non-finite numbers": ["tests/training/test_bad_numbers.py"],
    "a hung step": ["tests/training/test_watchdog.py"],
    "bad files and ids": ["tests/bad_input"],
}


def trials(bench: Bench, what: str) -> Iterator[Trial]:
    """Yields each test of a kind that was not skipped."""
    report = bench.workdir(what).with_suffix(".xml")
    marks = "" if bench.level > 1 else "not slow"
    options = ["-q", "--numprocesses=0", "-m", marks, f"--junitxml={report}"]
    options += ["-o", "junit_family=xunit1"]  # which has the properties of a test
    done = _run("-m", "pytest", *options, *TESTS[what])
    if not report.exists():
        yield Trial(what, "pytest", done.stdout.strip()[-300:] + done.stderr[-300:])
        return
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            bad = [*case.iter("failure"), *case.iter("error")]
            problem = bad[0].get("message", "failed")[:300] if bad else ""
            seconds = float(case.get("time", 0))
            yield Trial(what, case.get("name", "?"), problem, seconds)


def fuzz(bench: Bench) -> Iterator[Trial]:
    """Yields each line of the table of fuzz.py."""
    count = bench.choose(100, 500, 20_000, 20_000)
    every = bench.choose(20, 4, 1, 1)
    done = _run("scripts/reliability/fuzz.py", f"--count={count}", f"--every={every}")
    _, _, table = done.stdout.partition("|---|---|---|---|\n")
    for line in table.splitlines():
        what, tried, survived, worst = map(str.strip, line.strip("| ").split("|"))
        problem = "" if tried == survived else f"survived {survived} of {tried}"
        yield Trial("a fuzzed kind of file", f"{what} ({tried}; {worst})", problem)
    if done.returncode or not table:
        output = (done.stdout + done.stderr).strip()[-300:]
        problem = f"exit code {done.returncode}: {output}"
        yield Trial("a fuzzed kind of file", "fuzz.py", problem)


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
