"""A sample of what scripts/reliability/fuzz.py does, and that it detects failures."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "reliability"


def run(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def rows(done):
    """Returns the table: what -> (tried, survived)."""
    table = done.stdout.partition("\n|---|")[2].splitlines()[1:]
    cells = [line.strip("| ").split(" | ") for line in table]
    return {what: (int(tried), int(left)) for what, tried, left, _ in cells}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only=names", "--every=9"], 3),
        (["--only=bombs", "--every=40"], 4),
        (["--only=texts", "--count=200"], 27),
    ],
)
@pytest.mark.slow
def test_a_sample_of_each_kind(words, expected):
    done = run(str(SCRIPTS / "fuzz.py"), *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = rows(done)
    assert len(found) == expected
    assert all(tried == left > 0 for tried, left in found.values())


def test_damaged_files_are_read_or_refused():
    done = run(str(SCRIPTS / "fuzz.py"), "--only=files", "--count=120")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(rows(done)) >= 10  # TensorFlow and torch may be missing


BROKEN = """
import os, sys, tempfile, warnings
sys.path.insert(0, sys.argv[1])
import sandbox_lib
outside = tempfile.mkdtemp()
def harm(program):
    return sandbox_lib.audited(lambda: exec(program) or "read")
for program, outcome in sandbox_lib.outcomes(harm, sys.argv[2:]):
    print(outcome.result)
"""
# What a reader must not do, and what is said of it.
HARMS = {
    "pass": "read",
    "open(outside + '/x', 'w')": "! did open",
    "open('/etc/hostname')": "! did open /etc/hostname",
    "os.system('true')": "! did os.system",
    "os.abort()": "! ended the process (-6)",
    "bytearray(4 << 30)": "! MemoryError",
    "raise KeyError('x')": "! KeyError",
    "warnings.warn('x')": "! UserWarning",
}


def test_what_a_reader_must_not_do_is_seen(tmp_path):
    (tmp_path / "p.py").write_text(BROKEN)
    done = run(str(tmp_path / "p.py"), str(SCRIPTS), *HARMS)
    said = done.stdout.splitlines()
    assert len(said) == len(HARMS), done.stderr
    for line, expected in zip(said, HARMS.values(), strict=True):
        assert line.startswith(expected), (line, expected)
