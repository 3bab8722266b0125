"""Vectors of texts: buckets, batches, padding, pooling, layers."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import sentence_encoder
from bert_jax.data.labeled import example_rows
from bert_jax.inference import encode
from bert_jax.inference.model import Model
from bert_jax.model import encoder
from bert_jax.text.tokenizer import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
TOKENIZER = Tokenizer("wordpiece", PIECES, True, True)
TEXTS = ["a b c", "d", "", "e f g h i j k l m n o p", "c b a", "q r s t u v w"]


def model_of(**fields) -> Model:
    """Returns a model of two layers and rows of 21 tokens."""
    given = small_weights.weights_of("pooler", max_position_embeddings=21)
    # Larger, so that texts and layers differ.
    params = jax.tree.map(lambda x: jnp.asarray(4 * x), given.params)
    execution = encoder.Execution(vocab_multiple=1)
    options = {"max_seq_length": 21, "execution": execution} | fields
    return Model(TOKENIZER, given.config, params, **options)


@pytest.fixture(scope="module")
def model():
    return model_of()


def rows_of(model, texts):
    return encode.rows_of(TOKENIZER, texts, model.max_seq_length)


def pooled(model, texts, pooling):
    rows = rows_of(model, texts)
    return encode.sentence_vectors(
        model.bert, model.params, rows, pooling, model.execution
    )


def tokens(model, texts, layers=(-1,)):
    rows = rows_of(model, texts)
    return encode.token_vectors(model.bert, model.params, rows, layers, model.execution)


BUCKETS = {
    8: (0, 1, 2, 8),
    16: (9, 16),
    24: (17, 24),
    32: (25, 32),
    40: (33, 40),
    64: (57, 64),
    80: (65, 80),
    128: (113, 128),
    160: (129, 160),
    500: (449, 500),  # the longest row
}


@pytest.mark.parametrize("bucket", BUCKETS)
def test_lengths_are_padded_to_four_sizes_for_each_doubling(bucket):
    assert {example_rows.bucket(x, 500) for x in BUCKETS[bucket]} == {bucket}


def test_no_length_is_padded_by_more_than_a_quarter_nor_cut():
    for length in range(1, 513):
        size = example_rows.bucket(length, 512)
        assert 0 <= size - length <= max(7, length // 4)


def texts_of(rows, batch):
    """Checks the inputs of a batch and yields the number of each text in it."""
    ids, segments = batch.inputs["input_ids"], batch.inputs["segment_ids"]
    seen = np.zeros_like(segments)
    for index, row, slot, first in zip(
        batch.indices, batch.row, batch.slot, batch.first, strict=True
    ):
        cells = slice(first, first + len(rows[index]))
        assert list(ids[row, cells]) == rows[index]
        assert (segments[row, cells] == slot + 1).all()
        positions = batch.inputs["position_ids"][row, cells]
        assert list(positions) == list(range(len(rows[index])))
        seen[row, cells] += 1
        yield int(index)
    assert ((segments > 0) == seen).all()  # no token is of two texts
    assert not ids[seen == 0].any()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_batches_hold_every_text_once(seed, shared, monkeypatch):
    monkeypatch.setattr(encode, "TOKENS_PER_BATCH", 300)
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 99, n).tolist() for n in rng.integers(0, 61, 153)]
    seen, longest = [], 61
    for batch in encode.batches(rows, shared=shared):
        seen += texts_of(rows, batch)
        lengths = [len(rows[index]) for index in batch.indices]
        assert longest >= max(lengths)
        longest = max(lengths)
        assert shared or not batch.slot.any()
    assert sorted(seen) == list(range(153))


def test_batches_have_few_shapes_and_little_padding():
    rng = np.random.default_rng(0)
    shapes, tokens, cells = set(), 0, 0
    for size in [1, 2, 5, 8, 30, 64, 500] * 40:
        lengths = np.clip(rng.lognormal(3.0, 0.9, size), 3, 256).astype(int)
        for batch in encode.batches([[5] * n for n in lengths]):
            shapes.add(batch.inputs["input_ids"].shape)
            tokens += np.count_nonzero(batch.inputs["segment_ids"])
            cells += batch.inputs["input_ids"].size
    assert cells < 1.04 * tokens
    lengths = {length for _, length in shapes}
    assert lengths <= {example_rows.bucket(n, 512, 4) for n in range(1, 513)}
    # Powers of two of rows, and one of the rows that are short.
    assert all(rows in (1, 2, 4, 8, 16, 32) for rows, _ in shapes)
    assert all(rows == 1 or length >= 64 for rows, length in shapes)
    assert len(shapes) < 60


def test_few_short_texts_share_one_row():
    (batch,) = encode.batches([[5, 6], [7], [8, 9, 4]])
    assert batch.inputs["input_ids"].tolist() == [[8, 9, 4, 5, 6, 7, 0, 0]]
    assert batch.inputs["segment_ids"].tolist() == [[1, 1, 1, 2, 2, 3, 0, 0]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]
    assert batch.indices.tolist() == [2, 0, 1]


def test_rows_begin_and_end_with_special_pieces_and_are_cut(model):
    assert rows_of(model, ["a c", ""]) == [[2, 5, 7, 3], [2, 3]]
    (row,) = rows_of(model, ["b " * 50])
    assert row == [2, *[6] * 19, 3]
    assert encode.rows_of(TOKENIZER, ["a b c"], 3) == [[2, 5, 3]]
    with pytest.raises(errors.InputError, match="rows of 2 tokens have no room"):
        encode.rows_of(TOKENIZER, ["a"], 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a b", "texts is 'a b': give a list of texts"),
        (None, "texts is None: give a list of texts"),
        (["a", None], "texts[1] is None: give a str"),
        ([b"a"], "texts[0] is b'a': give a str"),
        ([["a"]], "texts[0] is ['a']: give a str"),
    ],
)
def test_only_lists_of_strings_are_taken(wrong, message):
    rows_of_anything = inspect.unwrap(encode.rows_of)  # without the types of tests
    with pytest.raises(errors.InputError) as raised:
        rows_of_anything(TOKENIZER, wrong, 21)
    assert str(raised.value).startswith(message)


def test_texts_may_come_from_a_generator():
    rows_of_anything = inspect.unwrap(encode.rows_of)
    assert rows_of_anything(TOKENIZER, (x for x in "ab"), 9) == [[2, 5, 3], [2, 6, 3]]


def test_no_texts_have_no_vectors_and_an_empty_text_has_one(model):
    assert model.encode([]).shape == (0, 12)
    assert model.encode([], normalize=True).shape == (0, 12)
    assert tokens(model, []) == []
    (alone,) = tokens(model, [""])
    assert alone.shape == (2, 1, 12)
    np.testing.assert_allclose(model.encode([""])[0], alone.mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize("pooling", encode.POOLINGS)
def test_pooling_equals_float64_over_the_token_vectors(model, pooling):
    states = [x[:, 0].astype(np.float64) for x in tokens(model, TEXTS)]
    assert [len(x) for x in states] == [5, 3, 2, 14, 5, 9]
    dense = jax.tree.map(lambda x: np.asarray(x, np.float64), model.params["pooler"])
    kernel, bias = dense["dense"]["kernel"], dense["dense"]["bias"]
    expected = {
        "mean": [x.sum(0) / len(x) for x in states],
        "cls": [x[0] for x in states],
        "max": [x.max(0) for x in states],
        "pooled": [np.tanh(x[0] @ kernel + bias) for x in states],
    }[pooling]
    found = pooled(model, TEXTS, pooling)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mode", sentence_encoder.MODES)
def test_encode_pools_as_the_model_says_and_scales_on_request(mode):
    plain = model_of(pooling=sentence_encoder.Pooling(mode))
    expected = pooled(plain, TEXTS, mode)
    np.testing.assert_array_equal(plain.encode(TEXTS), expected)
    lengths = np.sqrt((expected.astype(np.float64) ** 2).sum(1, keepdims=True))
    assert (np.abs(lengths - 1) > 0.1).all()
    scaling = model_of(pooling=sentence_encoder.Pooling(mode, normalize=True))
    np.testing.assert_array_equal(scaling.encode(TEXTS), expected)
    found = scaling.encode(TEXTS, normalize=True)
    np.testing.assert_allclose(found, expected / lengths, atol=1e-6)


def test_a_vector_of_nothing_stays_nothing():
    assert not encode.normalized(np.zeros((2, 3), np.float32)).any()


@pytest.mark.parametrize("pooling", encode.POOLINGS)
def test_a_text_has_the_same_vector_alone_and_with_others(model, pooling):
    together = pooled(model, TEXTS, pooling)
    for text, vector in zip(TEXTS, together, strict=True):
        (alone,) = pooled(model, [text], pooling)
        np.testing.assert_allclose(alone, vector, atol=1e-6)
    # The same places, other neighbors: the same bits.
    turned = pooled(model, [*TEXTS[:3], "z y x w v u t s r q p o", *TEXTS[4:]], pooling)
    assert not np.array_equal(turned[3], together[3])
    np.testing.assert_array_equal(np.delete(turned, 3, 0), np.delete(together, 3, 0))


@pytest.mark.parametrize("pooling", sentence_encoder.ALL_MODES)
@pytest.mark.parametrize("skipped", [0, 3])
def test_tokens_of_a_prompt_are_not_pooled(model, pooling, skipped):
    rows = rows_of(model, TEXTS)
    found = encode.sentence_vectors(
        model.bert, model.params, rows, pooling, model.execution, skipped=skipped
    )
    for states, vector in zip(tokens(model, TEXTS), found, strict=True):
        states = states[:, 0].astype(np.float64)
        weights = np.arange(1, len(states) + 1.0)
        weights, rest = weights[skipped:, None], states[skipped:]
        count = max(len(rest), 1)
        expected = {
            "mean": rest.sum(0) / count,
            "cls": states[skipped if len(states) > skipped else 0],
            "max": rest.max(0) if len(rest) else np.zeros(12),
            "mean_sqrt_len_tokens": rest.sum(0) / np.sqrt(count),
            "weightedmean": (weights * rest).sum(0) / max(weights.sum(), 1),
            "lasttoken": states[-1],
        }[pooling]
        np.testing.assert_allclose(vector, expected, atol=1e-6)


@pytest.mark.parametrize("pooling", encode.POOLINGS)
def test_the_contents_of_padding_change_no_bit(model, pooling):
    batch, *_ = encode.batches(rows_of(model, TEXTS))
    inputs = batch.inputs
    padding = inputs["segment_ids"] == 0
    assert padding.sum() > 1
    filled = {
        name: np.where(padding, {"input_ids": 17, "position_ids": 5}.get(name, 0), x)
        for name, x in inputs.items()
    }
    run = lambda inputs: np.asarray(  # noqa: E731
        encode._pooled(model.bert, model.execution, pooling, model.params, inputs)
    )
    np.testing.assert_array_equal(run(filled), run(inputs))


def test_several_batches_come_back_in_the_order_of_the_texts(model, monkeypatch):
    texts = [" ".join("abcdefghijklmnopqrs"[:n]) for n in (3, 19, 0, 11, 7, 1, 15)] * 3
    expected = model.encode(texts)
    monkeypatch.setattr(encode, "TOKENS_PER_BATCH", 33)
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-6)
    for one, vector in zip(tokens(model, texts), expected, strict=True):
        np.testing.assert_allclose(one.mean((0, 1)), vector, atol=1e-6)


def test_layers_count_from_the_embeddings_or_from_the_end(model):
    (states,) = tokens(model, ["a b"], (0, 1, 2, -1, -2, -3))
    assert states.shape == (4, 6, 12)
    for one, other in ((0, 5), (1, 4), (2, 3)):
        np.testing.assert_array_equal(states[:, one], states[:, other])
    tables = jax.tree.map(
        lambda x: np.asarray(x, np.float64), model.params["encoder"]["embeddings"]
    )
    x = tables["word_embeddings"]["embedding"][[2, 5, 6, 3]]
    x = x + tables["position_embeddings"]["embedding"][:4]
    x = x + tables["token_type_embeddings"]["embedding"][0]
    x = x - x.mean(1, keepdims=True)
    x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-12)
    x = x * tables["layer_norm"]["scale"] + tables["layer_norm"]["bias"]
    np.testing.assert_allclose(states[:, 0], x, atol=1e-6)
    assert np.abs(states[:, 1] - states[:, 0]).max() > 0.01
    assert np.abs(states[:, 2] - states[:, 1]).max() > 0.01


def test_layers_that_the_model_lacks_are_named(model):
    for wrong in ((3,), (0, -4), ()):
        with pytest.raises(errors.InputError, match="1 to 2 are its layers"):
            encode.check_layers(wrong, model.bert)
    encode.check_layers((0, 1, 2, -1, -3), model.bert)


def test_bfloat16_stays_near_and_comes_out_as_float32(model):
    half = model_of(execution=encoder.Execution("bfloat16", vocab_multiple=1))
    found = half.encode(TEXTS)
    assert found.dtype == np.float32
    difference = np.abs(found - model.encode(TEXTS)).max()
    assert 0 < difference < 0.02
