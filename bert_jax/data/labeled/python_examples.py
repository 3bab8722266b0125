"""Examples given from Python: unlabeled values to predict, and labeled training data.

    text                                     classification, regression, tagging
    [token, token, ...]                      tagging: one tag per token, in order
    (text, text_pair)                        classification, regression, matching
    (question, context)                      span
    (context, [choice, choice, ...])         multiple_choice
    (text, predicate)                        srl: a word, or its characters [a, b)

or a dict with those names and optionally an `id`, as in a JSON line; a list of tokens
is `tokens` there. Labeled examples are

    [(text, label), (text, text_pair, label)]      classification, regression, matching
    [text, ...]                                    matching of raw texts (SimCSE)
    [(tokens, tags), (text, [(start, end, type)])] tagging
    [(tokens, predicate, roles)]                   srl; predicate: a number from 0
    [(question, context, answers)]                 span; no answer: None or ""
    [(context, [choice, ...], label)]              multiple_choice

or dicts, a dict of columns, or a data frame (pandas, polars, pyarrow, `datasets`), with
the column names of files. They become records, so Python may pass whatever files may
have, and errors name an example by its position.
"""

import dataclasses
import hashlib
import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data.labeled import examples, table_records, text_examples
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.data.labeled.table_records import TableRecord
from bert_jax.text import characters

# What the parts that are not a text must be.
_KINDS = {
    "id": "a str or an int",
    "predicate": "a word of the text, or the positions of its characters",
    "choices": "a list of two texts or more",
    "tokens": "a list of texts, none of them empty",
}
_CJK = rf"[{characters.CJK_AND_MARKS}]"  # including the ideographic space
_TOKEN = re.compile(rf"(?!\s){_CJK}|(?:(?!{_CJK})\w)+|[^\w\s]")


def texts_of(values: Any, name: str = "texts") -> list[str]:
    """Returns the texts of any iterable, as a list.

    Args:
      values: an iterable of texts.
      name: the name of `values` in messages.

    Raises:
      InputError: it is a single text or not iterable, or a value is not a text.
    """
    found = values_of(values, name)
    for at, text in enumerate(found):
        if not isinstance(text, str):
            raise errors.InputError(f"{name}[{at}] is {reprlib.repr(text)}: give a str")
    return found


def values_of(values: Any, name: str = "values") -> list[Any]:
    """Returns the values of any iterable but a text or a dict, as a list.

    Raises:
      InputError: it is a text, a dict or not iterable; messages call it `name`.
    """
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        raise errors.InputError(
            f"{name} is {reprlib.repr(values)}: give a list of texts, as in "
            '["one", "another"]'
        )
    return list(values)


def examples_of_values(
    form: examples.ExampleForm,
    values: Iterable[Any],
    names: Sequence[str] | None = None,
) -> list[examples.Example]:
    """Returns one example per value.

    Args:
      form: how the values of the task are written.
      values: texts, tuples or dicts, as above.
      names: where each comes from, for messages.

    Raises:
      InputError: a value does not have the form that the task takes.
    """
    return [
        _example(form, value, names[at] if names else f"values[{at}]", str(at))
        for at, value in enumerate(values_of(values))
    ]


def _example(
    form: examples.ExampleForm, value: Any, where: str, number: str
) -> examples.Example:
    tokens = None
    if form.has_tags and isinstance(value, list):
        value = {"tokens": value}
    is_dict = isinstance(value, dict) and "text" not in value
    if form.has_tags and is_dict and "tokens" in value:
        value = dict(value)
        given = value.pop("tokens")
        _check_part("tokens", given, where)
        value["text"], tokens = text_examples.join_tokens(given)
    fields = _fields(form, value, where)
    name = str(fields["id"]) if "id" in fields else number
    if form.is_text:
        pair = fields["text_pair"] if "text_pair" in fields else None
        return form.example(where, name, fields["text"], pair)
    if form.is_question:
        question, context = fields["question"], fields["context"]
        return examples.QuestionExample(where, name, question, context, labeled=False)
    if form.is_choice:
        choices = tuple(fields["choices"])
        return examples.ChoiceExample(where, name, fields["context"], choices)
    text = fields["text"]
    tokens = tuple(token_spans(text)) if tokens is None else tokens
    predicate = None
    if form.has_predicates:
        predicate = _predicate(text, tokens, fields["predicate"], where)
    return examples.TaggedExample(where, name, text, tokens, None, predicate)


def _fields(form: examples.ExampleForm, value: Any, where: str) -> dict[str, Any]:
    """Returns the parts of a value by their names."""
    fields, names = value, form.parts
    if isinstance(value, str):
        fields = {names[0]: value}
    elif isinstance(value, tuple | list) and len(value) <= len(names):
        fields = dict(zip(names, value, strict=False))
    is_whole = isinstance(fields, dict) and {*form.required} <= {*fields}
    if not is_whole or {*fields} - {*names, "id"}:
        keys = ", ".join(f'"{name}": ...' for name in names)
        optional = f" ({form.optional[0]} may be left out)" if form.optional else ""
        raise errors.InputError(
            f"{where} is {reprlib.repr(value)}: {form.task} takes "
            f"{' and '.join(names)}{optional}: give ({', '.join(names)}) or {{{keys}}}"
        )
    for name, part in fields.items():
        _check_part(name, part, where)
    return fields


def _check_part(name: str, part: Any, where: str) -> None:
    """Raises InputError for a part of another type, or invalid Unicode."""
    several: Sequence[Any] = part if isinstance(part, tuple | list) else [part]
    are_texts = all(isinstance(text, str) for text in several)
    fits = isinstance(part, str)
    if name == "id":
        fits = fits or type(part) is int
    elif name == "choices":
        fits = several is part and are_texts and len(several) > 1
    elif name == "tokens":
        fits = several is part and are_texts and all(map(str.strip, several))
    elif name == "predicate" and several is part:
        fits = len(several) == 2 and all(type(at) is int for at in several)
    elif name == "predicate":
        fits = isinstance(part, str) and part.strip() != ""
    if not fits:
        kind = _KINDS[name] if name in _KINDS else "a str"
        raise errors.InputError(f"{where}: {name} is {reprlib.repr(part)}: give {kind}")
    for text in several if are_texts else ():
        table_records.check_unicode(text, where)


def blank(form: examples.ExampleForm) -> Any:
    """Returns the value of a line without text."""
    empty = {"choices": ("", "")}
    parts = tuple(empty.get(part, "") for part in form.required)
    return parts[0] if len(parts) == 1 else parts


def token_spans(text: str) -> list[examples.Span]:
    """Returns the spans of the tokens of running text: words, characters, marks.

    >>> [("我爱U2吗。"[a:b]) for a, b in token_spans("我爱U2吗。")]
    ['我', '爱', 'U2', '吗', '。']
    """
    return [match.span() for match in _TOKEN.finditer(text)]


def _predicate(
    text: str, tokens: Sequence[examples.Span], given: Any, where: str
) -> int:
    """Returns the token that is the predicate: a word, or its characters [a, b)."""
    start = given[0]
    found: list[int] = []
    if isinstance(given, str):
        found = [at for at, (a, b) in enumerate(tokens) if text[a:b] == given]
        start = text.find(given)
    found = found or [at for at, (a, b) in enumerate(tokens) if a <= start < b]
    if not found:
        raise errors.InputError(
            f"{where}: the predicate {given!r} is not a word of the text {text!r}"
        )
    return found[0]


# Prefix of the path of such examples, before their sha256.
PREFIX = "python:"
_TEXTS = ("text", "text_pair")


def records_of_python(
    values: Any, request: ExampleRequest
) -> tuple[list[TableRecord], ExampleRequest]:
    """Returns one record per example, and the request to read them with.

    Args:
      values: labeled examples, as above.
      request: the request of the task; its `path` names the values in messages.

    Raises:
      InputError: a value does not have the form that the task takes.
    """
    name, form = str(request.path), request.form
    rows = _rows(values, name)
    records = []
    are_tuples = False
    for number, value in enumerate(rows):
        where = f"{name}[{number}]"
        value = _plain(value)
        if not isinstance(value, Mapping):
            are_tuples = True
            value = _named(form, value, where)
        records.append(TableRecord(where, dict(value)))
    if len(form.targets) > 1 and are_tuples:
        records = _scores_or_labels(records)
    if are_tuples:  # they have no columns that could be named
        request = dataclasses.replace(request, columns=examples.ColumnNames())
    return records, request


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
    """Returns a value with the types of JSON: lists, Python numbers, None for NaN."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None  # an empty cell of a data frame
    return value


def _named(form: examples.ExampleForm, value: Any, where: str) -> dict[str, Any]:
    """Returns the parts of a text or a tuple by their column names."""
    parts = value if isinstance(value, list) else [value]
    if form.is_text:
        last = "label" if "label" in form.targets else "score"
        names = {2: ("text", last), 3: (*_TEXTS, last)}
        if not form.needs_target:
            names = {1: ("text",), 2: _TEXTS, 3: (*_TEXTS, last)}
        if len(parts) in names:
            return dict(zip(names[len(parts)], parts, strict=True))
    elif form.has_tags and len(parts) == 2:
        column = "entities" if isinstance(parts[0], str) else "tags"
        return {
            "text" if column == "entities" else "tokens": parts[0],
            column: parts[1],
        }
    elif form.has_predicates and len(parts) == 3:
        return dict(zip(("tokens", "predicate", "roles"), parts, strict=True))
    elif form.is_question and len(parts) == 3:
        question, context, answers = parts
        return {"question": question, "context": context, **_answers(answers, context)}
    elif form.is_choice and len(parts) == 3:
        return dict(zip(("context", "choices", "label"), parts, strict=True))
    raise errors.InputError(
        f"{where} is {_shown(value)}: for {form.task} give {form.written}, or a dict"
    )


def _answers(answers: Any, context: Any) -> dict[str, Any]:
    """Returns the answers of a question, at their first position in the context."""
    if answers is None or answers == "" or answers == []:
        return {"answers": [], "is_impossible": True}
    if isinstance(answers, dict):
        return {"answers": answers if "text" not in answers else [answers]}
    found = []
    for answer in answers if isinstance(answers, list) else [answers]:
        if isinstance(answer, str) and isinstance(context, str):
            answer = {"text": answer, "answer_start": context.find(answer)}
        found.append(answer)
    return {"answers": found}


def _scores_or_labels(records: list[TableRecord]) -> list[TableRecord]:
    """Returns records of pairs whose third parts are scores if one is a fraction."""
    given = [x.cells["label"] for x in records if "label" in x.cells]
    if not any(isinstance(value, float) for value in given):
        return records
    return [
        x._replace(
            cells={"score" if k == "label" else k: v for k, v in x.cells.items()}
        )
        for x in records
    ]


def role_examples(given: Iterable[TableRecord]) -> Iterator[examples.TaggedExample]:
    """Yields each sentence once per predicate.

    A record has `tokens`, `predicate` (a position from 0) and `roles`; or, for several
    predicates, lists of both. Equal consecutive sentences share their `where`, as in
    files, so that all their predicates can be in one row.

    Raises:
      InputError: a part is missing or does not match the others.
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
        text, spans = text_examples.join_tokens(tokens)
        table_records.check_unicode(text, record.where)
        pairs = list(_predicates(cells, len(tokens), record.where))
        name = table_records.label(
            cells["id"] if "id" in cells else number, record.where
        )
        for at, (predicate, tags) in enumerate(pairs):
            label = f"{name}.{at}" if len(pairs) > 1 else str(name)
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
        spelled = [table_records.label(x, where) or "O" for x in one]
        if spelled[predicate] == "O":
            spelled[predicate] = "V"  # as in files of CoNLL-U
        yield predicate, tuple(spelled)


def _list(cells: Mapping[str, Any], names: Sequence[str], where: str) -> list[Any]:
    for name in names:
        if name in cells and isinstance(cells[name], list):
            return cells[name]
    raise errors.InputError(
        f"{where} has no list {' or '.join(map(repr, names))}: give "
        f"(tokens, predicate, roles), or a dict with these names"
    )


def by_split(data: Any) -> Mapping[str, Any]:
    """Returns the examples by split; raises InputError for examples without splits."""
    if not isinstance(data, Mapping):
        raise errors.InputError(
            f"data is {type(data).__name__}: give the examples of each split, as in "
            '{"train": [...], "dev": [...]}'
        )
    return data


def source_name(split: str, path: str) -> str:
    """Returns the name of the examples of a split in messages.

    >>> source_name("dev", "dev.tsv"), source_name("dev", "python:3c1d")
    ('dev.tsv', "data['dev']")
    """
    return f"data[{split!r}]" if path.startswith(PREFIX) else path


def digest_of(found: Sequence[examples.Example], notes: Mapping[str, int]) -> str:
    """Returns the sha256 of the content of examples, without their locations."""
    sha256 = hashlib.sha256(json.dumps(Counter(notes), sort_keys=True).encode())
    for example in found:
        fields = dataclasses.asdict(example)
        del fields["where"]
        if "labeled" in fields:  # records of older runs have digests of this spelling
            fields["labelled"] = fields.pop("labeled")
        sha256.update(json.dumps(fields, sort_keys=True).encode())
    return sha256.hexdigest()


def _shown(value: Any) -> str:
    """Writes the beginning of a value for a message."""
    short = repr(value)
    return short if len(short) <= 60 else f"{short[:57]}..."
