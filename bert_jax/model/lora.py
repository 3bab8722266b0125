"""Low-rank updates of the kernels of layers (LoRA, Hu et al. 2021, arXiv:2106.09685).

A kernel W, seen as a matrix from its inputs to its outputs, becomes W + alpha / rank *
A B. A is randomly initialized and B is zero, so that training starts at the given
model. All layers are stacked: A is [n, in, rank] and B [n, rank, out].
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bert_jax import errors

_STACKED = "layers"  # the encoder's name for what holds all layers
_KERNEL, _A, _B = "kernel", "lora_a", "lora_b"


def init(key: Array, params: PyTree, names: Sequence[str], rank: int) -> PyTree:
    """Returns the updates of the kernels of these names: a tree of `lora_a`, `lora_b`.

    The tree has the keys of `params` down to the module of each kernel.

    Args:
      key: A is sampled from N(0, 1 / in).
      params: parameters or their shapes; all layers are stacked in `layers`.
      names: ends of the paths of modules in a layer, as `attention/query`,
        `intermediate` or `output` (which is two: in the attention and behind it).
      rank: of each product.

    Raises:
      InputError: the rank is below 1, or no kernel has one of the names (the message
        lists those that exist).

    >>> kernel, bias = jnp.zeros((2, 6, 3, 4)), jnp.zeros((2, 3, 4))
    >>> layer = {"query": {"kernel": kernel, "bias": bias}}
    >>> adapters = init(jax.random.key(0), {"layers": layer}, ["query"], 5)
    >>> jax.tree.map(jnp.shape, adapters["layers"]["query"])
    {'lora_a': (2, 6, 5), 'lora_b': (2, 5, 12)}
    """
    if rank < 1:
        raise errors.InputError(f"the rank of LoRA is {rank}: use at least 1")
    modules = _modules(params)
    chosen = [path for path in modules if any(_ends(path, name) for name in names)]
    for name in names:
        if not any(_ends(path, name) for path in modules):
            known = sorted(path.split(f"{_STACKED}/", 1)[1] for path in modules)
            raise errors.InputError(
                f"LoRA finds no kernel {name!r} in the layers: there are "
                f"{', '.join(known)}"
            )
    result: dict[str, Any] = {}
    for path, own in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        node = result
        for part in path.split("/"):
            node = node.setdefault(part, {})
        node |= _draw(own, path, modules[path], rank)
    return result


def _modules(params: PyTree) -> dict[str, Any]:
    """Returns the modules in the layers that have a kernel, by path."""
    found: dict[str, Any] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if _STACKED in path and _KERNEL in node:
            found["/".join(path)] = node
        for name, child in node.items():
            if isinstance(child, dict):
                visit(child, (*path, name))

    visit(params, ())
    return found


def _ends(path: str, name: str) -> bool:
    return f"/{path}".endswith(f"/{name}")


def _draw(key: Array, path: str, module: dict[str, Any], rank: int) -> dict[str, Array]:
    layers, inputs, outputs = _matrix(path, module)
    a = jax.random.normal(key, (layers, inputs, rank)) * inputs**-0.5
    return {_A: a, _B: jnp.zeros((layers, rank, outputs))}


def _matrix(path: str, module: dict[str, Any]) -> tuple[int, int, int]:
    """Returns the layers, inputs and outputs of a kernel.

    Its inputs are its first axis, those of what follows heads the first two.
    """
    layers, *shape = module[_KERNEL].shape
    inputs = math.prod(shape[: 2 if _ends(path, "attention/output") else 1])
    return layers, inputs, math.prod(shape) // inputs


def merge(params: PyTree, lora: PyTree, alpha: int | float) -> PyTree:
    """Returns `params` with the updates of `init` added to their kernels."""
    merged = dict(params)
    for name, update in lora.items():
        if _A not in update:
            merged[name] = merge(params[name], update, alpha)
            continue
        kernel = params[name][_KERNEL]
        added = kernel + _product(update, alpha).reshape(kernel.shape)
        merged[name] = params[name] | {_KERNEL: added.astype(kernel.dtype)}
    return merged


def _product(update: dict[str, Array], alpha: int | float) -> Float[Array, "n I O"]:
    scale = alpha / update[_A].shape[-1]
    return scale * jnp.einsum("nir,nro->nio", update[_A], update[_B])


def count(params: PyTree) -> int:
    """Returns how many numbers a tree of parameters, or of their shapes, holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
