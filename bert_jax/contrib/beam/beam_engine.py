"""Fills a store on many machines that share a disk; the bytes are those of one machine.

A `StepRunner` distributes the steps, which are plain functions that run in workers:

1. `parts`, `chunks`: sources become files, and files chunks of records.
2. `tokenize`: a chunk becomes one block per split; its hashes go to 256 buckets by
   their first bits, where `repeats` finds duplicates in the order of the corpus, and
   `note_repeats` writes them next to their block.
3. `plan`, on the machine of the build: lengths of documents become bounds of shards.
4. `write`: a shard is assembled from its blocks and written.

Names, counts and hashes are passed between steps; tokens stay on disk (`Scratch`).
Names sort in the order of the corpus.
"""

import contextlib
import dataclasses
import glob
import json
import os
import secrets
import shutil
import socket
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt64

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.corpus import readers, sources, store, store_build, tokenize
from bert_jax.foundation import faults

_FOLDERS = ("blocks", "repeats", "plan", "shards")
_SHARE = "Put the store on a disk that all workers share under one name."


@dataclass(frozen=True)
class Scratch:
    """Intermediate files of a build; names are like "blocks/train-00000-00000003".

    Files are written atomically, and a step that runs twice writes the same file again.
    Every build has its own folder, which workers do not create, so a worker that
    outlives its build cannot write.
    """

    folder: Path

    def check(self) -> None:
        """Raises StorageError if this machine does not see the folder."""
        if not self.folder.is_dir():
            raise errors.StorageError(
                f"the worker on {socket.gethostname()} does not see {self.folder}. "
                f"{_SHARE}"
            )

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Writes arrays by name."""
        with self._appearing(name) as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def read_arrays(self, name: str, *keys: str) -> list[np.ndarray]:
        """Reads some of the arrays; raises StorageError if they do not exist."""
        try:
            with np.load(self.folder / name, allow_pickle=False) as arrays:
                return [arrays[key] for key in keys]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _unreadable(self.folder / name, error) from None

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON value."""
        with self._appearing(name) as file:
            file.write(json.dumps(value).encode())

    def read_json(self, name: str) -> Any:
        """Reads a JSON value; raises StorageError if it does not exist."""
        try:
            return json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise _unreadable(self.folder / name, error) from None

    @contextlib.contextmanager
    def appearing_folder(self, name: str) -> Iterator[Path]:
        """Yields a folder whose files move to the folder of this name at the end."""
        attempt = self.folder / name / f"{secrets.token_hex(8)}.part"
        attempt.mkdir()
        yield attempt
        for path in attempt.iterdir():
            os.replace(path, self.folder / name / path.name)
        attempt.rmdir()

    @contextlib.contextmanager
    def _appearing(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file that gets its name when it is complete."""
        path = self.folder / name
        attempt = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        with open(attempt, "wb") as file:
            yield file
        os.replace(attempt, path)


@contextlib.contextmanager
def temporary_scratch(folder: Path) -> Iterator[Scratch]:
    """Creates a scratch folder inside a folder, and removes it at the end."""
    scratch = folder / f"scratch-{secrets.token_hex(8)}"
    for name in _FOLDERS:
        (scratch / name).mkdir(parents=True)
    try:
        yield Scratch(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unreadable(path: Path, error: Exception) -> errors.StorageError:
    """Returns the error for a missing file of another worker."""
    return errors.StorageError(
        f"{path}, which another worker wrote, cannot be read ({error}). {_SHARE}"
    )


class PartRead(NamedTuple):
    """A part of a source that was read completely; names sort in corpus order."""

    name: str
    chunks: int
    documents: int
    file: text_files.FileEntry


class Failure(NamedTuple):
    """An error in the corpus, and the name of its chunk."""

    chunk: str
    kind: str
    message: str


@dataclass(frozen=True)
class BuildReport:
    """Parts in the order of the corpus, counts, and the first failure."""

    parts: tuple[PartRead, ...] = ()
    dropped: store.Dropped = store.Dropped()
    failure: Failure | None = None


def failure(chunk: str, error: errors.BertJaxError) -> BuildReport:
    """Returns the report of an error."""
    return BuildReport(failure=Failure(chunk, type(error).__name__, str(error)))


def merge(several: Iterable[BuildReport]) -> BuildReport:
    """Merges reports in any order.

    >>> b, a = Failure("b", "InputError", "2"), Failure("a", "InputError", "1")
    >>> reports = [BuildReport(failure=b), BuildReport(failure=a), BuildReport()]
    >>> merge(reports).failure.message
    '1'
    """
    found = list(several)
    counts = {
        field.name: sum(getattr(report.dropped, field.name) for report in found)
        for field in fields(store.Dropped)
    }
    return BuildReport(
        parts=tuple(sorted(part for report in found for part in report.parts)),
        dropped=store.Dropped(**counts),
        failure=min((r.failure for r in found if r.failure), default=None),
    )


def from_json(value: dict[str, Any]) -> BuildReport:
    """Returns the report of a JSON value, as `dataclasses.asdict` gives it."""
    return BuildReport(
        parts=tuple(
            PartRead(*part, file=text_files.FileEntry(**file))
            for *part, file in value["parts"]
        ),
        dropped=store.Dropped(**value["dropped"]),
        failure=value["failure"] and Failure(*value["failure"]),
    )


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

    scratch: Scratch
    sources: tuple[sources.Source, ...]
    settings: tokenize.TokenizeSettings
    options: store.StoreOptions
    unk_id: int
    chunk_characters: int

    def parts(self, source: int) -> Iterator[SourcePart | BuildReport]:
        """Yields the parts of a source, or a report of why it cannot be read."""
        try:
            found = readers.parts(self.sources[source])
        except errors.InputError as error:
            again = errors.InputError(
                f"the worker on {socket.gethostname()} finds that {error} Workers must "
                "see the corpus under the name that it has here."
            )
            yield failure(f"{source:05d}", again)
            return
        for number, file in enumerate(found):
            yield SourcePart(source, number, file)

    def chunks(self, part: SourcePart) -> Iterator[NamedChunk | BuildReport]:
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
            yield failure(_chunk_name(part.name, count), error)
            return
        read = PartRead(part.name, count, documents, reading.files[0])
        yield BuildReport(parts=(read,))

    def tokenize(self, named: NamedChunk) -> Iterator[tuple[int, Hashes] | BuildReport]:
        """Writes the blocks of a chunk; yields hashes by bucket, and the counts."""
        self.scratch.check()
        try:
            result = tokenize.worker_tokenizer(self.settings).tokenize(named.chunk)
        except errors.InputError as error:
            yield failure(named.name, error)
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
        yield BuildReport(dropped=store.Dropped(**counts))

    def note_repeats(self, block: str, found: Iterable[np.ndarray]) -> BuildReport:
        """Writes which documents of a block are duplicates, and returns their count."""
        numbers = np.sort(np.concatenate(list(found)))
        self.scratch.write_arrays(f"repeats/{block}", numbers=numbers)
        return BuildReport(dropped=store.Dropped(duplicate_documents=len(numbers)))

    def note_report(self, report: BuildReport) -> None:
        """Writes the report of all steps so far."""
        self.scratch.write_json("report", dataclasses.asdict(report))

    def report(self) -> BuildReport:
        """Returns the written report; raises the failure in it."""
        report = from_json(self.scratch.read_json("report"))
        if report.failure is not None:
            raise getattr(errors, report.failure.kind)(report.failure.message)
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


def chunk_names(report: BuildReport) -> Iterator[str]:
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


# Larger than on one machine, where chunks need no files.
_CHUNK_CHARACTERS = 1 << 22


@runtime_checkable
class StepRunner(Protocol):
    """Distributes the steps; each call returns when all of its work is done."""

    def tokenize(self, steps: Steps) -> None:
        """Runs the steps from sources to blocks and duplicates; writes the report."""
        ...

    def write(self, steps: Steps, count: int) -> None:
        """Writes the planned shards."""
        ...


def fill_distributed(
    job: store_build.StoreJob, *, runner: StepRunner
) -> store_build.StoreContent:
    """Fills a store in three passes: tokenize, plan the shards, write them.

    Raises InputError for the first bad record of the corpus, and StorageError if the
    runner failed or workers do not see the files of others.
    """
    with temporary_scratch(job.folder.absolute()) as folder:
        steps = Steps(
            scratch=folder,
            sources=tuple(_absolute(reading.source) for reading in job.readings),
            settings=dataclasses.replace(job.settings, tokenizer=job.folder.absolute()),
            options=job.options,
            unk_id=job.unk_id,
            chunk_characters=_CHUNK_CHARACTERS,
        )
        runner.tokenize(steps)
        faults.point("beam/tokenized")
        report = steps.report()
        count = _plan(steps, report, job.shard_tokens)
        faults.point("beam/planned")
        if count:
            runner.write(steps, count)
        faults.point("beam/written")
        return _filled(job, steps, report, count)


def _absolute(source: sources.Source) -> sources.Source:
    """Returns the source with absolute paths, for workers in other folders."""
    here = os.getcwd()
    if source.kind not in sources.FILE_KINDS or glob.has_magic(here):
        return source
    return dataclasses.replace(source, where=os.path.join(here, source.where))


def _plan(steps: Steps, report: BuildReport, shard_tokens: int) -> int:
    """Writes the plan of each shard, and returns their number."""
    count, documents = 0, 0
    for split in store_build.splits_of(steps.options):
        names = chunk_names(report)
        for index, spans in enumerate(steps.plan(split, names, shard_tokens)):
            planned = {"split": split, "index": index, "spans": spans}
            steps.scratch.write_json(f"plan/{count}", planned)
            documents += sum(span.last - span.first for span in spans)
            count += 1
    read = sum(part.documents for part in report.parts)
    dropped = report.dropped.empty_documents + report.dropped.duplicate_documents
    if documents != read - dropped:
        raise errors.StorageError(
            f"the workers report {read - dropped} documents, and {documents} are on "
            f"the disk at {steps.scratch.folder}. {_SHARE}"
        )
    return count


def _filled(
    job: store_build.StoreJob,
    steps: Steps,
    report: BuildReport,
    count: int,
) -> store_build.StoreContent:
    """Moves the shards to the store and returns its content."""
    entries, unknown = [], 0
    for number in range(count):
        written = steps.scratch.read_json(f"shards/{number}.json")
        entries.append(store.ShardEntry(**written["entry"]))
        unknown += written["unknown_tokens"]
        name = entries[-1].name
        os.replace(steps.scratch.folder / "shards" / name, job.folder / name)
    entries_of_sources = []
    for index, reading in enumerate(job.readings):
        own = [part for part in report.parts if part.name.startswith(f"{index:05d}-")]
        files = tuple(part.file for part in own)
        documents = sum(part.documents for part in own)
        entries_of_sources.append(store_build.source_entry(reading, files, documents))
    return store_build.StoreContent(
        sources=tuple(entries_of_sources),
        dropped=dataclasses.replace(report.dropped, unknown_tokens=unknown),
        shards=tuple(entries),
    )
