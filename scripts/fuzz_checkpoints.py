"""Damages small checkpoints at random and looks at what the readers make of them.

    python scripts/fuzz_checkpoints.py --count=1000 --seed=0

Every damaged checkpoint is either read, as arrays that are what its header declares,
or refused with an InputError. Anything else fails: another exception, a warning, a
reading that takes more than ten seconds, a file opened for writing, a process started.
Prints one line for every kind of checkpoint, and exits with 1 after a failure. The
kinds `torch*` need torch, `tensorflow1*` TensorFlow; without it they are left out.
"""

import argparse
import collections
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import checkpoint_damage as damage
import numpy as np

from bert_jax import errors
from bert_jax.formats import tensorflow1_file, tensors

_SECONDS = 10
_MADE_BY = {"torch": "torch", "tensorflow1": "tensorflow"}
_EVENTS = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"}
_EVENTS |= {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
}


def main() -> None:
    """Runs the kinds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(damage.KINDS))
    arguments = parser.parse_args()
    failed = 0
    print("kind                 read  refused  failed")
    for kind in arguments.kinds.split(","):
        if not installed(kind):
            print(f"{kind:18} is left out: its library is not installed")
            continue
        counts, failures = run(kind, arguments.count, arguments.seed)
        failed += len(failures)
        print(f"{kind:18} {counts['read']:6} {counts['refused']:8} {len(failures):7}")
        for failure in failures[:5]:
            print(f"  {failure}")
    sys.exit(1 if failed else 0)


def installed(kind: str) -> bool:
    """Says whether the library that makes a kind of checkpoint is there."""
    module = _MADE_BY.get(kind.split("_")[0])
    return module is None or importlib.util.find_spec(module) is not None


def run(kind: str, count: int, seed: int) -> tuple[collections.Counter[str], list[str]]:
    """Returns how many were read and refused, and what else happened."""
    write, mutations = damage.KINDS[kind]
    counts: collections.Counter[str] = collections.Counter()
    failures = []
    with tempfile.TemporaryDirectory() as name:
        valid, damaged = Path(name) / "valid", Path(name) / "damaged"
        valid.mkdir()
        write(valid)
        assert _outcome(valid) == "read"  # and what is imported late is there
        for number in range(count):
            rng = random.Random(f"{seed} {kind} {number}")
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(valid, damaged)
            for _ in range(rng.choice([1, 1, 2])):
                rng.choice(mutations)(rng, damaged)
            outcome = _outcome(damaged)
            counts[outcome] += 1
            if outcome not in ("read", "refused"):
                failures.append(f"number {number}: {outcome}")
    return counts, failures


def _outcome(folder: Path) -> str:
    """Reads a folder with an alarm set and with an ear on what Python does."""
    WATCH.clear()
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(_SECONDS)
    WATCH.append("on")
    try:
        with warnings.catch_warnings(action="error"):
            if list(folder.glob(f"{damage.CHECKPOINT}*")):
                found = tensorflow1_file.read_tensorflow1(folder / damage.CHECKPOINT)
            else:
                found = tensors.read(folder)
        outcome = _judged([folder / name for name in found.files], found.arrays)
    except errors.InputError as error:
        outcome = "refused" if "\n" not in str(error) else f"message: {error}"
    except BaseException as error:  # the point of the exercise
        outcome = f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
    seen = WATCH[1:]
    WATCH.clear()
    return f"did {seen[0]}" if seen else outcome


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
            return f"{name!r} is {dtype} {array.shape}, declared {declared[name]}"
        if not array.flags.c_contiguous or not np.isfinite(array).all():
            return f"{name!r} is not contiguous or not finite"
    size = sum(file.stat().st_size for file in files)
    if sum(array.nbytes for array in arrays.values()) > 8 * size:
        return "more bytes than the files have"
    return "read" if arrays else "nothing"


WATCH: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes files that are opened for writing and processes that are started."""
    if not WATCH:
        return
    if event == "open" and "__pycache__" not in str(arguments[0]):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            WATCH.append(f"open {arguments[0]}")
    elif event in _EVENTS and "__pycache__" not in str(arguments):
        WATCH.append(f"{event} {arguments}")


sys.addaudithook(_listen)


def _ring(number: int, frame: object) -> None:
    raise TimeoutError(f"no answer in {_SECONDS} s")


if __name__ == "__main__":
    main()
