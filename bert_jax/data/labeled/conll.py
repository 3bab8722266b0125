"""Tagged sentences in columns: one token a line, blank lines between sentences.

Files of one sentence a line are recognized by their first lines: `text<TAB>tags`, where
the text is cut at its spaces (or into characters, where it has none), and
`word/TAG word/TAG`.

Columns are parted by tabs if the first token's line has one, else by spaces. Lines of
`-DOCSTART-` (CoNLL-2003) and comments (`# id 7`, `# text = ...`) are no tokens.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bert_jax import errors
from bert_jax.data import lines
from bert_jax.data.corpus import left_out, sources
from bert_jax.data.labeled import cell_values, example_request, examples, joined_tokens

DOCUMENT_MARK = "-DOCSTART-"
_MISFITS = 0.2  # of the lines that decide
_LOOKED_AT = 50  # lines that decide whether a file has one sentence a line
Cut = Callable[[str], list[tuple[str, str]] | None]
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

    Counts in `notes` the lines of DOCSTART, and sentences that are left out for one of
    their lines. Without labels asked for, a file of one column has none.

    Raises:
      InputError: a line has other columns than the first, or an empty token or tag.
    """
    numbered = lines.whole_lines(file, lines.Tally(), request.faults)
    opening = list(itertools.islice(numbered, _LOOKED_AT))
    split = _sentence_layout([line for _, line in opening], request)
    numbered = itertools.chain(opening, numbered)
    if split is not None:
        yield from _of_lines(numbered, split, file.path, request, notes)
        return
    layout: _Layout | None = None
    for number, (name, sentence) in enumerate(_sentences(numbered, notes)):
        try:
            rows = []
            for at, line in sentence:
                where = f"{file.path}:{at}"
                if fault := lines.fault(line, where):
                    raise fault
                layout = layout or _layout(line, at, request, where)
                cells = _cells(line, layout, request)
                rows.append((at, *_token(cells, layout, request, where)))
        except cell_values.BrokenRecord as error:
            left_out.leave_out(error, where, request, notes)
            continue
        yield _example(rows, file.path, name or str(number))


def _sentences(
    numbered: Iterator[tuple[int, str]], notes: Counter[str]
) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Yields the id of each sentence, or "", and its lines with their numbers."""
    name, rows = "", []
    for at, line in numbered:
        if not line.strip():
            if rows:
                yield name, rows
                name, rows = "", []
        elif line.startswith(DOCUMENT_MARK):
            notes[f"{DOCUMENT_MARK} lines"] += 1
        elif not rows and (comment := _COMMENT.match(line)):
            name = comment["id"] or name
        else:
            rows.append((at, line))
    if rows:
        yield name, rows


def _sentence_layout(
    opening: list[str], request: example_request.Request
) -> Cut | None:
    """Returns how lines that are sentences are cut, or None where lines are tokens.

    The first lines decide: all have as many tags as tokens, and one of them several; or
    half of them several, and few do not fit, which then are errors.
    """
    if request.columns.token or request.columns.tag or request.strip_digit:
        return None
    filled = [x for x in opening if x.strip() and not x.startswith(DOCUMENT_MARK)]
    filled = [x for x in filled if not _COMMENT.match(x) and not lines.fault(x, "")]
    for cut in (_text_and_tags, _words_with_tags):
        found = [cut(line) for line in filled]
        several = sum(len(x or ()) > 1 for x in found)
        if all(x is not None for x in found) and several:
            return cut
        if found.count(None) <= _MISFITS * len(found) and 2 * several >= len(found) > 0:
            return cut
    return None


# The last column of a token's line; words of sentences are rarely so.
_TAG = re.compile(r"[^a-z\s]+|\w{1,3}|[BIMESLUW][-_].+")
_SENTENCE = re.compile(r"\S+[。！？.!?]|.*[\u3400-\u9fff]{5}.*")


def are_sentences(opening: list[str], request: example_request.Request) -> bool:
    """Says whether most lines are a text each without tags, and not a token."""
    if request.columns.token or request.columns.tag:
        return False
    if _sentence_layout(opening, request) is not None:
        return False
    filled = [x.split() for x in opening if x.strip()]
    if any("\t" in x for x in opening) or not filled:
        return False
    texts = [
        (len(cells[-1]) > 1 and not _TAG.fullmatch(cells[-1]))
        or len(cells) != len(filled[0])
        if len(cells) > 1
        else _SENTENCE.fullmatch(cells[0]) is not None
        for cells in filled
    ]
    return 2 * sum(texts) > len(texts)


def _text_and_tags(line: str) -> list[tuple[str, str]] | None:
    """Returns the tokens and tags of `text<TAB>tags`, or None if a line is not that."""
    text, tab, tags = line.strip().partition("\t")
    tokens, labels = text.split(), tags.split()
    if len(tokens) == 1 and len(labels) > 1:
        tokens = list(text)
    if not tab or "\t" in tags or len(tokens) != len(labels):
        return None
    return list(zip(tokens, labels, strict=True))


def _words_with_tags(line: str) -> list[tuple[str, str]] | None:
    """Returns the tokens and tags of `word/TAG word/TAG`, or None."""
    cells = [cell.rpartition("/") for cell in line.split()]
    if not all(token and tag for token, _, tag in cells):
        return None
    return [(token, tag) for token, _, tag in cells]


def _of_lines(
    numbered: Iterator[tuple[int, str]],
    cut: Cut,
    path: Path,
    request: example_request.Request,
    notes: Counter[str],
) -> Iterator[examples.TaggedExample]:
    """Yields a sentence a line."""
    number, name = 0, ""
    for at, line in numbered:
        if line.startswith(DOCUMENT_MARK):
            notes[f"{DOCUMENT_MARK} lines"] += 1
        elif comment := _COMMENT.match(line):
            name = comment["id"] or name
        elif line.strip():
            where = f"{path}:{at}"
            spelled, number, name = name or str(number), number + 1, ""
            found, fault = cut(line), lines.fault(line, where)
            if found is None and fault is None:
                form = "text<TAB>tags" if cut is _text_and_tags else "word/TAG word/TAG"
                fault = cell_values.BrokenRecord(
                    f"{where}: the line is not of the form {form}, as the first "
                    "lines of the file are, with a tag for each token. Correct it."
                )
            if fault or found is None:
                assert fault is not None
                left_out.leave_out(fault, where, request, notes)
                continue
            yield _example([(at, *pair) for pair in found], path, spelled)


def _cells(line: str, layout: _Layout, request: example_request.Request) -> list[str]:
    """Cuts a line into its columns, without separators at its end if it is repaired."""
    cells = _split(line, layout.separator)
    if request.leaves_out and not any(map(str.strip, cells[layout.count :])):
        cells = cells[: layout.count]
    return cells


def _split(line: str, separator: str) -> list[str]:
    """Cuts a line; several spaces are one, and only they: others may be a token."""
    cells = line.split(separator)
    return [cell for cell in cells if cell] if separator == " " else cells


def _layout(
    line: str, at: int, request: example_request.Request, where: str
) -> _Layout:
    """Returns how the columns stand, from the first token's line."""
    if request.leaves_out:
        line = line.rstrip()
    separator = "\t" if "\t" in line else " "
    count = len(_split(line, separator))
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
        raise cell_values.BrokenRecord(
            f"{where} has {len(cells)} column{'s'[: len(cells) != 1]}, and line "
            f"{layout.line} has {layout.count}. Every token needs the same, and blank "
            "lines stand between sentences: mend the line."
        )
    token = cells[layout.token]
    tag = None if layout.tag is None else cells[layout.tag].strip()
    if not token or tag == "":
        raise cell_values.BrokenRecord(
            f"{where}: the {'tag' if token else 'token'} is empty. Mend the line."
        )
    return (_without_digit(token, where) if request.strip_digit else token), tag


def _without_digit(token: str, where: str) -> str:
    """Takes the digit off the end of a token."""
    if len(token) < 2 or token[-1] not in "0123456789":
        raise cell_values.BrokenRecord(
            f"{where}: the token {token!r} does not end in one digit more. Mend the "
            "line, or set data.strip_digit to false."
        )
    return token[:-1]


def _example(
    rows: Sequence[tuple[int, str, str | None]], path: Path, name: str
) -> examples.TaggedExample:
    text, spans = joined_tokens.join([token for _, token, _ in rows])
    tags = tuple(tag for _, _, tag in rows if tag is not None)
    at = [line for line, _, _ in rows]
    where = f"{path}:{at[0]}"
    return examples.TaggedExample(where, name, text, spans, tags or None, lines=at)
