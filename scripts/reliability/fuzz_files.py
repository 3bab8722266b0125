"""Damages small checkpoints and vocabularies at random, and has them read.

    python scripts/reliability/fuzz_files.py --count=1000 --seed=0

Every damaged folder is either read, as what its files say independently, or refused
with an InputError. Anything else fails: another exception, a warning, the end of the
process, a reading that takes more than 30 seconds or 2 GiB, a file that is opened for
writing or outside the folder, a process started. Prints one line for every kind, and
exits with 1 after a failure. The kinds `torch*` need torch, `tensorflow1*` TensorFlow;
without it they are left out.
"""

import argparse
import collections
import dataclasses
import functools
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import damaged_checkpoints_lib as damage
import damaged_models_lib
import damaged_vocabularies_lib
import numpy as np
import sandbox_lib

from bert_jax import errors
from bert_jax.checkpoints import tensorflow1_file, tensors
from bert_jax.text.tokenizer import Tokenizer

KINDS = damage.KINDS | damaged_vocabularies_lib.KINDS | damaged_models_lib.KINDS
_MADE_BY = {"torch": "torch", "tensorflow1": "tensorflow"}
_EVENTS = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"}
_EVENTS |= {"os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink"}
_EVENTS |= {"os.truncate"}
_SENTENCES = ["the cat sat [MASK] on", "北京 \u0130 e\u0301", "", "\0\ud800", "a" * 300]
# Where Python and its libraries lie.
_OWN = (sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/dev/null", "/lib")
_OWN += ("/dev/urandom", str(Path(__file__).resolve().parents[2]))


@dataclasses.dataclass
class Result:
    """What became of the folders of a kind: how often, complaints, and at worst."""

    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    failures: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    mib: float = 0.0


def main() -> None:
    """Runs the kinds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    failed = 0
    print("kind                     read  refused  failed")
    for kind in arguments.kinds.split(","):
        if not installed(kind):
            print(f"{kind:22} is left out: its library is not installed")
            continue
        made = run(kind, arguments.count, arguments.seed)
        failed += len(made.failures)
        numbers = (made.counts["read"], made.counts["refused"], len(made.failures))
        print(f"{kind:22} {numbers[0]:6} {numbers[1]:8} {numbers[2]:7}")
        for failure in made.failures[:5]:
            print(f"  {failure}")
    sys.exit(1 if failed else 0)


def installed(kind: str) -> bool:
    """Says whether the library that makes a kind of checkpoint is there."""
    module = _MADE_BY.get(kind.split("_")[0])
    return module is None or importlib.util.find_spec(module) is not None


def run(kind: str, count: int, seed: int) -> Result:
    """Damages so many folders of a kind, each on its own, and reads them."""
    made = Result()
    with tempfile.TemporaryDirectory() as name:
        place = _Place(Path(name), kind, seed)
        (Path(name) / "secret").write_text("not for readers")
        for number, found in sandbox_lib.outcomes(
            place.try_, range(count), place.prepare
        ):
            made.counts[found.said] += 1
            made.seconds = max(made.seconds, found.seconds)
            made.mib = max(made.mib, found.mib)
            if not found.is_well:
                made.failures.append(f"number {number}: {found.said}")
        left = {path.name for path in Path(name).iterdir()}
        if left - {"secret", "valid", "damaged", "saved"}:
            made.failures.append(f"left outside the folder: {left}")
    return made


@dataclasses.dataclass
class _Place:
    """Where a kind is written, damaged and read; used in a forked process."""

    folder: Path
    kind: str
    seed: int

    def prepare(self) -> None:
        """Writes the valid folder, and reads it: what is imported late is there."""
        valid = self.folder / "valid"
        shutil.rmtree(valid, ignore_errors=True)
        valid.mkdir()
        KINDS[self.kind][0](valid)
        assert self._outcome(valid) == "read", self._outcome(valid)

    def try_(self, number: int) -> str:
        """Damages a copy and reads it."""
        rng = random.Random(f"{self.seed} {self.kind} {number}")
        damaged = self.folder / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(self.folder / "valid", damaged)
        for _ in range(rng.choice([1, 1, 2])):
            rng.choice(KINDS[self.kind][1])(rng, damaged)
        return self._outcome(damaged)

    def _outcome(self, folder: Path) -> str:
        read = _checkpoint if self.kind in damage.KINDS else _vocabulary
        read = (
            damaged_models_lib.read if self.kind in damaged_models_lib.KINDS else read
        )
        return heard(functools.partial(read, folder))


def heard(read: Any) -> str:
    """Calls what reads with an ear on what Python does; returns what became of it."""
    WATCH[:] = ["on"]
    try:
        with warnings.catch_warnings(action="error"):
            outcome = read()
    except (errors.InputError, errors.StorageError) as error:
        outcome = "refused" if "\n" not in str(error) else f"! message: {error}"
    finally:
        seen = WATCH[1:]
        WATCH.clear()
    return f"! did {seen[0]}" if seen else outcome


# Independent looks at what was read.


def _checkpoint(folder: Path) -> str:
    if list(folder.glob(f"{damage.CHECKPOINT}*")):
        found = tensorflow1_file.read_tensorflow1(folder / damage.CHECKPOINT)
    else:
        found = tensors.read(folder)
    WATCH.clear()
    return _judged([folder / name for name in found.files], found.arrays)


def _judged(files: list[Path], arrays: dict[str, np.ndarray]) -> str:
    """Says "read" for arrays that the files can hold and their headers declare."""
    declared: dict[str, tuple[str, list[int]]] = {}
    for path in files:
        if path.suffix != ".safetensors":
            continue
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        header.pop("__metadata__", None)
        declared |= {name: (e["dtype"], e["shape"]) for name, e in header.items()}
    for name, array in arrays.items():
        dtype = array.dtype.name
        short = dtype[:2].upper() + "16" if dtype == "bfloat16" else ""
        short = short or dtype[0].upper() + dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
        short = {"B": "BOOL"}.get(short, short)
        if declared and declared[name] != (short, list(array.shape)):
            return f"! {name!r} is {dtype} {array.shape}, declared {declared[name]}"
        if not array.flags.c_contiguous or not np.isfinite(array).all():
            return f"! {name!r} is not contiguous or not finite"
    size = sum(file.stat().st_size for file in files)
    if sum(array.nbytes for array in arrays.values()) > 8 * size:
        return "! more bytes than the files have"
    return "read" if arrays else "! nothing"


def _vocabulary(folder: Path) -> str:
    """Loads a tokenizer, and has it do what training has it do."""
    made = Tokenizer.load(folder)
    rows = made.encode(_SENTENCES)
    flat, lengths = made.encode_flat(_SENTENCES)
    placed = made.encode_with_offsets(_SENTENCES)
    masked = made.encode_text("the [MASK] cat")
    ids, types = made.build(rows[0], rows[1])
    made.decode(rows[0])
    told = (made.fingerprint, made.is_continuation, made.special_ids)
    WATCH.clear()
    every = [index for row in (*rows, masked, ids) for index in row]
    if not all(0 <= index < made.vocab_size for index in every):
        return f"! an id is out of range: {every}"
    if flat.tolist() != [i for row in rows for i in row] or lengths.sum() != flat.size:
        return "! encode and encode_flat differ"
    if [row for row, _ in placed] != rows or len(ids) != len(types) or not told:
        return "! encode and encode_with_offsets differ"
    for sentence, (_, places) in zip(_SENTENCES, placed, strict=True):
        if not all(0 <= a <= b <= len(sentence) for a, b in places):
            return f"! offsets are out of range: {places}"
    if not _has_pieces(folder, made.tokens):
        return "! other pieces"
    saved = folder.parent / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    made.export(saved, 64)
    again = Tokenizer.load(saved)
    shutil.rmtree(saved)
    return "read" if again.encode(_SENTENCES[:2]) == rows[:2] else "! saved otherwise"


def _has_pieces(folder: Path, tokens: Iterable[str]) -> bool:
    """Says whether all the pieces stand in the bytes of the files."""
    files = [path for path in folder.iterdir() if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    spelled = content.decode("utf-8", "replace")
    return all(
        token in spelled or json.dumps(token)[1:-1] in spelled for token in tokens
    )


WATCH: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes files that are opened for writing or elsewhere, and processes."""
    if not WATCH or "__pycache__" in str(arguments):
        return
    if event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        is_outside = not path.startswith((*_OWN, tempfile.gettempdir()))
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or is_outside:
            WATCH.append(f"open {path}")
        elif path.endswith("secret"):
            WATCH.append(f"open {path}")
    elif event in _EVENTS:
        WATCH.append(f"{event} {arguments}")


sys.addaudithook(_listen)


if __name__ == "__main__":
    main()
