"""Variants of a plan: changed settings, another topology, or both.

A variant is written as parts between semicolons: `v5p:4x4x4`, `run.remat=dots`, or
`v5e:8x8;mesh.fsdp=16;run.batch_size=1024`.
"""

import ast
import copy
import difflib
from collections.abc import Mapping
from typing import Any

from bert_jax import errors, workdirs


def changed(
    tree: Mapping[str, Any], topology: str, variant: str
) -> tuple[dict[str, Any], str]:
    """Returns the settings and the topology of a variant.

    Args:
      tree: of all settings, as `configuration.parse` takes them.
      topology: where the variant names none.

    Raises:
      InputError: a part is neither, a key is unknown, or a value has another type.
    """
    made: dict[str, Any] = copy.deepcopy(dict(tree))
    for part in filter(None, (part.strip() for part in variant.split(";"))):
        key, equals, text = part.partition("=")
        if not equals:
            topology = part
            continue
        _set(made, key.removeprefix("config.").strip(), text.strip())
    return made, topology


def _set(tree: dict[str, Any], key: str, text: str) -> None:
    known = workdirs.flat(tree)
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise errors.InputError(f"--compare: unknown config key {key}.{hint}")
    *groups, name = key.split(".")
    node = tree
    for group in groups:
        node = node[group]
    node[name] = _value(key, text, known[key])


def _value(key: str, text: str, before: Any) -> Any:
    """Returns the value that a text stands for, of the type that the key had."""
    if isinstance(before, str):
        return text
    try:
        value = ast.literal_eval(text.capitalize() if text.isalpha() else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    wanted = (int, float) if isinstance(before, float) else (type(before),)
    is_flag = isinstance(value, bool) and bool not in wanted
    if before is not None and (is_flag or not isinstance(value, wanted)):
        raise errors.InputError(
            f"--compare: {key} is {text!r}: expected {type(before).__name__}"
        )
    return value
