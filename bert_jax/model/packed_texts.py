"""Several texts a row for the encoder, one a row for whoever reads its output.

The encoder sees R rows of S tokens in which texts stand one behind the other, each a
segment with positions of its own, so that hardly a token is padding; heads, losses and
metrics see [B, L] as ever. What lies where comes with the batch.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Encode = Callable[..., Float[Array, "R S D"]]


def encode(
    encoder: Encode,
    input_ids: Int[Array, "B L"],
    token_type_ids: Int[Array, "B L"],
    packed: Int[Array, "R S"],
) -> Float[Array, "B L D"]:
    """Returns the states of texts that are encoded in shared rows.

    Those of padding are numbers that mean nothing.

    Args:
      encoder: (input_ids, token_type_ids, segment_ids, position_ids) -> [R, S, D].
      packed: which token of the B * L stands at each place, from 1; 0 = none.
    """
    texts, length = input_ids.shape
    token = packed - 1
    is_token = token >= 0

    def shared(x: Int[Array, "..."]) -> Int[Array, "R S"]:
        return jnp.where(is_token, x, 0)

    states = encoder(
        shared(input_ids.reshape(-1)[token]),
        shared(token_type_ids.reshape(-1)[token]),
        shared(token // length + 1),
        shared(token % length),
    )
    # Where each token stands; places without one go out of range, and are dropped.
    target = jnp.where(is_token, token, texts * length).reshape(-1)
    place = jnp.zeros(texts * length, jnp.int32)
    place = place.at[target].set(jnp.arange(packed.size, dtype=jnp.int32), mode="drop")
    return states.reshape(-1, states.shape[-1])[place].reshape(texts, length, -1)
