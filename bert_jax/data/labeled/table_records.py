"""Records of tables: their cells, their faults, and the counts of those left out.

Readers yield a broken record with its error, so that later records keep their numbers;
what turns records into examples raises that error, or leaves the record out and counts
it. Labels keep the spelling of the file; JSON numbers and booleans are spelled as in
JSON.
"""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.text import characters

EMPTY = "examples left out that have an empty text"
UNLABELED = "examples left out that have no label"
BROKEN = "examples left out that are broken"
NOT_UTF8 = "examples left out that have bytes that are not UTF-8"
NUL = "examples left out that have NUL characters"


Converted = TypeVar("Converted")


class BrokenRecord(errors.InputError):
    """A record that cannot be an example; the rest of its file may be readable.

    Attributes:
      kind: the description under which such records are counted.
    """

    def __init__(self, message: str, kind: str = BROKEN) -> None:
        super().__init__(message)
        self.kind = kind


class TableRecord(NamedTuple):
    """A record as read: its location, and its cells by column name.

    Where there is no header, columns are named by their number from "1".

    Attributes:
      header: the location of the column names, if not in the record.
      fault: why it cannot be an example; its cells may then be missing.
    """

    where: str
    cells: dict[str, Any]
    header: str = ""
    fault: BrokenRecord | None = None


class Notes(Counter[str]):
    """Counts of what was left out or changed, by kind.

    Attributes:
      first: kind -> location and error of the first record that was left out.
    """

    def __init__(self, given: Mapping[str, int] | None = None) -> None:
        """Begins with the counts that are given, and their first"""
        super().__init__(given or {})
        self.first: dict[str, tuple[str, BrokenRecord]] = {}
        if isinstance(given, Notes):
            self.first |= given.first


def leave_out(
    error: BrokenRecord, where: str, request: ExampleRequest, notes: Counter[str]
) -> None:
    """Counts a broken record as left out.

    Raises:
      BrokenRecord: the request does not leave such records out.
    """
    if request.leaves_out:
        count(error, where, notes)
        return
    raise BrokenRecord(
        f"{error} Or set {errors.setting('data.repair')}, which leaves such records "
        "out.",
        error.kind,
    ) from None


def converted(
    rows: Iterable[tuple[Any, ...]],
    convert: Callable[..., Converted],
    request: ExampleRequest,
    notes: Counter[str],
) -> Iterator[Converted]:
    """Yields what a function returns for each row, and leaves broken records out.

    Args:
      rows: the arguments of the function; the first of each is a record, with the
        attributes `where` and `fault`.

    Raises:
      BrokenRecord: the request does not leave such records out.
    """
    for record, *others in rows:
        try:
            if record.fault:
                raise record.fault
            result = convert(record, *others)
        except BrokenRecord as error:
            leave_out(error, record.where, request, notes)
        else:
            yield result


def count(error: BrokenRecord, where: str, notes: Counter[str]) -> None:
    """Counts a record as left out, and keeps the first of its kind."""
    notes[error.kind] += 1
    if isinstance(notes, Notes):
        notes.first.setdefault(error.kind, (where, error))


def of_line(text: str, where: str) -> BrokenRecord | None:
    """Returns why a line of text is left out, or None."""
    if fault := decoding_fault(text, where):
        return fault
    if is_invisible(text):
        return BrokenRecord(f"{where}: no text.", EMPTY)
    return None


_KEPT = re.compile("[\udc00\udc80-\udcff]")


def decoding_fault(text: str, where: str) -> BrokenRecord | None:
    """Returns the fault of a text that was decoded with `Faults.KEEP`, or None."""
    found = _KEPT.search(text)
    if found is None:
        return None
    byte = ord(found[0]) - ord(text_files.NUL)
    problem = f"byte 0x{byte:02x}, which is not UTF-8" if byte else "a NUL character"
    kind = NOT_UTF8 if byte else NUL
    return BrokenRecord(f"{where} has {problem}.", kind)


def describe_all(path: str, notes: Counter[str]) -> str:
    """Returns why a file has no example left, or "" where nothing was left out."""
    if not isinstance(notes, Notes) or not notes.first:
        return ""
    kind, (_, error) = next(iter(notes.first.items()))
    advice = ""
    if kind == NOT_UTF8 and Path(path).is_file():
        advice = f" {text_files.encoding_advice(Path(path))}."
    return f"every record was left out. The first: {error}{advice}"


def is_invisible(value: str) -> bool:
    """Returns whether a text has no character that a tokenizer keeps, as only U+200B.

    >>> is_invisible(" \\u200b\\ufeff"), is_invisible("a")
    (True, False)
    """
    return not value.strip() or not characters.dropped_pattern().sub("", value[:4096])


def text(value: Any, column: str, where: str, *, may_be_empty: bool = False) -> str:
    """Returns the text of a cell unchanged; a list of texts is joined by spaces.

    Raises BrokenRecord for a text that is invisible (unless it `may_be_empty`; then a
    missing one is empty too), a value of another type, or invalid Unicode.
    """
    if value is None and may_be_empty:
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise BrokenRecord(
            f"{where}: {column!r} is {_shown(value)}, which is not a text. Fix or "
            "remove the record, or name another column: "
            f"{errors.setting('data.columns.text', 'NAME')}."
        )
    if is_invisible(value) and not may_be_empty:
        raise BrokenRecord(
            f"{where}: the text in {column!r} is empty. Fill it, or remove the record.",
            EMPTY,
        )
    check_unicode(value, where)
    return value


def check_unicode(value: str, where: str) -> None:
    """Raises InputError for half of a surrogate pair, which JSON can spell."""
    if value.isascii():
        return
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # Readers that leave records out keep NUL and such bytes as these surrogates.
        char = value[error.start]
        kind = NUL if char == "\udc00" else BROKEN
        problem = (
            f"character {error.start} of {value[:20]!a}... is half of a surrogate "
            "pair, which is not a character"
        )
        if "\udc80" <= char <= "\udcff":
            kind = NOT_UTF8
            problem += f", or 0x{ord(char) - 0xDC00:02x} in a value that is not UTF-8"
        message = f"{where}: {problem}. Fix or remove the record."
        raise BrokenRecord(message, kind) from None


def label(value: Any, where: str) -> str | None:
    """Returns a label without surrounding white space, or None without one.

    A list of one label, also spelled as a text, is that label.
    """
    several = as_list(value, where)
    if several is not None:
        if len(several) == 1 and not isinstance(several[0], list | dict):
            return label(several[0], where)
        raise BrokenRecord(
            f"{where}: the label is the list {_shown(value)}. Train "
            "with data.multi_label=true where an example may have several labels, or "
            f"name another column: {errors.setting('data.columns.label', 'NAME')}."
        )
    if value is None:
        return None
    if isinstance(value, dict):
        raise BrokenRecord(
            f"{where}: the label is {_shown(value)}, which is not a name. Name another "
            f"column: {errors.setting('data.columns.label', 'NAME')}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise BrokenRecord(
            f"{where}: the label is {value}, which is not a name. Fix or remove the "
            "record."
        )
    spelled = value if isinstance(value, str) else json.dumps(value)
    check_unicode(spelled, where)
    return spelled.strip() or None


def as_list(value: Any, where: str) -> list[Any] | None:
    """Returns the list in a cell, also spelled as a text, as pandas does; else None.

    It is JSON, or a list, tuple, set or array as printed by Python or NumPy.

    Raises:
      InputError: a text in brackets has commas, but is not such a list.

    >>> as_list("['a', 'b']", ""), as_list("[0 1 1]", ""), as_list("[sic]", "")
    (['a', 'b'], [0, 1, 1], None)
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip()
    if len(text) > _LONGEST_LIST or _BRACKETED.fullmatch(text) is None:
        return None
    is_quoted = "'" in text or '"' in text
    spaced = (_SPACED_TEXTS if is_quoted else _SPACED_NUMBERS).sub(", ", text)
    for spelled in (spaced, text):
        try:
            found = ast.literal_eval(_JSON_NAMES.sub(_as_python, spelled))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | tuple | set):
            return sorted(found, key=str) if isinstance(found, set) else list(found)
    if text[0] == "[" and "," in text:
        raise BrokenRecord(
            f"{where}: {_shown(value)} looks like a list of labels, but is not spelled "
            'as one. Put quotes around each: ["a", "b"].'
        )
    return None


_LONGEST_LIST = 1 << 16
_BRACKETED = re.compile(r"\[.*\]|[{(](?=.*['\"]).*[})]", re.DOTALL)
# White space between the items of an array of NumPy.
_SPACED_TEXTS = re.compile(r"(?<=['\"])\s+(?=['\"])")
_SPACED_NUMBERS = re.compile(r"(?<=[\d.])\s+(?=[-\d.])")
_JSON_NAMES = re.compile(r"\b(?:null|true|false)\b(?=\s*[,\]])")


def _as_python(name: re.Match[str]) -> str:
    return {"null": "None", "true": "True", "false": "False"}[name[0]]


def labels(value: Any, separator: str, where: str) -> tuple[str, ...] | None:
    """Returns the labels of a cell, or None without any.

    An empty list or text is an example without any of the labels.

    Args:
      value: a label, a list of labels, or a text that spells a list or has labels
        with a separator between them.
      separator: between the labels of a text; `LISTS` where only lists have several,
        and "" for a single label.

    Raises:
      InputError: a label is empty or a duplicate, or a text seems to have several
        labels and no separator is given.
    """
    if not separator or value is None:
        single = label(value, where)
        return None if single is None else (single,)
    parts = as_list(value, where)
    if parts is None and isinstance(value, str):
        parts = _cut(value, separator, where) if value.strip() else []
    parts = [value] if parts is None else parts
    if is_indicator(parts) and len(set(parts)) < len(parts):
        parts = [number for number, flag in enumerate(parts) if flag]
    if any(isinstance(each, list | dict) for each in parts):
        raise BrokenRecord(
            f"{where}: the labels {_shown(value)} include a list, which is not a name. "
            "Fix the record."
        )
    found = [label(each, where) for each in parts]
    several = tuple(each for each in found if each is not None)
    if len(several) < len(found) or len(set(several)) < len(several):
        raise BrokenRecord(
            f"{where}: the labels {_shown(value)} include an empty or duplicate one. "
            "Fix the record."
        )
    return several


def _cut(value: str, separator: str, where: str) -> list[str]:
    """Returns the labels of a text, split at the separator."""
    if separator.lower() != LISTS:
        return value.split(separator)
    marks = [mark for mark in _SEPARATORS if mark in value]
    if marks:
        raise BrokenRecord(
            f"{where}: the labels {_shown(value)} are not a list, but data.multi_label "
            f"is true. Name what separates them, as in data.multi_label={marks[0]!r}."
        )
    return [value]


LISTS = "true"  # of data.multi_label: the labels of an example are a list
_SEPARATORS = ("|", ",", ";")


def is_indicator(value: Any) -> bool:
    """Returns whether a value is a list of two or more 0 and 1.

    >>> is_indicator([0, 1, 1]), is_indicator([1, 2]), is_indicator([1])
    (True, False, False)
    """
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(x, int | float) and x in (0, 1) for x in value)
    )


def flags(cells: Mapping[str, Any], columns: Sequence[str], where: str) -> Any:
    """Returns the labels of a record with one column per label.

    None where a column is empty or -1, as in a test set with hidden labels.

    Raises:
      InputError: a cell is neither 0 nor 1, true nor false.
    """
    found = []
    for name in columns:
        spelled = str(cells[name]).strip().lower()
        if cells[name] is None or spelled in ("", "-1", "-1.0"):
            return None
        if spelled not in _FLAGS:
            raise BrokenRecord(
                f"{where}: the column {name!r} is {_shown(cells[name])}, and as one of "
                "several columns of labels it must be 0 or 1. Fix the record, or name "
                f"other columns: {errors.setting('data.columns.label', 'NAMES')}."
            )
        if _FLAGS[spelled]:
            found.append(name)
    return tuple(found)


_FLAGS: dict[str, bool] = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
    **dict.fromkeys(("0", "0.0", "false", "no"), False),
}


def score(value: Any, where: str) -> float | None:
    """Returns the number of a cell, or None without one.

    Raises InputError for anything but a finite number.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = math.nan
    is_spelled = isinstance(value, str) and "_" not in value
    if is_spelled or (isinstance(value, int | float) and not isinstance(value, bool)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
    if not math.isfinite(number):
        raise BrokenRecord(
            f"{where}: the score is {_shown(value)}, which is not a finite number. Fix "
            "or remove the record, or name another column: "
            f"{errors.setting('data.columns.score', 'NAME')}."
        )
    return number


def _shown(value: Any) -> str:
    """Returns the beginning of a value for a message."""
    written = value
    if not isinstance(value, float):
        written = json.dumps(value, default=str, ensure_ascii=False)
    short = str(written)
    return short if len(short) <= 60 else f"{short[:57]}..."
