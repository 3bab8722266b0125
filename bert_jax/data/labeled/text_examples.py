"""Examples of one text, two texts or a choice of texts, made of records of tables."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bert_jax import errors
from bert_jax.data.corpus import left_out
from bert_jax.data.labeled import (
    cell_values,
    column_names,
    example_request,
    examples,
    joined_tokens,
    marked_spans,
    table_records,
)


def text_examples(
    records: Iterable[table_records.Record],
    request: example_request.Request,
    notes: Counter[str],
) -> Iterator[examples.TextExample]:
    """Yields an example a record: classification, regression, matching.

    Counts those that are left out for their label, or as their text is empty. Where a
    record has the spans of CLUEWSC2020, they are marked in its text.
    """
    columns = _with_columns(records, request)
    if request.multi_label and request.needs_labels:
        columns = _without_indicators(columns)
    for record, chosen, number in columns:
        try:
            if record.fault:
                raise record.fault
            made = _text_example(record, chosen, number, request)
        except cell_values.BrokenRecord as error:
            left_out.leave_out(error, record.where, request, notes)
            continue
        if made.labels and set(made.labels) & set(request.skip_labels):
            notes["examples left out for their label"] += 1
            continue
        yield made


def _text_example(
    record: table_records.Record,
    chosen: column_names.Chosen,
    number: int,
    request: example_request.Request,
) -> examples.TextExample:
    where, cells = record.where, record.cells
    text = _text(cells, chosen.text, request, where)
    pair = None
    if chosen.text_pair:
        pair = _text(cells, chosen.text_pair, request, where)
    made = examples.TextExample(
        where=where,
        id=_id(cells, chosen, number, where),
        text=_marked(text, cells, where),
        text_pair=pair,
        labels=_labels(cells, chosen, request, where),
        score=_score(cells, chosen, where),
    )
    _check_labelled(made.labels is not None or made.score is not None, request, where)
    return made


def choice_examples(
    records: Iterable[table_records.Record],
    request: example_request.Request,
    notes: Counter[str],
) -> Iterator[examples.ChoiceExample]:
    """Yields an example a record: a context and its choices."""
    for record, chosen, number in _with_columns(records, request):
        try:
            if record.fault:
                raise record.fault
            made = _choice_example(record, chosen, number, request)
        except cell_values.BrokenRecord as error:
            left_out.leave_out(error, record.where, request, notes)
            continue
        yield made


def _choice_example(
    record: table_records.Record,
    chosen: column_names.Chosen,
    number: int,
    request: example_request.Request,
) -> examples.ChoiceExample:
    where, cells = record.where, record.cells
    choices = _choices(cells, chosen, request, where)
    label = cell_values.label(_cell(cells, chosen.label), where)
    _check_labelled(label is not None, request, where)
    return examples.ChoiceExample(
        where=where,
        id=_id(cells, chosen, number, where),
        context=_text(cells, chosen.text, request, where),
        choices=choices,
        label=_place(label, len(choices), where),
    )


def _with_columns(
    records: Iterable[table_records.Record], request: example_request.Request
) -> Iterator[tuple[table_records.Record, column_names.Chosen, int]]:
    """Yields records with their columns and number; JSON lines may differ in them.

    What a record lacks of the columns of the first one is missing in it, as null is.
    """
    known: dict[tuple[str, ...], column_names.Chosen] = {}
    for number, record in enumerate(records):
        names = tuple(record.cells)
        if not record.fault and names not in known:
            where = record.header or record.where
            try:
                known[names] = column_names.choose(names, request, where)
            except errors.InputError:
                if not known:
                    raise
                record = _with_first_columns(record, next(iter(known.values())))
                names = next(iter(known))
        chosen = _NO_COLUMNS if record.fault else known[names]
        yield record, chosen, number


def _with_first_columns(
    record: table_records.Record, first: column_names.Chosen
) -> table_records.Record:
    """Returns a record with None in the columns of the first that it lacks."""
    names = [first.id, first.text, first.text_pair, first.label, first.score]
    names += [*first.choices, *first.flags]
    cells = dict.fromkeys(name for name in names if name is not None)
    return record._replace(cells={**cells, **record.cells})


_NO_COLUMNS = column_names.Chosen(None, "", None, None, None)  # of a broken record


def _without_indicators(
    columns: Iterator[tuple[table_records.Record, column_names.Chosen, int]],
) -> Iterator[tuple[table_records.Record, column_names.Chosen, int]]:
    """Yields records whose labels are lists of the numbers of classes.

    Where every list of a file has the same length and only 0 and 1 in it, a 1 means
    that the class at its position is true, as in [0, 1, 1] for the classes 1 and 2.
    Only a file whose first list is such one is held in memory for it.
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
            given = cell_values.as_list(record.cells[chosen.label], record.where)
            classes = [place for place, flag in enumerate(given or ()) if flag]
            record = record._replace(cells={**record.cells, chosen.label: classes})
        yield record, chosen, number


def _indicator_length(
    row: tuple[table_records.Record, column_names.Chosen, int],
) -> int:
    """Returns the length of the list of 0 and 1 that the label is; 0 for others."""
    record, chosen, _ = row
    if chosen.label is None:
        return 0
    found = cell_values.as_list(record.cells[chosen.label], record.where)
    return len(found) if found is not None and cell_values.is_indicator(found) else 0


def _cell(cells: Mapping[str, Any], column: str | None) -> Any:
    return None if column is None else cells[column]


def _text(
    cells: Mapping[str, Any],
    column: str,
    request: example_request.Request,
    where: str,
) -> str:
    if cells[column] is None and request.leaves_out:
        return cell_values.text("", column, where)
    may_be_empty = request.takes_empty
    return cell_values.text(cells[column], column, where, may_be_empty=may_be_empty)


def _marked(text: str, cells: Mapping[str, Any], where: str) -> str:
    """Returns the text, with the spans of its `target` marked if it has them."""
    if "target" in cells and marked_spans.is_target(cells["target"]):
        return marked_spans.mark(text, cells["target"], where)
    return text


def _id(
    cells: Mapping[str, Any], chosen: column_names.Chosen, number: int, where: str
) -> str:
    """Returns the id of the record, or else its number."""
    if chosen.id is None:
        return str(number)
    found = cell_values.label(cells[chosen.id], where)
    if found is None:
        raise cell_values.BrokenRecord(
            f"{where}: the id in {chosen.id!r} is empty. Fill it, or set "
            "data.columns.id to none: then examples are numbered."
        )
    return found


def _labels(
    cells: Mapping[str, Any],
    chosen: column_names.Chosen,
    request: example_request.Request,
    where: str,
) -> tuple[str, ...] | None:
    if chosen.flags:
        return cell_values.flags(cells, chosen.flags, where)
    if chosen.label is None:
        return None
    return cell_values.labels(cells[chosen.label], request.multi_label, where)


def _score(
    cells: Mapping[str, Any], chosen: column_names.Chosen, where: str
) -> float | None:
    return cell_values.score(_cell(cells, chosen.score), where)


def _check_labelled(
    is_labelled: bool, request: example_request.Request, where: str
) -> None:
    if request.needs_labels and not is_labelled and request.task != "matching":
        what = "score" if request.task == "regression" else "label"
        raise cell_values.BrokenRecord(
            f"{where}: the {what} is missing. Fill it, or remove the record, or set "
            "data.repair, which leaves such records out.",
            cell_values.UNLABELED,
        )


def _choices(
    cells: Mapping[str, Any],
    chosen: column_names.Chosen,
    request: example_request.Request,
    where: str,
) -> tuple[str, ...]:
    """Returns the choices, each behind the text that all of them begin with."""
    name, *others = chosen.choices
    if others:
        texts = [_text(cells, column, request, where) for column in chosen.choices]
    elif isinstance(cells[name], list):
        one = {"may_be_empty": request.takes_empty}
        texts = [cell_values.text(each, name, where, **one) for each in cells[name]]
    else:
        texts = []
    if len(texts) < 2:
        raise cell_values.BrokenRecord(
            f"{where}: {name!r} has no list of two or more choices. Mend or remove the "
            "record, or name the columns: data.columns.choices."
        )
    if chosen.text_pair is None:
        return tuple(texts)
    begin = _text(cells, chosen.text_pair, request, where)
    return tuple(joined_tokens.join([begin, text])[0] for text in texts)


def _place(label: str | None, count: int, where: str) -> int | None:
    """Returns which choice a label means: its number, or its letter."""
    if label is None:
        return None
    place = -1
    if label.isdecimal() and len(label) < 4:
        place = int(label)
    elif len(label) == 1 and label.isascii() and label.isalpha():
        place = ord(label.upper()) - ord("A")
    if not 0 <= place < count:
        raise cell_values.BrokenRecord(
            f"{where}: the label {label!r} is none of the {count} choices: they are 0 "
            f"to {count - 1}, or A to {chr(ord('A') + count - 1)}. Mend or remove the "
            "record."
        )
    return place
