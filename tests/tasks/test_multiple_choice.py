"""Choices: rows of several lengths and counts, losses by hand, learning, scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from small_questions import VOCABULARY

from bert_jax import errors
from bert_jax.data.labeled import encoding
from bert_jax.data.labeled import examples as data_examples
from bert_jax.model import heads
from bert_jax.tasks import losses, multiple_choice


def example(context, *choices, label=None, number=0):
    where = f"small.csv:{number}"
    return data_examples.ChoiceExample(where, f"c{number}", context, choices, label)


EXAMPLES = [
    example("Ada lives in", "Paris", "a cat", "the old dog", label=0),
    example("the cat likes", "in ( 18 )", "Bob", label=1, number=1),
    example("小明喜欢", "北京的", "猫", "狗在哪里", "，", label=1, number=2),
]


def task(dropout=0.0, **changes):
    head = heads.HeadSpec("multiple_choice", dropout=dropout)
    model = small_models.model(VOCABULARY.vocab_size, head)
    return multiple_choice.MultipleChoice(
        model=model, tokenizer=VOCABULARY, max_seq_length=13, **changes
    )


@pytest.fixture(scope="module")
def params():
    return small_models.params_of(task())


def scores_of(params, it, one):
    """The logit of each choice, each in a row of its own."""
    apply, logits = jax.jit(functools.partial(it.model.apply, dropout_key=None)), []
    for choice in one.choices:
        ids = it.tokenizer.encode([one.context, choice])
        ids, types = it.tokenizer.build(*ids)
        row = {"input_ids": ids, "token_type_ids": types, "segment_ids": [1] * len(ids)}
        batch = {name: jnp.asarray(x)[None, None] for name, x in row.items()}
        logits.append(float(apply(params, batch)["logits"][0, 0]))
    return np.array(logits)


def test_rows_are_choices_beside_the_context():
    table = task().table(EXAMPLES)
    first, second = table.tokens["input_ids"][:2]
    assert first.shape == (4, 9) and second.shape == (4, 10)
    words = [VOCABULARY.tokens[index] for index in first[2]]
    expected = "[CLS] ada lives in [SEP] the old dog [SEP]"
    assert " ".join(words) == expected
    assert table.tokens["token_type_ids"][0][2].tolist() == [0] * 5 + [1] * 4
    assert table.tokens["segment_ids"][0].sum(axis=1).tolist() == [7, 8, 9, 0]
    assert table.fixed["choices"].sum(axis=1).tolist() == [3, 2, 4]
    assert table.fixed["labels"].tolist() == [0, 1, 1]
    assert table.examples.tolist() == [0, 1, 2]
    assert table.notes == {"rows cut": 0, "tokens cut off": 0}


def test_long_rows_are_cut_and_counted():
    long = example("the old red cat likes", "the blue dog and Bob", "Eve", label=1)
    table = task().table([long])
    assert table.tokens["input_ids"][0].shape == (2, 13)
    assert table.notes == {"rows cut": 0, "tokens cut off": 0}
    longer = example("the old red cat likes", "the blue dog and Bob .", "Eve", label=1)
    table = task().table([longer])
    assert table.tokens["input_ids"][0].shape == (2, 13)
    assert table.notes == {"rows cut": 1, "tokens cut off": 1}


def test_the_loss_is_over_the_choices_of_each_example(params):
    it = task()
    table = it.table([*EXAMPLES, example("Eve", "is", "was", number=3)])
    batch = small_models.batch_of(table, size=6, length=12)
    found, sums = small_models.losses(it, params, batch, 0)
    total, hits = 0.0, 0
    for one in EXAMPLES:
        z = scores_of(params, it, one)
        total += np.log(np.exp(z).sum()) - z[one.label]
        hits += int(z.argmax() == one.label)
    np.testing.assert_allclose(found["choice"], total, rtol=1e-4)
    assert float(it.weights(batch)["choice"]) == 3
    assert [float(x) for x in sums["accuracy"]] == [hits, 3]


def test_smoothing_is_over_the_choices_that_there_are(params):
    it = task(recipe=losses.Recipe(label_smoothing=0.4))
    table = it.table(EXAMPLES[:2])
    found, _ = small_models.losses(it, params, small_models.batch_of(table), 0)
    total = 0.0
    for one in EXAMPLES[:2]:
        z = scores_of(params, it, one)
        log_p = z - np.log(np.exp(z).sum())
        total -= 0.6 * log_p[one.label] + 0.4 * log_p.mean()
    np.testing.assert_allclose(found["choice"], total, rtol=1e-4)


def test_gradients_are_finite_with_choices_and_rows_that_only_fill(params):
    it = task(0.3, recipe=losses.Recipe(0.1, 0.5, r_drop=1.0))
    batch = small_models.batch_of(it.table(EXAMPLES), size=5, length=12)

    def loss(params):
        return it.losses(params, batch, jax.random.key(2))[0]["choice"]

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert jnp.isfinite(value)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(grads))


def test_probabilities_are_those_of_the_choices_alone(params):
    it = task()
    made = small_models.predictions(it, params, EXAMPLES, size=2)
    for one, prediction in zip(EXAMPLES, made, strict=True):
        z = np.exp(scores_of(params, it, one))
        odds = prediction["probabilities"]
        np.testing.assert_allclose(odds, z / z.sum(), rtol=1e-4, atol=2e-6)
        best = int(z.argmax())
        assert prediction["id"] == one.id
        assert (prediction["label"], prediction["choice"]) == (best, one.choices[best])


@pytest.mark.slow
def test_a_few_examples_are_learnt():
    it = task()
    params = small_models.trained(it, EXAMPLES, 60)
    made = small_models.predictions(it, params, EXAMPLES)
    assert [prediction["choice"] for prediction in made] == ["Paris", "Bob", "猫"]
    assert min(max(prediction["probabilities"]) for prediction in made) > 0.9
    assert it.score(EXAMPLES, made).metrics == {"accuracy": 1.0}


def test_scores_and_the_surest_error_first():
    def said(label, one, *odds):
        return {
            "label": label,
            "choice": one.choices[label],
            "probabilities": list(odds),
        }

    made = task().score(
        EXAMPLES,
        [
            said(2, EXAMPLES[0], 0.2, 0.1, 0.7),
            said(1, EXAMPLES[1], 0.4, 0.6),
            said(3, EXAMPLES[2], 0.0, 0.2, 0.0, 0.8),
        ],
    )
    assert made.metrics == {"accuracy": 1 / 3}
    assert made.confidences is not None
    assert made.confidences.values.tolist() == [0.7, 0.6, 0.8]
    assert made.confidences.hits.tolist() == [0, 1, 0]
    assert [(x.text, x.expected, x.predicted) for x in made.errors] == [
        ("小明喜欢", "猫", "，"),
        ("Ada lives in", "Paris", "the old dog"),
    ]


def test_what_cannot_be_scored_is_named():
    unlabeled = example("Eve", "is", "was", number=9)
    said = {"label": 0, "choice": "is", "probabilities": [0.6, 0.4]}
    with pytest.raises(errors.InputError, match="small.csv:9: .* no label"):
        task().score([unlabeled], [said])
    with pytest.raises(errors.InputError, match="nothing to score"):
        task().score([], [])
    with pytest.raises(errors.NotFiniteError, match="small.csv:0"):
        task().score(EXAMPLES[:1], [said | {"probabilities": [np.nan] * 3}])


def test_a_choice_without_a_token_is_a_row_and_counted():
    made = task().table([example("Eve", "is", " ", number=7)])
    assert made.notes[encoding.EMPTY] == 1
    assert len(made) == 1
