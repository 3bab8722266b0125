"""Dropout as strong, and in the same places, as in torch's `transformers`.

No two draws are alike, but how much they vary is: the variance of the states of every
layer, over many copies of the same rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.checkpoints import huggingface
from bert_jax.model import encoder, network

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

COPIES = 1500
SIZES = {
    "vocab_size": 61,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 50,
    "max_position_embeddings": 23,
    "initializer_range": 0.3,  # far from uniform attention
}
IDS = np.random.default_rng(5).integers(3, 61, (3, 13))
MASK = np.ones((3, 13), np.int64)
MASK[1, 9:] = 0


def _torch_states(made):
    ids, mask = (torch.tensor(np.tile(x, (COPIES, 1))) for x in (IDS, MASK))
    with torch.no_grad():
        out = made(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return np.stack([x.numpy() for x in out.hidden_states])


def _our_states(read):
    ids, mask = (jnp.asarray(np.tile(x, (COPIES, 1)), jnp.int32) for x in (IDS, MASK))
    execution = encoder.Execution(vocab_multiple=1)
    outputs = network.for_parts(read.config, execution, read.parts).apply(
        jax.tree.map(jnp.asarray, read.params),
        {"input_ids": ids, "segment_ids": mask},
        dropout_key=jax.random.key(0),
        hidden_states=True,
    )
    return np.asarray(outputs["hidden_states"])


def _variances(states):
    """Returns the mean variance of each layer's real tokens, over the copies."""
    layers, rows, *rest = states.shape
    copies = states.reshape(layers, COPIES, rows // COPIES, *rest)
    real = copies.var(axis=1)[:, MASK.astype(bool)]
    return real.mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("name", "hidden", "attention"),
    [
        ("Bert", 0.2, 0.0),
        ("Bert", 0.0, 0.3),
        pytest.param("Roberta", 0.1, 0.1, marks=pytest.mark.slow),
        pytest.param("Electra", 0.1, 0.1, marks=pytest.mark.slow),
    ],
)
def test_states_vary_as_those_of_transformers(name, hidden, attention, tmp_path):
    rates = {
        "hidden_dropout_prob": hidden,
        "attention_probs_dropout_prob": attention,
        "pad_token_id": 0,
    }
    config = getattr(transformers, f"{name}Config")(**SIZES, **rates)
    torch.manual_seed(1)
    made = getattr(transformers, f"{name}Model")(config).train()
    made.save_pretrained(tmp_path)
    read, _ = huggingface.read(tmp_path)
    wanted, found = _variances(_torch_states(made)), _variances(_our_states(read))
    first = 0 if hidden else 1  # the embeddings vary by hidden dropout alone
    np.testing.assert_allclose(found[first:], wanted[first:], rtol=0.05)
    assert (wanted[first:] > 1e-3).all()
