"""What can be scored, and which errors are the worst."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.scoring import items, scores


def test_nothing_to_score_is_said():
    with pytest.raises(errors.InputError, match="nothing to score"):
        items.check([], np.zeros((0, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_output_that_is_not_finite_is_named(bad):
    three = [items.Item(f"dev.tsv:{line}", "text") for line in (4, 5, 6)]
    outputs = np.zeros((3, 2))
    items.check(three, outputs)
    outputs[1:, 1] = bad
    with pytest.raises(errors.NotFiniteError, match=r"for dev\.tsv:5 is not"):
        items.check(three, outputs)


def test_the_worst_come_first_equals_in_order_and_a_hundred_at_most():
    found = [
        scores.Error(float(badness), f"f:{at}", "", "", "")
        for at, badness in enumerate([1, 3, 2, 3] + [0] * 101)
    ]
    worst = items.worst(iter(found))
    assert [e.where for e in worst[:5]] == ["f:1", "f:3", "f:2", "f:0", "f:4"]
    assert len(worst) == 100
