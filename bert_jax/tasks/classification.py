"""Single-label and multi-label classification of texts and text pairs.

Head and loss follow arXiv:1810.04805, section 4.1: dropout and a linear layer on the
pooled output, with cross-entropy. Multi-label models use one sigmoid per class.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled import encoding, example_rows, python_examples, text_examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import classes, scores
from bert_jax.model import network
from bert_jax.tasks import losses, spec
from bert_jax.text.tokenizer import Tokenizer


class ClassificationSpec(spec.TaskSpec):
    """Task specification of text classification."""

    name = "classification"
    form = data_examples.ExampleForm(
        task=name,
        example=data_examples.TextExample,
        formats=(*data_examples.TABLES, "space", "package"),
        parts=("text", "text_pair"),
        optional=("text_pair",),
        read=text_examples.text_examples,
        written="(text, label) or (text, text_pair, label)",
    )
    keys = (
        spec.TABLE_KEYS
        | spec.CLASS_KEYS
        | {"data.labels", "data.multi_label", "data.skip_labels"}
        | {"recipe.class_weights"}
    )
    metrics = (
        *spec.TWO_CLASS_METRICS,
        *(
            f"{mean}_{name}"
            for mean in ("macro", "micro")
            for name in ("precision", "recall", "f1")
        ),
        *("matthews", "subset_accuracy", "ece", "brier"),
    )
    default_metrics = ("accuracy", "micro_f1")
    head_kind = "classifier"
    counts_dev_labels = True
    columns = ("id", "label", "probability")
    formats = ("glue", "clue")

    def learn(
        self,
        settings: spec.Settings,
        examples: Sequence[data_examples.TextExample],
        given: spec.Metadata | None = None,
    ) -> spec.Metadata:
        """Returns the class names from the config, the given head, or the examples."""
        if given is not None:
            return with_names(settings, given)
        return spec.Metadata(labels=_classes(settings, examples))

    def classes(self, metadata: spec.Metadata) -> int:
        """Returns the number of classes."""
        return len(metadata.labels)

    def build(
        self,
        settings: spec.Settings,
        metadata: spec.Metadata,
        common: Mapping[str, Any],
        recipe: losses.Recipe,
    ) -> "Classification":
        """Returns the task."""
        return Classification(
            **common,
            labels=metadata.labels,
            truncation=settings.data.truncation,
            multi_label=bool(settings.data.multi_label),
            recipe=recipe,
        )

    def expected_metric(
        self, settings: spec.Settings, metadata: spec.Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns accuracy, or micro F1 if a text may have several labels."""
        return self.default_metrics[bool(settings.data.multi_label)]

    def positive(self, settings: spec.Settings, labels: Sequence[str]) -> str:
        """Returns the second of two classes."""
        is_binary = len(labels) == 2 and not settings.data.multi_label
        return labels[1] if is_binary else ""

    def named(
        self, examples: Sequence[data_examples.TextExample], labels: tuple[str, ...]
    ) -> list[data_examples.TextExample]:
        """Replaces class numbers in labels by class names.

        Labels are unchanged if any class name is itself a number.
        """
        if any(label.isdigit() for label in labels):
            return list(examples)
        names = {str(number): name for number, name in enumerate(labels)}
        return [
            example
            if example.labels is None
            else dataclasses.replace(
                example, labels=tuple(names.get(x, x) for x in example.labels)
            )
            for example in examples
        ]

    def unknown_classes(
        self, examples: Sequence[data_examples.TextExample], labels: tuple[str, ...]
    ) -> dict[int, str]:
        """Returns labels not in `labels`; without `labels`, those that occur once."""
        counts = collections.Counter(x for one in examples for x in one.labels or ())
        known = set(labels) or {label for label, n in counts.items() if n > 1}
        return unknown(examples, known)

    def rows(self, example: Any, prediction: spec.Prediction) -> list[dict[str, Any]]:
        """Returns the label, or comma-separated labels, and the lowest probability."""
        probabilities = prediction["probabilities"]
        if "labels" not in prediction:
            return [prediction | {"probability": max(probabilities.values())}]
        labels = prediction["labels"]
        lowest = min((probabilities[label] for label in labels), default=None)
        return [prediction | {"label": ",".join(labels), "probability": lowest}]

    def reads_head(self, head: str, is_number: bool) -> bool:
        """Returns whether a head classifies texts, as next-sentence heads also do."""
        return head == "nsp_head" or (head == self.head_kind and not is_number)

    def classes_of(
        self, example: data_examples.TextExample, metadata: spec.Metadata
    ) -> Sequence[str]:
        """Returns the labels of an example."""
        return example.labels or ()


SPEC = ClassificationSpec()


@dataclasses.dataclass(frozen=True, eq=False)
class Classification(spec.FineTuned):
    """Text classification; a `FineTuned` task on `TextExample`.

    Attributes:
      labels: the class names, in the order of the head's outputs.
      multi_label: whether a text may have any number of labels.
      threshold: probability above which a multi-label model predicts a class.
    """

    model: network.Network
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    max_seq_length: int
    truncation: str = "longest_first"
    multi_label: bool = False
    threshold: float = 0.5
    recipe: losses.Recipe = losses.Recipe()

    @property
    def single_labels(self) -> tuple[str, ...]:
        """The classes if every text has exactly one; otherwise empty."""
        return () if self.multi_label else self.labels

    def table(
        self, examples: Sequence[data_examples.TextExample]
    ) -> example_rows.ExampleTable:
        """Tokenizes examples; `labels` are [n] int32, or multi-hot [n, C] float32.

        Raises:
          InputError: a label is unknown, or a text cannot be encoded.
        """
        encoded = encoding.encode(
            self.tokenizer, texts_of(examples), self.max_seq_length, self.truncation
        )
        return example_rows.ExampleTable(
            encoded.columns,
            {"labels": self._targets(examples)},
            np.arange(len(examples)),
            encoded.notes,
            coverage=encoded.coverage,
        )

    def unseen(self, example: data_examples.TextExample) -> Sequence[str]:
        """Returns the labels of an example that the model cannot predict."""
        return [x for x in example.labels or () if x not in self.labels]

    def without_unseen(
        self, example: data_examples.TextExample
    ) -> data_examples.TextExample:
        """Returns an example with only those labels that the model has."""
        known = [x for x in example.labels or () if x in self.labels]
        return dataclasses.replace(example, labels=tuple(known) or None)

    def is_beyond(self, example: data_examples.TextExample) -> bool:
        """Returns whether an example has labels but none of the model's."""
        return bool(example.labels) and not set(example.labels) & set(self.labels)

    def _targets(
        self,
        examples: Sequence[data_examples.TextExample],
        labels: tuple[str, ...] | None = None,
    ) -> np.ndarray:
        """Returns class indices or multi-hot rows; `labels` default to the model's."""
        labels = self.labels if labels is None else labels
        index = {label: at for at, label in enumerate(labels)}
        hot = np.zeros((len(examples), len(labels)), np.float32)
        for row, example in enumerate(examples):
            for label in example.labels or ():
                if label not in index:
                    raise unknown_label(example.where, label, self.labels)
                hot[row, index[label]] = 1.0
        return hot if self.multi_label else np.argmax(hot, axis=1).astype(np.int32)

    def weights(self, batch: spec.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of examples, or the sum of their class weights.

        In multi-label models, class weights scale the positive term of the loss, as
        `pos_weight` in torch, and do not enter the denominator.
        """
        weights = batch[example_rows.WEIGHTS]
        if self.recipe.class_weights and not self.multi_label:
            of_classes = jnp.array(self.recipe.class_weights, jnp.float32)
            weights = weights * of_classes[batch["labels"]]
        return {"class": jnp.sum(weights)}

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the summed loss and the metrics, with dropout from the key."""
        weights = batch[example_rows.WEIGHTS]

        def divergence(one: spec.Logits, two: spec.Logits) -> Float[Array, ""]:
            both = self._choices(one["logits"]), self._choices(two["logits"])
            divergences = losses.symmetric_kl(*both)
            return jnp.sum(jnp.sum(divergences, axis=-1) * weights)

        total, outputs = losses.regularized(
            self.recipe.r_drop,
            lambda k: self.model.apply(params, batch, dropout_key=k),
            lambda result: jnp.sum(self._row_losses(result["logits"], batch) * weights),
            divergence,
            key,
        )
        hits = self._hits(outputs["logits"], batch["labels"])
        sums = {"accuracy": (jnp.sum(hits * weights), jnp.sum(weights))}
        return {"class": total}, sums

    def _choices(self, logits: Float[Array, "B C"]) -> Float[Array, "B D K"]:
        """Returns the logits of D decisions: one C-way decision, or C binary ones."""
        if self.multi_label:
            return jnp.stack([logits, jnp.zeros_like(logits)], axis=-1)
        return logits[:, None]

    def _row_losses(
        self, logits: Float[Array, "B C"], batch: spec.Batch
    ) -> Float[Array, " B"]:
        options: dict[str, Any] = {
            "smoothing": self.recipe.label_smoothing,
            "focal_gamma": self.recipe.focal_gamma,
        }
        weights = self.recipe.class_weights
        of_classes = jnp.array(weights, jnp.float32) if weights else None
        if not self.multi_label:
            return losses.class_losses(
                logits, batch["labels"], class_weights=of_classes, **options
            )
        each = losses.binary_losses(
            logits, batch["labels"], positive_weights=of_classes, **options
        )
        return jnp.mean(each, axis=-1)

    def _hits(self, logits: Float[Array, "B C"], labels: Array) -> Float[Array, " B"]:
        """Returns 1 for each row whose whole prediction is correct."""
        if self.multi_label:
            same = (jax.nn.sigmoid(logits) > self.threshold) == (labels > 0)
            return jnp.all(same, axis=-1).astype(jnp.float32)
        return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)

    def predict(self, params: PyTree, batch: spec.Batch) -> dict[str, Array]:
        """Computes `probabilities` [B, C]."""
        logits = self.model.apply(params, batch, dropout_key=None)["logits"]
        if self.multi_label:
            return {"probabilities": jax.nn.sigmoid(logits)}
        return {"probabilities": jax.nn.softmax(logits)}

    def decode(
        self,
        examples: Sequence[data_examples.TextExample],
        table: example_rows.ExampleTable,
        outputs: spec.Outputs,
    ) -> list[spec.Prediction]:
        """Returns `id`, `label` (or `labels`) and `probabilities` by name."""
        del table  # one row per example
        return [
            {"id": example.id, **self._named(np.asarray(row, np.float64))}
            for example, row in zip(examples, outputs["probabilities"], strict=True)
        ]

    def _named(self, row: Float[np.ndarray, " C"]) -> dict[str, Any]:
        probabilities = [round(float(x), 6) for x in row]
        named = dict(zip(self.labels, probabilities, strict=True))
        if self.multi_label:
            predicted = [label for label, x in named.items() if x > self.threshold]
            return {"labels": predicted, "probabilities": named}
        return {"label": self.labels[int(np.argmax(row))], "probabilities": named}

    def score(
        self,
        examples: Sequence[data_examples.TextExample],
        predictions: Sequence[spec.Prediction],
    ) -> scores.Scores:
        """Compares predictions with labels; see `metrics.classes`.

        Labels that the model has not seen are added as classes of probability 0.
        """
        unseen = sorted({label for x in examples for label in self.unseen(x)})
        labels = (*self.labels, *unseen)
        probabilities = np.zeros((len(examples), len(labels)), np.float64)
        for row, result in enumerate(predictions):
            probabilities[row, : len(self.labels)] = list(
                result["probabilities"].values()
            )
        score = classes.multi_label if self.multi_label else classes.single_label
        return score(
            self._targets(examples, labels),
            probabilities,
            labels,
            unseen=len(unseen),
            where=[example.where for example in examples],
            texts=[readable(example) for example in examples],
        )


def texts_of(examples: Sequence[data_examples.TextExample]) -> list[encoding.Text]:
    """Returns the texts to encode."""
    return [encoding.Text(x.where, x.text, x.text_pair) for x in examples]


def readable(example: data_examples.TextExample) -> str:
    """Returns the text, or both texts of a pair, on one line."""
    return (
        example.text
        if example.text_pair is None
        else (f"{example.text} ||| {example.text_pair}")
    )


def unknown_label(
    where: str,
    label: str,
    labels: tuple[str, ...],
    fix: str = "correct it, or train with it",
) -> errors.InputError:
    """Returns the error for a label that the model does not have."""
    known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
    return errors.InputError(
        f"{where}: the label {label!r} is not one of the model's {len(labels)} labels "
        f"({known}): {fix}"
    )


def unknown(
    examples: Sequence[data_examples.TextExample], known: Collection[str]
) -> dict[int, str]:
    """Maps the index of each example to its first label that is not in `known`."""
    found = {}
    for at, example in enumerate(examples):
        others = [label for label in example.labels or () if label not in known]
        if others and known:
            found[at] = others[0]
    return found


def configured_labels(text: str) -> tuple[str, ...]:
    """Returns the classes in `data.labels`: a comma-separated list or a file.

    Raises:
      InputError: a class is listed twice, or there is only one.
    """
    names = text.split(",")
    path = Path(text)
    is_file = os.path.isfile(text)  # Path.is_file raises if the name is too long
    if is_file:
        named = text_files.NamedPath(path.name, path)
        names = [line for _, line in text_files.lines(named, text_files.Tally())]
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


_NUMBERED = re.compile(r"LABEL_\d+")  # default class names of transformers


def with_names(settings: spec.Settings, given: spec.Metadata) -> spec.Metadata:
    """Returns the metadata of a pretrained head, with class names.

    Raises:
      InputError: neither the head nor `data.labels` has class names, or they differ.
    """
    named, names = configured_labels(settings.data.labels), given.labels
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


def _classes(
    settings: spec.Settings, examples: Sequence[data_examples.TextExample]
) -> tuple[str, ...]:
    """Returns the configured class names, or those of the examples."""
    counts: collections.Counter[str] = collections.Counter()
    first = {}
    for example in examples:
        for label in example.labels or ():
            counts[label] += 1
            first.setdefault(label, example.where)
    named = configured_labels(settings.data.labels)
    if named:
        unknown_names = [label for label in counts if label not in named]
        if unknown_names:
            raise unknown_label(
                first[unknown_names[0]],
                unknown_names[0],
                named,
                "correct it, add it to data.labels, or set data.repair, which leaves "
                "such examples out",
            )
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
            "all intended classes in data.labels, or set data.repair, which leaves "
            "such examples out"
        )
    return tuple(sorted(counts, key=by_number))


def by_number(label: str) -> tuple[bool, float, str]:
    """Sort key of labels: numbers by value, then names."""
    is_number = re.fullmatch(r"-?[0-9]+", label) is not None
    return (not is_number, float(label) if is_number else 0.0, label)
