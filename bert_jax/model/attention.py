"""Scaled dot-product attention inside segments (Vaswani et al. 2017, section 3.2.1).

A position attends to the positions of its own segment alone; padding is segment 0 and
sees only padding, so that no row is ever without a key.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bert_jax.model import dropout

KERNELS = ("auto", "xla")


def attention_mask(
    segment_ids: Int[Array, "B L"], window: int | None = None
) -> Bool[Array, "B 1 L L"]:
    """Marks the pairs (query, key) of one segment, at most `window` places apart."""
    mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    if window is None:
        return mask
    places = jnp.arange(segment_ids.shape[1])
    near = jnp.abs(places[:, None] - places[None, :]) <= window
    return mask & near[None, None]


def attend(
    query: Float[Array, "B L N H"],
    key: Float[Array, "B L N H"],
    value: Float[Array, "B L N H"],
    segment_ids: Int[Array, "B L"],
    *,
    dropout_rate: float,
    dropout_key: jax.Array | None,
    kernel: str,
    packed: bool = True,
    window: int | None = None,
) -> Float[Array, "B L N H"]:
    """Mixes the values of each segment by softmax(q k / sqrt(H)).

    The softmax runs in float32 whatever the dtype of the arguments.

    Args:
      dropout_rate: share of the attention probabilities that is dropped.
      dropout_key: None computes without dropout.
      kernel: one of `KERNELS`; `auto` takes the fastest that can.
      packed: whether a row may hold several segments; without them, it is one segment
        with padding at its right. True is right for every row.
      window: half the width of local attention, |i - j| <= window; None is global.
    """
    del kernel, packed  # one kernel serves all rows
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum(
        "BQNH,BKNH->BNQK", query * scale, key, preferred_element_type=jnp.float32
    )
    logits = jnp.where(attention_mask(segment_ids, window), logits, -1e9)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(query.dtype)
    if dropout_key is not None:
        probabilities = dropout.drop(probabilities, dropout_rate, dropout_key)
    return jnp.einsum("BNQK,BKNH->BQNH", probabilities, value)
