"""Tagged sentences in columns, one token per line: CoNLL and CoNLL-U.

CoNLL files with one sentence per line are detected from their first lines:
`text<TAB>tags`, where the text is split at its spaces (or into characters, without
any), and `word/TAG word/TAG`. Columns are separated by tabs if the first token's line
has one, else by spaces. Lines of `-DOCSTART-` (CoNLL-2003) and comments (`# id 7`,
`# text = ...`) are not tokens.

CoNLL-U has parts of speech of sentences, and the roles of their predicates. Universal
PropBank adds a column with the sense of a predicate (`come.03`, or nothing), and then
one column per predicate with the roles of its arguments, each on the head word. A
column of flags ("Y") before the senses, as in CoNLL-2009 and the first releases, is
detected.
"""

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled import examples, table_records, text_examples
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.data.labeled.table_records import BrokenRecord

DOCUMENT_MARK = "-DOCSTART-"
_MISFITS = 0.2  # of the lines that decide
_LOOKED_AT = 50  # lines that decide whether a file has one sentence per line
Cut = Callable[[str], list[tuple[str, str]] | None]
# "# O" is the token "#"; a comment has a key and precedes its sentence.
_COMMENT = re.compile(r"#\s?(?:(?:sent_)?id\b(?:\s*=)?\s*(?P<id>\S+)|[\w.-]+\s?[=:]\s)")


@dataclasses.dataclass
class _Layout:
    """The columns of a file, from its first token."""

    separator: str
    count: int
    token: int
    tag: int | None
    line: int


def read_conll(
    file: text_files.NamedPath, request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.TaggedExample]:
    """Yields the sentences of a file, each with its tags.

    `notes` counts lines of DOCSTART, and sentences that are left out for one of their
    lines. If labels are not needed, a file of one column has none.

    Raises:
      InputError: a line has other columns than the first, or an empty token or tag.
    """
    numbered = text_files.whole_lines(file, request.faults)
    opening = list(itertools.islice(numbered, _LOOKED_AT))
    split = _sentence_layout([line for _, line in opening], request)
    numbered = itertools.chain(opening, numbered)
    if split is not None:
        yield from _of_lines(numbered, split, file.path, request, notes)
        return
    layout: _Layout | None = None
    for number, (name, sentence) in enumerate(_sentences_of_columns(numbered, notes)):
        try:
            rows = []
            for at, line in sentence:
                where = f"{file.path}:{at}"
                if fault := table_records.decoding_fault(line, where):
                    raise fault
                layout = layout or _layout(line, at, request, where)
                cells = _cells(line, layout, request)
                rows.append((at, *_token(cells, layout, request, where)))
        except BrokenRecord as error:
            table_records.leave_out(error, where, request, notes)
            continue
        yield _example(rows, file.path, name or str(number))


def _sentences_of_columns(
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


def _sentence_layout(opening: list[str], request: ExampleRequest) -> Cut | None:
    """Returns how to split lines that are sentences, or None if lines are tokens.

    The first lines decide: all have as many tags as tokens, and at least one has
    several; or half of them have several, and the few that do not match are errors.
    """
    if request.columns.token or request.columns.tag or request.strip_digit:
        return None
    filled = [x for x in opening if x.strip() and not x.startswith(DOCUMENT_MARK)]
    filled = [
        x
        for x in filled
        if not _COMMENT.match(x) and not table_records.decoding_fault(x, "")
    ]
    for cut in (_text_and_tags, _words_with_tags):
        found = [cut(line) for line in filled]
        several = sum(len(x or ()) > 1 for x in found)
        if all(x is not None for x in found) and several:
            return cut
        if found.count(None) <= _MISFITS * len(found) and 2 * several >= len(found) > 0:
            return cut
    return None


# The last column of a token's line; words of sentences rarely look like this.
_TAG = re.compile(r"[^a-z\s]+|\w{1,3}|[BIMESLUW][-_].+")
_SENTENCE = re.compile(r"\S+[。！？.!?]|.*[\u3400-\u9fff]{5}.*")


def are_sentences(opening: list[str], request: ExampleRequest) -> bool:
    """Returns whether most lines are texts without tags, not tokens."""
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
    request: ExampleRequest,
    notes: Counter[str],
) -> Iterator[examples.TaggedExample]:
    """Yields one sentence per line."""
    number, name = 0, ""
    for at, line in numbered:
        if line.startswith(DOCUMENT_MARK):
            notes[f"{DOCUMENT_MARK} lines"] += 1
        elif comment := _COMMENT.match(line):
            name = comment["id"] or name
        elif line.strip():
            where = f"{path}:{at}"
            spelled, number, name = name or str(number), number + 1, ""
            found, fault = cut(line), table_records.decoding_fault(line, where)
            if found is None and fault is None:
                form = "text<TAB>tags" if cut is _text_and_tags else "word/TAG word/TAG"
                fault = BrokenRecord(
                    f"{where}: the line is not of the form {form}, as the first "
                    "lines of the file are, with one tag per token. Correct it."
                )
            if fault or found is None:
                assert fault is not None
                table_records.leave_out(fault, where, request, notes)
                continue
            yield _example([(at, *pair) for pair in found], path, spelled)


def _cells(line: str, layout: _Layout, request: ExampleRequest) -> list[str]:
    """Splits a line into columns, without trailing separators if it is repaired."""
    cells = _split(line, layout.separator)
    if request.leaves_out and not any(map(str.strip, cells[layout.count :])):
        cells = cells[: layout.count]
    return cells


def _split(line: str, separator: str) -> list[str]:
    """Splits a line; only spaces are merged, other white space may be a token."""
    cells = line.split(separator)
    return [cell for cell in cells if cell] if separator == " " else cells


def _layout(line: str, at: int, request: ExampleRequest, where: str) -> _Layout:
    """Returns the columns of a file from the line of its first token."""
    if request.leaves_out:
        line = line.rstrip()
    separator = "\t" if "\t" in line else " "
    count = len(_split(line, separator))
    columns = request.columns
    token = examples.column_number(columns.token or "1", count, "token", where)
    tag = None
    if columns.tag != examples.NONE and (count > 1 or request.needs_labels):
        tag = examples.column_number(columns.tag or "-1", count, "tag", where)
    if tag == token:
        raise errors.InputError(
            f"{where} has {count} column{'s'[: count != 1]}, so the tag would be "
            "the token: add a tag after every token, or set "
            f"{errors.setting('data.columns.tag', 'NUMBER')}."
        )
    return _Layout(separator, count, token, tag, at)


def _token(
    cells: list[str], layout: _Layout, request: ExampleRequest, where: str
) -> tuple[str, str | None]:
    """Returns the token and the tag of a line."""
    if len(cells) != layout.count:
        raise BrokenRecord(
            f"{where} has {len(cells)} column{'s'[: len(cells) != 1]}, and line "
            f"{layout.line} has {layout.count}. Every token needs the same, and a "
            "blank line separates sentences: fix the line."
        )
    token = cells[layout.token]
    tag = None if layout.tag is None else cells[layout.tag].strip()
    if not token or tag == "":
        raise BrokenRecord(
            f"{where}: the {'tag' if token else 'token'} is empty. Fix the line."
        )
    return (_without_digit(token, where) if request.strip_digit else token), tag


def _without_digit(token: str, where: str) -> str:
    """Removes the digit at the end of a token."""
    if len(token) < 2 or token[-1] not in "0123456789":
        raise BrokenRecord(
            f"{where}: the token {token!r} does not end in one digit more. Fix the "
            "line, or set data.strip_digit to false."
        )
    return token[:-1]


def _example(
    rows: Sequence[tuple[int, str, str | None]], path: Path, name: str
) -> examples.TaggedExample:
    text, spans = text_examples.join_tokens([token for _, token, _ in rows])
    tags = tuple(tag for _, _, tag in rows if tag is not None)
    at = [line for line, _, _ in rows]
    where = f"{path}:{at[0]}"
    return examples.TaggedExample(where, name, text, spans, tags or None, lines=at)


NO_PREDICATE = "sentences without a predicate"
NOT_ITS_WORDS = "sentences whose text is not that of their words"
NO_WORDS = "lines of several words or of none (1-2, 8.1)"
_SENSES = 10  # after the ten columns of CoNLL-U
_FLAGS = (8, 12)  # of the first Universal PropBank, and of CoNLL-2009
_MOST_LOOKED_AT = 500


@dataclasses.dataclass
class ConlluSentence:
    """The words of a sentence, as rows of columns, and its comments.

    `ranges` are lines of several words, as (line, number of the last word); `fault` is
    why it cannot be an example.
    """

    path: str
    name: str = ""
    text: str = ""
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    lines: list[int] = dataclasses.field(default_factory=list)
    ranges: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    fault: BrokenRecord | None = None

    @property
    def where(self) -> str:
        """The location of its first word."""
        return f"{self.path}:{self.lines[0]}"


def read_conllu(
    file: text_files.NamedPath, request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.TaggedExample]:
    """Yields sentences with their tags, or, for `srl`, each once per predicate.

    Roles are as in the file, "O" without one, and "V" on the predicate if the file has
    no role there. `notes` counts what is left out.

    Raises:
      InputError: a sentence is ragged, its words are not numbered from 1, or there are
        not as many columns of roles as predicates.
    """
    sentences = _sentences_of_conllu(file, request, notes)
    if request.form.has_predicates:
        yield from _role_examples(sentences, request, notes)
        return
    convert = functools.partial(_tagged, request=request, notes=notes)
    rows = zip(sentences, itertools.count())
    yield from table_records.converted(rows, convert, request, notes)


def _tagged(
    sentence: ConlluSentence, number: int, request: ExampleRequest, notes: Counter[str]
) -> examples.TaggedExample:
    """Returns the example of a sentence."""
    token, tag = _columns(sentence, request)
    text, spans = _text(sentence, token, notes)
    tags = tuple(row[tag].strip() for row in sentence.rows)
    tags = _checked(tags, sentence, request)
    name = sentence.name or str(number)
    return examples.TaggedExample(
        sentence.where, name, text, spans, tags, lines=sentence.lines
    )


def _sentences_of_conllu(
    file: text_files.NamedPath, request: ExampleRequest, notes: Counter[str]
) -> Iterator[ConlluSentence]:
    """Yields the sentences of a file that have words, with their first fault."""
    sentence = ConlluSentence(str(file.path))
    for at, line in text_files.whole_lines(file, request.faults):
        if not line.strip():
            if sentence.lines:
                yield _whole(sentence)
            sentence = ConlluSentence(str(file.path))
            continue
        fault = table_records.decoding_fault(line, f"{file.path}:{at}")
        if fault or sentence.fault:
            sentence.lines.append(at)
            sentence.fault = sentence.fault or fault
        elif line.startswith("#"):
            _comment(line, sentence)
        else:
            try:
                _add_row(line, at, sentence, request, notes)
            except BrokenRecord as error:
                sentence.lines.append(at)
                sentence.fault = error
    if sentence.lines:
        yield _whole(sentence)


def _whole(sentence: ConlluSentence) -> ConlluSentence:
    """Returns a sentence; words of its ranges that are missing are its fault."""
    for at, last in sentence.ranges:
        if last > len(sentence.rows) and not sentence.fault:
            sentence.fault = BrokenRecord(
                f"{sentence.path}:{at}: the range ends with word {last}, and the "
                f"sentence has {len(sentence.rows)}. Fix the line."
            )
    return sentence


def _comment(line: str, sentence: ConlluSentence) -> None:
    if match := re.match(r"#\s*(sent_id|text)\s*=\s*(.*\S)", line):
        if match[1] == "text":
            sentence.text = match[2]
        else:
            sentence.name = match[2]


def _add_row(
    line: str,
    at: int,
    sentence: ConlluSentence,
    request: ExampleRequest,
    notes: Counter[str],
) -> None:
    """Adds the word of a line to its sentence."""
    where, row = f"{sentence.path}:{at}", line.split("\t")
    if request.leaves_out:
        count = len(sentence.rows[0]) if sentence.rows else len(row)
        if not sentence.rows and request.form.has_tags:
            count = min(count, _SENSES)
        if not any(map(str.strip, row[count:])):
            row = row[:count]  # separators at the end of the line
    if re.fullmatch(r"\d+[-.]\d+", row[0]):
        _add_range(row[0], at, sentence)
        notes[NO_WORDS] += 1
        return
    if row[0] != str(len(sentence.rows) + 1):
        raise BrokenRecord(
            f"{where}: the word's number is {row[0][:20]!r} and should be "
            f"{len(sentence.rows) + 1}. CoNLL-U numbers the words of a sentence from "
            "1, with tabs between columns and blank lines between sentences: fix the "
            f"line, or set {errors.setting('data.format')} if it is another."
        )
    if sentence.rows and len(row) != len(sentence.rows[0]):
        raise BrokenRecord(
            f"{where} has {len(row)} columns, and line {sentence.lines[0]} of the same "
            f"sentence has {len(sentence.rows[0])}. Fix the line."
        )
    sentence.rows.append(row)
    sentence.lines.append(at)


def _add_range(numbers: str, at: int, sentence: ConlluSentence) -> None:
    """Records a line of several words (3-4), which precedes the first of them."""
    first, is_range, last = (part[:9] for part in numbers.partition("-"))
    if not is_range:
        return
    if not len(sentence.rows) < int(first) < int(last):
        raise BrokenRecord(
            f"{sentence.path}:{at}: the range {numbers[:20]} does not precede its "
            "words. CoNLL-U has it before them, the smaller number first: fix the line."
        )
    sentence.ranges.append((at, int(last)))


def _columns(sentence: ConlluSentence, request: ExampleRequest) -> tuple[int, int]:
    """Returns the columns of the words and of the tags, from 0."""
    count, columns = len(sentence.rows[0]), request.columns
    number = examples.column_number
    token = number(columns.token or "2", count, "token", sentence.where)
    return token, number(columns.tag or "4", count, "tag", sentence.where)


def _text(
    sentence: ConlluSentence, token: int, notes: Counter[str]
) -> tuple[str, tuple[examples.Span, ...]]:
    """Returns the text of a sentence, and the spans of its words."""
    words = [row[token] for row in sentence.rows]
    for word, line in zip(words, sentence.lines, strict=True):
        if not word.strip():
            raise BrokenRecord(
                f"{sentence.path}:{line}: the word is empty. Fix the line."
            )
    if sentence.text:
        spans = text_examples.find_in_order(words, sentence.text)
        if spans is not None:
            return sentence.text, spans
        notes[NOT_ITS_WORDS] += 1
    return text_examples.join_tokens(words)


def _checked(
    tags: tuple[str, ...], sentence: ConlluSentence, request: ExampleRequest
) -> tuple[str, ...] | None:
    """Returns tags if all words have one; None if they are not needed."""
    for tag, line in zip(tags, sentence.lines, strict=True):
        if tag in ("", "_"):
            if request.needs_labels:
                raise BrokenRecord(
                    f"{sentence.path}:{line}: the tag is missing. Fill it, or name "
                    f"its column: {errors.setting('data.columns.tag', 'NUMBER')}."
                )
            return None
    return tags


def _role_examples(
    sentences: Iterator[ConlluSentence], request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.TaggedExample]:
    """Yields each sentence once per predicate."""
    looked_at = list(itertools.islice(sentences, _MOST_LOOKED_AT))
    flags = _flag_column(looked_at)
    rows = zip(itertools.chain(looked_at, sentences), itertools.count())
    convert = functools.partial(_with_roles, flags=flags, request=request, notes=notes)
    for found in table_records.converted(rows, convert, request, notes):
        yield from found


def _with_roles(
    sentence: ConlluSentence,
    number: int,
    flags: int | None,
    request: ExampleRequest,
    notes: Counter[str],
) -> list[examples.TaggedExample]:
    """Returns the examples of a sentence, one a predicate."""
    senses = _sense_column(sentence, flags, request)
    predicates = [i for i, row in enumerate(sentence.rows) if _filled(row[senses])]
    if not predicates:
        notes[NO_PREDICATE] += 1
        return []
    roles = _roles(sentence, senses, predicates, request)
    token, _ = _columns(sentence, request)
    text, spans = _text(sentence, token, notes)
    name = sentence.name or str(number)
    return [
        examples.TaggedExample(
            where=sentence.where,
            id=f"{name}.{at}",
            text=text,
            tokens=spans,
            tags=roles[at] if roles else None,
            predicate=predicate,
            sense=sentence.rows[predicate][senses].strip(),
        )
        for at, predicate in enumerate(predicates)
    ]


def _filled(cell: str) -> bool:
    return cell.strip() not in ("", "_")


def _flag_column(sentences: list[ConlluSentence]) -> int | None:
    """Returns the column of the flags of predicates, or None.

    It has "Y" for predicates, nothing for other words, and is not the last column.
    """
    rows = [row for sentence in sentences for row in sentence.rows]
    for column in _FLAGS:
        cells = {row[column] if column + 1 < len(row) else None for row in rows}
        if "Y" in cells and cells <= {"Y", "_", ""}:
            return column
    return None


def _sense_column(
    sentence: ConlluSentence, flags: int | None, request: ExampleRequest
) -> int:
    """Returns the column of the senses of the predicates, from 0."""
    count = len(sentence.rows[0])
    if request.columns.predicate:
        column = request.columns.predicate
    else:
        column = str((_SENSES if flags is None else flags + 1) + 1)
    if column.startswith("-"):
        raise errors.InputError(
            f"{errors.setting('data.columns.predicate', column)}, but sentences differ "
            "in their number of columns: count it from 1"
        )
    where = sentence.where
    return examples.column_number(column, count, "predicate", where)


def _roles(
    sentence: ConlluSentence,
    senses: int,
    predicates: list[int],
    request: ExampleRequest,
) -> list[tuple[str, ...]]:
    """Returns the roles of each predicate, or [] if they are not needed."""
    columns = list(zip(*(row[senses + 1 :] for row in sentence.rows), strict=True))
    spare = columns[len(predicates) :]
    if not columns and not request.needs_labels:
        return []
    if len(columns) < len(predicates) or any(map(_filled, itertools.chain(*spare))):
        raise BrokenRecord(
            f"{sentence.where}: the sentence has {len(predicates)} predicates in "
            f"column {senses + 1}, and {len(columns)} columns of roles after it. Fix "
            "the sentence, or name the column of the senses: "
            f"{errors.setting('data.columns.predicate', 'NUMBER')}."
        )
    found = []
    for predicate, column in zip(predicates, columns, strict=False):
        roles = [cell.strip() if _filled(cell) else "O" for cell in column]
        if roles[predicate] == "O":
            roles[predicate] = "V"
        found.append(tuple(roles))
    return found
