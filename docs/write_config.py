"""Writes the pages of all config keys, from the lines of `fields.field`.

    python docs/write_config.py     # writes docs/en/config.md and docs/zh/config.md

The Chinese meanings are in docs/zh/config.md only: they are kept, and a key without
one is reported.
"""

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_jax.config import finetuning, pretraining, reference
from bert_jax.foundation import fields
from bert_jax.tasks import TASKS

DOCS = Path(__file__).resolve().parent
_INT_MAX = 2**31 - 1
_READERS = {name: task.keys for name, task in TASKS.items()}

# The text of a page in each language, without its tables.
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
    group: reference.KeyGroup,
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


def _sections() -> tuple[list[reference.KeyGroup], ...]:
    """Returns the groups of each section of a page."""
    trained = reference.groups(pretraining.PretrainingConfig, _READERS)
    kind = finetuning.FinetuningConfig
    tuned = list(reference.groups(kind, _READERS))
    size = next(group for group in tuned if group.title == "model")
    tuned[tuned.index(size)] = dataclasses.replace(size, rows=size.rows[:1])
    of_suite = next(reference.groups(kind, _READERS, finetuning.SuiteConfig))
    return list(trained), tuned, [of_suite]


def _cells(row: reference.KeyRow) -> tuple[str, str, str, str]:
    """Returns the cells of a row that are the same in every language."""
    free = " ↻" if row.key.free else ""
    default = f"`{row.default_text}`" if row.default_text else ""
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


def write(path: Path, language: str) -> None:
    """Writes a page; reports keys that have no meaning in its language yet."""
    meanings = None
    if language != "en":
        meanings = read_meanings(path.read_text("utf-8")) if path.exists() else {}
    text = page(language, meanings)
    path.write_text(text, "utf-8")
    for name, meaning in read_meanings(text).items():
        if not meaning:
            print(f"{path}: {name} has no meaning yet", file=sys.stderr)


if __name__ == "__main__":
    for language in _PAGES:
        write(DOCS / language / "config.md", language)
