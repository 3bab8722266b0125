"""What sentence-transformers does with a pooled vector: Dense, LayerNorm, Normalize.

Each module has a folder with its config and weights. Vectors are [n, F] float32.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bert_jax import errors, json_file
from bert_jax.checkpoints import tensors

CONFIG = "config.json"
KINDS = ("Dense", "LayerNorm", "Normalize", "Dropout")
_EPSILON = 1e-5  # of torch's layer norm, which no config changes
_VECTOR = "sentence_embedding"  # what a module reads and writes, by their name

Vectors = Float[np.ndarray, "n F"]  # F inputs, G outputs


def _same(x: jax.Array) -> jax.Array:
    return x


# By the names of torch's classes, with the defaults of their arguments.
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "Identity": _same,
    "Tanh": jnp.tanh,
    "ReLU": jax.nn.relu,
    "GELU": functools.partial(jax.nn.gelu, approximate=False),
    "Sigmoid": jax.nn.sigmoid,
    "SiLU": jax.nn.silu,
    "LeakyReLU": jax.nn.leaky_relu,
    "ELU": jax.nn.elu,
    "Softplus": jax.nn.softplus,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A linear map and an activation.

    Attributes:
      kernel: [F, G] float32.
      bias: [G] float32, or None.
      activation: torch's name of it, one of `Identity`, `Tanh`, `ReLU`, `GELU`, ...
      has_residual: whether the input is added to the output.
      residual: [F, G] float32, which maps that input; None where F is G.
    """

    kernel: Float[np.ndarray, "F G"]
    bias: Float[np.ndarray, " G"] | None = None
    activation: str = "Tanh"
    has_residual: bool = False
    residual: Float[np.ndarray, "F G"] | None = None

    def __call__(self, vectors: Vectors) -> Float[np.ndarray, "n G"]:
        """Returns the vectors that the module makes of these, [n, G] float32."""
        made = vectors @ self.kernel
        if self.bias is not None:
            made = made + self.bias
        made = np.asarray(_ACTIVATIONS[self.activation](jnp.asarray(made)))
        if not self.has_residual:
            return made
        return made + (vectors if self.residual is None else vectors @ self.residual)

    def width(self, inputs: int) -> int:
        """Returns G; raises InputError unless `inputs` is F."""
        _check_width("Dense", self.kernel.shape[0], inputs)
        return self.kernel.shape[1]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerNorm:
    """A layer norm of vectors: `scale` and `bias` are [F] float32.

    Files have no `epsilon`: they can hold that of torch alone.
    """

    scale: Float[np.ndarray, " F"]
    bias: Float[np.ndarray, " F"]
    epsilon: float = _EPSILON

    def __call__(self, vectors: Vectors) -> Vectors:
        """Returns vectors of mean 0 and variance 1, scaled and shifted."""
        centered = vectors - vectors.mean(axis=1, keepdims=True)
        variance = np.mean(np.square(centered), axis=1, keepdims=True)
        return centered / np.sqrt(variance + self.epsilon) * self.scale + self.bias

    def width(self, inputs: int) -> int:
        """Returns F; raises InputError unless `inputs` is F."""
        _check_width("LayerNorm", self.scale.shape[0], inputs)
        return inputs


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Scales vectors to length 1."""

    def __call__(self, vectors: Vectors) -> Vectors:
        """Returns vectors of length 1 in the same directions."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)

    def width(self, inputs: int) -> int:
        """Returns F."""
        return inputs


Module = Dense | LayerNorm | Normalize


def _check_width(kind: str, wanted: int, inputs: int) -> None:
    if wanted != inputs:
        raise errors.InputError(
            f"the module {kind} is for vectors of {wanted} numbers, and it gets "
            f"{inputs}: its files do not belong together. Copy the whole model again"
        )


def read(kind: str, folder: Path) -> Module | None:
    """Reads a module of one of `KINDS`; None for dropout, which only trains.

    Raises:
      InputError: a file is missing or damaged, or the module does something else.
    """
    if kind == "Normalize":
        return Normalize()
    if kind == "Dropout":
        return None
    return _dense(folder) if kind == "Dense" else _layer_norm(folder)


def _dense(folder: Path) -> Dense:
    path = folder / CONFIG
    tree = json_file.read_object(path)
    _check_names(tree, path)
    wanted = ["linear.weight"]
    wanted += ["linear.bias"] if _flag(tree, "bias", True, path) else []
    has_residual = _flag(tree, "use_residual", False, path)
    sizes = [tree.get(name) for name in ("in_features", "out_features")]
    if has_residual and sizes[0] != sizes[1]:
        wanted.append("residual.weight")
    arrays = _arrays(folder, wanted)
    kernel = arrays["linear.weight"]
    is_right = [*kernel.shape[::-1]] == sizes
    is_right &= "linear.bias" not in arrays or arrays["linear.bias"].shape == (
        kernel.shape[0],
    )
    is_right &= arrays.get("residual.weight", kernel).shape == kernel.shape
    if not is_right:
        raise errors.InputError(
            f"{folder}: its weights have other shapes than {path.name} says "
            f"({sizes[0]} to {sizes[1]}). Copy the whole model again"
        )
    residual = arrays.get("residual.weight")
    return Dense(
        np.ascontiguousarray(kernel.T),
        arrays.get("linear.bias"),
        _activation(tree, path),
        has_residual,
        None if residual is None else np.ascontiguousarray(residual.T),
    )


def _layer_norm(folder: Path) -> LayerNorm:
    arrays = _arrays(folder, ["norm.weight", "norm.bias"])
    return LayerNorm(arrays["norm.weight"], arrays["norm.bias"])


def _arrays(folder: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    """Returns the weights of a module, float32, which must be exactly these."""
    found = tensors.read(folder).arrays
    if {*found} != {*wanted}:
        raise errors.InputError(
            f"{folder} holds the weights {', '.join(found)}, and should hold "
            f"{', '.join(wanted)}: another version wrote it, or it is damaged"
        )
    return {name: x.astype(np.float32) for name, x in found.items()}


def _check_names(tree: Mapping[str, Any], path: Path) -> None:
    """Raises InputError for a module that does not map one vector to the next."""
    for key in ("module_input_name", "module_output_name"):
        if tree.get(key) not in (None, _VECTOR):
            raise errors.InputError(
                f"{path}: {key} is {tree[key]!r}, and only {_VECTOR!r} is supported"
            )


def _flag(tree: Mapping[str, Any], key: str, default: bool, path: Path) -> bool:
    value = tree.get(key, default)
    if not isinstance(value, bool):
        raise errors.InputError(f"{path}: {key} is {value!r}: write true or false")
    return value


def _activation(tree: Mapping[str, Any], path: Path) -> str:
    """Returns the name of torch's activation; none is named for tanh."""
    given = tree.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = str(given).rpartition(".")[2]
    if not str(given).startswith("torch.nn.") or name not in _ACTIVATIONS:
        raise errors.InputError(
            f"{path}: activation_function is {given!r}; supported are torch's "
            f"{', '.join(_ACTIVATIONS)}"
        )
    return name


def write(folder: Path, module: Module) -> None:
    """Writes a module into a folder that is not there yet, for versions 3 to 6.

    Raises:
      InputError: a layer norm has another epsilon than theirs.
    """
    if isinstance(module, Normalize):  # has no files
        return
    folder.mkdir()
    if isinstance(module, LayerNorm):
        if module.epsilon != _EPSILON:
            raise errors.InputError(
                f"the pooler's norm has an epsilon of {module.epsilon:g}, and a "
                f"LayerNorm of sentence-transformers {_EPSILON:g}: use --to=bert_jax"
            )
        tree: dict[str, Any] = {"dimension": module.scale.shape[0]}
        arrays = {"norm.weight": module.scale, "norm.bias": module.bias}
    else:
        tree, arrays = _of_dense(module)
    (folder / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    tensors.write_safetensors(folder / tensors.SINGLE, arrays)


def _of_dense(module: Dense) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the config and the weights of a Dense."""
    place = "linear" if module.activation == "Identity" else "activation"
    tree: dict[str, Any] = {
        "in_features": module.kernel.shape[0],
        "out_features": module.kernel.shape[1],
        "bias": module.bias is not None,
        "activation_function": f"torch.nn.modules.{place}.{module.activation}",
    }
    if module.has_residual:  # older versions do not know the key
        tree["use_residual"] = True
    arrays = {"linear.weight": np.ascontiguousarray(module.kernel.T)}
    if module.bias is not None:
        arrays["linear.bias"] = module.bias
    if module.residual is not None:
        arrays["residual.weight"] = np.ascontiguousarray(module.residual.T)
    return tree, arrays
