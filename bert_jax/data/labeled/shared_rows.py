"""Rows that the sequences of a batch share, in a layout that no batch changes.

The sequences of a data set, sorted by length, are cut into as many strata as a batch
has places, and a batch takes one sequence of each. The longest of a stratum decides how
much room its place has, so one layout holds every batch of every epoch: one shape and
one program, whatever the seed, the fold and the mesh.
"""

import dataclasses

import numpy as np
from jaxtyping import Int

from bert_jax.data.pretraining import packing

PACKED = "packed"  # [R, S] int32: the token that stands there, from 1; 0 = none
_STEP = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where the texts of a batch lie.

    Attributes:
      rows: R, how many rows there are; some of the last may be empty.
      length: S, the tokens of a row.
      row, column: [B, K], where each text of each place begins.
      fill: the share of the tokens of all rows for which there is room.
    """

    rows: int
    length: int
    row: Int[np.ndarray, "B K"]
    column: Int[np.ndarray, "B K"]
    fill: float

    def packed(self, segment_ids: Int[np.ndarray, "B *K L"]) -> Int[np.ndarray, "R S"]:
        """Returns which token stands where: 1 + its number in `segment_ids`, or 0."""
        width = segment_ids.shape[-1]
        lengths = np.count_nonzero(segment_ids, axis=-1).reshape(self.row.shape)
        made = np.zeros((self.rows, self.length), np.int32)
        for text, (place, count) in enumerate(np.ndenumerate(lengths)):
            first = self.column[place]
            tokens = 1 + text * width + np.arange(count)
            made[self.row[place], first : first + count] = tokens
        return made


def strata(
    lengths: Int[np.ndarray, " n"], kept: Int[np.ndarray, " k"], places: int
) -> list[Int[np.ndarray, " s"]]:
    """Cuts the kept rows, longest first, into one part for each place of a batch.

    >>> [x.tolist() for x in strata(np.array([5, 9, 2, 7, 3]), np.arange(5), 2)]
    [[1, 3, 0], [4, 2]]
    """
    longest_first = kept[np.argsort(-lengths[kept], kind="stable")]
    return np.array_split(longest_first, places)


def layout(room: Int[np.ndarray, " B"], texts: int, multiple: int) -> Layout:
    """Finds rows for places of so many tokens, each for `texts` texts of that length.

    Of row lengths from the longest place to twice that, the one that wastes least.

    Args:
      multiple: the number of rows is one of these, so that a mesh can cut them; only
        empty rows are added.
    """
    sizes = np.repeat(room, texts)
    longest = max(1, int(sizes.max()))
    first = -(-longest // _STEP) * _STEP
    packed = {
        length: packing.best_fit(
            np.bincount(sizes[sizes > 0], minlength=length + 1), length, sizes.size
        )
        for length in range(first, 2 * first + 1, _STEP)
    }
    length = min(packed, key=lambda n: (n * sum(packed[n].values()), n))
    rows = -(-sum(packed[length].values()) // multiple) * multiple
    row, column = _places(sizes, packed[length])
    return Layout(
        rows=rows,
        length=length,
        row=row.reshape(-1, texts),
        column=column.reshape(-1, texts),
        fill=float(sizes.sum()) / (rows * length),
    )


def _places(
    sizes: Int[np.ndarray, " t"], packed: packing.Counts
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """Returns row and column of texts of these sizes."""
    row, column = np.zeros_like(sizes), np.zeros_like(sizes)
    waiting = {size: list(np.flatnonzero(sizes == size)) for size in np.unique(sizes)}
    every = [kind for kind, times in packed.items() for _ in range(times)]
    for number, kind in enumerate(every):
        begin = 0
        for size in kind:
            text = waiting[size].pop()
            row[text], column[text] = number, begin
            begin += size
    return row, column
