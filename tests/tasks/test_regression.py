"""Numbers of texts: the scale of the head, losses by hand, learning, scores."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import small_models
from small_questions import VOCABULARY

from bert_jax.data.labeled import examples as data_examples
from bert_jax.model import heads
from bert_jax.tasks import losses, regression


def example(text, score, pair=None, number=1):
    return data_examples.TextExample(
        f"small.tsv:{number}", f"c{number}", text, pair, None, score
    )


EXAMPLES = [
    example("the cat likes Bob", 4.0, "the old dog"),
    example("the old dog", 1.5, number=2),
    example("小明喜欢北京的猫", 2.0, "狗在哪里", 3),
    example("Ada lives in Paris", 5.0, number=4),
]


def of(dropout=0.0, **changes):
    head = heads.HeadSpec("classifier", 1, dropout=dropout)
    model = small_models.model(VOCABULARY.vocab_size, head, num_hidden_layers=1)
    return regression.Regression(
        model=model, tokenizer=VOCABULARY, max_seq_length=15, **changes
    )


@pytest.fixture(scope="module")
def params():
    return small_models.params_of(of())


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, batch, key):
    return model.apply(params, batch, dropout_key=key)["logits"]


def outputs_of(it, params, key=None):
    """Outputs of the head, in a batch of six rows."""
    batch = small_models.batch_of(it.table(EXAMPLES), size=6)
    return np.asarray(forward(it.model, params, batch, key), np.float64)[:4, 0]


def test_scores_are_put_on_the_scale_of_the_head():
    table = of(mean=3.0, deviation=0.5).table([*EXAMPLES, example("cat", None)])
    assert table.fixed["scores"].tolist() == [2.0, -3.0, -2.0, 4.0, 0.0]
    assert table.fixed["scores"].dtype == np.float32
    assert table.tokens["token_type_ids"][0].sum() == 4
    assert table.examples.tolist() == [0, 1, 2, 3, 4]


def test_the_loss_is_the_squared_error_on_that_scale(params):
    it = of(mean=3.0, deviation=0.5)
    batch = small_models.batch_of(it.table(EXAMPLES), size=6)  # two rows are empty
    sums, metrics = small_models.losses(it, params, batch, 0)
    expected = np.square(outputs_of(it, params) - [2.0, -3.0, -2.0, 4.0]).sum()
    assert float(sums["regression"]) == pytest.approx(expected, rel=1e-5)
    assert float(it.weights(batch)["regression"]) == 4
    error, count = metrics["squared_error"]
    assert (float(error), float(count)) == (pytest.approx(expected, rel=1e-5), 4)


def test_predictions_are_on_the_scale_of_the_data(params):
    it = of(mean=3.0, deviation=0.5)
    found = small_models.predictions(it, params, EXAMPLES, size=3)
    assert [one["id"] for one in found] == ["c1", "c2", "c3", "c4"]
    made = [one["score"] for one in found]
    np.testing.assert_allclose(made, outputs_of(it, params) / 2 + 3, rtol=0, atol=2e-6)


def test_r_drop_adds_the_squared_difference_of_two_dropouts():
    plain = of(dropout=0.5, mean=3.0, deviation=2.0)
    params = small_models.params_of(plain)
    keys = jax.random.split(jax.random.key(9))
    one, two = (outputs_of(plain, params, key) for key in keys)
    assert not np.allclose(one, two)
    target = (np.array([4.0, 1.5, 2.0, 5.0]) - 3) / 2
    both = np.square(one - target).sum() / 2 + np.square(two - target).sum() / 2
    it = dataclasses.replace(plain, recipe=losses.Recipe(r_drop=3.0))
    batch = small_models.batch_of(it.table(EXAMPLES), size=6)
    sums, _ = small_models.losses(it, params, batch, 9)
    expected = both + 3 * np.square(one - two).sum()
    assert float(sums["regression"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_few_scores_are_learned_and_scored():
    it = of(mean=3.0, deviation=1.5)
    params = small_models.trained(it, EXAMPLES, 80)
    found = small_models.predictions(it, params, EXAMPLES)
    scores = it.score(EXAMPLES, found)
    assert scores.metrics["spearman"] == 1.0
    assert scores.metrics["rmse"] < 0.2


def test_scores_by_hand_name_the_worst_example():
    found = [{"score": score} for score in (4.0, 2.5, 2.0, 3.0)]
    scores = of().score(EXAMPLES, found)
    assert scores.metrics["rmse"] == pytest.approx((5 / 4) ** 0.5)
    assert scores.metrics["mae"] == pytest.approx(0.75)
    worst = scores.errors[0]
    assert (worst.where, worst.severity) == ("small.tsv:4", 2.0)
    assert (worst.expected, worst.predicted) == ("5", "3")
    assert worst.text == "Ada lives in Paris"
