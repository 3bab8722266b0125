"""The rows for comparing: all lengths, both token types, the whole vocabulary."""

import numpy as np
import pytest

from bert_jax import checkpoints
from bert_jax.checkpoints import sentence_encoder, verify, weights
from bert_jax.model import config
from bert_jax.text.tokenizer import Tokenizer

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz天气北京!.")
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS)


def folder(tokenizer=None, **changes):
    sizes = {"vocab_size": 61, "hidden_size": 8, "num_attention_heads": 2}
    bert = config.BertConfig(**sizes | changes)
    given = weights.Weights(bert, {})
    report, pooling = weights.Report("", {}, ()), sentence_encoder.Pooling()
    return checkpoints.LoadedModel(
        "huggingface", given, tokenizer, report, bert.max_length, pooling
    )


@pytest.fixture
def tokenizer():
    return Tokenizer("wordpiece", PIECES, True, True)


def mask(rows):
    return rows["segment_ids"] > 0


def test_texts_of_two_languages_and_pieces_of_the_whole_vocabulary(tokenizer):
    made = verify.sample_rows(folder(tokenizer, vocab_size=len(PIECES)))
    assert made["input_ids"].shape == (9, 64)
    # "Water boils at 100 degrees, and ice melts at 0!" of a vocabulary of letters.
    assert made["input_ids"][1, :13].tolist() == [2, *[1] * 11, 35]
    # 今天天气很好 : the second, third and fourth characters are in the vocabulary.
    assert made["input_ids"][2, :7].tolist() == [2, 1, 31, 31, 32, 1, 1]
    used = set(made["input_ids"][mask(made)].tolist())
    assert used >= set(range(5, len(PIECES))) | {2, 3}
    assert not used & {0, 4}
    assert [int(n) for n in mask(made).sum(axis=1)[-3:]] == [64, 34, 64]


def test_rows_are_the_same_every_time_and_padded_at_the_end(tokenizer):
    first, second = (verify.sample_rows(folder(tokenizer)) for _ in range(2))
    assert np.array_equal(first["input_ids"], second["input_ids"])
    lengths = mask(first).sum(axis=1)
    assert lengths.min() < lengths.max() == 64
    assert (np.diff(mask(first).astype(int), axis=1) <= 0).all()
    assert (first["input_ids"][~mask(first)] == 0).all()
    assert (first["token_type_ids"][~mask(first)] == 0).all()


@pytest.mark.parametrize(
    ("types", "used"), [(0, {0}), (1, {0}), (2, {0, 1}), (3, {0, 1})]
)
def test_token_types_are_those_of_the_model(types, used):
    made = verify.sample_rows(folder(type_vocab_size=types))
    assert set(made["token_type_ids"][mask(made)].tolist()) == used


def test_without_a_tokenizer_ids_are_random_and_fit_the_model():
    model = folder(
        model_type="roberta", pad_token_id=1, max_position_embeddings=23, vocab_size=7
    )
    made = verify.sample_rows(model)
    assert made["input_ids"].shape[0] == 5 and made["input_ids"].shape[1] <= 21
    assert set(made["input_ids"][mask(made)].tolist()) == {0, 2, 3, 4, 5, 6}
    assert (made["input_ids"][~mask(made)] == 1).all()
