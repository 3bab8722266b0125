"""Names of classes and tags: configured, learned, unseen in training, or renamed.

Labels that a model has not seen are common in real test files: rare roles, or the types
of another annotation scheme. They count as errors; a label map renames them.
"""

import collections
import dataclasses
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled import python_examples
from bert_jax.data.labeled.examples import TextExample
from bert_jax.foundation import json_file
from bert_jax.metrics import tag_schemes
from bert_jax.tasks.spec import FineTuned, Metadata, Settings

_MOST_SHOWN = 20
_NUMBERED = re.compile(r"LABEL_\d+")  # default class names of transformers


def configured(text: str) -> tuple[str, ...]:
    """Returns the classes in `data.labels`: a comma-separated list or a file.

    Raises:
      InputError: a class is listed twice, or there is only one.
    """
    names = text.split(",")
    is_file = os.path.isfile(text)  # Path.is_file raises if the name is too long
    if is_file:
        names = [line for _, line in _lines(Path(text))]
    labels = tuple(name.strip() for name in names if name.strip())
    twice = [x for x, count in collections.Counter(labels).items() if count > 1]
    if twice:
        raise errors.InputError(f"data.labels names {twice[0]!r} twice")
    if text and len(labels) < 2:
        what = "a file with" if is_file else "which is not a file and lists"
        raise errors.InputError(
            f"data.labels is {text!r}, {what} {len(labels)} class: list two or more, "
            "separated by commas, or name a file with one class per line"
        )
    return labels


def _lines(path: Path) -> list[tuple[int, str]]:
    named = text_files.NamedPath(path.name, path)
    return list(text_files.lines(named))


def of_head(settings: Settings, given: Metadata) -> Metadata:
    """Returns the metadata of a pretrained head, with class names.

    Raises:
      InputError: neither the head nor `data.labels` has class names, or they differ.
    """
    named, names = configured(settings.data.labels), given.labels
    if not named and not names:
        raise errors.InputError(
            f"init.head is set, but {settings.init_from} has no class names: start "
            f"from a model for {settings.data.task}, or set data.labels"
        )
    are_numbered = all(map(_NUMBERED.fullmatch, names))
    fits = named == names or (are_numbered and len(named) == len(names))
    if named and names and not fits:
        raise errors.InputError(
            f"data.labels is {', '.join(named)}, but the head of "
            f"{settings.init_from} has {', '.join(names)}: leave data.labels out"
        )
    return dataclasses.replace(given, labels=named or names)


def of_examples(settings: Settings, examples: Sequence[TextExample]) -> tuple[str, ...]:
    """Returns the configured class names, or those of the examples.

    Raises:
      InputError: a label is not configured, there are fewer than two classes, or a
        class that is not configured occurs once.
    """
    counts: collections.Counter[str] = collections.Counter()
    first = {}
    for example in examples:
        for label in example.labels or ():
            counts[label] += 1
            first.setdefault(label, example.where)
    repair = "or set data.repair, which leaves such examples out"
    if named := configured(settings.data.labels):
        for label in counts:
            if label not in named:
                fix = f"correct it, add it to data.labels, {repair}"
                raise unknown_label(first[label], label, named, fix)
        return named
    if len(counts) < 2:
        source = python_examples.source_name("train", settings.data.train)
        raise errors.InputError(
            f"{source} has {len(counts)} class ({', '.join(counts)}): "
            f"{settings.data.task} needs two or more; is data.columns.label the right "
            "column?"
        )
    once = sorted(label for label, count in counts.items() if count == 1)
    if once:
        raise errors.InputError(
            f"{first[once[0]]}: the class {once[0]!r} occurs once: correct it, name "
            f"all intended classes in data.labels, {repair}"
        )
    return tuple(sorted(counts, key=by_number))


def by_number(label: str) -> tuple[bool, float, str]:
    """Sort key of labels: numbers by value, then names."""
    is_number = re.fullmatch(r"-?[0-9]+", label) is not None
    return (not is_number, float(label) if is_number else 0.0, label)


def unknown_label(
    where: str,
    label: str,
    labels: tuple[str, ...],
    fix: str = "correct it, or train with it",
) -> errors.InputError:
    """Returns the error for a label that the model does not have."""
    known = ", ".join(labels[:_MOST_SHOWN]) + (", ..." * (len(labels) > _MOST_SHOWN))
    return errors.InputError(
        f"{where}: the label {label!r} is not one of the model's {len(labels)} labels "
        f"({known}): {fix}"
    )


def unknown(examples: Sequence[TextExample], known: Collection[str]) -> dict[int, str]:
    """Maps the index of each example to its first label that is not in `known`."""
    found = {}
    for at, example in enumerate(examples):
        others = [label for label in example.labels or () if label not in known]
        if others and known:
            found[at] = others[0]
    return found


def count_unseen(of_task: FineTuned, examples: Sequence[Any]) -> dict[str, int]:
    """Counts the labels that the model has not seen, most frequent first."""
    found = collections.Counter(x for one in examples for x in of_task.unseen(one))
    return dict(found.most_common())


def describe_unseen(counts: Mapping[str, int]) -> str:
    """Returns the unseen labels and their counts on one line."""
    shown = [f"{label} ({n:,})" for label, n in list(counts.items())[:_MOST_SHOWN]]
    rest = len(counts) - len(shown)
    more = f", and {rest:,} others" if rest else ""
    return (
        f"labels that the model has not seen count as errors: {', '.join(shown)}{more}"
    )


def known_part(of_task: FineTuned, examples: Sequence[Any]) -> list[Any]:
    """Returns examples without the labels that the model has not seen.

    Raises:
      InputError: the model has seen none of the labels, so they are of another task.
    """
    beyond = [x for x in examples if of_task.is_beyond(x)]
    if beyond and len(beyond) == sum(map(_is_labeled, examples)):
        first = beyond[0]
        labels: Any = getattr(of_task, "labels", ())
        raise unknown_label(
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
    numbered = _lines(path)
    if numbered and numbered[0][1].lstrip().startswith("{"):
        return _of_json(path)
    result: dict[str, str] = {}
    for number, line in numbered:
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells) or cells[0] in result:
            raise errors.InputError(
                f"{path}:{number}: {line[:60]!r} does not have two names, or renames a "
                "label again. Write a label of the file, a tab, and the label of the "
                "model"
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
    of_task: FineTuned, examples: Sequence[Any], names: Mapping[str, str]
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
    key = "labels" if isinstance(example, TextExample) else "tags"
    given = getattr(example, key)
    if given is None:
        return example
    if key == "labels":
        used |= names.keys() & set(given)
        new = dict.fromkeys(names[x] if x in names else x for x in given)
    else:
        new = [_renamed_tag(tag, names, used) for tag in given]
    return dataclasses.replace(example, **{key: tuple(new)})


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
