"""Labeled examples that Python hands over, for every task.

    [(text, label), (text, text_pair, label)]      classification, regression, matching
    [text, ...]                                    matching of raw texts (SimCSE)
    [(tokens, tags), (text, [(start, end, type)])] tagging
    [(tokens, predicate, roles)]                   srl; predicate: a number from 0
    [(question, context, answers)]                 span; no answer: None or ""
    [(context, [choice, ...], label)]              multiple_choice

or dicts, a dict of columns, or a data frame (pandas, polars, pyarrow, `datasets`), with
the names that the columns of files have. Examples become records, so that what a file
may have, Python may have too, and errors name the example by its position.
"""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data.labeled import (
    cell_values,
    example_request,
    examples,
    joined_tokens,
    table_records,
)

# What the path of such examples begins with; their sha256 follows.
PREFIX = "python:"
_TEXTS = ("text", "text_pair")
_FORMS = {
    "classification": "(text, label) or (text, text_pair, label)",
    "regression": "(text, score) or (text, text_pair, score)",
    "matching": "(text, text_pair), with a label or score as third, or a text",
    "tagging": "(tokens, tags) or (text, [(start, end, type)])",
    "srl": "(tokens, predicate, roles)",
    "span": "(question, context, answers)",
    "multiple_choice": "(context, choices, label)",
}


def records(
    values: Any, request: example_request.Request
) -> tuple[list[table_records.Record], example_request.Request]:
    """Returns one record an example, and how records are read.

    Args:
      values: as above.
      request: of the task; its `path` names the values in messages.

    Raises:
      InputError: a value does not have the form that the task takes.
    """
    name, task = str(request.path), request.task
    rows = _rows(values, name)
    made = []
    are_tuples = False
    for number, value in enumerate(rows):
        where = f"{name}[{number}]"
        value = _plain(value)
        if not isinstance(value, Mapping):
            are_tuples = True
            value = _named(task, value, where)
        made.append(table_records.Record(where, dict(value)))
    if task == "matching" and are_tuples:
        made = _scores_or_labels(made)
    if are_tuples:  # they have no columns that could be named
        request = dataclasses.replace(request, columns=example_request.Columns())
    return made, request


def _rows(values: Any, name: str) -> Iterable[Any]:
    """Returns the rows of a list, of columns or of a data frame."""
    for method in ("to_dicts", "to_pylist"):  # polars, pyarrow
        if hasattr(values, method):
            return getattr(values, method)()
    if hasattr(values, "to_dict") and hasattr(values, "columns"):  # pandas
        return values.to_dict("records")
    if isinstance(values, Mapping):
        return _of_columns(values, name)
    is_iterable = isinstance(values, Iterable) and not isinstance(values, str | bytes)
    if not is_iterable:
        raise errors.InputError(
            f"{name} is {type(values).__name__}: give a list of examples, a dict of "
            "columns or a data frame"
        )
    return values


def _of_columns(values: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    columns = {}
    for key, column in values.items():
        if isinstance(column, str | bytes) or not isinstance(column, Iterable):
            raise errors.InputError(
                f"{name}[{key!r}] is {type(column).__name__}: give a list, with a "
                "value for each example"
            )
        columns[key] = list(column)
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise errors.InputError(
            f"{name}: its columns differ in length: "
            f"{', '.join(f'{key} {n:,}' for key, n in lengths.items())}"
        )
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _plain(value: Any) -> Any:
    """Returns a value as JSON would have it: lists, Python's numbers, None for NaN."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None  # how data frames write a cell that is empty
    return value


def _named(task: str, value: Any, where: str) -> dict[str, Any]:
    """Returns the parts of a text or a tuple by the names that files have for them."""
    parts = value if isinstance(value, list) else [value]
    if task in example_request.TEXT_TASKS:
        last = "score" if task == "regression" else "label"
        names = {2: ("text", last), 3: (*_TEXTS, last)}
        if task == "matching":
            names = {1: ("text",), 2: _TEXTS, 3: (*_TEXTS, last)}
        if len(parts) in names:
            return dict(zip(names[len(parts)], parts, strict=True))
    elif task == "tagging" and len(parts) == 2:
        column = "entities" if isinstance(parts[0], str) else "tags"
        return {
            "text" if column == "entities" else "tokens": parts[0],
            column: parts[1],
        }
    elif task == "srl" and len(parts) == 3:
        return dict(zip(("tokens", "predicate", "roles"), parts, strict=True))
    elif task == "span" and len(parts) == 3:
        question, context, answers = parts
        return {"question": question, "context": context, **_answers(answers, context)}
    elif task == "multiple_choice" and len(parts) == 3:
        return dict(zip(("context", "choices", "label"), parts, strict=True))
    raise errors.InputError(
        f"{where} is {_shown(value)}: for {task} give {_FORMS[task]}, or a dict"
    )


def _answers(answers: Any, context: Any) -> dict[str, Any]:
    """Returns the answers of a question, at their first position in the context."""
    if answers is None or answers == "" or answers == []:
        return {"answers": [], "is_impossible": True}
    if isinstance(answers, dict):
        return {"answers": answers if "text" not in answers else [answers]}
    made = []
    for answer in answers if isinstance(answers, list) else [answers]:
        if isinstance(answer, str) and isinstance(context, str):
            answer = {"text": answer, "answer_start": context.find(answer)}
        made.append(answer)
    return {"answers": made}


def _scores_or_labels(
    made: list[table_records.Record],
) -> list[table_records.Record]:
    """Returns records of pairs whose third parts are scores if one is a fraction."""
    given = [x.cells["label"] for x in made if "label" in x.cells]
    if not any(isinstance(value, float) for value in given):
        return made
    return [
        x._replace(
            cells={"score" if k == "label" else k: v for k, v in x.cells.items()}
        )
        for x in made
    ]


def roles(
    given: Iterable[table_records.Record],
) -> Iterator[examples.TaggedExample]:
    """Yields each sentence once for each of its predicates.

    A record has `tokens`, `predicate` (a position from 0) and `roles`; or, for several
    predicates, lists of both. Equal sentences in a row share their `where`, as those of
    a file do, so that all their predicates can be in one row.

    Raises:
      InputError: a part is missing or does not fit the others.
    """
    where, last = "", None
    for number, record in enumerate(given):
        cells = record.cells
        tokens = _list(cells, ("tokens",), record.where)
        if not tokens or not all(isinstance(x, str) and x.strip() for x in tokens):
            raise errors.InputError(
                f"{record.where}: 'tokens' is {_shown(tokens)}: give a list of texts, "
                "none of them empty"
            )
        where = where if tokens == last else record.where
        last = tokens
        text, spans = joined_tokens.join(tokens)
        cell_values.check_unicode(text, record.where)
        pairs = list(_predicates(cells, len(tokens), record.where))
        name = cell_values.label(cells["id"] if "id" in cells else number, record.where)
        for place, (predicate, tags) in enumerate(pairs):
            label = f"{name}.{place}" if len(pairs) > 1 else str(name)
            yield examples.TaggedExample(where, label, text, spans, tags, predicate)


def _predicates(
    cells: Mapping[str, Any], count: int, where: str
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields the predicates of a sentence with their roles."""
    several = next((cells[x] for x in ("predicates", "predicate") if x in cells), None)
    tags = _list(cells, ("roles", "tags", "labels"), where)
    if not isinstance(several, list):
        several, tags = [several], [tags]
    if len(several) != len(tags):
        raise errors.InputError(
            f"{where} has {len(several)} predicates and {len(tags)} lists of roles"
        )
    for predicate, one in zip(several, tags, strict=True):
        if type(predicate) is not int or not 0 <= predicate < count:
            raise errors.InputError(
                f"{where}: the predicate is {_shown(predicate)}: give its position, "
                f"from 0 to {count - 1}"
            )
        if not isinstance(one, list) or len(one) != count:
            raise errors.InputError(
                f"{where}: the roles are {_shown(one)}: give one for each of the "
                f"{count} tokens"
            )
        spelled = [cell_values.label(x, where) or "O" for x in one]
        if spelled[predicate] == "O":
            spelled[predicate] = "V"  # as in files of CoNLL-U
        yield predicate, tuple(spelled)


def _list(cells: Mapping[str, Any], names: Sequence[str], where: str) -> list[Any]:
    for name in names:
        if name in cells and isinstance(cells[name], list):
            return cells[name]
    raise errors.InputError(
        f"{where} has no list {' or '.join(map(repr, names))}: give "
        f"{_FORMS['srl']}, or a dict with these names"
    )


def by_split(data: Any) -> Mapping[str, Any]:
    """Returns the examples of the splits; raises InputError for examples of none."""
    if not isinstance(data, Mapping):
        raise errors.InputError(
            f"data is {type(data).__name__}: give the examples of each split, as in "
            '{"train": [...], "dev": [...]}'
        )
    return data


def source(split: str, path: str) -> str:
    """Returns what messages call the examples of a split: their file, or a value.

    >>> source("dev", "dev.tsv"), source("dev", "python:3c1d")
    ('dev.tsv', "data['dev']")
    """
    return f"data[{split!r}]" if path.startswith(PREFIX) else path


def digest(found: Sequence[examples.Example], notes: Mapping[str, int]) -> str:
    """Returns the sha256 of the content of examples, wherever they are from."""
    made = hashlib.sha256(json.dumps(Counter(notes), sort_keys=True).encode())
    for example in found:
        fields = dataclasses.asdict(example)
        del fields["where"]
        made.update(json.dumps(fields, sort_keys=True).encode())
    return made.hexdigest()


def _shown(value: Any) -> str:
    """Writes the beginning of a value for a message."""
    short = repr(value)
    return short if len(short) <= 60 else f"{short[:57]}..."
