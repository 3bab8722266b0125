"""What models are built of: a linear map, LayerNorm, an embedding table, activations.

Parameters carry the names of their logical axes, which `training.sharding` lays out on
the mesh. Dimension letters are those of `model.encoder`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import spmd
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
}
# Of a parameter in a box that carries the names of its logical axes.
Initializer = Callable[..., Any]

_STATISTICS = "statistics"  # what checkpoints of LayerNorm keep


def normal(stddev: float, *axes: str | None) -> Initializer:
    """Returns an initializer N(0, stddev) whose parameter carries logical axis names.

    The normal is truncated at two standard deviations, as in the published code.
    """
    initializer = jax.nn.initializers.truncated_normal(stddev)
    return nn.with_logical_partitioning(initializer, axes)


def constant(value: float, *axes: str | None) -> Initializer:
    """Returns a constant initializer whose parameter carries logical axis names."""
    return nn.with_logical_partitioning(nn.initializers.constant(value), axes)


def joined(x: Float[Array, "..."], axes: tuple[str | None, ...]) -> Float[Array, "..."]:
    """Returns a parameter gathered along `embed`, which the mesh axis `fsdp` shards.

    Otherwise XLA passes the parts around while it multiplies, and writes the sums of
    every turn to memory: twice the traffic of a layer of BERT-base on 16 TPU v6e.
    """
    kept = tuple(None if axis == "embed" else axis for axis in axes)
    return spmd.with_logical_constraint(x, kept)


class Projection(nn.Module):
    """A linear map `einsum(equation, x, kernel) + bias`, in the dtype of x.

    Without `has_bias` there is no bias term. An `activation` of the sum keeps only the
    product for the backward pass, which adds and activates again: XLA would keep three
    arrays, and for GPUs write one more than this.
    """

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    bias_rank: int
    stddev: float
    has_bias: bool = True
    activation: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        kernel = self.param("kernel", normal(self.stddev, *self.axes), self.shape)
        product = self._product(x, kernel)
        bias = None
        if self.has_bias:
            bias_axes = self.axes[-self.bias_rank :]
            bias = self.param(
                "bias", constant(0.0, *bias_axes), self.shape[-self.bias_rank :]
            )
        if self.activation is None:
            return _plus(product, bias)
        activation = self.activation
        return jax.checkpoint(lambda *x: activation(_plus(*x)))(product, bias)

    def _product(
        self, x: Float[Array, "..."], kernel: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Multiplies by the kernel, which is joined again for the backward pass.

        A loop over layers would keep all of them gathered: 2.4 GiB of 1.3 B parameters.
        """

        def multiply(x: Array, kernel: Array) -> Array:
            whole = joined(kernel.astype(x.dtype), self.axes)
            return jnp.einsum(self.equation, x, whole)

        # Without a loop XLA may join a kernel once, and keep it if there is room.
        return jax.checkpoint(multiply, prevent_cse=False)(x, kernel)


def _plus(
    product: Float[Array, "..."], bias: Float[Array, "..."] | None
) -> Float[Array, "..."]:
    if bias is None:
        return product
    return product + jnp.broadcast_to(bias.astype(product.dtype), product.shape)


class LayerNorm(nn.Module):
    """Layer normalization over D with float32 statistics (arXiv:1607.06450).

    Its input and the statistics are all that the backward pass keeps.
    """

    epsilon: float
    has_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", constant(1.0, "embed"), x.shape[-1:])
        bias = None
        if self.has_bias:
            bias = self.param("bias", constant(0.0, "embed"), x.shape[-1:])
        policy = jax.checkpoint_policies.save_only_these_names(_STATISTICS)
        normalize = functools.partial(_normalize, epsilon=self.epsilon)
        return jax.checkpoint(normalize, policy=policy)(x, scale, bias)


def _normalize(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None,
    *,
    epsilon: float,
) -> Float[Array, "... D"]:
    y = x.astype(jnp.float32)
    y = y - checkpoint_name(jnp.mean(y, axis=-1, keepdims=True), _STATISTICS)
    variance = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y = y * checkpoint_name(jax.lax.rsqrt(variance + epsilon), _STATISTICS)
    y = y * jnp.broadcast_to(scale, y.shape)
    if bias is not None:
        y = y + jnp.broadcast_to(bias, y.shape)
    return y.astype(x.dtype)


class Table(nn.Module):
    """An embedding table; ids out of range are the host's to refuse."""

    rows: int
    width: int
    axes: tuple[str | None, str]
    stddev: float

    def setup(self) -> None:
        initializer = normal(self.stddev, *self.axes)
        self.embedding = self.param("embedding", initializer, (self.rows, self.width))

    def __call__(self, ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        return jnp.take(self.whole(), ids, axis=0)

    def whole(self) -> Float[Array, "V D"]:
        """Returns the table, gathered along `embed` (see `joined`)."""
        return joined(self.embedding, self.axes)


_STEPS = 1 << 16


def keep_mask(
    key: jax.Array, rate: float, shape: tuple[int, ...]
) -> Bool[Array, "..."]:
    """Samples True with probability 1 - rate, independently for every element."""
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
    """Drops elements during training, with keys from the `dropout` stream.

    It uses 16 random bits per element (Srivastava et al. 2014): a rate is exact to
    2**-17, and a 32-bit word serves two elements, since random bits are most of what
    dropout costs. The bits depend only on the global index of the element, so the mask
    is the same on every mesh.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        if deterministic or self.rate == 0.0:
            return x
        return drop(x, self.rate, self.make_rng("dropout"))
