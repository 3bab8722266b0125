"""Texts with marked stretches, and lists of tokens with tags, as JSON lines have them.

Stretches come as CLUENER writes them ({"text", "label": {type: {surface: [[first,
last]]}}}), as a list of objects ({"text", "entities": [{"start", "end", "type"}]}), or
as a list of lists ({"text", "label": [[start, end, type]]}).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bert_jax import errors
from bert_jax.data.corpus import left_out
from bert_jax.data.labeled import (
    cell_values,
    example_request,
    examples,
    joined_tokens,
    table_records,
)

Stretch = tuple[int, int, str]  # characters [start, end), type

_STRETCHES = ("entities", "spans", "label", "labels")
# The keys of an object, by start, end and type; the others are those of doccano.
_ITEM_KEYS = (("start", "start_offset"), ("end", "end_offset"), ("type", "label"))
_TAGS = ("tags", "ner_tags", "labels", "pos_tags")
MOVED = "entities moved to where their text is"
DROPPED = "entities left out that are not in their text"
OVERLAPPING = "entities left out that overlap a longer one"
CUT = "entities that begin or end inside a word"


def read(
    records: Iterable[table_records.Record],
    request: example_request.Request,
    notes: Counter[str],
) -> Iterator[examples.TaggedExample]:
    """Yields a sentence a record, its entities as BIO tags on words.

    Words are those of BERT, cut again where an entity begins or ends inside one.

    Raises:
      InputError: a stretch is not in its text, is not the text it should be, or two of
        them overlap.
    """
    for number, record in enumerate(records):
        try:
            if record.fault:
                raise record.fault
            made = _of_record(record, number, request, notes)
        except cell_values.BrokenRecord as error:
            left_out.leave_out(error, record.where, request, notes)
            continue
        yield made


def _of_record(
    record: table_records.Record,
    number: int,
    request: example_request.Request,
    notes: Counter[str],
) -> examples.TaggedExample:
    """Returns the sentence of a record."""
    where, cells = record.where, record.cells
    name = cells["id"] if "id" in cells else number
    spelled = cell_values.label(name, where) or str(number)
    if "tokens" in cells:
        return _of_tokens(cells, spelled, request, where)
    column = request.columns.text or "text"
    if column not in cells:
        raise cell_values.BrokenRecord(
            f"{where}: there is no {column!r}, only {', '.join(map(repr, cells))}. "
            "Name the text: data.columns.text. Sentences with a token a row are read "
            "as lines of a token, a tab and its tag, a blank line after each sentence "
            "(data.format=conll)."
        )
    is_open = request.takes_empty
    text = cell_values.text(cells[column], column, where, may_be_empty=is_open)
    found = _stretches(cells, text, request, where, notes)
    if found is not None:
        found = _apart(found, request, where, notes)
    return _of_stretches(text, found, spelled, where, notes)


def _of_tokens(
    cells: Mapping[str, Any],
    name: str,
    request: example_request.Request,
    where: str,
) -> examples.TaggedExample:
    """Returns the example of a list of tokens and a list of tags."""
    tokens = cells["tokens"]
    given = (request.columns.tag,) if request.columns.tag else _TAGS
    tags = next((cells[each] for each in given if each in cells), None)
    are_texts = isinstance(tokens, list) and all(isinstance(x, str) for x in tokens)
    is_full = bool(tokens) or request.takes_empty
    if not (are_texts and is_full and all(map(str.strip, tokens))):
        raise cell_values.BrokenRecord(
            f"{where}: 'tokens' are no list of texts, or one is empty. Mend the record."
        )
    if tags is None and request.needs_labels:
        raise cell_values.BrokenRecord(
            f"{where}: there are no tags in {', '.join(given)}, only "
            f"{', '.join(map(repr, cells))}. Name them: data.columns.tag."
        )
    if not isinstance(tags, list | None):
        raise cell_values.BrokenRecord(
            f"{where}: the tags are no list, but {str(tags)[:60]!r}. Mend the record."
        )
    if tags is not None and len(tags) != len(tokens):
        raise cell_values.BrokenRecord(
            f"{where} has {len(tokens)} tokens and {len(tags)} tags. Mend the record."
        )
    text, spans = joined_tokens.join(tokens)
    cell_values.check_unicode(text, where)
    spelled = tuple(_tag(each, where) for each in tags) if tags else None
    return examples.TaggedExample(where, name, text, spans, spelled)


def _tag(value: Any, where: str) -> str:
    spelled = cell_values.label(value, where)
    if spelled is None:
        raise cell_values.BrokenRecord(f"{where}: a tag is empty. Mend the record.")
    return spelled


def _stretches(
    cells: Mapping[str, Any],
    text: str,
    request: example_request.Request,
    where: str,
    notes: Counter[str],
) -> list[Stretch] | None:
    """Returns the stretches of a record, or None where it has none."""
    given = (request.columns.label,) if request.columns.label else _STRETCHES
    column = next((each for each in given if each in cells), None)
    value = None if column is None else cells[column]
    if value is None:
        if request.needs_labels:
            raise cell_values.BrokenRecord(
                f"{where}: the label is missing; there is none of {', '.join(given)}. "
                "Add it, name it (data.columns.label), or remove the record.",
                cell_values.UNLABELED,
            )
        return None
    if isinstance(value, dict):
        found = list(_of_surfaces(value, text, request, where, notes))
    elif isinstance(value, list):
        found = [_of_item(item, where) for item in value]
    else:
        raise _malformed(value, where)
    for start, end, kind in found:
        if not (0 <= start < end <= len(text) and kind):
            raise cell_values.BrokenRecord(
                f"{where}: the entity {kind!r} is characters {start} to {end} of a "
                f"text of {len(text)}. Mend or remove it."
            )
    return found


def _of_surfaces(
    types: Mapping[str, Any],
    text: str,
    request: example_request.Request,
    where: str,
    notes: Counter[str],
) -> Iterator[Stretch]:
    """Yields the stretches of CLUENER's shape, whose ends are the last characters."""
    for kind, surfaces in types.items():
        if not isinstance(surfaces, dict):
            raise _malformed(surfaces, where)
        for surface, places in surfaces.items():
            for place in places if isinstance(places, list) else [places]:
                start, last, _ = _of_item([*_list(place, where), kind], where)
                if text[max(start, 0) : last + 1] != surface:
                    if request.repair:
                        yield from _moved(surface, start, kind, text, notes)
                        continue
                    raise errors.InputError(
                        f"{where}: characters {start} to {last} are "
                        f"{text[max(start, 0) : last + 1]!r} and not {surface!r}. Mend "
                        "or remove the entity (its last number is its last character), "
                        "or set data.repair, which moves it to where its text is."
                    )
                yield start, last + 1, kind


def _moved(
    surface: str, start: int, kind: str, text: str, notes: Counter[str]
) -> Iterator[Stretch]:
    """Yields the stretch where its text is, nearest to its start, if it is anywhere."""
    starts = [x.start() for x in re.finditer(re.escape(surface), text)]
    if not surface.strip() or not starts:
        notes[DROPPED] += 1
        return
    notes[MOVED] += 1
    nearest = min(starts, key=lambda at: abs(at - start))
    yield nearest, nearest + len(surface), kind


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _malformed(value, where)
    return value


def _of_item(item: Any, where: str) -> Stretch:
    """Returns the stretch of an object or a list."""
    if isinstance(item, dict):
        parts = [[item[key] for key in keys if key in item] for keys in _ITEM_KEYS]
        if not all(parts):
            raise _malformed(item, where)
        item = [part[0] for part in parts]
    if not (
        isinstance(item, list)
        and len(item) == 3
        and all(type(number) is int for number in item[:2])
        and isinstance(item[2], str)
    ):
        raise _malformed(item, where)
    return item[0], item[1], item[2]


def _malformed(value: Any, where: str) -> cell_values.BrokenRecord:
    return cell_values.BrokenRecord(
        f"{where}: {str(value)[:60]!r} is no entity. Write {{type: {{surface: [[first, "
        'last]]}}, or [{"start": 0, "end": 2, "type": "name"}].'
    )


def _apart(
    found: list[Stretch],
    request: example_request.Request,
    where: str,
    notes: Counter[str],
) -> list[Stretch]:
    """Returns stretches that do not overlap, in order.

    Of two the longer is kept, of two equally long ones that come first, then the first
    of the record.
    """
    kept: list[Stretch] = []
    for start, end, kind in sorted(
        dict.fromkeys(found), key=lambda s: (s[0] - s[1], s[0])
    ):
        if all(end <= other[0] or other[1] <= start for other in kept):
            kept.append((start, end, kind))
            continue
        if not request.repair:
            raise errors.InputError(
                f"{where}: the entity {kind!r} at characters {start} to {end} overlaps "
                "another. Remove one of them, or set data.repair: it keeps the longer."
            )
        notes[OVERLAPPING] += 1
    return sorted(kept)


def _of_stretches(
    text: str,
    found: list[Stretch] | None,
    name: str,
    where: str,
    notes: Counter[str],
) -> examples.TaggedExample:
    """Returns an example whose tokens are words, and whose tags are BIO."""
    whole = joined_tokens.words(text)
    if found is None:
        return examples.TaggedExample(where, name, text, tuple(whole))
    ends = [end for start, stop, _ in found for end in (start, stop)]
    cut = joined_tokens.words(text, ends)
    inside = {place for start, end in whole for place in range(start + 1, end)}
    if cuts := sum(start in inside or end in inside for start, end, _ in found):
        notes[CUT] += cuts
    tags = ["O"] * len(cut)
    for start, end, kind in found:
        covered = [i for i, word in enumerate(cut) if start <= word[0] < end]
        for place, i in enumerate(covered):
            tags[i] = f"{'I' if place else 'B'}-{kind}"
    return examples.TaggedExample(where, name, text, tuple(cut), tuple(tags))
