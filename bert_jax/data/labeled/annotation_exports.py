"""Exports of annotation tools as the records that other readers take.

Label Studio: JSON (tasks with `data` and `annotations`), JSON-MIN and its CSV and TSV,
whose cells hold the regions as JSON. doccano: JSON lines with `label`, `labels` or
`entities`; the `annotations` of its first versions. Regions of text become
{"start", "end", "type"}, choices a list of labels, ratings a score.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bert_jax import errors
from bert_jax.data.labeled import cell_values, table_records

OTHERS = "annotations left out after the first of their text"
SKIPPED = "tasks left out that nobody has annotated"

_ANNOTATIONS = ("annotations", "completions")
_REGIONS = ("labels", "hypertextlabels", "paragraphlabels")  # of Label Studio's results
_CANCELLED = ("was_cancelled", "skipped")


def plain(
    records: Iterable[table_records.Record], task: str, notes: Counter[str]
) -> Iterator[table_records.Record]:
    """Yields records with the annotations of exports in the usual cells.

    `entities` for tagging, `label` for tasks of texts, `score` for numbers; every
    other record stays as it is.

    A region without start, end or label, or that is not its text, is a fault of its
    record.

    Raises:
      InputError: labels are numbers, and the export does not name them.
    """
    for record in records:
        if record.fault:
            yield record
            continue
        try:
            made = _plain(record.cells, task, record.where, notes)
        except cell_values.BrokenRecord as error:
            yield record._replace(fault=error)
            continue
        if made is None:
            notes[SKIPPED] += 1
        else:
            yield record._replace(cells=made)


def _plain(
    cells: dict[str, Any], task: str, where: str, notes: Counter[str]
) -> dict[str, Any] | None:
    """Returns the usual cells of a record; None for a task without annotation."""
    if _is_task(cells):
        return _of_task(cells, task, where, notes)
    if _is_old_doccano(cells):
        return _of_doccano(cells, task, where)
    return _of_cells(cells, task, where)


def _is_task(cells: Mapping[str, Any]) -> bool:
    """Says whether a record is a task of Label Studio."""
    has_list = any(isinstance(cells.get(name), list) for name in _ANNOTATIONS)
    return isinstance(cells.get("data"), dict) and has_list


def _of_task(
    cells: Mapping[str, Any], task: str, where: str, notes: Counter[str]
) -> dict[str, Any] | None:
    """Returns the data of a task with its annotation; None if there is none."""
    made = dict(cells["data"])
    if "id" in cells:
        made["id"] = cells["id"]
    given = next(cells[n] for n in _ANNOTATIONS if isinstance(cells.get(n), list))
    given = [each for each in given if isinstance(each, dict)]
    given = [each for each in given if not any(each.get(name) for name in _CANCELLED)]
    if not given:
        return None
    notes[OTHERS] += len(given) - 1
    results = given[0].get("result")
    if not isinstance(results, list):
        raise _malformed(where, "has an annotation without its result")
    found = _values(results, where)
    text = next((x for x in made.values() if isinstance(x, str)), "")
    if task == "tagging":
        texts = [x for name, x in made.items() if isinstance(x, str) and name != "id"]
        text = made["text"] if isinstance(made.get("text"), str) else ""
        if not text and len(texts) == 1:
            text = made["text"] = texts[0]
        made["entities"] = [_region(x, text, where) for x in found if _label_of(x)]
        return made
    labels = [x for each in found for x in _choices(each)]
    if labels or not any("rating" in x or "number" in x for x in found):
        made["label"] = labels if len(labels) != 1 else labels[0]
    for value in found:
        for name in ("rating", "number"):
            if name in value:
                made["score"] = value[name]
    return made


def _values(results: list[Any], where: str) -> list[dict[str, Any]]:
    """Returns the values of the results of an annotation; relations have none."""
    found = [x["value"] for x in results if isinstance(x, dict) and "value" in x]
    if not all(isinstance(value, dict) for value in found):
        raise _malformed(where, "has a result whose value is no object")
    return found


def _choices(value: Mapping[str, Any]) -> list[Any]:
    """Returns the choices of a value, or the leaves of a taxonomy."""
    if isinstance(value.get("choices"), list):
        return value["choices"]
    if isinstance(value.get("taxonomy"), list):
        return [path[-1] for path in value["taxonomy"] if isinstance(path, list)]
    return []


def _label_of(value: Mapping[str, Any]) -> list[Any]:
    """Returns the labels of a region; [] for a value that is no region of text."""
    named = [value[x] for x in _REGIONS if isinstance(value.get(x), list)]
    return named[0] if named else []


def _region(value: Mapping[str, Any], text: str, where: str) -> dict[str, Any]:
    """Returns a region of Label Studio as an entity of `text`.

    Its offsets count what JavaScript counts, two for a character beyond U+FFFF.
    """
    labels = _label_of(value)
    start, end = value.get("start"), value.get("end")
    if len(labels) != 1 or type(start) is not int or type(end) is not int:
        raise _malformed(
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
            raise cell_values.BrokenRecord(
                f"{where}: characters {start} to {end} are {there[:40]!r}, and the "
                f"region says {surface[:40]!r}. Export the text as it was annotated."
            )
    return {"start": start, "end": end, "type": labels[0]}


def _is_old_doccano(cells: Mapping[str, Any]) -> bool:
    """Says whether a record is of doccano's first versions: labels by number."""
    given = cells.get("annotations")
    return (
        isinstance(given, list)
        and isinstance(cells.get("text"), str)
        and all(isinstance(x, dict) and "label" in x for x in given)
    )


def _of_doccano(cells: Mapping[str, Any], task: str, where: str) -> dict[str, Any]:
    """Returns a record of doccano's first versions."""
    made = {name: x for name, x in cells.items() if name not in ("annotations", "meta")}
    given = cells["annotations"]
    if task != "tagging":
        labels = [x["label"] for x in given]
        return made | {"label": labels if len(labels) != 1 else labels[0]}
    if any(type(x["label"]) is int for x in given):
        raise errors.InputError(
            f"{where}: its labels are numbers, and this export does not name them. "
            "Export it as JSON lines with text labels (JSONL (Text-Labels))."
        )
    return made | {"entities": given}


def _of_cells(cells: dict[str, Any], task: str, where: str) -> dict[str, Any]:
    """Returns a record in which regions and choices are read from their cells."""
    made = dict(cells)
    for name, value in cells.items():
        if isinstance(value, str) and value.startswith(('[{"', '{"choices"')):
            try:
                value = json.loads(value)
            except ValueError:
                continue
        if isinstance(value, dict) and set(value) == {"choices"}:
            made[name] = value["choices"]
        elif _are_regions(value):
            text = cells["text"] if isinstance(cells.get("text"), str) else ""
            if task == "tagging":
                regions: Any = value
                made["entities"] = [_region(x, text, where) for x in regions]
                if name != "entities":
                    del made[name]
    return made


def _are_regions(value: Any) -> bool:
    """Says whether a value lists regions of Label Studio."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, dict) and _label_of(x) for x in value)
    )


def _malformed(where: str, what: str) -> cell_values.BrokenRecord:
    return cell_values.BrokenRecord(
        f"{where} {what}. Export it again as JSON or JSON-MIN of Label Studio."
    )
