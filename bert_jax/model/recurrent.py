"""An LSTM in both directions over a row (Hochreiter and Schmidhuber 1997).

Padding leaves the states untouched, wherever it is: the backward direction begins
at the last real token, and the last states are those after real tokens. The gates of a
kernel are in the order input, forget, cell, output, as in torch; the biases of the
forget gates begin at 1 (Gers et al. 2000). States are float32.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bert_jax.model import layers

_GATES = 4
_FORGET = 1


class BiLSTM(nn.Module):
    """Reads rows forwards and backwards; `hidden` is the width of each direction."""

    hidden: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], segment_ids: Int[Array, "B L"]
    ) -> tuple[Float[Array, "B L W"], Float[Array, "B W"]]:
        """Returns the states at every token (0 at padding) and the last states.

        Their width is 2 H: the forward direction comes first. A row that is all
        padding gives zeros.
        """
        is_token = segment_ids > 0
        outputs, last = zip(
            _Direction(self.hidden, False, name="forward")(x, is_token),
            _Direction(self.hidden, True, name="backward")(x, is_token),
            strict=True,
        )
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(last, axis=-1)


class _Direction(nn.Module):
    """One direction: the inputs of all tokens at once, then one step a token."""

    hidden: int
    backward: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], is_token: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B L H"], Float[Array, "B H"]]:
        inputs = _Input(self.hidden, name="input")(x)
        kernel = _Hidden(self.hidden, name="state")()

        def step(carry: tuple[Array, Array], now: tuple[Array, Array]):
            hidden, cell = carry
            new = _cell(hidden, cell, now[0], kernel)
            real = now[1][:, None]
            hidden, cell = (
                jnp.where(real, after, before)
                for after, before in zip(new, carry, strict=True)
            )
            return (hidden, cell), jnp.where(real, hidden, 0.0)

        zeros = jnp.zeros((x.shape[0], self.hidden), jnp.float32)
        over = (jnp.moveaxis(inputs, 1, 0), is_token.T)
        (last, _), outputs = lax.scan(step, (zeros, zeros), over, reverse=self.backward)
        return jnp.moveaxis(outputs, 0, 1).astype(x.dtype), last.astype(x.dtype)


def _cell(
    hidden: Float[Array, "B H"],
    cell: Float[Array, "B H"],
    inputs: Float[Array, "B 4 H"],
    kernel: Float[Array, "H 4 H"],
) -> tuple[Float[Array, "B H"], Float[Array, "B H"]]:
    """Returns the states after one more token."""
    gates = inputs + jnp.einsum("BH,HKG->BKG", hidden, kernel)
    enter, forget, leave = (jax.nn.sigmoid(gates[:, k]) for k in (0, _FORGET, 3))
    cell = forget * cell + enter * jnp.tanh(gates[:, 2])
    return leave * jnp.tanh(cell), cell


class _Input(nn.Module):
    """What every token adds to the gates."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L 4 H"]:
        shape = (x.shape[-1], _GATES, self.hidden)
        kernel = self.param("kernel", _uniform(self.hidden, "embed", None, None), shape)
        bias = self.param("bias", _biases, shape[1:])
        product = jnp.einsum("BLD,DKH->BLKH", x, kernel.astype(x.dtype))
        product = product.astype(jnp.float32)
        return product + jnp.broadcast_to(bias, product.shape)


class _Hidden(nn.Module):
    """What the state before adds to the gates: its kernel."""

    hidden: int

    @nn.compact
    def __call__(self) -> Float[Array, "H 4 H"]:
        initializer = _uniform(self.hidden, None, None, None)
        return self.param("kernel", initializer, (self.hidden, _GATES, self.hidden))


def _uniform(hidden: int, *axes: str | None) -> layers.Initializer:
    """Returns the initializer of torch, U(-1/sqrt(H), 1/sqrt(H))."""
    bound = hidden**-0.5

    def sample(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    return nn.with_logical_partitioning(sample, axes)


def _biases(key: Array, shape: tuple[int, ...]) -> Float[Array, "4 H"]:
    del key  # nothing is random
    return jnp.zeros(shape, jnp.float32).at[_FORGET].set(1.0)
