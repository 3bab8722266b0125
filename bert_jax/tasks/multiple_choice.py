"""Multiple choice: each choice is encoded with the context and scored.

The loss is a softmax over the choices of an example (arXiv:1810.04805, section 4.4,
SWAG).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, example_rows, text_examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import scores
from bert_jax.model import network
from bert_jax.tasks import losses, spec
from bert_jax.text.tokenizer import Tokenizer


class MultipleChoiceSpec(spec.TaskSpec):
    """Task specification of multiple choice."""

    name = "multiple_choice"
    form = data_examples.ExampleForm(
        task=name,
        example=data_examples.ChoiceExample,
        formats=(*data_examples.TABLES, "c3"),
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
        self,
        settings: spec.Settings,
        metadata: spec.Metadata,
        common: Mapping[str, Any],
        recipe: losses.Recipe,
    ) -> "MultipleChoice":
        """Returns the task."""
        return MultipleChoice(
            **common, truncation=settings.data.truncation, recipe=recipe
        )

    def rows(self, example: Any, prediction: spec.Prediction) -> list[dict[str, Any]]:
        """Returns the choice and its probability."""
        return [prediction | {"probability": max(prediction["probabilities"])}]


SPEC = MultipleChoiceSpec()


@dataclasses.dataclass(frozen=True, eq=False)
class MultipleChoice(spec.FineTuned):
    """Multiple choice; a `FineTuned` task on `ChoiceExample`.

    Attributes:
      model: the network, with a head of kind `multiple_choice`.
      max_seq_length: maximum number of tokens of a context with one choice.
      truncation: how longer inputs are truncated; see `data.truncation`.
    """

    model: network.Network
    tokenizer: Tokenizer
    max_seq_length: int
    truncation: str = "longest_first"
    recipe: losses.Recipe = losses.Recipe()

    def table(
        self, examples: Sequence[data_examples.ChoiceExample]
    ) -> example_rows.ExampleTable:
        """Tokenizes examples into rows [K, l], where K is the largest choice count.

        Fixed columns: `choices` [n, K] bool, False for padding; `labels` [n] int32 and
        `label_weights` [n] float32, 0 without a label.

        Raises:
          InputError: an example has fewer than two choices, no token, or a label that
            is out of range; or a text cannot be encoded.
        """
        for example in examples:
            _check(example)
        texts = [
            encoding.Text(example.where, example.context, choice)
            for example in examples
            for choice in example.choices
        ]
        encoded = encoding.encode(
            self.tokenizer, texts, self.max_seq_length, self.truncation
        )
        counts = np.array([len(example.choices) for example in examples])
        most, firsts = int(counts.max(initial=0)), np.cumsum(counts) - counts
        tokens = {
            name: [
                _stacked(column[first : first + count], most)
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
        rows = np.arange(len(examples))
        return example_rows.ExampleTable(
            tokens, fixed, rows, encoded.notes, coverage=encoded.coverage
        )

    def weights(self, batch: spec.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of examples with a label."""
        return {"choice": jnp.sum(_weights(batch))}

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the summed loss and the metrics, with dropout from the key."""
        weights = _weights(batch)

        def divergence(one: spec.Logits, two: spec.Logits) -> Float[Array, ""]:
            both = _logits(one, batch), _logits(two, batch)
            return jnp.sum(losses.symmetric_kl(*both) * weights)

        total, outputs = losses.regularized(
            self.recipe.r_drop,
            lambda k: self.model.apply(params, batch, dropout_key=k),
            lambda result: jnp.sum(self._row_losses(result, batch) * weights),
            divergence,
            key,
        )
        hits = losses.correct(_logits(outputs, batch), batch["labels"], weights)
        return {"choice": total}, {"accuracy": (hits, jnp.sum(weights))}

    def _row_losses(
        self, outputs: spec.Logits, batch: spec.Batch
    ) -> Float[Array, " B"]:
        return losses.class_losses(
            outputs["logits"],
            batch["labels"],
            smoothing=self.recipe.label_smoothing,
            focal_gamma=self.recipe.focal_gamma,
            allowed=batch["choices"],
        )

    def predict(self, params: PyTree, batch: spec.Batch) -> dict[str, Array]:
        """Computes `probabilities` [B, K], 0 for padded choices."""
        outputs = self.model.apply(params, batch, dropout_key=None)
        return {"probabilities": jax.nn.softmax(_logits(outputs, batch))}

    def decode(
        self,
        examples: Sequence[data_examples.ChoiceExample],
        table: example_rows.ExampleTable,
        outputs: spec.Outputs,
    ) -> list[spec.Prediction]:
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
        self,
        examples: Sequence[data_examples.ChoiceExample],
        predictions: Sequence[spec.Prediction],
    ) -> scores.Scores:
        """Returns `accuracy`; errors are ranked by confidence.

        Raises:
          InputError: there are no examples, or one has no label.
          NotFiniteError: the model has diverged.
        """
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


def _check(example: data_examples.ChoiceExample) -> None:
    count, label = len(example.choices), example.label
    if count < 2:
        raise errors.InputError(
            f"{example.where}: {count} choice: give two or more, or remove the example"
        )
    if label is not None and not 0 <= label < count:
        raise errors.InputError(
            f"{example.where}: the label {label} is out of range: use 0 to {count - 1} "
            f"for the {count} choices"
        )


def _labels(examples: Sequence[data_examples.ChoiceExample]) -> list[int]:
    missing = [example.where for example in examples if example.label is None]
    if missing:
        raise errors.InputError(
            f"{missing[0]}: the example has no label: evaluation needs labeled examples"
        )
    return [example.label for example in examples if example.label is not None]


def _stacked(rows: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Returns the rows of an example as [K, l], padded with zeros."""
    result = np.zeros((most, max(len(row) for row in rows)), np.int32)
    for index, row in enumerate(rows):
        result[index, : len(row)] = row
    return result


def _weights(batch: dict[str, Any]) -> Float[Array, " B"]:
    return batch[example_rows.WEIGHTS] * batch["label_weights"]


def _logits(outputs: spec.Logits, batch: spec.Batch) -> Float[Array, "B K"]:
    """Returns the scores of the choices, with padded ones masked out."""
    allowed: Bool[Array, "B K"] = batch["choices"]
    return losses.masked(outputs["logits"], allowed)
