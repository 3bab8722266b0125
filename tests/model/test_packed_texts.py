"""Texts in shared rows: every head sees of them what it sees of texts alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_heads import BERT, NAMES, each_head, model_of, outputs_of, params_of

from bert_jax.data.labeled import example_rows

# Tokens of each text: 6 rows of one text, or 2 rows of three.
LENGTHS = np.array([7, 3, 5, 1, 4, 2])


@pytest.fixture
def texts():
    """Returns rows of texts and their places; `K` texts a row if there are several."""

    def make(several: bool):
        rng = np.random.default_rng(3)
        shape = (2, 3, 7) if several else (6, 7)
        segments = (np.arange(7) < LENGTHS[:, None]).astype(np.int32)
        ids = rng.integers(1, BERT.vocab_size, (6, 7), dtype=np.int32) * segments
        types = rng.integers(0, 2, (6, 7), dtype=np.int32) * segments
        room, number = (np.array([7, 4]), 3) if several else (LENGTHS, 1)
        layout = example_rows.share_rows(room, number, multiple=1)
        batch = [x.reshape(shape) for x in (ids, types, segments)]
        return batch, layout.packed(batch[2])

    return make


def run(model, params, batch, packed):
    predicates = jnp.array([[0, 1], [2, 0], [3, 4], [0, 0], [1, 1], [1, 0]])
    batch = dict(zip(NAMES, batch, strict=True)) | {"predicate_positions": predicates}
    if packed is not None:
        batch["packed"] = packed
    return outputs_of(model, params, batch)


def of_tokens(name, value, batch):
    """Returns the outputs of tokens and texts, without padding."""
    per_token = model_of(name).head.kind in ("tagger", "span")
    if not per_token or value.ndim < 3:
        return np.asarray(value)
    is_token = batch[2] > 0
    if value.ndim == 4:
        is_token = np.broadcast_to(is_token[:, None], value.shape[:3])
    return np.asarray(value)[is_token]


@each_head
def test_outputs_are_those_of_unpacked_texts(name, texts):
    model = model_of(name)
    params = params_of(model)
    batch, packed = texts(model.head.kind in ("multiple_choice", "vectors"))
    assert len(packed) < 6
    alone = run(model, params, batch, None)
    together = run(model, params, batch, packed)
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        one, other = (of_tokens(name, x, batch) for x in (value, together[key]))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=key)


def test_gradients_are_the_same(texts):
    model = model_of("mean")
    params = params_of(model)
    batch, packed = texts(False)

    def loss(params, packed):
        return (run(model, params, batch, packed)["logits"] ** 2).sum()

    gradient = jax.jit(jax.grad(loss))
    alone, together = gradient(params, None), gradient(params, jnp.asarray(packed))
    for one, other in zip(
        jax.tree.leaves(alone), jax.tree.leaves(together), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-4)


def test_another_text_in_the_row_changes_nothing(texts):
    model = model_of("tagger")
    params = params_of(model)
    batch, packed = texts(False)
    before = run(model, params, batch, packed)["logits"]
    (first, *_), _ = np.nonzero(packed == 1)
    (changed,) = {(token - 1) // 7 for token in packed[first] if token} - {0}
    batch[0][changed] = np.where(batch[2][changed] > 0, 30 - batch[0][changed], 0)
    after = run(model, params, batch, packed)["logits"]
    for text, length in enumerate(LENGTHS):
        same = np.array_equal(before[text, :length], after[text, :length])
        assert same == (text != changed)
