"""The files of sentence-transformers: how a model makes sentence vectors.

Reimers and Gurevych 2019 (arXiv:1908.10084), section 3. Versions 2 to 6 write two
layouts, which are both read; what is written here is read by versions 3 to 6.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bert_jax import errors
from bert_jax.checkpoints import tensors
from bert_jax.foundation import json_file

MODULES = "modules.json"
MODEL = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
_TRANSFORMERS = "sentence_*_config.json"  # older versions name it by the model
POOLING_FOLDER, CONFIG = "1_Pooling", "config.json"  # the latter of any module
MODES = ("mean", "cls", "max")  # the usual ones
_KEYS = {  # of the older layout, which joins vectors in this order
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
ALL_MODES = (*MODES, *(mode for mode in _KEYS if mode not in MODES))
_KINDS = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
_LIBRARY = "sentence_transformers."
_PACKAGE = "sentence_transformers.models"
# Keys that make a module something else, and the values that do not.
_OF_TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
}
_OF_VECTORS = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
_STATES = {"method": "forward", "method_output_name": "last_hidden_state"}
_EPSILON = 1e-5  # of torch's layer norm, which no config changes
# By the names of torch's classes, with the defaults of their arguments.
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "Identity": jnp.asarray,
    "Tanh": jnp.tanh,
    "ReLU": jax.nn.relu,
    "GELU": functools.partial(jax.nn.gelu, approximate=False),
    "Sigmoid": jax.nn.sigmoid,
    "SiLU": jax.nn.silu,
    "LeakyReLU": jax.nn.leaky_relu,
    "ELU": jax.nn.elu,
    "Softplus": jax.nn.softplus,
}

Vectors = Float[np.ndarray, "n F"]  # F inputs, G outputs


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

    kind: ClassVar[str] = "Dense"

    kernel: Float[np.ndarray, "F G"]
    bias: Float[np.ndarray, " G"] | None = None
    activation: str = "Tanh"
    has_residual: bool = False
    residual: Float[np.ndarray, "F G"] | None = None

    def __call__(self, vectors: Vectors) -> Float[np.ndarray, "n G"]:
        """Returns the vectors that the module makes of these, [n, G] float32."""
        result = vectors @ self.kernel
        if self.bias is not None:
            result = result + self.bias
        result = np.asarray(_ACTIVATIONS[self.activation](jnp.asarray(result)))
        if not self.has_residual:
            return result
        return result + (vectors if self.residual is None else vectors @ self.residual)

    def width(self, inputs: int) -> int:
        """Returns G; raises InputError unless `inputs` is F."""
        _check_width("Dense", self.kernel.shape[0], inputs)
        return self.kernel.shape[1]


@dataclasses.dataclass(frozen=True, eq=False)
class VectorNorm:
    """A layer norm of vectors: `scale` and `bias` are [F] float32.

    Files have no `epsilon`: it is that of torch.
    """

    kind: ClassVar[str] = "LayerNorm"

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

    kind: ClassVar[str] = "Normalize"

    def __call__(self, vectors: Vectors) -> Vectors:
        """Returns vectors of length 1 in the same directions."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)

    def width(self, inputs: int) -> int:
        """Returns F."""
        return inputs


Module = Dense | VectorNorm | Normalize


def _check_width(kind: str, wanted: int, inputs: int) -> None:
    if wanted != inputs:
        raise errors.InputError(
            f"the module {kind} is for vectors of {wanted} numbers, and it gets "
            f"{inputs}: its files do not belong together. Copy the whole model again"
        )


@dataclasses.dataclass(frozen=True)
class Pooling:
    """How the tokens of a text become its vector.

    Attributes:
      mode: `mean` over the tokens, the `cls` token, the `max` of each dimension, the
        sum over the root of the length (`mean_sqrt_len_tokens`), the mean weighted by
        the positions (`weightedmean`) or the `lasttoken`.
      normalize: whether vectors are scaled to length 1 in the end.
      max_seq_length: the longest sequence in tokens; 0 if the files do not define it.
      is_sentence_encoder: whether the folder has the files of one.
      more: further modes, whose vectors are appended.
      include_prompt: whether the tokens of a prompt are pooled too.
      modules: what is done to the pooled vector, before any scaling in the end.
      prompts: by name, what may be written before a text.
      default_prompt: the name of the one that always is; None for none.
      similarity: what their library compares vectors by, as `cosine`; may be "".
    """

    mode: str = "mean"
    normalize: bool = False
    max_seq_length: int = 0
    is_sentence_encoder: bool = False
    more: tuple[str, ...] = ()
    include_prompt: bool = True
    modules: tuple[Module, ...] = ()
    prompts: dict[str, str] = dataclasses.field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = ""

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in ALL_MODES:
                raise errors.InputError(
                    f"pooling is {mode!r}: use one of {', '.join(ALL_MODES)}"
                )

    @property
    def modes(self) -> tuple[str, ...]:
        """All modes, in the order in which their vectors are joined."""
        return (self.mode, *self.more)

    def width(self, hidden_size: int) -> int:
        """Returns the size of the vectors.

        Raises:
          InputError: a module is for vectors of another size.
        """
        size = len(self.modes) * hidden_size
        for module in self.modules:
            size = module.width(size)
        return size

    def prompt(self, name: str | None = None, text: str | None = None) -> str:
        """Returns what is written before a text: this text, or a prompt by its name.

        Raises:
          InputError: both are given, or the model has no prompt of this name.
        """
        if name is not None and text is not None:
            raise errors.InputError(
                f"both the prompt {text!r} and the name {name!r} of one are given: "
                "give one of them"
            )
        if text is not None:
            return text
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            raise errors.InputError(
                f"the model has no prompt {name!r}; it has "
                f"{', '.join(map(repr, self.prompts)) or 'none'}"
            )
        return self.prompts[name]


def transformer_folder(folder: Path) -> Path:
    """Returns where the encoder of a folder is: mostly there, or in `0_Transformer`.

    Raises:
      InputError: modules.json is damaged, or names a folder outside.
    """
    if not (folder / MODULES).is_file():
        return folder
    modules = _modules(folder / MODULES)
    inside = [path for kind, path in modules if kind == "Transformer"]
    return folder / inside[0] if inside else folder


def read(folder: Path) -> Pooling:
    """Reads the files of a sentence encoder; without files, returns the defaults.

    Raises:
      InputError: a file is damaged, or asks for a module that is not supported.
    """
    path = folder / MODULES
    if not path.is_file():
        return Pooling()
    config = _optional(folder / MODEL)
    if config.get("model_type") == "CrossEncoder":
        return Pooling()  # a classifier of pairs
    modules = _modules(path)
    _check_order(path, [kind for kind, _ in modules])
    (_, transformer), (_, pooling), *after = modules
    modes, include_prompt = _modes(folder / pooling / CONFIG)
    read_modules = [_read_module(kind, folder / inside) for kind, inside in after]
    given = tuple(module for module in read_modules if module is not None)
    scales = bool(given) and given[-1] == Normalize()
    prompts, default = _prompts(config, folder / MODEL)
    return Pooling(
        modes[0],
        scales,
        _longest(folder / transformer),
        True,
        modes[1:],
        include_prompt,
        given[:-1] if scales else given,
        prompts,
        default,
        str(config.get("similarity_fn_name") or ""),
    )


def _modules(path: Path) -> list[tuple[str, str]]:
    """Returns the kinds of the modules and their folders, in order."""
    try:
        modules = json_file.loads(json_file.read_bytes(path))
        found = [(str(m["type"]), str(m["path"])) for m in modules]
    except (ValueError, TypeError, KeyError) as error:
        raise errors.InputError(
            f"{path} is not the list of a sentence encoder's modules "
            f"({type(error).__name__}: {error}): is the file whole?"
        ) from None
    for _, inside in found:
        is_outside = Path(inside).is_absolute() or ".." in Path(inside).parts
        if is_outside or "\0" in inside:
            raise errors.InputError(f"{path}: {inside!r} is not a folder of the model")
    # A program that comes with the model keeps its whole name: it is not known here.
    return [
        (name.rpartition(".")[2] if name.startswith(_LIBRARY) else name, inside)
        for name, inside in found
    ]


def _check_order(path: Path, kinds: list[str]) -> None:
    """Raises InputError unless they are an encoder, a pooling and what follows."""
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        known = ", ".join(_KINDS)
        what = f"the module {unknown[0]} is not supported; known are {known}"
    elif kinds[:2] != ["Transformer", "Pooling"] or {*kinds[:2]} & {*kinds[2:]}:
        what = (
            f"the modules are {', '.join(kinds)}, and supported are a Transformer and "
            "a Pooling, in this order, and modules on vectors"
        )
    else:
        return
    raise errors.InputError(f"{path}: {what}. Remove it to use only the encoder")


def _modes(path: Path) -> tuple[tuple[str, ...], bool]:
    """Returns the modes of a Pooling, and whether it counts the tokens of a prompt."""
    tree = json_file.read_object(path)
    given = tree.get("pooling_mode")
    if given is None:
        given = [mode for mode, key in _KEYS.items() if tree.get(key) is True]
    modes = [given] if isinstance(given, str) else given
    is_list = isinstance(modes, list) and bool(modes)
    if not is_list or not all(mode in ALL_MODES for mode in modes):
        shown = f"pooling_mode {given!r}" if given else "no pooling"
        raise errors.InputError(
            f"{path}: {shown} is set; supported are {', '.join(ALL_MODES)}, or a list "
            "of them"
        )
    return tuple(modes), bool(json_file.flag(tree, "include_prompt", path, True))


def _longest(folder: Path) -> int:
    """Returns the longest sequence that the encoder reads, or 0."""
    path = next(iter(sorted(folder.glob(_TRANSFORMERS))), folder / TRANSFORMER)
    tree = _optional(path)
    _check_keys(tree, _OF_TRANSFORMER, path)
    modalities = tree.get("modality_config") or {}
    text = modalities.get("text") if isinstance(modalities, dict) else modalities
    text = _STATES if text is None else text
    if not isinstance(text, dict) or not _STATES.items() <= text.items():
        raise errors.InputError(
            f"{path}: the text of modality_config is {text!r}, and only the last "
            f"hidden state is supported: {json.dumps(_STATES)}"
        )
    longest = tree.get("max_seq_length")
    for key in ("tokenizer_args", "processor_kwargs"):  # which go before
        if isinstance(options := tree.get(key), dict):
            longest = options.get("model_max_length", longest)
    if longest is not None and (type(longest) is not int or longest < 3):
        raise errors.InputError(
            f"{path}: max_seq_length is {longest!r}: write a count above 2"
        )
    return longest or 0


def _check_keys(tree: dict[str, Any], supported: dict[str, str], path: Path) -> None:
    """Raises InputError for a module that does something else than ours."""
    for key, value in supported.items():
        if tree.get(key) not in (None, value):
            raise errors.InputError(
                f"{path}: {key} is {tree[key]!r}, and only {value!r} is supported"
            )


def _prompts(config: dict[str, Any], path: Path) -> tuple[dict[str, str], str | None]:
    """Returns the prompts by name, and the name of the default one."""
    given = config.get("prompts") or {}
    if isinstance(given, dict):  # newer versions write null for a usual name
        given = {name: "" if text is None else text for name, text in given.items()}
    if not isinstance(given, dict) or not all(
        isinstance(text, str) for text in given.values()
    ):
        raise errors.InputError(
            f'{path}: prompts must be texts by name, as in {{"query": "query: "}}'
        )
    default = config.get("default_prompt_name")
    if default is not None and default not in given:
        raise errors.InputError(
            f"{path}: default_prompt_name is {default!r}, and prompts has "
            f"{', '.join(map(repr, given)) or 'none'}"
        )
    return given, default


def _read_module(kind: str, folder: Path) -> Module | None:
    """Reads a module on vectors; None for dropout, which only trains."""
    if kind == "Dropout":
        return None
    if kind == "Normalize":
        return Normalize()
    if kind == "Dense":
        return _dense(folder)
    arrays = _arrays(folder, ["norm.weight", "norm.bias"])
    return VectorNorm(arrays["norm.weight"], arrays["norm.bias"])


def _dense(folder: Path) -> Dense:
    path = folder / CONFIG
    tree = json_file.read_object(path)
    _check_keys(tree, _OF_VECTORS, path)
    activation = tree.get("activation_function", "torch.nn.modules.activation.Tanh")
    package, _, name = str(activation).rpartition(".")
    if not package.startswith("torch.nn") or name not in _ACTIVATIONS:
        raise errors.InputError(
            f"{path}: activation_function is {activation!r}; supported are torch's "
            f"{', '.join(_ACTIVATIONS)}"
        )
    inputs, outputs = tree.get("in_features"), tree.get("out_features")
    has_residual = bool(json_file.flag(tree, "use_residual", path, False))
    has_bias = bool(json_file.flag(tree, "bias", path, True))
    wanted = ["linear.weight"] + ["linear.bias"] * has_bias
    wanted += ["residual.weight"] * (has_residual and inputs != outputs)
    arrays = _arrays(folder, wanted)
    for key, array in arrays.items():
        if array.shape != ((outputs,) if key == "linear.bias" else (outputs, inputs)):
            raise errors.InputError(
                f"{folder}: {key} does not have the shape of {path.name} ({inputs} to "
                f"{outputs}). Copy the whole model again"
            )
    residual = arrays.get("residual.weight")
    return Dense(
        np.ascontiguousarray(arrays["linear.weight"].T),
        arrays.get("linear.bias"),
        name,
        has_residual,
        None if residual is None else np.ascontiguousarray(residual.T),
    )


def _arrays(folder: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    """Returns the weights of a module, float32, which must be exactly these."""
    found = tensors.read(folder).arrays
    if {*found} != {*wanted}:
        raise errors.InputError(
            f"{folder} holds the weights {', '.join(found)}, and should hold "
            f"{', '.join(wanted)}: another version wrote it, or it is damaged"
        )
    return {name: x.astype(np.float32) for name, x in found.items()}


def write(
    folder: Path, pooling: Pooling, width: int, *, has_pooler: bool = True
) -> None:
    """Writes the files of a sentence encoder into the folder of a model.

    Args:
      width: D, the size of the token vectors.
      has_pooler: whether the model has the pooler that its class in `transformers`
        builds; it is not built where nothing is read into it.

    Raises:
      InputError: a layer norm has another epsilon than theirs.
    """
    (folder / POOLING_FOLDER).mkdir()
    json_file.write(folder / POOLING_FOLDER / CONFIG, _pooling_config(pooling, width))
    longest = {"max_seq_length": pooling.max_seq_length or None}
    options = {} if has_pooler else {"model_args": {"add_pooling_layer": False}}
    json_file.write(
        folder / TRANSFORMER, {**longest, "do_lower_case": False, **options}
    )
    named = [("Transformer", ""), ("Pooling", POOLING_FOLDER)]
    after = (*pooling.modules, *[Normalize()] * pooling.normalize)
    for number, module in enumerate(after, start=2):
        named.append((module.kind, f"{number}_{module.kind}"))
        _write_module(folder / named[-1][1], module)
    modules = [
        {"idx": i, "name": str(i), "path": inside, "type": f"{_PACKAGE}.{kind}"}
        for i, (kind, inside) in enumerate(named)
    ]
    json_file.write(folder / MODULES, modules)
    if pooling.prompts or pooling.similarity:
        config = {
            "prompts": pooling.prompts,
            "default_prompt_name": pooling.default_prompt,
            "similarity_fn_name": pooling.similarity or None,
        }
        json_file.write(folder / MODEL, config)


def _pooling_config(pooling: Pooling, width: int) -> dict[str, Any]:
    """Returns the config of a Pooling, in the older layout where possible."""
    prompt = {} if pooling.include_prompt else {"include_prompt": False}
    if [*pooling.modes] == [mode for mode in _KEYS if mode in pooling.modes]:
        modes = {key: mode in pooling.modes for mode, key in _KEYS.items()}
        return {"word_embedding_dimension": width, **modes, **prompt}
    return {"embedding_dimension": width, "pooling_mode": [*pooling.modes], **prompt}


def _write_module(folder: Path, module: Module) -> None:
    """Writes a module into a folder that is not there yet."""
    if isinstance(module, Normalize):  # has no files
        return
    if isinstance(module, Dense):
        tree, arrays = _of_dense(module)
    elif module.epsilon != _EPSILON:
        raise errors.InputError(
            f"the pooler's norm has an epsilon of {module.epsilon:g}, and a LayerNorm "
            f"of sentence-transformers {_EPSILON:g}: use --to=bert_jax"
        )
    else:
        tree = {"dimension": module.scale.shape[0]}
        arrays = {"norm.weight": module.scale, "norm.bias": module.bias}
    folder.mkdir()
    json_file.write(folder / CONFIG, tree)
    tensors.write_safetensors(folder / tensors.SINGLE, arrays)


def _of_dense(module: Dense) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the config and the weights of a Dense."""
    package = "linear" if module.activation == "Identity" else "activation"
    tree: dict[str, Any] = {
        "in_features": module.kernel.shape[0],
        "out_features": module.kernel.shape[1],
        "bias": module.bias is not None,
        "activation_function": f"torch.nn.modules.{package}.{module.activation}",
    }
    if module.has_residual:  # older versions do not know the key
        tree["use_residual"] = True
    arrays = {"linear.weight": module.kernel.T}
    if module.bias is not None:
        arrays["linear.bias"] = module.bias
    if module.residual is not None:
        arrays["residual.weight"] = module.residual.T
    return tree, arrays


def _optional(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one where the file is not there."""
    return json_file.read_object(path) if path.is_file() else {}
