"""What the cells of records mean: texts, labels and scores, or the error they are.

A label keeps the spelling of the file: numbers and truth values of JSON are spelled as
JSON does.
"""

import json
import math
from typing import Any

from bert_jax import errors


def text(value: Any, column: str, where: str) -> str:
    """Returns the text of a cell as it is; a list of texts is joined by spaces.

    Raises InputError for one that is blank, no text, or no Unicode.
    """
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise errors.InputError(
            f"{where}: {column!r} is {_shown(value)}, and no text. Mend or remove the "
            "record, or name another column as data.columns.text."
        )
    if not value.strip():
        raise errors.InputError(
            f"{where}: the text in {column!r} is empty. Fill it, or remove the record."
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
        raise errors.InputError(
            f"{where}: character {error.start} of {value[:20]!a}... is half of a "
            "surrogate pair, and no character. Mend or remove the record."
        ) from None


def label(value: Any, where: str) -> str | None:
    """Returns a label without white space around it, or None where there is none."""
    if value is None:
        return None
    if isinstance(value, list | dict):
        raise errors.InputError(
            f"{where}: the label is {_shown(value)}. Set data.multi_label where an "
            "example has several labels, or name another column as data.columns.label."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise errors.InputError(
            f"{where}: the label is {value}, and no name. Mend or remove the record."
        )
    spelled = value if isinstance(value, str) else json.dumps(value)
    check_unicode(spelled, where)
    return spelled.strip() or None


def labels(value: Any, separator: str, where: str) -> tuple[str, ...] | None:
    """Returns the labels of a cell, or None where it has none.

    With a separator, a cell has several: a text is cut by it, a list is one of labels;
    an empty one is an example that no label is true of.
    """
    if not separator or value is None:
        single = label(value, where)
        return None if single is None else (single,)
    parts = value
    if isinstance(value, str):
        parts = value.split(separator) if value.strip() else []
    found = [label(p, where) for p in (parts if isinstance(parts, list) else [parts])]
    several = tuple(each for each in found if each is not None)
    if len(several) < len(found) or len(set(several)) < len(several):
        raise errors.InputError(
            f"{where}: the labels {_shown(value)} have an empty one, or one twice. "
            "Mend the record."
        )
    return several


def score(value: Any, where: str) -> float | None:
    """Returns the number of a cell, or None where there is none.

    Raises InputError for what is no finite number.
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
        raise errors.InputError(
            f"{where}: the score is {_shown(value)}, and no finite number. Mend or "
            "remove the record, or name another column as data.columns.score."
        )
    return number


def _shown(value: Any) -> str:
    """Writes the beginning of a value for a message."""
    written = value if isinstance(value, float) else json.dumps(value, default=str)
    short = str(written)
    return short if len(short) <= 60 else f"{short[:57]}..."
