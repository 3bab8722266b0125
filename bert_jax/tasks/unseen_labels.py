"""Labels that a model has not seen in training: counted, scored as errors, renamed.

They are common in real test files: rare roles, or the types of another annotation
scheme. A label map renames them to labels of the model.
"""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled import examples as data_examples
from bert_jax.foundation import json_file
from bert_jax.tasks import classification, spec, tag_schemes

_MOST_SHOWN = 20


def count(of_task: spec.FineTuned, examples: Sequence[Any]) -> dict[str, int]:
    """Counts the labels that the model has not seen, most frequent first."""
    found = collections.Counter(x for one in examples for x in of_task.unseen(one))
    return dict(found.most_common())


def describe(counts: Mapping[str, int]) -> str:
    """Returns the labels and their counts on one line."""
    shown = [f"{label} ({n:,})" for label, n in list(counts.items())[:_MOST_SHOWN]]
    rest = len(counts) - len(shown)
    more = f", and {rest:,} others" if rest else ""
    return (
        f"labels that the model has not seen count as errors: {', '.join(shown)}{more}"
    )


def known_part(of_task: spec.FineTuned, examples: Sequence[Any]) -> list[Any]:
    """Returns examples without the labels that the model has not seen.

    Raises:
      InputError: the model has seen none of the labels, so they are of another task.
    """
    beyond = [x for x in examples if of_task.is_beyond(x)]
    if beyond and len(beyond) == sum(map(_is_labeled, examples)):
        first = beyond[0]
        labels: Any = getattr(of_task, "labels", ())
        raise classification.unknown_label(
            first.where,
            of_task.unseen(first)[0],
            labels,
            "the model knows none of the labels in these examples: rename them "
            "(evaluate --label_map=FILE), or select the right column",
        )
    return [of_task.without_unseen(x) if of_task.unseen(x) else x for x in examples]


def _is_labeled(example: Any) -> bool:
    given = example.labels if hasattr(example, "labels") else example.tags
    return bool(given)


def read_map(path: Path) -> dict[str, str]:
    """Reads a label map: label of a file -> label of the model.

    The file is a JSON object, or has one label, a tab and its new name per line.

    Raises:
      InputError: the file does not exist, a line does not have two names, or a label
        is listed twice.
    """
    if not path.is_file():
        raise errors.InputError(f"the label map {path} is not a file: check the path")
    named = text_files.NamedPath(path.name, path)
    numbered = list(text_files.lines(named, text_files.Tally()))
    if numbered and numbered[0][1].lstrip().startswith("{"):
        return _of_json(path)
    result: dict[str, str] = {}
    for number, line in numbered:
        cells = [cell.strip() for cell in line.split("\t")]
        where = f"{path}:{number}"
        if len(cells) != 2 or not all(cells):
            raise errors.InputError(
                f"{where}: {line[:60]!r} does not have two names. Write a label of the "
                "file, a tab, and the label of the model"
            )
        if cells[0] in result:
            raise errors.InputError(
                f"{where}: the label {cells[0]!r} came before. Remove one of the lines"
            )
        result[cells[0]] = cells[1]
    return result


def _of_json(path: Path) -> dict[str, str]:
    tree = json_file.read_object(path)
    for name, value in tree.items():
        if not isinstance(value, str) or not value.strip():
            raise errors.InputError(
                f"{path}: {json.dumps(name)} is renamed to {json.dumps(value)}, which "
                "is not a name: give the label of the model as text"
            )
    return {name.strip(): value.strip() for name, value in tree.items()}


def renamed(
    of_task: spec.FineTuned, examples: Sequence[Any], names: Mapping[str, str]
) -> tuple[list[Any], list[str]]:
    """Returns examples with renamed labels, and the names that did not occur.

    For tags, a name may be an entity type (`person` for `B-person` and `I-person`),
    which may be renamed to `O`. Duplicate labels that result are merged.

    Raises:
      InputError: a new name is not one of the model's.
    """
    labels: tuple[str, ...] = getattr(of_task, "labels", ())
    scheme: str = getattr(of_task, "scheme", tag_schemes.PLAIN)
    if not labels:
        raise errors.InputError(
            "a label map was given, but this model has no labels: leave it out"
        )
    known = {tag_schemes.kind_of(x, scheme) for x in labels} | {*labels}
    if scheme != tag_schemes.PLAIN:
        known.add(tag_schemes.OUTSIDE)
    for old, new in names.items():
        if new not in known:
            raise errors.InputError(
                f"the label map renames {old!r} to {new!r}, which is not a label of "
                f"the model ({', '.join(sorted(known)[:_MOST_SHOWN])})"
            )
    used: set[str] = set()
    result = [_renamed(x, names, used) for x in examples]
    return result, sorted(names.keys() - used)


def _renamed(example: Any, names: Mapping[str, str], used: set[str]) -> Any:
    """Returns an example with renamed labels; adds the names it uses to `used`."""
    if isinstance(example, data_examples.TextExample):
        given = example.labels
        if given is None:
            return example
        used |= names.keys() & set(given)
        new = [names[x] if x in names else x for x in given]
        return dataclasses.replace(example, labels=tuple(dict.fromkeys(new)))
    tags = example.tags
    if tags is None:
        return example
    new = [_renamed_tag(tag, names, used) for tag in tags]
    return dataclasses.replace(example, tags=tuple(new))


def _renamed_tag(tag: str, names: Mapping[str, str], used: set[str]) -> str:
    """Returns the new name of a tag, or the tag with its type renamed."""
    letter, dash, kind = tag.partition("-")
    if tag in names:
        used.add(tag)
        return names[tag]
    if dash and kind in names and tag_schemes.is_span_tag(tag):
        used.add(kind)
        new = names[kind]
        return new if new == tag_schemes.OUTSIDE else f"{letter}-{new}"
    return tag
