"""Averages of the parameters over the steps, kept inside the optimizer's state.

The exponential mean is free of its beginning, as Adam's moments are: step t weighs
decay**(T - t), and the weights of all T steps are divided by their sum. So a short run
is no mixture with the parameters that it began with.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from bert_jax import errors


class Averages(NamedTuple):
    """How many steps are in the average, and the average: a tree like the parameters.

    Before the first step it is the parameters.
    """

    count: Int[Array, ""]
    average: PyTree


def keep(decay: float) -> optax.GradientTransformation:
    """Returns the last part of a chain: it changes no update and averages the results.

    Raises InputError unless 0 < decay < 1.
    """
    if not 0.0 < decay < 1.0:
        raise errors.InputError(
            f"the decay of averages is {decay}: it must lie above 0 and below 1"
        )

    def init_fn(params: PyTree) -> Averages:
        # Copies: a state is donated, and may not hold a buffer twice.
        return Averages(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update_fn(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        count = state.count + 1
        share = (1.0 - decay) / (1.0 - decay ** count.astype(jnp.float32))

        def moved(average: Array, param: Array, update: Array) -> Array:
            return average + share.astype(average.dtype) * (param + update - average)

        average = jax.tree.map(moved, state.average, params, updates)
        return updates, Averages(count, average)

    return optax.GradientTransformation(init_fn, update_fn)


def read(opt_state: PyTree) -> PyTree | None:
    """Returns the averages that an optimizer state holds, or None."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Averages))
    found = [node.average for node in nodes if isinstance(node, Averages)]
    return found[0] if found else None
