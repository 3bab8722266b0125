"""What sits on the encoder: pooler, MLM head, output heads (arXiv:1810.04805, 3 and 4).

In pretraining the MLM head sees only the rows that are to be predicted, and its decoder
is the token embedding table (tied). Logits are float32.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from bert_jax.model import config, encoder, layers, modern


def make_encoder(
    bert: config.BertConfig, execution: encoder.Execution, name: str | None = None
) -> encoder.Bert | modern.ModernBert:
    """Returns the encoder of an architecture, not yet bound to parameters.

    All encoders are called alike, so that heads need not know which one they have.
    BERT and its variants are `encoder.Bert`; ModernBERT shares no control flow with
    them.
    """
    kind = modern.ModernBert if bert.is_modern else encoder.Bert
    return kind(bert, execution, name=name)


def take_rows(
    sequence_output: Float[Array, "B L D"], positions: Int[Array, "B P"]
) -> Float[Array, "B P D"]:
    """Gathers the rows of each sequence that stand at `positions`."""
    return jnp.take_along_axis(sequence_output, positions[..., None], axis=1)


class Pooler(nn.Module):
    """Maps the [CLS] row of every packed segment through a dense layer and tanh.

    ELECTRA and DistilBERT have gelu and relu in its place, ModernBERT gelu and a norm.
    """

    config: config.BertConfig

    @nn.compact
    def __call__(
        self, sequence_output: Float[Array, "B L D"], cls_positions: Int[Array, "B S"]
    ) -> Float[Array, "B S D"]:
        return _transformed(self.config, take_rows(sequence_output, cls_positions))


class HeadTransform(nn.Module):
    """Maps what a head reads, each token or a mean, through the layers of `Pooler`.

    ModernBERT has them before every head (arXiv:2412.13663; its `PredictionHead`).
    """

    config: config.BertConfig

    @nn.compact
    def __call__(self, rows: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        return _transformed(self.config, rows)


def _transformed(
    cfg: config.BertConfig, rows: Float[Array, "B P D"]
) -> Float[Array, "B P D"]:
    """Returns rows after a dense layer and its activation, and ModernBERT's norm."""
    rows = _dense(cfg, cfg.hidden_size, "dense", has_bias=not cfg.is_modern)(rows)
    rows = layers.ACTIVATIONS[cfg.pooler_act](rows)
    return _norm(cfg)(rows) if cfg.is_modern else rows


def mean_of_tokens(
    x: Float[Array, "B L D"], is_token: Bool[Array, "B L"]
) -> Float[Array, "B D"]:
    """Returns the mean over the tokens, added up in float32; 0 if there are none."""
    kept = jnp.where(is_token[..., None], x.astype(jnp.float32), 0.0)
    count = jnp.maximum(jnp.sum(is_token, axis=1, keepdims=True), 1)
    return (jnp.sum(kept, axis=1) / count).astype(x.dtype)


class TokenScores(NamedTuple):
    """Logits of tokens before they are computed: rows * table + bias.

    They are the largest array of pretraining, so who needs a sum over them alone
    computes them part by part (`losses.in_parts`).
    """

    rows: Float[Array, "B P E"]
    table: Float[Array, "V E"]
    bias: Float[Array, " V"]

    def logits(self) -> Float[Array, "B P V"]:
        """Computes the logits, in float32."""
        logits = jnp.einsum(
            "BPE,VE->BPV",
            self.rows,
            self.table.astype(self.rows.dtype),
            preferred_element_type=jnp.float32,
        )
        return logits + jnp.broadcast_to(self.bias, logits.shape)


class MLMHead(nn.Module):
    """Predicts tokens: dense, activation, LayerNorm, then the embedding table.

    Of a model whose embeddings are not tied it has a decoder table of its own.
    """

    config: config.BertConfig

    @nn.compact
    def __call__(
        self, rows: Float[Array, "B P D"], table: Float[Array, "V E"]
    ) -> TokenScores:
        cfg = self.config
        inner = cfg.embedding_width
        rows = _dense(cfg, inner, "transform", has_bias=not cfg.is_modern)(rows)
        rows = _norm(cfg)(layers.ACTIVATIONS[cfg.mlm_act](rows))
        if not cfg.tie_word_embeddings:
            initializer = layers.normal(cfg.initializer_range, "vocab", "embed")
            table = self.param("decoder", initializer, table.shape)
        bias = self.param("bias", layers.constant(0.0, "vocab"), table.shape[:1])
        # Rows that pad the vocabulary never win and never share probability.
        real = jnp.arange(table.shape[0]) < cfg.vocab_size
        return TokenScores(rows, table, jnp.where(real, bias, -1e9))


class OutputHead(nn.Module):
    """Scores `classes` classes for each row, pooled or of a token, by a linear map.

    Of `nsp_head`, class 0 = B follows A, 1 = it does not (NSP), or swapped (SOP).
    """

    config: config.BertConfig
    classes: int

    @nn.compact
    def __call__(self, rows: Float[Array, "B P D"]) -> Float[Array, "B P C"]:
        dense = _dense(self.config, self.classes, "dense", rows.shape[-1])
        return dense(rows).astype(jnp.float32)


class RTDHead(nn.Module):
    """Scores each token: above 0 = replaced (ELECTRA's discriminator, section 2)."""

    config: config.BertConfig

    @nn.compact
    def __call__(self, sequence_output: Float[Array, "B L D"]) -> Float[Array, "B L"]:
        cfg = self.config
        inner = _dense(cfg, cfg.hidden_size, "transform")(sequence_output)
        inner = layers.ACTIVATIONS[cfg.hidden_act](inner)
        return _dense(cfg, 1, "prediction")(inner)[..., 0].astype(jnp.float32)


def _norm(cfg: config.BertConfig) -> layers.LayerNorm:
    return layers.LayerNorm(cfg.layer_norm_eps, cfg.norms_have_bias, name="layer_norm")


def _dense(
    cfg: config.BertConfig,
    width: int,
    name: str,
    inputs: int = -1,
    has_bias: bool = True,
) -> layers.Projection:
    """Returns a linear map of rows of `inputs` (-1: the hidden size) to `width`."""
    return layers.Projection(
        "BPD,DE->BPE",
        (cfg.hidden_size if inputs == -1 else inputs, width),
        ("embed", None),
        1,
        cfg.initializer_range,
        has_bias,
        name=name,
    )


class BertForPreTraining(nn.Module):
    """BERT with both heads: `mlm_scores` [B, P, V] and `nsp_logits` [B, S, 2].

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
    ) -> tuple[TokenScores, Float[Array, "B S 2"] | None]:
        bert = make_encoder(self.config, self.execution, "encoder")
        sequence_output = bert(
            input_ids,
            token_type_ids,
            segment_ids,
            position_ids,
            deterministic=deterministic,
        )
        rows = take_rows(sequence_output, masked_lm_positions)
        mlm_head = MLMHead(self.config, name="mlm_head")
        mlm_scores = mlm_head(rows, bert.word_embedding_table())
        if not self.sentence_pairs:
            return mlm_scores, None
        pooled_output = Pooler(self.config, name="pooler")(
            sequence_output, cls_positions
        )
        nsp_head = OutputHead(self.config, 2, name="nsp_head")
        return mlm_scores, nsp_head(pooled_output)


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
