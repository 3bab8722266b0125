"""Single-label and multi-label classification of texts and text pairs.

Head and loss follow arXiv:1810.04805, section 4.1: dropout and a linear layer on the
pooled output, with cross-entropy. Multi-label models use one sigmoid per class.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from bert_jax.data.labeled import encoding, text_examples
from bert_jax.data.labeled.example_rows import ExampleTable
from bert_jax.data.labeled.examples import TABLES, ExampleForm, TextExample
from bert_jax.metrics import classes
from bert_jax.metrics.scores import Scores
from bert_jax.tasks import class_names, losses, spec
from bert_jax.tasks.spec import (
    Batch,
    Logits,
    Metadata,
    Outputs,
    Prediction,
    Settings,
    Sums,
    TaskSpec,
    TextTask,
)

Examples = Sequence[TextExample]


class ClassificationSpec(TaskSpec):
    """Task specification of text classification."""

    name = "classification"
    form = ExampleForm(
        task=name,
        example=TextExample,
        formats=(*TABLES, "space", "package"),
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
        self, settings: Settings, examples: Examples, given: Metadata | None = None
    ) -> Metadata:
        """Returns the class names from the config, the given head, or the examples."""
        if given is not None:
            return class_names.of_head(settings, given)
        return Metadata(labels=class_names.of_examples(settings, examples))

    def classes(self, metadata: Metadata) -> int:
        return len(metadata.labels)

    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> "Classification":
        return Classification(
            **common,
            labels=metadata.labels,
            truncation=settings.data.truncation,
            multi_label=bool(settings.data.multi_label),
        )

    def expected_metric(
        self, settings: Settings, metadata: Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns accuracy, or micro F1 if a text may have several labels."""
        return self.default_metrics[bool(settings.data.multi_label)]

    def positive(self, settings: Settings, labels: Sequence[str]) -> str:
        """Returns the second of two classes."""
        is_binary = len(labels) == 2 and not settings.data.multi_label
        return labels[1] if is_binary else ""

    def named(self, examples: Examples, labels: tuple[str, ...]) -> list[TextExample]:
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
        self, examples: Examples, labels: tuple[str, ...]
    ) -> dict[int, str]:
        """Returns labels not in `labels`; without `labels`, those that occur once."""
        counts = collections.Counter(x for one in examples for x in one.labels or ())
        known = set(labels) or {label for label, n in counts.items() if n > 1}
        return class_names.unknown(examples, known)

    def rows(self, example: Any, prediction: Prediction) -> list[dict[str, Any]]:
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

    def classes_of(self, example: TextExample, metadata: Metadata) -> Sequence[str]:
        return example.labels or ()


SPEC = ClassificationSpec()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Classification(TextTask):
    """Text classification.

    Attributes:
      labels: the class names, in the order of the head's outputs.
      multi_label: whether a text may have any number of labels.
      threshold: probability above which a multi-label model predicts a class.
    """

    loss_name = "class"
    labels: tuple[str, ...]
    multi_label: bool = False
    threshold: float = 0.5

    @property
    def single_labels(self) -> tuple[str, ...]:
        return () if self.multi_label else self.labels

    def table(self, examples: Examples) -> ExampleTable:
        """Tokenizes examples; `labels` are [n] int32, or multi-hot [n, C] float32."""
        encoded = self.encode(texts_of(examples))
        return self.table_of(encoded, {"labels": self._targets(examples)})

    def unseen(self, example: TextExample) -> Sequence[str]:
        return [x for x in example.labels or () if x not in self.labels]

    def without_unseen(self, example: TextExample) -> TextExample:
        known = [x for x in example.labels or () if x in self.labels]
        return dataclasses.replace(example, labels=tuple(known) or None)

    def is_beyond(self, example: TextExample) -> bool:
        return bool(example.labels) and not set(example.labels) & set(self.labels)

    def _targets(
        self, examples: Examples, labels: tuple[str, ...] | None = None
    ) -> np.ndarray:
        """Returns class indices or multi-hot rows; `labels` default to the model's."""
        labels = self.labels if labels is None else labels
        index = {label: at for at, label in enumerate(labels)}
        hot = np.zeros((len(examples), len(labels)), np.float32)
        for row, example in enumerate(examples):
            for label in example.labels or ():
                if label not in index:
                    raise class_names.unknown_label(example.where, label, self.labels)
                hot[row, index[label]] = 1.0
        return hot if self.multi_label else np.argmax(hot, axis=1).astype(np.int32)

    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of examples, or the sum of their class weights.

        In multi-label models, class weights scale the positive term of the loss, as
        `pos_weight` in torch, and do not enter the denominator.
        """
        weights = self.loss_weights(batch)
        if self.recipe.class_weights and not self.multi_label:
            weights = weights * self.recipe.of_classes[batch["labels"]]
        return {self.loss_name: jnp.sum(weights)}

    def loss(self, outputs: Logits, batch: Batch) -> tuple[Float[Array, ""], Sums]:
        logits, labels = outputs["logits"], batch["labels"]
        if self.multi_label:
            each = jnp.mean(losses.binary_losses(logits, labels, self.recipe), axis=-1)
            same = (jax.nn.sigmoid(logits) > self.threshold) == (labels > 0)
            hits = jnp.all(same, axis=-1)
        else:
            each = losses.class_losses(logits, labels, self.recipe)
            hits = jnp.argmax(logits, axis=-1) == labels
        weights = self.loss_weights(batch)
        sums = {"accuracy": (jnp.sum(hits * weights), jnp.sum(weights))}
        return jnp.sum(each * weights), sums

    def divergence(self, one: Logits, two: Logits, batch: Batch) -> Float[Array, ""]:
        both = self._choices(one["logits"]), self._choices(two["logits"])
        each = jnp.sum(losses.symmetric_kl(*both), axis=-1)
        return jnp.sum(each * self.loss_weights(batch))

    def _choices(self, logits: Float[Array, "B C"]) -> Float[Array, "B D K"]:
        """Returns the logits of D decisions: one C-way decision, or C binary ones."""
        if self.multi_label:
            return jnp.stack([logits, jnp.zeros_like(logits)], axis=-1)
        return logits[:, None]

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Array]:
        """Computes `probabilities` [B, C]."""
        logits = self.forward(params, batch, None)["logits"]
        if self.multi_label:
            return {"probabilities": jax.nn.sigmoid(logits)}
        return {"probabilities": jax.nn.softmax(logits)}

    def decode(
        self, examples: Examples, table: ExampleTable, outputs: Outputs
    ) -> list[Prediction]:
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

    def score(self, examples: Examples, predictions: Sequence[Prediction]) -> Scores:
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


def texts_of(examples: Examples) -> list[encoding.Text]:
    """Returns the texts to encode."""
    return [encoding.Text(x.where, x.text, x.text_pair) for x in examples]


def readable(example: TextExample) -> str:
    """Returns the text, or both texts of a pair, on one line."""
    if example.text_pair is None:
        return example.text
    return f"{example.text} ||| {example.text_pair}"
