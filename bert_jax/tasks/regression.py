"""Regression of a score on a text or a pair, as in STS-B and SICK (squared error).

Scores are standardized by the mean and standard deviation of the training scores.
Predictions are converted back to the original scale.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from bert_jax import errors
from bert_jax.data.labeled import text_examples
from bert_jax.data.labeled.example_rows import ExampleTable
from bert_jax.data.labeled.examples import TABLES, ExampleForm, TextExample
from bert_jax.metrics import numbers
from bert_jax.metrics.scores import Scores
from bert_jax.tasks import classification, spec
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


class RegressionSpec(TaskSpec):
    """Task specification of regression."""

    name = "regression"
    form = ExampleForm(
        task=name,
        example=TextExample,
        formats=(*TABLES, "space"),
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
        self, settings: Settings, examples: Examples, given: Metadata | None = None
    ) -> Metadata:
        """Returns the scale of the scores; a pretrained head keeps its own."""
        return given if given is not None else scale(examples)

    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> "Regression":
        return Regression(
            **common,
            truncation=settings.data.truncation,
            mean=metadata.mean,
            deviation=metadata.deviation,
        )

    def answer(self, prediction: Prediction) -> str:
        """Returns the score with three decimals."""
        return f"{prediction['score']:.3f}"

    def reads_head(self, head: str, is_number: bool) -> bool:
        """Returns whether a head has one output, a number."""
        return head == self.head_kind and is_number


SPEC = RegressionSpec()


def scale(examples: Examples) -> Metadata:
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
    return Metadata(
        mean=float(given.mean()),
        deviation=float(given.std()),
        lowest=float(given.min()),
        highest=float(given.max()),
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Regression(TextTask):
    """Text regression.

    Attributes:
      mean, deviation: mean and standard deviation of the training scores.
    """

    loss_name = "regression"
    mean: float = 0.0
    deviation: float = 1.0

    def table(self, examples: Examples) -> ExampleTable:
        """Tokenizes examples; `scores` [n] float32 are standardized."""
        given = [self.mean if x.score is None else x.score for x in examples]
        scaled = (np.array(given, np.float64) - self.mean) / self.deviation
        encoded = self.encode(classification.texts_of(examples))
        return self.table_of(encoded, {"scores": scaled.astype(np.float32)})

    def loss(self, outputs: Logits, batch: Batch) -> tuple[Float[Array, ""], Sums]:
        weight = jnp.sum(self.loss_weights(batch))
        sums = {"squared_error": (self._error(outputs, batch), weight)}
        return self._error(outputs, batch), sums

    def _error(self, outputs: Logits, batch: Batch) -> Float[Array, ""]:
        error = jnp.square(outputs["logits"][:, 0] - batch["scores"])
        return jnp.sum(error * self.loss_weights(batch))

    def divergence(self, one: Logits, two: Logits, batch: Batch) -> Float[Array, ""]:
        """Sums the squared differences."""
        return self._error(one, batch | {"scores": two["logits"][:, 0]})

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Array]:
        """Computes `scores` [B], on the original scale."""
        logits = self.forward(params, batch, None)["logits"]
        return {"scores": logits[:, 0] * self.deviation + self.mean}

    def decode(
        self, examples: Examples, table: ExampleTable, outputs: Outputs
    ) -> list[Prediction]:
        """Returns `id` and `score`."""
        del table  # one row per example
        return [
            {"id": example.id, "score": round(float(score), 6)}
            for example, score in zip(examples, outputs["scores"], strict=True)
        ]

    def score(self, examples: Examples, predictions: Sequence[Prediction]) -> Scores:
        """Compares predictions with scores; see `metrics.numbers`."""
        return numbers.score(
            np.array([example.score for example in examples], np.float64),
            np.array([result["score"] for result in predictions], np.float64),
            where=[example.where for example in examples],
            texts=[classification.readable(example) for example in examples],
        )
