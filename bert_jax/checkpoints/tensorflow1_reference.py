"""BERT in plain TensorFlow, from the variables of a checkpoint of Google's by name.

Written from the papers (arXiv:1810.04805, section 3; arXiv:1706.03762, sections 3.1 to
3.3) and the names of google-research/bert. It shares nothing with `model` and the table
of `names`, so that each can be held against the other.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int


def outputs(
    tf: Any,
    path: Path,
    input_ids: Int[np.ndarray, "B L"],
    token_type_ids: Int[np.ndarray, "B L"],
    mask: Bool[np.ndarray, "B L"],
    *,
    of_tokens: bool,
) -> dict[str, np.ndarray]:
    """Returns `embeddings`, `layer 1` to `layer n`, and the outputs of all heads.

    Args:
      tf: the module tensorflow.
      path: a folder with one checkpoint, or the prefix of a checkpoint.
      mask: which tokens are real.
      of_tokens: whether `output_weights` score every token, or the pooled row.
    """
    index = next(path.glob("*.index")) if path.is_dir() else path
    bert = _Bert(tf, index.with_name(index.name.removesuffix(".index")))
    x = bert.embed(input_ids, token_type_ids)
    made = {"embeddings": x}
    for number in range(bert.config["num_hidden_layers"]):
        x = bert.layer(x, mask, f"bert/encoder/layer_{number}")
        made[f"layer {number + 1}"] = x
    pooled = x[:, 0]
    if bert.has("bert/pooler/dense/kernel"):
        pooled = tf.tanh(bert.dense(pooled, "bert/pooler/dense"))
        made["pooled_output"] = pooled
    if bert.has("cls/seq_relationship/output_weights"):
        made["nsp_logits"] = bert.scores(pooled, "cls/seq_relationship/output")
    if bert.has("cls/predictions/output_bias"):
        made["mlm_logits"] = bert.predictions(x)
    if bert.has("cls/squad/output_weights"):
        made["logits"] = bert.scores(x, "cls/squad/output")
    if bert.has("output_weights"):
        made["logits"] = bert.scores(x if of_tokens else pooled, "output")
    return {name: value.numpy() for name, value in made.items()}


class _Bert:
    """The parts of BERT, each from the variables below a name."""

    def __init__(self, tf: Any, prefix: Path) -> None:
        self.tf = tf
        self.config = json.loads((prefix.parent / "bert_config.json").read_bytes())
        reader = tf.train.load_checkpoint(str(prefix))
        self.has, self.get = reader.has_tensor, reader.get_tensor
        self.table = self.get("bert/embeddings/word_embeddings")

    def embed(self, input_ids: Any, token_type_ids: Any) -> Any:
        x = self.tf.gather(self.table, input_ids)
        x += self.get("bert/embeddings/position_embeddings")[: input_ids.shape[1]]
        types = self.get("bert/embeddings/token_type_embeddings")
        x += self.tf.gather(types, token_type_ids)
        return self.norm(x, "bert/embeddings/LayerNorm")

    def layer(self, x: Any, mask: Any, name: str) -> Any:
        seen = self.attend(x, mask, f"{name}/attention/self")
        seen = self.dense(seen, f"{name}/attention/output/dense")
        x = self.norm(x + seen, f"{name}/attention/output/LayerNorm")
        inner = self.activation(self.dense(x, f"{name}/intermediate/dense"))
        inner = self.dense(inner, f"{name}/output/dense")
        return self.norm(x + inner, f"{name}/output/LayerNorm")

    def attend(self, x: Any, mask: Any, name: str) -> Any:
        tf, heads = self.tf, self.config["num_attention_heads"]
        query, key, value = (
            tf.stack(tf.split(self.dense(x, f"{name}/{of}"), heads, axis=-1), axis=1)
            for of in ("query", "key", "value")
        )
        scores = tf.matmul(query, key, transpose_b=True) / query.shape[-1] ** 0.5
        # Google's code adds this to what must not be seen.
        scores += tf.where(mask, 0.0, -10000.0)[:, None, None]
        seen = tf.matmul(tf.nn.softmax(scores), value)
        return tf.concat(tf.unstack(seen, axis=1), axis=-1)

    def predictions(self, x: Any) -> Any:
        x = self.activation(self.dense(x, "cls/predictions/transform/dense"))
        x = self.norm(x, "cls/predictions/transform/LayerNorm")
        logits = self.tf.einsum("bld,vd->blv", x, self.table)
        return logits + self.get("cls/predictions/output_bias")

    def scores(self, x: Any, name: str) -> Any:
        kernel = self.get(f"{name}_weights")  # [C, D], unlike all others
        return self.tf.einsum("...d,cd->...c", x, kernel) + self.get(f"{name}_bias")

    def dense(self, x: Any, name: str) -> Any:
        kernel = self.get(f"{name}/kernel")
        return self.tf.einsum("...d,de->...e", x, kernel) + self.get(f"{name}/bias")

    def norm(self, x: Any, name: str) -> Any:
        own = "layer_norm_eps" in self.config  # Google's has a constant
        epsilon = self.config["layer_norm_eps"] if own else 1e-12
        mean, variance = self.tf.nn.moments(x, -1, keepdims=True)
        x = (x - mean) / self.tf.sqrt(variance + epsilon)
        return x * self.get(f"{name}/gamma") + self.get(f"{name}/beta")

    def activation(self, x: Any) -> Any:
        nn, name = self.tf.nn, self.config["hidden_act"]
        if name in ("gelu", "gelu_new"):  # exact, as first published, and by tanh
            return nn.gelu(x, approximate=name == "gelu_new")
        return {"relu": nn.relu, "tanh": nn.tanh}[name](x)
