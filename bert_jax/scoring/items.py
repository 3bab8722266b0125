"""What is scored: that it can be, where each item is from, and the worst errors."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from bert_jax import errors
from bert_jax.scoring import scores

MOST_ERRORS = 100


@dataclasses.dataclass(frozen=True)
class Item:
    """An example as a list of errors names it: its place, and its text."""

    where: str
    text: str


def check(items: Sequence[Item], outputs: Float[np.ndarray, "n ..."]) -> None:
    """Refuses to score nothing, or what a model that has diverged said.

    Raises:
      InputError: there is no item.
      NotFiniteError: an output is not finite; the first such item is named.
    """
    if not items:
        raise errors.InputError(
            "there is nothing to score: give a file with labelled examples"
        )
    finite = np.isfinite(outputs).reshape(len(items), -1).all(axis=1)
    if not finite.all():
        raise errors.NotFiniteError(
            f"the model's output for {items[int(np.argmin(finite))].where} is not a "
            "finite number: it has diverged; take an earlier checkpoint, or train it "
            "anew with a lower learning rate"
        )


def wrong(
    items: Sequence[Item],
    badness: Mapping[int, float],
    expected: Callable[[int], str],
    found: Callable[[int], str],
) -> tuple[scores.Error, ...]:
    """Returns the worst errors among items whose numbers have a badness."""
    return worst(
        scores.Error(bad, items[at].where, items[at].text, expected(at), found(at))
        for at, bad in badness.items()
    )


def worst(found: Iterable[scores.Error]) -> tuple[scores.Error, ...]:
    """Returns the errors of highest badness, a hundred at most, the worst first.

    Those of equal badness keep their order.
    """
    return tuple(sorted(found, key=lambda e: -e.badness)[:MOST_ERRORS])
