"""All config keys with type, default, range and meaning: for --help and for the docs.

    python -m bert_jax.reference docs/en/config.md docs/zh/config.md

writes the reference pages from the lines of `fields.field`. The Chinese meanings are
in docs/zh/config.md only: they are kept, and a key without one is reported.
"""

import dataclasses
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.config import finetuning, pretraining
from bert_jax.foundation import fields
from bert_jax.model import config as model_config
from bert_jax.tasks import TASKS

_WIDTH = 80
_INT_MAX = 2**31 - 1


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


@dataclasses.dataclass(frozen=True)
class KeyGroup:
    """Keys that belong together, and a sentence on what they are for."""

    title: str
    summary: str
    rows: tuple[KeyRow, ...]


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys that a command reads.

    Attributes:
      kind: PretrainingConfig or FinetuningConfig.
      own: a dataclass with keys of the command itself, or None.
      only: the groups that are read; empty = all.
    """

    kind: type
    own: type | None = None
    only: tuple[str, ...] = ()

    def groups(self) -> Iterator[KeyGroup]:
        """Yields the groups in the order of the config, after keys without a group."""
        is_pretraining = self.kind is pretraining.PretrainingConfig
        config = pretraining.default() if is_pretraining else finetuning.default()
        if self.own is not None:
            yield KeyGroup("", "", tuple(_rows("", self.own, {})))
        defaults = config.to_dict()
        (init_from, size) = _rows("", self.kind, {})
        yield KeyGroup("", "", (init_from,))
        if not self.only:
            of_bert = _rows("model.", model_config.BertConfig, defaults["model"])
            rows = (dataclasses.replace(size, name="model.size"), *of_bert)
            yield KeyGroup("model", _summary(model_config.BertConfig), rows)
        for name, group in fields.groups(self.kind).items():
            if not self.only or name in self.only:
                yield from _groups(name, group, defaults[name])


def _groups(name: str, kind: type, defaults: Mapping[str, Any]) -> Iterator[KeyGroup]:
    yield KeyGroup(name, _summary(kind), tuple(_rows(f"{name}.", kind, defaults)))
    for inner, inner_kind in fields.groups(kind).items():
        yield from _groups(f"{name}.{inner}", inner_kind, defaults[inner])


def _rows(prefix: str, kind: type, defaults: Mapping[str, Any]) -> Iterator[KeyRow]:
    for name, (item, key) in fields.keys(kind).items():
        default = defaults.get(name)
        default = item.default if default is None else default  # those of BertConfig
        full = f"{prefix}{name}"
        if full == "data.task":
            key = dataclasses.replace(key, choices=tuple(TASKS))
        readers = tuple(task.name for task in TASKS.values() if full in task.keys)
        yield KeyRow(full, item.type.__name__, default, key, readers)  # type: ignore


def _summary(kind: type) -> str:
    """Returns the first line of the docstring of a group."""
    return (kind.__doc__ or "").splitlines()[0]


def help_text(keys: Keys) -> str:
    """Returns the keys for a terminal."""
    blocks = ["config keys, as in --config.run.seed=1:"]
    for group in keys.groups():
        lines = [f"{group.title}: {group.summary}"] if group.title else []
        blocks.append("\n".join([*lines, *map(_help_of, group.rows)]))
    return "\n\n".join(blocks)


def _help_of(row: KeyRow) -> str:
    default = "empty" if row.default == "" else _text(row.default)
    facts = [row.kind, *([row.key.allowed] if row.key.allowed else [])]
    tasks = f"; read by {', '.join(row.tasks)}" if row.tasks else ""
    words = f"{row.key.help} ({', '.join(facts)}; default: {default}{tasks})"
    words = words.replace("`", "")
    return f"  {row.name}\n" + textwrap.indent(
        textwrap.fill(words, _WIDTH - 6), "      "
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# The text of a page in each language, apart from its tables.
_PAGES = {
    "en": {
        "title": "Configuration reference",
        "intro": (
            "Every key of a config file, which is also a flag: "
            "`--config.run.seed=1`. `python -m bert_jax.pretrain --help` prints the "
            "same. Unknown keys, values outside the range, and keys that a run would "
            "not read are errors before any work starts. Keys marked ↻ may differ "
            "when a run is resumed."
        ),
        "sections": {
            "Pretraining": "`pretrain` and `plan`; `prepare` reads `text` and `data`.",
            "Fine-tuning": "`finetune` and `suite`; `model.*` is as in pretraining.",
            "Suites": "`suite` reads these next to the keys of fine-tuning.",
        },
        "columns": ("key", "type", "default", "values", "meaning", "read by"),
    },
    "zh": {
        "title": "配置参考",
        "intro": (
            "下面是配置文件的全部键。每个键也是一个命令行参数，例如 "
            "`--config.run.seed=1`；`python -m bert_jax.pretrain --help` 会打印同样的"
            "内容（英文）。未知的键、超出范围的值，以及当前运行不会读取的键，都会在开始"
            "工作之前报错。标有 ↻ 的键在恢复训练时可以改变。"
        ),
        "sections": {
            "预训练": "用于 `pretrain` 和 `plan`；`prepare` 只读 `text` 和 `data`。",
            "微调": "用于 `finetune` 和 `suite`；`model.*` 与预训练相同。",
            "任务套件": "`suite` 除微调的键以外还读取：",
        },
        "columns": ("键", "类型", "默认值", "取值", "含义", "读取它的任务"),
    },
}


def page(language: str, meanings: Mapping[str, str] | None = None) -> str:
    """Returns the reference page in Markdown.

    Args:
      language: a key of `_PAGES`.
      meanings: of keys, as `Section:key`, in place of the English ones.
    """
    words: Any = _PAGES[language]
    parts = [f"# {words['title']}", words["intro"]]
    for (title, about), groups in zip(
        words["sections"].items(), _sections(), strict=True
    ):
        parts += [f"## {title}", about]
        for group in groups:
            if group.title:
                parts.append(f"### {group.title}")
            if group.title and meanings is None:
                parts.append(group.summary.replace("|", "\\|"))
            parts.append(_table(group, words["columns"], title, meanings))
    return "\n\n".join(parts) + "\n"


def _table(
    group: KeyGroup,
    columns: tuple[str, ...],
    section: str,
    meanings: Mapping[str, str] | None,
) -> str:
    """Returns the keys of a group as a table; the last column only where it is used."""
    count = len(columns) - (not any(row.tasks for row in group.rows))
    lines = [columns, ["---"] * len(columns)]
    for row in group.rows:
        words = row.key.help
        if meanings is not None:
            words = meanings.get(f"{section}:{row.name}", "")
        tasks = ", ".join(f"`{task}`" for task in row.tasks)
        lines.append([*_cells(row), words.replace("|", "\\|"), tasks])
    return "\n".join(f"| {' | '.join(line[:count])} |" for line in lines)


def _sections() -> tuple[list[KeyGroup], ...]:
    """Returns the groups of each section of a page."""
    tuned = list(Keys(finetuning.FinetuningConfig).groups())
    size = next(group for group in tuned if group.title == "model")
    of_suite = next(Keys(finetuning.FinetuningConfig, finetuning.SuiteConfig).groups())
    tuned[tuned.index(size)] = dataclasses.replace(size, rows=size.rows[:1])
    return list(Keys(pretraining.PretrainingConfig).groups()), tuned, [of_suite]


def _cells(row: KeyRow) -> tuple[str, str, str, str]:
    """Returns the cells of a row that are the same in every language."""
    free = " ↻" if row.key.free else ""
    default = f"`{_text(row.default)}`" if row.default != "" else ""
    return f"`{row.name}`{free}", row.kind, default, _values(row.key)


def _values(key: fields.Key) -> str:
    """Returns what a key allows: choices, or an interval as `[0, 1)`."""
    if key.choices:
        parts = [f"`{choice}`" for choice in key.choices]
    elif key.low is None and key.above is None and key.high is None:
        return ""
    elif key.high in (None, _INT_MAX) and key.below is None:
        parts = [f"≥ {key.low}" if key.above is None else f"> {key.above}"]
    else:
        left = f"[{key.low}" if key.above is None else f"({key.above}"
        right = f"{key.high}]" if key.below is None else f"{key.below})"
        parts = [f"{left}, {right}"]
    return ", ".join([*parts, *([] if key.also is None else [f"`{key.also}`"])])


_SECTION = re.compile(r"^## (.+)$")
_ROW = re.compile(r"^\| `([\w.]+)`")
_CELL = re.compile(r"(?<!\\)\|")
_MEANING = 5  # the cell, after the empty one at the beginning


def read_meanings(text: str) -> dict[str, str]:
    """Returns the meanings in the rows of a page, as `Section:key`."""
    meanings, section = {}, ""
    for line in text.splitlines():
        if found := _SECTION.match(line):
            section = found[1]
        elif found := _ROW.match(line):
            words = _CELL.split(line)[_MEANING].strip()
            meanings[f"{section}:{found[1]}"] = words.replace("\\|", "|")
    return meanings


def main(paths: list[str]) -> None:
    """Writes the pages; the language is the name of the folder."""
    for path in map(Path, paths):
        language = path.resolve().parent.name
        if language not in _PAGES:
            raise errors.InputError(f"{path}: the folder must be {' or '.join(_PAGES)}")
        meanings = None
        if language != "en":
            meanings = read_meanings(path.read_text("utf-8")) if path.exists() else {}
        text = page(language, meanings)
        path.write_text(text, "utf-8")
        for name, meaning in read_meanings(text).items():
            if not meaning:
                print(f"{path}: {name} has no meaning yet", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
