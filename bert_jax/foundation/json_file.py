"""JSON from third parties. Every room may import this module."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.foundation import files

# The tokenizer.json of 256,000 pieces has 34 MB.
MAX_BYTES = 1 << 26
# Deeper nesting would exhaust the stack where it is walked or printed.
MAX_DEPTH = 100

_SHOWN = 80
_SPACE = re.compile(r"[ \t\r\n]*")
_Hook = Callable[[list[tuple[str, Any]]], Any]


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      InputError: the file is missing, not UTF-8, not JSON or not an object, too long or
        nested too deeply, or an object in it has a duplicate key.
    """
    return parse_object(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file of JSON.

    Raises:
      InputError: it is missing, not a regular file, not readable, or too long.
    """
    try:
        return files.read(path, MAX_BYTES)
    except FileNotFoundError:
        raise errors.InputError(
            f"{path} does not exist: give the folder that holds it"
        ) from None


def parse_object(content: str | bytes, where: str) -> dict[str, Any]:
    """Parses a JSON object; raises InputError as `read_object`."""
    tree = parse(content, where)
    if not isinstance(tree, dict):
        raise errors.InputError(f"{where} is not a JSON object")
    return tree


def parse(content: str | bytes, where: str) -> Any:
    """Parses a JSON value; raises InputError as `read_object`."""
    try:
        return loads(content, unique(where))
    except ValueError as error:
        raise errors.InputError(
            f"{where} is not JSON ({error}): is the file complete?"
        ) from None


def unique(where: str) -> _Hook:
    """Returns a hook for `loads` that rejects objects with duplicate keys."""

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, value in pairs:
            if key in tree:
                raise errors.InputError(
                    f"{where} has the key {key[:_SHOWN]!r} twice: remove one of them"
                )
            tree[key] = value
        return tree

    return as_dict


def loads(text: str | bytes, hook: _Hook | None = None) -> Any:
    """Parses JSON in UTF-8; every problem is a ValueError.

    Args:
      hook: builds an object from its pairs.

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
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(tree)
    return tree


def values(text: str, path: str) -> Iterator[tuple[int, Any]]:
    """Yields the items of a JSON array, or of concatenated values, with their lines.

    Lines count from 1 and are those in which a value begins.

    Raises:
      InputError: the text is not JSON, is nested too deeply, or has a duplicate
        key.

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
                f"{where} is not JSON ({error}): is the file complete?"
            ) from None
        yield line, value
        at = _past_space(text, at)
        if is_array:
            at = _after_item(text, at, path)
    if is_array and text[at + 1 :].strip():
        raise errors.InputError(f"{path} has text after its array: remove it")


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
