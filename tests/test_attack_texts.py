"""Every parser of text, given a few of the files that hypothesis thinks of."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import attack_texts  # noqa: E402

TARGETS = attack_texts.targets()


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "curves.png"])
def test_a_parser_returns_or_refuses(name):
    assert attack_texts.attack(TARGETS[name], 12, seed=5) == ""


def test_other_errors_are_seen():
    def parse(path):
        assert b"\t" not in path.read_bytes()
        raise KeyError("x")

    target = attack_texts.Target("f", parse, ("a",), ("good",))
    assert "KeyError" in attack_texts.attack(target, 5)
