"""JSON that other people wrote; a leaf module that every room may import."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors, files

# The tokenizer.json of 256,000 pieces has 34 MB.
MAX_BYTES = 1 << 26
# What is nested deeper ends the program where it is walked or shown.
MAX_DEPTH = 100

_SHOWN = 80
_SPACE = re.compile(r"[ \t\r\n]*")
_Hook = Callable[[list[tuple[str, Any]]], Any]


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      InputError: the file is missing, not UTF-8, no JSON or no object, too long or too
        deep, or an object in it has a key twice.
    """
    return parse_object(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file of JSON.

    Raises:
      InputError: it is missing, no regular file, cannot be read, or is too long.
    """
    try:
        return files.read(path, MAX_BYTES)
    except FileNotFoundError:
        raise errors.InputError(
            f"{path} does not exist: give the folder that holds it"
        ) from None


def parse_object(content: str | bytes, where: str) -> dict[str, Any]:
    """Returns the JSON object that bytes spell; raises InputError as `read_object`."""
    tree = parse(content, where)
    if not isinstance(tree, dict):
        raise errors.InputError(f"{where} is not a JSON object")
    return tree


def parse(content: str | bytes, where: str) -> Any:
    """Returns the JSON value that bytes spell; raises InputError as `read_object`."""
    try:
        return loads(content, unique(where))
    except ValueError as error:
        raise errors.InputError(
            f"{where} is not JSON ({error}): is the file whole?"
        ) from None


def unique(where: str) -> _Hook:
    """Returns a hook for `loads` that refuses objects with a key twice."""

    def made_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise errors.InputError(
                    f"{where} has the key {key[:_SHOWN]!r} twice: remove one of them"
                )
            made[key] = value
        return made

    return made_of


def loads(text: str | bytes, hook: _Hook | None = None) -> Any:
    """Returns what JSON in UTF-8 spells; whatever is wrong is a ValueError.

    Args:
      hook: makes the objects of their pairs.

    >>> loads("[" * 200 + "]" * 200)
    Traceback (most recent call last):
    ValueError: it is nested more than 100 deep
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        tree = json.loads(text, object_pairs_hook=hook)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(tree)
    return tree


def values(text: str, path: str) -> Iterator[tuple[int, Any]]:
    """Yields the items of a JSON array, or values that follow each other, with lines.

    The lines, from 1, are those that the values begin in.

    Raises:
      InputError: the text is not JSON from some line on, is too deep, or has a key
        twice.

    >>> list(values('[1,\\n {"a": 2}]', "f")), list(values('{"a":\\n1}\\n{}', "f"))
    ([(1, 1), (2, {'a': 2})], [(1, {'a': 1}), (3, {})])
    """
    at = _past_space(text, 0)
    is_array = text.startswith("[", at)
    at = _past_space(text, at + 1) if is_array else at
    line, counted = 1, 0
    while at < len(text) and not (is_array and text[at] == "]"):
        line, counted = line + text.count("\n", counted, at), at
        where = f"{path}:{line}"
        try:
            decoder = json.JSONDecoder(object_pairs_hook=unique(where))
            value, at = decoder.raw_decode(text, at)
            _check_depth(value)
        except RecursionError:
            raise errors.InputError(f"{where} is not JSON ({_too_deep()})") from None
        except ValueError as error:
            raise errors.InputError(
                f"{where} is not JSON ({error}): is the file whole?"
            ) from None
        yield line, value
        at = _past_space(text, at)
        if is_array:
            at = _after_item(text, at, path)
    if is_array and text[at + 1 :].strip():
        raise errors.InputError(f"{path} goes on after its array: remove the rest")


def _past_space(text: str, at: int) -> int:
    """Returns the position of the next character that is not JSON's white space."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _after_item(text: str, at: int, path: str) -> int:
    """Returns where the next item of an array begins, or its closing bracket is."""
    if text.startswith("]", at):
        return at
    if not text.startswith(",", at):
        line = 1 + text.count("\n", 0, at)
        raise errors.InputError(
            f"{path}:{line} is not JSON (expected , or ] after an item): is the file "
            "whole?"
        )
    return _past_space(text, at + 1)


def _check_depth(tree: Any) -> None:
    """Raises ValueError for what is nested too deep."""
    level = _containers([tree])
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        level = [x for node in level for x in _containers(_children(node))]
    raise _too_deep()


def _containers(values: Any) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def _children(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MAX_DEPTH} deep")
