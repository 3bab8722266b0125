"""What a task gives to the training loop: pure functions of parameters and batches.

A task that is fine-tuned also turns examples into rows, and outputs into predictions
and scores; that part runs on the host, in numpy and plain Python.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import example_rows
from bert_jax.metrics import scores
from bert_jax.model import task_model

Batch = dict[str, Any]
Sums = dict[str, tuple[Any, Any]]
# What a model computes of a batch, by name.
Logits = dict[str, Array]


def packed(batch: Batch) -> Int[Array, "R S"] | None:
    """Returns where the tokens of a batch stand in shared rows; None where it has none.

    Batches of training may have it, those that are scored have not.
    """
    name = example_rows.PACKED
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

    def table(self, examples: Sequence[Any]) -> example_rows.ExampleTable:
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
        self,
        examples: Sequence[Any],
        table: example_rows.ExampleTable,
        outputs: Outputs,
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


class ModelTask:
    """The part of `task.FineTuned` that no head changes.

    Attributes:
      model: a field of the task.
    """

    model: task_model.TaskModel

    def init(self, key: Array) -> PyTree:
        """Draws fresh parameters, boxed with the names of their logical axes."""
        return task_model.initialiser(self.model)(key)

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Returns the batch as it is."""
        del key  # nothing is drawn but dropout
        return batch

    def unseen(self, example: Any) -> Sequence[str]:
        """Returns the labels of an example that the model cannot predict."""
        del example  # of a task without labels of its own
        return ()

    def without_unseen(self, example: Any) -> Any:
        """Returns an example that `table` takes: without the labels in `unseen`."""
        return example

    def is_beyond(self, example: Any) -> bool:
        """Returns whether an example has labels, and the model knows none of them."""
        del example
        return False


_ROWS = 4096  # looked at together: a few megabytes
_PLACES = ("token_positions", "predicate_positions", "start_positions", "end_positions")


def checked(
    of_task: FineTuned, examples: Sequence[Any], table: example_rows.ExampleTable
) -> example_rows.ExampleTable:
    """Returns the table that a task made of these examples.

    Raises:
      InputError: an id, a token type, a label or a place is beyond what the model has,
        or a row is longer than its positions.
    """
    for name, limit in _limits(of_task, table).items():
        if name in table.tokens and _is_below(table.tokens[name], limit):
            continue  # as in all but broken runs, and faster than to look for the place
        for first, values in _columns(table, name):
            _check(name, first, values, np.array(limit), examples, table)
    lengths = table.lengths
    for name in _PLACES:
        for first, values in _columns(table, name):
            bound = lengths[first : first + len(values)]
            bound = bound.reshape(-1, *[1] * (values.ndim - 1))
            _check(name, first, values, bound, examples, table)
    return table


def _limits(of_task: FineTuned, table: example_rows.ExampleTable) -> dict[str, int]:
    """Returns the first value that is too large, by column."""
    assert isinstance(of_task, ModelTask)
    bert, head = of_task.model.config, of_task.model.head
    made = {"input_ids": bert.vocab_size, "row lengths": bert.max_length + 1}
    if bert.type_vocab_size:  # without a table nothing is looked up
        made["token_type_ids"] = bert.type_vocab_size
    if "choices" in table.fixed:
        made["labels"] = table.fixed["choices"].shape[1]
    elif head.kind in ("classifier", "tagger"):
        made["labels"] = head.classes
    return made


def _is_below(rows: Sequence[np.ndarray], limit: int) -> bool:
    """Says whether all values are from 0 to below a limit."""
    for first in range(0, len(rows), _ROWS):
        flat = np.concatenate(rows[first : first + _ROWS], axis=None)
        if flat.size and (flat.min() < 0 or flat.max() >= limit):
            return False
    return True


def _columns(
    table: example_rows.ExampleTable, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields a column of whole numbers in parts [rows, ...], with their first rows."""
    if name == "row lengths":
        yield 0, table.lengths
    elif name in table.fixed and table.fixed[name].dtype.kind in "iu":
        yield 0, table.fixed[name]
    elif name in table.tokens:
        rows = table.tokens[name]
        for first in range(0, len(rows), _ROWS):
            part = rows[first : first + _ROWS]
            most = max(row.shape[-1] for row in part)
            made = np.zeros((len(part), *part[0].shape[:-1], most), part[0].dtype)
            for place, row in enumerate(part):
                made[place, ..., : row.shape[-1]] = row
            yield first, made


def _check(
    name: str,
    first: int,
    values: np.ndarray,
    limit: np.ndarray,
    examples: Sequence[Any],
    table: example_rows.ExampleTable,
) -> None:
    """Raises InputError for the first value that is not from 0 to below its limit."""
    wrong = (values < 0) | (values >= limit)
    if not wrong.any():
        return
    place = tuple(np.argwhere(wrong)[0])
    most = np.broadcast_to(limit, values.shape)[place] - 1
    example = examples[int(table.examples[first + place[0]])]
    raise errors.InputError(
        f"{example.where}: {name} has {values[place]}, and the model takes 0 to "
        f"{most}. Its vocabulary, its labels or its sizes (model.*) do not belong to "
        "the task"
    )
