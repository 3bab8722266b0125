"""Fills a store on many machines that share a disk; the bytes are those of one machine.

Little runs here: names of chunks, lengths of documents and the plan of the shards. The
work is in `distributed_steps`, and a `StepRunner` distributes it.
"""

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from bert_jax import errors
from bert_jax.contrib.beam import distributed_steps, reports, scratch
from bert_jax.data.corpus import manifest as manifests
from bert_jax.data.corpus import sources, store_build
from bert_jax.foundation import faults

# Larger than on one machine, where chunks need no files.
_CHUNK_CHARACTERS = 1 << 22


@runtime_checkable
class StepRunner(Protocol):
    """Distributes the steps; each call returns when all of its work is done."""

    def tokenize(self, steps: distributed_steps.Steps) -> None:
        """Runs the steps from sources to blocks and duplicates; writes the report."""
        ...

    def write(self, steps: distributed_steps.Steps, count: int) -> None:
        """Writes the planned shards."""
        ...


def fill_distributed(
    job: store_build.StoreJob, *, runner: StepRunner
) -> store_build.StoreContent:
    """Fills a store in three passes: tokenize, plan the shards, write them.

    Raises InputError for the first bad record of the corpus, and StorageError if the
    runner failed or workers do not see the files of others.
    """
    with scratch.temporary(job.folder.absolute()) as folder:
        steps = distributed_steps.Steps(
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


def _plan(
    steps: distributed_steps.Steps, report: reports.BuildReport, shard_tokens: int
) -> int:
    """Writes the plan of each shard, and returns their number."""
    count, documents = 0, 0
    for split in store_build.splits_of(steps.options):
        names = distributed_steps.chunk_names(report)
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
            f"the disk at {steps.scratch.folder}. Put the store on a disk that all "
            "workers share under one name, and start again."
        )
    return count


def _filled(
    job: store_build.StoreJob,
    steps: distributed_steps.Steps,
    report: reports.BuildReport,
    count: int,
) -> store_build.StoreContent:
    """Moves the shards to the store and returns its content."""
    entries, unknown = [], 0
    for number in range(count):
        written = steps.scratch.read_json(f"shards/{number}.json")
        entries.append(manifests.ShardEntry(**written["entry"]))
        unknown += written["unknown_tokens"]
        name = entries[-1].name
        os.replace(steps.scratch.folder / "shards" / name, job.folder / name)
    dropped = reports.merge(
        [report, reports.BuildReport(dropped=manifests.Dropped(unknown_tokens=unknown))]
    ).dropped
    return store_build.StoreContent(
        sources=tuple(_source_entries(job, report.parts)),
        dropped=dropped,
        shards=tuple(entries),
    )


def _source_entries(
    job: store_build.StoreJob, parts: Sequence[reports.PartRead]
) -> Iterator[manifests.SourceEntry]:
    """Yields the manifest entry of every source."""
    for index, reading in enumerate(job.readings):
        own = [part for part in parts if part.name.startswith(f"{index:05d}-")]
        files = tuple(part.file for part in own)
        documents = sum(part.documents for part in own)
        yield store_build.source_entry(reading, files, documents)
