"""JSON objects that other people wrote; a leaf module that every room may import."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_jax import errors


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      InputError: the file is missing, not UTF-8, no JSON or no object, or an object in
        it has a key twice.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise errors.InputError(
            f"{path} does not exist: give the folder that holds it"
        ) from None
    except OSError as error:
        raise errors.InputError(f"{path} cannot be read: {error.strerror}") from None
    return parse_object(content, str(path))


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """Returns the JSON object that bytes spell; raises InputError as `read_object`."""
    tree = parse(content, where)
    if not isinstance(tree, dict):
        raise errors.InputError(f"{where} is not a JSON object")
    return tree


def parse(content: bytes, where: str) -> Any:
    """Returns the JSON value that bytes spell; raises InputError as `read_object`."""
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique(where))
    except (ValueError, RecursionError) as error:
        raise errors.InputError(
            f"{where} is not JSON ({error}): is the file whole?"
        ) from None


def unique(where: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Returns what makes objects for `json.loads`, and refuses a key that comes twice."""

    def made_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise errors.InputError(
                    f"{where} has the key {key!r} twice: remove one of them"
                )
            made[key] = value
        return made

    return made_of
