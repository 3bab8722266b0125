"""Tagged sentences in columns: one token a line, blank lines between sentences.

Columns are parted by tabs if the first token's line has one, else by spaces. Lines of
`-DOCSTART-` (CoNLL-2003) and comments (`# id 7`, `# text = ...`) are no tokens.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

from bert_jax import errors
from bert_jax.data import example_request, examples, joined_tokens, lines, sources

DOCUMENT_MARK = "-DOCSTART-"
# "# O" is the token "#"; a comment has a key, and stands before its sentence.
_COMMENT = re.compile(r"#\s?(?:(?:sent_)?id\b(?:\s*=)?\s*(?P<id>\S+)|[\w.-]+\s?[=:]\s)")


@dataclasses.dataclass
class _Layout:
    """What the first token of a file says of the others."""

    separator: str
    count: int
    token: int
    tag: int | None
    line: int


def read(
    file: sources.NamedPath, request: example_request.Request, notes: Counter[str]
) -> Iterator[examples.TaggedExample]:
    """Yields the sentences of a file, each with its tags.

    Counts in `notes` the lines of DOCSTART. Without labels asked for, a file of one
    column has none.

    Raises:
      InputError: a line has other columns than the first, or an empty token or tag.
    """
    layout: _Layout | None = None
    rows: list[tuple[str, str | None]] = []
    first, name, number = 0, "", 0
    for at, line in lines.whole_lines(file, lines.Tally()):
        where = f"{file.path}:{at}"
        if not line.strip():
            if rows:
                yield _example(rows, f"{file.path}:{first}", name or str(number))
                rows, name, number = [], "", number + 1
        elif line.startswith(DOCUMENT_MARK):
            notes[f"{DOCUMENT_MARK} lines"] += 1
        elif not rows and (comment := _COMMENT.match(line)):
            name = comment["id"] or name
        else:
            layout = layout or _layout(line, at, request, where)
            first = first if rows else at
            rows.append(_token(_cells(line, layout.separator), layout, request, where))
    if rows:
        yield _example(rows, f"{file.path}:{first}", name or str(number))


def _cells(line: str, separator: str) -> list[str]:
    """Cuts a line; several spaces are one, and only they: others may be a token."""
    cells = line.split(separator)
    return [cell for cell in cells if cell] if separator == " " else cells


def _layout(
    line: str, at: int, request: example_request.Request, where: str
) -> _Layout:
    """Returns how the columns stand, from the first token's line."""
    separator = "\t" if "\t" in line else " "
    count = len(_cells(line, separator))
    columns = request.columns
    token = example_request.column_number(columns.token or "1", count, "token", where)
    tag = None
    if columns.tag != example_request.NONE and (count > 1 or request.needs_labels):
        tag = example_request.column_number(columns.tag or "-1", count, "tag", where)
    if tag == token:
        raise errors.InputError(
            f"{where} has {count} column{'s'[: count != 1]}, and the tag is to be in "
            "the same as the token: give every token a tag behind it, or set "
            "data.columns.tag."
        )
    return _Layout(separator, count, token, tag, at)


def _token(
    cells: list[str],
    layout: _Layout,
    request: example_request.Request,
    where: str,
) -> tuple[str, str | None]:
    """Returns the token and the tag of a line."""
    if len(cells) != layout.count:
        raise errors.InputError(
            f"{where} has {len(cells)} column{'s'[: len(cells) != 1]}, and line "
            f"{layout.line} has {layout.count}. Every token needs the same, and blank "
            "lines stand between sentences: mend the line."
        )
    token = cells[layout.token]
    tag = None if layout.tag is None else cells[layout.tag].strip()
    if not token or tag == "":
        raise errors.InputError(
            f"{where}: the {'tag' if token else 'token'} is empty. Mend the line."
        )
    return (_without_digit(token, where) if request.strip_digit else token), tag


def _without_digit(token: str, where: str) -> str:
    """Takes the digit off the end of a token."""
    if len(token) < 2 or token[-1] not in "0123456789":
        raise errors.InputError(
            f"{where}: the token {token!r} does not end in one digit more. Mend the "
            "line, or set data.strip_digit to false."
        )
    return token[:-1]


def _example(
    rows: list[tuple[str, str | None]], where: str, name: str
) -> examples.TaggedExample:
    text, spans = joined_tokens.join([token for token, _ in rows])
    tags = tuple(tag for _, tag in rows if tag is not None)
    return examples.TaggedExample(where, name, text, spans, tags or None)
