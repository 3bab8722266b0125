"""The steps of a distributed build, as plain functions that run in workers.

1. `parts`, `chunks`: sources become files, and files chunks of records.
2. `tokenize`: a chunk becomes one block per split; its hashes go to 256 buckets by
   their first bits, where `repeats` finds duplicates in the order of the corpus, and
   `note_repeats` writes them next to their block.
3. `plan`, on the machine of the build: lengths of documents become bounds of shards.
4. `write`: a shard is assembled from its blocks and written.

Names, counts and hashes are passed between steps; tokens stay on disk (`scratch`).
Names sort in the order of the corpus. The steps do not depend on the runner.
"""

import dataclasses
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from bert_jax import errors
from bert_jax.contrib.beam import reports, scratch
from bert_jax.data import text_files
from bert_jax.data.corpus import manifest as manifests
from bert_jax.data.corpus import readers, sources, store, store_build, tokenize

_BUCKET_BITS = np.uint64(64 - 8)
_BLOCK = tuple(field.name for field in dataclasses.fields(store.Block))
_DOCUMENT_TOKENS = "document_tokens"


class SourcePart(NamedTuple):
    """The part of a source that one worker reads: a file, or all of it."""

    source: int
    number: int
    file: text_files.NamedPath | None

    @property
    def name(self) -> str:
        """The prefix of the names of its chunks."""
        return f"{self.source:05d}-{self.number:08d}"


class NamedChunk(NamedTuple):
    """Records that are tokenized together, and the name of their block."""

    name: str
    chunk: tokenize.Chunk


class Hashes(NamedTuple):
    """The content hashes of some documents of a block, and their numbers in it."""

    block: str
    numbers: Int64[np.ndarray, " documents"]
    content: UInt64[np.ndarray, " documents"]


class DocumentSpan(NamedTuple):
    """Documents [first, last) of a block without its duplicates."""

    block: str
    has_repeats: bool
    first: int
    last: int


@dataclass(frozen=True)
class Steps:
    """The steps, with what every worker needs."""

    scratch: scratch.Scratch
    sources: tuple[sources.Source, ...]
    settings: tokenize.TokenizeSettings
    options: manifests.StoreOptions
    unk_id: int
    chunk_characters: int

    def parts(self, source: int) -> Iterator[SourcePart | reports.BuildReport]:
        """Yields the parts of a source, or a report of why it cannot be read."""
        try:
            found = readers.parts(self.sources[source])
        except errors.InputError as error:
            seen = f"the worker on {socket.gethostname()} finds that {error} Workers "
            fix = "must see the corpus under the name that it has here."
            again = errors.InputError(seen + fix)
            yield reports.BuildReport(failure=reports.failure(f"{source:05d}", again))
            return
        for number, file in enumerate(found):
            yield SourcePart(source, number, file)

    def chunks(self, part: SourcePart) -> Iterator[NamedChunk | reports.BuildReport]:
        """Yields the chunks of a part, and a report of what was read or failed."""
        reading, count, documents = None, 0, 0
        try:
            reading = readers.Reading(self.sources[part.source], part.file)
            for records in readers.runs(reading.records(), self.chunk_characters):
                chunk = tokenize.Chunk(part.source, records)
                yield NamedChunk(_chunk_name(part.name, count), chunk)
                count += 1
                documents += len(records)
        except errors.InputError as error:
            failed = reports.failure(_chunk_name(part.name, count), error)
            yield reports.BuildReport(failure=failed)
            return
        read = reports.PartRead(part.name, count, documents, reading.files[0])
        yield reports.BuildReport(parts=(read,))

    def tokenize(
        self, named: NamedChunk
    ) -> Iterator[tuple[int, Hashes] | reports.BuildReport]:
        """Writes the blocks of a chunk; yields hashes by bucket, and the counts."""
        self.scratch.check()
        try:
            result = tokenize.worker_tokenizer(self.settings).tokenize(named.chunk)
        except errors.InputError as error:
            yield reports.BuildReport(failure=reports.failure(named.name, error))
            return
        fraction = self.options.held_out_fraction
        for split, (block, content) in store_build.sort_into_splits(
            result, fraction
        ).items():
            name = f"{split}-{named.name}"
            self._write_block(name, block)
            if self.options.drop_duplicates:
                yield from _in_buckets(name, content)
        counts = {name: getattr(result, name) for name in tokenize.COUNTED}
        yield reports.BuildReport(dropped=manifests.Dropped(**counts))

    def note_repeats(
        self, block: str, found: Iterable[np.ndarray]
    ) -> reports.BuildReport:
        """Writes which documents of a block are duplicates, and returns their count."""
        numbers = np.sort(np.concatenate(list(found)))
        self.scratch.write_arrays(f"repeats/{block}", numbers=numbers)
        return reports.BuildReport(
            dropped=manifests.Dropped(duplicate_documents=len(numbers))
        )

    def note_report(self, report: reports.BuildReport) -> None:
        """Writes the report of all steps so far."""
        self.scratch.write_json("report", reports.to_json(report))

    def report(self) -> reports.BuildReport:
        """Returns the written report; raises the failure in it."""
        report = reports.from_json(self.scratch.read_json("report"))
        reports.raise_failure(report)
        return report

    def plan(
        self, split: str, names: Iterable[str], shard_tokens: int
    ) -> Iterator[list[DocumentSpan]]:
        """Yields the content of every shard of a split, given all chunk names."""
        cutter = store.Cutter(store_build.shard_tokens(split, shard_tokens))
        repeats = set(os.listdir(self.scratch.folder / "repeats"))
        spans: list[DocumentSpan] = []
        for name in (f"{split}-{name}" for name in names):
            (tokens,) = self.scratch.read_arrays(f"blocks/{name}", _DOCUMENT_TOKENS)
            has_repeats = name in repeats
            kept = tokens[self._kept(name, has_repeats, len(tokens))]
            first = 0
            for last in cutter.ends(kept):
                yield [*spans, DocumentSpan(name, has_repeats, first, last)]
                spans, first = [], last
            if first < len(kept):
                spans.append(DocumentSpan(name, has_repeats, first, len(kept)))
        if spans:
            yield spans

    def write(self, number: int) -> None:
        """Writes the shard with this number in the plan, and its entry."""
        self.scratch.check()
        planned = self.scratch.read_json(f"plan/{number}")
        spans = (DocumentSpan(*span) for span in planned["spans"])
        block = store.concatenate([self._gather(span) for span in spans])
        with self.scratch.appearing_folder("shards") as folder:
            split, index = planned["split"], planned["index"]
            entry = store.write_shard(folder, split, index, block)
        unknown = store_build.unknown_tokens(block, self.unk_id)
        written = {"entry": dataclasses.asdict(entry), "unknown_tokens": unknown}
        self.scratch.write_json(f"shards/{number}.json", written)

    def _write_block(self, name: str, block: store.Block) -> None:
        arrays = {key: getattr(block, key) for key in _BLOCK}
        arrays[_DOCUMENT_TOKENS] = block.document_tokens()
        self.scratch.write_arrays(f"blocks/{name}", **arrays)

    def _gather(self, span: DocumentSpan) -> store.Block:
        """Returns the documents of a span."""
        name = f"blocks/{span.block}"
        block = store.Block(*self.scratch.read_arrays(name, *_BLOCK))
        count = len(block.document_lengths)
        kept = block.select(self._kept(span.block, span.has_repeats, count))
        return kept.cut(span.last)[0].cut(span.first)[1]

    def _kept(self, block: str, has_repeats: bool, count: int) -> np.ndarray:
        """Returns which documents of a block are not duplicates."""
        kept = np.ones(count, bool)
        if has_repeats:
            (numbers,) = self.scratch.read_arrays(f"repeats/{block}", "numbers")
            kept[numbers] = False
        return kept


def chunk_names(report: reports.BuildReport) -> Iterator[str]:
    """Yields the names of all chunks in the order of the corpus."""
    for part in report.parts:
        for number in range(part.chunks):
            yield _chunk_name(part.name, number)


def repeats(found: Iterable[Hashes]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the numbers of the duplicates of one bucket, by block."""
    seen = store_build.SeenHashes()
    for block, numbers, content in sorted(found, key=lambda hashes: hashes.block):
        again = numbers[~seen.add(content)]
        if len(again):
            yield block, again


def _chunk_name(part: str, number: int) -> str:
    return f"{part}-{number:08d}"


def _in_buckets(
    block: str, content: UInt64[np.ndarray, " documents"]
) -> Iterator[tuple[int, Hashes]]:
    """Yields hashes by their first bits."""
    bucket = content >> _BUCKET_BITS
    for number in np.unique(bucket):
        (numbers,) = np.nonzero(bucket == number)
        yield int(number), Hashes(block, numbers, content[numbers])
