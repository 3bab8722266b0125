"""Random numbers from counters, and orders without a table."""

import collections
import math

import numpy as np
import pytest

from bert_jax.data.pretraining import permutation

KEYS = permutation.fold_in(permutation.key_of(7), np.arange(6000))
# Literal outputs, frozen: a run is reproduced only while these stay.
KEY_OF = [
    258863698125685209,
    15979313559291895140,
    4815193057359064352,
    15979313559291895140,
]
FOLD_IN = [1692379982054866315, 10958907008030945133, 2317083978457793850]
ORDER_OF_9 = [8, 2, 6, 3, 5, 4, 1, 7, 0]
ORDER_OF_TRILLION = [890198611697, 184531525013, 216844885263]


def test_mix_is_splitmix64():
    # The first outputs of the published generator for the seed 1234567.
    counters = [1234567 + step * 0x9E3779B97F4A7C15 for step in (1, 2, 3)]
    bits = permutation.mix(np.array([c % 2**64 for c in counters], np.uint64))
    assert bits.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_values_never_change_between_versions():
    assert [int(permutation.key_of(seed)) for seed in (0, 1, -1, 2**70 + 1)] == KEY_OF
    key = permutation.key_of(11)
    assert permutation.fold_in(key, np.array([0, 1, 10**12])).tolist() == FOLD_IN
    assert permutation.permute(np.arange(9), 9, key).tolist() == ORDER_OF_9
    large = permutation.permute(np.array([0, 1, 10**12 - 1]), 10**12, key)
    assert large.tolist() == ORDER_OF_TRILLION


@pytest.mark.parametrize("seed", [0, 5])
def test_permute_is_a_bijection_of_every_small_range(seed):
    key = permutation.key_of(seed)
    for n in range(1, 601):
        order = permutation.permute(np.arange(n), n, key)
        assert sorted(order.tolist()) == list(range(n)), n


@pytest.mark.parametrize("n", [99_991, 131_071, 262_145, 1_000_003])
def test_permute_is_a_bijection_of_large_odd_ranges(n):
    order = permutation.permute(np.arange(n), n, permutation.key_of(3))
    assert order.dtype == np.int64
    assert (np.bincount(order, minlength=n) == 1).all()


def test_permute_stays_inside_a_range_beyond_32_bits():
    n = 3**38 + 2
    ends = np.array([0, 1, n // 2, n - 2, n - 1])
    order = permutation.permute(ends, n, permutation.key_of(1))
    assert len(set(order.tolist())) == 5
    assert order.min() >= 0 and order.max() < n


def test_permute_alone_equals_permute_together():
    key = permutation.key_of(2)
    together = permutation.permute(np.arange(37), 37, key)
    alone = [int(permutation.permute(i, 37, key)) for i in range(37)]
    assert together.tolist() == alone


def test_permute_takes_one_key_for_each_index():
    mixed = permutation.permute(np.arange(13), 13, KEYS[:13])
    alone = [int(permutation.permute(i, 13, KEYS[i])) for i in range(13)]
    assert mixed.tolist() == alone


def test_permute_takes_one_range_for_each_index():
    sizes = np.array([1, 2, 9, 10**12, 3**38 + 2, 2**61 + 5, 9])
    index = np.array([0, 1, 4, 10**11, 3**38, 2**61, 8])
    mixed = permutation.permute(index, sizes, KEYS[:7])
    alone = [
        int(permutation.permute(i, int(n), key))
        for i, n, key in zip(index, sizes, KEYS[:7], strict=True)
    ]
    assert mixed.tolist() == alone
    assert (mixed < sizes).all()


def test_the_digits_of_a_range_are_exact_far_beyond_floats():
    """The radix is part of the format: a float's root is one off near squares."""
    roots = [2**k + d for k in (1, 10, 26, 27, 29, 30) for d in (0, 3, 7)]
    sizes = [r * r + d for r in [*roots, 2**31 - 1] for d in (-1, 0, 1)]
    found = permutation._roots(np.array(sizes, np.uint64))
    assert found.tolist() == [math.isqrt(n - 1) + 1 for n in sizes]


@pytest.mark.parametrize("n, orders", [(2, 2), (3, 6), (4, 24), (5, 120)])
def test_every_order_of_a_few_is_equally_likely(n, orders):
    drawn = np.stack([permutation.permute(np.full(6000, i), n, KEYS) for i in range(n)])
    counts = collections.Counter(map(tuple, drawn.T.tolist()))
    assert len(counts) == orders
    expected = 6000 / orders
    chi_square = sum((count - expected) ** 2 for count in counts.values()) / expected
    degrees = orders - 1
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees)


def test_neighbors_part_in_a_large_range():
    n = 1001
    first, second = (permutation.permute(np.full(6000, i), n, KEYS) for i in (3, 4))
    counts, _ = np.histogram((first - second) % n, bins=10, range=(0, n))
    # Ten bins of 600: each within four standard deviations (23) of it.
    assert np.abs(counts - 600).max() < 93
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_each_bit_of_a_draw_is_fair_and_flips_with_the_counter():
    draws = permutation.fold_in(permutation.key_of(0), np.arange(8192))
    ones = [int((draws >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(64)]
    assert np.abs(np.array(ones) - 4096).max() < 5 * 45.3
    flips = np.bitwise_count(draws[1:] ^ draws[:-1])
    assert abs(flips.mean() - 32) < 5 * 4 / np.sqrt(8191)


def test_keys_give_unrelated_streams():
    streams = permutation.fold_in(KEYS[:50, None], np.arange(1000))
    assert len(np.unique(streams)) == 50_000


def test_fold_in_broadcasts_and_takes_scalars():
    grid = permutation.fold_in(KEYS[:3, None], np.arange(2))
    assert grid.shape == (3, 2)
    assert grid[2, 1] == permutation.fold_in(KEYS[2], 1)


def test_uniform_and_below_cover_their_range():
    draws = permutation.fold_in(permutation.key_of(4), np.arange(7000))
    numbers = permutation.uniform(draws)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 5 * 0.2887 / np.sqrt(7000)
    assert permutation.uniform(np.uint64(2**64 - 1)) == 1 - 2.0**-53
    counts = np.bincount(permutation.below(draws, 7), minlength=7)
    assert len(counts) == 7 and np.abs(counts - 1000).max() < 5 * 29.3
    assert permutation.below(draws[:2], np.array([1, 1])).tolist() == [0, 0]
