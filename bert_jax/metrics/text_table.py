"""Text for terminals: tables aligned in any script, without control characters.

A Chinese character is as wide as two Latin ones (Unicode Standard Annex 11), and a
combining mark has no width. Control characters, which could move the cursor or change
colors, and unpaired surrogates are escaped.
"""

import unicodedata
from collections.abc import Sequence

_ESCAPED = ("Cc", "Cs", "Zl", "Zp")  # control, surrogate, line and paragraph ends
_NO_WIDTH = ("Mn", "Me", "Cf")  # marks on another character, and formatting
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    r"""Returns the text with control characters escaped as in a Python string.

    >>> print(visible("two\nlines, \x1b[31mred"))
    two\nlines, \x1b[31mred
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def width(text: str) -> int:
    """Returns the width of the text in terminal columns.

    >>> width("abc"), width("体育 A"), width("e\u0301")
    (3, 6, 1)
    """
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, columns: int) -> str:
    """Returns the text, truncated with "…" if it is wider than `columns`.

    >>> shorten("a long text", 7), shorten("这家酒店很好", 8), shorten("short", 5)
    ('a long…', '这家酒…', 'short')
    """
    if width(text) <= columns:
        return text
    used = 0
    for end, character in enumerate(text):
        used += _width(character)
        if used > columns - 1:
            return text[:end] + "…"
    return text


def table(
    rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), gap: int = 2
) -> str:
    """Returns rows of cells as lines; the columns `left` are left-aligned.

    Other columns, of numbers, are right-aligned. The first row is the header.

    >>> print(table([["class", "f1"], ["体育", "0.91"], ["finance", "0.8"]]))
    class      f1
    体育     0.91
    finance   0.8
    """
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for at, cell in enumerate(row):
            padding = " " * (widths[at] - width(cell))
            cells.append(cell + padding if at in left else padding + cell)
        lines.append((" " * gap).join(cells).rstrip())
    return "\n".join(lines)
