"""Bits flipped, files deleted, emptied, halved and zeroed.

A library of inject_faults.py.
"""

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import trial_lib
from trial_lib import Bench, Trial, failed, last_line

from bert_jax import errors
from bert_jax.data.corpus import store as stores
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint

_RESUMES = "damage, and the run resumes"
CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields whether damage to a checkpoint and to a store was detected."""
    workdir = bench.workdir("damage")
    assert bench.train(workdir).wait() == 0
    step = workdir / "checkpoints" / str(trial_lib.STEPS)
    rng = bench.random("damage")
    flips = bench.choose(20, 200, 400, 2000)
    for name, problem in _corrupted(step, rng, flips, _reads_checkpoint(step)):
        yield Trial("damage to a checkpoint", name, problem)
    store = bench.folder / "corrupted-store"
    shutil.copytree(bench.store, store)
    for name, problem in _corrupted(store, rng, flips, _reads_store(store)):
        yield Trial("damage to a store", name, problem)
    for name, corrupt in bench.some(CORRUPTIONS.items()):
        yield Trial(_RESUMES, name, _resumes_from_older(bench, corrupt))
    if bench.level:
        name = "killed while it deletes the damaged step"
        yield Trial(_RESUMES, name, _killed_during_deletion(bench))


def _corrupted(
    folder: Path, rng: random.Random, flips: int, read: Callable[[], str]
) -> Iterator[tuple[str, str]]:
    """Corrupts each file in turn and reads; yields names and problems."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    good = {path: path.read_bytes() for path in files}
    weights = [len(content) for content in good.values()]
    for name, corrupt in CORRUPTIONS.items():
        for path in files:
            corrupt(path)
            found = "" if path.exists() and path.read_bytes() == good[path] else read()
            yield f"{path.relative_to(folder)} {name}", found
            path.write_bytes(good[path])
    for _ in range(flips):
        (path,) = rng.choices(files, weights)
        offset, bit = rng.randrange(len(good[path])), rng.randrange(8)
        content = bytearray(good[path])
        content[offset] ^= 1 << bit
        path.write_bytes(content)
        yield f"{path.relative_to(folder)} bit {8 * offset + bit} flipped", read()
        path.write_bytes(good[path])


def _reads_checkpoint(step: Path) -> Callable[[], str]:
    """Returns a check of a step: it is rejected, or unchanged."""

    def restored() -> str:
        return trial_lib.digest_of(step)

    whole = restored()

    def read() -> str:
        if checkpoint.damage(step) is not None:
            return ""
        try:
            return "" if restored() == whole else "read with different numbers"
        except Exception:  # Orbax raises, and a run would end with exit code 3
            return ""

    return read


def _reads_store(folder: Path) -> Callable[[], str]:
    """Returns a check of a store: it is rejected, or unchanged."""

    def content() -> list[object]:
        parts: list[object] = []
        for split in ("train", "heldout"):
            for shard in stores.open_store(folder, split).shards:
                parts += [shard.tokens.tobytes(), shard.sentence_offsets.tobytes()]
                parts += [shard.word_start_bits.tobytes(), shard.sources.tobytes()]
        manifest = stores.read_manifest(folder)
        fingerprint = Tokenizer.load(folder).fingerprint
        if fingerprint != manifest.tokenizer:  # as `corpus_store.ensure` compares it
            raise errors.InputError("a different tokenizer")
        return [*parts, fingerprint]

    whole = content()

    def read() -> str:
        try:
            return "" if content() == whole else "read with different tokens"
        except errors.BertJaxError:
            return ""
        except Exception as error:
            return f"a traceback: {type(error).__name__}: {str(error)[:100]}"

    return read


def _stopped_and_corrupted(bench: Bench, corrupt: Callable[[Path], object]) -> Path:
    """Returns the workdir of a run stopped at step 11, with that step damaged."""
    workdir = bench.workdir("corrupted")
    bench.train(workdir, faults="loop/step=11:SIGTERM").wait()
    step = workdir / "checkpoints" / "11"
    files = sorted((path for path in step.rglob("*") if path.is_file()), key=str)
    corrupt(max(files, key=lambda path: path.stat().st_size))
    return workdir


def _killed_during_deletion(bench: Bench) -> str:
    """Kills a run after it deleted the damaged step, before it saves another."""
    workdir = _stopped_and_corrupted(bench, CORRUPTIONS["zeroed"])
    point = "checkpoint/stale=10:SIGKILL"
    child = bench.train(workdir, faults=point, run__save_every_steps=2)
    return failed(child, -signal.SIGKILL) or bench.resume(workdir)


def _resumes_from_older(bench: Bench, corrupt: Callable[[Path], object]) -> str:
    """Corrupts a stopped run's newest checkpoint; it resumes from an older one."""
    workdir = _stopped_and_corrupted(bench, corrupt)
    child = bench.train(workdir, faults="loop/step=12:SIGTERM")
    code, output = child.wait(), child.log.read_text()
    reported = "is damaged" in output and "resuming after step 8" in output
    if code != 75 or not reported:
        return f"exit code {code}: {last_line(child.log)}"
    if (steps := checkpoint.steps(workdir / "checkpoints")) != [8, 12]:
        return f"expected the good steps 8 and 12, found {steps}"
    return bench.resume(workdir)
