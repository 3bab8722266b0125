"""A model of any parts: an encoder, and whatever heads a checkpoint brings.

The top level of a parameter tree names its parts. `Parts` computes what all of them
say about each token or row: for checkpoints of others, features and predictions.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from bert_jax.model import config, encoder, heads

# `head_transform` is before the heads that read tokens, or the mean of them. The heads
# that follow it in this list read one vector a text, the last two every token.
PARTS = (
    "encoder",
    "pooler",
    "head_transform",
    "nsp_head",
    "classifier",
    "multiple_choice",
    "mlm_head",
    "rtd_head",
    "tagger",
    "span",
)
# Of fine-tuned models alone (`task_model`); no other format has a place for them.
TASK_PARTS = ("recurrent", "at_predicate", "crf")
TRANSFORM = "head_transform"
_NEED_POOLER = ("nsp_head", "classifier", "multiple_choice")
_OF_TEXTS = ("classifier", "multiple_choice")
_OF_TOKENS = ("tagger", "span")


class Parts(nn.Module):
    """The outputs of an encoder and its heads, by name.

    `sequence_output` [B, L, D] and, by part: `pooled_output` [B, D] (pooler),
    `nsp_logits` [B, 2], `logits` [B, C] (classifier) or [B, 1] (multiple_choice, one
    choice a row) or [B, L, C] (tagger) or [B, L, 2] (span: start, end), `mlm_logits`
    [B, L, V] over the table's rows, `rtd_logits` [B, L]. Rows are not packed. With
    `head_transform` a classifier or a multiple_choice reads the mean of the tokens, not
    the pooler, and a tagger or span the transformed tokens.

    Attributes:
      parts: names of `PARTS`, the encoder among them.
      num_labels: C, of classifier and tagger.
    """

    config: config.BertConfig
    execution: encoder.Execution
    parts: tuple[str, ...]
    num_labels: int = 2

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        position_ids: Int[Array, "B L"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "..."]]:
        cfg, has = self.config, self.parts.__contains__
        bert = heads.make_encoder(cfg, self.execution, "encoder")
        x = bert(
            input_ids,
            token_type_ids,
            segment_ids,
            position_ids,
            deterministic=deterministic,
        )
        outputs = {"sequence_output": x}
        if has("pooler"):
            first = jnp.zeros((x.shape[0], 1), jnp.int32)
            pooled = heads.Pooler(cfg, name="pooler")(x, first)
            outputs["pooled_output"] = pooled[:, 0]
            if not has(TRANSFORM):
                outputs |= self._pooled(pooled)
        if has("mlm_head"):
            table = bert.word_embedding_table()
            scores = heads.MLMHead(cfg, name="mlm_head")(x, table)
            outputs["mlm_logits"] = scores.logits()
        if has("rtd_head"):
            outputs["rtd_logits"] = heads.RTDHead(cfg, name="rtd_head")(x)
        if has(TRANSFORM):
            transform = heads.HeadTransform(cfg, name=TRANSFORM)
            if not any(map(has, _OF_TEXTS)):
                x = transform(x)
            else:
                mean = heads.mean_of_tokens(x, segment_ids > 0)
                outputs |= self._pooled(transform(mean[:, None]))
        for name, classes in (("tagger", self.num_labels), ("span", 2)):
            if has(name):
                outputs["logits"] = heads.OutputHead(cfg, classes, name=name)(x)
        return outputs

    def _pooled(self, pooled: Float[Array, "B 1 D"]) -> dict[str, Float[Array, "B C"]]:
        """Returns the logits of the heads on the pooled row."""
        sizes = {"nsp_head": 2, "classifier": self.num_labels, "multiple_choice": 1}
        made = {}
        for name in filter(self.parts.__contains__, _NEED_POOLER):
            logits = heads.OutputHead(self.config, sizes[name], name=name)(pooled)
            made["nsp_logits" if name == "nsp_head" else "logits"] = logits[:, 0]
        return made


def shapes(bert: config.BertConfig, parts: tuple[str, ...], num_labels: int) -> PyTree:
    """Returns the parameters as shapes, without rows that pad the vocabulary."""
    model = Parts(bert, encoder.Execution(vocab_multiple=1), parts, num_labels)
    ids = jnp.zeros((1, 2), jnp.int32)

    def init(key: Array) -> Any:
        return model.init(key, ids, ids, ids, ids, deterministic=True)["params"]

    return nn.unbox(jax.eval_shape(init, jax.random.key(0)))


def hidden_states(intermediates: PyTree) -> Float[Array, "n B L D"]:
    """Returns what the encoder has sown: the embeddings, then the output of each layer.

    What an encoder does behind its layers counts as done by the last.

    Args:
      intermediates: the encoder's part of the collection of that name.
    """
    first, *last = intermediates["hidden_state"]
    (layers,) = intermediates["layers"]["hidden_state"]
    layers = layers.reshape(-1, *first.shape)  # groups of layers lie apart
    if last:
        layers = jnp.concatenate([layers[:-1], last[0][None]])
    return jnp.concatenate([first[None], layers])


def missing_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the parts that others of these need and that are not among them."""
    needed = {"encoder"}.union(*(needed_by(name, parts) for name in parts))
    return tuple(sorted(needed - set(parts)))


def needed_by(name: str, parts: Collection[str]) -> frozenset[str]:
    """Returns what a part cannot be computed without in a model of these parts.

    >>> sorted(needed_by("classifier", ("encoder", "pooler", "classifier")))
    ['encoder', 'pooler']
    """
    if TRANSFORM in parts and name in (*_OF_TEXTS, *_OF_TOKENS):
        return frozenset({"encoder", TRANSFORM})
    return frozenset({"encoder"} | ({"pooler"} if name in _NEED_POOLER else set()))


def pad_vocabulary(params: PyTree, rows: int) -> PyTree:
    """Adds rows of zeros to what has a row for each token, up to `rows` of them."""
    return _with_rows(params, lambda x: np.pad(x, _pads(x, rows - x.shape[0])))


def cut_vocabulary(params: PyTree, rows: int) -> PyTree:
    """Removes what `pad_vocabulary` adds."""
    return _with_rows(params, lambda x: x[:rows])


def _pads(x: Any, more: int) -> list[tuple[int, int]]:
    return [(0, more)] + [(0, 0)] * (x.ndim - 1)


PER_TOKEN = (
    "encoder/embeddings/word_embeddings/embedding",
    "mlm_head/decoder",
    "mlm_head/bias",
)


def _with_rows(params: PyTree, change: Any) -> PyTree:
    """Applies `change` to the arrays whose first axis is the vocabulary."""

    def changed(path: Any, x: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return change(x) if name in PER_TOKEN else x

    return jax.tree_util.tree_map_with_path(changed, params)
