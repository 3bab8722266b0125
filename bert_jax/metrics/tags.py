"""What tagging and semantic roles say of their scores: tables, certainty, mistakes."""

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import numpy as np

from bert_jax.metrics import entities, items, scores

Item = tuple[Hashable, ...]  # its type first, then where it is


def classes(report: entities.Report) -> tuple[dict[str, Any], ...]:
    """Returns a row a type; `examples` are those that truly are."""
    return tuple(
        {
            "class": name,
            "precision": one.precision,
            "recall": one.recall,
            "f1": one.f1,
            "examples": one.support,
        }
        for name, one in report.types.items()
    )


def numbered(tags: Sequence[str]) -> list[tuple[str, int]]:
    """Returns each tag with its place, as items of `entities.score`."""
    return [(tag, place) for place, tag in enumerate(tags)]


def confusion(
    labels: tuple[str, ...],
    true: Sequence[Sequence[str]],
    found: Sequence[Sequence[str]],
) -> scores.Confusion:
    """Counts how often each tag was taken for each; true ones may be new."""
    seen = {tag for tags in (*true, *found) for tag in tags}
    names = (*labels, *sorted(seen - set(labels)))
    place = {name: at for at, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for tags, others in zip(true, found, strict=True):
        for tag, other in zip(tags, others, strict=True):
            counts[place[tag], place[other]] += 1
    return scores.Confusion(names, counts)


def certainty(
    true: Sequence[Sequence[str]],
    found: Sequence[Sequence[str]],
    probabilities: Sequence[Sequence[float | None]],
) -> scores.Certainty:
    """Returns how sure each tag was that the model gave, and whether it was right.

    Tokens without a probability were not seen by the model.
    """
    odds, hits = [], []
    for tags, others, row in zip(true, found, probabilities, strict=True):
        for tag, other, x in zip(tags, others, row, strict=True):
            if x is not None:
                odds.append(x)
                hits.append(tag == other)
    return scores.Certainty(np.array(odds, np.float64), np.array(hits, bool))


def mistakes(
    where: Sequence[str],
    texts: Sequence[str],
    true: Sequence[Collection[Item]],
    found: Sequence[Collection[Item]],
    say: Callable[[int, Item], str],
) -> tuple[scores.Error, ...]:
    """Returns the sentences with mistakes; the badness is how many there are.

    What is expected and found are the items that only the one or the other has, each
    as `say(number of the sentence, item)`.
    """
    missed = [_only(one, other) for one, other in zip(true, found, strict=True)]
    extra = [_only(one, other) for one, other in zip(found, true, strict=True)]
    both = zip(missed, extra, strict=True)
    badness = {at: float(len(a) + len(b)) for at, (a, b) in enumerate(both) if a or b}

    def said(every: Sequence[list[Item]]) -> Callable[[int], str]:
        return lambda at: "; ".join(say(at, item) for item in every[at]) or "nothing"

    return items.worst(badness, where, texts, said(missed), said(extra))


def _only(one: Collection[Item], other: Collection[Item]) -> list[Item]:
    """Returns the items of one that the other lacks."""
    there = set(other)
    return [item for item in one if item not in there]
