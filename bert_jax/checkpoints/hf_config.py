"""config.json of Hugging Face: read into a BertConfig and label names, and written.

Whatever would make the model compute something else than ours is refused by name;
the dozens of other keys are ignored.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.checkpoints import mapping, weights
from bert_jax.foundation import json_file
from bert_jax.model import config

NAME = "config.json"
_FAR, _NEAR = "full_attention", "sliding_attention"
_THETAS = {_FAR: "global_rope_theta", _NEAR: "local_rope_theta"}
# The tokenizer knows them; absent, they would be those of the published vocabulary of
# ModernBERT, which may lie beyond the end of another.
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
# Names of transformers: ours.
ACTIVATIONS = {
    **{name: name for name in config.ACTIVATIONS},
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
}
_APART = (
    "a value differs by up to 4.8e-4, and the outputs of many layers by more. Weights "
    "that were trained with "
    "the tanh form are exact after `python -m bert_jax.convert --hidden_act=gelu_new`"
)
# The keys of Google's bert_config.json.
BERT_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
)
_SHARED = (*BERT_KEYS, "layer_norm_eps", "pad_token_id", "tie_word_embeddings")

# Ours -> theirs, by model; most are alike.
_KEYS = {
    "bert": {key: key for key in _SHARED},
    "roberta": {key: key for key in _SHARED},
    "electra": {key: key for key in (*_SHARED, "embedding_size")},
    "albert": {key: key for key in (*_SHARED, "embedding_size", "num_hidden_groups")},
    "distilbert": {
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "max_position_embeddings": "max_position_embeddings",
        "initializer_range": "initializer_range",
        "pad_token_id": "pad_token_id",
        "tie_word_embeddings": "tie_word_embeddings",
    },
    "modernbert": {
        **{key: key for key in (*_SHARED, *config.MODERN_KEYS)},
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "norm_eps",
    },
}
del _KEYS["modernbert"]["type_vocab_size"]
# Keys that may be absent from a file, by the defaults of transformers.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {"pad_token_id": 0},
    "roberta": {"pad_token_id": 1},
    "electra": {"pad_token_id": 0},
    "albert": {
        "pad_token_id": 0,
        "num_hidden_groups": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "distilbert": {"pad_token_id": 0, "type_vocab_size": 0, "layer_norm_eps": 1e-12},
    "modernbert": {
        "pad_token_id": 50283,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
_OPTIONAL = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
}
# What is dropped before the last linear map.
_HEAD_DROPOUT = {
    "bert": "classifier_dropout",
    "roberta": "classifier_dropout",
    "electra": "classifier_dropout",
    "albert": "classifier_dropout_prob",
    "distilbert": "seq_classif_dropout",
    "modernbert": "classifier_dropout",
}
_MOST_LABELS = 1 << 20  # a name is made for each
# Keys whose other values make another model.
_REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "inner_group_num": (1, None),
    "summary_type": ("first", None),
    "summary_activation": ("gelu", None),
    "summary_use_proj": (True, None),
    "quantization_config": (None,),
    "decoder_bias": (True, None),
    "classifier_bias": (False, None),
    "attention_type": ("original_full", None),  # of BigBird, whose names are BERT's
    "rescale_embeddings": (False, None),
    "use_task_id": (False, None),  # of ERNIE
    "classifier_activation": ("gelu", None),
}


@dataclasses.dataclass(frozen=True)
class HfConfig(weights.Described):
    """The content of a config.json; without id2label and num_labels it has no labels.

    Attributes:
      class_name: the class of the weights without the model's name, as in
        `ForMaskedLM`; empty if it is not in the file.
      notes: what a user should know of how the file was understood.
      pools_mean: whether a classifier reads the mean of the tokens, and not [CLS].
    """

    class_name: str = ""
    notes: tuple[str, ...] = ()
    pools_mean: bool = False


def read(path: Path, model_type: str = "") -> HfConfig:
    """Reads a config.json.

    Args:
      model_type: overrides the type in the file; "" to use that.

    Raises:
      InputError: it is missing or no JSON, of another kind of model, or a value does
        not fit.
    """
    tree = json_file.read_object(path)
    model_type = model_type or _model_type(tree, path)
    for key, allowed in _REQUIRED_VALUES.items():
        if key in tree and tree[key] not in allowed:
            raise errors.InputError(
                f"{path}: {key} is {tree[key]!r}, and only {allowed[0]!r} is supported"
            )
    if model_type == "modernbert":
        tree = _with_older_keys(tree, path)
    keys = _KEYS[model_type]
    values = {ours: tree[theirs] for ours, theirs in keys.items() if theirs in tree}
    values = {key: value for key, value in values.items() if value is not None}
    values = _OPTIONAL | _DEFAULTS[model_type] | values
    lacking = [keys[key] for key in _SHARED if key in keys and key not in values]
    if lacking:
        raise errors.InputError(
            f"{path} has no {', '.join(lacking)}: give the config.json of the model"
        )
    if str(values["hidden_act"]) in ACTIVATIONS:
        values["hidden_act"] = ACTIVATIONS[values["hidden_act"]]
    try:
        bert = config.from_json(values | {"model_type": model_type})
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None
    head = weights.head_of(tree, _HEAD_DROPOUT[model_type], str(path))
    pooling = tree.get("classifier_pooling", "cls") if bert.is_modern else "cls"
    if pooling not in ("cls", "mean"):
        raise errors.InputError(
            f"{path}: classifier_pooling is {pooling!r}; supported are cls and mean"
        )
    about = class_name_of(tree, path), _notes(tree), pooling == "mean"
    return HfConfig(bert, labels(tree, path), *head, *about)


def _model_type(tree: dict[str, Any], path: Path) -> str:
    """Returns the kind of model; files before 2020 have only the class."""
    found = stated_type(tree) or "bert"
    if found not in mapping.CLASSES:
        raise errors.InputError(
            f"{path}: model_type is {tree.get('model_type', found)!r}; supported are "
            f"{', '.join(mapping.CLASSES)}. Give a model of one of these kinds"
        )
    return found


def stated_type(tree: dict[str, Any]) -> str:
    """Returns the model type that a config.json states, in small letters.

    Without the key it is that of the class, or the class; "" if there is none either.

    >>> stated_type({"model_type": "BERT"})
    'bert'
    >>> stated_type({"architectures": ["RobertaForMaskedLM"]})
    'roberta'
    """
    found = tree.get("model_type")
    if found is not None:
        return str(found).strip().lower()
    classes = tree.get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    for model_type, prefix in mapping.CLASS_PREFIX.items():
        if first.startswith(prefix):
            return model_type
    return first


def class_name_of(tree: dict[str, Any], path: Path) -> str:
    """Returns the class of the weights without the name of a model.

    Raises:
      InputError: `architectures` is not a list of names.
    """
    classes = tree.get("architectures")
    if not classes:
        return ""
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise errors.InputError(
            f'{path}: architectures is {classes!r}: write a list, as ["BertModel"]'
        )
    # Classes of other libraries keep their own names.
    known = {name for of in mapping.CLASSES.values() for name in of.values()}
    match = re.fullmatch(r"\w*?((?:For|LMHead)[A-Z]\w*|Model)", classes[0])
    name = match[1] if match else classes[0]
    if name == "LMHeadModel":
        return "ForMaskedLM"
    return name if name in known else classes[0]


def labels(tree: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Returns the class names of `id2label` by their numbers.

    As in transformers, `num_labels` decides how many classes there are: next to an
    `id2label` of another length, or without one, they are LABEL_0, LABEL_1 and so on.
    None if the file has neither. Names that are whole numbers become text.

    Raises:
      InputError: the numbers are not 0 to C - 1, a name is not a text, or `num_labels`
        is not a number of classes.
    """
    table, count = tree.get("id2label"), tree.get("num_labels")
    if count is not None and not (type(count) is int and 0 <= count <= _MOST_LABELS):
        raise errors.InputError(
            f"{path}: num_labels is {count!r}: write how many classes there are, at "
            f"most {_MOST_LABELS}"
        )
    if count is not None and (table is None or _differs(table, count)):
        return tuple(f"LABEL_{number}" for number in range(count))
    if table is None:
        return ()
    names_of = table.values() if isinstance(table, dict) else (None,)
    if not all(isinstance(name, str) or type(name) is int for name in names_of):
        raise errors.InputError(
            f'{path}: id2label must be an object of names, as {{"0": "negative"}}'
        )
    numbers = {int(key): key for key in table if re.fullmatch("[0-9]{1,9}", key)}
    wanted = range(len(table))
    if sorted(numbers) != [*wanted]:
        raise errors.InputError(
            f"{path}: the numbers of id2label are {sorted(table)[:8]}, and should be "
            f"0 to {len(table) - 1}: number the classes by the rows of the head"
        )
    return tuple(str(table[numbers[number]]) for number in wanted)


def _differs(table: Any, count: Any) -> bool:
    """Returns whether `id2label` is an object of another length than `num_labels`."""
    return isinstance(table, dict) and len(table) != count


def _notes(tree: dict[str, Any]) -> tuple[str, ...]:
    """Returns what a reader of the file should know about how it was understood."""
    table, count = tree.get("id2label"), tree.get("num_labels")
    if count is None or not _differs(table, count):
        return ()
    return (
        f"num_labels is {count} and id2label has {len(table or ())} names: the classes "
        "are named LABEL_0 and so on, as in transformers",
    )


def _with_older_keys(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """Returns a config.json of ModernBERT with the keys that older files have."""
    result = dict(tree)
    if tree.get("layer_types") is not None:
        result["global_attn_every_n_layers"] = _period(tree, path)
    if tree.get("local_rope_theta", 0) is None:
        result["local_rope_theta"] = tree["global_rope_theta"]
    if tree.get("rope_parameters") is not None:
        result |= _thetas(tree["rope_parameters"], path)
    dropout = tree.get("mlp_dropout")
    if tree.get("embedding_dropout", dropout) != dropout is not None:
        raise errors.InputError(
            f"{path}: embedding_dropout is {tree['embedding_dropout']!r} and "
            f"mlp_dropout {dropout!r}, and only one share for both is supported"
        )
    return result


def _period(tree: dict[str, Any], path: Path) -> int:
    """Returns after how many layers the next one comes that sees the whole sequence."""
    kinds = tree["layer_types"]
    stated = tree.get("global_attn_every_n_layers")
    count = len(kinds) if isinstance(kinds, list) else 0
    for period in (stated, *range(1, count + 1)):
        if count and isinstance(period, int) and period > 0:
            if kinds == [_NEAR if i % period else _FAR for i in range(count)]:
                return period
    raise errors.InputError(
        f"{path}: layer_types is {kinds!r}, and only one {_FAR} in so many layers, "
        f"from the first on, and {_NEAR} for the others are supported"
    )


def _thetas(found: Any, path: Path) -> dict[str, Any]:
    """Returns the bases of the angles that are given by kind of layer."""
    result = {}
    for kind, ours in _THETAS.items():
        own = found.get(kind, {}) if isinstance(found, dict) else {}
        if not isinstance(own, dict) or own.get("rope_type", "default") != "default":
            raise errors.InputError(
                f"{path}: rope_parameters of {kind} are {own!r}, and only the "
                "rope_type 'default' is supported"
            )
        if "rope_theta" in own:
            result[ours] = own["rope_theta"]
    return result


def tree(
    given: weights.Described,
    of_parts: frozenset[str],
    dtype: str,
    *,
    needs_pooler: bool = True,
) -> dict[str, Any]:
    """Returns the content of the config.json for a model of these parts.

    Args:
      needs_pooler: False for an encoder that is of the class `Model` without the pooler
        that the class has, as no reader of it uses that.

    Raises:
      InputError: no class of Hugging Face has exactly these parts.
    """
    bert = given.bert
    if of_parts == {"encoder"} and not needs_pooler:
        of_class = "Model"
    else:
        of_class = class_of(bert.model_type, of_parts)
    values = dataclasses.asdict(bert) | {
        "embedding_size": bert.embedding_width,
        "num_hidden_groups": bert.num_groups,
    }
    result: dict[str, Any] = {
        "architectures": [mapping.CLASS_PREFIX[bert.model_type] + of_class],
        "model_type": bert.model_type,
        "dtype": dtype,
        "torch_dtype": dtype,
        **{theirs: values[ours] for ours, theirs in _KEYS[bert.model_type].items()},
    }
    if bert.is_modern:
        result |= {
            "embedding_dropout": bert.hidden_dropout_prob,
            "classifier_pooling": "mean" if "head_transform" in of_parts else "cls",
            "classifier_bias": False,
            "decoder_bias": True,
            **dict.fromkeys(_SPECIAL_IDS),
        }
    if given.labels:
        result["id2label"] = {str(i): name for i, name in enumerate(given.labels)}
        result["label2id"] = {name: i for i, name in enumerate(given.labels)}
    if given.problem_type:
        result["problem_type"] = given.problem_type
    if given.head_dropout is not None:
        result[_HEAD_DROPOUT[bert.model_type]] = given.head_dropout
    return result


def class_of(model_type: str, of_parts: frozenset[str]) -> str:
    """Returns Hugging Face's class for exactly these parts, without the model's name.

    Raises:
      InputError: there is none; the message names the parts to leave out.
    """
    classes, heads = mapping.CLASSES[model_type], of_parts - {"encoder"}
    if heads in classes:
        return classes[heads]
    prefix = mapping.CLASS_PREFIX[model_type]
    inside = [parts for parts in classes if parts <= heads]
    advice = "Name another format"
    if inside:
        # Of two as large, the one with a head rather than only the pooler.
        best = max(inside, key=lambda parts: (len(parts), "pooler" not in parts))
        left_out = ",".join(sorted(heads - best))
        advice = f"For {prefix}{classes[best]}, add --ignore={left_out}"
    raise errors.InputError(
        f"Hugging Face has no class of {prefix} with exactly the parts "
        f"{', '.join(sorted(of_parts))}. {advice}"
    )


def activation_of(name: str) -> str:
    """Returns our name of an activation that `transformers` knows by `name`.

    Raises:
      InputError: it is unknown here.

    >>> activation_of("gelu_pytorch_tanh")
    'gelu_new'
    """
    if name not in ACTIVATIONS:
        raise errors.InputError(
            f"--hidden_act is {name!r}: use one of {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def gelu_note(
    bert: config.BertConfig, kinds: tuple[str, ...], *, keras_hub: bool = True
) -> str:
    """Returns what to know of the activation in these formats; "" for nothing.

    Args:
      kinds: the formats that a model is read from and written to, by
        `LoadedModel.format`.
      keras_hub: whether a folder of Hugging Face, which keras-hub reads, counts.
    """
    is_google = "tensorflow1" in kinds
    if bert.hidden_act == "gelu_new" and is_google:
        return (
            "gelu_new is the tanh form of gelu. Google's TensorFlow 1 code computes it "
            'by the name gelu and refuses this one: for that code, set "hidden_act": '
            '"gelu" in bert_config.json'
        )
    if bert.hidden_act != "gelu" or bert.model_type != "bert":
        return ""
    by_erf = "gelu is computed by erf here, as in transformers"
    if is_google:
        return (
            f"{by_erf}. Google's TensorFlow 1 code, the TensorFlow 2 model garden and "
            f"keras-hub compute its tanh form: {_APART}"
        )
    if keras_hub and "huggingface" in kinds:
        return (
            f"{by_erf}. keras-hub loads this folder, ignores hidden_act and computes "
            f"the tanh form: {_APART}"
        )
    return ""
