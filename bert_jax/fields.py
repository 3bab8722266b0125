"""Checks of a configuration: each has a message that names the key."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from bert_jax import errors


def typed(group: str, kind: type, values: Any) -> Any:
    """Builds one group, after checking its keys and the types of its values.

    Raises:
      InputError: a key is unknown or missing, or a value has a wrong type or range.
    """
    if not isinstance(values, Mapping):
        raise errors.InputError(f"{group} is {values!r}: expected a group")
    types: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(kind)}
    same_keys(f"{group}.", values, tuple(types))
    made = {
        name: _value(f"{group}.{name}", types[name], values[name]) for name in types
    }
    return kind(**made)


def _value(name: str, wanted: type, value: Any) -> Any:
    """Returns a value of the wanted type, or the group that it is."""
    if dataclasses.is_dataclass(wanted):
        return typed(name, wanted, value)
    accepted = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, accepted) or (
        isinstance(value, bool) and wanted is not bool
    ):
        raise errors.InputError(
            f"{name} is {value!r}: expected {wanted.__name__}, got "
            f"{type(value).__name__}"
        )
    return value


def same_keys(
    prefix: str,
    found: Mapping[str, Any],
    wanted: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> None:
    """Raises InputError for an unknown key, with the nearest name, or a missing one."""
    for name in found:
        if name not in wanted:
            near = difflib.get_close_matches(name, wanted, n=1)
            hint = f" Did you mean {prefix}{near[0]}?" if near else ""
            raise errors.InputError(f"unknown config key {prefix}{name}.{hint}")
    missing = [name for name in wanted if name not in found and name not in optional]
    if missing:
        raise errors.InputError(f"config key {prefix}{missing[0]} is missing")


def with_added(
    tree: Mapping[str, Any], added: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns recorded settings, with the keys that are newer than the record."""
    made = dict(tree)
    for group, keys in added.items():
        if group not in tree:
            made[group] = dict(keys)
        elif isinstance(tree[group], Mapping):
            made[group] = {**keys, **tree[group]}
    return made


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises InputError unless the value is a known name."""
    if value not in known:
        raise errors.InputError(f"{name} is {value!r}: use one of {', '.join(known)}")


def at_least(name: str, value: int | float, low: int | float) -> None:
    """Raises InputError unless the value is `low` or more."""
    if not value >= low:
        raise errors.InputError(f"{name} is {value!r}: it must be at least {low}")


def between(name: str, value: int | float, low: int | float, high: int | float) -> None:
    """Raises InputError unless the value lies between both, or is one of them."""
    if not low <= value <= high:
        raise errors.InputError(
            f"{name} is {value!r}: it must lie between {low} and {high}"
        )


def count_or_rest(name: str, value: int) -> None:
    """Raises InputError unless the value is a count, or -1 for the rest."""
    if value < 1 and value != -1:
        raise errors.InputError(f"{name} is {value!r}: use at least 1, or -1")
