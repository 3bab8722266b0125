"""Texts in shared rows have the vectors that they have alone, in every architecture."""

import jax
import numpy as np
import pytest
import small_models
from flax import linen as nn

from bert_jax.inference import encode
from bert_jax.model import attention, config, encoder, heads, network

SIZES = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 36,
    "max_position_embeddings": 70,
    "initializer_range": 0.2,
}
MODELS = small_models.TYPES | {
    # Of its layers the second and the third see four places to either side.
    "modernbert": {"type_vocab_size": 0, "local_attention": 8},
}
POOLER = network.heads.HeadSpec("pooler")


@pytest.fixture(scope="module", params=MODELS)
def bert(request):
    return config.BertConfig(**SIZES | MODELS[request.param], model_type=request.param)


@pytest.fixture(scope="module")
def params(bert):
    model = network.Network(bert, encoder.Execution(), (POOLER,))
    return nn.unbox(jax.jit(model.init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(2)
    sizes = [2, 68, 5, 33, 17, 3, 64, 2, 9, 41, 12, 7, 1]
    return [rng.integers(5, 97, size).tolist() for size in sizes]


def alone(model, params, rows):
    """Yields the outputs of each text as the only one of a row, and its length.

    All rows have the length of the longest, so that one program computes them.
    """
    run = jax.jit(
        lambda batch: model.apply(params, batch, dropout_key=None, hidden_states=True)
    )
    length = max(map(len, rows))
    for row in rows:
        ids = np.zeros((1, length), np.int32)
        ids[0, : len(row)] = row
        segments = (np.arange(length) < len(row)).astype(np.int32)[None]
        outputs = run({"input_ids": ids, "segment_ids": segments})
        yield {name: np.asarray(x) for name, x in outputs.items()}, len(row)


def test_vectors_are_those_of_texts_alone(bert, params, rows):
    execution = encoder.Execution()
    shared = [len(batch.indices) for batch in encode.batches(rows)]
    assert max(shared) > 3
    modes = ("mean", "cls", "max", "pooled")
    vectors = encode.sentence_vectors(bert, params, rows, modes, execution)
    states = encode.token_vectors(bert, params, rows, (0, 2, -1), execution)
    model = network.Network(bert, execution, (POOLER,))
    found = zip(vectors, states, alone(model, params, rows), strict=True)
    for vector, tokens, (outputs, length) in found:
        expected = outputs["hidden_states"][:, 0, :length]
        last = expected[-1]
        one = [last.mean(0), last[0], last.max(0), outputs["pooled_output"][0]]
        np.testing.assert_allclose(vector, np.concatenate(one), atol=1e-5)
        np.testing.assert_allclose(
            tokens, expected[[0, 2, -1]].swapaxes(0, 1), atol=1e-5
        )


def test_no_kernel_that_joins_the_texts_of_a_row_is_chosen(
    bert, params, rows, monkeypatch
):
    """As cuDNN's, for a model that was trained on rows of one text."""
    cases, choose = [], attention.choose

    def noted(case, kernel):
        cases.append(case)
        return choose(case, kernel)

    monkeypatch.setattr(attention, "choose", noted)
    execution = encoder.Execution(packed=False)
    encode.sentence_vectors(bert, params, rows, "mean", execution)
    encode.token_vectors(bert, params, rows, (-1,), execution)
    assert cases and all(case.packed for case in cases)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "bilstm"])
def test_trained_vectors_are_those_of_the_head(bert, rows, pooling):
    size = 7 if pooling == "bilstm" else 0
    head = heads.HeadSpec("vectors", pooling=pooling, recurrent_size=size)
    model = network.Network(bert, encoder.Execution(), (head,))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(1)))
    found = encode.trained_vectors(model, params, rows)
    assert found.shape == (len(rows), encode.trained_size(model))
    for vector, (outputs, _) in zip(found, alone(model, params, rows), strict=True):
        np.testing.assert_allclose(vector, outputs["vectors"][0], atol=1e-5)
