"""What every format is read into, and the report of how that went.

Anything missing or left over is an error unless it was named: no weight is ever
initialized at random here. What may be missing is dropped by whole parts.
"""

import abc
import dataclasses
import fnmatch
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.checkpoints import mapping
from bert_jax.model import config, network
from bert_jax.model.heads import KINDS
from bert_jax.text import options as tokenizer_options

# Hugging Face's names for a softmax, for one sigmoid a class, and for numbers.
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
# The command with the flags of a `Choice`; all others read the folder that it writes.
CONVERT = "python -m bert_jax.convert"
_LISTED = 6  # names that a message shows before it counts the others
# Architecture, parts and number of classes -> a mapping, as `mapping.native_mapping`.
MappingOf = Callable[
    [config.BertConfig, frozenset[str], int], list[mapping.ParamMapping]
]


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """An architecture and its parameters, of any parts.

    Attributes:
      config: the architecture.
      params: our tree, float32 numpy arrays, stacked over layers; the vocabulary has no
        padding. Its top level names the parts.
      labels: the names of the classes of a classifier or tagger, by their numbers.
      problem_type: what a classifier's outputs mean, one of `PROBLEM_TYPES`; "" where
        it is not defined.
      head_dropout: before the last linear map; None for that of the hidden layers.
    """

    config: config.BertConfig
    params: PyTree
    labels: tuple[str, ...] = ()
    problem_type: str = ""
    head_dropout: float | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts, in the order of `model.network.PARTS`."""
        known = (*network.PARTS, *network.TASK_PARTS)
        return tuple(name for name in known if name in self.params)

    @property
    def num_labels(self) -> int:
        """C, the number of classes; 2 where nothing has classes."""
        for name in classifying(self.params):
            return self.params[name]["dense"]["bias"].shape[0]
        return 2

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, by number where a classifier or tagger has none."""
        if self.labels or not classifying(self.params):
            return self.labels
        return tuple(f"LABEL_{number}" for number in range(self.num_labels))

    @property
    def num_parameters(self) -> int:
        """How many numbers there are."""
        return sum(x.size for x in mapping.flatten(self.params).values())


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a reader may do without, each a name or a pattern such as `*.pooler.*`.

    Attributes:
      allow_missing: parts, or tensors by our name or theirs. A part of which something
        is missing is dropped whole; the encoder never is.
      ignore: parts to leave out, or tensors that are left over.
      head: what `classifier` tensors belong to, where no config defines it:
        `classifier`, `tagger` or `multiple_choice`.
      model_type: overrides the type in the config, as `bert`; "" to trust the
        config and the tensors.
    """

    allow_missing: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    head: str = ""
    model_type: str = ""

    def __post_init__(self) -> None:
        if self.head not in ("", *mapping.CLASSIFIERS):
            raise errors.InputError(
                f"the head {self.head!r} is unknown: use one of "
                f"{', '.join(mapping.CLASSIFIERS)}"
            )
        if self.model_type not in ("", *config.MODEL_TYPES):
            raise errors.InputError(
                f"the model type {self.model_type!r} is unknown: use one of "
                f"{', '.join(config.MODEL_TYPES)}"
            )
        if "encoder" in self.ignore:
            raise errors.InputError("the encoder is the model: it cannot be ignored")


WHOLE = Choice()  # nothing may be missing or left over


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter: where it came from and what was done to it."""

    ours: str
    shape: tuple[int, ...]
    theirs: str
    stored: tuple[int, ...]
    dtype: str
    change: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What came from where.

    Attributes:
      source: the format and the class or model.
      files: sha256 of every file that was read.
      rows: one a parameter.
      missing: tensors that were allowed to be missing.
      dropped: parts that are left out for that.
      ignored: tensors that were left over and named.
      notes: buffers, copies and whatever else has no parameter of its own.
    """

    source: str
    files: dict[str, str]
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Returns the report as a JSON object."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Found:
    """The tensors of a file under the names of the table.

    Attributes:
      arrays: by the table's names.
      where: the file or folder, for messages.
      files: sha256 of every file that was read.
      originals: what the file calls those that it names otherwise.
    """

    arrays: Mapping[str, np.ndarray]
    where: str
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    originals: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def original(self, name: str) -> str:
        """Returns what the file calls a tensor."""
        return self.originals.get(name, name)


@dataclasses.dataclass(frozen=True)
class Described:
    """What the config of a folder says of its model; see `Weights`."""

    bert: config.BertConfig
    labels: tuple[str, ...] = ()
    problem_type: str = ""
    head_dropout: float | None = None


class ModelFiles(abc.ABC):
    """The files of a model in one format. Each part is read when it is asked for.

    Attributes:
      format: the name of the format.
      path: a folder, or a file of weights in it.
    """

    format: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is."""
        return self.folder

    @property
    def max_seq_length(self) -> int:
        """The longest sequence by the tokenizer's files; 0 if they have none."""
        return tokenizer_options.max_length(self.folder)

    @abc.abstractmethod
    def describe(self) -> Described:
        """Returns what the config says; reads no weights."""

    @property
    def head(self) -> str:
        """The part that is the head of a task, or "" if there is none."""
        return ""

    @property
    def step(self) -> int | None:
        """The step of the pretraining run that the model is from; None for others."""
        return None

    @abc.abstractmethod
    def weights(self, choice: Choice) -> tuple[Weights, Report]:
        """Reads all parameters.

        Raises:
          InputError: something is missing, left over or damaged, or does not fit.
          CheckpointError: a run has no usable checkpoint.
        """


def head_of(
    tree: Mapping[str, Any], dropout_key: str, where: str
) -> tuple[str, float | None]:
    """Returns `problem_type` and the dropout of the head that a config names.

    Raises:
      InputError: the first is unknown, or the second no share.
    """
    kind = tree["problem_type"] if "problem_type" in tree else None
    if kind not in (None, "", *PROBLEM_TYPES):
        raise errors.InputError(
            f"{where}: problem_type is {kind!r}: use one of {', '.join(PROBLEM_TYPES)}"
        )
    dropout = tree[dropout_key] if dropout_key in tree else None
    if dropout is None:
        return kind or "", None
    if isinstance(dropout, bool) or not isinstance(dropout, int | float):
        dropout = repr(dropout)
    if isinstance(dropout, str) or not 0 <= dropout < 1:
        raise errors.InputError(
            f"{where}: {dropout_key} is {dropout}: it must lie from 0 to below 1"
        )
    return kind or "", float(dropout)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Returns whether a name is one of these names or fits one of these patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def assemble(
    found: Found,
    described: Described,
    mapping_of: MappingOf,
    wanted: frozenset[str],
    choice: Choice,
    source: str,
    notes: Iterable[str] = (),
) -> tuple[Weights, Report]:
    """Returns the parameters of a file, and where each came from.

    Args:
      mapping_of: the mapping of the parameters of some parts.
      wanted: the parts that the file should have.
      source: the format and the class or model.

    Raises:
      InputError: a tensor is missing or left over and not named, or has a wrong shape
        or dtype, or the classes are not as many as the names.
    """
    needed = wanted | set(network.missing_parts(tuple(wanted)))
    count = _num_labels(found, described, mapping_of, frozenset(needed))

    def mapped(parts: frozenset[str]) -> list[mapping.ParamMapping]:
        return mapping_of(described.bert, parts, count)

    ignored_parts = {name for name in needed if name in choice.ignore}
    ignored_parts |= _with_dependents(ignored_parts, needed)
    wanted = wanted - ignored_parts
    wanted = wanted | set(network.missing_parts(tuple(wanted)))
    every = mapped(wanted)
    missing = _missing(every, found, choice)
    dropped = _with_dependents({p.ours.split("/")[0] for p in missing}, wanted)
    used = [p for p in every if p.ours.split("/")[0] not in dropped]
    flat, rows = {}, []
    for param in used:
        tensors = [_checked(found, name, param) for name in param.theirs]
        flat[param.ours] = param.join(tensors)
        rows.append(_row(param, found, tensors[0]))
    taken = {name for param in used for name in param.theirs}
    partly = {n for param in missing for n in param.theirs if n not in found.arrays}
    left_out = ignored_parts | dropped
    known = {
        name
        for param in mapped(frozenset(needed))
        if param.ours.split("/")[0] in left_out
        for name in param.theirs
    }
    report = Report(
        source=source,
        files=found.files,
        rows=tuple(rows),
        missing=tuple(sorted(partly)),
        dropped=tuple(sorted(left_out)),
        ignored=_left_over(found, taken, known, choice),
        notes=tuple(notes),
    )
    return _named(described, mapping.unflatten(flat)), report


def _named(described: Described, params: PyTree) -> Weights:
    """Returns parameters with what the config says of the heads among them."""
    return Weights(
        described.bert,
        params,
        described.labels if classifying(params) else (),
        described.problem_type if "classifier" in params else "",
        described.head_dropout if {*mapping.CLASSIFIERS} & {*params} else None,
    )


def classifying(parts: Iterable[str]) -> list[str]:
    """Returns the heads with an output for each label."""
    return [name for name in parts if name in KINDS and KINDS[name].has_classes]


def _num_labels(
    found: Found, described: Described, mapping_of: MappingOf, wanted: frozenset[str]
) -> int:
    """Returns the number of classes; 2 where nothing has classes."""
    biases = {f"{part}/dense/bias" for part in classifying(wanted)}
    names = len(described.labels)
    for param in mapping_of(described.bert, wanted, 2) if biases else ():
        (bias,) = param.theirs[:1]
        if param.ours in biases and bias in found.arrays:
            count = found.arrays[bias].size
            if names and names != count:
                raise errors.InputError(
                    f"{found.where}: {found.original(bias)} has {count} classes, and "
                    f"the labels of its config (id2label, num_labels) are {names}: "
                    "correct them"
                )
            return count
    return names or 2


def _missing(
    every: list[mapping.ParamMapping], found: Found, choice: Choice
) -> list[mapping.ParamMapping]:
    """Returns the parameters that lack tensors; raises InputError if one is required.

    Of the encoder nothing may be missing.
    """
    lacking, refused = [], []
    for param in every:
        absent = [name for name in param.theirs if name not in found.arrays]
        if not absent:
            continue
        part = param.ours.split("/")[0]
        lacking.append(param)
        allowed = part != "encoder" and (
            matches(part, choice.allow_missing)
            or matches(param.ours, choice.allow_missing)
            or all(matches(name, choice.allow_missing) for name in absent)
        )
        refused += [] if allowed else absent
    if refused:
        advice = "The encoder cannot do without any tensor: is this the right file?"
        if not any(p.ours.startswith("encoder/") for p in lacking):
            advice = _without(
                frozenset(p.ours.split("/")[0] for p in lacking),
                frozenset(p.ours.split("/")[0] for p in every),
            )
        raise errors.InputError(
            f"{found.where} lacks {len(refused)} tensors: {shortened(refused)}. "
            f"{advice}"
        )
    return lacking


def _without(absent: frozenset[str], wanted: frozenset[str]) -> str:
    """Returns what to do about parts that lack tensors, and what is lost by it."""
    lost = _with_dependents({*absent}, wanted) - absent
    also = f" and {', '.join(sorted(lost))}, which needs it" if lost else ""
    listed = sorted(absent)
    return (
        f"To continue without {', '.join(listed)}{also}, write a folder that has none: "
        f"{CONVERT} --allow_missing={','.join(listed)}"
    )


def _with_dependents(dropped: set[str], wanted: frozenset[str]) -> frozenset[str]:
    """Adds the parts that cannot be computed without those that are dropped."""
    rest = wanted - dropped
    while lost := [n for n in rest if network.needed_by(n, wanted) & dropped]:
        dropped, rest = dropped | set(lost), rest - set(lost)
    return frozenset(dropped)


def _checked(found: Found, name: str, param: mapping.ParamMapping) -> np.ndarray:
    """Returns a tensor; raises InputError unless its shape and dtype are right."""
    tensor = found.arrays[name]
    original = found.original(name)
    if tensor.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise errors.InputError(
            f"{found.where}: {original} has the dtype {tensor.dtype.name}; weights are "
            "float16, bfloat16, float32 or float64. Is the model quantized? Give the "
            "one it was made from"
        )
    if tensor.shape != param.stored:
        raise errors.InputError(
            f"{found.where}: {original} has the shape {list(tensor.shape)}, and by its "
            f"config it should be {list(param.stored)}. Give the config and the "
            "weights of the same model"
        )
    return tensor


def _row(param: mapping.ParamMapping, found: Found, tensor: np.ndarray) -> Row:
    """Describes one parameter, and the dtype of its first tensor."""
    theirs = in_one([found.original(name) for name in param.theirs])
    dtype = tensor.dtype.name
    return Row(param.ours, param.shape, theirs, param.stored, dtype, param.change)


def in_one(named: list[str]) -> str:
    """Returns names that differ in a number as one.

    >>> in_one(["layer.0.bias", "layer.1.bias", "layer.2.bias"])
    'layer.{0..2}.bias'
    """
    first, last = named[0], named[-1]
    if len(named) == 1:
        return first
    start = len(os.path.commonprefix([first, last]))
    end = len(os.path.commonprefix([first[:start:-1], last[:start:-1]]))
    middle = f"{{{first[start : len(first) - end]}..{last[start : len(last) - end]}}}"
    return first[:start] + middle + first[len(first) - end :]


def _left_over(
    found: Found, taken: set[str], known: set[str], choice: Choice
) -> tuple[str, ...]:
    """Returns the tensors that nothing takes; raises InputError if one is not named.

    `known` are those of the parts that are left out.
    """
    rest = sorted(set(found.arrays) - taken)
    refused = [
        found.original(name)
        for name in rest
        if name not in known
        and not matches(name, choice.ignore)
        and not matches(found.original(name), choice.ignore)
    ]
    if refused:
        raise errors.InputError(
            f"{found.where} holds {len(refused)} tensors that no part of the model "
            f"takes: {shortened(refused)}. To leave them out, write a folder "
            f"without them: {CONVERT} --ignore={refused[0]}, or --ignore='PATTERN*'"
        )
    return tuple(found.original(name) for name in rest)


def shortened(listed: list[str]) -> str:
    """Joins names, and counts them where they are many.

    >>> shortened(["a", "b"])
    'a, b'
    """
    more = len(listed) - _LISTED
    text = ", ".join(listed[:_LISTED])
    return f"{text} and {more} more" if more > 0 else text
