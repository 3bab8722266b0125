"""All config keys with type, default, range and meaning: for --help and for the docs.

`docs/write_config.py` writes the pages of the docs from the same groups.
"""

import dataclasses
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from bert_jax.config import finetuning, pretraining
from bert_jax.foundation import fields
from bert_jax.model import config as model_config

_WIDTH = 80
Readers = Mapping[str, Collection[str]]


@dataclasses.dataclass(frozen=True)
class KeyRow:
    """One key: its full name, the name of its type, its default, and its facts.

    Attributes:
      tasks: the tasks that read it; empty if it does not depend on the task.
    """

    name: str
    kind: str
    default: Any
    key: fields.Key
    tasks: tuple[str, ...] = ()

    @property
    def default_text(self) -> str:
        """The default as it is written in a config; empty if it is an empty text."""
        is_flag = isinstance(self.default, bool)
        return str(self.default).lower() if is_flag else str(self.default)


@dataclasses.dataclass(frozen=True)
class KeyGroup:
    """Keys that belong together, and a sentence on what they are for."""

    title: str
    summary: str
    rows: tuple[KeyRow, ...]


def groups(
    kind: type, readers: Readers, own: type | None = None, only: tuple[str, ...] = ()
) -> Iterator[KeyGroup]:
    """Yields the keys of a command in the order of the config.

    Args:
      kind: PretrainingConfig or FinetuningConfig.
      readers: for each task, those of the keys that not every task reads.
      own: a dataclass with keys of the command itself.
      only: the groups that the command reads; empty = all.
    """
    is_pretraining = kind is pretraining.PretrainingConfig
    config = pretraining.default() if is_pretraining else finetuning.default()
    defaults = config.to_dict()
    if own is not None:
        yield KeyGroup("", "", tuple(_rows("", own, {}, readers)))
    (init_from, size) = _rows("", kind, {}, readers)
    yield KeyGroup("", "", (init_from,))
    if not only:
        of_bert = _rows("model.", model_config.BertConfig, defaults["model"], readers)
        rows = (dataclasses.replace(size, name="model.size"), *of_bert)
        yield KeyGroup("model", _summary(model_config.BertConfig), rows)
    for name, group in fields.groups(kind).items():
        if not only or name in only:
            yield from _groups(name, group, defaults[name], readers)


def _groups(
    name: str, kind: type, defaults: Mapping[str, Any], readers: Readers
) -> Iterator[KeyGroup]:
    rows = tuple(_rows(f"{name}.", kind, defaults, readers))
    yield KeyGroup(name, _summary(kind), rows)
    for inner, inner_kind in fields.groups(kind).items():
        yield from _groups(f"{name}.{inner}", inner_kind, defaults[inner], readers)


def _rows(
    prefix: str, kind: type, defaults: Mapping[str, Any], readers: Readers
) -> Iterator[KeyRow]:
    for name, (item, key) in fields.keys(kind).items():
        default = defaults.get(name)
        default = item.default if default is None else default  # those of BertConfig
        full = f"{prefix}{name}"
        if full == "data.task":
            key = dataclasses.replace(key, choices=tuple(readers))
        tasks = tuple(task for task, keys in readers.items() if full in keys)
        yield KeyRow(full, item.type.__name__, default, key, tasks)  # type: ignore


def _summary(kind: type) -> str:
    """Returns the first line of the docstring of a group."""
    return (kind.__doc__ or "").splitlines()[0]


def help_text(keys: Iterable[KeyGroup]) -> str:
    """Returns the keys for a terminal."""
    blocks = ["config keys, as in --config.run.seed=1:"]
    for group in keys:
        lines = [f"{group.title}: {group.summary}"] if group.title else []
        blocks.append("\n".join([*lines, *map(_help_of, group.rows)]))
    return "\n\n".join(blocks)


def _help_of(row: KeyRow) -> str:
    facts = [row.kind, *([row.key.allowed] if row.key.allowed else [])]
    tasks = f"; read by {', '.join(row.tasks)}" if row.tasks else ""
    default = row.default_text or "empty"
    words = f"{row.key.help} ({', '.join(facts)}; default: {default}{tasks})"
    wrapped = textwrap.fill(words.replace("`", ""), _WIDTH - 6)
    return f"  {row.name}\n{textwrap.indent(wrapped, ' ' * 6)}"
