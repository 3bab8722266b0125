"""Tiny models with the head of a task, and training them on a few rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bert_jax.data.labeled import example_rows
from bert_jax.model import config, encoder, network

# What a small model of each type has besides its sizes; ALBERT's layers are of two
# groups.
TYPES = {
    "bert": {},
    "albert": {"embedding_size": 5, "num_hidden_groups": 2, "hidden_act": "gelu_new"},
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "electra": {"embedding_size": 5},
    "distilbert": {"type_vocab_size": 0},
}


def model(vocab_size, head, **changes):
    """Two layers of width 24, without dropout but in the head if it has."""
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 36,
        "max_position_embeddings": 40,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.1,
    }
    bert = config.BertConfig(**sizes | changes)
    return network.Network(bert, encoder.Execution(), (head,))


def params_of(task, seed=3):
    return nn.unbox(jax.jit(task.init)(jax.random.key(seed)))


def losses(task, params, batch, seed):
    return jax.jit(task.losses)(params, batch, jax.random.key(seed))


def batch_of(table, size=None, length=None):
    rows = np.arange(len(table))
    length = length or int(table.lengths.max())
    batch = table.batch(rows, size or len(rows), length)
    return {name: jnp.asarray(column) for name, column in batch.items()}


def trained(task, examples, steps, rate=3e-3):
    """Parameters after steps over all rows at once."""
    batch, params = batch_of(task.table(examples)), params_of(task)
    optimizer = optax.adam(optax.linear_schedule(rate, 0.0, steps))

    def mean_loss(params):
        sums, _ = task.losses(params, batch, jax.random.key(0))
        ((name, total),) = sums.items()
        return total / task.weights(batch)[name]

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(mean_loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, carry, length=steps)
    return params


def predictions(task, params, examples, size=5):
    """Predictions by way of batches of like length."""
    table = task.table(examples)
    outputs = {}
    longest = int(table.lengths.max()) + 2
    for rows, batch in example_rows.in_order(table, size, longest):
        made = jax.jit(task.predict)(
            params, {name: jnp.asarray(column) for name, column in batch.items()}
        )
        for name, values in made.items():
            column = outputs.setdefault(name, [None] * len(table))
            for place, row in enumerate(rows):
                column[row] = np.asarray(values[place])
    return task.decode(examples, table, outputs)
