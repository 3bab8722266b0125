"""What can be scored, and which errors are the worst."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.metrics import items, scores


def test_nothing_to_score_is_said():
    with pytest.raises(errors.InputError, match="nothing to score"):
        items.check([], np.zeros((0, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_output_that_is_not_finite_is_named(bad):
    three = [f"dev.tsv:{line}" for line in (4, 5, 6)]
    outputs = np.zeros((3, 2))
    items.check(three, outputs)
    outputs[1:, 1] = bad
    with pytest.raises(errors.NotFiniteError, match=r"for dev\.tsv:5 is not"):
        items.check(three, outputs)


def test_the_worst_come_first_equals_in_order_and_a_hundred_at_most():
    badness = dict(enumerate([1.0, 3.0, 2.0, 3.0] + [0.0] * 101))
    del badness[0]
    places = [f"f:{at}" for at in range(105)]
    texts = [f"text {at}" for at in range(105)]
    worst = items.worst(badness, places, texts, "true {}".format, "found {}".format)
    assert [e.where for e in worst[:4]] == ["f:1", "f:3", "f:2", "f:4"]
    assert worst[2] == scores.Error(2.0, "f:2", "text 2", "true 2", "found 2")
    assert len(worst) == 100
