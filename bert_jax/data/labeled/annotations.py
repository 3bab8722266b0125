"""Exports of annotation tools, and texts with marked entities.

Label Studio: JSON (tasks with `data` and `annotations`), JSON-MIN and its CSV and TSV,
whose cells hold the regions as JSON. doccano: JSON lines with `label`, `labels` or
`entities`; the `annotations` of its first versions. `plain_annotations` turns them into
plain records: regions of text become {"start", "end", "type"}, choices a list of
labels, ratings a score.

`read_entities` reads entities as CLUENER writes them ({"text", "label": {type:
{surface: [[first, last]]}}}), as objects ({"text", "entities": [{"start", "end",
"type"}]}), or as lists ({"text", "label": [[start, end, type]]}), and lists of tokens
with tags.
"""

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bert_jax import errors
from bert_jax.data.labeled import examples, table_records, text_examples
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.data.labeled.table_records import BrokenRecord, TableRecord

OTHERS = "annotations left out after the first of their text"
SKIPPED = "tasks left out that nobody has annotated"

_ANNOTATIONS = ("annotations", "completions")
_REGIONS = ("labels", "hypertextlabels", "paragraphlabels")  # of Label Studio's results
_CANCELLED = ("was_cancelled", "skipped")


def plain_annotations(
    records: Iterable[TableRecord], has_tags: bool, notes: Counter[str]
) -> Iterator[TableRecord]:
    """Yields records with the annotations of exports in the usual columns.

    These are `entities` for tagging, `label` for text tasks and `score` for numbers.
    Other records are not changed. A region without start, end or label, or whose text
    differs, makes its record faulty.

    Raises:
      InputError: labels are numbers, and the export does not name them.
    """
    for record in records:
        if record.fault:
            yield record
            continue
        try:
            cells_of_annotation = _plain(record.cells, has_tags, record.where, notes)
        except BrokenRecord as error:
            yield record._replace(fault=error)
            continue
        if cells_of_annotation is None:
            notes[SKIPPED] += 1
        else:
            yield record._replace(cells=cells_of_annotation)


def _plain(
    cells: dict[str, Any], has_tags: bool, where: str, notes: Counter[str]
) -> dict[str, Any] | None:
    """Returns the plain cells of a record; None for a task without annotation."""
    if _is_task(cells):
        return _of_task(cells, has_tags, where, notes)
    if _is_old_doccano(cells):
        return _of_doccano(cells, has_tags, where)
    return _of_cells(cells, has_tags, where)


def _is_task(cells: Mapping[str, Any]) -> bool:
    """Returns whether a record is a Label Studio task."""
    has_list = any(isinstance(cells.get(name), list) for name in _ANNOTATIONS)
    return isinstance(cells.get("data"), dict) and has_list


def _of_task(
    cells: Mapping[str, Any], has_tags: bool, where: str, notes: Counter[str]
) -> dict[str, Any] | None:
    """Returns the data of a task with its annotation, or None without one."""
    plain = dict(cells["data"])
    if "id" in cells:
        plain["id"] = cells["id"]
    given = next(cells[n] for n in _ANNOTATIONS if isinstance(cells.get(n), list))
    given = [each for each in given if isinstance(each, dict)]
    given = [each for each in given if not any(each.get(name) for name in _CANCELLED)]
    if not given:
        return None
    notes[OTHERS] += len(given) - 1
    results = given[0].get("result")
    if not isinstance(results, list):
        raise _malformed_export(where, "has an annotation without its result")
    found = _values(results, where)
    text = next((x for x in plain.values() if isinstance(x, str)), "")
    if has_tags:
        texts = [x for name, x in plain.items() if isinstance(x, str) and name != "id"]
        text = plain["text"] if isinstance(plain.get("text"), str) else ""
        if not text and len(texts) == 1:
            text = plain["text"] = texts[0]
        plain["entities"] = [_region(x, text, where) for x in found if _label_of(x)]
        return plain
    labels = [x for each in found for x in _choices(each)]
    if labels or not any("rating" in x or "number" in x for x in found):
        plain["label"] = labels if len(labels) != 1 else labels[0]
    for value in found:
        for name in ("rating", "number"):
            if name in value:
                plain["score"] = value[name]
    return plain


def _values(results: list[Any], where: str) -> list[dict[str, Any]]:
    """Returns the values of the results of an annotation; relations have none."""
    found = [x["value"] for x in results if isinstance(x, dict) and "value" in x]
    if not all(isinstance(value, dict) for value in found):
        raise _malformed_export(where, "has a result whose value is not an object")
    return found


def _choices(value: Mapping[str, Any]) -> list[Any]:
    """Returns the choices of a value, or the leaves of a taxonomy."""
    if isinstance(value.get("choices"), list):
        return value["choices"]
    if isinstance(value.get("taxonomy"), list):
        return [path[-1] for path in value["taxonomy"] if isinstance(path, list)]
    return []


def _label_of(value: Mapping[str, Any]) -> list[Any]:
    """Returns the labels of a text region; [] for other values."""
    named = [value[x] for x in _REGIONS if isinstance(value.get(x), list)]
    return named[0] if named else []


def _region(value: Mapping[str, Any], text: str, where: str) -> dict[str, Any]:
    """Returns a region of Label Studio as an entity of `text`.

    Its offsets are JavaScript's: a character beyond U+FFFF counts twice.
    """
    labels = _label_of(value)
    start, end = value.get("start"), value.get("end")
    if len(labels) != 1 or type(start) is not int or type(end) is not int:
        raise _malformed_export(
            where,
            f"has the region {str(value)[:60]!r} without start, end and one label",
        )
    surface = value.get("text")
    if isinstance(surface, str) and text[max(start, 0) : end] != surface:
        units = text.encode("utf-16-le")
        before = units[: 2 * max(start, 0)].decode("utf-16-le", "ignore")
        if text.startswith(surface, len(before)):
            start, end = len(before), len(before) + len(surface)
        else:
            there = text[max(start, 0) : end]
            raise BrokenRecord(
                f"{where}: characters {start} to {end} are {there[:40]!r}, but the "
                f"region is {surface[:40]!r}. Export the text as it was annotated."
            )
    return {"start": start, "end": end, "type": labels[0]}


def _is_old_doccano(cells: Mapping[str, Any]) -> bool:
    """Returns whether a record is of doccano's first versions, with label numbers."""
    given = cells.get("annotations")
    return (
        isinstance(given, list)
        and isinstance(cells.get("text"), str)
        and all(isinstance(x, dict) and "label" in x for x in given)
    )


def _of_doccano(cells: Mapping[str, Any], has_tags: bool, where: str) -> dict[str, Any]:
    """Returns a record of doccano's first versions."""
    plain = {
        name: x for name, x in cells.items() if name not in ("annotations", "meta")
    }
    given = cells["annotations"]
    if not has_tags:
        labels = [x["label"] for x in given]
        return plain | {"label": labels if len(labels) != 1 else labels[0]}
    if any(type(x["label"]) is int for x in given):
        raise errors.InputError(
            f"{where}: its labels are numbers, and this export has no names for them. "
            "Export it as JSON lines with text labels (JSONL (Text-Labels))."
        )
    return plain | {"entities": given}


def _of_cells(cells: dict[str, Any], has_tags: bool, where: str) -> dict[str, Any]:
    """Returns a record with the regions and choices of its cells decoded."""
    plain = dict(cells)
    for name, value in cells.items():
        if isinstance(value, str) and value.startswith(('[{"', '{"choices"')):
            try:
                value = json.loads(value)
            except ValueError:
                continue
        if isinstance(value, dict) and set(value) == {"choices"}:
            plain[name] = value["choices"]
        elif _are_regions(value):
            text = cells["text"] if isinstance(cells.get("text"), str) else ""
            if has_tags:
                regions: Any = value
                plain["entities"] = [_region(x, text, where) for x in regions]
                if name != "entities":
                    del plain[name]
    return plain


def _are_regions(value: Any) -> bool:
    """Returns whether a value lists regions of Label Studio."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, dict) and _label_of(x) for x in value)
    )


def _malformed_export(where: str, what: str) -> BrokenRecord:
    return BrokenRecord(
        f"{where} {what}. Export it again as JSON or JSON-MIN of Label Studio."
    )


Stretch = tuple[int, int, str]  # characters [start, end), type

_STRETCHES = ("entities", "spans", "label", "labels")
# Keys of an entity object for start, end and type; the second ones are doccano's.
_ITEM_KEYS = (("start", "start_offset"), ("end", "end_offset"), ("type", "label"))
_TAGS = ("tags", "ner_tags", "labels", "pos_tags")
MOVED = "entities moved to where their text is"
DROPPED = "entities left out that are not in their text"
OVERLAPPING = "entities left out that overlap a longer one"
CUT = "entities that begin or end inside a word"


def read_entities(
    records: Iterable[TableRecord], request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.TaggedExample]:
    """Returns one sentence per record, with its entities as BIO tags on words.

    Words are split as in BERT, and also where an entity begins or ends inside one.

    Raises:
      InputError: an entity is not in its text, its text differs, or two overlap.
    """
    convert = functools.partial(_of_record, request=request, notes=notes)
    rows = zip(records, itertools.count())
    return table_records.converted(rows, convert, request, notes)


def _of_record(
    record: TableRecord, number: int, request: ExampleRequest, notes: Counter[str]
) -> examples.TaggedExample:
    """Returns the sentence of a record."""
    where, cells = record.where, record.cells
    name = cells["id"] if "id" in cells else number
    spelled = table_records.label(name, where) or str(number)
    if "tokens" in cells:
        return _of_tokens(cells, spelled, request, where)
    column = request.columns.text or "text"
    if column not in cells:
        raise BrokenRecord(
            f"{where}: there is no {column!r}, only {', '.join(map(repr, cells))}. "
            f"Name the text: {errors.setting('data.columns.text', 'NAME')}. Sentences "
            "with a token a row are lines of a token, a tab and its tag, with a blank "
            f"line after each sentence ({errors.setting('data.format', 'conll')})."
        )
    is_open = request.takes_empty
    text = table_records.text(cells[column], column, where, may_be_empty=is_open)
    found = _stretches(cells, text, request, where, notes)
    if found is not None:
        found = _without_overlaps(found, request, where, notes)
    return _of_stretches(text, found, spelled, where, notes)


def _of_tokens(
    cells: Mapping[str, Any], name: str, request: ExampleRequest, where: str
) -> examples.TaggedExample:
    """Returns the example of a list of tokens and a list of tags."""
    tokens = cells["tokens"]
    given = (request.columns.tag,) if request.columns.tag else _TAGS
    tags = next((cells[each] for each in given if each in cells), None)
    are_texts = isinstance(tokens, list) and all(isinstance(x, str) for x in tokens)
    is_full = bool(tokens) or request.takes_empty
    if not (are_texts and is_full and all(map(str.strip, tokens))):
        raise BrokenRecord(
            f"{where}: 'tokens' must be a list of texts, none of them empty. Fix the "
            "record."
        )
    if tags is None and request.needs_labels:
        raise BrokenRecord(
            f"{where}: there are no tags in {', '.join(given)}, only "
            f"{', '.join(map(repr, cells))}. Name them: "
            f"{errors.setting('data.columns.tag', 'NAME')}."
        )
    if not isinstance(tags, list | None):
        raise BrokenRecord(
            f"{where}: the tags must be a list, not {str(tags)[:60]!r}. Fix the record."
        )
    if tags is not None and len(tags) != len(tokens):
        raise BrokenRecord(
            f"{where} has {len(tokens)} tokens and {len(tags)} tags. Fix the record."
        )
    text, spans = text_examples.join_tokens(tokens)
    table_records.check_unicode(text, where)
    spelled = tuple(_tag(each, where) for each in tags) if tags else None
    return examples.TaggedExample(where, name, text, spans, spelled)


def _tag(value: Any, where: str) -> str:
    spelled = table_records.label(value, where)
    if spelled is None:
        raise BrokenRecord(f"{where}: a tag is empty. Fix the record.")
    return spelled


def _stretches(
    cells: Mapping[str, Any],
    text: str,
    request: ExampleRequest,
    where: str,
    notes: Counter[str],
) -> list[Stretch] | None:
    """Returns the entities of a record, or None without labels."""
    given = (request.columns.label,) if request.columns.label else _STRETCHES
    column = next((each for each in given if each in cells), None)
    value = None if column is None else cells[column]
    if value is None:
        if request.needs_labels:
            raise BrokenRecord(
                f"{where}: the label is missing: there is no column "
                f"{', '.join(given)}. Add it, remove the record, or set "
                f"{errors.setting('data.columns.label', 'NAME')}.",
                table_records.UNLABELED,
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
            raise BrokenRecord(
                f"{where}: the entity {kind!r} is characters {start} to {end} of a "
                f"text of {len(text)}. Fix or remove it."
            )
    return found


def _of_surfaces(
    types: Mapping[str, Any],
    text: str,
    request: ExampleRequest,
    where: str,
    notes: Counter[str],
) -> Iterator[Stretch]:
    """Yields the entities of CLUENER's format, whose ends are inclusive."""
    for kind, surfaces in types.items():
        if not isinstance(surfaces, dict):
            raise _malformed(surfaces, where)
        for surface, positions in surfaces.items():
            for position in positions if isinstance(positions, list) else [positions]:
                start, last, _ = _of_item([*_list(position, where), kind], where)
                if text[max(start, 0) : last + 1] != surface:
                    if request.repair:
                        yield from _moved(surface, start, kind, text, notes)
                        continue
                    raise errors.InputError(
                        f"{where}: characters {start} to {last} are "
                        f"{text[max(start, 0) : last + 1]!r} and not {surface!r}. Fix "
                        "or remove the entity (its last number is its last character), "
                        f"or set {errors.setting('data.repair')}, which moves it to "
                        "where its text is."
                    )
                yield start, last + 1, kind


def _moved(
    surface: str, start: int, kind: str, text: str, notes: Counter[str]
) -> Iterator[Stretch]:
    """Yields the entity at the nearest occurrence of its text, if there is one."""
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
    """Returns the entity of an object or a list."""
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


def _malformed(value: Any, where: str) -> BrokenRecord:
    return BrokenRecord(
        f"{where}: {str(value)[:60]!r} is not an entity. Write "
        f"{{type: {{surface: [[first, "
        'last]]}}, or [{"start": 0, "end": 2, "type": "name"}].'
    )


def _without_overlaps(
    found: list[Stretch], request: ExampleRequest, where: str, notes: Counter[str]
) -> list[Stretch]:
    """Returns entities that do not overlap, in order.

    Of two the longer is kept, of equally long ones the first in the text, then the
    first of the record.
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
                "another. Remove one of them, or set "
                f"{errors.setting('data.repair')}: it keeps the longer."
            )
        notes[OVERLAPPING] += 1
    return sorted(kept)


def _of_stretches(
    text: str, found: list[Stretch] | None, name: str, where: str, notes: Counter[str]
) -> examples.TaggedExample:
    """Returns an example whose tokens are words, and whose tags are BIO."""
    whole = text_examples.split_words(text)
    if found is None:
        return examples.TaggedExample(where, name, text, tuple(whole))
    ends = [end for start, stop, _ in found for end in (start, stop)]
    cut = text_examples.split_words(text, ends)
    inside = {at for start, end in whole for at in range(start + 1, end)}
    if cuts := sum(start in inside or end in inside for start, end, _ in found):
        notes[CUT] += cuts
    tags = ["O"] * len(cut)
    for start, end, kind in found:
        covered = [i for i, word in enumerate(cut) if start <= word[0] < end]
        for at, i in enumerate(covered):
            tags[i] = f"{'I' if at else 'B'}-{kind}"
    return examples.TaggedExample(where, name, text, tuple(cut), tuple(tags))
