"""Classes of texts: rows, losses beside torch's or by hand, learning, scores."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from small_questions import VOCABULARY

from bert_jax import errors
from bert_jax.data.labeled import examples as data_examples
from bert_jax.model import heads
from bert_jax.tasks import classification, losses

LABELS = ("dog", "cat", "none")


def example(text, *labels, pair=None, number=1):
    return data_examples.TextExample(
        f"small.tsv:{number}", f"c{number}", text, pair, labels or None
    )


EXAMPLES = [
    example("the cat likes Bob", "cat"),
    example("the old dog", "dog", number=2),
    example("小明喜欢北京的猫", "cat", number=3),
    example("Ada lives in Paris", "none", pair="in ( 18 )", number=4),
    example("狗在哪里", "dog", number=5),
]
SEVERAL = [
    example("the cat likes the dog", "cat", "dog"),
    example("Ada lives in Paris", number=2),
    example("小明喜欢北京的猫", "cat", number=3),
]


def of(labels=LABELS, pooling="cls", dropout=0.0, **changes):
    size = 5 if pooling == "bilstm" else 0
    head = heads.HeadSpec("classifier", len(labels), pooling, size, dropout=dropout)
    model = small_models.model(VOCABULARY.vocab_size, head, num_hidden_layers=1)
    values = {"labels": labels, "max_seq_length": 13} | changes
    return classification.Classification(model=model, tokenizer=VOCABULARY, **values)


@pytest.fixture(scope="module")
def params():
    return small_models.params_of(of())


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, batch, key):
    return model.apply(params, batch, dropout_key=key)["logits"]


def logits_of(it, params, examples, key=None):
    """Logits of the examples, in a batch of seven rows."""
    batch = small_models.batch_of(it.table(examples), size=7)
    return np.asarray(forward(it.model, params, batch, key))[: len(examples)]


def test_rows_have_texts_pairs_and_numbers_of_classes():
    table = of().table(EXAMPLES)
    words = [VOCABULARY.tokens[x] for x in table.tokens["input_ids"][3]]
    assert " ".join(words) == "[CLS] ada lives in paris [SEP] in ( 18 ) [SEP]"
    assert table.tokens["token_type_ids"][3].tolist() == [0] * 6 + [1] * 5
    assert table.fixed["labels"].tolist() == [1, 0, 1, 2, 0]
    assert table.fixed["labels"].dtype == np.int32
    assert table.examples.tolist() == [0, 1, 2, 3, 4]
    assert table.notes == {"rows cut": 0, "tokens cut off": 0}


def test_several_labels_are_flags():
    table = of(multi_label=True).table(SEVERAL)
    expected = [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert table.fixed["labels"].tolist() == expected
    assert table.fixed["labels"].dtype == np.float32


def test_an_unknown_label_is_named_with_those_that_are_known():
    with pytest.raises(errors.InputError) as raised:
        of().table([*EXAMPLES, example("the cat", "bird", number=9)])
    assert str(raised.value) == (
        "small.tsv:9: the label 'bird' is not one of the model's 3 labels (dog, cat, "
        "none): correct it, or train with it"
    )
    many = tuple(f"c{number}" for number in range(25))
    with pytest.raises(errors.InputError, match=r"25 labels \(c0.*, c19, \.\.\.\)"):
        of(many).table(EXAMPLES)


def test_the_loss_is_the_negative_log_likelihood(params):
    it = of()
    batch = small_models.batch_of(it.table(EXAMPLES), size=7)  # two rows are empty
    sums, metrics = small_models.losses(it, params, batch, 0)
    logits = logits_of(it, params, EXAMPLES).astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = [1, 0, 1, 2, 0]
    expected = -sum(row[label] for row, label in zip(logs, labels, strict=True))
    assert float(sums["class"]) == pytest.approx(expected, rel=1e-5)
    assert float(it.weights(batch)["class"]) == 5
    hits = (logits.argmax(-1) == labels).sum()
    assert [float(x) for x in metrics["accuracy"]] == [hits, 5]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 3.0)])
def test_the_mean_loss_is_that_of_torch(params, weights, smoothing):
    torch = pytest.importorskip("torch")
    it = of(recipe=losses.Recipe(smoothing, class_weights=weights))
    batch = small_models.batch_of(it.table(EXAMPLES), size=7)
    sums, _ = small_models.losses(it, params, batch, 0)
    mean = float(sums["class"]) / float(it.weights(batch)["class"])
    loss = torch.nn.CrossEntropyLoss(
        weight=torch.tensor(weights) if weights else None, label_smoothing=smoothing
    )
    logits = torch.tensor(logits_of(it, params, EXAMPLES))
    expected = float(loss(logits, torch.tensor([1, 0, 1, 2, 0])))
    assert mean == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 3.0)])
def test_the_mean_loss_of_several_labels_is_that_of_torch(params, weights):
    torch = pytest.importorskip("torch")
    it = of(multi_label=True, recipe=losses.Recipe(class_weights=weights))
    batch = small_models.batch_of(it.table(SEVERAL), size=7)
    sums, _ = small_models.losses(it, params, batch, 0)
    mean = float(sums["class"]) / float(it.weights(batch)["class"])
    loss = torch.nn.BCEWithLogitsLoss(
        pos_weight=torch.tensor(weights) if weights else None
    )
    logits = torch.tensor(logits_of(it, params, SEVERAL))
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 0]])
    assert mean == pytest.approx(float(loss(logits, labels)), rel=1e-5)


def test_focal_loss_weighs_by_what_is_missing(params):
    plain, focal = of(), of(recipe=losses.Recipe(focal_gamma=2.0))
    batch = small_models.batch_of(plain.table(EXAMPLES), size=7)
    logits = logits_of(plain, params, EXAMPLES).astype(np.float64)
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    right = odds[range(5), [1, 0, 1, 2, 0]]
    sums, _ = small_models.losses(focal, params, batch, 0)
    expected = (-((1 - right) ** 2) * np.log(right)).sum()
    assert float(sums["class"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_r_drop_adds_how_far_two_dropouts_are_apart(several):
    found = SEVERAL if several else EXAMPLES
    plain = of(dropout=0.5, multi_label=several)
    params = small_models.params_of(plain)
    batch = small_models.batch_of(plain.table(found), size=7)
    keys = jax.random.split(jax.random.key(4))
    passes = [logits_of(plain, params, found, key).astype(np.float64) for key in keys]
    assert not np.allclose(*passes)
    if several:  # every label is a decision between two
        pairs = [np.stack([x, np.zeros_like(x)], -1) for x in passes]
    else:
        pairs = [x[:, None] for x in passes]
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in pairs)
    apart = ((p - q) * (np.log(p) - np.log(q))).sum() / 2
    with_it = dataclasses.replace(plain, recipe=losses.Recipe(r_drop=3.0))
    summed = jax.jit(plain.losses)
    without = [float(summed(params, batch, key)[0]["class"]) for key in keys]
    made = float(small_models.losses(with_it, params, batch, 4)[0]["class"])
    assert made == pytest.approx(np.mean(without) + 3.0 * apart, rel=1e-4)


@pytest.mark.parametrize("pooling", ["cls", "bilstm"])
def test_padding_and_neighbours_change_nothing(pooling):
    it = of(pooling=pooling)
    params = small_models.params_of(it)
    table, predict = it.table(EXAMPLES), jax.jit(it.predict)

    def odds(rows, filler=0):
        batch = table.batch(np.array(rows), 5, 17)
        batch["input_ids"] += filler * (batch["segment_ids"] == 0)
        batch = {name: jnp.asarray(x) for name, x in batch.items()}
        return np.asarray(predict(params, batch)["probabilities"])[: len(rows)]

    together = odds([0, 1, 2, 3, 4])
    assert np.abs(together[0] - together[3]).max() > 1e-3
    for row in (0, 3):
        np.testing.assert_allclose(odds([row])[0], together[row], rtol=0, atol=2e-6)
        np.testing.assert_array_equal(odds([row], filler=7), odds([row]))


def test_predictions_have_names_and_what_is_likeliest():
    it = of()
    outputs = {"probabilities": [np.array([0.2, 0.5, 0.3], np.float32)]}
    table = it.table(EXAMPLES[:1])
    assert it.decode(EXAMPLES[:1], table, outputs) == [
        {
            "id": "c1",
            "label": "cat",
            "probabilities": {"dog": 0.2, "cat": 0.5, "none": 0.3},
        }
    ]
    several = of(multi_label=True, threshold=0.25)
    assert several.decode(EXAMPLES[:1], table, outputs)[0]["labels"] == ["cat", "none"]


def test_several_labels_have_odds_of_their_own(params):
    it = of(multi_label=True)
    odds = 1 / (1 + np.exp(-logits_of(it, params, SEVERAL).astype(np.float64)))
    found = small_models.predictions(it, params, SEVERAL)
    made = [list(one["probabilities"].values()) for one in found]
    np.testing.assert_allclose(made, odds, rtol=0, atol=2e-6)
    names = [[n for n, x in zip(LABELS, row, strict=True) if x > 0.5] for row in odds]
    assert [one["labels"] for one in found] == names


@pytest.mark.slow
def test_a_few_examples_are_learned():
    it = of()
    params = small_models.trained(it, EXAMPLES, 60)
    found = small_models.predictions(it, params, EXAMPLES)
    assert [one["label"] for one in found] == [x.labels[0] for x in EXAMPLES]
    scores = it.score(EXAMPLES, found)
    assert scores.metrics["accuracy"] == 1.0 and scores.errors == ()


def test_scores_name_the_worst_example():
    it = of()
    odds = {"dog": 0.1, "cat": 0.7, "none": 0.2}
    found = [{"label": "cat", "probabilities": odds} for _ in EXAMPLES]
    scores = it.score(EXAMPLES, found)
    assert scores.metrics["accuracy"] == 0.4
    worst = scores.errors[0]
    assert (worst.where, worst.expected, worst.predicted) == (
        "small.tsv:2",
        "dog",
        "cat",
    )
    texts = [error.text for error in scores.errors]
    assert "Ada lives in Paris ||| in ( 18 )" in texts
