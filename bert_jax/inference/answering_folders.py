"""Folders whose model answers a task, whoever trained it.

Ours have `task.json` (`checkpoints.native`), which exports keep. In any other
folder the class in config.json, or the parts in model.json, name the head; `id2label`
and `problem_type` define its outputs, as they do for `transformers`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from bert_jax import checkpoints, errors
from bert_jax.checkpoints import native, weights
from bert_jax.config import finetuning
from bert_jax.model import heads, network
from bert_jax.tasks import spec, tag_schemes

# As the question-answering pipeline of transformers cuts contexts, in tokens.
_SPAN_LENGTH, _DOC_OVERLAP = 384, 128
_NEXT_SENTENCE = "nsp_head"  # answers as a classifier of pairs with two classes
_SEPARATOR = "|"  # of several labels in a cell of a file that is evaluated


def can_answer(path: Path) -> bool:
    """Returns whether the model of a folder has the head of a task.

    A folder without a model has none: whoever reads it then says what it lacks.
    """
    try:
        return native.is_task(path) or checkpoints.open(path).head != ""
    except errors.InputError:
        return False


def read(path: Path) -> native.TaskFolder:
    """Reads a model that answers a task: a run, an export, or anybody's folder.

    Raises:
      InputError: it has no head of a task, or it is damaged.
    """
    if native.is_task(path) or not can_answer(path):
        return native.read_task(path)
    folder = checkpoints.open(path)
    head, found = folder.head, folder.read()
    given = found.weights
    if head not in given.params:
        raise errors.InputError(
            f"{path} has no {head}, though its config names one: copy the whole folder"
        )
    needed = {head, *network.needed_by(head, given.parts)}
    kept = {name: x for name, x in given.params.items() if name in needed}
    if head == _NEXT_SENTENCE:
        kept["classifier"] = kept.pop(head)
    assert found.tokenizer is not None
    return native.TaskFolder(
        _settings(path, found, head),
        _learned(path, given, head),
        given.config,
        kept,
        found.tokenizer,
        {},
    )


def _settings(
    path: Path, found: checkpoints.LoadedModel, head: str
) -> finetuning.FinetuningConfig:
    """Returns the settings of a run that would have trained this model."""
    config: Any = finetuning.default().unlock()
    config.init_from = config.data.train = str(path)
    config.data.task = _task(path, found.weights, head)
    config.data.max_seq_length = found.max_seq_length
    if heads.TRANSFORM in network.needed_by(head, found.weights.parts):
        config.head.transform = True
        if head in ("classifier", "multiple_choice"):
            config.head.pooling = "mean"
    if found.weights.problem_type == weights.MULTI_LABEL:
        config.data.multi_label = _SEPARATOR
    if head == "span":
        config.data.max_seq_length = min(found.max_seq_length, _SPAN_LENGTH)
        config.data.doc_overlap = min(_DOC_OVERLAP, config.data.max_seq_length // 2)
    settings = finetuning.parse(config)
    return dataclasses.replace(settings, model=dataclasses.asdict(found.weights.config))


def _task(path: Path, given: weights.Weights, head: str) -> str:
    """Returns the task of a head.

    One output without a problem type is a number, as for transformers.
    """
    if head == _NEXT_SENTENCE:
        return "classification"
    if head != "classifier":
        return "tagging" if head == "tagger" else head
    is_number = given.problem_type == weights.REGRESSION
    if is_number and given.num_labels > 1:
        raise errors.InputError(
            f"{path} is a regression of {given.num_labels} numbers a text, and one is "
            "supported. For its vectors: python -m bert_jax.predict --task=features"
        )
    if given.num_labels == 1 and given.problem_type != weights.MULTI_LABEL:
        return "regression"
    return "classification"


def _check_names(path: Path, labels: tuple[str, ...]) -> None:
    """Raises InputError where two classes have one name, and so one probability."""
    for number, name in enumerate(labels):
        if labels.index(name) < number:
            raise errors.InputError(
                f"{path}: id2label names the classes {labels.index(name)} and {number} "
                f"both {name!r}: give each a name of its own in config.json"
            )


def _learned(path: Path, given: weights.Weights, head: str) -> spec.Metadata:
    """Returns the classes of a head, by their names or numbers."""
    values: dict[str, Any] = {}
    if head in ("classifier", "tagger", _NEXT_SENTENCE):
        count = given.num_labels
        numbered = tuple(f"LABEL_{number}" for number in range(count))
        values["labels"] = given.labels or numbered
        if head != "tagger":
            _check_names(path, values["labels"])
    if head == "tagger":
        values["scheme"] = tag_schemes.of_labels(values["labels"])
    return spec.Metadata(**values)
