"""Training at the worst point nearby (Goodfellow et al. 2015; Miyato et al. 2017).

The gradient of a step gets a second one added: that of the same loss, with the same
dropout, at an embedding table moved by epsilon along the first gradient, g / |g|. The
table itself is not changed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.training import optimizer

# gradients(params, batch, weights, key) -> (grads, loss, metrics).
Gradients = Callable[..., tuple[PyTree, Any, Any]]


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """What is perturbed, and how far.

    Attributes:
      path: keys that lead to the leaf, an embedding table.
      epsilon: the length of the step, above 0.

    Raises:
      InputError: epsilon is not above 0.
    """

    path: tuple[str, ...]
    epsilon: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0.0:
            raise errors.InputError(
                f"the length of an adversarial step is {self.epsilon}: it must be above"
                " 0"
            )

    def added(self, gradients: Gradients) -> Gradients:
        """Returns gradients at both points, added; loss and metrics are the clean."""

        def both(params: PyTree, batch: Any, weights: Any, key: Any) -> Any:
            clean, total, metrics = gradients(params, batch, weights, key)
            perturbed, _, _ = gradients(self.move(params, clean), batch, weights, key)
            return jax.tree.map(jnp.add, clean, perturbed), total, metrics

        return both

    def move(self, params: PyTree, grads: PyTree) -> PyTree:
        """Returns the parameters with the one leaf moved; not if its gradient is 0.

        Raises ValueError if there is no such leaf.
        """
        leaves = jax.tree_util.tree_leaves_with_path(params)
        if self.path not in [optimizer.keys(path) for path, _ in leaves]:
            raise ValueError(f"there is no parameter {'/'.join(self.path)}")

        def moved(path: Any, param: Any, grad: Any) -> Any:
            if optimizer.keys(path) != self.path:
                return param
            norm = jnp.sqrt(jnp.sum(jnp.square(grad)))
            return param + self.epsilon * grad / jnp.where(norm > 0, norm, 1.0)

        return jax.tree_util.tree_map_with_path(moved, params, grads)
