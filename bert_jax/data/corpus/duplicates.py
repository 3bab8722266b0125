"""A set of 64-bit content hashes in eight bytes each, for finding exact duplicates."""

import numpy as np
from jaxtyping import Bool, UInt64


class Seen:
    """Remembers hashes in sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        """Starts with nothing seen."""
        self._runs: list[np.ndarray] = []

    def add(self, hashes: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Returns which hashes come for the first time, and remembers them.

        >>> seen = Seen()
        >>> seen.add(np.array([5, 3, 5], np.uint64)).tolist()
        [True, True, False]
        >>> seen.add(np.array([3, 4], np.uint64)).tolist()
        [False, True]
        """
        values, first = np.unique(hashes, return_index=True)
        new = np.ones(len(values), bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, values), len(run) - 1)
            new &= run[at] != values
        self._remember(values[new])
        mask = np.zeros(len(hashes), bool)
        mask[first[new]] = True
        return mask

    def _remember(self, values: UInt64[np.ndarray, " m"]) -> None:
        """Adds a sorted run and merges those that have become too short."""
        if len(values):
            self._runs.append(values)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            # Two sorted runs: the stable sort merges them in linear time, and in
            # place, because these are what a build holds that grows with the corpus.
            merged.sort(kind="stable")
            self._runs.append(merged)
