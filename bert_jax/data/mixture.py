"""How often an epoch shows each row, by the weight of the source it comes from.

Weight 2.5 means that an epoch holds every row of the source twice, and half of them,
another half in each epoch, once more. How many these are is fixed, so epochs stay
equally long.
"""

import numpy as np
from jaxtyping import Float, Int64

from bert_jax.data import permutation


class Mixture:
    """The rows of an epoch as rows of a table, some left out and some repeated.

    Attributes:
      total: rows in an epoch.
    """

    def __init__(self, weights: Float[np.ndarray, " rows"]) -> None:
        """Groups the rows of the table by weight; 8 bytes for each unless all are 1."""
        values, counts = np.unique(weights, return_counts=True)
        self._plain = values.tolist() in ([], [1.0])
        self._members = (
            np.zeros(0, np.int64) if self._plain else np.argsort(weights, kind="stable")
        )
        self._counts = counts
        self._first = np.append(0, np.cumsum(counts))
        taken = np.rint(values * counts).astype(np.int64)
        self._starts = np.append(0, np.cumsum(taken))
        self.total = int(self._starts[-1])

    def rows_at(
        self,
        indices: Int64[np.ndarray, " n"],
        epochs: Int64[np.ndarray, " n"],
        key: permutation.Integers,
    ) -> Int64[np.ndarray, " n"]:
        """Returns the row of the table at each index of an epoch, below `total`."""
        if self._plain:
            return indices
        groups = np.searchsorted(self._starts[1:-1], indices, side="right")
        places = indices - self._starts[groups]
        for group in np.unique(groups):
            size = int(self._counts[group])
            whole = int(np.diff(self._starts)[group]) // size * size
            once_more = np.flatnonzero((groups == group) & (places >= whole))
            keys = permutation.fold_in(key, epochs[once_more])
            places[once_more] = permutation.permute(
                places[once_more] - whole, size, permutation.fold_in(keys, group)
            )
        return self._members[self._first[groups] + places % self._counts[groups]]
