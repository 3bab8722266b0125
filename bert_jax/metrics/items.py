"""What is scored: that it can be, and which of it is most wrong."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from bert_jax import errors
from bert_jax.metrics import scores

MOST_ERRORS = 100


def check(where: Sequence[str], outputs: Float[np.ndarray, "n ..."]) -> None:
    """Refuses to score nothing, or what a model that has diverged said.

    Args:
      where: the place of each example.
      outputs: what the model said of each.

    Raises:
      InputError: there is no example.
      NotFiniteError: an output is not finite; the first such example is named.
    """
    if not where:
        raise errors.InputError(
            "there is nothing to score: give a file with labelled examples"
        )
    finite = np.isfinite(outputs).reshape(len(where), -1).all(axis=1)
    if not finite.all():
        raise errors.NotFiniteError(
            f"the model's output for {where[int(np.argmin(finite))]} is not a finite "
            "number: it has diverged; take an earlier checkpoint, or train it anew "
            "with a lower learning rate"
        )


def worst(
    badness: Mapping[int, float],
    where: Sequence[str],
    texts: Sequence[str],
    expected: Callable[[int], str],
    found: Callable[[int], str],
) -> tuple[scores.Error, ...]:
    """Returns the wrong predictions, the worst first, a hundred at most.

    Those of equal badness keep their order.

    Args:
      badness: of the number of each wrong example.
      expected: what an example's label is, by its number.
      found: what the model said of it.
    """
    chosen = sorted(badness, key=lambda at: -badness[at])[:MOST_ERRORS]
    return tuple(
        scores.Error(badness[at], where[at], texts[at], expected(at), found(at))
        for at in chosen
    )
