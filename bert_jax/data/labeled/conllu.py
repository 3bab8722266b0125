"""CoNLL-U: parts of speech of sentences, and the roles of their predicates.

Universal PropBank puts behind the columns of a token one with the sense of a predicate
(`come.03`, or nothing), and then one column a predicate with the roles of its
arguments, each on the head word. Where there is a column of flags ("Y") before the
senses, as in CoNLL-2009 and in the first releases, it is found by looking.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator

from bert_jax import errors
from bert_jax.data import lines
from bert_jax.data.corpus import left_out, sources
from bert_jax.data.labeled import cell_values, example_request, examples, joined_tokens

NO_PREDICATE = "sentences without a predicate"
NOT_ITS_WORDS = "sentences whose text is not that of their words"
NO_WORDS = "lines of several words or of none (1-2, 8.1)"
_SENSES = 10  # behind the ten columns of CoNLL-U
_FLAGS = (8, 12)  # of the first Universal PropBank, and of CoNLL-2009
_MOST_LOOKED_AT = 500


@dataclasses.dataclass
class Sentence:
    """The words of a sentence, as rows of columns, and what the comments say.

    `ranges` are lines of several words, as (line, number of the last word); `fault` is
    why it cannot be an example.
    """

    path: str
    name: str = ""
    text: str = ""
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    lines: list[int] = dataclasses.field(default_factory=list)
    ranges: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    fault: cell_values.BrokenRecord | None = None

    @property
    def where(self) -> str:
        """The place of its first word."""
        return f"{self.path}:{self.lines[0]}"


def read(
    file: sources.NamedPath, request: example_request.Request, notes: Counter[str]
) -> Iterator[examples.TaggedExample]:
    """Yields sentences with their tags, or, for `srl`, each once a predicate.

    Roles are as in the file, "O" where it has none, and "V" on the predicate unless
    the file says otherwise. `notes` counts what is left out.

    Raises:
      InputError: a sentence is ragged, its words are not numbered from 1, or there are
        not as many columns of roles as predicates.
    """
    sentences = _sentences(file, request, notes)
    if request.task == "srl":
        yield from _role_examples(sentences, request, notes)
        return
    for number, sentence in enumerate(sentences):
        try:
            made = _tagged(sentence, number, request, notes)
        except cell_values.BrokenRecord as error:
            left_out.leave_out(error, sentence.where, request, notes)
            continue
        yield made


def _tagged(
    sentence: Sentence,
    number: int,
    request: example_request.Request,
    notes: Counter[str],
) -> examples.TaggedExample:
    """Returns the example of a sentence."""
    if sentence.fault:
        raise sentence.fault
    token, tag = _columns(sentence, request)
    text, spans = _text(sentence, token, notes)
    tags = tuple(row[tag].strip() for row in sentence.rows)
    tags = _checked(tags, sentence, request)
    name = sentence.name or str(number)
    return examples.TaggedExample(
        sentence.where, name, text, spans, tags, lines=sentence.lines
    )


def _sentences(
    file: sources.NamedPath, request: example_request.Request, notes: Counter[str]
) -> Iterator[Sentence]:
    """Yields the sentences of a file that have words, with their first fault."""
    sentence = Sentence(str(file.path))
    for at, line in lines.whole_lines(file, lines.Tally(), request.faults):
        if not line.strip():
            if sentence.lines:
                yield _whole(sentence)
            sentence = Sentence(str(file.path))
            continue
        fault = lines.fault(line, f"{file.path}:{at}")
        if fault or sentence.fault:
            sentence.lines.append(at)
            sentence.fault = sentence.fault or fault
        elif line.startswith("#"):
            _comment(line, sentence)
        else:
            try:
                _add_row(line, at, sentence, request, notes)
            except cell_values.BrokenRecord as error:
                sentence.lines.append(at)
                sentence.fault = error
    if sentence.lines:
        yield _whole(sentence)


def _whole(sentence: Sentence) -> Sentence:
    """Returns a sentence; words of its ranges that are missing are its fault."""
    for at, last in sentence.ranges:
        if last > len(sentence.rows) and not sentence.fault:
            sentence.fault = cell_values.BrokenRecord(
                f"{sentence.path}:{at}: the range ends with word {last}, and the "
                f"sentence has {len(sentence.rows)}. Mend the line."
            )
    return sentence


def _comment(line: str, sentence: Sentence) -> None:
    if match := re.match(r"#\s*(sent_id|text)\s*=\s*(.*\S)", line):
        if match[1] == "text":
            sentence.text = match[2]
        else:
            sentence.name = match[2]


def _add_row(
    line: str,
    at: int,
    sentence: Sentence,
    request: example_request.Request,
    notes: Counter[str],
) -> None:
    """Adds the word of a line to its sentence."""
    where, row = f"{sentence.path}:{at}", line.split("\t")
    if request.leaves_out:
        count = len(sentence.rows[0]) if sentence.rows else len(row)
        if not sentence.rows and request.task == "tagging":
            count = min(count, _SENSES)
        if not any(map(str.strip, row[count:])):
            row = row[:count]  # separators at the end of the line
    if re.fullmatch(r"\d+[-.]\d+", row[0]):
        _add_range(row[0], at, sentence)
        notes[NO_WORDS] += 1
        return
    if row[0] != str(len(sentence.rows) + 1):
        raise cell_values.BrokenRecord(
            f"{where}: the word's number is {row[0][:20]!r} and should be "
            f"{len(sentence.rows) + 1}. CoNLL-U numbers the words of a sentence from "
            "1, parts columns by tabs and sentences by blank lines: mend the line, or "
            "set data.format if it is none."
        )
    if sentence.rows and len(row) != len(sentence.rows[0]):
        raise cell_values.BrokenRecord(
            f"{where} has {len(row)} columns, and line {sentence.lines[0]} of the same "
            f"sentence has {len(sentence.rows[0])}. Mend the line."
        )
    sentence.rows.append(row)
    sentence.lines.append(at)


def _add_range(numbers: str, at: int, sentence: Sentence) -> None:
    """Notes a line of several words (3-4), which stands before the first of them."""
    first, is_range, last = (part[:9] for part in numbers.partition("-"))
    if not is_range:
        return
    if not len(sentence.rows) < int(first) < int(last):
        raise cell_values.BrokenRecord(
            f"{sentence.path}:{at}: the range {numbers[:20]} is none of words that "
            "come. CoNLL-U has it before its words, the smaller number first: mend the "
            "line."
        )
    sentence.ranges.append((at, int(last)))


def _columns(sentence: Sentence, request: example_request.Request) -> tuple[int, int]:
    """Returns the columns of the words and of the tags, from 0."""
    count, columns = len(sentence.rows[0]), request.columns
    number = example_request.column_number
    token = number(columns.token or "2", count, "token", sentence.where)
    return token, number(columns.tag or "4", count, "tag", sentence.where)


def _text(
    sentence: Sentence, token: int, notes: Counter[str]
) -> tuple[str, tuple[examples.Span, ...]]:
    """Returns the text of a sentence, and where its words stand in it."""
    words = [row[token] for row in sentence.rows]
    for word, line in zip(words, sentence.lines, strict=True):
        if not word.strip():
            raise cell_values.BrokenRecord(
                f"{sentence.path}:{line}: the word is empty. Mend the line."
            )
    if sentence.text:
        spans = joined_tokens.find_in_order(words, sentence.text)
        if spans is not None:
            return sentence.text, spans
        notes[NOT_ITS_WORDS] += 1
    return joined_tokens.join(words)


def _checked(
    tags: tuple[str, ...], sentence: Sentence, request: example_request.Request
) -> tuple[str, ...] | None:
    """Returns tags if all words have one, and None if none is asked for."""
    for tag, line in zip(tags, sentence.lines, strict=True):
        if tag in ("", "_"):
            if request.needs_labels:
                raise cell_values.BrokenRecord(
                    f"{sentence.path}:{line}: the tag is missing. Fill it, or set "
                    "data.columns.tag to the column that has it."
                )
            return None
    return tags


def _role_examples(
    sentences: Iterator[Sentence],
    request: example_request.Request,
    notes: Counter[str],
) -> Iterator[examples.TaggedExample]:
    """Yields each sentence once for each of its predicates."""
    looked_at = list(itertools.islice(sentences, _MOST_LOOKED_AT))
    flags = _flag_column(looked_at)
    for number, sentence in enumerate(itertools.chain(looked_at, sentences)):
        try:
            made = _with_roles(sentence, number, flags, request, notes)
        except cell_values.BrokenRecord as error:
            left_out.leave_out(error, sentence.where, request, notes)
            continue
        yield from made


def _with_roles(
    sentence: Sentence,
    number: int,
    flags: int | None,
    request: example_request.Request,
    notes: Counter[str],
) -> list[examples.TaggedExample]:
    """Returns the examples of a sentence, one a predicate."""
    if sentence.fault:
        raise sentence.fault
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
            id=f"{name}.{place}",
            text=text,
            tokens=spans,
            tags=roles[place] if roles else None,
            predicate=predicate,
            sense=sentence.rows[predicate][senses].strip(),
        )
        for place, predicate in enumerate(predicates)
    ]


def _filled(cell: str) -> bool:
    return cell.strip() not in ("", "_")


def _flag_column(sentences: list[Sentence]) -> int | None:
    """Returns the column that says which words are predicates, or None.

    It has "Y" for those, nothing for others, and a column behind it.
    """
    rows = [row for sentence in sentences for row in sentence.rows]
    for column in _FLAGS:
        cells = {row[column] if column + 1 < len(row) else None for row in rows}
        if "Y" in cells and cells <= {"Y", "_", ""}:
            return column
    return None


def _sense_column(
    sentence: Sentence, flags: int | None, request: example_request.Request
) -> int:
    """Returns the column of the senses of the predicates, from 0."""
    count = len(sentence.rows[0])
    if request.columns.predicate:
        column = request.columns.predicate
    else:
        column = str((_SENSES if flags is None else flags + 1) + 1)
    if column.startswith("-"):
        raise errors.InputError(
            f"data.columns.predicate is {column}, and sentences differ in how many "
            "columns they have: count it from 1"
        )
    where = sentence.where
    return example_request.column_number(column, count, "predicate", where)


def _roles(
    sentence: Sentence,
    senses: int,
    predicates: list[int],
    request: example_request.Request,
) -> list[tuple[str, ...]]:
    """Returns the roles of each predicate, or nothing where none are asked for."""
    columns = list(zip(*(row[senses + 1 :] for row in sentence.rows), strict=True))
    spare = columns[len(predicates) :]
    if not columns and not request.needs_labels:
        return []
    if len(columns) < len(predicates) or any(map(_filled, itertools.chain(*spare))):
        raise cell_values.BrokenRecord(
            f"{sentence.where}: the sentence has {len(predicates)} predicates in "
            f"column {senses + 1}, and {len(columns)} columns of roles behind it. Mend "
            "the sentence, or set data.columns.predicate to the column of the senses."
        )
    made = []
    for predicate, column in zip(predicates, columns, strict=False):
        roles = [cell.strip() if _filled(cell) else "O" for cell in column]
        if roles[predicate] == "O":
            roles[predicate] = "V"
        made.append(tuple(roles))
    return made
