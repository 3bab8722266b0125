"""What a task gives to the training loop: pure functions of parameters and batches."""

from typing import Any, Protocol

from jaxtyping import Array, Float, PyTree

Batch = dict[str, Any]
Sums = dict[str, tuple[Any, Any]]


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
