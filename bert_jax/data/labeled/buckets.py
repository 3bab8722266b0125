"""Row lengths: to how many tokens rows are padded, so that few shapes are compiled."""

import numpy as np
from jaxtyping import Int

STEP = 8  # lengths are multiples of this, but for the longest


def bucket(length: int, longest: int) -> int:
    """Returns the row length that `length` is padded to: four for each doubling.

    >>> [bucket(length, 512) for length in (3, 9, 33, 70, 129, 500)]
    [8, 16, 40, 80, 160, 512]
    """
    length = max(1, length)  # a tokenizer may make nothing of an empty text
    step = max(STEP, 1 << max(0, (length - 1).bit_length() - 3))
    return min(longest, -(-length // step) * step)


def choose(lengths: Int[np.ndarray, " n"], count: int, longest: int) -> tuple[int, ...]:
    """Returns at most `count` row lengths that pad these rows the least.

    Exact, by dynamic programming over the multiples of eight; the last one holds the
    longest row.

    >>> choose(np.array([5, 6, 7, 7, 30, 31, 60]), 2, 512)
    (8, 64)
    >>> choose(np.array([5, 6, 7, 7, 30, 31, 60]), 3, 512)
    (8, 32, 64)
    """
    if not len(lengths):
        return (min(STEP, longest),)
    rounded = -(-np.maximum(lengths, 1) // STEP)
    sizes, rows = np.unique(rounded, return_counts=True)
    below = np.concatenate([[0], np.cumsum(rows)])  # rows shorter than sizes[i]
    # cost[i]: tokens of the rows in the first i sizes, cut as well as can be.
    cost = np.concatenate([[0.0], sizes * below[1:].astype(float)])
    cuts = [np.zeros(len(sizes) + 1, int)]
    for _ in range(min(count, len(sizes)) - 1):
        rows_between = below[1:, None] - below[None, :-1]
        options = cost[None, :-1] + sizes[:, None] * rows_between
        options = np.where(np.tri(len(sizes), dtype=bool), options, np.inf)
        best = np.argmin(options, axis=1)
        cuts.append(np.concatenate([[0], best]))
        cost = np.concatenate([[0.0], options[np.arange(len(sizes)), best]])
    end, chosen = len(sizes), []
    for cut in reversed(cuts):
        if end == 0:
            break
        chosen.append(min(longest, int(sizes[end - 1]) * STEP))
        end = int(cut[end])
    return tuple(sorted(set(chosen)))
