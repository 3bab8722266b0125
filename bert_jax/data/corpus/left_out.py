"""Records that are left out: counted by kind, and the first of each kind remembered.

Readers yield a record that is broken with its error, so that the records after it keep
their numbers; whoever makes examples of records raises that error, or leaves the record
out and counts it.
"""

import contextlib
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path

from bert_jax import errors
from bert_jax.data import lines
from bert_jax.data.labeled import cell_values, example_request


class Notes(Counter[str]):
    """Counts of what was left out or changed, by kind.

    Attributes:
      first: kind -> the first record that was left out: where it is, and its error.
    """

    def __init__(self, given: Mapping[str, int] | None = None) -> None:
        """Begins with the counts that are given, and their first records."""
        super().__init__(given or {})
        self.first: dict[str, tuple[str, cell_values.BrokenRecord]] = {}
        if isinstance(given, Notes):
            self.first |= given.first


def leave_out(
    error: cell_values.BrokenRecord,
    where: str,
    request: example_request.Request,
    notes: Counter[str],
) -> None:
    """Counts a broken record that is left out.

    Raises:
      BrokenRecord: the request does not leave such records out.
    """
    if request.leaves_out:
        count(error, where, notes)
        return
    text = str(error)
    if "data.repair" not in text:
        text = f"{text} Or set data.repair, which leaves such records out."
    raise cell_values.BrokenRecord(text, error.kind) from None


def count(error: cell_values.BrokenRecord, where: str, notes: Counter[str]) -> None:
    """Counts a record that is left out, and remembers the first of its kind."""
    notes[error.kind] += 1
    if isinstance(notes, Notes):
        notes.first.setdefault(error.kind, (where, error))


def of_line(text: str, where: str) -> cell_values.BrokenRecord | None:
    """Returns why a line that is a text is left out, if it is."""
    if fault := lines.fault(text, where):
        return fault
    if cell_values.is_invisible(text):
        return cell_values.BrokenRecord(f"{where}: no text.", cell_values.EMPTY)
    return None


@contextlib.contextmanager
def in_one_document(path: Path) -> Generator[None, None, None]:
    """Adds to the error of a document that is read as a whole that it cannot be fixed.

    Raises:
      InputError: with its message, and this advice.
    """
    try:
        yield
    except errors.InputError as error:
        raise errors.InputError(
            f"{str(error).rstrip('.')}. {path.name} is one document, which data.repair "
            "cannot repair: correct it, or download or export it again."
        ) from None


def describe_all(path: str, notes: Counter[str]) -> str:
    """Returns why a file has no example left, or "" where nothing was left out."""
    if not isinstance(notes, Notes) or not notes.first:
        return ""
    kind, (_, error) = next(iter(notes.first.items()))
    advice = ""
    if kind == cell_values.NOT_UTF8 and Path(path).is_file():
        advice = f" {lines.encoding_advice(Path(path))}."
    return f"every record was left out. The first: {error}{advice}"
