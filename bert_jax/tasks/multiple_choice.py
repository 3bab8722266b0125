"""Multiple choice: each choice is encoded with the context and scored.

The loss is a softmax over the choices of an example (arXiv:1810.04805, section 4.4,
SWAG).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, text_examples
from bert_jax.data.labeled.example_rows import WEIGHTS, ExampleTable
from bert_jax.data.labeled.examples import TABLES, ChoiceExample, ExampleForm
from bert_jax.metrics import scores
from bert_jax.tasks import losses, spec
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

Examples = Sequence[ChoiceExample]


class MultipleChoiceSpec(TaskSpec):
    """Task specification of multiple choice."""

    name = "multiple_choice"
    form = ExampleForm(
        task=name,
        example=ChoiceExample,
        formats=(*TABLES, "c3"),
        parts=("context", "choices"),
        read=text_examples.choice_examples,
        written="(context, choices, label)",
    )
    keys = spec.TABLE_KEYS | spec.CLASS_KEYS | {"data.columns.choices"}
    metrics = ("accuracy",)
    default_metrics = ("accuracy",)
    head_kind = "multiple_choice"
    columns = ("id", "label", "probability")
    formats = ("clue",)

    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> "MultipleChoice":
        return MultipleChoice(**common, truncation=settings.data.truncation)

    def rows(self, example: Any, prediction: Prediction) -> list[dict[str, Any]]:
        """Returns the choice and its probability."""
        return [prediction | {"probability": max(prediction["probabilities"])}]


SPEC = MultipleChoiceSpec()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MultipleChoice(TextTask):
    """Multiple choice: a row has a context with each of its choices."""

    loss_name = "choice"

    def table(self, examples: Examples) -> ExampleTable:
        """Tokenizes examples into rows [K, l], where K is the largest choice count.

        Fixed columns: `choices` [n, K] bool, False for padding; `labels` [n] int32 and
        `label_weights` [n] float32, 0 without a label.
        """
        encoded = self.encode(
            [
                encoding.Text(example.where, example.context, choice)
                for example in examples
                for choice in example.choices
            ]
        )
        counts = np.array([len(example.choices) for example in examples])
        most, firsts = int(counts.max(initial=0)), np.cumsum(counts) - counts
        tokens = {
            name: [
                spec.stacked(column[first : first + count], most)
                for first, count in zip(firsts, counts, strict=True)
            ]
            for name, column in encoded.columns.items()
        }
        given = [example.label for example in examples]
        fixed = {
            "choices": np.arange(most)[None, :] < counts[:, None],
            "labels": np.array([label or 0 for label in given], np.int32),
            "label_weights": np.array([x is not None for x in given], np.float32),
        }
        return self.table_of(encoded, fixed, tokens)

    def loss_weights(self, batch: Batch) -> Float[Array, " B"]:
        return batch[WEIGHTS] * batch["label_weights"]

    def loss(self, outputs: Logits, batch: Batch) -> tuple[Float[Array, ""], Sums]:
        each = losses.class_losses(
            outputs["logits"], batch["labels"], self.recipe, batch["choices"]
        )
        weights = self.loss_weights(batch)
        hits = losses.correct(_logits(outputs, batch), batch["labels"], weights)
        return jnp.sum(each * weights), {"accuracy": (hits, jnp.sum(weights))}

    def divergence(self, one: Logits, two: Logits, batch: Batch) -> Float[Array, ""]:
        both = _logits(one, batch), _logits(two, batch)
        return jnp.sum(losses.symmetric_kl(*both) * self.loss_weights(batch))

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Array]:
        """Computes `probabilities` [B, K], 0 for padded choices."""
        outputs = self.forward(params, batch, None)
        return {"probabilities": jax.nn.softmax(_logits(outputs, batch))}

    def decode(
        self, examples: Examples, table: ExampleTable, outputs: Outputs
    ) -> list[Prediction]:
        """Returns `id`, `label` (counted from 0), `choice` and `probabilities`."""
        del table  # one row per example
        result = []
        for example, row in zip(examples, outputs["probabilities"], strict=True):
            probabilities = [round(float(x), 6) for x in row[: len(example.choices)]]
            best = int(np.argmax(row))
            result.append(
                {
                    "id": example.id,
                    "label": best,
                    "choice": example.choices[best],
                    "probabilities": probabilities,
                }
            )
        return result

    def score(
        self, examples: Examples, predictions: Sequence[Prediction]
    ) -> scores.Scores:
        """Returns `accuracy`; errors are ranked by confidence."""
        where = [example.where for example in examples]
        sure = np.array([max(result["probabilities"]) for result in predictions])
        scores.check(where, sure)
        labels, found = _labels(examples), [result["label"] for result in predictions]
        hits = np.array(labels) == np.array(found)
        worst = scores.worst(
            {int(at): float(sure[at]) for at in np.flatnonzero(~hits)},
            where,
            [example.context for example in examples],
            lambda at: examples[at].choices[labels[at]],
            lambda at: predictions[at]["choice"],
        )
        confidences = scores.Confidences(sure, hits.astype(np.float64))
        metrics = {"accuracy": float(hits.mean())}
        return scores.Scores(metrics, confidences=confidences, errors=worst)


def _labels(examples: Examples) -> list[int]:
    missing = [example.where for example in examples if example.label is None]
    if missing:
        raise errors.InputError(
            f"{missing[0]}: the example has no label: evaluation needs labeled examples"
        )
    return [example.label for example in examples if example.label is not None]


def _logits(outputs: Logits, batch: Batch) -> Float[Array, "B K"]:
    """Returns the scores of the choices, with padded ones masked out."""
    return losses.masked(outputs["logits"], batch["choices"])
