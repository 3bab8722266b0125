"""How often an epoch shows the rows of sources with weights."""

import collections

import numpy as np

from bert_jax.data.pretraining import packing, permutation

KEY = permutation.key_of(3)


def rows_of(mixed, epoch):
    indices = np.arange(mixed.total)
    rows = mixed.rows_at(indices, np.full(mixed.total, epoch), KEY)
    return collections.Counter(rows.tolist())


def test_weight_one_is_every_row_once_in_its_place():
    mixed = packing.SourceMixture(np.ones(7))
    assert mixed.total == 7
    indices = np.array([6, 0, 3])
    assert mixed.rows_at(indices, indices * 0, KEY).tolist() == [6, 0, 3]


def test_weights_count_rows():
    weights = np.array([2.0, 0.4, 2.0, 0.4, 0.4, 0.4, 0.4, 1.5, 1.5, 1.0])
    mixed = packing.SourceMixture(weights)
    # 2 * 2 rows, 0.4 * 5, 1.5 * 2 and 1.
    assert mixed.total == 4 + 2 + 3 + 1
    for epoch in range(5):
        counts = rows_of(mixed, epoch)
        assert counts[0] == counts[2] == 2 and counts[9] == 1
        assert sum(counts[row] for row in (1, 3, 4, 5, 6)) == 2
        assert all(counts[row] <= 1 for row in (1, 3, 4, 5, 6))
        assert sorted((counts[7], counts[8])) == [1, 2]


def test_the_fraction_is_another_in_each_epoch_and_fair():
    mixed = packing.SourceMixture(np.full(11, 0.5))
    assert mixed.total == 6  # 5.5, to the even neighbor.
    total = sum((rows_of(mixed, epoch) for epoch in range(1100)), collections.Counter())
    # 600 of each row in 1100 epochs, with a standard deviation of 16.5.
    assert all(abs(total[row] - 600) < 83 for row in range(11))
    assert rows_of(mixed, 0) != rows_of(mixed, 1)
    assert rows_of(mixed, 4) == rows_of(mixed, 4)


def test_a_weight_of_zero_leaves_a_source_out():
    mixed = packing.SourceMixture(np.array([0.0, 1.0, 0.0]))
    assert rows_of(mixed, 0) == {1: 1}
    assert packing.SourceMixture(np.zeros(4)).total == 0


def test_epochs_may_mix_in_one_call():
    mixed = packing.SourceMixture(np.repeat([0.5, 1.3], [9, 10]))
    indices = np.tile(np.arange(mixed.total), 3)
    epochs = np.repeat([0, 1, 2], mixed.total)
    together = mixed.rows_at(indices, epochs, KEY)
    alone = [
        int(mixed.rows_at(indices[[i]], epochs[[i]], KEY)[0])
        for i in range(len(indices))
    ]
    assert together.tolist() == alone
