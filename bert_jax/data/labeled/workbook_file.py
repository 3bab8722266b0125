"""The rows of an Excel workbook (.xlsx), read with openpyxl (extra `excel`).

Cells are what the sheet would be as CSV: numbers as computed, and an empty text for an
empty cell. Formulas have the value that Excel stored with them.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import lines


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not empty, with their numbers in the sheet from 1.

    Empty cells at the end of a row count as far as the first row is wide.

    Raises:
      InputError: openpyxl is missing, the file is no workbook, or more than one of its
        sheets has cells.
    """
    try:
        import openpyxl
    except ImportError:
        raise errors.missing_extra("openpyxl", "excel") from None

    _check_size(path)
    try:
        with open(path, "rb") as file:  # whatever its name ends in
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            yield from _rows_of(_only_sheet(book, path))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, SyntaxError) as error:
        raise errors.InputError(
            f"{path} is no Excel workbook that can be read ({error}). Save it again as "
            ".xlsx, or as CSV in UTF-8."
        ) from None


def _check_size(path: Path) -> None:
    """Raises InputError for an archive that unpacks to far more than a workbook."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise errors.InputError(
            f"{path} is no Excel workbook ({error}). Save it again as .xlsx, or as CSV."
        ) from None
    lines.check_unpacked(path, size, path.stat().st_size)


def _only_sheet(book: Any, path: Path) -> Any:
    """Returns the one sheet with cells."""
    filled = [sheet for sheet in book.worksheets if any(_rows_of(sheet))]
    if len(filled) > 1:
        names = ", ".join(repr(sheet.title) for sheet in filled)
        raise errors.InputError(
            f"{path} has {len(filled)} sheets with cells ({names}). Save the one that "
            "is to be read in a file of its own."
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
