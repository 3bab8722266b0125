"""Regression of a score on a text or a pair, as in STS-B and SICK (squared error).

Scores are standardized by the mean and standard deviation of the training scores.
Predictions are converted back to the original scale.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, example_rows, text_examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import numbers, scores
from bert_jax.model import network
from bert_jax.tasks import classification, losses, spec
from bert_jax.text.tokenizer import Tokenizer


class RegressionSpec(spec.TaskSpec):
    """Task specification of regression."""

    name = "regression"
    form = data_examples.ExampleForm(
        task=name,
        example=data_examples.TextExample,
        formats=(*data_examples.TABLES, "space"),
        parts=("text", "text_pair"),
        optional=("text_pair",),
        read=text_examples.text_examples,
        targets=("score",),
        written="(text, score) or (text, text_pair, score)",
    )
    keys = spec.TABLE_KEYS | spec.LINEAR_KEYS | {"data.columns.score"}
    metrics = ("pearson", "spearman", "rmse", "mae")
    default_metrics = ("spearman",)
    head_kind = "classifier"
    is_number = True
    columns = ("id", "score")
    formats = ("glue",)

    def learn(
        self,
        settings: spec.Settings,
        examples: Sequence[data_examples.TextExample],
        given: spec.Metadata | None = None,
    ) -> spec.Metadata:
        """Returns the scale of the scores; a pretrained head keeps its own."""
        return given if given is not None else scale(examples)

    def build(
        self,
        settings: spec.Settings,
        metadata: spec.Metadata,
        common: Mapping[str, Any],
        recipe: losses.Recipe,
    ) -> "Regression":
        """Returns the task."""
        return Regression(
            **common,
            truncation=settings.data.truncation,
            mean=metadata.mean,
            deviation=metadata.deviation,
            r_drop=recipe.r_drop,
        )

    def answer(self, prediction: spec.Prediction) -> str:
        """Returns the score with three decimals."""
        return f"{prediction['score']:.3f}"

    def reads_head(self, head: str, is_number: bool) -> bool:
        """Returns whether a head has one output, a number."""
        return head == self.head_kind and is_number


SPEC = RegressionSpec()


def scale(examples: Sequence[data_examples.TextExample]) -> spec.Metadata:
    """Returns the mean, standard deviation and range of the scores.

    Raises:
      InputError: all scores are equal.
    """
    scored = [x for x in examples if x.score is not None]
    given = np.array([x.score for x in scored], np.float64)
    if given.min() == given.max():
        raise errors.InputError(
            f"{scored[0].where}: all {len(given)} scores are {given[0]:g}, so there is "
            "nothing to learn; is data.columns.score the right column?"
        )
    return spec.Metadata(
        mean=float(given.mean()),
        deviation=float(given.std()),
        lowest=float(given.min()),
        highest=float(given.max()),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Regression(spec.FineTuned):
    """Text regression; a `FineTuned` task on `TextExample` with scores.

    Attributes:
      mean, deviation: mean and standard deviation of the training scores.
      r_drop: weight of the squared difference of two passes with independent dropout.
    """

    model: network.Network
    tokenizer: Tokenizer
    max_seq_length: int
    truncation: str = "longest_first"
    mean: float = 0.0
    deviation: float = 1.0
    r_drop: float = 0.0

    def table(
        self, examples: Sequence[data_examples.TextExample]
    ) -> example_rows.ExampleTable:
        """Tokenizes examples; `scores` [n] float32 are standardized."""
        encoded = encoding.encode(
            self.tokenizer,
            classification.texts_of(examples),
            self.max_seq_length,
            self.truncation,
        )
        given = [self.mean if x.score is None else x.score for x in examples]
        scaled = (np.array(given, np.float64) - self.mean) / self.deviation
        return example_rows.ExampleTable(
            encoded.columns,
            {"scores": scaled.astype(np.float32)},
            np.arange(len(examples)),
            encoded.notes,
            coverage=encoded.coverage,
        )

    def weights(self, batch: spec.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of examples."""
        return {"regression": jnp.sum(batch[example_rows.WEIGHTS])}

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the summed squared error, with dropout from the key."""
        weights = batch[example_rows.WEIGHTS]

        def squared_error(one: Float[Array, " B"], two: Float[Array, " B"]):
            return jnp.sum(jnp.square(one - two) * weights)

        total, outputs = losses.regularized(
            self.r_drop,
            lambda k: self.model.apply(params, batch, dropout_key=k),
            lambda result: squared_error(result["logits"][:, 0], batch["scores"]),
            lambda one, two: squared_error(one["logits"][:, 0], two["logits"][:, 0]),
            key,
        )
        error = squared_error(outputs["logits"][:, 0], batch["scores"])
        return {"regression": total}, {"squared_error": (error, jnp.sum(weights))}

    def predict(self, params: PyTree, batch: spec.Batch) -> dict[str, Array]:
        """Computes `scores` [B], on the original scale."""
        logits = self.model.apply(params, batch, dropout_key=None)["logits"]
        return {"scores": logits[:, 0] * self.deviation + self.mean}

    def decode(
        self,
        examples: Sequence[data_examples.TextExample],
        table: example_rows.ExampleTable,
        outputs: spec.Outputs,
    ) -> list[spec.Prediction]:
        """Returns `id` and `score`."""
        del table  # one row per example
        return [
            {"id": example.id, "score": round(float(score), 6)}
            for example, score in zip(examples, outputs["scores"], strict=True)
        ]

    def score(
        self,
        examples: Sequence[data_examples.TextExample],
        predictions: Sequence[spec.Prediction],
    ) -> scores.Scores:
        """Compares predictions with scores; see `metrics.numbers`."""
        return numbers.score(
            np.array([example.score for example in examples], np.float64),
            np.array([result["score"] for result in predictions], np.float64),
            where=[example.where for example in examples],
            texts=[classification.readable(example) for example in examples],
        )
