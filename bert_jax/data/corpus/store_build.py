"""Builds a store from sources and a tokenizer.

An engine reads the sources, tokenizes them in chunks (`tokenize`), sorts documents into
splits, drops duplicates and writes shards (`store`). `fill_locally` does so on this
machine, `contrib.beam` on many; the result is the same. `build` adds the checks, makes
the store appear whole and writes the manifest last.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64

from bert_jax import console, errors
from bert_jax.data import text_files
from bert_jax.data.corpus import parsing, readers, store, tokenize
from bert_jax.data.corpus import sources as sources_lib
from bert_jax.foundation import faults, files
from bert_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class StoreJob:
    """The task of an engine.

    Attributes:
      folder: the folder of the shards, with the tokenizer in it.
      readings: the sources, not read yet.
      unk_id: the id of unknown tokens.
      shard_tokens: a shard of training text ends with the document that reaches it.
    """

    folder: Path
    readings: tuple[readers.Reading, ...]
    options: store.StoreOptions
    unk_id: int
    shard_tokens: int

    @property
    def settings(self) -> tokenize.TokenizeSettings:
        """The settings of a worker."""
        options = self.options
        return tokenize.TokenizeSettings(
            self.folder, options.segmenter, options.segmenter_fallback
        )


@dataclass(frozen=True)
class StoreContent:
    """The result of an engine, for the manifest."""

    sources: tuple[store.SourceEntry, ...]
    dropped: store.Dropped
    shards: tuple[store.ShardEntry, ...]


Engine = Callable[[StoreJob], StoreContent]


class SplitDocuments(NamedTuple):
    """Documents of one split, and the hashes of their content."""

    block: store.Block
    content: UInt64[np.ndarray, " documents"]


def sort_into_splits(
    result: tokenize.TokenizedChunk, held_out_fraction: float, split: str = ""
) -> dict[str, SplitDocuments]:
    """Returns the documents of a chunk by split.

    `split` is the split of the chunk's source, "" where a hash decides.
    """
    block, content = result.block, result.content
    if split:
        return {split: SplitDocuments(block, content)}
    if held_out_fraction == 0:
        return {"train": SplitDocuments(block, content)}
    held_out = content < np.uint64(parsing.held_out_below(held_out_fraction))
    return {
        split: SplitDocuments(block.select(chosen), content[chosen])
        for split, chosen in (("train", ~held_out), ("heldout", held_out))
    }


def splits_of(
    options: store.StoreOptions, readings: Iterable[readers.Reading] = ()
) -> tuple[str, ...]:
    """Returns the splits of a store."""
    is_fixed = any(reading.source.split == "heldout" for reading in readings)
    is_held_out = options.held_out_fraction or is_fixed
    return store.SPLITS if is_held_out else ("train",)


def shard_tokens(split: str, train: int) -> int:
    """Returns the size of a shard of the split, given that of a training shard.

    Held-out text is short: smaller shards leave memory sooner, and the memory of a
    build peaks early.
    """
    return train if split == "train" else train // 32 + 1


def unknown_tokens(block: store.Block, unk_id: int) -> int:
    """Returns the number of unknown tokens."""
    return int((block.tokens == unk_id).sum())


def source_entry(
    reading: readers.Reading, files: tuple[text_files.FileEntry, ...], documents: int
) -> store.SourceEntry:
    """Returns the manifest entry of a source that was read completely."""
    source = reading.source
    return store.SourceEntry(
        source.recorded_kind, source.field, source.weight, files, documents
    )


def reuse(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source] | None,
    tokenizer: Tokenizer,
    options: store.StoreOptions,
) -> store.Manifest:
    """Returns the manifest of an existing store if it has these properties.

    The files of the corpus are compared by name and size and then by sha256, about a
    second per gigabyte; `sources=None` leaves the corpus out.

    Raises InputError with the differences, or if the text is not available.
    """
    manifest = store.read_manifest(folder)
    found = []
    if manifest.tokenizer != tokenizer.fingerprint:
        found.append("another tokenizer")
    for field in dataclasses.fields(options):
        then, now = (getattr(o, field.name) for o in (manifest.options, options))
        if then != now:
            found.append(f"{field.name} was {then!r} and is {now!r}")
    try:
        if sources is not None:
            found += _source_differences(manifest.sources, sources)
    except errors.InputError as error:
        raise errors.InputError(
            f"the store {folder} cannot be compared with the corpus: {error} To use "
            "it anyway, leave the corpus empty: --config.data.corpus="
        ) from None
    if found:
        raise errors.InputError(
            f"the store {folder} was built from something else: {'; '.join(found)}. "
            "Choose another data.store, or delete this one to build it again."
        )
    return manifest


def build(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source],
    tokenizer: Tokenizer,
    options: store.StoreOptions,
    workers: int | None = None,
    progress: bool = True,
    engine: Engine | None = None,
    shard_tokens: int = store.SHARD_TOKENS,
) -> store.Manifest:
    """Builds a store; the bytes do not depend on the engine or the number of workers.

    Args:
      folder: the folder of the store; it must not exist.
      workers: processes that tokenize on this machine; one per core by default.
      progress: whether to show a bar of the bytes read.
      engine: does the work instead of this machine.
      shard_tokens: a shard ends with the document that reaches this number of tokens,
        or a thirty-second of it in the held-out split.

    Raises:
      InputError: a source, an option or the folder is bad.
      StorageError: the disk failed or is full, or a worker died.
    """
    if workers is not None and workers < 1:
        raise errors.InputError(f"workers is {workers}. Give one or more.")
    readings = tuple(readers.Reading(source) for source in sources)
    if engine is None:
        engine = functools.partial(fill_locally, workers=workers, progress=progress)
    with files.building_folder(folder) as unfinished:
        tokenizer.save(unfinished)
        faults.point("store/tokenizer")
        job = StoreJob(unfinished, readings, options, tokenizer.unk_id, shard_tokens)
        filled = engine(job)
        if not filled.shards:
            raise errors.InputError(
                "the corpus has no text with tokens. Check data.corpus."
            )
        manifest = store.Manifest(
            format_version=store.FORMAT_VERSION,
            tokenizer=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            options=options,
            sources=filled.sources,
            dropped=filled.dropped,
            shards=filled.shards,
        )
        store.write_manifest(unfinished, manifest)
        faults.point("store/manifest")
    return manifest


def _source_differences(
    then: Sequence[store.SourceEntry], now: Sequence[sources_lib.Source]
) -> list[str]:
    """Returns the differences between the sources of a store and these."""
    if len(then) != len(now):
        return [f"the corpus had {len(then)} sources and has {len(now)}"]
    found = []
    for entry, source in zip(then, now, strict=True):
        name = f"{source.kind}:{source.where}"
        for key in ("kind", "field", "weight"):
            old = getattr(entry, key)
            new = source.recorded_kind if key == "kind" else getattr(source, key)
            if old != new:
                found.append(f"{key} of {name} was {old!r} and is {new!r}")
        if not found:
            found += _file_differences(entry.files, source)
    return found


def _file_differences(
    then: Sequence[text_files.FileEntry], source: sources_lib.Source
) -> list[str]:
    """Returns the differences in the files of one source; digests are compared last."""
    old = {entry.name: entry for entry in then}
    new = {entry.name: entry for entry in readers.file_entries(source, digests=False)}
    if old.keys() != new.keys():
        names = sorted(old.keys() ^ new.keys())
        return [f"files were added or removed: {', '.join(names[:5])}"]
    changed = [name for name in new if new[name].bytes != old[name].bytes]
    if not changed:
        entries = readers.file_entries(source)
        changed = [entry.name for entry in entries if entry != old[entry.name]]
    return [f"the text changed in {', '.join(changed[:5])}"] if changed else []


# Small enough for a worker's memory and for many cores to share a small corpus, large
# enough that communication costs nothing.
_CHUNK_CHARACTERS = 1 << 18


def fill_locally(
    job: StoreJob, *, workers: int | None = None, progress: bool = True
) -> StoreContent:
    """Fills a store on this machine, with one process per core by default.

    Memory is bounded: a few chunks of text, one shard per split, and eight bytes per
    document when duplicates are dropped.

    Raises InputError for a bad record, and StorageError if a process died.
    """
    filling = _Filling(job)
    counts = [0] * len(job.readings)
    total = sum(reading.total_bytes for reading in job.readings)
    with console.Bar(
        total, "bytes", "tokenizing", is_scaled=True, is_kept=True, is_shown=progress
    ) as bar:
        chunks = _chunks(job.readings, counts, bar)
        results = tokenize.tokenize_all(chunks, job.settings, workers or _cores())
        with contextlib.closing(results):
            for result in results:
                filling.add(result)
    entries = filling.close()
    return StoreContent(
        sources=tuple(
            source_entry(reading, reading.files, count)
            for reading, count in zip(job.readings, counts, strict=True)
        ),
        dropped=store.Dropped(**filling.dropped),
        shards=tuple(entries),
    )


def _cores() -> int:
    """Returns the number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    """Receives chunks in order, drops duplicates, writes shards and counts."""

    def __init__(self, job: StoreJob) -> None:
        self._writers = {
            split: store.SplitWriter(
                job.folder, split, shard_tokens(split, job.shard_tokens)
            )
            for split in splits_of(job.options, job.readings)
        }
        self._job = job
        self._seen = SeenHashes() if job.options.drop_duplicates else None
        self.dropped = {f.name: 0 for f in dataclasses.fields(store.Dropped)}

    def add(self, result: tokenize.TokenizedChunk) -> None:
        """Appends the documents of a chunk to their splits."""
        fraction = self._job.options.held_out_fraction
        source = result.block.sources[:1].tolist()
        split = self._job.readings[source[0]].source.split if source else ""
        sorted_out = sort_into_splits(result, fraction, split)
        for split, (block, content) in sorted_out.items():
            if self._seen is not None:
                kept = self._seen.add(content)
                block = block.select(kept)
                self.dropped["duplicate_documents"] += int((~kept).sum())
            self._writers[split].append(block)
            unknown = unknown_tokens(block, self._job.unk_id)
            self.dropped["unknown_tokens"] += unknown
        for name in tokenize.COUNTED:
            self.dropped[name] += getattr(result, name)

    def close(self) -> list[store.ShardEntry]:
        """Writes the last shards and returns the entries of all."""
        return [entry for writer in self._writers.values() for entry in writer.close()]


class SeenHashes:
    """A set of 64-bit content hashes at eight bytes each, for exact duplicates.

    Hashes are in sorted runs, each at least twice as long as the next.
    """

    def __init__(self) -> None:
        """Creates an empty set."""
        self._runs: list[np.ndarray] = []

    def add(self, hashes: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Adds hashes and returns which of them are new.

        >>> seen = SeenHashes()
        >>> seen.add(np.array([5, 3, 5], np.uint64)).tolist()
        [True, True, False]
        >>> seen.add(np.array([3, 4], np.uint64)).tolist()
        [False, True]
        """
        values, first = np.unique(hashes, return_index=True)
        new = np.ones(len(values), bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, values), len(run) - 1)
            new &= run[at] != values
        self._remember(values[new])
        mask = np.zeros(len(hashes), bool)
        mask[first[new]] = True
        return mask

    def _remember(self, values: UInt64[np.ndarray, " m"]) -> None:
        """Adds a sorted run and merges runs that are too short."""
        if len(values):
            self._runs.append(values)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            # Two sorted runs: the stable sort merges them in linear time, and in-place,
            # because the memory of these runs grows with the corpus.
            merged.sort(kind="stable")
            self._runs.append(merged)
