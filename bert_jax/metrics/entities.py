"""Entities as spans of tagged tokens, and how many of them were found.

A span is what conlleval.pl (CoNLL-2000) takes for one, as seqeval does by default: tags
that break their scheme are read leniently, so that every I-X is part of some span.
"""

import dataclasses
from collections.abc import Collection, Hashable, Sequence

import numpy as np

Span = tuple[str, int, int]  # type, first token, one behind the last
UNTYPED = "_"  # the type of tags that have none, as in word segmentation


@dataclasses.dataclass(frozen=True)
class Score:
    """How many were found; shares are in [0, 1], and 0 where nothing divides.

    Attributes:
      support: how many there truly are.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclasses.dataclass(frozen=True)
class Report:
    """The scores of each type, in the order of their names, and their averages.

    Attributes:
      micro: over all spans whatever their type.
      macro: the plain mean over the types that are true or predicted.
      weighted: the mean over the same types, weighted by their support.
    """

    types: dict[str, Score]
    micro: Score
    macro: Score
    weighted: Score


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
    start, before, type_before = 0, "O", UNTYPED
    for place, tag in enumerate((*tags, "O")):
        letter, kind = split(tag)
        parted = letter in "BSUWO" or before in "ESLUWO" or kind != type_before
        if parted and before != "O":
            spans.append((type_before, start, place))
        if parted:
            start = place
        before, type_before = letter, kind
    return spans


def score(
    true: Sequence[Collection[tuple[Hashable, ...]]],
    predicted: Sequence[Collection[tuple[Hashable, ...]]],
) -> Report:
    """Compares what is true of each sentence with what is predicted.

    An item is a tuple that begins with its type, such as a `Span`; it is found if the
    same tuple is predicted of the same sentence.
    """
    wanted = {(at, *item) for at, items in enumerate(true) for item in items}
    found = {(at, *item) for at, items in enumerate(predicted) for item in items}
    types = sorted({str(item[1]) for item in wanted | found})
    place = {kind: at for at, kind in enumerate(types)}
    counts = np.zeros((3, len(types)), np.int64)
    for row, items in enumerate((wanted & found, found, wanted)):
        for item in items:
            counts[row, place[str(item[1])]] += 1
    by_type = [_score(*map(int, column)) for column in counts.T]
    return Report(
        dict(zip(types, by_type, strict=True)),
        _score(*map(int, counts.sum(axis=1))),
        _mean(by_type, [1] * len(types)),
        _mean(by_type, [one.support for one in by_type]),
    )


def token_accuracy(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> float:
    """Returns the share of tokens whose tag is right; 0 where there is no token."""
    hits = [
        tag == other
        for tags, others in zip(true, predicted, strict=True)
        for tag, other in zip(tags, others, strict=True)
    ]
    return _share(sum(hits), len(hits))


def _score(hits: int, found: int, wanted: int) -> Score:
    precision, recall = _share(hits, found), _share(hits, wanted)
    f1 = _share(2 * precision * recall, precision + recall)
    return Score(precision, recall, f1, wanted)


def _share(part: int | float, whole: int | float) -> float:
    return part / whole if whole else 0.0


def _mean(every: Sequence[Score], weights: Sequence[int]) -> Score:
    total = sum(weights)

    def mean(name: str) -> float:
        values = [getattr(one, name) for one in every]
        return _share(sum(v * w for v, w in zip(values, weights, strict=True)), total)

    support = sum(one.support for one in every)
    return Score(mean("precision"), mean("recall"), mean("f1"), support)
