"""A store filled on one machine: documents stream through as many processes as asked.

Memory is bounded: what is held is a few chunks of text, one shard a split, and eight
bytes for every document when duplicates are dropped.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

from bert_jax import console
from bert_jax.data.corpus import duplicates, filling, readers, shards, tokenize
from bert_jax.data.corpus import manifest as manifests

# Small enough for a worker's memory and for many cores to share a small corpus, large
# enough that the pipe costs nothing.
_CHUNK_CHARACTERS = 1 << 18


def fill(
    job: filling.Job, *, workers: int | None = None, progress: bool = True
) -> filling.Filled:
    """Fills a store by so many processes, one for every core when left out.

    Raises InputError for a record, and StorageError when a process died.
    """
    store = _Filling(job)
    counts = [0] * len(job.readings)
    with _bar(job.readings, progress) as bar:
        chunks = _chunks(job.readings, counts, bar)
        results = tokenize.tokenise_all(chunks, job.settings, workers or _cores())
        with contextlib.closing(results):
            for result in results:
                store.add(result)
    entries = store.close()
    return filling.Filled(
        sources=tuple(
            filling.source_entry(reading, reading.files, count)
            for reading, count in zip(job.readings, counts, strict=True)
        ),
        dropped=manifests.Dropped(**store.dropped),
        shards=tuple(entries),
    )


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _bar(readings: Sequence[readers.Reading], progress: bool) -> console.Bar:
    """Returns a bar of the bytes of the sources."""
    return console.Bar(
        sum(reading.total_bytes for reading in readings),
        "bytes",
        "tokenizing",
        is_scaled=True,
        is_kept=True,
        is_shown=progress,
    )


def _chunks(
    readings: Sequence[readers.Reading], counts: list[int], bar: console.Bar
) -> Iterator[tokenize.Chunk]:
    """Yields the records of every source in chunks; counts them and moves the bar."""
    done = 0
    for index, reading in enumerate(readings):
        for records in readers.runs(reading.records(), _CHUNK_CHARACTERS):
            yield tokenize.Chunk(index, records)
            counts[index] += len(records)
            bar.update(done + reading.bytes_read - bar.n)
        done += reading.total_bytes
        bar.update(done - bar.n)


class _Filling:
    """Takes chunks in order, drops repeats, writes shards and counts."""

    def __init__(self, job: filling.Job) -> None:
        self._writers = {
            split: shards.SplitWriter(
                job.folder, split, filling.shard_tokens(split, job.shard_tokens)
            )
            for split in filling.splits(job.options, job.readings)
        }
        self._job = job
        self._seen = duplicates.Seen() if job.options.drop_duplicates else None
        self.dropped = {f.name: 0 for f in dataclasses.fields(manifests.Dropped)}

    def add(self, result: tokenize.Tokenised) -> None:
        """Appends the documents of a chunk to their splits."""
        fraction = self._job.options.held_out_fraction
        sorted_out = filling.sort(result, fraction, self._split_of(result))
        for split, (block, content) in sorted_out.items():
            if self._seen is not None:
                kept = self._seen.add(content)
                block = block.select(kept)
                self.dropped["duplicate_documents"] += int((~kept).sum())
            self._writers[split].append(block)
            unknown = filling.unknown_tokens(block, self._job.unk_id)
            self.dropped["unknown_tokens"] += unknown
        for name in tokenize.COUNTED:
            self.dropped[name] += getattr(result, name)

    def _split_of(self, result: tokenize.Tokenised) -> str:
        """Returns the split of the source of a chunk, "" where a hash decides."""
        found = result.block.sources[:1].tolist()
        return self._job.readings[found[0]].source.split if found else ""

    def close(self) -> list[manifests.ShardEntry]:
        """Writes the last shards and returns the entries of all."""
        return [entry for writer in self._writers.values() for entry in writer.close()]
