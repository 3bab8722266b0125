"""The tokenised corpus on disk, built: sources and a tokenizer become a store.

Text streams through in bounded memory: what is held is a few chunks of text, one
shard a split, and eight bytes for every document when duplicates are dropped.
"""

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm

from bert_jax import errors, faults
from bert_jax.data import corpus, duplicates, finished_folder, shards, tokenise
from bert_jax.data import manifest as manifests
from bert_jax.data import sources as sources_lib
from bert_jax.text import tokenizer as tokenizers
from bert_jax.text import words

# Small enough for a worker's memory and for many cores to share a small corpus, large
# enough that the pipe costs nothing.
_CHUNK_CHARACTERS = 1 << 18
_UNKNOWN_SHARE_WARNED = 0.05

_log = logging.getLogger(__name__)


def ensure(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source],
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
    workers: int | None = None,
    progress: bool = True,
) -> manifests.Manifest:
    """Reuses a store that is what `build` would make now, or builds it.

    Raises InputError naming what differs when another store is there.
    """
    if not (folder / manifests.NAME).exists():
        return build(
            folder,
            sources=sources,
            tokenizer=tokenizer,
            options=options,
            workers=workers,
            progress=progress,
        )
    return reuse(folder, sources=sources, tokenizer=tokenizer, options=options)


def reuse(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source] | None = None,
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
) -> manifests.Manifest:
    """Returns the manifest of a store that is there, if it is what is wanted.

    Without `sources` any text will do. Raises InputError naming what differs, and when
    the text of the store is not there to be compared.
    """
    manifest = manifests.read(folder)
    try:
        found = differences(
            folder, sources=sources, tokenizer=tokenizer, options=options
        )
    except errors.InputError as error:
        raise errors.InputError(
            f"the store {folder} cannot be compared with the corpus: {error} To take "
            "it as it is, leave the corpus empty: --config.data.corpus="
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
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
    workers: int | None = None,
    progress: bool = True,
    shard_tokens: int = shards.SHARD_TOKENS,
) -> manifests.Manifest:
    """Builds a store, byte for byte the same for any number of workers.

    Args:
      folder: where the store will be; it must not exist.
      workers: processes that tokenise; one for every core when left out.
      progress: whether to show a bar of the bytes read.
      shard_tokens: a shard ends with the document that reaches so many tokens, or
        an eighth of them when it is held out.

    Raises:
      InputError: a source, an option or the folder is bad.
      StorageError: the disk failed or is full, or a worker died.
    """
    check_options(options)
    if workers is not None and workers < 1:
        raise errors.InputError(f"workers is {workers}. Give one or more.")
    readings = [corpus.Reading(source) for source in sources]
    with finished_folder.building(folder) as unfinished:
        tokenizer.save(unfinished)
        faults.point("store/tokenizer")
        manifest = _fill(
            unfinished,
            readings,
            tokenizer,
            options,
            workers or _cores(),
            progress,
            shard_tokens,
        )
        shards.write_manifest(unfinished, manifest)
        faults.point("store/manifest")
    if manifest.unknown_share > _UNKNOWN_SHARE_WARNED:
        _log.warning(
            "%.1f %% of the tokens of %s are unknown to its vocabulary.",
            100 * manifest.unknown_share,
            folder,
        )
    return manifest


def check_options(options: manifests.Options) -> None:
    """Raises InputError for a value that means nothing."""
    if not 0 <= options.held_out_fraction < 1:
        raise errors.InputError(
            f"held_out_fraction is {options.held_out_fraction}. It is a share of the "
            "documents from 0 to less than 1."
        )
    if options.segmenter not in words.NAMES:
        raise errors.InputError(
            f"text.segmenter is {options.segmenter!r}. Choose one of "
            f"{', '.join(words.NAMES)}."
        )
    if options.segmenter_fallback not in ("none", "jieba"):
        raise errors.InputError(
            f"the segmenter of documents without words is "
            f"{options.segmenter_fallback!r}. Choose none or jieba."
        )


def differences(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source] | None,
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
) -> list[str]:
    """Returns what a store was built from otherwise, in words; [] when nothing.

    The files of the corpus are compared by name and size and then by sha256, about a
    second per gigabyte; `sources=None` leaves the corpus out.
    """
    manifest = manifests.read(folder)
    found = []
    if manifest.tokenizer != tokenizer.fingerprint:
        found.append("another tokenizer")
    for field in dataclasses.fields(options):
        then, now = (getattr(o, field.name) for o in (manifest.options, options))
        if then != now:
            found.append(f"{field.name} was {then!r} and is {now!r}")
    if sources is not None:
        found += _source_differences(manifest.sources, sources)
    return found


def _source_differences(
    then: Sequence[manifests.SourceEntry], now: Sequence[sources_lib.Source]
) -> list[str]:
    """Returns what differs between the sources of a store and those of today."""
    if len(then) != len(now):
        return [f"the corpus had {len(then)} sources and has {len(now)}"]
    found = []
    for entry, source in zip(then, now, strict=True):
        name = f"{source.kind}:{source.where}"
        for key in ("kind", "field", "weight"):
            if getattr(entry, key) != getattr(source, key):
                old, new = getattr(entry, key), getattr(source, key)
                found.append(f"{key} of {name} was {old!r} and is {new!r}")
        if not found:
            found += _file_differences(entry.files, source)
    return found


def _file_differences(
    then: Sequence[manifests.FileEntry], source: sources_lib.Source
) -> list[str]:
    """Returns what differs in the files of one source; digests come last."""
    old = {entry.name: entry for entry in then}
    new = {entry.name: entry for entry in corpus.file_entries(source, digests=False)}
    if old.keys() != new.keys():
        names = sorted(old.keys() ^ new.keys())
        return [f"files came or went: {', '.join(names[:5])}"]
    changed = [name for name in new if new[name].bytes != old[name].bytes]
    if not changed:
        entries = corpus.file_entries(source)
        changed = [entry.name for entry in entries if entry != old[entry.name]]
    return [f"other text in {', '.join(changed[:5])}"] if changed else []


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fill(
    folder: Path,
    readings: Sequence[corpus.Reading],
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
    workers: int,
    progress: bool,
    shard_tokens: int,
) -> manifests.Manifest:
    """Writes all shards and returns the manifest."""
    filling = _Filling(folder, options, tokenizer.unk_id, shard_tokens)
    settings = tokenise.Settings(folder, options.segmenter, options.segmenter_fallback)
    counts = [0] * len(readings)
    total = sum(reading.total_bytes for reading in readings)
    bar = tqdm.tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        desc="tokenise",
        disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else 10.0,  # a log is no terminal
    )
    chunks = _chunks(readings, counts, bar)
    with (
        bar,
        contextlib.closing(tokenise.tokenise_all(chunks, settings, workers)) as results,
    ):
        for result in results:
            filling.add(result)
    entries = filling.close()
    if not entries:
        raise errors.InputError(
            "the corpus has no text that gives a token. Check data.corpus."
        )
    return manifests.Manifest(
        format_version=manifests.FORMAT_VERSION,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        options=options,
        sources=tuple(map(_entry, readings, counts)),
        dropped=manifests.Dropped(**filling.dropped),
        shards=tuple(entries),
    )


def _entry(reading: corpus.Reading, documents: int) -> manifests.SourceEntry:
    """Returns what the manifest says of a source that was read to its end."""
    source = reading.source
    return manifests.SourceEntry(
        source.kind, source.field, source.weight, reading.files, documents
    )


def _chunks(
    readings: Sequence[corpus.Reading], counts: list[int], bar: tqdm.tqdm
) -> Iterator[tokenise.Chunk]:
    """Yields the records of every source in chunks; counts them and moves the bar."""
    done = 0
    for index, reading in enumerate(readings):
        records, size = [], 0
        for record in reading.records():
            records.append(record)
            size += len(record.text)
            if size >= _CHUNK_CHARACTERS:
                yield tokenise.Chunk(index, tuple(records))
                counts[index] += len(records)
                bar.update(done + reading.bytes_read - bar.n)
                records, size = [], 0
        yield tokenise.Chunk(index, tuple(records))
        counts[index] += len(records)
        done += reading.total_bytes
        bar.update(done - bar.n)


class _Filling:
    """Sorts tokenised documents into the splits and counts what is dropped."""

    def __init__(
        self, folder: Path, options: manifests.Options, unk_id: int, shard_tokens: int
    ) -> None:
        # What is held out is little: in smaller shards it does not sit in memory long,
        # and the peak of a build is reached early.
        sizes = {"train": shard_tokens, "heldout": shard_tokens // 32 + 1}
        self._writers = {
            split: shards.SplitWriter(folder, split, sizes[split])
            for split in manifests.SPLITS
        }
        self._seen = duplicates.Seen() if options.drop_duplicates else None
        self._below = np.uint64(corpus.held_out_below(options.held_out_fraction))
        self._unk_id = unk_id
        self.dropped = {f.name: 0 for f in dataclasses.fields(manifests.Dropped)}

    def add(self, result: tokenise.Tokenised) -> None:
        """Appends the documents of a chunk to their splits."""
        count = len(result.content)
        kept = (
            np.ones(count, bool) if not self._seen else self._seen.add(result.content)
        )
        held_out = result.content < self._below
        block = result.block.select(kept)
        self._writers["train"].append(block.select(~held_out[kept]))
        self._writers["heldout"].append(block.select(held_out[kept]))
        self.dropped["duplicate_documents"] += int(count - kept.sum())
        self.dropped["unknown_tokens"] += int((block.tokens == self._unk_id).sum())
        for name in ("empty_documents", "empty_sentences", "documents_without_words"):
            self.dropped[name] += getattr(result, name)

    def close(self) -> list[manifests.ShardEntry]:
        """Writes the last shards and returns the entries of all."""
        return [entry for writer in self._writers.values() for entry in writer.close()]
