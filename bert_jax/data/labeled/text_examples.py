"""Examples of one text, two texts or a choice of texts, from records of tables."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bert_jax import errors
from bert_jax.data.labeled import column_names, examples, table_records
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.data.labeled.table_records import BrokenRecord, TableRecord
from bert_jax.text import characters


def text_examples(
    records: Iterable[TableRecord], request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.TextExample]:
    """Yields one example per record: classification, regression, matching.

    Counts those that are left out for their label or an empty text. If a record has the
    spans of CLUEWSC2020, they are marked in its text.
    """
    rows = _with_columns(records, request)
    if request.multi_label and request.needs_labels:
        rows = _without_indicators(rows)
    convert = functools.partial(_text_example, request=request)
    for example in table_records.converted(rows, convert, request, notes):
        if example.labels and set(example.labels) & set(request.skip_labels):
            notes["examples left out for their label"] += 1
            continue
        yield example


def _text_example(
    record: TableRecord,
    chosen: column_names.ChosenColumns,
    number: int,
    request: ExampleRequest,
) -> examples.TextExample:
    where, cells = record.where, record.cells
    text = _text(cells, chosen.text, request, where)
    target = cells["target"] if "target" in cells else None
    if isinstance(target, Mapping) and all(part in target for part in _PARTS):
        text = mark_target(text, target, where)
    pair = None
    if chosen.text_pair:
        pair = _text(cells, chosen.text_pair, request, where)
    example = examples.TextExample(
        where=where,
        id=_id(cells, chosen, number, where),
        text=text,
        text_pair=pair,
        labels=_labels(cells, chosen, request, where),
        score=table_records.score(_cell(cells, chosen.score), where),
    )
    _check_labeled(
        example.labels is not None or example.score is not None, request, where
    )
    return example


def choice_examples(
    records: Iterable[TableRecord], request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.ChoiceExample]:
    """Returns one example per record: a context and its choices."""
    rows = _with_columns(records, request)
    convert = functools.partial(_choice_example, request=request)
    return table_records.converted(rows, convert, request, notes)


def _choice_example(
    record: TableRecord,
    chosen: column_names.ChosenColumns,
    number: int,
    request: ExampleRequest,
) -> examples.ChoiceExample:
    where, cells = record.where, record.cells
    choices = _choices(cells, chosen, request, where)
    label = table_records.label(_cell(cells, chosen.label), where)
    _check_labeled(label is not None, request, where)
    return examples.ChoiceExample(
        where=where,
        id=_id(cells, chosen, number, where),
        context=_text(cells, chosen.text, request, where),
        choices=choices,
        label=_choice_number(label, len(choices), where),
    )


def _with_columns(
    records: Iterable[TableRecord], request: ExampleRequest
) -> Iterator[tuple[TableRecord, column_names.ChosenColumns, int]]:
    """Yields records with their columns and number; JSON lines may differ in them.

    Columns of the first record that a later one lacks count as null there.
    """
    known: dict[tuple[str, ...], column_names.ChosenColumns] = {}
    for number, record in enumerate(records):
        names = tuple(record.cells)
        if not record.fault and names not in known:
            where = record.header or record.where
            try:
                known[names] = column_names.choose_columns(names, request, where)
            except errors.InputError:
                if not known:
                    raise
                record = _with_first_columns(record, next(iter(known.values())))
                names = next(iter(known))
        chosen = _NO_COLUMNS if record.fault else known[names]
        yield record, chosen, number


def _with_first_columns(
    record: TableRecord, first: column_names.ChosenColumns
) -> TableRecord:
    """Returns a record with None in the columns of the first that it lacks."""
    names = [first.id, first.text, first.text_pair, first.label, first.score]
    names += [*first.choices, *first.flags]
    cells = dict.fromkeys(name for name in names if name is not None)
    return record._replace(cells={**cells, **record.cells})


_NO_COLUMNS = column_names.ChosenColumns(
    None, "", None, None, None
)  # of a broken record


def _without_indicators(
    columns: Iterator[tuple[TableRecord, column_names.ChosenColumns, int]],
) -> Iterator[tuple[TableRecord, column_names.ChosenColumns, int]]:
    """Yields records whose labels are lists of the numbers of classes.

    If all lists of a file have the same length and only 0 and 1, a 1 marks the class of
    its position, as in [0, 1, 1] for the classes 1 and 2. Only a file whose first list
    looks like this is read into memory.
    """
    first = next(columns, None)
    if first is None:
        return
    length = _indicator_length(first)
    if not length:
        yield first
        yield from columns
        return
    rows = [first, *columns]
    are_all = all(_indicator_length(row) == length for row in rows)
    for record, chosen, number in rows:
        if are_all and chosen.label is not None:
            given = table_records.as_list(record.cells[chosen.label], record.where)
            classes = [number for number, flag in enumerate(given or ()) if flag]
            record = record._replace(cells={**record.cells, chosen.label: classes})
        yield record, chosen, number


def _indicator_length(row: tuple[TableRecord, column_names.ChosenColumns, int]) -> int:
    """Returns the length of the list of 0 and 1 that the label is; 0 for others."""
    record, chosen, _ = row
    if chosen.label is None:
        return 0
    found = table_records.as_list(record.cells[chosen.label], record.where)
    return len(found) if found is not None and table_records.is_indicator(found) else 0


def _cell(cells: Mapping[str, Any], column: str | None) -> Any:
    return None if column is None else cells[column]


def _text(
    cells: Mapping[str, Any], column: str, request: ExampleRequest, where: str
) -> str:
    if cells[column] is None and request.leaves_out:
        return table_records.text("", column, where)
    may_be_empty = request.takes_empty
    return table_records.text(cells[column], column, where, may_be_empty=may_be_empty)


def _id(
    cells: Mapping[str, Any],
    chosen: column_names.ChosenColumns,
    number: int,
    where: str,
) -> str:
    """Returns the id of the record, or else its number."""
    if chosen.id is None:
        return str(number)
    found = table_records.label(cells[chosen.id], where)
    if found is None:
        raise BrokenRecord(
            f"{where}: the id in {chosen.id!r} is empty. Fill it, or set "
            f"{errors.setting('data.columns.id', 'none')}: then examples are numbered."
        )
    return found


def _labels(
    cells: Mapping[str, Any],
    chosen: column_names.ChosenColumns,
    request: ExampleRequest,
    where: str,
) -> tuple[str, ...] | None:
    if chosen.flags:
        return table_records.flags(cells, chosen.flags, where)
    if chosen.label is None:
        return None
    return table_records.labels(cells[chosen.label], request.multi_label, where)


def _check_labeled(is_labeled: bool, request: ExampleRequest, where: str) -> None:
    form = request.form
    if request.needs_labels and not is_labeled and form.needs_target:
        what = form.targets[0]
        raise BrokenRecord(
            f"{where}: the {what} is missing. Fill it, or remove the record.",
            table_records.UNLABELED,
        )


def _choices(
    cells: Mapping[str, Any],
    chosen: column_names.ChosenColumns,
    request: ExampleRequest,
    where: str,
) -> tuple[str, ...]:
    """Returns the choices, each after the text that all of them begin with."""
    name, *others = chosen.choices
    if others:
        texts = [_text(cells, column, request, where) for column in chosen.choices]
    elif isinstance(cells[name], list):
        one = {"may_be_empty": request.takes_empty}
        texts = [table_records.text(each, name, where, **one) for each in cells[name]]
    else:
        texts = []
    if len(texts) < 2:
        raise BrokenRecord(
            f"{where}: {name!r} has no list of two or more choices. Fix or remove the "
            "record, or name the columns: "
            f"{errors.setting('data.columns.choices', 'A+B')}."
        )
    if chosen.text_pair is None:
        return tuple(texts)
    begin = _text(cells, chosen.text_pair, request, where)
    return tuple(join_tokens([begin, text])[0] for text in texts)


def _choice_number(label: str | None, count: int, where: str) -> int | None:
    """Returns the number of the choice that a label means: a number or a letter."""
    if label is None:
        return None
    number = -1
    if label.isdecimal() and len(label) < 4:
        number = int(label)
    elif len(label) == 1 and label.isascii() and label.isalpha():
        number = ord(label.upper()) - ord("A")
    if not 0 <= number < count:
        raise BrokenRecord(
            f"{where}: the label {label!r} is not one of the {count} choices, 0 "
            f"to {count - 1}, or A to {chr(ord('A') + count - 1)}. Fix or remove the "
            "record."
        )
    return number


_CJK = re.compile(f"[{characters.CJK_AND_MARKS}]")
_WORD_OR_CJK = re.compile(
    "[{0}]|[^{0}]+".format(
        "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in characters.CJK_RANGES)
    )
)


def join_tokens(tokens: Sequence[str]) -> tuple[str, tuple[examples.Span, ...]]:
    """Joins tokens into a text and returns the span of each.

    Tokens are joined by a space, except between two Chinese characters or marks.

    >>> join_tokens(["他", "在", "IBM", "上班", "。"])
    ('他在 IBM 上班。', ((0, 1), (1, 2), (3, 6), (7, 9), (9, 10)))
    """
    pieces, spans, length, last = [], [], 0, ""
    for token in tokens:
        if last and token and not (_writes_no_space(last) and _writes_no_space(token)):
            pieces.append(" ")
            length += 1
        pieces.append(token)
        spans.append((length, length + len(token)))
        length += len(token)
        last = token[-1:]
    return "".join(pieces), tuple(spans)


def _writes_no_space(token: str) -> bool:
    """Returns whether a token begins with a Chinese character or mark.

    Full-width letters and digits are words, as half-width ones are.
    """
    first = token[0]
    return bool(_CJK.match(first)) and not ("\uff00" < first and first.isalnum())


def find_in_order(tokens: Sequence[str], text: str) -> tuple[examples.Span, ...] | None:
    """Returns the spans of tokens in a text of only them and white space, or None.

    >>> find_in_order(["do", "n't", "!"], "don't !")
    ((0, 2), (2, 5), (6, 7))
    """
    spans, at = [], 0
    for token in tokens:
        while at < len(text) and text[at].isspace() and not text.startswith(token, at):
            at += 1
        if not text.startswith(token, at):
            return None
        spans.append((at, at + len(token)))
        at += len(token)
    return None if text[at:].strip() else tuple(spans)


def split_words(text: str, ends: Iterable[int] = ()) -> list[examples.Span]:
    """Splits a text into words: as BERT does, and also at the characters `ends`.

    White space is not in any word.

    >>> split_words("叶老 isn't", [4])
    [(0, 1), (1, 2), (3, 4), (4, 6), (6, 7), (7, 8)]
    """
    found = []
    for run in characters.punctuation_pattern().finditer(text):
        for word in _WORD_OR_CJK.finditer(text, *run.span()):
            found.append(word.span())
    cuts = sorted(set(ends))
    return [part for word in found for part in _cut(word, cuts)] if cuts else found


def _cut(word: examples.Span, cuts: list[int]) -> list[examples.Span]:
    """Splits a word at those of the characters that are inside it."""
    edges = [word[0], *(cut for cut in cuts if word[0] < cut < word[1]), word[1]]
    return list(zip(edges, edges[1:], strict=False))


_MARKS = {"span1": ("_", "_"), "span2": ("[", "]")}
# Of a cell with the two spans of CLUEWSC2020.
_PARTS = tuple(f"{span}_{part}" for span in _MARKS for part in ("text", "index"))


def mark_target(text: str, target: Mapping[str, Any], where: str) -> str:
    """Returns the text of a CLUEWSC2020 record with both spans marked.

    The first span, a noun, becomes `_床_`, the second, a pronoun, `[它]`, as in the
    baselines of CLUE, so that a text model can see which two are meant.

    Raises:
      InputError: a span is misplaced, or both overlap.

    >>> target = {"span1_text": "猫", "span1_index": 0}
    >>> mark_target("猫说它饿", target | {"span2_text": "它", "span2_index": 2}, "f:1")
    '_猫_说[它]饿'
    """
    spans = sorted(
        (*_span_of_target(text, target, span, where), span) for span in _MARKS
    )
    (_, end, _), (start, _, _) = spans
    if end > start:
        raise errors.InputError(
            f"{where}: span1 and span2 of the target overlap. Fix the record."
        )
    for start, end, span in reversed(spans):
        before, behind = _MARKS[span]
        text = f"{text[:start]}{before}{text[start:end]}{behind}{text[end:]}"
    return text


def _span_of_target(
    text: str, target: Mapping[str, Any], span: str, where: str
) -> tuple[int, int]:
    """Returns a span, [start, end)."""
    surface, start = target[f"{span}_text"], target[f"{span}_index"]
    if (
        not isinstance(surface, str)
        or type(start) is not int
        or not surface
        or start < 0
        or not text.startswith(surface, start)
    ):
        raise errors.InputError(
            f"{where}: {span} of the target, {surface!r}, is not at character "
            f"{start!r} of the text. Fix the record."
        )
    return start, start + len(surface)
