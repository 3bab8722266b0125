"""Numbers gone bad: which array of a step is not finite, found and named."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

# The checks of a step, in the order of `checks`: these, each gradient, and their norm.
LEARNING_RATE, LOSS = 0, 1


def checks(
    learning_rate: Any, loss: Any, squares: PyTree, grad_norm: Any
) -> Bool[Array, " checks"]:
    """Returns whether rate, loss, gradients and norm are finite; traced in the step.

    `squares` has the sum of squares of every gradient.
    """
    values = [learning_rate, loss, *jax.tree.leaves(squares), grad_norm]
    return jnp.stack([jnp.isfinite(x) for x in values])


def first_bad(
    found: Bool[np.ndarray, " checks"],
    metrics: Mapping[str, Any],
    batch: PyTree,
    params: PyTree,
    at: tuple[int, ...] = (),
) -> str:
    """Returns the first array that is not finite, in the order in which they are used.

    The learning rate, the arrays of the batch, the parameters, the losses, the
    gradients. All processes must call it.

    Args:
      found: the `checks` of the step.
      metrics: of the step; (sum, weight) pairs and single values.
      batch, params: what the step was computed from.
      at: the index of the run in the arrays of these two; (3,) for the fourth member
        of a sweep.
    """
    if not found[LEARNING_RATE]:
        return f"the learning rate is {float(metrics['learning_rate'])}"
    if name := first(batch, at):
        return f"the array {name} of the batch has values that are not finite"
    if name := first(params, at):
        return f"the parameter {name} has values that are not finite"
    parts = {n: m[0] for n, m in metrics.items() if isinstance(m, tuple)}
    for name, value in parts.items():
        if name.endswith("loss") and name != "loss" and not np.isfinite(value):
            return f"{name} is {float(value)}"
    if not found[LOSS]:
        return f"the loss is {float(parts['loss'])}"
    gradients = found[LOSS + 1 : -1]
    if gradients.all():
        return f"the gradient norm is {float(parts['grad_norm'])}"
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    bad = names[int(np.argmin(gradients))]
    return f"the gradient of {bad} has values that are not finite"


def first(tree: PyTree, at: tuple[int, ...] = ()) -> str | None:
    """Returns the name of the first array of floats with a value that is not finite.

    All processes must call it. `at` is as in `first_bad`.
    """
    floats = [
        (_name(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
    ]
    good = jax.device_get(_all_finite([leaf for _, leaf in floats], at))
    return next(
        (name for (name, _), fine in zip(floats, good, strict=True) if not fine), None
    )


@jax.jit
def _all_finite(leaves: list[Array], at: tuple[Any, ...]) -> list[Bool[Array, ""]]:
    return [jnp.isfinite(leaf[at]).all() for leaf in leaves]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
