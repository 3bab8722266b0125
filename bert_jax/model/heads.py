"""What sits on the encoder: pooler, MLM head, NSP or SOP head (arXiv:1810.04805, 3.1).

The MLM head sees only the rows that are to be predicted, and its decoder is the token
embedding table (tied). Logits are float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from bert_jax.model import config, encoder


def take_rows(
    sequence_output: Float[Array, "B L D"], positions: Int[Array, "B P"]
) -> Float[Array, "B P D"]:
    """Gathers the rows of each sequence that stand at `positions`."""
    return jnp.take_along_axis(sequence_output, positions[..., None], axis=1)


class Pooler(nn.Module):
    """Maps the [CLS] row of every packed segment through a dense layer and tanh."""

    config: config.BertConfig

    @nn.compact
    def __call__(
        self, sequence_output: Float[Array, "B L D"], cls_positions: Int[Array, "B S"]
    ) -> Float[Array, "B S D"]:
        rows = take_rows(sequence_output, cls_positions)
        dense = encoder.Projection(
            "BSD,DE->BSE",
            (self.config.hidden_size,) * 2,
            ("embed", None),
            1,
            self.config.initializer_range,
            name="dense",
        )
        return jnp.tanh(dense(rows))


class MLMHead(nn.Module):
    """Predicts tokens: dense, activation, LayerNorm, then the embedding table."""

    config: config.BertConfig

    @nn.compact
    def __call__(
        self, rows: Float[Array, "B P D"], table: Float[Array, "V D"]
    ) -> Float[Array, "B P V"]:
        cfg = self.config
        dense = encoder.Projection(
            "BPD,DE->BPE",
            (cfg.hidden_size,) * 2,
            ("embed", None),
            1,
            cfg.initializer_range,
            name="transform",
        )
        rows = encoder.ACTIVATIONS[cfg.hidden_act](dense(rows))
        rows = encoder.LayerNorm(cfg.layer_norm_eps, name="layer_norm")(rows)
        bias = self.param("bias", encoder.constant(0.0, "vocab"), table.shape[:1])
        logits = jnp.einsum(
            "BPD,VD->BPV",
            rows,
            table.astype(rows.dtype),
            preferred_element_type=jnp.float32,
        )
        # Rows that pad the vocabulary never win and never share probability.
        real = jnp.arange(table.shape[0]) < cfg.vocab_size
        bias = jnp.where(real, bias, -1e9)
        return logits + jnp.broadcast_to(bias, logits.shape)


class NSPHead(nn.Module):
    """Scores a pair of sentences: 0 = B follows A, 1 = it does not (NSP) or SOP."""

    config: config.BertConfig

    @nn.compact
    def __call__(self, pooled_output: Float[Array, "B S D"]) -> Float[Array, "B S 2"]:
        dense = encoder.Projection(
            "BSD,DC->BSC",
            (self.config.hidden_size, 2),
            ("embed", None),
            1,
            self.config.initializer_range,
            name="dense",
        )
        return dense(pooled_output).astype(jnp.float32)


class BertForPreTraining(nn.Module):
    """BERT with both heads: `mlm_logits` [B, P, V] and `nsp_logits` [B, S, 2].

    Without `sentence_pairs` (the RoBERTa recipe) it has no pooler and no NSP head, and
    `nsp_logits` is None.
    """

    config: config.BertConfig
    execution: encoder.Execution
    sentence_pairs: bool = True

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        position_ids: Int[Array, "B L"],
        masked_lm_positions: Int[Array, "B P"],
        cls_positions: Int[Array, "B S"],
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "B P V"], Float[Array, "B S 2"] | None]:
        bert = encoder.Bert(self.config, self.execution, name="encoder")
        sequence_output = bert(
            input_ids,
            token_type_ids,
            segment_ids,
            position_ids,
            deterministic=deterministic,
        )
        rows = take_rows(sequence_output, masked_lm_positions)
        mlm_head = MLMHead(self.config, name="mlm_head")
        mlm_logits = mlm_head(rows, bert.word_embedding_table())
        if not self.sentence_pairs:
            return mlm_logits, None
        pooled_output = Pooler(self.config, name="pooler")(
            sequence_output, cls_positions
        )
        return mlm_logits, NSPHead(self.config, name="nsp_head")(pooled_output)


def parameter_shapes(model: nn.Module, sequence_length: int = 8) -> dict:
    """Returns the parameters of a pretraining model as shapes, allocating nothing.

    The leaves are `jax.ShapeDtypeStruct` in boxes that carry the logical axis names.
    """
    return jax.eval_shape(initialiser(model, sequence_length), jax.random.key(0))


def initialiser(model: nn.Module, sequence_length: int = 8, rows: int = 1):
    """Returns the pure function key -> parameters of a pretraining model."""
    ids = jnp.zeros((rows, sequence_length), jnp.int32)
    one = jnp.zeros((rows, 1), jnp.int32)

    def init(key: jax.Array) -> dict:
        made: Any = model.init(key, ids, ids, ids, ids, one, one, deterministic=True)
        return made["params"]

    return init
