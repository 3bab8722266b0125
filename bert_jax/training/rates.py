"""What differs from layer to layer: learning rates, freezing, fresh top layers.

Layers are stacked on the first axis of every leaf below a node named
`optimizer.STACKED`, the lowest first. Howard and Ruder 2018 (arXiv:1801.06146, section
3.2) give lower layers lower rates; Zhang et al. 2021 (arXiv:2006.05987, section 5) draw
the top ones anew.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.training import optimizer


def layer_scales(
    params: PyTree,
    *,
    num_layers: int,
    below: tuple[str, ...],
    layer_decay: float = 1.0,
    frozen_layers: int = 0,
    freeze_below: bool = False,
    trained_parts: Sequence[str] = (),
) -> PyTree:
    """Returns the factor of the learning rate of each parameter, for `optimizer.make`.

    What lies on the layers has 1, layer i of n `layer_decay ** (n - 1 - i)`, and what
    lies below them `layer_decay ** n`. What is frozen has 0.

    Args:
      params: parameters or their shapes.
      num_layers: n, of the model.
      below: the keys that lead to all that lies below the first layer (embeddings).
      layer_decay: above 0 and at most 1.
      frozen_layers: k: the first k layers, and what is below them, are frozen.
      freeze_below: freezes what is below the layers alone.
      trained_parts: if any are named, all else at the top of the tree is frozen.

    Returns:
      A tree of numbers, and of arrays [n, 1, ..., 1] for stacked leaves; those that
      have fewer rows than the others are of the top layers.

    Raises:
      InputError: a value is out of range, a part is unknown, or layers share their
        parameters.
    """
    _check(params, num_layers, layer_decay, frozen_layers, trained_parts)
    rates = layer_decay ** np.arange(num_layers - 1, -1, -1, dtype=np.float64)
    rates[:frozen_layers] = 0.0
    lowest = 0.0 if freeze_below or frozen_layers else layer_decay**num_layers

    def scale(path: Any, leaf: Any) -> Any:
        keys = optimizer.keys(path)
        if trained_parts and keys[0] not in trained_parts:
            return 0.0
        if optimizer.STACKED in keys:
            own = rates[num_layers - leaf.shape[0] :].astype(np.float32)
            return own.reshape(-1, *(1,) * (leaf.ndim - 1))
        return lowest if keys[: len(below)] == below else 1.0

    return jax.tree_util.tree_map_with_path(scale, params)


def _check(
    params: PyTree,
    num_layers: int,
    layer_decay: float,
    frozen_layers: int,
    trained_parts: Sequence[str],
) -> None:
    if not 0.0 < layer_decay <= 1.0:
        raise errors.InputError(
            f"the decay of rates by layer is {layer_decay}: it must lie above 0 and be "
            "at most 1"
        )
    if not 0 <= frozen_layers <= num_layers:
        raise errors.InputError(
            f"the layers to freeze are {frozen_layers}: this model has {num_layers}"
        )
    if unknown := sorted(set(trained_parts) - set(params)):
        raise errors.InputError(
            f"there is no part {', '.join(unknown)} to train: the parts are "
            f"{', '.join(sorted(params))}"
        )
    _check_stack(params, num_layers)


def _check_stack(params: PyTree, num_layers: int) -> None:
    """Raises InputError unless the stacked leaves with most rows have one a layer."""
    stacked = {
        keys: leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if optimizer.STACKED in (keys := optimizer.keys(path))
    }
    rows = max(stacked.values(), default=num_layers)
    if rows != num_layers:
        keys = next(keys for keys in stacked if stacked[keys] == rows)
        raise errors.InputError(
            f"{num_layers} layers share the parameters of {rows} here "
            f"({'/'.join(keys)}): what differs by layer is for models whose layers "
            "have their own"
        )


def replace_top_layers(
    params: PyTree, drawn: PyTree, count: int, *, num_layers: int
) -> PyTree:
    """Returns `params` with the last `count` layers of `drawn`, of the same tree.

    Raises InputError if there are not as many, or layers share their parameters.
    """
    if not 0 <= count <= num_layers:
        raise errors.InputError(
            f"the layers to draw anew are {count}: this model has {num_layers}"
        )
    _check_stack(params, num_layers)
    kept = num_layers - count

    def replaced(path: Any, leaf: Any, fresh: Any) -> Any:
        if optimizer.STACKED not in optimizer.keys(path):
            return leaf
        own = kept - (num_layers - leaf.shape[0])  # it may begin above the first layer
        return jnp.concatenate([leaf[: max(own, 0)], fresh[max(own, 0) :]])

    return jax.tree_util.tree_map_with_path(replaced, params, drawn)
