"""What every task with a `TaskModel` has: fresh parameters, and batches as they are."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, PyTree

from bert_jax.model import task_model
from bert_jax.tasks import task


class ModelTask:
    """The part of `task.FineTuned` that no head changes.

    Attributes:
      model: a field of the task.
    """

    model: task_model.TaskModel

    def init(self, key: Array) -> PyTree:
        """Draws fresh parameters, boxed with the names of their logical axes."""
        return task_model.initialiser(self.model)(key)

    def prepare(self, batch: task.Batch, key: Array) -> task.Batch:
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
