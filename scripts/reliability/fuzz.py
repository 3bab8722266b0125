"""Fuzzes every reader of files from elsewhere, and reports which inputs it survived.

    python scripts/reliability/fuzz.py                  # 2,000 damaged files, minutes
    python scripts/reliability/fuzz.py --count=20000    # all of it
    python scripts/reliability/fuzz.py --only=names,texts

names   what leads out of a folder, programs in pickles, archives
bombs   giant headers, text that unpacks to a thousand times its size, deep JSON
files   safetensors, vocabularies, model folders and stores, damaged at random
texts   every parser of text, given what hypothesis thinks of (the extra `test`)

A reader returns the right result or reports the fault in one line, in a process with
2 GiB more memory than it has, and 30 seconds. Prints one table last, and exits with 1
after a miss.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bombs_lib
import damaged_models_lib
import fuzz_files
import names_lib
import parsers_lib
import sandbox_lib

# Of a hundred damaged files so many are of the kind; reading a model takes long.
_SHARES = {
    **{"safetensors": 20, "safetensors_shards": 15, "vocab.txt": 15},
    **{"vocab.txt and JSON": 10, "tokenizer.json": 14, "SentencePiece unigram": 14},
    **{"SentencePiece BPE": 12, "store": 5, "task folder": 2},
    **{"Hugging Face folder": 0.5, "exported folder": 0.5},
    **{"torch": 1, "torch_legacy": 1, "tensorflow1": 1},
}
_TEXTS = 0.025  # of the count, a parser


@dataclasses.dataclass
class Row:
    """One line of the table."""

    what: str
    tried: int = 0
    missed: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    mib: float = 0.0

    def add(self, name: str, outcome: sandbox_lib.Outcome) -> None:
        """Counts a case."""
        self.tried += 1
        self.seconds = max(self.seconds, outcome.seconds)
        self.mib = max(self.mib, outcome.mib)
        if not outcome.is_well:
            self.missed.append(f"{name}: {outcome.said}")

    def __str__(self) -> str:
        numbers = f"{self.tried:,} | {self.tried - len(self.missed):,}"
        worst = f"{self.seconds:.1f} s, {self.mib:,.0f} MiB"
        return f"| {self.what} | {numbers} | {worst} |"


def main() -> int:
    """Runs the kinds of input that --only names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="of damaged files")
    parser.add_argument("--every", type=int, default=1, help="of names and bombs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help=f"of {','.join(KINDS)}")
    given = parser.parse_args()
    wanted = [x for x in given.only.split(",") if x] or list(KINDS)
    if unknown := set(wanted) - set(KINDS):
        parser.error(f"--only has {', '.join(sorted(unknown))}, none of {[*KINDS]}")
    rows = []
    for kind in wanted:
        for row in KINDS[kind](given):
            rows.append(row)
            print(f"{row} ({time.strftime('%X')})", flush=True)
            for miss in row.missed[:10]:
                print(f"  MISSED {miss}", flush=True)
    print("\n| what | tried | survived | worst |\n|---|---|---|---|")
    print("\n".join(map(str, rows)))
    return int(any(row.missed for row in rows))


def _cases(title: str, cases: Any, warm: Callable[[], Any]) -> Iterator[Row]:
    """Runs cases, and yields a line for each first part of their names."""
    row = Row(title)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "place"
        found = sandbox_lib.outcomes(lambda case: case.run(place), cases, warm)
        for case, outcome in found:
            row.add(case.name, outcome)
    yield row


def _names(given: argparse.Namespace) -> Iterator[Row]:
    for title, cases in (
        ("names that lead out of a folder", names_lib.names()),
        ("programs in pickles", names_lib.pickles()),
        ("archives with hostile paths", names_lib.archives()),
    ):
        yield from _cases(title, list(cases)[:: given.every], _warm)


def _bombs(given: argparse.Namespace) -> Iterator[Row]:
    for title, cases in (
        ("giant lengths and headers", bombs_lib.headers()),
        ("text that unpacks to 500 MiB", bombs_lib.packed()),
        ("JSON: depth, digits, collisions", bombs_lib.trees()),
        ("long lines and files", bombs_lib.long()),
    ):
        yield from _cases(title, list(cases)[:: given.every], _warm)


def _warm() -> None:
    """Imports what readers import late."""
    with tempfile.TemporaryDirectory() as name:
        for kind in ("Hugging Face folder", "task folder"):
            folder = Path(name) / kind
            folder.mkdir()
            damaged_models_lib.KINDS[kind][0](folder)
            damaged_models_lib.read(folder)
    if fuzz_files.installed("torch"):
        import torch  # noqa: F401


def _files(given: argparse.Namespace) -> Iterator[Row]:
    for kind, share in _SHARES.items():
        number = max(1, int(given.count * share / 100))
        if fuzz_files.installed(kind):
            made = fuzz_files.run(kind, number, given.seed)
            title = f"damaged: {kind}"
            yield Row(title, number, made.failures, made.seconds, made.mib)


def _texts(given: argparse.Namespace) -> Iterator[Row]:
    """Yields a line for each parser; hypothesis counts what it tries by itself."""
    number = max(5, int(given.count * _TEXTS))
    for name, target in parsers_lib.targets().items():
        row = Row(f"parser: {name}")

        def fuzz(target: parsers_lib.Target) -> str:
            problem = parsers_lib.fuzz(target, number, given.seed)
            return f"! {problem}" if problem else ""

        sandbox_lib.SECONDS, before = 600, sandbox_lib.SECONDS  # of all files together
        for _, outcome in sandbox_lib.outcomes(fuzz, [target]):
            row.add(name, outcome)
        sandbox_lib.SECONDS = before
        row.tried = max(1, int(number * target.share))
        yield row


KINDS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "names": _names,
    "bombs": _bombs,
    "files": _files,
    "texts": _texts,
}

if __name__ == "__main__":
    sys.exit(main())
