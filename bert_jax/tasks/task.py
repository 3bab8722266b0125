"""What a task gives to the training loop: pure functions of parameters and batches.

A task that is fine-tuned also turns examples into rows, and outputs into predictions
and scores; that part runs on the host, in numpy and plain Python.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from bert_jax.data.labeled import labelled_rows, shared_rows
from bert_jax.metrics import scores

Batch = dict[str, Any]
Sums = dict[str, tuple[Any, Any]]


def packed(batch: Batch) -> Int[Array, "R S"] | None:
    """Returns where the tokens of a batch stand in shared rows; None where it has none.

    Batches of training may have it, those that are scored have not.
    """
    name = shared_rows.PACKED
    return batch[name] if name in batch else None


@runtime_checkable
class Task(Protocol):
    """The contract between a task and `training`; all but `init` is traced.

    Sums and weights are added over devices, micro-batches and batches, and divided
    once; a loss is a sum whose weight `weights` gives for the whole batch.
    """

    def init(self, key: Array) -> PyTree:
        """Draws fresh parameters, boxed with the names of their logical axes."""
        ...

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Does to a global batch what is random and not differentiated (masks)."""
        ...

    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the weight of each loss over a prepared batch."""
        ...

    def losses(
        self, params: PyTree, batch: Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], Sums]:
        """Returns the sum of each loss, and metrics, with dropout from the key."""
        ...


# What a task says of an example: a JSON object.
Prediction = dict[str, Any]
# Output name -> one array a row, in the order of the rows of a table.
Outputs = dict[str, list[np.ndarray]]


@runtime_checkable
class FineTuned(Task, Protocol):
    """A task with labelled examples; `examples` are those of its own kind."""

    def table(self, examples: Sequence[Any]) -> labelled_rows.Table:
        """Tokenises examples into rows, with labels where they have any.

        Raises InputError, with the place of the example, for what cannot be a row.
        """
        ...

    def unseen(self, example: Any) -> Sequence[str]:
        """Returns the labels of an example that the model cannot predict."""
        ...

    def without_unseen(self, example: Any) -> Any:
        """Returns an example that `table` takes: without the labels in `unseen`."""
        ...

    def is_beyond(self, example: Any) -> bool:
        """Returns whether an example has labels, and the model knows none of them."""
        ...

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Computes the outputs of rows, without dropout; traced."""
        ...

    def decode(
        self, examples: Sequence[Any], table: labelled_rows.Table, outputs: Outputs
    ) -> list[Prediction]:
        """Returns one prediction an example, in their order.

        Rows of outputs have the padding of their batches still behind them.
        """
        ...

    def score(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> scores.Scores:
        """Compares predictions with the labels of the examples.

        Labels that the model has not seen count as errors.
        """
        ...
