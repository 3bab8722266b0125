"""A tiny bi-encoder, its tokenizer, and pairs to learn from."""

import jax
import numpy as np
import optax
from flax import linen as nn

from bert_jax.data.labeled import example_rows, examples
from bert_jax.model import config, encoder, heads, network
from bert_jax.tasks import matching
from bert_jax.text.tokenizer import Tokenizer

WORDS = ("cat", "dog", "sat", "ran", "red", "blue", "the", "北", "京", "好", "很", "店")
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
TOKENIZER = Tokenizer("wordpiece", PIECES, True, True)


def bert(dropout=0.0):
    return config.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=21,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=37,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )


def task_of(objective="cosine", *, dropout=0.0, **fields):
    head = heads.HeadSpec("vectors", pooling="mean", dropout=dropout)
    model = network.Network(bert(dropout), encoder.Execution(), (head,))
    fields = {"max_seq_length": 9} | fields
    return matching.Matching(
        model=model, tokenizer=TOKENIZER, objective=objective, **fields
    )


def pair(number, text, text_pair, label=None, score=None):
    labels = None if label is None else (label,)
    where = f"dev.tsv:{number + 1}"
    return examples.TextExample(where, str(number), text, text_pair, labels, score)


def params_of(task, seed=0):
    return nn.unbox(task.init(jax.random.key(seed)))


def outputs_of(task, params, table):
    """Returns the model's outputs for every row, in batches of three."""
    made = [None] * len(table)
    predict = jax.jit(task.predict)
    for rows, batch in example_rows.in_order(table, 3, 64):
        vectors = np.asarray(predict(params, batch)["vectors"])
        for row, vector in zip(rows, vectors, strict=False):
            made[row] = vector
    return {"vectors": made}


def trained(task, data, *, steps, rate=3e-3, batch_size=8):
    """Trains from scratch; returns the parameters and the loss of each step."""
    rows = example_rows.TrainingRows(task.table(data), batch_size, 3, 1)
    params = params_of(task)
    optimizer = optax.adam(rate)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch, key):
        batch = task.prepare(batch, key)
        weight = task.weights(batch)["matching"]

        def loss(params):
            return task.losses(params, batch, key)[0]["matching"] / weight

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for number in range(steps):
        key = jax.random.key(number)
        params, state, value = step(params, state, rows.batch_at(number), key)
        losses.append(float(value))
    return params, losses
