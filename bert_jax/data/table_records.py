"""Records of tables: TSV, CSV, JSON lines, Parquet, and lines of a label and a text.

TSV has no quoting: a quote is a character as any other. CSV has, so its texts may have
line ends inside. Everything streams; a record knows the line that it begins in.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert_jax import errors, json_file
from bert_jax.data import (
    column_names,
    example_request,
    lines,
    parquet_file,
    sources,
)

Rows = Iterator[tuple[int, list[str]]]

RAGGED = "lines left out that have not all columns"


class Record(NamedTuple):
    """A record as it was read: where it is, and its cells by the name of the column.

    Where there is no header, columns are named by their number from "1".

    Attributes:
      header: where the names stand, if that is not where the record is.
    """

    where: str
    cells: dict[str, Any]
    header: str = ""


def tsv(
    file: sources.NamedPath, request: example_request.Request, notes: Counter[str]
) -> Iterator[Record]:
    """Yields the records of a file of columns that are parted by tabs."""
    return _named(_split_lines(file, "\t"), file, request, notes)


def comma_separated(
    file: sources.NamedPath, request: example_request.Request, notes: Counter[str]
) -> Iterator[Record]:
    """Yields the records of a CSV file, whose quoted cells may have line ends inside.

    Raises InputError for quotes that are not closed, or stand inside a cell.
    """
    return _named(_csv_rows(file), file, request, notes)


def label_and_text(file: sources.NamedPath) -> Iterator[Record]:
    """Yields the records of lines that are a label, one space, and the text."""
    for number, line in _filled_lines(file):
        label, _, text = line.partition(" ")
        yield Record(f"{file.path}:{number}", {"label": label, "text": text})


def json_lines(file: sources.NamedPath) -> Iterator[Record]:
    """Yields the records of a file of one JSON object a line."""
    for number, line in _filled_lines(file):
        where = f"{file.path}:{number}"
        yield Record(where, json_file.parse_object(line.encode(), where))


def parquet(file: sources.NamedPath) -> Iterator[Record]:
    """Yields the rows of a Parquet file, whose columns have names."""
    for number, cells in parquet_file.rows(file.path):
        yield Record(f"{file.path} row {number}", cells)


def _filled_lines(file: sources.NamedPath) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank; one of tabs alone has cells, so is not."""
    for number, line in lines.whole_lines(file, lines.Tally()):
        if line.strip() or "\t" in line:
            yield number, line


def _split_lines(file: sources.NamedPath, separator: str) -> Rows:
    for number, line in _filled_lines(file):
        yield number, line.split(separator)


def _csv_rows(file: sources.NamedPath) -> Rows:
    """Yields the rows of a CSV file with the line that each begins in."""
    csv.field_size_limit(lines.MAX_BYTES)
    whole = lines.whole_lines(file, lines.Tally())
    reader = csv.reader((f"{line}\n" for _, line in whole), strict=True)
    first = 1
    try:
        for row in reader:
            if row:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise errors.InputError(
            f"{file.path}:{first}: the row that begins here is no CSV ({error}). "
            "Close its quotes and double those inside a cell, or set data.format to "
            "tsv if tabs part its columns."
        ) from None


def _named(
    rows: Rows,
    file: sources.NamedPath,
    request: example_request.Request,
    notes: Counter[str],
) -> Iterator[Record]:
    """Gives the cells of rows their names, by the header or by their numbers."""
    opening = next(rows, None)
    if opening is None:
        return
    number, first = opening
    if column_names.is_header(first, request):
        header = f"{file.path}:{number}"
        names = _unique_names(first, header)
    else:
        header = ""
        names = [str(place) for place in range(1, len(first) + 1)]
        rows = itertools.chain([opening], rows)
    for at, cells in rows:
        if len(cells) != len(names):
            if request.leaves_out:
                notes[RAGGED] += 1
                continue
            raise errors.InputError(
                f"{file.path}:{at} has {_columns(len(cells))}, and line {number} has "
                f"{len(names)}. Every line needs the same: take the separator out of "
                "its texts, or mend or remove the line, or set data.repair, which "
                "leaves such lines out."
            )
        named = dict(zip(names, cells, strict=True))
        yield Record(f"{file.path}:{at}", named, header)


def _unique_names(cells: list[str], where: str) -> list[str]:
    """Returns the names of a header; a column without one is named by its number."""
    names = [cell.strip() or str(place) for place, cell in enumerate(cells, 1)]
    for name in names:
        if names.count(name) > 1:
            raise errors.InputError(
                f"{where}: two columns have the name {name!r}. Rename one of them, or "
                "remove the header and set data.header to false."
            )
    return names


def _columns(count: int) -> str:
    return f"{count} column{'s'[: count != 1]}"
