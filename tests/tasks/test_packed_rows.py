"""A packed row computes what its sequences compute alone, and no sequence sees another.

The rows come from a store, the model is small; what the rows themselves promise is in
`tests/data/pretraining/test_packing.py`.
"""

import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

from bert_jax.data.corpus import store
from bert_jax.data.pretraining import instances
from bert_jax.model import config, encoder, network

LENGTH = 48
SMALL = config.BertConfig(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=LENGTH,
    initializer_range=0.2,
)
# Of its layers the second and the third see eight places to either side.
MODERN = dataclasses.replace(
    SMALL,
    model_type="modernbert",
    num_hidden_layers=4,
    type_vocab_size=0,
    local_attention=16,
)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    rng = np.random.default_rng(0)
    documents = [
        [rng.integers(5, 97, rng.integers(1, 9)).tolist() for _ in range(size)]
        for size in rng.integers(1, 8, 40)
    ]
    folder = tmp_path_factory.mktemp("packed") / "store"
    store.write_ids(folder, documents, vocab_size=97)
    made = instances.Instances(
        store.open_store(folder),
        objective="nsp",
        max_seq_length=LENGTH,
        short_seq_prob=0.1,
        seed=0,
        special_ids=(1, 2),
        pack=True,
    )
    found = made.batch_at(0, 6)
    assert (found["segment_ids"].max(axis=1) > 1).sum() > 3
    return found


@pytest.fixture(scope="module", params=[SMALL, MODERN], ids=["bert", "modernbert"])
def outputs(request):
    """Returns (sequence output, pair logits) of a batch, without dropout."""
    execution = encoder.Execution()
    model = network.for_pretraining(request.param, execution)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0)))
    names = ("input_ids", "token_type_ids", "segment_ids", "position_ids")

    @jax.jit
    def run(rows):
        inputs = [rows[name] for name in names]
        sequence = network.make_encoder(request.param, execution).apply(
            {"params": params["encoder"]}, *inputs, deterministic=True
        )
        pairs = model.apply(params, rows, dropout_key=None)["nsp_logits"]
        return sequence, pairs

    return lambda rows: tuple(map(np.asarray, run(rows)))


def _alone(batch, row, number):
    """The sequence as the only one of a row, and its cells in the packed row."""
    cells = np.flatnonzero(batch["segment_ids"][row] == number)
    made = {}
    for name in ("input_ids", "token_type_ids", "position_ids", "segment_ids"):
        made[name] = np.zeros((1, LENGTH), np.int32)
        made[name][0, : len(cells)] = batch[name][row, cells]
    made["segment_ids"][0, : len(cells)] = 1
    made["cls_positions"] = np.zeros((1, 1), np.int32)
    return made, cells


def test_packed_and_alone_give_equal_outputs(batch, outputs):
    sequence, pairs = outputs(batch)
    compared = 0
    for row, last in enumerate(batch["segment_ids"].max(axis=1)):
        for number in range(1, last + 1):
            rows, cells = _alone(batch, row, number)
            own, pair = outputs(rows)
            np.testing.assert_allclose(
                sequence[row, cells], own[0, : len(cells)], atol=1e-5
            )
            np.testing.assert_allclose(pairs[row, number - 1], pair[0, 0], atol=1e-5)
            compared += 1
    assert compared > 12


def test_no_sequence_sees_another(batch, outputs):
    """Other tokens in one sequence leave all others as they are, to the bit."""
    before, pairs_before = outputs(batch)
    changed = {name: array.copy() for name, array in batch.items()}
    hit = batch["segment_ids"] == 1
    changed["input_ids"][hit] = (changed["input_ids"][hit] + 7) % 97
    changed["token_type_ids"][hit] = 1 - changed["token_type_ids"][hit]
    after, pairs_after = outputs(changed)
    assert np.array_equal(after[~hit], before[~hit])
    others = batch["next_sentence_weights"] > 0
    others[:, 0] = False
    assert others.any() and np.array_equal(pairs_after[others], pairs_before[others])
    assert (np.abs(after[hit] - before[hit]).max(axis=-1) > 1e-3).all()
    assert not np.array_equal(pairs_after[:, 0], pairs_before[:, 0])
