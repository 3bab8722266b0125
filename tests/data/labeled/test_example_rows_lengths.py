"""Row lengths: bounded, rounded, and those that pad the least."""

import itertools

import numpy as np
import pytest

from bert_jax.data.labeled import example_rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_chosen_lengths_pad_no_more_than_any_others(seed, count):
    lengths = np.random.default_rng(seed).integers(1, 70, 40)
    chosen = example_rows.choose_lengths(lengths, count, 512)
    assert len(chosen) <= count and list(chosen) == sorted(set(chosen))
    multiples = range(8, 80, 8)
    costs = [
        _tokens(lengths, options)
        for options in itertools.combinations(multiples, count)
        if options[-1] >= lengths.max()
    ]
    assert _tokens(lengths, chosen) == min(costs)


def _tokens(lengths: np.ndarray, options: tuple[int, ...]) -> int:
    return sum(min(x for x in options if x >= length) for length in lengths)


def test_the_longest_row_bounds_the_last_length():
    assert example_rows.choose_lengths(np.array([3, 29]), 2, 30) == (8, 30)
    assert example_rows.choose_lengths(np.array([], int), 3, 30) == (8,)
