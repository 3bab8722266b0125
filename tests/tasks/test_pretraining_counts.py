"""Unigram and bigram counts on documents that fit on a line."""

import numpy as np
import pytest

from bert_jax.data.corpus import store
from bert_jax.tasks import pretraining

# Two documents over the ids 5..8; 1 is [UNK]. Pairs: 5-6 three times, 6-5 twice, 6-7
# once, 5-1 once; 7 | 5 spans two documents and is none.
DOCUMENTS = [[[5, 6, 5, 6], [7]], [[5, 6, 5, 1]]]


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counts") / "store"
    store.write_ids(folder, DOCUMENTS, vocab_size=9)
    return pretraining.count_tokens(store.open_store(folder), 9, (0, 1, 2, 3, 4))


def test_counts_by_hand(counts):
    np.testing.assert_array_equal(counts.unigram, [0, 0, 0, 0, 0, 4, 3, 1, 0])
    np.testing.assert_array_equal(counts.pairs, [5 * 9 + 6, 6 * 9 + 5, 6 * 9 + 7])
    np.testing.assert_array_equal(counts.pair_counts, [3, 2, 1])
    np.testing.assert_array_equal(counts.left_counts, [0, 0, 0, 0, 0, 3, 3, 0, 0])
    # After 5 comes 6, after 6 comes 5; after what was never seen, the commonest, 5.
    np.testing.assert_array_equal(counts.best_right, [5, 5, 5, 5, 5, 6, 5, 5, 5])


def test_scores_by_hand(counts):
    scores = pretraining.score_counts(counts, np.array([6, 7, 5]), np.array([5, 6, 8]))
    # The unigram always says 5, the bigram 6, 5 and 5.
    assert scores["unigram_accuracy"] == (1.0, 3.0)
    assert scores["bigram_accuracy"] == (2.0, 3.0)
    smooth = np.array([4, 2, 5]) / 17  # one more of each of nine ids
    expected = -np.log(smooth).sum()
    assert scores["unigram_loss"] == (pytest.approx(expected), 3.0)
    pair = [(3 + 10 * 4 / 17) / 13, (1 + 10 * 2 / 17) / 13, (10 * 5 / 17) / 10]
    assert scores["bigram_loss"] == (pytest.approx(-np.log(pair).sum()), 3.0)


def test_only_the_first_tokens_of_a_large_store_are_counted(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    store.write_ids(folder, DOCUMENTS, vocab_size=9)
    monkeypatch.setattr(pretraining, "MAX_TOKENS", 4)
    counts = pretraining.count_tokens(store.open_store(folder), 9, (0, 1, 2, 3, 4))
    np.testing.assert_array_equal(counts.unigram, [0, 0, 0, 0, 0, 2, 2, 0, 0])
