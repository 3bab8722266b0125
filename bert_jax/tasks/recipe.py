"""What changes the loss of any task that is fine-tuned, whatever its head."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

Outputs = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Changes to a loss; by default there is none.

    Attributes:
      label_smoothing: share of the target that is spread over all classes.
      focal_gamma: exponent of the focal loss (arXiv:1708.02002); 0 = cross-entropy.
      class_weights: one a class, or empty for all alike.
      r_drop: weight of the divergence between two passes with their own dropout
        (arXiv:2106.14448); 0 = one pass.
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] = ()
    r_drop: float = 0.0


def loss(
    r_drop: float,
    forward: Callable[[Array], Outputs],
    loss_of: Callable[[Outputs], Float[Array, ""]],
    divergence: Callable[[Outputs, Outputs], Float[Array, ""]],
    key: Array,
) -> tuple[Float[Array, ""], Outputs]:
    """Returns the summed loss of a batch, and the outputs that metrics are read from.

    With R-Drop it is the mean of the losses of two passes, plus `r_drop` times their
    divergence, as in the authors' code.

    Args:
      forward: outputs with the dropout of a key.
      loss_of: sums the losses of a batch.
      divergence: sums the symmetric divergences of two outputs.
    """
    if not r_drop:
        outputs = forward(key)
        return loss_of(outputs), outputs
    keys = jax.random.split(key)
    first, second = forward(keys[0]), forward(keys[1])
    mean: Any = (loss_of(first) + loss_of(second)) / 2
    return mean + r_drop * divergence(first, second), first
