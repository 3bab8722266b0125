"""Packing: which sequence lengths share a row, computed once for all epochs.

Each combination of lengths (`data.packing`) is stored with its number of rows. Which
sequence takes which slot of its length is sampled per epoch by index arithmetic, so any
row of any epoch can be computed directly.

An epoch may show sources in part or several times, by their weights: see
`SourceMixture`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from bert_jax.data.packing import best_fit
from bert_jax.data.pretraining import permutation


class Sequences(NamedTuple):
    """The sequences of some rows, in their order.

    Attributes:
      row: the requested row that contains it.
      column: its first position in that row.
      segment: its number in that row, from 0.
      index: its number among all sequences sorted by length.
    """

    row: Int64[np.ndarray, " n"]
    column: Int64[np.ndarray, " n"]
    segment: Int64[np.ndarray, " n"]
    index: Int64[np.ndarray, " n"]


class Packing:
    """The rows of an epoch as combinations of lengths.

    Attributes:
      num_rows: rows in an epoch.
      num_segments: S, the most sequences in a row.
      fill: packing efficiency, the fraction of positions in use.
      effective_length: sum(l^2) / sum(l) over the sequences, the cost of attention.
    """

    def __init__(
        self, counts: Int64[np.ndarray, " lengths"], length: int, most_segments: int
    ) -> None:
        """Packs sequences into rows.

        Args:
          counts: the number of sequences of each length from 0 to `length`; the first
            is 0.
          length: L, positions in a row.
          most_segments: the maximum number of sequences in a row.
        """
        rows = best_fit(counts, length, most_segments)
        self.num_rows = sum(rows.values())
        self.num_segments = max(map(len, rows))
        lengths = np.zeros((len(rows), self.num_segments), np.int64)
        for number, sizes in enumerate(rows):
            lengths[number, : len(sizes)] = sizes
        times = np.array(list(rows.values()))
        self.fill = float(lengths.sum(1) @ times) / (length * self.num_rows)
        sizes = np.arange(length + 1)
        self.effective_length = float(counts @ sizes**2) / float(counts @ sizes)
        self._counts, self._lengths = counts, lengths
        self._starts = np.append(0, np.cumsum(times))
        self._columns = np.cumsum(lengths, axis=1) - lengths
        self._first_index = np.cumsum(counts) - counts
        self._first_place = _slots_before(lengths, times)

    def sequences(
        self,
        rows: Int64[np.ndarray, " r"],
        epochs: Int64[np.ndarray, " r"],
        key: permutation.Integers,
    ) -> Sequences:
        """Returns the sequences of some rows, each row in its epoch."""
        kind = np.searchsorted(self._starts, rows, side="right") - 1
        row, segment = np.nonzero(self._lengths[kind])
        kind, nth = kind[row], (rows - self._starts[kind])[row]
        size = self._lengths[kind, segment]
        keys = permutation.fold_in(permutation.fold_in(key, epochs[row]), size)
        slot = self._first_place[kind, segment] + nth
        chosen = permutation.permute(slot, self._counts[size], keys)
        return Sequences(
            row, self._columns[kind, segment], segment, self._first_index[size] + chosen
        )


def _slots_before(
    lengths: Int64[np.ndarray, "k s"], times: Int64[np.ndarray, " k"]
) -> Int64[np.ndarray, "k s"]:
    """Returns for each slot how many slots of its length precede it."""
    flat = lengths.ravel()
    order = np.argsort(flat, kind="stable")
    each = np.repeat(times, lengths.shape[1])[order]
    before = np.cumsum(each) - each
    starts = np.searchsorted(flat[order], flat[order])
    first = np.empty_like(flat)
    first[order] = before - before[starts]
    return first.reshape(lengths.shape)


class SourceMixture:
    """The rows of an epoch, by the weight of the source each comes from.

    Weight 2.5 means that an epoch has every row of the source twice, and half of them,
    a different half in each epoch, once more. Their number is fixed, so all epochs have
    the same length.

    Attributes:
      total: rows in an epoch.
    """

    def __init__(
        self,
        weights: Float[np.ndarray, " rows"],
        lengths: Int64[np.ndarray, " rows"] | None = None,
    ) -> None:
        """Groups rows of equal weight and length: 8 bytes a row for several groups.

        Args:
          weights: the weight of each row's source.
          lengths: sorts the rows of an epoch by length, the shortest first.
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
        """Returns the number of rows of an epoch of each length from 0 to this one."""
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
        positions = indices - self._starts[groups]
        sizes = self._counts[groups]
        whole = self._taken[groups] // sizes * sizes
        some = np.flatnonzero(positions >= whole)  # rows that are repeated once more
        keys = permutation.fold_in(permutation.fold_in(key, epochs[some]), groups[some])
        positions[some] = permutation.permute(
            positions[some] - whole[some], sizes[some], keys
        )
        return self._members[self._first[groups] + positions % sizes]
