"""How pairs are cut to a row, beside the published loop."""

import collections
import math

import numpy as np
import pytest

from bert_jax.data.pretraining import pairs, permutation


def cut_by_loop(first, second, capacity):
    while first + second > capacity:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@pytest.mark.parametrize("capacity", [2, 3, 8, 13])
def test_cut_lengths_equal_the_published_loop(capacity):
    lengths = np.array([(a, b) for a in range(1, 30) for b in range(1, 30)]).T
    kept = pairs.cut_lengths(lengths, capacity)
    expected = [cut_by_loop(a, b, capacity) for a, b in lengths.T.tolist()]
    assert list(map(tuple, kept.T.tolist())) == expected


def draws(count, seed=0):
    return permutation.fold_in(permutation.key_of(seed), np.arange(count))


@pytest.mark.parametrize("removed", [1, 5, 64, 65, 130])
def test_tokens_are_lost_in_front_by_coins(removed):
    front = pairs.lost_in_front(np.full(20_000, removed), 200, draws(20_000))
    assert front.min() >= 0 and front.max() <= removed
    assert abs(front.mean() - removed / 2) < 5 * np.sqrt(removed / 4 / 20_000)
    assert 0.95 < front.var() / (removed / 4) < 1.05


def test_five_coins_have_the_binomial_distribution():
    front = pairs.lost_in_front(np.full(32_000, 5), 9, draws(32_000, seed=1))
    counts = collections.Counter(front.tolist())
    for heads in range(6):
        expected = 1000 * math.comb(5, heads)
        assert abs(counts[heads] - expected) < 5 * np.sqrt(expected)


def test_a_part_far_too_long_is_cut_to_a_window_anywhere():
    front = pairs.lost_in_front(np.full(11_000, 10), 9, draws(11_000))
    counts = np.bincount(front)
    # Eleven places, each 1000 times, with a standard deviation of 30.
    assert len(counts) == 11 and np.abs(counts - 1000).max() < 151


def test_nothing_is_lost_when_nothing_is_removed():
    removed = np.array([0, 3, 0, 700])
    front = pairs.lost_in_front(removed, 125, draws(4))
    assert front[0] == front[2] == 0
    assert pairs.lost_in_front(removed[:0], 125, draws(0)).tolist() == []
