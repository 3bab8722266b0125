"""Reads labeled examples of any task from any supported file.

    request = read_examples.Request("dev.tsv", form)  # of a task
    found = read_examples.read(request)         # all of them, with labels
    found.examples, found.notes                 # a list, and what was counted
    for example in read_examples.iterate(request):  # streams; labels where there are
        ...

Errors in a file are InputErrors that name the line and the fix.
"""

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import file_formats, hub_dataset, text_files
from bert_jax.data.labeled import (
    annotations,
    examples,
    python_examples,
    question_examples,
    table_records,
    tables,
    tags,
)
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.data.labeled.table_records import TableRecord
from bert_jax.foundation import hub, interrupts, json_file

# What callers make a request of, under the name of the room they ask.
Request = ExampleRequest
Columns = examples.ColumnNames

UNANSWERED = "questions left out that are left without an answer"
RENAMED = "ids that came again and got a number"
_PREFIXES = ("tfds", "package")  # not files; each is the name of its format
_SUFFIXES = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".conllu": "conllu",
    ".conll": "conll",
    ".bio": "conll",
    ".bioes": "conll",
    ".iob": "conll",
    ".iob2": "conll",
}
# The format of a table for a task without tables.
_OTHERWISE = {"jsonl": "spans", "tsv": "conll"}


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of a file, in its order.

    Attributes:
      examples: examples of the type of the task.
      notes: counts of what was left out or repaired, by description.
    """

    examples: list[examples.Example]
    notes: dict[str, int]


def read(request: Request) -> Examples:
    """Reads the examples of a file, all with labels.

    Matching needs none: there all examples have a label or a score, or none has.

    Raises:
      InputError: the file does not have its format, a label is missing, an id is not
        unique, or there is no example; the message names file, line and fix.
    """
    notes = table_records.Notes()
    request = _with_commit(request)
    return _whole(_examples(request, notes), request, notes)


def of_python(values: Any, request: Request) -> Examples:
    """Returns examples given from Python; see `python_examples`.

    Raises:
      InputError: as `read`; the message names the position of the example.
    """
    notes = table_records.Notes()
    records, request = python_examples.records_of_python(values, request)
    if not records:
        raise errors.InputError(f"{request.path} has no example: give one or more")
    found = _of_records(iter(records), request, notes)
    return _whole(found, request, notes)


def _whole(
    loaded: Iterator[examples.Example], request: Request, notes: table_records.Notes
) -> Examples:
    """Returns all examples, checked where one depends on the others."""
    found = list(_unique(loaded, request, notes))
    if request.form.is_question and request.needs_labels:
        answered = [e for e in found if not _is_unanswered(e)]
        if len(answered) < len(found):
            notes[UNANSWERED] += len(found) - len(answered)
        found = answered
    if not request.form.needs_target:
        _check_half_labeled(found)
    if not found:
        raise _no_examples(request, notes)
    return Examples(found, notes)


def first_line(request: Request) -> tables.FirstLine | None:
    """Returns what the first line of a table is taken as; None of other formats.

    Of a split of the hub it is that of the first file.

    Raises InputError as `read` does.
    """
    kind = format_of(request)
    if kind not in tables.WITH_HEADERS:
        return None
    if not hub.is_name(request.path):
        return tables.first_line(kind, _file(request), request)
    asked = _of_the_hub(request)
    file = hub_dataset.find(str(request.path)).files[0]
    found = tables.first_line(kind, file, asked)
    is_given = request.header != "auto"
    return found and dataclasses.replace(found, is_given=is_given)


def iterate(
    request: Request, notes: Counter[str] | None = None
) -> Iterator[examples.Example]:
    """Yields the examples of a file in its order, without holding it in memory.

    Labels and their columns may be missing. Only documents in the format of SQuAD are
    read into memory, and only their ids are checked. Counts are added to `notes`.

    Raises InputError as `read` does.
    """
    notes = table_records.Notes() if notes is None else notes
    request = _with_commit(request)
    request = dataclasses.replace(
        request, needs_labels=False, format=format_of(request)
    )
    found = _examples(request, notes)
    if request.format == "squad":
        found = _unique(found, request, notes)
    is_empty = True
    for example in found:
        interrupts.check()
        is_empty = False
        yield example
    if is_empty:
        raise _no_examples(request, notes)


def _with_commit(request: Request) -> Request:
    """Returns a request in which a name on the hub is pinned to a commit."""
    name = hub_dataset.pinned(str(request.path))
    return dataclasses.replace(
        request, path=name if hub.is_name(name) else request.path
    )


def _examples(request: Request, notes: Counter[str]) -> Iterator[examples.Example]:
    """Yields the examples of a file, or of a split, by its format and the task."""
    if hub.is_name(request.path):
        return _examples_of_split(request, notes)
    kind, file = format_of(request), _file(request)
    if kind == "package":
        loaded, found = tables.read_package(str(request.path))
        notes.update(found)
        return iter(loaded)
    if kind == "conll":
        return tags.read_conll(file, request, notes)
    if kind == "conllu":
        return tags.read_conllu(file, request, notes)
    if kind == "squad":
        return question_examples.read(file, request, notes)
    return _of_records(tables.records(kind, file, request, notes), request, notes)


def _examples_of_split(
    request: Request, notes: Counter[str]
) -> Iterator[examples.Example]:
    """Yields the examples of a split of the hub: of all its files, as of one."""
    split = hub_dataset.find(str(request.path))
    request = _of_the_hub(request)
    kind = request.format
    files = [dataclasses.replace(request, path=file.path) for file in split.files]
    if kind in ("conll", "conllu", "squad"):
        yield from itertools.chain.from_iterable(_examples(x, notes) for x in files)
        return
    records = itertools.chain.from_iterable(
        tables.records(kind, _file(each), each, notes) for each in files
    )
    yield from _of_records(hub_dataset.named(records, split), request, notes)


def _of_the_hub(request: Request) -> Request:
    """Returns a request with its format; tables of the hub begin with a header."""
    header = "true" if request.header == "auto" else request.header
    return dataclasses.replace(request, format=format_of(request), header=header)


def _of_records(
    records: Iterator[TableRecord], request: Request, notes: Counter[str]
) -> Iterator[examples.Example]:
    """Yields the examples of the records of a table by the task."""
    form = request.form
    if form.is_text or form.has_tags:
        records = annotations.plain_annotations(records, form.has_tags, notes)
    return form.read(records, request, notes)


def _file(request: Request) -> text_files.NamedPath:
    path = Path(request.path)
    return text_files.NamedPath(path.name, path)


def format_of(request: Request) -> str:
    """Returns the format of a file, as given or detected from name and content.

    Raises InputError as `read` does, where the file does not show its format.
    """
    if hub.is_name(request.path):
        first = hub_dataset.find(str(request.path)).files[0].path
        return format_of(dataclasses.replace(request, path=first))
    allowed = request.form.formats
    prefix, colon, _ = str(request.path).partition(":")
    if colon and prefix in _PREFIXES:
        kind = prefix
    elif not os.path.exists(request.path):
        raise errors.InputError(
            f"{request.path} does not exist. Check the path of the data."
        )
    elif not Path(request.path).is_file() and not Path(request.path).is_dir():
        raise errors.InputError(
            f"{request.path} is not a regular file; save it to one, because the data "
            "are read twice."
        )
    elif request.format != "auto":
        return request.format
    else:
        kind = _format_of_file(request)
    if kind not in allowed:
        problem = f"seems to be {kind}" if kind else "does not show its format"
        if not request.needs_labels and request.form.is_text:
            allowed = ("lines (a text a line)", *allowed)  # of predict
        raise errors.InputError(
            f"{request.path} {problem}: for {request.form.task} set "
            f"{errors.setting('data.format')} to one of {', '.join(allowed)}"
        )
    return kind


def _format_of_file(request: Request) -> str:
    """Returns the format of a file by its content and name, or "" where none shows."""
    kind = file_formats.binary_kind(Path(request.path))
    if kind:
        return kind
    head = text_files.head(_file(request), file_formats.HEAD_BYTES).decode(
        "utf-8", "replace"
    )
    kind = file_formats.text_kind(head.encode())
    if kind == "html":
        raise errors.InputError(
            f"{request.path} is an HTML page, as a download that failed leaves one. "
            "Download the file itself, and look into it."
        )
    if kind == "xml":
        raise errors.InputError(
            f"{request.path} is XML. Write its examples to a table or to JSON lines."
        )
    is_named = re.search(
        r"\.(json|jsonl|ndjson)(\.gz|\.bz2)?$", str(request.path).lower()
    )
    if kind in ("jsonl", "json") or (is_named and head.lstrip()[:1] in ("{", "[")):
        return _format_of_json(head.lstrip(), request)
    named = _format_of_name(request)
    formats = request.form.formats
    if named is None and "conll" in formats and not request.needs_labels:
        if tags.are_sentences(head.split("\n")[:50], request):
            raise errors.InputError(
                f"{request.path} looks like one text a line, not one token: set "
                f"{errors.setting('data.format', 'lines')} for texts, or "
                f"{errors.setting('data.format', 'conll')} for tokens"
            )
    if named is None and {"conll", "conllu"} & {*formats}:
        return "conllu" if _is_conllu(head) else "conll"
    if named is None and kind == "csv" and "\t" not in head.partition("\n")[0]:
        named = "csv"
    named = named or ("tsv" if "\t" in head.partition("\n")[0] else "")
    return "csv" if named == "tsv" and file_formats.is_quoted(head) else named


def _format_of_name(request: Request) -> str | None:
    name = Path(request.path).name.lower()
    name = name.removesuffix(".gz").removesuffix(".bz2")
    suffix = Path(name).suffix
    if suffix not in _SUFFIXES:
        return None
    kind = _SUFFIXES[suffix]
    formats, other = request.form.formats, _OTHERWISE.get(kind)
    return other if other in formats and kind not in formats else kind


def _format_of_json(head: str, request: Request) -> str:
    """Returns the format of JSON by the task."""
    formats = request.form.formats
    if "spans" in formats:
        return "spans"
    if "c3" in formats and re.match(r"\[\s*\[", head):
        return "c3"
    if "squad" in formats and not _is_record(head.partition("\n")[0]):
        is_squad = any(f'"{name}"' in head for name in ("data", "paragraphs", "qas"))
        return "squad" if is_squad else "jsonl"
    return "jsonl"


def _is_record(line: str) -> bool:
    """Returns whether a line is a record, and not a document of SQuAD."""
    try:
        value = json_file.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and "data" not in value


def _is_conllu(head: str) -> bool:
    """Returns whether the first line after comments has the columns of CoNLL-U."""
    for line in head.split("\n"):
        if line.strip() and not line.startswith("#"):
            cells = line.split("\t")
            return len(cells) >= 8 and cells[0].partition("-")[0] == "1"
    return False


def _unique(
    loaded: Iterator[examples.Example], request: Request, notes: Counter[str]
) -> Iterator[examples.Example]:
    """Yields examples; a duplicate id is an InputError, or numbered on request."""
    first: dict[str, str] = {}
    times: Counter[str] = Counter()
    for example in loaded:
        interrupts.check()
        if example.id not in first:
            first[example.id] = example.where
            yield example
            continue
        if not request.repair:
            raise errors.InputError(
                f"{example.where}: the id {example.id!r} is already used at "
                f"{first[example.id]}. Remove one of them, set "
                f"{errors.setting('data.repair')} (the second becomes {example.id}#2), "
                f"or set {errors.setting('data.columns.id', 'none')} where examples "
                "may be numbered."
            )
        notes[RENAMED] += 1
        name = example.id
        while name in first:
            times[example.id] += 1
            name = f"{example.id}#{times[example.id] + 1}"
        first[name] = example.where
        yield dataclasses.replace(example, id=name)


def _is_unanswered(example: examples.Example) -> bool:
    return isinstance(example, examples.QuestionExample) and not example.labeled


def _check_half_labeled(found: list[examples.Example]) -> None:
    """Raises InputError where some of the examples of matching have a label."""
    for name in ("labels", "score"):
        has = [getattr(example, name) is not None for example in found]
        if any(has) and not all(has):
            without = found[has.index(False)]
            raise errors.InputError(
                f"{without.where}: the {name.removesuffix('s')} is missing, and "
                f"{sum(has):,} of {len(has):,} examples have one. Fill it, or remove "
                "the record, or name no such column."
            )


def _no_examples(request: Request, notes: Counter[str]) -> errors.InputError:
    if described := table_records.describe_all(str(request.path), notes):
        return errors.InputError(f"{request.path} has no example: {described}")
    return errors.InputError(
        f"{request.path} has no example. Check the file, and "
        f"{errors.setting('data.format')}."
    )
