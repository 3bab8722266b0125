"""How good similarities are: beside scores, labels, and the other texts of the data."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from bert_jax import errors
from bert_jax.metrics import classes, items, numbers, ranking, scores

RECALLS = (1, 5, 10)
_BLOCK = 512  # questions whose similarities to all candidates are held at once


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of texts and what is known of them, [n] each.

    Attributes:
      where: their places.
      texts: the two.
      scores: numbers for how alike they are, or None.
      belong: whether their label says that they belong together, or None.
      ranks: the place of the second text among all for the first, where it belongs to
        it, or None.
    """

    where: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]
    scores: tuple[float | None, ...]
    belong: tuple[bool | None, ...]
    ranks: tuple[int | None, ...]


def normalised(vectors: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "... D"]:
    """Returns vectors of length 1; those of no length stay 0."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def ranks(
    vectors: Float[np.ndarray, "n 2 D"],
    texts: Int[np.ndarray, "n 2"],
    is_positive: Bool[np.ndarray, " n"],
) -> dict[int, int]:
    """Returns the place, from 1, of each positive pair's second text for its first.

    It stands among all second texts, each taken once, without the others that belong
    to the same first text and without that text itself; see `ranking.ranks`.

    Args:
      vectors: of both texts, of length 1.
      texts: a number for each text, equal for equal ones.
    """
    numbers_of, firsts = np.unique(texts[:, 1], return_index=True)
    candidates = vectors[firsts, 1]
    place = {int(number): at for at, number in enumerate(numbers_of)}
    answers: dict[int, list[int]] = collections.defaultdict(list)
    positive = np.flatnonzero(is_positive)
    for first, second in texts[positive].tolist():
        answers[first].append(place[second])
    made: dict[int, int] = {}
    for start in range(0, len(positive), _BLOCK):
        rows = positive[start : start + _BLOCK]
        ignored = np.zeros((len(rows), len(candidates)), bool)
        for at, first in enumerate(texts[rows, 0].tolist()):
            ignored[at, answers[first]] = True
            if first in place:
                ignored[at, place[first]] = True
        right = np.array([place[number] for number in texts[rows, 1].tolist()])
        found = ranking.ranks(vectors[rows, 0] @ candidates.T, right, ignored)
        made |= zip(rows.tolist(), found.tolist(), strict=True)
    return made


def score(
    pairs: Pairs,
    similarities: Float[np.ndarray, " n"],
    names: tuple[str, str],
    threshold: float | None,
) -> scores.Scores:
    """Returns the scores that the pairs allow.

    Of pairs with scores `spearman` and `pearson`; of pairs with labels of both kinds
    `accuracy`, `precision`, `recall`, `f1`, `auc` and the `threshold` they are taken
    at, which is tuned on them unless it is given; of pairs that belong together `mrr`
    and `recall@k`, each pair of texts counted once. The errors are those of the first
    kind that there is: far from the score, far beyond the threshold, or at a low rank.

    Args:
      names: of pairs that do not belong together, and of those that do.

    Raises:
      InputError: nothing is known of any pair, or scikit-learn is not installed.
      NotFiniteError: a similarity is not finite.
    """
    items.check(pairs.where, similarities)
    parts = [
        _by_scores(pairs, similarities),
        _by_labels(pairs, similarities, names, threshold),
        _by_ranks(pairs),
    ]
    found = [part for part in parts if part is not None]
    if not found:
        raise errors.InputError(
            f"{pairs.where[0]}: nothing can be scored: the pairs have no scores, and "
            "no labels of both kinds"
        )
    metrics = {name: x for part in found for name, x in part.metrics.items()}
    confusions = [part.confusion for part in found if part.confusion is not None]
    return scores.Scores(
        metrics,
        confusion=confusions[0] if confusions else None,
        errors=found[0].errors,
        positive="".join(part.positive for part in found),
    )


def _by_scores(
    pairs: Pairs, similarities: Float[np.ndarray, " n"]
) -> scores.Scores | None:
    known = [at for at, number in enumerate(pairs.scores) if number is not None]
    if not known:
        return None
    true = np.array([pairs.scores[at] for at in known], float)
    said = similarities[known]
    metrics = {
        "spearman": numbers.spearman(true, said),
        "pearson": numbers.pearson(true, said),
    }
    # Scores and cosines have no common scale: places in their orders have.
    off = (_places(said) - _places(true)).tolist()
    badness = {at: abs(x) for at, x in zip(known, off, strict=True) if x}
    wrong = _worst(
        pairs,
        badness,
        {at: f"{pairs.scores[at]:g}" for at in known},
        {at: f"cosine {similarities[at]:.4f}" for at in known},
    )
    return scores.Scores(metrics, errors=wrong)


def _places(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns the share of the values that are lower; equal ones count half."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    up_to = np.searchsorted(ordered, values, side="right")
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
    said = similarities[known]
    if threshold is None:
        threshold = ranking.best_threshold(said, true).value
    found = said >= threshold
    metrics = classes.decisions(true, found, said) | {"threshold": threshold}
    beyond = np.abs(said - threshold)
    badness = {
        known[at]: float(beyond[at]) for at in np.flatnonzero(found != true).tolist()
    }
    wrong = _worst(
        pairs,
        badness,
        {at: names[int(x)] for at, x in zip(known, true, strict=True)},
        {at: names[int(x)] for at, x in zip(known, found, strict=True)},
    )
    counts = np.zeros((2, 2), int)
    np.add.at(counts, (true.astype(int), found.astype(int)), 1)
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
    places = np.array([rank for _, rank in once.values()])
    metrics = {"mrr": ranking.mean_reciprocal(places)}
    metrics |= {f"recall@{k}": ranking.recall(places, k) for k in RECALLS}
    badness = {at: float(rank - 1) for at, rank in once.values() if rank > 1}
    wrong = _worst(
        pairs,
        badness,
        dict.fromkeys(badness, "rank 1"),
        {at: f"rank {pairs.ranks[at]}" for at in badness},
    )
    return scores.Scores(metrics, errors=wrong)


def _worst(
    pairs: Pairs,
    badness: Mapping[int, float],
    expected: Mapping[int, str],
    found: Mapping[int, str],
) -> tuple[scores.Error, ...]:
    texts = [" ||| ".join(both) for both in pairs.texts]
    return items.worst(
        badness, pairs.where, texts, expected.__getitem__, found.__getitem__
    )
