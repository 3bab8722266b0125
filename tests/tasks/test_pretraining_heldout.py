"""Evaluation masks belong to their row; the table shows what was measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert_jax.model import config, costs, encoder, network
from bert_jax.tasks import pretraining
from bert_jax.tasks.masking import Masking, eval_masking

MASKING = Masking(
    masked_lm_prob=0.4,
    max_predictions=9,
    max_seq_length=8,
    whole_word=True,
    max_ngram=3,
    mask_id=4,
    special_ids=(0, 1, 2, 3, 4),
    vocab_size=50,
)


@pytest.fixture(scope="module")
def task():
    bert = config.BertConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=7,
    )
    model = network.for_pretraining(bert, encoder.Execution())
    return pretraining.Pretraining(model, MASKING, eval_masking(MASKING, 21))


def _rows(numbers):
    rng = np.random.default_rng(3)
    ids = rng.integers(5, 50, (13, 21)).astype(np.int32)
    ids[:, 0], ids[:, -1] = 2, 3
    batch = {
        "input_ids": ids,
        "segment_ids": np.ones_like(ids),
        "word_start": rng.random((13, 21)) < 0.5,
        "instances": np.arange(13, dtype=np.int32),
    }
    return {name: jax.numpy.asarray(x[numbers]) for name, x in batch.items()}


def test_masks_belong_to_the_row_and_not_to_its_batch(task):
    mask = jax.jit(task.prepare_eval)
    whole, part = mask(_rows(np.arange(13))), mask(_rows(np.array([11, 4, 7])))
    for name in ("input_ids", "masked_lm_positions", "masked_lm_ids"):
        np.testing.assert_array_equal(whole[name][np.array([11, 4, 7])], part[name])


def test_evaluation_masks_15_percent_and_shows_no_answer(task):
    rows = _rows(np.arange(13))
    masked = jax.jit(task.prepare_eval)(rows)
    chosen = np.asarray(masked["input_ids"] != rows["input_ids"])
    # 15 % of 19 ordinary tokens is 2.85; each of the three is [MASK].
    np.testing.assert_array_equal(chosen.sum(1), np.full(13, 3))
    assert set(np.asarray(masked["input_ids"])[chosen]) == {4}
    assert masked["masked_lm_positions"].shape == (13, 4)


def test_the_table_as_a_person_sees_it():
    metrics = {
        "eval/mlm_loss": 4.0,
        "eval/mlm_accuracy": 0.25,
        "eval/nsp_accuracy": 0.875,
        "eval/unigram_loss": 6.0,
        "eval/unigram_accuracy": 0.05,
        "eval/bigram_loss": 5.0,
        "eval/bigram_accuracy": 0.2,
        "eval/nsp_majority_accuracy": 0.75,
    }
    lines = pretraining.heldout_table(metrics).split("\n")
    assert lines[1].split() == [
        "unigram",
        "counts",
        "6.000",
        "403.4",
        "0.0500",
        "0.7500",
    ]
    assert lines[2].split() == ["bigram", "counts", "5.000", "148.4", "0.2000", "-"]
    assert lines[3].split() == ["this", "model", "4.000", "54.6", "0.2500", "0.8750"]
    assert lines[4] == "MLM accuracy is 5.00 times the unigram's."


def test_logits_of_many_rows_are_computed_in_parts(task, monkeypatch):
    """The metrics are those of all at once."""
    params = nn.unbox(task.init(jax.random.key(0)))
    batch = _rows(np.arange(13))
    for name in ("token_type_ids", "position_ids"):
        batch[name] = jnp.zeros_like(batch["input_ids"])
    for name in ("cls_positions", "next_sentence_labels"):
        batch[name] = jnp.zeros((13, 1), jnp.int32)
    batch["next_sentence_weights"] = jnp.ones((13, 1))
    at_once = jax.jit(lambda p, b: task.evaluate(p, b))(params, batch)
    monkeypatch.setattr(costs, "MOST_LOGITS", 100)
    in_parts = jax.jit(lambda p, b: task.evaluate(p, b))(params, batch)
    for name, (total, weight) in at_once.items():
        np.testing.assert_allclose(in_parts[name][0], total, rtol=1e-5)
        assert in_parts[name][1] == weight
