"""Best fit decreasing over the histogram of lengths.

Krell et al. 2021 (arXiv:2107.02027), section 3: the input is the number of sequences of
each length, so the cost does not grow with the corpus.
"""

import collections

import numpy as np
from jaxtyping import Int64

Counts = dict[tuple[int, ...], int]


def best_fit(
    counts: Int64[np.ndarray, " lengths"], length: int, most_segments: int
) -> Counts:
    """Returns combinations of lengths and the number of rows that have each.

    Longest sequences first, each into the row with the least room that fits it.

    >>> best_fit(np.array([0, 0, 3, 1, 1, 0, 2]), 6, 3)
    {(6,): 2, (4, 2): 1, (3, 2): 1, (2,): 1}
    """
    done: collections.Counter[tuple[int, ...]] = collections.Counter()
    # Rows by the room that is left in them.
    open_rows = [collections.Counter[tuple[int, ...]]() for _ in range(length + 1)]

    def put(sizes: tuple[int, ...], rows: int) -> None:
        room = length - sum(sizes)
        is_full = not room or len(sizes) == most_segments
        (done if is_full else open_rows[room])[sizes] += rows

    for size in range(length, 0, -1):
        left, room = int(counts[size]), size
        while left and room < length:
            if not open_rows[room]:
                room += 1
                continue
            sizes, rows = open_rows[room].popitem()
            taken = min(rows, left)
            left -= taken
            if rows > taken:
                put(sizes, rows - taken)
            put((*sizes, size), taken)
            if room - size >= size:  # that row has the least room now
                room -= size
        each = min(length // size, most_segments)
        rows, rest = divmod(left, each)
        for sizes, number in (((size,) * each, rows), ((size,) * rest, 1)):
            if sizes and number:
                put(sizes, number)
    for rows_with_room in open_rows:
        done += rows_with_room
    return dict(done)
