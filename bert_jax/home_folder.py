"""`~` at the beginning of a path is the home folder, also where no shell expands it.

Shells leave the `~` of --workdir=~/runs as it is, and Python never reads it. A leaf
module: paths go through it where they come from a user, and nowhere else.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The flags of all commands that are paths; --config is read by `recipes.find`.
FLAGS = ("workdir", "model", "input", "output", "data", "store", "label_map")

_KEYS = {
    "model": ("size",),  # may be a folder
    "text": ("vocab", "stop_words"),
    "data": ("train", "dev", "test", "labels", "store"),
}
# Sources are separated by commas, and a kind may come first: text:~/corpus.txt@2.
_IN_SOURCES = re.compile(r"(?:(?<=^)|(?<=[,:\s]))~[^/,@#\s]*(?=/)")


def expanded(path: str) -> str:
    """Returns a path with its `~` or `~user` replaced by the home folder.

    Names as `hf:owner/name`, URLs and paths of unknown users are returned as they are.
    """
    return os.path.expanduser(path)


def path(given: str | Path) -> Path:
    """Returns the path of a folder or file that is given from Python."""
    return Path(expanded(str(given)))


def in_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration as a tree whose paths are expanded; changes nothing."""
    expanded_tree = (
        {"init_from": _value(tree["init_from"])} if "init_from" in tree else {}
    )
    for group, keys in _KEYS.items():
        values = tree.get(group)
        if isinstance(values, Mapping):
            paths = {key: _value(values[key]) for key in keys if key in values}
            expanded_tree[group] = {**values, **paths}
    data = expanded_tree.get("data", {})
    if isinstance(data.get("corpus"), str):
        corpus = data["corpus"]
        data["corpus"] = _IN_SOURCES.sub(lambda found: expanded(found[0]), corpus)
    return {**tree, **expanded_tree}


def _value(value: Any) -> Any:
    """Returns what a key has; other types are refused where types are checked."""
    return expanded(value) if isinstance(value, str) else value
