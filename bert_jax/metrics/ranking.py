"""Scores of similarities: places of the right candidates, and the best threshold."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int


def ranks(
    similarities: Float[np.ndarray, "n m"],
    right: Int[np.ndarray, " n"],
    ignored: Bool[np.ndarray, "n m"],
) -> Int[np.ndarray, " n"]:
    """Returns the place, from 1, of the candidate `right[i]` in each row.

    A candidate that ties with it comes before it, so that equal vectors for all texts
    earn nothing. Those that are `ignored` (other right ones, say) do not count.
    """
    rows = np.arange(len(right))
    before = similarities >= similarities[rows, right][:, None]
    before &= ~ignored
    before[rows, right] = False
    return 1 + before.sum(axis=1)


def mean_reciprocal(places: Int[np.ndarray, " n"]) -> float:
    """Returns the mean of 1 / rank (MRR), in (0, 1].

    >>> mean_reciprocal(np.array([1, 2, 4]))
    0.5833333333333334
    """
    return float(np.mean(1.0 / places))


def recall(places: Int[np.ndarray, " n"], k: int) -> float:
    """Returns the share of the ranks that are k or better (recall@k).

    >>> recall(np.array([1, 2, 4, 9]), 2)
    0.5
    """
    return float(np.mean(places <= k))


@dataclasses.dataclass(frozen=True)
class Threshold:
    """From which score on something is taken to be positive, and how often rightly."""

    value: float
    accuracy: float


def best_threshold(
    values: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> Threshold:
    """Returns the threshold of highest accuracy; positive is `score >= value`.

    It lies halfway between two scores, or is the lowest score (all are positive), or
    just above the highest (none is): always finite. Of equally good ones it is the
    lowest. Accuracy is that on these very scores, so it flatters small data.
    """
    order = np.argsort(values, kind="stable")
    scores, sorted_positive = values[order].astype(float), positive[order]
    # hits[i]: right if the i lowest are negative and the others are positive.
    below = np.concatenate([[0], np.cumsum(~sorted_positive)])
    above = sorted_positive.sum() - np.concatenate([[0], np.cumsum(sorted_positive)])
    hits = below + above
    possible = np.concatenate([[True], scores[1:] > scores[:-1], [True]])
    cut = int(np.argmax(np.where(possible, hits, -1)))
    return Threshold(_between(scores, cut), float(hits[cut] / len(scores)))


def _between(scores: Float[np.ndarray, " n"], cut: int) -> float:
    """Returns a number above the `cut` lowest of sorted scores and no other one."""
    if cut == 0:
        return float(scores[0])
    if cut == len(scores):
        return float(np.nextafter(scores[-1], np.inf))
    middle = float(scores[cut - 1] / 2 + scores[cut] / 2)
    return middle if middle > scores[cut - 1] else float(scores[cut])
