"""Where each of our parameters lies in a file of another format.

Our parameters are stacked over layers, theirs are one tensor a layer; our attention
kernels know their heads, theirs are matrices; torch keeps matrices as [out, in].
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from bert_jax.checkpoints import names
from bert_jax.model import config, parts

STACKED = "encoder/layers/"


@dataclasses.dataclass(frozen=True)
class Place:
    """One of our parameters, and the tensors of a file that hold it.

    Attributes:
      ours: its path, as `encoder/layers/output/kernel`.
      shape: of ours.
      theirs: the names of the tensors: one a layer, or one.
      stored: the shape of each of them.
      transposed: whether they hold matrices as [out, in].
      is_stacked: whether they are the layers that the first axis of ours counts.
    """

    ours: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    stored: tuple[int, ...]
    transposed: bool
    is_stacked: bool

    @property
    def change(self) -> str:
        """Says what is done to the tensors."""
        done = ["transposed"] if self.transposed else []
        if self.is_stacked:
            done.append(f"stacked {len(self.theirs)}")
        if len(self.shape) - self.is_stacked != len(self.stored):
            of_heads = "attention" in self.ours
            done.append("cut into heads" if of_heads else "cut into parts")
        return ", ".join(done) or "as it is"

    def join(self, tensors: list[np.ndarray]) -> Float[np.ndarray, "..."]:
        """Returns our parameter, float32, from the tensors of a file."""
        single = self.shape[1:] if self.is_stacked else self.shape
        made = np.empty(self.shape, np.float32)
        rows = made if self.is_stacked else made[None]
        for row, tensor in zip(rows, tensors, strict=True):
            row[...] = (tensor.T if self.transposed else tensor).reshape(single)
        return made

    def split(self, parameter: Float[np.ndarray, "..."]) -> dict[str, np.ndarray]:
        """Returns the tensors of a file from our parameter."""
        layers = parameter if self.is_stacked else parameter[None]
        stored = self.stored[::-1] if self.transposed else self.stored
        made = [layer.reshape(stored) for layer in layers]
        if self.transposed:
            made = [np.ascontiguousarray(x.T) for x in made]
        return dict(zip(self.theirs, made, strict=True))


def flat(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a parameter tree by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    """Returns the tree of what `flat` returns.

    >>> nested({"a/b": 1, "a/c": 2})
    {'a': {'b': 1, 'c': 2}}
    """
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *above, last = path.split("/")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def shapes(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of our parameters by path, the vocabulary not padded."""
    order = tuple(name for name in parts.PARTS if name in of_parts)
    return {p: x.shape for p, x in flat(parts.shapes(bert, order, num_labels)).items()}


def huggingface(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> list[Place]:
    """Returns the places of all parameters in a file of Hugging Face's."""
    modules = names.modules(bert.model_type, of_parts)
    places = []
    for path, shape in shapes(bert, of_parts, num_labels).items():
        module, _, leaf = path.rpartition("/")
        theirs = f"{modules[module]}.{names.leaf(leaf)}"
        if path == "mlm_head/decoder":
            theirs = f"{names.DECODER[bert.model_type]}.weight"
        lacking = bert.num_groups - shape[0] if path.startswith(STACKED) else 0
        places.append(
            _place(path, shape, theirs, transposed=leaf == "kernel", first=lacking)
        )
    return places


def tensorflow1(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> list[Place]:
    """Returns the places of all parameters in a checkpoint of Google's.

    Its names are those of Hugging Face's BERT with slashes; kernels are [in, out].
    """
    modules = names.modules("bert", of_parts)
    places = []
    for path, shape in shapes(bert, of_parts, num_labels).items():
        module, _, leaf = path.rpartition("/")
        if module in names.TENSORFLOW1_OUTPUT:
            end = "bias" if leaf == "bias" else "weights"
            theirs = f"{names.TENSORFLOW1_OUTPUT[module]}_{end}"
            places.append(_place(path, shape, theirs, transposed=leaf == "kernel"))
        else:
            above = modules[module].replace("layer.{}", "layer_{}").replace(".", "/")
            theirs = above + _tensorflow1_leaf(path)
            places.append(_place(path, shape, theirs, transposed=False))
    return places


def native(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> list[Place]:
    """Returns the places of all parameters in a file of ours: each as it is."""
    return [
        Place(path, shape, (path,), shape, transposed=False, is_stacked=False)
        for path, shape in shapes(bert, of_parts, num_labels).items()
    ]


def _tensorflow1_leaf(path: str) -> str:
    """Returns the end of Google's name of one of our parameters."""
    if path == "mlm_head/bias":
        return "/output_bias"
    if "layer_norm/" in path:
        return "/beta" if path.endswith("bias") else "/gamma"
    return "" if path.endswith("embedding") else "/" + path.rpartition("/")[2]


def _place(
    path: str, shape: tuple[int, ...], theirs: str, *, transposed: bool, first: int = 0
) -> Place:
    """Makes the place of a parameter from the name of its tensors.

    Those of layers are numbered from `first`.
    """
    stacked = path.startswith(STACKED)
    single = shape[1:] if stacked else shape
    numbers = range(first, first + shape[0]) if stacked else (0,)
    tensors = tuple(theirs.format(number) for number in numbers)
    stored = _stored(path, single)
    stored = stored[::-1] if transposed else stored
    return Place(path, shape, tensors, stored, transposed, stacked)


def _stored(path: str, single: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of one layer's tensor as [in, out], or as a vector."""
    if path.endswith("/kernel"):
        inputs = 2 if path.endswith("attention/output/kernel") else 1
        return math.prod(single[:inputs]), math.prod(single[inputs:])
    return single if path.endswith(("embedding", "decoder")) else (math.prod(single),)
