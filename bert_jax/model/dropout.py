"""Dropout from 16 random bits an element (Srivastava et al. 2014).

A rate is exact to 2**-17, and a 32-bit draw serves two elements: random bits are most
of what dropout costs. The bits depend on the global index of the element alone, so the
mask is the same on every mesh.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

_STEPS = 1 << 16


def keep_mask(
    key: jax.Array, rate: float, shape: tuple[int, ...]
) -> Bool[Array, "..."]:
    """Draws True with probability 1 - rate, independently for every element."""
    *rows, width = shape
    words = jax.random.bits(key, (*rows, -(-width // 2)), jnp.uint32)
    least = round(rate * _STEPS)
    # Compared before they are joined: the words are never written to memory.
    halves = [(words & 0xFFFF) >= least, (words >> 16) >= least]
    return jnp.concatenate(halves, axis=-1)[..., :width]


def drop(x: Float[Array, "..."], rate: float, key: jax.Array) -> Float[Array, "..."]:
    """Zeroes elements with probability `rate` and scales the others by 1 / kept."""
    if rate == 0.0:
        return x
    kept = 1.0 - round(rate * _STEPS) / _STEPS
    return jnp.where(keep_mask(key, rate, x.shape), x / kept, jnp.zeros_like(x))


class Dropout(nn.Module):
    """Drops elements during training, with keys from the `dropout` stream."""

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        if deterministic or self.rate == 0.0:
            return x
        return drop(x, self.rate, self.make_rng("dropout"))
