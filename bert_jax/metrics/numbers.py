"""Predicted numbers against true ones, and similarities of pairs of texts.

A pair may have a score (STS), a label (duplicate or not), or its second text may be the
one to find for the first among all second texts of the data (retrieval).

If either side is constant, a correlation is undefined, and 0 here: constant predictions
rank nothing. No score is ever NaN.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from bert_jax import errors
from bert_jax.metrics import classes, scores

_CONSTANT = 1e-13  # of the mean: smaller deviations are rounding of float64
RECALLS = (1, 5, 10)
_BLOCK = 512  # queries whose similarities to all candidates are in memory at once


def score(
    truths: Float[np.ndarray, " n"],
    predictions: Float[np.ndarray, " n"],
    *,
    where: Sequence[str],
    texts: Sequence[str],
) -> scores.Scores:
    """Returns `pearson`, `spearman`, `rmse`, `mae`, and the largest errors.

    The severity of an error is its absolute value.

    Raises:
      InputError: no examples, or scikit-learn is not installed.
      NotFiniteError: a prediction is not finite.
    """
    scores.check(where, predictions)
    truths, predictions = truths.astype(float), predictions.astype(float)
    distance = np.abs(predictions - truths)
    severity = {at: float(distance[at]) for at in np.flatnonzero(distance).tolist()}
    wrong = scores.worst(
        severity,
        where,
        texts,
        lambda at: f"{truths[at]:.4g}",
        lambda at: f"{predictions[at]:.4g}",
    )
    metrics = {
        "pearson": pearson(truths, predictions),
        "spearman": spearman(truths, predictions),
        "rmse": float(np.sqrt(np.mean(distance**2))),
        "mae": float(np.mean(distance)),
    }
    return scores.Scores(metrics, errors=wrong)


def pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns the linear correlation in [-1, 1]; 0 if either side is constant.

    Raises InputError if scikit-learn, which requires scipy, is not installed.

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0]))
    0.0
    """
    if _is_constant(a) or _is_constant(b):
        return 0.0
    return float(_stats().pearsonr(a.astype(float), b.astype(float)).statistic)


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns the correlation of the ranks; equal numbers share their mean rank.

    Raises InputError if scikit-learn, which requires scipy, is not installed.
    """
    rankdata = _stats().rankdata
    return pearson(np.asarray(rankdata(a)), np.asarray(rankdata(b)))


def _is_constant(x: Float[np.ndarray, " n"]) -> bool:
    mean = x.astype(float).mean()
    return bool(np.abs(x - mean).max() <= _CONSTANT * abs(mean))


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise errors.missing_extra("scikit-learn", "tasks") from None
    return stats


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of texts and their labels, [n] each.

    Attributes:
      where: file and line of each pair.
      texts: the two texts.
      scores: similarity scores, or None.
      belong: whether the label is positive, or None.
      ranks: for positive pairs the rank of the second text among all for the first, or
        None.
    """

    where: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]
    scores: tuple[float | None, ...]
    belong: tuple[bool | None, ...]
    ranks: tuple[int | None, ...]


def normalized(vectors: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "... D"]:
    """Returns vectors of length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def ranks(
    vectors: Float[np.ndarray, "n 2 D"],
    texts: Int[np.ndarray, "n 2"],
    is_positive: Bool[np.ndarray, " n"],
) -> dict[int, int]:
    """Returns the rank, from 1, of each positive pair's second text for its first.

    The candidates are all distinct second texts, without other positives of the first
    text and without that text itself; see `row_ranks`.

    Args:
      vectors: of both texts, normalized.
      texts: an id for each text, equal for equal texts.
      is_positive: which pairs are positive.
    """
    ids, firsts = np.unique(texts[:, 1], return_index=True)
    candidates = vectors[firsts, 1]
    index = {int(number): at for at, number in enumerate(ids)}
    answers: dict[int, list[int]] = collections.defaultdict(list)
    positive = np.flatnonzero(is_positive)
    for first, second in texts[positive].tolist():
        answers[first].append(index[second])
    found: dict[int, int] = {}
    for start in range(0, len(positive), _BLOCK):
        rows = positive[start : start + _BLOCK]
        ignored = np.zeros((len(rows), len(candidates)), bool)
        for at, first in enumerate(texts[rows, 0].tolist()):
            ignored[at, answers[first]] = True
            if first in index:
                ignored[at, index[first]] = True
        right = np.array([index[number] for number in texts[rows, 1].tolist()])
        ranked = row_ranks(vectors[rows, 0] @ candidates.T, right, ignored)
        found |= zip(rows.tolist(), ranked.tolist(), strict=True)
    return found


def score_pairs(
    pairs: Pairs,
    similarities: Float[np.ndarray, " n"],
    names: tuple[str, str],
    threshold: float | None,
) -> scores.Scores:
    """Returns the scores that the labels of the pairs allow.

    With scores: `spearman` and `pearson`. With labels of both kinds: `accuracy`,
    `precision`, `recall`, `f1`, `auc` and the `threshold`, which is tuned on the pairs
    if it is None. With positive pairs: `mrr` and `recall@k`, each pair of texts counted
    once. The errors are those of the first kind present: far from the score, far from
    the threshold, or at a low rank.

    Args:
      pairs: the pairs and their labels.
      similarities: the model's similarity of each pair.
      names: the labels of negative and positive pairs.
      threshold: the similarity from which on a pair is predicted as positive.

    Raises:
      InputError: no pair has a label or score, or scikit-learn is not installed.
      NotFiniteError: a similarity is not finite.
    """
    scores.check(pairs.where, similarities)
    parts = [
        _by_scores(pairs, similarities),
        _by_labels(pairs, similarities, names, threshold),
        _by_ranks(pairs),
    ]
    present = [part for part in parts if part is not None]
    if not present:
        raise errors.InputError(
            f"{pairs.where[0]}: nothing can be scored: the pairs have no scores, and "
            "no labels of both kinds"
        )
    metrics = {name: x for part in present for name, x in part.metrics.items()}
    confusions = [part.confusion for part in present if part.confusion is not None]
    return scores.Scores(
        metrics,
        confusion=confusions[0] if confusions else None,
        errors=present[0].errors,
        positive="".join(part.positive for part in present),
    )


def _by_scores(
    pairs: Pairs, similarities: Float[np.ndarray, " n"]
) -> scores.Scores | None:
    known = [at for at, number in enumerate(pairs.scores) if number is not None]
    if not known:
        return None
    true = np.array([pairs.scores[at] for at in known], float)
    cosines = similarities[known]
    metrics = {"spearman": spearman(true, cosines), "pearson": pearson(true, cosines)}
    # Scores and cosines have no common scale, but their quantiles have.
    distance = (_quantiles(cosines) - _quantiles(true)).tolist()
    severity = {at: abs(x) for at, x in zip(known, distance, strict=True) if x}
    wrong = _worst(
        pairs,
        severity,
        {at: f"{pairs.scores[at]:g}" for at in known},
        {at: f"cosine {similarities[at]:.4f}" for at in known},
    )
    return scores.Scores(metrics, errors=wrong)


def _quantiles(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns the fraction of the values that are lower; equal ones count half."""
    ascending = np.sort(values)
    below = np.searchsorted(ascending, values, side="left")
    up_to = np.searchsorted(ascending, values, side="right")
    return (below + up_to) / 2 / len(values)


def _by_labels(
    pairs: Pairs,
    similarities: Float[np.ndarray, " n"],
    names: tuple[str, str],
    threshold: float | None,
) -> scores.Scores | None:
    known = [at for at, belongs in enumerate(pairs.belong) if belongs is not None]
    true = np.array([pairs.belong[at] for at in known], bool)
    if true.all() or not true.any():
        return None
    cosines = similarities[known]
    if threshold is None:
        threshold = best_threshold(cosines, true)
    predicted = cosines >= threshold
    metrics = classes.decisions(true, predicted, cosines) | {"threshold": threshold}
    distance = np.abs(cosines - threshold)
    severity = {
        known[at]: float(distance[at])
        for at in np.flatnonzero(predicted != true).tolist()
    }
    wrong = _worst(
        pairs,
        severity,
        {at: names[int(x)] for at, x in zip(known, true, strict=True)},
        {at: names[int(x)] for at, x in zip(known, predicted, strict=True)},
    )
    counts = np.zeros((2, 2), int)
    np.add.at(counts, (true.astype(int), predicted.astype(int)), 1)
    return scores.Scores(
        metrics,
        confusion=scores.Confusion(names, counts),
        errors=wrong,
        positive=names[1],
    )


def _by_ranks(pairs: Pairs) -> scores.Scores | None:
    once: dict[tuple[str, str], tuple[int, int]] = {}
    for at, rank in enumerate(pairs.ranks):
        if rank is not None:
            once.setdefault(pairs.texts[at], (at, rank))
    if not once:
        return None
    each = np.array([rank for _, rank in once.values()])
    metrics = {"mrr": float(np.mean(1.0 / each))}
    metrics |= {f"recall@{k}": float(np.mean(each <= k)) for k in RECALLS}
    severity = {at: float(rank - 1) for at, rank in once.values() if rank > 1}
    wrong = _worst(
        pairs,
        severity,
        dict.fromkeys(severity, "rank 1"),
        {at: f"rank {pairs.ranks[at]}" for at in severity},
    )
    return scores.Scores(metrics, errors=wrong)


def _worst(
    pairs: Pairs,
    severity: Mapping[int, float],
    expected: Mapping[int, str],
    predicted: Mapping[int, str],
) -> tuple[scores.PredictionError, ...]:
    texts = [" ||| ".join(both) for both in pairs.texts]
    return scores.worst(
        severity, pairs.where, texts, expected.__getitem__, predicted.__getitem__
    )


def row_ranks(
    similarities: Float[np.ndarray, "n m"],
    right: Int[np.ndarray, " n"],
    ignored: Bool[np.ndarray, "n m"],
) -> Int[np.ndarray, " n"]:
    """Returns the rank, from 1, of the candidate `right[i]` in each row.

    Candidates that tie with it rank before it, so that equal vectors for all texts earn
    nothing. Those that are `ignored`, such as other right ones, do not count.
    """
    rows = np.arange(len(right))
    before = similarities >= similarities[rows, right][:, None]
    before &= ~ignored
    before[rows, right] = False
    return 1 + before.sum(axis=1)


def best_threshold(
    values: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> float:
    """Returns the threshold of highest accuracy; positive is `score >= value`.

    It is halfway between two scores, or the lowest score (all are positive), or just
    above the highest (none is): always finite. Of equally good thresholds it is the
    lowest.
    """
    order = np.argsort(values, kind="stable")
    ascending, sorted_positive = values[order].astype(float), positive[order]
    # hits[i]: right if the i lowest are negative and the others are positive.
    below = np.concatenate([[0], np.cumsum(~sorted_positive)])
    above = sorted_positive.sum() - np.concatenate([[0], np.cumsum(sorted_positive)])
    hits = below + above
    possible = np.concatenate([[True], ascending[1:] > ascending[:-1], [True]])
    cut = int(np.argmax(np.where(possible, hits, -1)))
    return _between(ascending, cut)


def _between(ascending: Float[np.ndarray, " n"], cut: int) -> float:
    """Returns a number above the `cut` lowest of sorted scores, and above no other."""
    if cut == 0:
        return float(ascending[0])
    if cut == len(ascending):
        return float(np.nextafter(ascending[-1], np.inf))
    middle = float(ascending[cut - 1] / 2 + ascending[cut] / 2)
    return middle if middle > ascending[cut - 1] else float(ascending[cut])
