"""Every parser of text, given a few of the files that hypothesis thinks of."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts" / "reliability"))
import parsers_lib  # noqa: E402

TARGETS = parsers_lib.targets()


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_returns_or_refuses(name):
    assert parsers_lib.fuzz(TARGETS[name], 12, seed=5) == ""


def test_other_errors_are_seen():
    def parse(path):
        assert b"\t" not in path.read_bytes()
        raise KeyError("x")

    target = parsers_lib.Target("f", parse, ("a",), ("good",))
    assert "KeyError" in parsers_lib.fuzz(target, 5)
