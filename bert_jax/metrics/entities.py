"""Entities as spans of tagged tokens: precision, recall and F1, tables and errors.

Spans are those of conlleval.pl (CoNLL-2000), and of seqeval by default: tags that break
their scheme are read leniently, so that each I-X is part of some span.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from bert_jax.metrics import scores

Span = tuple[str, int, int]  # type, first token, index after the last token
UNTYPED = "_"  # the type of tags without one, as in word segmentation


@dataclasses.dataclass(frozen=True)
class EntityScore:
    """Precision, recall and F1 in [0, 1]; 0 if a divisor is 0.

    Attributes:
      support: the number of true items.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclasses.dataclass(frozen=True)
class EntityReport:
    """The scores of each type, sorted by name, and their averages.

    Attributes:
      types: the scores by type.
      micro: over all spans, whatever their type.
      macro: the unweighted mean over the types that are true or predicted.
      weighted: the mean over the same types, weighted by their support.
    """

    types: dict[str, EntityScore]
    micro: EntityScore
    macro: EntityScore
    weighted: EntityScore

    def classes(self) -> tuple[dict[str, Any], ...]:
        """Returns one row per type; `examples` is the number of true items."""
        return tuple(
            {
                "class": name,
                "precision": one.precision,
                "recall": one.recall,
                "f1": one.f1,
                "examples": one.support,
            }
            for name, one in self.types.items()
        )


def split(tag: str) -> tuple[str, str]:
    """Returns the letter of a tag, and its type or `UNTYPED`.

    >>> split("B-PER.NAM"), split("I-C-ARG1"), split("M"), split("O")
    (('B', 'PER.NAM'), ('I', 'C-ARG1'), ('M', '_'), ('O', '_'))
    """
    letter, rest = tag[:1], tag[1:]
    return letter, rest.removeprefix("-") or UNTYPED


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Returns the spans of a sentence tagged in any scheme that has spans.

    >>> spans_of(["B-PER", "I-PER", "O", "I-LOC", "I-ORG", "B-ORG"])
    [('PER', 0, 2), ('LOC', 3, 4), ('ORG', 4, 5), ('ORG', 5, 6)]
    """
    spans: list[Span] = []
    start, previous, previous_type = 0, "O", UNTYPED
    for index, tag in enumerate((*tags, "O")):
        letter, kind = split(tag)
        boundary = letter in "BSUWO" or previous in "ESLUWO" or kind != previous_type
        if boundary and previous != "O":
            spans.append((previous_type, start, index))
        if boundary:
            start = index
        previous, previous_type = letter, kind
    return spans


def score(
    true: Sequence[Collection[Span]], predicted: Sequence[Collection[Span]]
) -> EntityReport:
    """Compares the true spans of each sentence with the predicted ones."""
    expected = {(at, *item) for at, items in enumerate(true) for item in items}
    found = {(at, *item) for at, items in enumerate(predicted) for item in items}
    types = sorted({item[1] for item in expected | found})
    index = {kind: at for at, kind in enumerate(types)}
    counts = np.zeros((3, len(types)), np.int64)
    for row, items in enumerate((expected & found, found, expected)):
        for item in items:
            counts[row, index[item[1]]] += 1
    by_type = [_score(*map(int, column)) for column in counts.T]
    return EntityReport(
        dict(zip(types, by_type, strict=True)),
        _score(*map(int, counts.sum(axis=1))),
        _mean(by_type, [1] * len(types)),
        _mean(by_type, [one.support for one in by_type]),
    )


def token_accuracy(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> float:
    """Returns the fraction of tokens with the right tag; 0 without tokens."""
    hits = [
        tag == other
        for tags, others in zip(true, predicted, strict=True)
        for tag, other in zip(tags, others, strict=True)
    ]
    return _ratio(sum(hits), len(hits))


def _score(hits: int, predicted: int, true: int) -> EntityScore:
    precision, recall = _ratio(hits, predicted), _ratio(hits, true)
    f1 = _ratio(2 * precision * recall, precision + recall)
    return EntityScore(precision, recall, f1, true)


def _ratio(part: int | float, whole: int | float) -> float:
    return part / whole if whole else 0.0


def _mean(every: Sequence[EntityScore], weights: Sequence[int]) -> EntityScore:
    total = sum(weights)

    def mean(name: str) -> float:
        values = [getattr(one, name) for one in every]
        return _ratio(sum(v * w for v, w in zip(values, weights, strict=True)), total)

    support = sum(one.support for one in every)
    return EntityScore(mean("precision"), mean("recall"), mean("f1"), support)


def confusion(
    labels: tuple[str, ...],
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
) -> scores.Confusion:
    """Counts how often each tag was predicted as each; true ones may be new."""
    seen = {tag for tags in (*true, *predicted) for tag in tags}
    names = (*labels, *sorted(seen - set(labels)))
    index = {name: at for at, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for tags, others in zip(true, predicted, strict=True):
        for tag, other in zip(tags, others, strict=True):
            counts[index[tag], index[other]] += 1
    return scores.Confusion(names, counts)


def confidences(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    probabilities: Sequence[Sequence[float | None]],
) -> scores.Confidences:
    """Returns the probability of each predicted tag, and whether it was right.

    Tokens without a probability were not seen by the model.
    """
    values, hits = [], []
    for tags, others, row in zip(true, predicted, probabilities, strict=True):
        for tag, other, x in zip(tags, others, row, strict=True):
            if x is not None:
                values.append(x)
                hits.append(tag == other)
    return scores.Confidences(np.array(values, np.float64), np.array(hits, bool))


def mistakes(
    where: Sequence[str],
    texts: Sequence[str],
    true: Sequence[Collection[Span]],
    predicted: Sequence[Collection[Span]],
    describe: Callable[[int, Span], str],
) -> tuple[scores.PredictionError, ...]:
    """Returns the sentences with errors; the severity is the number of errors.

    An error lists the items that are only true, and those that are only predicted, each
    as `describe(index of the sentence, span)`.
    """
    missed = [_only(one, other) for one, other in zip(true, predicted, strict=True)]
    extra = [_only(one, other) for one, other in zip(predicted, true, strict=True)]
    both = zip(missed, extra, strict=True)
    severity = {at: float(len(a) + len(b)) for at, (a, b) in enumerate(both) if a or b}

    def listed(every: Sequence[list[Span]]) -> Callable[[int], str]:
        return lambda at: "; ".join(describe(at, x) for x in every[at]) or "nothing"

    return scores.worst(severity, where, texts, listed(missed), listed(extra))


def _only(one: Collection[Span], other: Collection[Span]) -> list[Span]:
    """Returns the items that are not in the other collection."""
    there = set(other)
    return [item for item in one if item not in there]
