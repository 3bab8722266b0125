"""Rows per second of the input: of bare batch_at, and through tf.data and threads.

    python scripts/bench/input.py --tokens=25_000_000

Writes a store of random ids into a temporary folder, makes the table of rows and then
batches at L = 128 and 512 for each objective, padded and packed. `batch_at` is one
thread, so its rows per second of CPU time are those of a core; the streams may use
every core. The goal is 100,000 rows/s at L = 128 on two cores; an H100 at 40 %
utilization needs about 6,000.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bert_jax.config.pretraining import LOADERS, OBJECTIVES
from bert_jax.data import stream
from bert_jax.data.corpus import store
from bert_jax.data.pretraining import instances

VOCAB_SIZE = 30_522


def main() -> None:
    """Prints one line for each objective and length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=25_000_000)
    parser.add_argument("--shard_tokens", type=int, default=store.SHARD_TOKENS)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--folder", type=Path, help="where to keep the store")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_store(Path(folder), args.tokens, args.shard_tokens)
        opened = store.open_store(Path(folder), verify=False)
        print(f"{opened.num_tokens} tokens, {len(opened.shards)} shards, ", end="")
        print(f"batches of {args.batch_size}, {os.cpu_count()} cores, rows per second:")
        for length in (128, 512):
            for objective in OBJECTIVES:
                for pack in (False, True):
                    rows = instances_of(opened, objective, length, pack)
                    measure(*rows, args.batch_size, args.seconds)


def write_store(folder: Path, tokens: int, shard_tokens: int) -> None:
    """Writes documents of 1 to 39 sentences of 1 to 49 random ids."""
    rng = np.random.default_rng(0)
    writer = store.SplitWriter(folder, "train", shard_tokens)
    left = tokens
    while left > 0:
        documents = rng.integers(1, 40, min(5000, left // 500 + 1))
        sentences = rng.integers(1, 50, documents.sum())
        size = int(sentences.sum())
        writer.append(
            store.Block(
                tokens=rng.integers(5, VOCAB_SIZE, size, np.uint16),
                word_starts=rng.integers(0, 2, size, np.uint8).astype(bool),
                sentence_lengths=sentences,
                document_lengths=documents,
                sources=np.zeros(len(documents), np.uint16),
            )
        )
        left -= size
    manifest = store.Manifest(
        format_version=store.FORMAT_VERSION,
        tokenizer="",
        vocab_size=VOCAB_SIZE,
        options=store.StoreOptions(0.0, False, "none", "none"),
        sources=(store.SourceEntry("ids", "", 1.0, (), 0),),
        dropped=store.Dropped(),
        shards=tuple(writer.close()),
    )
    store.write_manifest(folder, manifest)


def instances_of(
    opened: store.Store, objective: str, length: int, pack: bool
) -> tuple[str, float, instances.Instances]:
    """Returns a title, the seconds that making the table took, and the rows."""
    start = time.perf_counter()
    rows = instances.Instances(
        opened,
        objective=objective,
        max_seq_length=length,
        short_seq_prob=0.1,
        seed=1,
        special_ids=(1, 2),
        pack=pack,
    )
    how = "padded" if rows.fill is None else f"{rows.fill:.2%} taken"
    title = f"L={length:<4}{objective:<15}{how:<13}"
    return title, time.perf_counter() - start, rows


def measure(
    title: str, table: float, rows: instances.Instances, batch_size: int, seconds: float
) -> None:
    """Prints the table's time, rows per second and the peak of resident memory."""

    def batch_at(step: int) -> instances.Batch:
        return rows.batch_at(step, batch_size)

    ahead = 1_000_000  # A seek costs nothing.
    start = time.perf_counter()
    batch_at(ahead)
    seek = time.perf_counter() - start
    wall, core = rate(map(batch_at, range(ahead, 2 * ahead)), batch_size, seconds)
    print(
        f"{title} table {table:5.2f} s, seek {seek * 1e3:.1f} ms, "
        f"batch_at {wall:8.0f} ({core:.0f} a CPU second)",
        end="",
    )
    for loader in LOADERS:
        steps = stream.batches(
            batch_at, ahead, ahead, loader=loader, put=lambda batch: batch, prefetch=4
        )
        next(steps)
        wall, core = rate(steps, batch_size, seconds)
        steps.close()
        print(f", {loader} {wall:8.0f} ({core:.0f})", end="")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f", peak {peak:.0f} MiB")


def rate(
    batches: Iterable[instances.Batch], batch_size: int, seconds: float
) -> tuple[float, float]:
    """Returns rows per second of wall time and of CPU time."""
    steps: Iterator[instances.Batch] = iter(batches)
    next(steps)
    wall, core, rows = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        next(steps)
        rows += batch_size
    return rows / (time.perf_counter() - wall), rows / (time.process_time() - core)


if __name__ == "__main__":
    main()
