"""Bits flipped, files deleted, emptied, halved and zeroed.

A library of inject_faults.py.
"""

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import runs_lib
from trial_lib import Bench, Trial, last_line

from bert_jax import errors
from bert_jax.data.corpus import store as stores
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import saved_steps


def _delete(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


HARMS: dict[str, Callable[[Path], None]] = {
    "deleted": _delete,
    "emptied": _empty,
    "halved": _halve,
    "zeroed": _zero,
}


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields whether damage to a checkpoint and to a store was noticed."""
    workdir = bench.workdir("damage")
    assert bench.train(workdir).wait() == 0
    step = workdir / "checkpoints" / str(runs_lib.STEPS)
    rng = bench.random("damage")
    flips = bench.choose(20, 200, 400, 2000)
    for name, problem in _harmed(step, rng, flips, _reads_checkpoint(step)):
        yield Trial("damage to a checkpoint", name, problem)
    store = bench.folder / "harmed-store"
    shutil.copytree(bench.store, store)
    for name, problem in _harmed(store, rng, flips, _reads_store(store)):
        yield Trial("damage to a store", name, problem)
    for name, harm in bench.some(HARMS.items()):
        yield Trial("damage, and the run goes on", name, _goes_on(bench, harm))
    if bench.level:
        what, name = "damage, and the run goes on", "killed when it is deleted"
        yield Trial(what, name, _killed_over_it(bench))


def _harmed(
    folder: Path, rng: random.Random, flips: int, read: Callable[[], str]
) -> Iterator[tuple[str, str]]:
    """Harms each file in turn and looks; yields names and problems."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    good = {path: path.read_bytes() for path in files}
    weights = [len(content) for content in good.values()]
    for name, harm in HARMS.items():
        for path in files:
            harm(path)
            found = "" if path.exists() and path.read_bytes() == good[path] else read()
            yield f"{path.relative_to(folder)} {name}", found
            path.write_bytes(good[path])
    for _ in range(flips):
        (path,) = rng.choices(files, weights)
        place, bit = rng.randrange(len(good[path])), rng.randrange(8)
        content = bytearray(good[path])
        content[place] ^= 1 << bit
        path.write_bytes(content)
        yield f"{path.relative_to(folder)} bit {8 * place + bit} flipped", read()
        path.write_bytes(good[path])


def _reads_checkpoint(step: Path) -> Callable[[], str]:
    """Returns what looks at a step: it must be refused, or be as it was."""

    def restored() -> str:
        return runs_lib.digest_of(step)

    whole = restored()

    def read() -> str:
        if saved_steps.damage(step) is not None:
            return ""
        try:
            return "" if restored() == whole else "read with other numbers"
        except Exception:  # Orbax stops, and so would a run, with exit code 3
            return ""

    return read


def _reads_store(folder: Path) -> Callable[[], str]:
    """Returns what looks at a store: it must be refused, or be as it was."""

    def content() -> list[object]:
        made: list[object] = []
        for split in ("train", "heldout"):
            for shard in stores.open_store(folder, split).shards:
                made += [shard.tokens.tobytes(), shard.sentence_offsets.tobytes()]
                made += [shard.word_start_bits.tobytes(), shard.sources.tobytes()]
        manifest = stores.manifests.read(folder)
        fingerprint = Tokenizer.load(folder).fingerprint
        if fingerprint != manifest.tokenizer:  # as `prepare.ensure` looks at it
            raise errors.InputError("another tokenizer")
        return [*made, fingerprint]

    whole = content()

    def read() -> str:
        try:
            return "" if content() == whole else "read with other tokens"
        except errors.BertJaxError:
            return ""
        except Exception as error:
            return f"a traceback: {type(error).__name__}: {str(error)[:100]}"

    return read


def _stopped_and_harmed(bench: Bench, harm: Callable[[Path], None]) -> Path:
    """Returns the workdir of a run that was stopped at step 11, which is damaged."""
    workdir = bench.workdir("harmed")
    bench.train(workdir, faults="loop/step=11:SIGTERM").wait()
    step = workdir / "checkpoints" / "11"
    files = sorted((path for path in step.rglob("*") if path.is_file()), key=str)
    harm(max(files, key=lambda path: path.stat().st_size))
    return workdir


def _killed_over_it(bench: Bench) -> str:
    """Kills a run when it has deleted the damaged step, before it saves another."""
    workdir = _stopped_and_harmed(bench, _zero)
    point = "checkpoint/stale=10:SIGKILL"
    child = bench.train(workdir, faults=point, run__save_every_steps=2)
    if (code := child.wait()) != -signal.SIGKILL:
        return f"was not killed: exit code {code}, {last_line(child.said)}"
    return bench.goes_on(workdir)


def _goes_on(bench: Bench, harm: Callable[[Path], None]) -> str:
    """Harms the newest checkpoint of a run that was stopped; it goes on without."""
    workdir = _stopped_and_harmed(bench, harm)
    child = bench.train(workdir, faults="loop/step=12:SIGTERM")
    code, said = child.wait(), child.said.read_text()
    if code != 75 or "is damaged" not in said or "resuming after step 8" not in said:
        return f"exit code {code}: {last_line(child.said)}"
    if (steps := saved_steps.steps(workdir / "checkpoints")) != [8, 12]:
        return f"steps 8 and 12 are good, and {steps} were kept"
    return bench.goes_on(workdir)
