"""Scaled dot-product attention inside segments (Vaswani et al. 2017, section 3.2.1).

A position attends to the positions of its own segment alone; padding is segment 0 and
sees only padding, so that no row is ever without a key.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bert_jax.model import dropout


def attention_mask(segment_ids: Int[Array, "B L"]) -> Bool[Array, "B 1 L L"]:
    """Marks the pairs (query, key) that lie in the same segment."""
    return segment_ids[:, None, :, None] == segment_ids[:, None, None, :]


def attend(
    query: Float[Array, "B L N H"],
    key: Float[Array, "B L N H"],
    value: Float[Array, "B L N H"],
    segment_ids: Int[Array, "B L"],
    *,
    dropout_rate: float,
    dropout_key: jax.Array | None,
) -> Float[Array, "B L N H"]:
    """Mixes the values of each segment by softmax(q k / sqrt(H)).

    The softmax runs in float32 whatever the dtype of the arguments.

    Args:
      dropout_rate: share of the attention probabilities that is dropped.
      dropout_key: None computes without dropout.
    """
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum(
        "BQNH,BKNH->BNQK", query * scale, key, preferred_element_type=jnp.float32
    )
    logits = jnp.where(attention_mask(segment_ids), logits, -1e9)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(query.dtype)
    if dropout_key is not None:
        probabilities = dropout.drop(probabilities, dropout_rate, dropout_key)
    return jnp.einsum("BNQK,BKNH->BQNH", probabilities, value)
