"""One trial of every kind of fault; scripts/reliability/inject_faults.py runs more."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = (
    Path(__file__).resolve().parents[2] / "scripts" / "reliability" / "inject_faults.py"
)


@pytest.mark.slow
def test_a_run_survives_one_of_each_kind():
    command = [sys.executable, str(SCRIPT), "--level=ci"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 11  # the head, and the kinds that need no right to mount


def test_a_kind_that_does_not_exist():
    command = [sys.executable, str(SCRIPT), "--only=floods"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--only: unknown floods" in done.stderr
