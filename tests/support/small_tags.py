"""A small vocabulary, tagged sentences and models, for the tests of tags and roles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bert_jax.data.labeled import examples, text_examples
from bert_jax.model import config, encoder, heads, network
from bert_jax.tasks import roles, tagging
from bert_jax.text.tokenizer import Tokenizer

PIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("anna", "bob", "##by", "met", "saw", "in", "paris", "##ian", "rome", "the", "."),
    *("在", "北", "京", "见", "了", "2008", "年", "a", "b", "c", "d", "e"),
)
WORDS = Tokenizer("wordpiece", PIECES, True, True, rules="huggingface")
LABELS = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")


def example(text: str, tags: str | None = None, **more) -> examples.TaggedExample:
    """Returns a sentence whose tokens are parted by spaces here, joined as read."""
    joined, spans = text_examples.join_tokens(text.split())
    made = {"where": "f.txt:7", "id": "0", "text": joined, "tokens": spans}
    return examples.TaggedExample(
        **made | {"tags": None if tags is None else tuple(tags.split())} | more
    )


def characters(text: str, tags: str) -> examples.TaggedExample:
    """Returns a sentence whose tokens are its characters, with nothing between."""
    spans = tuple((at, at + 1) for at in range(len(text)))
    return examples.TaggedExample("f.txt:7", "0", text, spans, tuple(tags.split()))


SENTENCES = [
    example("Anna met Bobby in Paris .", "B-PER O B-PER O B-LOC O"),
    example("Bob saw Parisian Rome", "B-PER O B-LOC I-LOC"),
    example("Anna Bob saw Rome .", "B-PER I-PER O B-LOC O"),
    example("in Rome Anna met Bobby Anna .", "O B-LOC B-PER O B-PER I-PER O"),
    example("the Paris saw Anna", "B-LOC I-LOC O B-PER"),
    example("Bobby Bobby .", "B-PER I-PER O"),
    example("met in the Parisian Paris Rome .", "O O O B-LOC I-LOC B-LOC O"),
    example("saw .", "O O"),
]


def model(classes: int, **changes) -> network.Network:
    """Returns a tagger of width 37 and two layers, without dropout."""
    bert = config.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=37,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=23,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=changes.pop("types", 2),
    )
    head = heads.HeadSpec("tagger", classes, **{"dropout": 0.0} | changes)
    return network.Network(bert, encoder.Execution(vocab_multiple=1), (head,))


def tagger(labels=LABELS, scheme="BIO", length=24, head=None, **changes):
    """Returns a task of tagging."""
    made = model(len(labels), **head or {})
    return tagging.Tagging(**_common(made, labels, scheme, length), **changes)


def role_labeller(labels, scheme="plain", length=24, head=None, **changes):
    """Returns a task of roles."""
    made = model(len(labels), **head or {})
    return roles.Roles(**_common(made, labels, scheme, length), **changes)


def _common(network, labels, scheme, length):
    return {
        "model": network,
        "tokenizer": WORDS,
        "labels": labels,
        "scheme": scheme,
        "max_seq_length": length,
    }


def params_of(task) -> dict:
    """Samples parameters that are large enough to matter."""
    return jax.tree.map(lambda x: 4 * x, nn.unbox(task.init(jax.random.key(3))))


def whole(table, length: int = 24) -> dict[str, jax.Array]:
    """Returns all rows of a table as one batch."""
    return on_device(table.batch(np.arange(len(table)), len(table), length))


def on_device(batch) -> dict[str, jax.Array]:
    """Returns a batch as the loops give it to a task."""
    return jax.tree.map(jnp.asarray, batch)


def loss_of(task, params, batch, seed: int = 0) -> float:
    """Returns the summed loss of a batch."""
    sums, _ = jax.jit(task.losses)(params, batch, jax.random.key(seed))
    return float(sums["tag"])


def fit(task, table, steps: int, length: int = 24) -> tuple[dict, float]:
    """Trains on all rows at once; returns the parameters and the last loss."""
    batch = whole(table, length)
    optimizer = optax.adam(1e-2)
    params = nn.unbox(task.init(jax.random.key(5)))

    @jax.jit
    def train(params, state):
        def loss(params):
            sums, _ = task.losses(params, batch, jax.random.key(0))
            return sums["tag"] / task.weights(batch)["tag"]

        def step(_, carry):
            params, state, _ = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state)
            return optax.apply_updates(params, updates), state, value

        return jax.lax.fori_loop(0, steps, step, (params, state, jnp.zeros(())))

    params, _, loss = train(params, optimizer.init(params))
    return params, float(loss)


def predicted(task, params, examples_, table=None, length: int = 24) -> list[dict]:
    """Returns the predictions of sentences."""
    table = task.table(examples_) if table is None else table
    made = jax.jit(task.predict)(params, whole(table, length))
    outputs = {name: list(np.asarray(rows)) for name, rows in made.items()}
    return task.decode(examples_, table, outputs)


def gold_outputs(task, table) -> dict[str, list[np.ndarray]]:
    """Returns the outputs of a model that knows the labels of a table."""
    tags = table.tokens["labels"]
    odds = [np.full(row.shape, 0.75, np.float32) for row in tags]
    return {"tags": tags, "probabilities": odds}
