"""The one table of names: our modules, and what other formats call them.

A module is everything above its last name (`kernel`, `bias`, `scale`, `embedding`),
which `leaf` translates. `{}` is the number of the layer, or of ALBERT's group. What the
first layer lacks (ModernBERT's first norm) begins with number 1.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from bert_jax.model import config, network
from bert_jax.model.heads import KINDS, MULTIPLE_CHOICE

CLASS_PREFIX = {
    "bert": "Bert",
    "roberta": "Roberta",
    "albert": "Albert",
    "electra": "Electra",
    "distilbert": "DistilBert",
    "modernbert": "ModernBert",
}

_EMBEDDINGS = {
    "encoder/embeddings/word_embeddings": "embeddings.word_embeddings",
    "encoder/embeddings/position_embeddings": "embeddings.position_embeddings",
    "encoder/embeddings/token_type_embeddings": "embeddings.token_type_embeddings",
    "encoder/embeddings/layer_norm": "embeddings.LayerNorm",
}
_BERT = _EMBEDDINGS | {
    "encoder/layers/attention/query": "encoder.layer.{}.attention.self.query",
    "encoder/layers/attention/key": "encoder.layer.{}.attention.self.key",
    "encoder/layers/attention/value": "encoder.layer.{}.attention.self.value",
    "encoder/layers/attention/output": "encoder.layer.{}.attention.output.dense",
    "encoder/layers/attention_layer_norm": (
        "encoder.layer.{}.attention.output.LayerNorm"
    ),
    "encoder/layers/intermediate": "encoder.layer.{}.intermediate.dense",
    "encoder/layers/output": "encoder.layer.{}.output.dense",
    "encoder/layers/output_layer_norm": "encoder.layer.{}.output.LayerNorm",
}
_GROUP = "encoder.albert_layer_groups.{}.albert_layers.0"
_ALBERT = _EMBEDDINGS | {
    "encoder/embeddings/projection": "encoder.embedding_hidden_mapping_in",
    "encoder/layers/attention/query": f"{_GROUP}.attention.query",
    "encoder/layers/attention/key": f"{_GROUP}.attention.key",
    "encoder/layers/attention/value": f"{_GROUP}.attention.value",
    "encoder/layers/attention/output": f"{_GROUP}.attention.dense",
    "encoder/layers/attention_layer_norm": f"{_GROUP}.attention.LayerNorm",
    "encoder/layers/intermediate": f"{_GROUP}.ffn",
    "encoder/layers/output": f"{_GROUP}.ffn_output",
    "encoder/layers/output_layer_norm": f"{_GROUP}.full_layer_layer_norm",
}
_DISTILBERT = _EMBEDDINGS | {
    "encoder/layers/attention/query": "transformer.layer.{}.attention.q_lin",
    "encoder/layers/attention/key": "transformer.layer.{}.attention.k_lin",
    "encoder/layers/attention/value": "transformer.layer.{}.attention.v_lin",
    "encoder/layers/attention/output": "transformer.layer.{}.attention.out_lin",
    "encoder/layers/attention_layer_norm": "transformer.layer.{}.sa_layer_norm",
    "encoder/layers/intermediate": "transformer.layer.{}.ffn.lin1",
    "encoder/layers/output": "transformer.layer.{}.ffn.lin2",
    "encoder/layers/output_layer_norm": "transformer.layer.{}.output_layer_norm",
}
_MODERNBERT = {
    "encoder/embeddings/word_embeddings": "embeddings.tok_embeddings",
    "encoder/embeddings/layer_norm": "embeddings.norm",
    "encoder/layers/attention_layer_norm": "layers.{}.attn_norm",
    "encoder/layers/attention/query_key_value": "layers.{}.attn.Wqkv",
    "encoder/layers/attention/output": "layers.{}.attn.Wo",
    "encoder/layers/mlp_layer_norm": "layers.{}.mlp_norm",
    "encoder/layers/intermediate": "layers.{}.mlp.Wi",
    "encoder/layers/output": "layers.{}.mlp.Wo",
    "encoder/final_layer_norm": "final_norm",
}

# Of the encoder, below a prefix (`prefix`).
ENCODER = {
    "bert": _BERT,
    "roberta": _BERT,
    "albert": _ALBERT,
    "electra": _BERT | {"encoder/embeddings/projection": "embeddings_project"},
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
}

# Heads that every model but ModernBERT names alike. A file has only one of those that
# are called `classifier`.
_OUTPUTS = {f"{x}/dense": kind.tensor for x, kind in KINDS.items() if kind.tensor}
# Of the heads, from the top of the file.
HEADS = {
    "bert": _OUTPUTS
    | {
        "pooler/dense": "bert.pooler.dense",
        "mlm_head/transform": "cls.predictions.transform.dense",
        "mlm_head/layer_norm": "cls.predictions.transform.LayerNorm",
        "mlm_head": "cls.predictions",
        "nsp_head/dense": "cls.seq_relationship",
    },
    "roberta": _OUTPUTS
    | {
        "pooler/dense": "roberta.pooler.dense",
        "mlm_head/transform": "lm_head.dense",
        "mlm_head/layer_norm": "lm_head.layer_norm",
        "mlm_head": "lm_head",
        "classifier/dense": "classifier.out_proj",
    },
    "albert": _OUTPUTS
    | {
        "pooler/dense": "albert.pooler",
        "mlm_head/transform": "predictions.dense",
        "mlm_head/layer_norm": "predictions.LayerNorm",
        "mlm_head": "predictions",
        "nsp_head/dense": "sop_classifier.classifier",
    },
    "electra": _OUTPUTS
    | {
        "mlm_head/transform": "generator_predictions.dense",
        "mlm_head/layer_norm": "generator_predictions.LayerNorm",
        "mlm_head": "generator_lm_head",
        "rtd_head/transform": "discriminator_predictions.dense",
        "rtd_head/prediction": "discriminator_predictions.dense_prediction",
        "classifier/dense": "classifier.out_proj",
    },
    "distilbert": _OUTPUTS
    | {
        "mlm_head/transform": "vocab_transform",
        "mlm_head/layer_norm": "vocab_layer_norm",
        "mlm_head": "vocab_projector",
    },
    "modernbert": {
        "mlm_head/transform": "head.dense",
        "mlm_head/layer_norm": "head.norm",
        "mlm_head": "decoder",
        "pooler/dense": "head.dense",
        "pooler/layer_norm": "head.norm",
        "head_transform/dense": "head.dense",
        "head_transform/layer_norm": "head.norm",
        **dict.fromkeys(_OUTPUTS, "classifier"),
    },
}
# The layer that pools for a head, where it is not the encoder's own pooler.
POOLER = {
    ("roberta", "classifier"): "classifier.dense",
    ("electra", "classifier"): "classifier.dense",
    ("electra", MULTIPLE_CHOICE): "sequence_summary.summary",
    ("distilbert", "classifier"): "pre_classifier",
    ("distilbert", MULTIPLE_CHOICE): "pre_classifier",
}
# Where the MLM head's decoder is: a copy of the token embeddings, if they are tied.
DECODER = {
    "bert": "cls.predictions.decoder",
    "roberta": "lm_head.decoder",
    "albert": "predictions.decoder",
    "electra": "generator_lm_head",
    "distilbert": "vocab_projector",
    "modernbert": "decoder",
}

# Our parts, encoder aside, and what Hugging Face's class for exactly them is called.
_HEADS = {
    frozenset({"pooler", x} if kind.reads == "text" else {x}): kind.transformers
    for x, kind in KINDS.items()
    if kind.transformers
}
_TASKS = {parts: name for parts, name in _HEADS.items() if "mlm_head" not in parts}
_POOLED = {frozenset({"pooler"}): "Model"}
_BARE = {frozenset[str](): "Model"}
_PAIRS = {frozenset({"pooler", "mlm_head", "nsp_head"}): "ForPreTraining"}
_NSP = {frozenset({"pooler", "nsp_head"}): "ForNextSentencePrediction"}
_RTD = {frozenset({"rtd_head"}): "ForPreTraining"}
CLASSES = {
    "bert": _HEADS | _POOLED | _PAIRS | _NSP,
    "roberta": _HEADS | _POOLED,
    "albert": _HEADS | _POOLED | _PAIRS,
    "electra": _HEADS | _BARE | _RTD,
    "distilbert": _HEADS | _BARE,
    # Its heads on tokens read them through a layer; a pooler or the mean both do.
    "modernbert": _BARE
    | {parts: name for parts, name in _HEADS.items() if parts not in _TASKS}
    | {parts: name for parts, name in _TASKS.items() if "pooler" in parts}
    | {parts - {"pooler"} | {"head_transform"}: name for parts, name in _TASKS.items()},
}

# Google's names of heads, whose kernels are [C, D] as torch has them.
TENSORFLOW1_OUTPUT = {
    f"{x}/dense": kind.google for x, kind in KINDS.items() if kind.google
}
# Heads whose tensors files call `classifier`: only a config defines which it is.
CLASSIFIERS = tuple(x for x, kind in KINDS.items() if kind.tensor == "classifier")


def class_pooler(model_type: str) -> frozenset[str]:
    """Returns what the class `Model` adds to the encoder: a pooler, or nothing."""
    return next(p for p, name in CLASSES[model_type].items() if name == "Model")


def parts_of(
    model_type: str, class_name: str, *, pools_mean: bool = False
) -> frozenset[str]:
    """Returns the parts, without the encoder, of a class; none of an unknown one.

    Args:
      pools_mean: whether a classifier reads the mean of the tokens, not [CLS].

    >>> sorted(parts_of("modernbert", "ForSequenceClassification", pools_mean=True))
    ['classifier', 'head_transform']
    """
    found = [x for x, name in CLASSES[model_type].items() if name == class_name]
    of_mean = [x for x in found if "head_transform" in x]
    return next(iter((of_mean if pools_mean else []) + found), frozenset())


def encoder_prefix(model_type: str) -> str:
    """Returns what the names of the encoder's tensors begin with, but for a dot."""
    return "model" if model_type == "modernbert" else model_type


def torch_leaf(ours: str) -> str:
    """Returns Hugging Face's last name for a leaf of ours.

    >>> [torch_leaf(name) for name in ("kernel", "scale", "embedding", "bias")]
    ['weight', 'weight', 'weight', 'bias']
    """
    return "bias" if ours == "bias" else "weight"


def module_names(model_type: str, parts: frozenset[str]) -> dict[str, str]:
    """Returns our modules of these parts and Hugging Face's names for them.

    >>> module_names("distilbert", frozenset({"encoder", "tagger"}))["tagger/dense"]
    'classifier'
    """
    encoder = ENCODER[model_type]
    above = encoder_prefix(model_type)
    table = {ours: f"{above}.{theirs}" for ours, theirs in encoder.items()}
    table |= HEADS[model_type]
    for (model, head), class_pooler in POOLER.items():
        if model == model_type and head in parts:
            table["pooler/dense"] = class_pooler
    return {ours: name for ours, name in table.items() if ours.split("/")[0] in parts}


STACKED = "encoder/layers/"


@dataclasses.dataclass(frozen=True)
class ParamMapping:
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
        """What is done to the tensors, in words."""
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
        result = np.empty(self.shape, np.float32)
        rows = result if self.is_stacked else result[None]
        for row, tensor in zip(rows, tensors, strict=True):
            row[...] = (tensor.T if self.transposed else tensor).reshape(single)
        return result

    def split(self, parameter: Float[np.ndarray, "..."]) -> dict[str, np.ndarray]:
        """Returns the tensors of a file from our parameter."""
        layers = parameter if self.is_stacked else parameter[None]
        stored = self.stored[::-1] if self.transposed else self.stored
        result = [layer.reshape(stored) for layer in layers]
        if self.transposed:
            result = [np.ascontiguousarray(x.T) for x in result]
        return dict(zip(self.theirs, result, strict=True))


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a parameter tree by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def unflatten(leaves: dict[str, Any]) -> dict[str, Any]:
    """Returns the tree of what `flatten` returns.

    >>> unflatten({"a/b": 1, "a/c": 2})
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


@functools.cache  # a model is traced for them: reading and writing ask again and again
def parameter_shapes(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of our parameters by path, the vocabulary not padded."""
    order = tuple(name for name in network.PARTS if name in of_parts)
    return {
        p: x.shape for p, x in flatten(network.shapes(bert, order, num_labels)).items()
    }


def huggingface_mapping(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> list[ParamMapping]:
    """Returns the mapping of all parameters to a file of Hugging Face's."""
    modules = module_names(bert.model_type, of_parts)
    mapped = []
    for path, shape in parameter_shapes(bert, of_parts, num_labels).items():
        module, _, leaf = path.rpartition("/")
        theirs = f"{modules[module]}.{torch_leaf(leaf)}"
        if path == "mlm_head/decoder":
            theirs = f"{DECODER[bert.model_type]}.weight"
        lacking = bert.num_groups - shape[0] if path.startswith(STACKED) else 0
        mapped.append(
            _mapped(path, shape, theirs, transposed=leaf == "kernel", first=lacking)
        )
    return mapped


def tensorflow1_mapping(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> list[ParamMapping]:
    """Returns the mapping of all parameters to a checkpoint of Google's.

    Its names are those of Hugging Face's BERT with slashes; kernels are [in, out].
    """
    modules = module_names("bert", of_parts)
    mapped = []
    for path, shape in parameter_shapes(bert, of_parts, num_labels).items():
        module, _, leaf = path.rpartition("/")
        if module in TENSORFLOW1_OUTPUT:
            end = "bias" if leaf == "bias" else "weights"
            theirs = f"{TENSORFLOW1_OUTPUT[module]}_{end}"
            mapped.append(_mapped(path, shape, theirs, transposed=leaf == "kernel"))
        else:
            above = modules[module].replace("layer.{}", "layer_{}").replace(".", "/")
            theirs = above + _tensorflow1_leaf(path)
            mapped.append(_mapped(path, shape, theirs, transposed=False))
    return mapped


def native_mapping(
    bert: config.BertConfig, of_parts: frozenset[str], num_labels: int
) -> list[ParamMapping]:
    """Returns the mapping of all parameters to a file of ours: each unchanged."""
    return [
        ParamMapping(path, shape, (path,), shape, transposed=False, is_stacked=False)
        for path, shape in parameter_shapes(bert, of_parts, num_labels).items()
    ]


def _tensorflow1_leaf(path: str) -> str:
    """Returns the end of Google's name of one of our parameters."""
    if path == "mlm_head/bias":
        return "/output_bias"
    if "layer_norm/" in path:
        return "/beta" if path.endswith("bias") else "/gamma"
    return "" if path.endswith("embedding") else "/" + path.rpartition("/")[2]


def _mapped(
    path: str, shape: tuple[int, ...], theirs: str, *, transposed: bool, first: int = 0
) -> ParamMapping:
    """Returns the mapping of a parameter to tensors of a name.

    Those of layers are numbered from `first`.
    """
    stacked = path.startswith(STACKED)
    single = shape[1:] if stacked else shape
    numbers = range(first, first + shape[0]) if stacked else (0,)
    tensors = tuple(theirs.format(number) for number in numbers)
    stored = _stored(path, single)
    stored = stored[::-1] if transposed else stored
    return ParamMapping(path, shape, tensors, stored, transposed, stacked)


def _stored(path: str, single: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of one layer's tensor as [in, out], or as a vector."""
    if path.endswith("/kernel"):
        inputs = 2 if path.endswith("attention/output/kernel") else 1
        return math.prod(single[:inputs]), math.prod(single[inputs:])
    return single if path.endswith(("embedding", "decoder")) else (math.prod(single),)
