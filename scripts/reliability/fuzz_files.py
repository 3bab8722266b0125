"""Reads small checkpoints, vocabularies, models and stores that are randomly damaged.

    python scripts/reliability/fuzz_files.py --count=1000 --seed=0

Each damaged folder must be read, with a result that an independent look at its files
confirms, or rejected with an InputError. Anything else is a failure: another exception,
a warning, a crash, more than 30 seconds or 2 GiB, a file opened for writing or outside
the folder, a subprocess. Prints one line for each kind, and exits with 1 after a
failure. The kinds `torch*` need torch, and `tensorflow1*` TensorFlow; without them they
are skipped.
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
from bert_jax.checkpoints import tensorflow1, tensors
from bert_jax.text.tokenizer import Tokenizer

KINDS = damage.KINDS | damaged_vocabularies_lib.KINDS | damaged_models_lib.KINDS
_LIBRARIES = {"torch": "torch", "tensorflow1": "tensorflow"}
_EVENTS = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"}
_EVENTS |= {"os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink"}
_EVENTS |= {"os.truncate"}
_SENTENCES = ["the cat sat [MASK] on", "北京 \u0130 e\u0301", "", "\0\ud800", "a" * 300]
# Folders of Python and its libraries.
_OWN = (sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/dev/null", "/lib")
_OWN += ("/dev/urandom", str(Path(__file__).resolve().parents[2]))


@dataclasses.dataclass
class Result:
    """The outcomes of a kind: counts, failures, and the most time and memory."""

    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    failures: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    mib: float = 0.0


def main() -> None:
    """Runs the kinds selected by --kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="folders of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    failed = 0
    print("kind                     read  refused  failed")
    for kind in arguments.kinds.split(","):
        if not installed(kind):
            print(f"{kind:22} skipped: its library is not installed")
            continue
        result = run(kind, arguments.count, arguments.seed)
        failures = len(result.failures)
        failed += failures
        read, refused = result.counts["read"], result.counts["refused"]
        print(f"{kind:22} {read:6} {refused:8} {failures:7}")
        for failure in result.failures[:5]:
            print(f"  {failure}")
    sys.exit(1 if failed else 0)


def installed(kind: str) -> bool:
    """Returns whether the library that writes a kind of checkpoint is installed."""
    module = _LIBRARIES.get(kind.split("_")[0])
    return module is None or importlib.util.find_spec(module) is not None


def run(kind: str, count: int, seed: int) -> Result:
    """Damages `count` copies of a folder of a kind, and reads each."""
    result = Result()
    with tempfile.TemporaryDirectory() as name:
        trials = _Trials(Path(name), kind, seed)
        (Path(name) / "secret").write_text("not for readers")
        for number, outcome in sandbox_lib.outcomes(
            trials.run, range(count), trials.prepare
        ):
            result.counts[outcome.result] += 1
            result.seconds = max(result.seconds, outcome.seconds)
            result.mib = max(result.mib, outcome.mib)
            if not outcome.is_ok:
                result.failures.append(f"number {number}: {outcome.result}")
        written = {path.name for path in Path(name).iterdir()}
        if written - {"secret", "valid", "damaged", "saved"}:
            result.failures.append(f"written outside the folder: {written}")
    return result


@dataclasses.dataclass
class _Trials:
    """Writes, damages and reads folders of a kind; runs in a forked process."""

    folder: Path
    kind: str
    seed: int

    def prepare(self) -> None:
        """Writes the valid folder and reads it, which does the lazy imports."""
        valid = self.folder / "valid"
        shutil.rmtree(valid, ignore_errors=True)
        valid.mkdir()
        KINDS[self.kind][0](valid)
        assert self._outcome(valid) == "read", self._outcome(valid)

    def run(self, number: int) -> str:
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
        return audited(functools.partial(read, folder))


def audited(read: Any) -> str:
    """Calls `read` under an audit hook; returns "read", "refused" or a failure."""
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


# Independent checks of the result.


def _checkpoint(folder: Path) -> str:
    if list(folder.glob(f"{damage.CHECKPOINT}*")):
        found = tensorflow1.read_variables(folder / damage.CHECKPOINT)
    else:
        found = tensors.read(folder)
    WATCH.clear()
    return _judged([folder / name for name in found.files], found.arrays)


def _judged(files: list[Path], arrays: dict[str, np.ndarray]) -> str:
    """Returns "read" for arrays that match the headers and the sizes of the files."""
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
        return "! more bytes than in the files"
    return "read" if arrays else "! no arrays"


def _vocabulary(folder: Path) -> str:
    """Loads a tokenizer and calls all that training and inference call."""
    tokenizer = Tokenizer.load(folder)
    rows = tokenizer.encode(_SENTENCES)
    flat, lengths = tokenizer.encode_flat(_SENTENCES)
    with_offsets = tokenizer.encode_with_offsets(_SENTENCES)
    masked = tokenizer.encode_text("the [MASK] cat")
    ids, types = tokenizer.build(rows[0], rows[1])
    tokenizer.decode(rows[0])
    facts = (tokenizer.fingerprint, tokenizer.is_continuation, tokenizer.special_ids)
    WATCH.clear()
    every = [index for row in (*rows, masked, ids) for index in row]
    if not all(0 <= index < tokenizer.vocab_size for index in every):
        return f"! an id is out of range: {every}"
    if flat.tolist() != [i for row in rows for i in row] or lengths.sum() != flat.size:
        return "! encode and encode_flat differ"
    if [row for row, _ in with_offsets] != rows:
        return "! encode and encode_with_offsets differ"
    if len(ids) != len(types) or not facts:
        return "! ids and token types differ in length"
    for sentence, (_, offsets) in zip(_SENTENCES, with_offsets, strict=True):
        if not all(0 <= a <= b <= len(sentence) for a, b in offsets):
            return f"! offsets are out of range: {offsets}"
    if not _has_tokens(folder, tokenizer.tokens):
        return "! tokens that are not in the files"
    saved = folder.parent / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    tokenizer.export(saved, 64)
    again = Tokenizer.load(saved)
    shutil.rmtree(saved)
    if again.encode(_SENTENCES[:2]) != rows[:2]:
        return "! the exported tokenizer differs"
    return "read"


def _has_tokens(folder: Path, tokens: Iterable[str]) -> bool:
    """Returns whether all tokens are in the bytes of the files."""
    files = [path for path in folder.iterdir() if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    spelled = content.decode("utf-8", "replace")
    return all(
        token in spelled or json.dumps(token)[1:-1] in spelled for token in tokens
    )


WATCH: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Records files opened for writing or outside the folder, and subprocesses."""
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
