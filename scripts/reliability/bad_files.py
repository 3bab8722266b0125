"""Runs every bad-file case of the tests, and prints the message of each.

    python scripts/reliability/bad_files.py
    python scripts/reliability/bad_files.py --only=SQuAD

A case is a bad file (or folder) and a command that reads it, from the tables
`cases_*.py` in tests/bad_input. It passes if the command ends with the exit code of the
table and one message that names file and line or record, prints nothing else, and
changes no file. Exits with 1 if a case fails. Needs the extra `test`.
"""

import argparse
import collections
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "bad_input" / "test_bad_files.py"


class Gathering:
    """A pytest plugin that collects the result of each case."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, bool]] = []
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Records a case; an error outside the cases is a miss too."""
        about = dict(report.user_properties)
        if report.when == "call" and "kind" in about:
            message = about["message"] if "message" in about else str(report.longrepr)
            row = (about["kind"], about["name"], message, report.passed)
            self.rows.append(row)
        elif report.failed:
            self.broken.append(f"{report.nodeid}: {report.longrepr}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Records tables that cannot be imported."""
        if report.failed:
            self.broken.append(f"{report.nodeid}: {report.longrepr}")


def main() -> int:
    """Runs the cases, and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="only cases whose name has this")
    given = parser.parse_args()
    os.chdir(ROOT)
    found = Gathering()
    options = ["-q", "--no-summary", "-p", "no:cacheprovider", "-o", "addopts="]
    options += ["-k", given.only] if given.only else []
    code = pytest.main([*options, str(TESTS)], plugins=[found])
    print(_report(found))
    return int(code != 0)


def _report(found: Gathering) -> str:
    of_kind = collections.defaultdict(list)
    for kind, *row in found.rows:
        of_kind[kind].append(row)
    lines = []
    for kind, rows in of_kind.items():
        lines.append(f"\n{kind}")
        for name, message, passed in rows:
            lines.append(f"  {'ok  ' if passed else 'MISS'} {name}: {_first(message)}")
    lines.append("\n| format | cases | passed |\n|---|---:|---:|")
    for kind, rows in of_kind.items():
        lines.append(f"| {kind} | {len(rows)} | {sum(x[2] for x in rows)} |")
    passed = sum(row[3] for row in found.rows)
    lines.append(f"| all | {len(found.rows)} | {passed} |")
    lines += [f"MISS {each}" for each in found.broken]
    return "\n".join(lines)


def _first(message: str) -> str:
    """Returns the first line of a message, or the assertion that failed."""
    wrong = [line[1:].strip() for line in message.splitlines() if line.startswith("E ")]
    return (wrong or message.splitlines() or ["nothing"])[0][:300]


if __name__ == "__main__":
    sys.exit(main())
