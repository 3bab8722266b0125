"""Detects the format of a file from its first bytes, and reads Parquet.

Downloads often differ from their name: a login page, a Git LFS pointer, JSON lines
called `.txt`. Text is recognized as JSON lines, JSON (an array, or
objects over several lines), a table of commas, semicolons or tabs, the output of
WikiExtractor, or HTML; binary formats by their signature.
"""

import csv
import decimal
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled import column_names
from bert_jax.foundation import json_file

HEAD_BYTES = 1 << 17
_DELIMITERS = (",", "\t", ";", "|")
_ROWS = 20  # of a table that are looked at
_PAGE = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+)?html\b", re.I
)
_XML = re.compile(r"\s*<(?:\?xml\s|mediawiki\b)", re.I)
_DOCUMENT = re.compile(r"\s*<doc\b[^<>]*\bid=[^<>]*>")
_ARRAY = re.compile(r'\[\s*[\[{"]')


def kind(file: text_files.NamedPath) -> str:
    """Returns the format of a file.

    One of `parquet`, `xlsx`, `jsonl`, `json`, `csv`, `wikiextractor`, `html`, `xml`, or
    `text` for anything else.

    Raises:
      InputError: the file cannot be read, or is in another binary format.
    """
    return binary_kind(file.path) or text_kind(text_files.head(file, HEAD_BYTES))


def binary_kind(path: Path) -> str:
    """Returns `parquet`, `xlsx` or "" from the signature of a file."""
    with text_files.open_raw(text_files.NamedPath(path.name, path)) as file:
        first = file.peek(4)
    if first.startswith(b"PAR1"):
        return "parquet"
    return "xlsx" if first.startswith(b"PK\x03\x04") and _is_workbook(path) else ""


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except (zipfile.BadZipFile, ValueError):
        return False


def text_kind(content: bytes) -> str:
    """Returns the format of the first bytes of a text, one of those of `kind`.

    >>> text_kind(b'{"text": "a"}'), text_kind(b'[{"text": "a"}]'), text_kind(b"a b")
    ('jsonl', 'json', 'text')
    """
    text = content.decode("utf-8", "replace").lstrip("\ufeff")
    if _PAGE.match(text):
        return "html"
    if _XML.match(text):
        return "xml"
    if _DOCUMENT.match(text):
        return "wikiextractor"
    stripped = text.lstrip()
    if stripped.startswith("{"):
        return _kind_of_objects(stripped)
    if _ARRAY.match(stripped) and _opens_json(stripped):
        return "json"
    return "csv" if delimiter(text) else "text"


def _kind_of_objects(text: str) -> str:
    """Returns `jsonl` if the first line is an object, `json` if more lines are."""
    first = text.partition("\n")[0]
    try:
        kind = "json" if is_document(text.encode()) else "jsonl"
        return kind if isinstance(json.loads(first), dict) else "text"
    except (ValueError, RecursionError):
        return "json" if _opens_json(text) else "text"


def is_document(content: bytes) -> bool:
    """Returns whether JSON is an array, or has objects of several lines.

    This includes a single line whose values are all objects or lists of objects, which
    is how pandas writes a table.

    >>> is_document(b'{"text": {"0": "a"}}'), is_document(b'{"text": "a"}')
    (True, False)
    """
    text = content.decode("utf-8", "replace").lstrip()
    if text.startswith("["):
        return True
    first, _, rest = text.partition("\n")
    if text.startswith("{") and not first.rstrip().endswith("}"):
        return True
    return (
        not rest.strip()
        and re.match(r'\{\s*"[^"]*"\s*:\s*(\[\s*)?\{', first) is not None
    )


def _opens_json(text: str) -> bool:
    """Returns whether a text begins with a JSON value, which may be truncated."""
    try:
        json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        # The head of a long file ends inside its value.
        is_inside = error.msg.startswith("Unterminated") or error.pos > len(text) // 2
        return len(text) >= HEAD_BYTES // 4 and is_inside
    except (RecursionError, ValueError):  # ValueError: a number of 5,000 digits
        return False
    return True


def delimiter(text: str) -> str:
    """Returns the separator of a table with quotes, or "" if a text is not a table.

    The first rows must have the same number of cells, two or more, and the first row
    the name of a text column.

    >>> delimiter("label;text\\n1;a, b\\n0;c\\n"), delimiter("Li, his text\\nis\\n")
    (';', '')
    """
    for separator in _DELIMITERS:
        rows = first_rows(text, separator)
        if _are_even(rows) and _names_text(rows[0]):
            return separator
    return ""


def separator(text: str) -> str:
    """Returns the separator of a file that is such a table.

    >>> separator("1;a, b\\n0;c\\n"), separator("text\\n"), separator("a,b\\nc\\n")
    (';', ',', ',')
    """
    even = (each for each in _DELIMITERS if _are_even(first_rows(text, each)))
    return delimiter(text) or next(even, ",")


def _are_even(rows: list[list[str]]) -> bool:
    """Returns whether rows have the same number of cells, two or more.

    The header may have one less: R writes none above row names.
    """
    if not rows:
        return False
    widths = {len(row) for row in rows[1:]} or {len(rows[0])}
    width = min(widths)
    return len(widths) == 1 and width > 1 and width - len(rows[0]) in (0, 1)


def first_rows(text: str, separator: str, most: int = _ROWS) -> list[list[str]]:
    """Returns the first rows of a table with quotes; [] where a quote is misplaced."""
    if has_escaped_quotes(text):
        text = with_doubled_quotes(text, separator)
    is_cut = len(text) >= HEAD_BYTES // 4
    whole = (text[: text.rfind("\n")] if is_cut else text).split("\n")
    rows: list[list[str]] = []
    ended = (f"{line}\n" for line in whole)
    reader = csv.reader(ended, delimiter=separator, strict=True)
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) == most:
                break
    except csv.Error:
        ends_inside = is_cut and reader.line_num >= len(whole)
        return rows if ends_inside else []
    return rows


def has_escaped_quotes(text: str) -> bool:
    r"""Returns whether a table escapes quotes inside cells as \", as R does.

    Its first line is then fully quoted, without doubled quotes.
    """
    first = text.partition("\n")[0].rstrip()
    is_quoted = first.startswith('"') and first.endswith('"') and '""' not in first
    return is_quoted and r"\"" in text


def with_doubled_quotes(text: str, separator: str) -> str:
    r"""Doubles quotes after a backslash, unless they end a cell.

    >>> print(with_doubled_quotes(r'"1";"a \"b\", c"', ";"))
    "1";"a ""b"", c"
    """
    ends = rf"(?!{re.escape(separator)}|[\r\n]|$)"
    return re.sub(rf'\\"{ends}', '""', text)


def is_quoted(text: str) -> bool:
    """Returns whether the cells of a TSV file are quoted, as by pandas, R and Excel.

    Every cell that begins with a quote must end with one, all rows must have the same
    number of columns, and something must show that the quotes are not part of the text:
    a doubled or escaped quote, a cell with a tab or a line break, quotes around every
    cell that is not a number, or around each of several cells with a comma.
    """
    rows = first_rows(text, "\t", 1 << 30)
    if not _are_even(rows):
        return False
    plain = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]
    cells = [cell for line in plain[: len(rows)] for cell in line if cell]
    quoted = [cell for cell in cells if cell.startswith('"')]
    if not quoted:
        return False
    if [len(line) for line in plain[: len(rows)]] != [len(row) for row in rows]:
        return True
    if has_escaped_quotes(text) or any('""' in cell[1:-1] for cell in quoted):
        return True
    if all(cell in quoted or _is_number(cell) for cell in cells):
        return True
    with_comma = [cell for cell in cells if "," in cell]
    return len(with_comma) > 1 and all(cell.startswith('"') for cell in with_comma)


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]+(?:[eE][-+]?\d+)?|NA|NaN", cell) is not None


def _names_text(cells: Sequence[str]) -> bool:
    """Returns whether a row has short names, one of them common for a text column."""
    names = [column_names.name_of(cell).lower() for cell in cells]
    return any(name in column_names.TEXT_NAMES for name in names) and all(
        len(name) <= 40 for name in names
    )


_BATCH_ROWS = 1024
_FEATURES = b"huggingface"  # the key of the schema's metadata


def parquet_rows(
    path: Path, columns: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of a Parquet file, numbered from 1, as JSON values by column.

    A batch of 1,024 rows of these columns is in memory. Bytes that are not UTF-8 become
    lone surrogates, which `table_records.check_unicode` finds.

    Args:
      columns: the columns to read; all of them if empty.

    Raises:
      InputError: the file is not Parquet or damaged, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            missing = [name for name in columns if name not in schema.names]
            if missing:
                raise errors.InputError(
                    f"{path} has no column {missing[0]!r}, only "
                    f"{', '.join(map(repr, schema.names))}"
                )
            twice = [name for name in schema.names if schema.names.count(name) > 1]
            if twice:
                raise errors.InputError(
                    f"{path} has two columns with the name {twice[0]!r}. Rename one."
                )
            features = _features(schema.metadata, path)
            batches = file.iter_batches(_BATCH_ROWS, columns=list(columns) or None)
            rows = (row for batch in batches for row in _values(batch))
            for number, row in enumerate(rows, start=1):
                yield number, with_class_names(row, features, f"{path} row {number}")
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise errors.InputError(
            f"{path} is not a readable Parquet file ({reason}). Copy or download "
            "it again."
        ) from None


def _values(batch: Any) -> list[dict[str, Any]]:
    """Returns the rows of a batch; texts are bytes if one of them is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        columns = [column.cast(_as_bytes(column.type)) for column in batch.columns]
        return pa.RecordBatch.from_arrays(columns, batch.schema.names).to_pylist()


def _as_bytes(kind: Any) -> Any:
    """Returns a type of pyarrow with bytes instead of texts."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(_as_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_bytes(field.type)) for field in kind])
    return kind


def _features(metadata: Mapping[bytes, bytes] | None, path: Path) -> Any:
    """Returns the features that `datasets` wrote, or {}."""
    if not metadata or _FEATURES not in metadata:
        return {}
    tree = json_file.parse(metadata[_FEATURES], f"{path}: the schema's metadata")
    return _part(_part(tree, "info"), "features")


def with_class_names(value: Any, feature: Any, where: str) -> Any:
    """Returns a value with the types of JSON, and classes by their names.

    A class of -1, which represents a hidden label, becomes None.

    Args:
      feature: the feature of `datasets`: `names` of a class, `feature` of the items of
        a list, or features by the names of fields; {} if unknown.

    Raises:
      InputError: a number is not a class.
    """
    if isinstance(value, dict):
        inner = _part(feature, "feature") or feature
        return {
            name: with_class_names(part, _part(inner, name), where)
            for name, part in value.items()
        }
    if isinstance(value, list):
        inner: Any = feature[0] if isinstance(feature, list) and feature else feature
        inner = _part(inner, "feature") or inner
        return [with_class_names(part, inner, where) for part in value]
    names = _part(feature, "names")
    if isinstance(names, list) and _is_class_number(value, names):
        return _class_name(int(value), names, where)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if value is None or isinstance(value, str | int | float):
        return value
    return float(value) if isinstance(value, decimal.Decimal) else str(value)


def _part(feature: Any, key: str) -> Any:
    """Returns a part of a feature; {} if it has none."""
    return feature.get(key, {}) if isinstance(feature, dict) else {}


def _is_class_number(value: Any, names: list[Any]) -> bool:
    """Returns whether a value is the number of a class; in a CSV file it is text."""
    if isinstance(value, str):
        return value not in names and re.fullmatch(r"-?\d{1,6}", value) is not None
    return type(value) is int


def _class_name(number: int, names: list[Any], where: str) -> Any:
    """Returns the name of a class, or None for -1."""
    if number < 0:
        return None
    if number >= len(names):
        raise errors.InputError(
            f"{where} has the class {number}, but the file names {len(names)}. "
            "Correct the row, or the names in the schema."
        )
    return names[number]
