"""The names of the hub in the settings of a run, each with the commit it stands for.

A run records `hf:owner/name@<commit>`; when it is resumed with `hf:owner/name`, that
commit is taken again, without a request and whatever the hub has by then.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from bert_jax import errors, hub, json_file
from bert_jax.checkpoints import workdirs
from bert_jax.data import hub_dataset
from bert_jax.data.corpus import sources

Settings = TypeVar("Settings")

_FILES = ("train", "dev", "test")


def pinned(settings: Settings, workdir: Path | None = None) -> Settings:
    """Returns settings of pretraining or of fine-tuning with a commit in every name.

    Args:
      workdir: of the run that they may resume.

    Raises:
      InputError: the hub does not have what is named, or refuses it.
      StorageError: the hub does not answer.
    """
    before = {} if workdir is None else _recorded(workdir)
    made: Any = settings
    text, data = _group(before, "text"), _group(before, "data")
    vocab = hub.pinned(made.text.vocab, text.get("vocab"))
    names: dict[str, Any] = {
        "init_from": hub.pinned(made.init_from, before.get("init_from")),
        "size": hub.pinned(made.size, _group(before, "model").get("size")),
        "text": dataclasses.replace(made.text, vocab=vocab),
    }
    if hasattr(made.data, "corpus"):
        given = {"corpus": _corpus(made.data.corpus, data.get("corpus"))}
    else:
        given = {
            name: hub_dataset.pinned(getattr(made.data, name), data.get(name))
            for name in _FILES
        }
    names["data"] = dataclasses.replace(made.data, **given)
    return dataclasses.replace(made, **names)


def _corpus(corpus: str, recorded: object) -> str:
    """Pins the sources of a corpus; what each has behind its name stays there."""
    before = recorded.split(",") if isinstance(recorded, str) else []
    parts = []
    for number, part in enumerate(corpus.split(",")):
        part = part.strip()
        if hub.is_name(part):
            then = before[number].strip() if number < len(before) else ""
            name = _name_of_source(part)
            known = _name_of_source(then) if hub.is_name(then) else None
            part = hub_dataset.pinned(name, known) + part.removeprefix(name)
        parts.append(part)
    return ",".join(parts) if any(map(hub.is_name, parts)) else corpus


def _name_of_source(part: str) -> str:
    return hub.PREFIX + sources.parse_source(part).where


def _recorded(workdir: Path) -> Mapping[str, Any]:
    """Returns the record of the run in a workdir; empty where there is none to read.

    A damaged one is refused where the whole of it is read.
    """
    path = workdir / workdirs.CONFIG
    if not path.is_file():
        return {}
    try:
        return json_file.read_object(path)
    except errors.InputError:
        return {}


def _group(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = tree.get(name)
    return group if isinstance(group, dict) else {}
