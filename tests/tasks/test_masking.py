"""Masks: their statistics, their exactness, and whole words; losses by hand."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.tasks import losses
from bert_jax.tasks import masking as masking_lib
from bert_jax.tasks.masking import Masking, mask_tokens

# Ids 0..4 are special, as learned vocabularies have it: 2 = [CLS], 3 = [SEP], 4 = mask.
PLAIN = Masking(
    masked_lm_prob=0.15,
    max_predictions=20,
    max_seq_length=4,
    whole_word=False,
    max_ngram=1,
    mask_id=4,
    special_ids=(0, 1, 2, 3, 4),
    vocab_size=1009,
)


def _batch(rows=64, length=101, used=90, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 1009, (rows, length)).astype(np.int32)
    starts = rng.random((rows, length)) < 0.6
    segments = np.ones((rows, length), np.int32)
    for position, special in ((0, 2), (40, 3), (used - 1, 3)):
        ids[:, position] = special
        starts[:, position] = False
        starts[:, position + 1] = True
    ids[:, used:] = 0
    segments[:, used:] = 0
    starts[:, used:] = False
    batch = {"input_ids": ids, "segment_ids": segments, "word_start": starts}
    return {name: jnp.asarray(x) for name, x in batch.items()}


@pytest.fixture(scope="module")
def mask():
    return jax.jit(mask_tokens, static_argnums=2)


def _chosen(out, batch):
    """Marks the chosen positions from the positions and weights that come out."""
    chosen = np.zeros(batch["input_ids"].shape, bool)
    for row, (positions, weights) in enumerate(
        zip(out["masked_lm_positions"], out["masked_lm_weights"], strict=True)
    ):
        chosen[row, np.asarray(positions)[np.asarray(weights) > 0]] = True
    return chosen


def test_each_row_gets_its_share_and_labels_are_the_originals(mask, key):
    batch = _batch()
    out = mask(batch, key, PLAIN)
    # 87 of the 90 used positions are ordinary; 15 % of 87 is 13.05.
    np.testing.assert_array_equal(out["masked_lm_weights"].sum(1), np.full(64, 13.0))
    rows = np.arange(64)[:, None]
    expected = batch["input_ids"][rows, out["masked_lm_positions"]]
    np.testing.assert_array_equal(out["masked_lm_ids"], expected)


def test_special_tokens_and_padding_are_never_chosen_nor_drawn(mask):
    batch = _batch()
    forbidden = np.isin(batch["input_ids"], PLAIN.special_ids)
    for seed in range(20):
        out = mask(batch, jax.random.key(seed), PLAIN)
        chosen = _chosen(out, batch)
        assert not (chosen & forbidden).any()
        kept = np.asarray(out["input_ids"])
        np.testing.assert_array_equal(kept[~chosen], batch["input_ids"][~chosen])
        assert set(np.unique(kept[chosen][kept[chosen] < 5])) <= {4}


def test_80_percent_mask_10_percent_random_10_percent_kept(mask):
    batch, counts, drawn = _batch(), np.zeros(3), []
    for seed in range(60):
        out = mask(batch, jax.random.key(seed), PLAIN)
        chosen = _chosen(out, batch)
        after, before = np.asarray(out["input_ids"])[chosen], batch["input_ids"][chosen]
        other = (after != 4) & (after != before)
        counts += [(after == 4).sum(), other.sum(), (after == before).sum()]
        drawn.extend(after[other])
    np.testing.assert_allclose(counts / counts.sum(), [0.8, 0.1, 0.1], atol=0.01)
    # Replacements are spread over all 1004 ordinary tokens.
    assert min(drawn) >= 5 and max(drawn) <= 1008
    assert abs(np.mean(drawn) - 506.5) < 15


def test_every_ordinary_position_is_chosen_equally_often(mask):
    batch, hits = _batch(), np.zeros(101)
    for seed in range(60):
        hits += _chosen(mask(batch, jax.random.key(seed), PLAIN), batch).mean(0) / 60
    ordinary = ~np.isin(np.arange(101), [0, 40, *range(89, 101)])
    np.testing.assert_allclose(hits[ordinary], 13 / 87, atol=0.03)
    assert hits[~ordinary].sum() == 0


def test_masks_are_a_pure_function_of_the_key(mask, key):
    batch = _batch()
    one, same = mask(batch, key, PLAIN), mask(batch, key, PLAIN)
    chex.assert_trees_all_equal(one, same)
    other = mask(batch, jax.random.key(1), PLAIN)
    assert (one["input_ids"] != other["input_ids"]).any()


def test_a_frozen_seed_masks_the_frozen_positions(mask):
    out = mask(_batch(2, 61, 59), jax.random.key(11), PLAIN)
    np.testing.assert_array_equal(out["masked_lm_positions"][:, :5], FROZEN_POSITIONS)


FROZEN_POSITIONS = [[4, 16, 19, 22, 25], [1, 3, 9, 19, 22]]


@pytest.mark.parametrize("max_ngram", [1, 3])
def test_words_are_masked_whole_or_not_at_all(mask, max_ngram):
    batch = _batch()
    masking = dataclasses.replace(PLAIN, whole_word=True, max_ngram=max_ngram)
    special = np.isin(batch["input_ids"], PLAIN.special_ids)
    words = np.cumsum(np.asarray(batch["word_start"]) | special, axis=1)
    total = 0
    for seed in range(10):
        chosen = _chosen(mask(batch, jax.random.key(seed), masking), batch)
        total += chosen.sum()
        for row in range(64):
            inside, outside = words[row][chosen[row]], words[row][~chosen[row]]
            assert not np.isin(inside, outside).any()
    # Never above the share of 13 a row, and close to it although words differ in size.
    assert 12.5 < total / 640 <= 13


def test_a_chinese_word_is_masked_whole(mask):
    # 北 京 大 学 | 在 | 海 淀: the segmenter marks where words begin.
    ids = np.array([[2, 11, 12, 13, 14, 15, 16, 17, 3, 0]], np.int32)
    starts = np.array([[0, 1, 0, 0, 0, 1, 1, 0, 0, 0]], bool)
    segments = np.array([[1] * 9 + [0]], np.int32)
    batch = {"input_ids": ids, "segment_ids": segments, "word_start": starts}
    masking = dataclasses.replace(PLAIN, whole_word=True, masked_lm_prob=0.57)
    seen = set()
    for seed in range(40):
        chosen = _chosen(mask(batch, jax.random.key(seed), masking), batch)[0]
        seen.add("".join("*" if c else "." for c in chosen))
    # Four of seven tokens: the long word alone, or both short ones.
    assert seen == {".****.....", ".....***.."}


def test_ngrams_have_lengths_in_proportion_to_1_over_n(mask):
    batch = _batch(256, 101)
    masking = dataclasses.replace(
        PLAIN, max_ngram=3, max_predictions=1, masked_lm_prob=0.01
    )
    groups = masking_lib._groups(
        jnp.asarray(batch["input_ids"] > 4),
        jnp.asarray(batch["word_start"]),
        jax.random.key(2),
        masking,
    )
    lengths = np.concatenate([np.bincount(row[1:39]) for row in np.asarray(groups)])
    shares = np.bincount(lengths[lengths > 0], minlength=4)[1:4] / (lengths > 0).sum()
    np.testing.assert_allclose(shares, [6 / 11, 3 / 11, 2 / 11], atol=0.03)


def test_at_most_p_positions(mask, key):
    masking = dataclasses.replace(PLAIN, max_predictions=7)
    out = mask(_batch(), key, masking)
    assert out["masked_lm_positions"].shape == (64, 7)
    np.testing.assert_array_equal(out["masked_lm_weights"], np.ones((64, 7)))


def test_short_and_empty_rows(mask, key):
    ids = np.array([[2, 9, 3, 0], [0, 0, 0, 0]], np.int32)
    batch = {
        "input_ids": ids,
        "segment_ids": (ids > 0).astype(np.int32),
        "word_start": ids > 4,
    }
    out = mask(batch, key, PLAIN)
    # One ordinary token: it is chosen. None: nothing is. P is larger than the row.
    assert out["masked_lm_positions"].shape == (2, 20)
    np.testing.assert_array_equal(out["masked_lm_weights"].sum(1), [1.0, 0.0])
    assert out["masked_lm_ids"][0, 0] == 9


def test_cross_entropy_and_hits_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    labels, weights = jnp.array([0, 2, -100]), jnp.array([1.0, 2.0, 0.0])
    loss = losses.cross_entropy(logits, labels, weights)
    np.testing.assert_allclose(loss, np.log(2) + 2 * np.log(10), rtol=1e-6)
    assert losses.correct(logits, labels, weights) == 1.0


def test_a_row_of_weight_zero_adds_nothing_even_if_it_is_not_finite():
    logits = jnp.array([[0.0, 0.0], [jnp.nan, jnp.inf]])
    weights = jnp.array([1.0, 0.0])
    loss = losses.cross_entropy(logits, jnp.array([0, 1]), weights)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_logits_in_parts_give_the_loss_and_the_gradients_of_all(parts):
    """Seven predictions a row, in parts that divide them and that do not."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(size=(4, 7, 5)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(11, 5)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 11, (4, 7)), jnp.int32)
    weights = jnp.asarray(np.arange(28).reshape(4, 7) % 3, jnp.float32)

    def loss(rows, table, parts):
        def sums(rows, labels, weights):
            logits = rows @ table.T
            hits = losses.correct(logits, labels, weights)
            return losses.cross_entropy(logits, labels, weights), hits

        return losses.in_parts(sums, parts, rows, labels, weights)

    gradients = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2
    )
    for found, expected in zip(
        jax.tree.leaves(gradients(rows, table, parts)),
        jax.tree.leaves(gradients(rows, table, 1)),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
