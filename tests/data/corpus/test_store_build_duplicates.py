"""The set of content hashes against Python's own set."""

import numpy as np

from bert_jax.data.corpus import store_build


def test_the_first_of_equal_hashes_is_new_like_in_a_set():
    draw = np.random.default_rng(7)
    seen, expected = store_build.SeenHashes(), set()
    for size in [0, 1, 13, 400, 3, 0, 257, 5, 1000, 1]:
        hashes = draw.integers(0, 900, size, dtype=np.uint64) << np.uint64(54)
        wanted = []
        for value in hashes.tolist():
            wanted.append(value not in expected)
            expected.add(value)
        assert seen.add(hashes).tolist() == wanted


def test_runs_stay_few_and_hold_eight_bytes_a_hash():
    seen = store_build.SeenHashes()
    for first in range(0, 100_000, 100):
        seen.add(np.arange(first, first + 100, dtype=np.uint64))
    assert len(seen._runs) <= 12
    assert sum(run.nbytes for run in seen._runs) == 800_000
