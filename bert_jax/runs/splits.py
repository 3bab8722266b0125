"""The examples of a fine-tuning run: read, split and converted to rows."""

import collections
import dataclasses
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from bert_jax import errors, tasks
from bert_jax.config import finetuning
from bert_jax.data.labeled import (
    example_rows,
    python_examples,
    read_examples,
    table_records,
)
from bert_jax.foundation import fields, files
from bert_jax.inference import inputs
from bert_jax.tasks import class_names, spec
from bert_jax.training import distributed

Settings = finetuning.FinetuningConfig
_log = logging.getLogger(__name__)
UNKNOWN = "examples skipped with a label outside the classes"
_SEVERAL = "example_numbers"  # the column of rows that are of several examples


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples of one use, and their rows."""

    name: str
    examples: list[Any]
    table: example_rows.ExampleTable

    def part(self, name: str, is_chosen: Bool[np.ndarray, " n"]) -> "Split":
        """Returns the rows that are chosen, with their examples, as a split."""
        rows = np.flatnonzero(is_chosen)
        tokens = {
            name: [c[row] for row in rows] for name, c in self.table.tokens.items()
        }
        fixed = {name: column[rows] for name, column in self.table.fixed.items()}
        owners = self.table.examples[rows]
        kept = np.unique(owners)
        if _SEVERAL in fixed:  # counted from 1, with 0 for none
            kept = np.unique(fixed[_SEVERAL][fixed[_SEVERAL] > 0]) - 1
            renumbered = np.searchsorted(kept, fixed[_SEVERAL] - 1) + 1
            numbers = np.where(fixed[_SEVERAL] > 0, renumbered, 0)
            fixed[_SEVERAL] = numbers.astype(fixed[_SEVERAL].dtype)
        table = example_rows.ExampleTable(tokens, fixed, np.searchsorted(kept, owners))
        return Split(name, [self.examples[at] for at in kept], table)


Given = Mapping[str, read_examples.Examples]  # split -> examples from Python


def from_python(
    settings: Settings, values: Mapping[str, Any]
) -> tuple[Settings, Given]:
    """Returns examples from Python, and settings that have their sha256 as paths.

    Args:
      values: split (`train`, `dev`, `test`) -> values; see `data.python_examples`.

    Raises:
      InputError: an example does not have the form of the task.
    """
    result, paths = {}, {}
    for name, given in values.items():
        asked = inputs.training_request(settings, name, is_scored=name != "train")
        found = read_examples.of_python(given, asked)
        result[name] = found
        sha256 = python_examples.digest_of(found.examples, found.notes)
        paths[name] = f"{python_examples.PREFIX}{sha256}"
    data = dataclasses.replace(settings.data, **paths)
    return dataclasses.replace(settings, data=data), result


def read(settings: Settings, given: Given | None = None) -> dict[str, list[Any]]:
    """Returns the examples of `train`, `dev` and, if there is one, `test`.

    With folds, `dev` is all of `train`: the rows of a fold are cut out of it.

    Args:
      given: the splits that are not in files.

    Raises:
      InputError: a file is malformed, or too small to hold examples out.
    """
    data = settings.data
    source = python_examples.source_name("train", data.train)
    paths = {"train": data.train, "dev": data.dev, "test": data.test}
    given = given or {}
    result = {
        name: _file(settings, name, path, given[name] if name in given else None)
        for name, path in paths.items()
        if path
    }
    files = {name: path for name, path in paths.items() if path and name not in given}
    _report_first_lines(settings, files)
    folds = data.folds or settings.sweep.folds
    if folds:
        count = len({*groups_of(result["train"]).tolist()})
        if folds > count:
            raise errors.InputError(
                f"{folds} folds are more than the {count} different texts of "
                f"{source}: each needs at least one"
            )
        return result | {"dev": result["train"]}
    if data.dev:
        return result
    result["train"], result["dev"] = held_out(result["train"], data.dev_share)
    if not result["dev"] or not result["train"]:
        raise errors.InputError(
            f"{source} is too small to hold out data.dev_share {data.dev_share:g} "
            "of it: give dev examples (data.dev names their file)"
        )
    distributed.print_once(
        f"dev: {len(result['dev']):,} examples of {source}, by hash of content"
    )
    return result


def data_files(
    settings: Settings, examples: Mapping[str, Sequence[Any]]
) -> dict[str, dict[str, str]]:
    """Returns path and sha256 of each file of a run, by its config key.

    Args:
      examples: by use; they identify data that is not a file on this machine.
    """
    data = settings.data
    paths = {"data.train": data.train, "data.dev": data.dev, "data.test": data.test}
    paths |= {"text.stop_words": settings.text.stop_words}
    return {
        key: {
            "path": str(path),
            "sha256": _sha256(path, examples.get(key.removeprefix("data."), ())),
        }
        for key, path in paths.items()
        if path
    }


def _sha256(path: str, examples: Sequence[Any]) -> str:
    """Returns the sha256 of a file or folder, or else of the examples."""
    if Path(path).is_file():
        return files.sha256(Path(path))
    digest = hashlib.sha256()
    for file in sorted(x for x in Path(path).rglob("*") if x.is_file()):
        name = file.relative_to(path).as_posix()
        digest.update(f"{name} {files.sha256(file)}\n".encode())
    if not Path(path).exists():
        for example in examples:
            digest.update(repr(example).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def that_name_labels(settings: Settings, files: Mapping[str, list[Any]]) -> list[Any]:
    """Returns the examples that define the labels of a run: the training file.

    The examples held out of it are included: a rare label may only occur there.
    """
    data = settings.data
    is_whole = data.dev or data.folds or settings.sweep.folds
    if is_whole or not tasks.of(settings).counts_dev_labels:
        return files["train"]
    return [*files["train"], *files["dev"]]


def _file(
    settings: Settings, name: str, path: str, given: read_examples.Examples | None
) -> list[Any]:
    """Reads one file unless its examples are given, and reports what was read."""
    if given is None and path.startswith(python_examples.PREFIX):
        raise errors.InputError(
            f"data.{name} was given from Python: give it again, as in "
            f'finetune.train(config, workdir, data={{"{name}": examples}})'
        )
    found, data = given, settings.data
    if found is None:
        asked = inputs.training_request(settings, path, is_scored=name != "train")
        found = read_examples.read(asked)
    examples: list[Any] = list(found.examples)
    notes = table_records.Notes(found.notes)
    labels, task = class_names.configured(data.labels), tasks.of(settings)
    examples = task.named(examples, labels)
    if data.repair:
        examples = without(examples, task.misfits(examples), notes)
    if data.repair and name == "train":
        broken = task.unknown_classes(examples, labels)
        examples = without(examples, broken, notes)
    source = python_examples.source_name(name, path)
    distributed.print_once(
        f"{name}: {len(examples):,} examples of {source}{inputs.counts(notes)}"
    )
    return examples


def without(
    examples: list[Any], broken: Mapping[int, str], notes: table_records.Notes
) -> list[Any]:
    """Leaves out and counts examples.

    Args:
      broken: the label that cannot be one, by the position of its example.
    """
    for at, label in broken.items():
        where = examples[at].where
        error = table_records.BrokenRecord(f"{where}: the label {label!r}.", UNKNOWN)
        table_records.count(error, where, notes)
    return [example for at, example in enumerate(examples) if at not in broken]


def _report_first_lines(settings: Settings, files: Mapping[str, str]) -> None:
    """Reports the first lines of a run's files; warns if only some are headers."""
    found: dict[bool, str] = {}
    for name, path in files.items():
        asked = inputs.training_request(settings, path, is_scored=name != "train")
        first = inputs.report_table_header(asked)
        if first is not None:
            found.setdefault(first.is_header, f"data.{name}")
    if len(found) > 1:
        _log.warning(
            "the first line of %s was taken as a header, that of %s as an example: let "
            "all files start alike, and set data.header",
            found[True],
            found[False],
        )


def held_out(examples: Sequence[Any], share: float) -> tuple[list[Any], list[Any]]:
    """Cuts examples in two by a hash of their text, in whatever order they come.

    All questions of a context, all predicates of a sentence and all pairs with the same
    first text are in one part: held-out texts are never trained on.
    """
    cut: dict[bool, list[Any]] = {False: [], True: []}
    for example in examples:
        text = _said_first(example)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        cut[int.from_bytes(digest[:8], "big") < share * 2**64].append(example)
    return cut[False], cut[True]


def _said_first(example: Any) -> str:
    """Returns the text of an example by which it belongs with others."""
    return example.context if hasattr(example, "context") else example.text


def groups_of(examples: Sequence[Any]) -> np.ndarray:
    """Returns a number for each example, the same for those with the same text."""
    number: dict[str, int] = {}
    texts = map(_said_first, examples)
    return np.array([number.setdefault(text, len(number)) for text in texts], np.int64)


def table(
    name: str, of_task: spec.FineTuned, examples: Sequence[Any]
) -> example_rows.ExampleTable:
    """Returns the rows of examples, and reports their number and what was cut.

    Only training needs to know all labels: where examples are scored, those that the
    model has not seen count as errors.
    """
    if name != "train":
        unseen = class_names.count_unseen(of_task, examples)
        if unseen:
            distributed.print_once(f"{name}: {class_names.describe_unseen(unseen)}")
        examples = class_names.known_part(of_task, examples)
    result = spec.checked(of_task, examples, of_task.table(examples))
    result = dataclasses.replace(result, groups=groups_of(examples))
    advice = of_task.advice(int(result.lengths.max()))
    result.coverage.warn(of_task.tokenizer, name, advice)
    distributed.print_once(
        f"{name}: {len(result):,} rows of up to {int(result.lengths.max())} tokens, "
        f"{int(result.lengths.sum()):,} in all, "
        f"{result.coverage.describe()}{inputs.counts(result.notes)}"
    )
    return result


def class_weights(
    settings: Settings, metadata: spec.Metadata, examples: Sequence[Any]
) -> tuple[float, ...]:
    """Returns the weights of the classes that `recipe.class_weights` names, or none.

    `balanced` is as in scikit-learn: n / (classes * examples of the class).
    """
    text, task = settings.recipe.class_weights, tasks.of(settings)
    if text == "none":
        return ()
    if text != "balanced":
        return _configured_weights(text, metadata.labels)
    counts = collections.Counter(
        label for x in examples for label in task.classes_of(x, metadata)
    )
    total = sum(counts[label] for label in metadata.labels)
    return tuple(
        total / (len(metadata.labels) * max(counts[label], 1))
        for label in metadata.labels
    )


def _configured_weights(text: str, labels: tuple[str, ...]) -> tuple[float, ...]:
    """Returns the numbers of `recipe.class_weights`."""
    given = fields.numbers("recipe.class_weights", text)
    if len(given) != len(labels):
        raise errors.InputError(
            f"recipe.class_weights has {len(given)} numbers for {len(labels)} classes "
            f"({', '.join(labels)})"
        )
    if not all(0 <= x < math.inf for x in given) or not any(given):
        raise errors.InputError(
            f"recipe.class_weights is {text!r}: use numbers from 0, not all 0"
        )
    return given
