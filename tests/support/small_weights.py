"""A small BERT with heads whose weights are all different."""

import json

import numpy as np

from bert_jax.checkpoints import mapping, tensors, weights
from bert_jax.model import config


def weights_of(*heads: str, labels: tuple[str, ...] = (), **changes) -> weights.Weights:
    """Returns an encoder with these parts."""
    bert = config.BertConfig(**BERT_KEYS | changes)
    of_parts = frozenset({"encoder", *heads})
    rng = np.random.default_rng(4)
    shapes = mapping.parameter_shapes(bert, of_parts, len(labels) or 2)
    flat = {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in sorted(shapes.items())
    }
    return weights.Weights(bert, mapping.unflatten(flat), labels)


BERT_KEYS = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 9,
}


def same(one: weights.Weights, other: weights.Weights) -> bool:
    """Returns whether two models are bit-identical."""
    before, after = mapping.flatten(one.params), mapping.flatten(other.params)
    return (
        one.config == other.config
        and one.labels == other.labels
        and before.keys() == after.keys()
        and all(np.array_equal(before[name], after[name]) for name in before)
    )


def write_shards(folder, *shards) -> None:
    """Writes model.safetensors of these arrays in several files, with their index."""
    weight_map = {}
    for number, arrays in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors.write_safetensors(folder / name, arrays)
        weight_map |= dict.fromkeys(arrays, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def halves(arrays) -> tuple[dict, dict]:
    """Returns every second array, and the others."""
    names = sorted(arrays)
    return tuple({name: arrays[name] for name in names[at::2]} for at in (0, 1))
