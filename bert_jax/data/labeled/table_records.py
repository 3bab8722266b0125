"""Records of tables: TSV, CSV, JSON, Parquet, Excel, and lines of a label and a text.

TSV has no quoting: a quote is a character as any other. CSV has, so its texts may have
line ends inside; its columns are separated by commas, semicolons, tabs or bars. All but
JSON arrays and workbooks stream; a record knows the line that it begins in.
"""

import csv
import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert_jax import errors, json_file
from bert_jax.data import file_content, lines, parquet_file
from bert_jax.data.corpus import left_out, sources
from bert_jax.data.labeled import (
    cell_values,
    column_names,
    example_request,
    workbook_file,
)

Rows = Iterator[tuple[int, list[str]]]

QUOTED = "rows whose cells are quoted, separated by {}"
_EXCEL_SEPARATOR = re.compile(r"sep=[,;|\t]", re.I)
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars"}
RAGGED = "lines left out that have not all columns"
WITH_HEADERS = ("tsv", "csv", "xlsx")  # formats whose first line may be a header
_PEEKED = 20  # rows that show whether a single usual name is a header's


class Record(NamedTuple):
    """A record as it was read: where it is, and its cells by the name of the column.

    Where there is no header, columns are named by their number from "1".

    Attributes:
      header: where the names are, if that is not where the record is.
      fault: why it cannot be an example; its cells may be missing then.
    """

    where: str
    cells: dict[str, Any]
    header: str = ""
    fault: cell_values.BrokenRecord | None = None


@dataclasses.dataclass(frozen=True)
class FirstLine:
    """What the first line of a table was taken as.

    Attributes:
      number: of the line, from 1; blank lines are not records.
      usual: the usual names of columns among its cells.
      is_given: whether the request has it, and nothing was assumed.
    """

    number: int
    cells: tuple[str, ...]
    is_header: bool
    usual: tuple[str, ...]
    is_given: bool

    @property
    def is_doubtful(self) -> bool:
        """Whether it may well be the other: one usual name among its cells."""
        return not self.is_given and not self.is_header and len(self.usual) == 1

    @property
    def contradicts(self) -> bool:
        """Whether it has the names of a header, and is an example as it was given."""
        return self.is_given and not self.is_header and len(self.usual) > 1


def first_line(
    kind: str, file: sources.NamedPath, request: example_request.Request
) -> FirstLine | None:
    """Returns what the first line of a table is taken as; None of an empty file.

    Args:
      kind: one of `WITH_HEADERS`.
    """
    opened = _opened(_rows(kind, file, request.faults), request)
    return opened and opened[0]


def tsv(file: sources.NamedPath, request: example_request.Request) -> Iterator[Record]:
    """Yields the records of a file of columns that are parted by tabs."""
    return _named(_rows("tsv", file, request.faults), file, request)


def comma_separated(
    file: sources.NamedPath, request: example_request.Request, notes: Counter[str]
) -> Iterator[Record]:
    """Yields the records of a CSV file, whose quoted cells may have line ends inside.

    Commas may be semicolons, tabs or bars; the first rows show it, or a line `sep=;`,
    which Excel writes. Raises InputError for quotes that are not closed, or are inside
    a cell.
    """
    separator = file_content.separator(_first_lines(file))
    records = _named(_rows("csv", file, request.faults), file, request)
    for record in records:
        if separator in _SEPARATORS:
            notes[QUOTED.format(_SEPARATORS[separator])] += 1
        yield record


def workbook(
    file: sources.NamedPath, request: example_request.Request
) -> Iterator[Record]:
    """Yields the records of an Excel workbook."""
    return _named(_rows("xlsx", file, request.faults), file, request)


def label_and_text(
    file: sources.NamedPath, faults: lines.Faults = lines.Faults.REFUSE
) -> Iterator[Record]:
    """Yields the records of lines that are a label, one space, and the text."""
    for number, line in _filled_lines(file, faults):
        label, _, text = line.partition(" ")
        where = f"{file.path}:{number}"
        cells = {"label": label, "text": text}
        yield Record(where, cells, fault=lines.fault(line, where))


def json_objects(
    file: sources.NamedPath, faults: lines.Faults = lines.Faults.REFUSE
) -> Iterator[Record]:
    """Yields the objects of JSON lines, of an array, or over several lines each.

    A single object may hold them: as its only list, or as the columns that pandas
    writes ({column: {row: value}}).
    """
    is_document = file_content.is_document(lines.head(file, file_content.HEAD_BYTES))
    return _of_document(file, faults) if is_document else json_lines(file, faults)


def _of_document(file: sources.NamedPath, faults: lines.Faults) -> Iterator[Record]:
    """Yields the objects of a document that is held in memory as a whole."""
    text = lines.decode(lines.document(file), file.path, 1, faults)
    with left_out.in_one_document(file.path):
        found = [*json_file.values(text, str(file.path))]
    is_faulty = lines.fault(text, "") is not None
    if len(found) == 1 and isinstance(found[0][1], dict):
        found = [(found[0][0], value) for value in _inside(found[0][1])]
    for line, value in found:
        where = f"{file.path}:{line}"
        if isinstance(value, dict):
            spelled = json.dumps(value, ensure_ascii=False) if is_faulty else ""
            yield Record(where, value, fault=lines.fault(spelled, where))
        else:
            yield Record(where, {}, fault=_no_object(where))


def _no_object(where: str) -> cell_values.BrokenRecord:
    return cell_values.BrokenRecord(
        f"{where} is not a JSON object. Write each record as one, as in "
        '{"text": "...", "label": "..."}.'
    )


def _inside(document: dict[str, Any]) -> list[Any]:
    """Returns the objects that a single object holds, or itself."""
    values = list(document.values())
    lists = [x for x in values if isinstance(x, list) and x and isinstance(x[0], dict)]
    if len(values) == 1 and lists:
        return lists[0]
    columns = [x for x in values if isinstance(x, dict)]
    if len(columns) == len(values) > 0 and all(
        x.keys() == columns[0].keys() for x in columns
    ):
        return [
            {name: column[row] for name, column in document.items()}
            for row in columns[0]
        ]
    return [document]


def json_lines(
    file: sources.NamedPath, faults: lines.Faults = lines.Faults.REFUSE
) -> Iterator[Record]:
    """Yields the records of a file of one JSON object a line."""
    for number, line in _filled_lines(file, faults):
        where = f"{file.path}:{number}"
        fault = lines.fault(line, where)
        cells: dict[str, Any] = {}
        try:
            cells = {} if fault else json_file.parse_object(line, where)
        except errors.InputError as error:
            fault = cell_values.BrokenRecord(f"{error}.")
        yield Record(where, cells, fault=fault)


def parquet(file: sources.NamedPath) -> Iterator[Record]:
    """Yields the rows of a Parquet file, whose columns have names."""
    for number, cells in parquet_file.rows(file.path):
        yield Record(f"{file.path} row {number}", cells)


def _rows(kind: str, file: sources.NamedPath, faults: lines.Faults) -> Rows:
    """Yields the cells of a table with the line that each row begins in."""
    if kind == "tsv":
        return _split_lines(file, "\t", faults)
    if kind == "xlsx":
        return workbook_file.rows(file.path)
    return _csv_rows(file, _first_lines(file), faults)


def _filled_lines(
    file: sources.NamedPath, faults: lines.Faults
) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank; one of tabs alone has cells, so is not."""
    for number, line in lines.whole_lines(file, lines.Tally(), faults):
        if line.strip() or "\t" in line:
            yield number, line


def _split_lines(file: sources.NamedPath, separator: str, faults: lines.Faults) -> Rows:
    for number, line in _filled_lines(file, faults):
        yield number, line.split(separator)


def _first_lines(file: sources.NamedPath) -> str:
    """Returns the first lines of a file, without a line `sep=;` of Excel."""
    text = lines.head(file, file_content.HEAD_BYTES).decode("utf-8", "replace")
    first, _, rest = text.partition("\n")
    return rest if _EXCEL_SEPARATOR.fullmatch(first.strip()) else text


def _csv_rows(file: sources.NamedPath, opening: str, faults: lines.Faults) -> Rows:
    """Yields the rows of a CSV file, which opens so, with the line each begins in."""
    separator = file_content.separator(opening)
    csv.field_size_limit(lines.MAX_BYTES)
    whole = lines.whole_lines(file, lines.Tally(), faults)
    ended = (f"{line}\n" for _, line in whole)
    if file_content.has_escaped_quotes(opening):
        ended = (file_content.with_doubled_quotes(x, separator) for x in ended)
    reader = csv.reader(ended, delimiter=separator, strict=True)
    first = 1
    try:
        for row in reader:
            is_excels = first == 1 and _EXCEL_SEPARATOR.fullmatch(separator.join(row))
            if row and not is_excels:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise errors.InputError(
            f"{file.path}:{first}: the row that begins here is no CSV ({error}). "
            "Close its quotes and double those inside a cell, or set data.format to "
            "tsv if tabs part its columns. Where a row ends is then unknown, so that "
            "data.repair cannot leave it out."
        ) from None


def _named(
    rows: Rows,
    file: sources.NamedPath,
    request: example_request.Request,
) -> Iterator[Record]:
    """Gives the cells of rows their names, by the header or by their numbers."""
    opened = _opened(rows, request)
    if opened is None:
        return
    opening, following = opened
    number, first = opening.number, [*opening.cells]
    rows = itertools.chain(following, rows)
    if opening.is_header:
        header = f"{file.path}:{number}"
        if fault := lines.fault("".join(first), header):
            raise errors.InputError(
                f"{fault} It is in the names of the columns, which data.repair cannot "
                "leave out: correct the line."
            )
        next_cells = [cells for _, cells in following[:2]]
        first = [""] * column_names.have_row_names(first, next_cells) + first
        names = _unique_names(first, header)
    else:
        header = ""
        names = [str(place) for place in range(1, len(first) + 1)]
        rows = itertools.chain([(number, first)], rows)
    for at, cells in rows:
        if request.leaves_out and not any(map(str.strip, cells[len(names) :])):
            cells = cells[: len(names)]  # separators at the end of the line
        where = f"{file.path}:{at}"
        fault = lines.fault("".join(cells), where)
        if not fault and len(cells) != len(names):
            fault = _ragged(where, len(cells), number, len(names))
        named = {} if fault else dict(zip(names, cells, strict=True))
        yield Record(where, named, header, fault)


def _without_separators(
    first: list[str], rows: list[tuple[int, list[str]]]
) -> list[str]:
    """Returns the first row without empty cells at its end that a next row lacks."""
    least = min((len(cells) for _, cells in rows), default=len(first))
    while len(first) > max(1, least) and not first[-1].strip():
        first = first[:-1]
    return first


def _ragged(
    where: str, count: int, number: int, expected: int
) -> cell_values.BrokenRecord:
    """Returns the error of a row that does not have the columns of line `number`."""
    return cell_values.BrokenRecord(
        f"{where} has {_columns(count)}, and line {number} has {expected}. Every line "
        "needs the same: take the separator out of its texts, or correct or remove the "
        "line.",
        RAGGED,
    )


def _opened(
    rows: Rows, request: example_request.Request
) -> tuple[FirstLine, list[tuple[int, list[str]]]] | None:
    """Returns what the first row is taken as, and the rows that were read to see it."""
    opening = next(rows, None)
    if opening is None:
        return None
    number, first = opening
    usual = column_names.usual_names(first)
    following = [*itertools.islice(rows, _PEEKED if len(usual) == 1 else 2)]
    if request.leaves_out:
        first = _without_separators(first, following)
    is_header = column_names.is_header(
        first, request, [cells for _, cells in following]
    )
    is_given = request.header != "auto"
    return FirstLine(number, tuple(first), is_header, usual, is_given), following


def _unique_names(cells: list[str], where: str) -> list[str]:
    """Returns the names of a header; a column without one is named by its number."""
    names = [
        column_names.name_of(cell) or str(place) for place, cell in enumerate(cells, 1)
    ]
    for name in names:
        if names.count(name) > 1:
            raise errors.InputError(
                f"{where}: two columns have the name {name!r}. Rename one of them, or "
                "remove the header and set data.header=false."
            )
    return names


def _columns(count: int) -> str:
    return f"{count} column{'s'[: count != 1]}"
