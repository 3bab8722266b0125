"""How often an epoch shows each row, by the weight of the source it comes from.

Weight 2.5 means that an epoch holds every row of the source twice, and half of them,
another half in each epoch, once more. How many these are is fixed, so epochs stay
equally long.
"""

import numpy as np
from jaxtyping import Float, Int64

from bert_jax.data.pretraining import permutation


class Mixture:
    """The rows of an epoch as rows of a table, some left out and some repeated.

    Attributes:
      total: rows in an epoch.
    """

    def __init__(
        self,
        weights: Float[np.ndarray, " rows"],
        lengths: Int64[np.ndarray, " rows"] | None = None,
    ) -> None:
        """Groups the rows of the table; 8 bytes for each unless nothing is to group.

        Args:
          weights: of each row.
          lengths: if given, an epoch has its rows by length, the shortest first.
        """
        order = None  # of the table, where nothing is to group
        if lengths is None:
            lengths = np.broadcast_to(0, weights.shape)
        if lengths.any() or (weights != 1.0).any():
            order = np.lexsort((weights, lengths))
            weights, lengths = weights[order], lengths[order]
        changes = (np.diff(lengths) != 0) | (np.diff(weights) != 0)
        begins = np.flatnonzero(np.append(len(weights) > 0, changes))
        counts = np.diff(np.append(begins, len(weights)))
        values, self._sizes = weights[begins], lengths[begins]
        self._members = order
        self._counts = counts
        self._first = np.append(0, np.cumsum(counts))
        self._taken = np.rint(values * counts).astype(np.int64)
        self._starts = np.append(0, np.cumsum(self._taken))
        self.total = int(self._starts[-1])

    def counts(self, length: int) -> Int64[np.ndarray, " lengths"]:
        """Returns how many rows of an epoch have each length from 0 to this one."""
        counts = np.zeros(length + 1, np.int64)
        np.add.at(counts, self._sizes, self._taken)
        return counts

    def rows_at(
        self,
        indices: Int64[np.ndarray, " n"],
        epochs: Int64[np.ndarray, " n"],
        key: permutation.Integers,
    ) -> Int64[np.ndarray, " n"]:
        """Returns the row of the table at each index of an epoch, below `total`."""
        if self._members is None:
            return indices
        groups = np.searchsorted(self._starts[1:-1], indices, side="right")
        places = indices - self._starts[groups]
        sizes = self._counts[groups]
        whole = self._taken[groups] // sizes * sizes
        some = np.flatnonzero(places >= whole)  # rows that are there once more
        keys = permutation.fold_in(permutation.fold_in(key, epochs[some]), groups[some])
        places[some] = permutation.permute(
            places[some] - whole[some], sizes[some], keys
        )
        return self._members[self._first[groups] + places % sizes]
