"""A small linen model with stacked layers and a loss, for the tests of training.

Sizes that differ: vocabulary 26, width 8, MLP 12, layers 3, length 7.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

VOCAB, WIDTH, MLP, LAYERS, LENGTH = 26, 8, 12, 3, 7


def boxed(*names, scale=0.3):
    return nn.with_logical_partitioning(nn.initializers.normal(scale), names)


class Layer(nn.Module):
    """x + dropout(tanh(x W) V + b), with a scale."""

    dropout: float

    @nn.compact
    def __call__(self, x, deterministic):
        up = self.param("up", Kernel("embed", "mlp"), (WIDTH, MLP))["kernel"]
        down = self.param("down", Kernel("mlp", "embed"), (MLP, WIDTH))["kernel"]
        bias = self.param("bias", boxed("embed"), (WIDTH,))
        scale = self.param("scale", nn.initializers.ones, (WIDTH,))
        y = jnp.tanh(x @ up) @ down + bias[None, None, :]
        y = nn.Dropout(self.dropout)(y, deterministic=deterministic)
        y = nn.with_logical_constraint(y, ("batch", "length", "embed"))
        return x + y * scale[None, None, :], None


class Kernel:
    """An initializer of {"kernel": value}, so that the leaf has the name kernel."""

    def __init__(self, *names):
        self.init = boxed(*names)

    def __call__(self, key, shape):
        return {"kernel": self.init(key, shape)}


class Model(nn.Module):
    """Token ids [B, L] to the logits [B, L, V] of a tied head."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, ids, deterministic):
        table = self.param("embedding", boxed("vocab", "embed"), (VOCAB, WIDTH))
        stack = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=LAYERS,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = stack(self.dropout, name="layers")(table[ids], deterministic)
        return x @ table.T


def init_fn(key):
    """The boxed parameters."""
    ids = jnp.zeros((8, LENGTH), jnp.int32)
    return Model().init(key, ids, True)["params"]


def prepare(batch, key):
    """Chooses about a third of the tokens, so that rows differ in their weight."""
    chosen = jax.random.bernoulli(key, 0.33, batch["ids"].shape)
    return batch | {"chosen": chosen.astype(jnp.float32)}


def weights(batch):
    return {"token": jnp.sum(batch["chosen"]), "row": jnp.sum(batch["row_weight"])}


def losses(dropout=0.0):
    """Returns the losses function: a token loss and a loss on the first token."""

    def sums(params, batch, key):
        logits = Model(dropout).apply(
            {"params": params}, batch["ids"], dropout == 0, rngs={"dropout": key}
        )
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, batch["labels"][..., None], axis=-1)
        token = -jnp.sum(chosen[..., 0] * batch["chosen"])
        row = jnp.sum(jnp.square(logits[:, 0, 0]) * batch["row_weight"])
        hit = (jnp.argmax(logits, -1) == batch["labels"]) * batch["chosen"]
        accuracy = (jnp.sum(hit), jnp.sum(batch["chosen"]))
        return {"token": token, "row": row}, {"accuracy": accuracy}

    return sums


def batch_at(step, batch_size=16):
    """The batch of a step, a pure function, in numpy."""
    rng = np.random.default_rng((7, step))
    shape = (batch_size, LENGTH)
    return {
        "ids": rng.integers(0, VOCAB, shape, dtype=np.int32),
        "labels": rng.integers(0, VOCAB, shape, dtype=np.int32),
        "row_weight": rng.integers(0, 2, batch_size).astype(np.float32),
    }
