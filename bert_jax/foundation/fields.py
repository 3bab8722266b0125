"""One line a config key: `field` has its default, its meaning and its range.

    @dataclasses.dataclass(frozen=True)
    class RunConfig:
        seed: int = field(0, "Seed of weights and batches.", low=0, high=2**31 - 1)

        def __post_init__(self) -> None:
            fields.check("run", self)

Checks of types and ranges, error messages with the nearest name, `--help` and the
reference page of the docs (`config/reference.py`) all read that line.

`model` and `training`, which do not import `config`, declare their options with it
too, and `same` puts those into a group of the config.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bert_jax import errors

REQUIRED = dataclasses.MISSING  # the default of a field that has none
_KEY = "key"  # of a field's metadata


@dataclasses.dataclass(frozen=True)
class Key:
    """The facts of a config key that are not its name, type or default.

    Attributes:
      help: meaning, in a sentence or two.
      choices: allowed values; a value of `also` is allowed next to them.
      many: whether the value is a list of choices, separated by commas.
      any_case: whether choices are compared without case.
      low, high: the range, both ends included.
      above, below: the range, both ends excluded.
      also: a value outside the range that has a meaning of its own, as -1.
      free: whether a resumed run may have another value, since it changes no result
        or only the order of sums.
      added: for keys that were added later, what runs without them did.
      convert: applied to the value of a config file or a flag, as for paths.
    """

    help: str
    choices: tuple[str, ...] = ()
    many: bool = False
    any_case: bool = False
    low: int | float | None = None
    high: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None
    also: Any = None
    free: bool = False
    added: Any = None
    convert: Callable[[str], str] | None = None

    @property
    def allowed(self) -> str:
        """The allowed values in words; empty if there is no limit.

        >>> Key("", low=1, also=-1).allowed, Key("", above=0, high=1).allowed
        ('at least 1, or -1', 'above 0 and at most 1')
        """
        words = self._range()
        if self.choices:
            words = f"{'any' if self.many else 'one'} of {', '.join(self.choices)}"
        return words if self.also is None else f"{words}, or {self.also}"

    def _range(self) -> str:
        if self.low is not None and self.high is not None:
            return f"from {self.low} to {self.high}"
        if self.low is not None and self.below is not None:
            return f"from {self.low} to below {self.below}"
        names = {"low": "at least", "above": "above", "high": "at most"}
        ends = {words: getattr(self, name) for name, words in names.items()}
        ends["below"] = self.below
        return " and ".join(
            f"{words} {x}" for words, x in ends.items() if x is not None
        )

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type is in the range or among the choices."""
        if self.also is not None and value == self.also:
            return True
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if self.choices:
            return not self.unknown(value)
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def unknown(self, value: Any) -> list[str]:
        """The parts of a value that are not among the choices."""
        parts = names(value) if self.many else (value,)
        known = [part.lower() if self.any_case else part for part in parts]
        return [part for part in known if part not in self.choices]


def field(default: Any, help: str, **facts: Any) -> Any:
    """Declares a config key: a dataclass field with the facts of `Key`."""
    return dataclasses.field(default=default, metadata={_KEY: Key(help, **facts)})


def same(owner: type, name: str, default: Any = None, **changes: Any) -> Any:
    """Declares a key that another dataclass has too, with some facts changed.

    Args:
      owner: the dataclass whose field `name` is taken.
      default: None takes that of the owner.
    """
    item = {item.name: item for item in dataclasses.fields(owner)}[name]
    return dataclasses.field(
        default=item.default if default is None else default,
        metadata={_KEY: dataclasses.replace(item.metadata[_KEY], **changes)},
    )


def keys(kind: Any) -> dict[str, tuple[dataclasses.Field, Key]]:
    """Returns the keys that a dataclass declares by `field`, in their order."""
    declared = {item.name: item for item in dataclasses.fields(kind)}
    return {
        name: (item, item.metadata[_KEY])
        for name, item in declared.items()
        if _KEY in item.metadata
    }


def check(group: str, values: Any) -> None:
    """Checks every key of a group; numbers of float keys become floats.

    Raises:
      InputError: a value has the wrong type, or is outside its range.
    """
    for name, (item, key) in keys(values).items():
        value = typed(f"{group}.{name}", item.type, getattr(values, name))
        if not key.allows(value):
            raise errors.InputError(_refusal(f"{group}.{name}", key, value))
        object.__setattr__(values, name, value)


def typed(name: str, kind: Any, value: Any) -> Any:
    """Returns a value of a type, of which float takes whole numbers too.

    Raises InputError if it has another type.
    """
    accepted = (int, float) if kind is float else (kind,)
    is_flag = isinstance(value, bool) and kind is not bool
    if is_flag or not isinstance(value, accepted):
        raise errors.InputError(
            f"{name} is {value!r}: expected {kind.__name__}, got {type(value).__name__}"
        )
    if kind is not float:
        return value
    try:
        return float(value)
    except OverflowError:  # an int of more than 308 digits, as JSON may have
        return math.inf


def _refusal(name: str, key: Key, value: Any) -> str:
    """Returns the message for a value that is not allowed, with the nearest name."""
    if not key.choices:
        return f"{name} is {value!r}: it must be {key.allowed or 'finite'}"
    text = f"{name} is {value!r}: use {key.allowed}"
    return text + nearest(key.unknown(value)[0], key.choices, ".")


def nearest(name: str, known: Iterable[str], end: str = "", prefix: str = "") -> str:
    """Returns a hint at the known name that is most like one; empty if none is.

    >>> nearest("run.sed", ["run.seed", "run.dtype"])
    ' Did you mean run.seed?'
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"{end} Did you mean {prefix}{near[0]}?" if near else ""


def names(text: str) -> tuple[str, ...]:
    """Returns what a value lists with commas.

    >>> names("html, urls,")
    ('html', 'urls')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Returns the numbers that a key lists with commas; else raises InputError."""
    try:
        return tuple(float(part) for part in names(text))
    except ValueError:
        raise errors.InputError(
            f"{name} is {text!r}: give numbers with commas, as in 1,0.5"
        ) from None


def build(group: str, kind: type, values: Any) -> Any:
    """Builds one group from a mapping; `group` is empty for keys without a group.

    Raises:
      InputError: a key is unknown or missing, or a value has a wrong type or range.
    """
    if not isinstance(values, Mapping):
        raise errors.InputError(f"{group} is {values!r}: expected a group")
    prefix = f"{group}." if group else ""
    declared = {item.name: item for item in dataclasses.fields(kind)}
    same_keys(prefix, values, tuple(declared))
    return kind(
        **{
            name: read(f"{prefix}{name}", item, values[name])
            for name, item in declared.items()
        }
    )


def read(name: str, item: dataclasses.Field, value: Any) -> Any:
    """Returns the value of a key as its field wants it; raises InputError."""
    if dataclasses.is_dataclass(item.type):
        return build(name, item.type, value)  # type: ignore
    convert = item.metadata[_KEY].convert
    value = typed(name, item.type, value)
    return convert(value) if convert else value


def same_keys(
    prefix: str,
    found: Mapping[str, Any],
    wanted: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> None:
    """Raises InputError for an unknown key, with the nearest name, or a missing one."""
    for name in found:
        if name not in wanted:
            hint = nearest(name, wanted, prefix=prefix)
            raise errors.InputError(f"unknown config key {prefix}{name}.{hint}")
    missing = [name for name in wanted if name not in found and name not in optional]
    if missing:
        raise errors.InputError(f"config key {prefix}{missing[0]} is missing")


def groups(config: type) -> dict[str, type]:
    """Returns the groups of a config, by name."""
    return {
        item.name: item.type
        for item in dataclasses.fields(config)
        if dataclasses.is_dataclass(item.type)
    }  # type: ignore


def free_keys(config: type) -> tuple[str, ...]:
    """Returns the keys that may change between a run and its resumption."""
    return tuple(
        f"{group}.{name}"
        for group, kind in groups(config).items()
        for name, (_, key) in keys(kind).items()
        if key.free
    )


def added_keys(config: type) -> dict[str, dict[str, Any]]:
    """Returns the keys that were added later, by group, with what older runs did."""
    return {
        group: {
            name: key.added
            for name, (_, key) in keys(kind).items()
            if key.added is not None
        }
        for group, kind in groups(config).items()
    }


def with_added(tree: Mapping[str, Any], config: type) -> dict[str, Any]:
    """Returns recorded settings, with the keys that are newer than the record."""
    complete = dict(tree)
    for group, added in added_keys(config).items():
        if added and group not in tree:
            complete[group] = added
        elif isinstance(tree.get(group), Mapping):
            complete[group] = {**added, **tree[group]}
    return complete


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a tree of settings, as {"group.key": value}."""
    result = {}
    for name, value in tree.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        result |= {f"{prefix}{name}": value} if inner is None else inner
    return result
