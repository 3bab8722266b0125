"""JSON from third parties: one meaning, or one message."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.foundation import files

MAX_BYTES = 1 << 26  # the tokenizer.json of 256,000 pieces has 34 MB

_SHOWN = 80
_SPACE = re.compile(r"[ \t\r\n]*")
_Hook = Callable[[list[tuple[str, Any]]], Any]


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      InputError: the file is missing, too long, not UTF-8, not JSON or not an object,
        or an object in it has a duplicate key.
    """
    return parse_object(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file of JSON; raises InputError as `read_object`."""
    try:
        return files.read(path, MAX_BYTES)
    except FileNotFoundError:
        raise errors.InputError(
            f"{path} does not exist: give the folder that holds it"
        ) from None


def flag(
    tree: dict[str, Any], key: str, path: Path, default: bool | None = None
) -> bool | None:
    """Returns true or false of an object in a file, or `default` if it has no such key.

    Raises:
      InputError: it is something else; null only where that is the default.
    """
    value = tree.get(key, default)
    if not isinstance(value, bool) and value is not default:
        allowed = "true, false or null" if default is None else "true or false"
        raise errors.InputError(f"{path}: {key} is {value!r}. Write {allowed}.")
    return value


def write(path: Path, tree: Any, *, sort_keys: bool = False) -> None:
    """Writes a value as indented JSON, for people too."""
    text = json.dumps(tree, indent=2, sort_keys=sort_keys, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


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
        raise _not_json(where, error) from None


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
    """Parses JSON in UTF-8, with or without a mark; every problem is a ValueError.

    Args:
      hook: builds an object from its pairs.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        return json.loads(text, object_pairs_hook=hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def values(text: str, path: str) -> Iterator[tuple[int, Any]]:
    """Yields the items of a JSON array, or of concatenated values, with their lines.

    Lines count from 1 and are those in which a value begins.

    Raises:
      InputError: the text is not JSON, or has a duplicate key.

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
        except (RecursionError, ValueError) as error:
            raise _not_json(where, error) from None
        yield line, value
        at = _past_space(text, at)
        if is_array and text.startswith(",", at):
            at = _past_space(text, at + 1)
        elif is_array and not text.startswith("]", at):
            where = f"{path}:{1 + text.count(chr(10), 0, at)}"
            raise _not_json(where, ValueError("expected , or ] after an item"))
    if is_array and text[at + 1 :].strip():
        raise errors.InputError(f"{path} has text after its array: remove it")


def _past_space(text: str, at: int) -> int:
    """Returns the position of the next character that is not JSON's white space."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _not_json(where: str, error: Exception) -> errors.InputError:
    return errors.InputError(f"{where} is not JSON ({error}): is the file complete?")
