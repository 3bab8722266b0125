"""Reports of the workers of a distributed build, merged in any order."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.corpus import manifest as manifests


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
    dropped: manifests.Dropped = manifests.Dropped()
    failure: Failure | None = None


def failure(chunk: str, error: errors.BertJaxError) -> Failure:
    """Returns the report of an error."""
    return Failure(chunk, type(error).__name__, str(error))


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
        for field in fields(manifests.Dropped)
    }
    return BuildReport(
        parts=tuple(sorted(part for report in found for part in report.parts)),
        dropped=manifests.Dropped(**counts),
        failure=min((r.failure for r in found if r.failure), default=None),
    )


def raise_failure(report: BuildReport) -> None:
    """Raises the first failure in the order of the corpus, if any."""
    if report.failure is not None:
        raise getattr(errors, report.failure.kind)(report.failure.message)


def to_json(report: BuildReport) -> dict[str, Any]:
    """Returns the report as a JSON value."""
    parts = [[*part[:3], asdict(part.file)] for part in report.parts]
    return {
        "parts": parts,
        "dropped": asdict(report.dropped),
        "failure": report.failure,
    }


def from_json(value: dict[str, Any]) -> BuildReport:
    """Returns the report of a value of `to_json`."""
    return BuildReport(
        parts=tuple(
            PartRead(*part, file=text_files.FileEntry(**file))
            for *part, file in value["parts"]
        ),
        dropped=manifests.Dropped(**value["dropped"]),
        failure=value["failure"] and Failure(*value["failure"]),
    )
