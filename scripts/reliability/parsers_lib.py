"""Gives every parser of text what hypothesis thinks of. A library of fuzz.py.

A parser returns something, or raises an InputError of one line (a StorageError where a
store is damaged). What hypothesis thinks of are files of lines out of pieces that the
format knows, valid files with a stretch replaced, and any bytes.
"""

import json
import random
import tempfile
import traceback
from pathlib import Path
from typing import Any

import damaged_checkpoints_lib as damage
import hypothesis
import parser_calls_lib
from hypothesis import strategies as st
from parser_targets_lib import Target, targets

__all__ = ["Target", "fuzz", "targets"]

# What breaks parsers of any format.
_HARD = (
    *("\n", "\n\n", "\t", " ", '"', '""', ",", "\r", "\r\n", "\ufeff", "\0", "\x85"),
    *("\u2028", "\x1c", "\u3000", "#", "-", "1", "0", "-1", "٣", "²", "9" * 5000, "a"),
    *(
        "1e400",
        "NaN",
        "Infinity",
        "1_0",
        "é",
        "e\u0301",
        "北京",
        "\U0010ffff",
        "\u0130",
    ),
    *("[" * 2000, '{"a":' * 500, "[" * 90 + "]" * 90, "\\ud800", "\\u0000", "&#9999;"),
    *("../x", "/etc/passwd", "x" * 3000, "\x1b[31m", "{}", "[]", "null", "true"),
)


def contents(target: Target) -> st.SearchStrategy[bytes]:
    """Returns what hypothesis makes files of."""
    pieces = st.sampled_from((*target.pieces * 2, *_HARD))
    joined = st.lists(pieces | st.text(max_size=5), max_size=40).map("".join)
    encoded = joined.map(lambda text: text.encode("utf-8", "surrogatepass"))

    def spliced(drawn: tuple[str, float, float, bytes]) -> bytes:
        good, begin, length, other = drawn
        content = good.encode()
        at = int(begin * len(content))
        return content[:at] + other + content[at + int(length * 30) :]

    share = st.floats(0, 1)
    good = st.sampled_from(target.good)
    others = [] if not _trees(target) else [_edited(target)] * 2
    return st.one_of(
        *others,
        encoded,
        st.tuples(good, share, share, encoded).map(spliced),
        st.tuples(good, share, share, st.binary(max_size=3)).map(spliced),
        st.binary(max_size=60),
    )


def _trees(target: Target) -> list[Any]:
    """Returns the good files that are JSON, or lines of it."""
    try:
        return [
            json.loads(line) for text in target.good for line in text.split("\n")[:1]
        ]
    except ValueError:
        return []


def _edited(target: Target) -> st.SearchStrategy[bytes]:
    """Returns what makes JSON of a good file with some of it changed."""

    def edit(drawn: tuple[int, int, int]) -> bytes:
        which, seed, times = drawn
        rng, tree = random.Random(seed), _trees(target)[which]
        for _ in range(times):
            tree = damage.edit(rng, tree)
        return damage.spelt(rng, tree) + b"\n"

    which = st.integers(0, len(target.good) - 1)
    return st.tuples(which, st.integers(0, 2**32), st.integers(1, 4)).map(edit)


def fuzz(target: Target, count: int, seed: int = 0) -> str:
    """Gives a parser so many files; returns what it did wrong, or ""."""

    @hypothesis.settings(
        max_examples=max(1, int(count * target.share)),
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.seed(seed)
    @hypothesis.given(contents(target))
    def survives(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / target.name
            path.write_bytes(content)
            parser_calls_lib.refusing(lambda: target.parse(path))

    try:
        survives()
    except ExceptionGroup as group:
        return "; ".join(map(_told, group.exceptions))
    except Exception as error:
        return _told(error)
    return ""


def _told(error: Exception) -> str:
    notes = " ".join(" ".join(getattr(error, "__notes__", ())).split())
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} ({where}): {str(error)[:200]} {notes[:300]}"
