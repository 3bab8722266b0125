"""Examples of what a person types or a program hands over: texts, pairs, questions.

    text                                     classification, regression, tagging
    [token, token, ...]                      tagging: one tag a token, in order
    (text, text_pair)                        classification, regression, matching
    (question, context)                      span
    (context, [choice, choice, ...])         multiple_choice
    (text, predicate)                        srl: a word, or its characters [a, b)

or a dict with those names and perhaps an `id`, as in a line of JSON; a list of tokens
is `tokens` there.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bert_jax import errors
from bert_jax.data.labeled import cell_values, example_request, examples, joined_tokens
from bert_jax.text import characters

# What a value of two parts holds, by task.
_PARTS = {
    "classification": ("text", "text_pair"),
    "regression": ("text", "text_pair"),
    "matching": ("text", "text_pair"),
    "tagging": ("text",),
    "srl": ("text", "predicate"),
    "span": ("question", "context"),
    "multiple_choice": ("context", "choices"),
}
_NOT_ONLY_TEXTS = ("id", "predicate", "choices")
_SEVERAL = ("choices", "tokens")  # parts that are lists of texts
# Tasks of one text or two.
_PAIR_OR_NOT = ("classification", "regression")
_CJK = rf"[{characters.CJK_AND_MARKS}]"  # with the space that is as wide as they are
_TOKEN = re.compile(rf"(?!\s){_CJK}|(?:(?!{_CJK})\w)+|[^\w\s]")


def texts_of(values: Any, name: str = "texts") -> list[str]:
    """Returns the texts of any iterable, as a list.

    Args:
      values: what is to be a list of texts.
      name: of `values`, for messages.

    Raises:
      InputError: it is one text or no iterable, or has something that is no text.
    """
    found = values_of(values, name)
    for at, text in enumerate(found):
        if not isinstance(text, str):
            raise _no_text(f"{name}[{at}]", text)
    return found


def values_of(values: Any, name: str = "values") -> list[Any]:
    """Returns the values of any iterable but a text or a dict, as a list.

    Raises:
      InputError: it is a text, a dict or no iterable; `name` is what messages call it.
    """
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        raise errors.InputError(
            f"{name} is {reprlib.repr(values)}: give a list of texts, as in "
            '["one", "another"]'
        )
    return list(values)


def _no_text(where: str, value: Any) -> errors.InputError:
    return errors.InputError(f"{where} is {reprlib.repr(value)}: give a str")


def of_values(
    task: str, values: Iterable[Any], names: Sequence[str] | None = None
) -> list[examples.Example]:
    """Returns one example a value.

    Args:
      task: one of `example_request.TASKS`.
      values: texts, tuples or dicts, as above.
      names: where each comes from, for messages.

    Raises:
      InputError: a value is not what the task takes; the message says what is.
    """
    return [
        _example(task, value, names[at] if names else f"values[{at}]", str(at))
        for at, value in enumerate(values_of(values))
    ]


def _example(task: str, value: Any, where: str, number: str) -> examples.Example:
    value, spans = _joined(value, where) if task == "tagging" else (value, None)
    fields = _fields(task, value, where)
    made = str(fields["id"]) if "id" in fields else number
    if task in example_request.TEXT_TASKS:
        pair = fields["text_pair"] if "text_pair" in fields else None
        return examples.TextExample(where, made, fields["text"], pair)
    if task == "span":
        question, context = fields["question"], fields["context"]
        return examples.QuestionExample(where, made, question, context, labelled=False)
    if task == "multiple_choice":
        choices = tuple(fields["choices"])
        return examples.ChoiceExample(where, made, fields["context"], choices)
    tokens = token_spans(fields["text"]) if spans is None else spans
    predicate = None
    if task == "srl":
        predicate = _predicate(fields["text"], tokens, fields["predicate"], where)
    return examples.TaggedExample(
        where, made, fields["text"], tuple(tokens), None, predicate
    )


def _joined(value: Any, where: str) -> tuple[Any, list[examples.Span] | None]:
    """Joins a value that is a list of tokens into a text, as a CoNLL file is read.

    Returns the value with the text, and where each token is in it; of any other value
    the value and None.
    """
    if isinstance(value, list):
        value = {"tokens": value}
    if not isinstance(value, dict) or "tokens" not in value or "text" in value:
        return value, None
    tokens = value["tokens"]
    if not isinstance(tokens, tuple | list):
        raise errors.InputError(
            f"{where}: tokens is {reprlib.repr(tokens)}: give a list of str"
        )
    _check_texts("tokens", tokens, where)
    for at, token in enumerate(tokens):
        if not token.strip():
            raise errors.InputError(f"{where}: tokens[{at}] is empty: leave it out")
    text, spans = joined_tokens.join(tokens)
    others = {name: part for name, part in value.items() if name != "tokens"}
    return {"text": text, **others}, list(spans)


def _fields(task: str, value: Any, where: str) -> dict[str, Any]:
    """Returns the parts of a value by their names."""
    names = _PARTS[task]
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, tuple | list) and len(value) <= len(names):
        value = dict(zip(names, value, strict=False))
    if not isinstance(value, tuple | list | dict):
        is_text = len(names) == 1 or task in _PAIR_OR_NOT
        if is_text:
            raise _no_text(where, value)
        raise _wrong(task, f"{where} is {reprlib.repr(value)}")
    if not isinstance(value, dict) or set(value) - {*names, "id"}:
        raise _wrong(task, where)
    needed = names[:1] if task in _PAIR_OR_NOT else names
    if not {*needed} <= {*value}:
        raise _wrong(task, where)
    for name in value:
        _check_texts(name, value[name], where)
    if not all(_fits(name, value[name]) for name in value):
        raise _wrong(task, where)
    for name in names:
        for text in _texts(value[name]) if name in value else ():
            if name == "predicate" and not text.strip():
                raise errors.InputError(f"{where}: {name} is empty: give a text")
            cell_values.check_unicode(text, where)
    return value


def _check_texts(name: str, part: Any, where: str) -> None:
    """Raises InputError for a part, or one of its choices or tokens, that is no text.

    An `id` may be a number, and a predicate the positions of its characters.
    """
    if name in _SEVERAL and isinstance(part, tuple | list):
        for at, text in enumerate(part):
            if not isinstance(text, str):
                raise _no_text(f"{where}: {name}[{at}]", text)
    elif name not in _NOT_ONLY_TEXTS and not isinstance(part, str | tuple | list):
        raise _no_text(f"{where}: {name}", part)


def _texts(part: Any) -> list[str]:
    """Returns the text of a part, or the texts of several."""
    several = [part] if isinstance(part, str) else part
    return [text for text in several if isinstance(text, str)]


def _fits(name: str, part: Any) -> bool:
    """Says whether a part is of its type."""
    if name == "choices":
        several = isinstance(part, tuple | list) and len(part) > 1
        return several and all(isinstance(text, str) for text in part)
    if name == "predicate" and isinstance(part, tuple | list):
        return len(part) == 2 and all(type(place) is int for place in part)
    return isinstance(part, str) or (name == "id" and type(part) is int)


def _wrong(task: str, where: str) -> errors.InputError:
    names = _PARTS[task]
    beside = f" ({names[1]} may be left out)" if task in _PAIR_OR_NOT else ""
    keys = ", ".join(f'"{name}": ...' for name in names)
    several = ", a list of two texts or more" if "choices" in names else ""
    return errors.InputError(
        f"{where}: {task} takes {' and '.join(names)}{beside}{several}: give "
        f"({', '.join(names)}) or {{{keys}}}"
    )


def token_spans(text: str) -> list[examples.Span]:
    """Returns where the tokens of running text stand: words, characters, marks.

    >>> [("我爱U2吗。"[a:b]) for a, b in token_spans("我爱U2吗。")]
    ['我', '爱', 'U2', '吗', '。']
    """
    return [match.span() for match in _TOKEN.finditer(text)]


def _predicate(text: str, tokens: list[examples.Span], given: Any, where: str) -> int:
    """Returns the token that is the predicate: a word, or its characters [a, b)."""
    start = given[0]
    found: list[int] = []
    if isinstance(given, str):
        found = [at for at, (a, b) in enumerate(tokens) if text[a:b] == given]
        start = text.find(given)
    found = found or [at for at, (a, b) in enumerate(tokens) if a <= start < b]
    if not found:
        raise errors.InputError(
            f"{where}: the predicate {given!r} is no word of the text {text!r}"
        )
    return found[0]
