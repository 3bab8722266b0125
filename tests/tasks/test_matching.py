"""Bi-encoders: rows, the three objectives, predictions and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_matching import TOKENIZER, outputs_of, pair, params_of, task_of, trained

from bert_jax import errors
from bert_jax.data.labeled import example_rows, examples
from bert_jax.tasks import matching
from bert_jax.training import sharding

pytest.importorskip("sklearn")

PAIRS = [
    pair(0, "the cat sat", "the red cat", "1"),
    pair(1, "the dog ran", "blue dog", "1"),
    pair(2, "北 京 很 好", "好 店", "1"),
    pair(3, "red", "the blue", "1"),
    pair(4, "dog sat the", "cat cat cat", "0"),
    pair(5, "the cat sat", "店 很 好", "0"),
]
GRADES = (1.0, 5.0, 2.0, 4.0, 3.0, 1.5)
SCORED = [
    pair(at, x.text, x.text_pair, score=score)
    for at, (x, score) in enumerate(zip(PAIRS, GRADES, strict=True))
]


def batch_of(task, data, size=None):
    table = task.table(data)
    batch = table.batch(np.arange(len(data)), size or len(data), 9)
    return jax.tree.map(jnp.asarray, batch)


def loss_of(task, params, batch, key=None):
    """The summed loss, its weight, and the metrics."""

    @jax.jit
    def run(params, batch, key):
        batch = task.prepare(batch, key)
        losses, sums = task.losses(params, batch, key)
        return losses["matching"], task.weights(batch)["matching"], sums

    return run(params, batch, jax.random.key(6) if key is None else key)


def units_of(task, params, batch):
    """The vectors of length 1 of the examples of a batch, in float64."""
    made = jax.jit(task.predict)(params, batch)["vectors"]
    vectors = np.asarray(made, np.float64)[np.asarray(batch["weights"]) > 0]
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_rows_hold_both_texts_each_on_its_own():
    table = task_of().table(PAIRS[1:3])
    wanted = {
        0: ["[CLS] the dog ran [SEP]", "[CLS] blue dog [SEP] [PAD]"],
        1: ["[CLS] 北 京 很 好 [SEP]", "[CLS] 好 店 [SEP] [PAD] [PAD]"],
    }
    for row, texts in wanted.items():
        ids = [[TOKENIZER.id_of(piece) for piece in text.split()] for text in texts]
        np.testing.assert_array_equal(table.tokens["input_ids"][row], ids)
        real = np.array(ids) > 0
        np.testing.assert_array_equal(table.tokens["segment_ids"][row], real)
        assert not table.tokens["token_type_ids"][row].any()
    assert table.lengths.tolist() == [5, 6]


def test_fixed_columns_of_labels_scores_and_bare_pairs():
    data = [
        pair(0, "cat", "dog", "1"),
        pair(1, "dog", "cat", "0"),
        pair(2, "red", "red", score=4.0),
        pair(3, "blue", "cat"),
    ]
    fixed = task_of(lowest=1.0, highest=5.0).table(data).fixed
    assert fixed["texts"].tolist() == [[0, 1], [1, 0], [2, 2], [3, 0]]
    assert fixed["positive"].tolist() == [1, 0, 0, 1]
    assert fixed["targets"].tolist() == [1, 0, 0.75, 0]
    assert fixed["target_weights"].tolist() == [1, 1, 1, 0]


def test_what_is_cut_is_counted_over_both_texts():
    data = [pair(0, "cat " * 9, "dog " * 11), pair(1, "cat", "the " * 8)]
    table = task_of(max_seq_length=7).table(data)
    assert table.notes == {"rows cut": 3, "tokens cut off": 4 + 6 + 3}
    assert table.lengths.tolist() == [7, 7]


def test_single_texts_are_for_simcse_and_stand_twice():
    data = [examples.TextExample("a.txt:1", "0", "the cat"), PAIRS[1]]
    table = task_of("simcse", dropout=0.1).table(data)
    first, second = table.tokens["input_ids"][0]
    np.testing.assert_array_equal(first, second)
    assert table.fixed["texts"].tolist() == [[0, 0], [1, 2]]
    assert table.notes["rows cut"] == 0
    with pytest.raises(errors.InputError, match=r"a\.txt:1: .* second text"):
        task_of("cosine").table(data)


def test_simcse_reads_the_first_texts_alone():
    task = task_of("simcse", dropout=0.1)
    batch = task.prepare(batch_of(task, PAIRS), jax.random.key(0))
    for name in ("input_ids", "segment_ids", "token_type_ids", "texts"):
        np.testing.assert_array_equal(batch[name][:, 0], batch[name][:, 1])
    assert task.weights(batch)["matching"] == 6


F, T = False, True


def test_wrong_answers_by_hand():
    # Rows: (a, x), (b, x), (a, y), (c, a), (a, z) labelled 0, and one that only fills.
    asked, answers = jnp.array([1, 2, 1, 3, 1, 0]), jnp.array([7, 7, 8, 1, 9, 0])
    found = matching.wrong_answers(
        asked, answers, jnp.array([T, T, T, T, T, F]), jnp.array([T, T, T, T, F, F])
    )
    np.testing.assert_array_equal(
        found,
        [
            # x: own; x again; y also right for a; a itself; z, labelled 0, is wrong.
            [F, F, F, F, T, F],
            [F, F, T, T, T, F],
            [F, F, F, F, T, F],  # x, of the first row, is right for a too
            [T, T, T, F, T, F],
            [F, F, F, F, F, F],
            [T, T, T, T, T, F],
        ],
    )


def test_contrast_by_hand():
    logits = jnp.array([[2.0, 1.0, 9.0], [0.0, -1.0, 3.0], [0.5, 0.5, 0.0]])
    wrong = jnp.array([[F, T, F], [T, F, T], [F, F, F]])
    losses, hits = matching.contrast(logits, wrong)
    expected = [np.log(1 + np.exp(-1)), np.log(np.exp(1) + 1 + np.exp(4)), 0.0]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert hits.tolist() == [1.0, 0.0, 1.0]


def test_cosine_loss_is_the_squared_error_of_those_that_have_a_target():
    task = task_of(lowest=1.0, highest=5.0)
    data = [*SCORED, pair(6, "cat", "dog")]
    params, batch = params_of(task), batch_of(task, data, 9)
    vectors = units_of(task, params, batch)
    cosines = (vectors[:6, 0] * vectors[:6, 1]).sum(-1)
    expected = ((cosines - np.array([0, 1, 0.25, 0.75, 0.5, 0.125])) ** 2).sum()
    loss, weight, sums = loss_of(task, params, batch)
    assert weight == 6
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert sums["squared_error"] == (loss, 6)


def reference(vectors, temperature, rows, allowed, allowed_back):
    """The mean of both directions' negative log-likelihoods, in float64."""
    logits = np.asarray(vectors[:, 0] @ vectors[:, 1].T, np.float64) / temperature
    total = 0.0
    for row in rows:
        there, back = [row, *allowed[row]], [row, *allowed_back[row]]
        total += np.log(np.exp(logits[row, there]).sum()) - logits[row, row]
        total += np.log(np.exp(logits[back, row]).sum()) - logits[row, row]
    return total / 2


def test_in_batch_loss_of_the_positive_pairs_among_all_texts():
    task = task_of("in_batch", temperature=0.5)
    params, batch = params_of(task), batch_of(task, PAIRS[:5], 8)
    vectors = units_of(task, params, batch)
    allowed = {row: [x for x in range(5) if x != row] for row in range(4)}
    loss, weight, sums = loss_of(task, params, batch)
    assert weight == 4
    expected = reference(vectors, 0.5, range(4), allowed, allowed)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert sums["in_batch_accuracy"][1] == 4


def test_equal_texts_of_a_batch_are_no_wrong_answers():
    task = task_of("in_batch", temperature=0.5)
    data = [
        pair(0, "the cat", "red", "1"),
        pair(1, "the cat", "blue", "1"),
        pair(2, "dog", "cat", "1"),
        pair(3, "店", "red", "0"),
    ]
    params, batch = params_of(task), batch_of(task, data)
    vectors = units_of(task, params, batch)
    # "red" and "blue" are both right for "the cat"; "店" is wrong for "red".
    answers = {0: [2], 1: [2], 2: [0, 1, 3]}
    questions = {0: [2, 3], 1: [2, 3], 2: [0, 1, 3]}
    expected = reference(vectors, 0.5, range(3), answers, questions)
    np.testing.assert_allclose(loss_of(task, params, batch)[0], expected, rtol=1e-5)


def test_rows_that_fill_the_batch_change_nothing():
    task = task_of("in_batch")
    params = params_of(task)

    @jax.jit
    def run(params, batch):
        return jax.value_and_grad(lambda p: loss_of(task, p, batch)[0])(params)

    both = [run(params, batch_of(task, PAIRS, size)) for size in (6, 11)]
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        assert np.isfinite(other).all()
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


def test_two_dropouts_of_a_text_differ():
    task = task_of("simcse", dropout=0.3)
    params, batch = params_of(task), batch_of(task, PAIRS)
    losses = [loss_of(task, params, batch, jax.random.key(n))[0] for n in (1, 2)]
    assert losses[0] != losses[1]
    one = loss_of(task, params, batch, jax.random.key(1))[0]
    assert one == losses[0]


def test_eight_devices_compute_what_one_does():
    task = task_of("in_batch")
    params, batch = params_of(task), batch_of(task, PAIRS, 8)
    mesh = sharding.make_mesh()
    placed = sharding.to_devices(jax.tree.map(np.asarray, batch), mesh, 8)
    everywhere = jax.device_put(params, sharding.replicated(mesh))

    def loss(params, batch):
        return task.losses(params, batch, jax.random.key(0))[0]["matching"]

    both = sharding.jit(loss, mesh)(everywhere, placed), jax.jit(loss)(params, batch)
    np.testing.assert_allclose(*both, rtol=1e-5)


def scored(task, params, data):
    table = task.table(data)
    made = task.decode(data, table, outputs_of(task, params, table))
    return task.score(data, made), made


@pytest.mark.slow
def test_cosine_overfits_scores():
    task = task_of(lowest=1.0, highest=5.0)
    params, losses = trained(task, SCORED, steps=150)
    assert losses[-1] < 1e-3
    metrics = scored(task, params, SCORED)[0].metrics
    assert metrics["spearman"] == pytest.approx(1.0)
    assert metrics["pearson"] > 0.99
    assert set(metrics) == {"spearman", "pearson"}


@pytest.mark.slow
def test_in_batch_overfits_pairs_and_finds_their_second_texts():
    task = task_of("in_batch")
    params, losses = trained(task, PAIRS, steps=80)
    assert losses[-1] < 0.05 < losses[0]
    found, made = scored(task, params, PAIRS)
    assert found.metrics["mrr"] == found.metrics["recall@1"] == 1.0
    assert found.metrics["accuracy"] == found.metrics["auc"] == 1.0
    assert [made_of["rank"] for made_of in made[:4]] == [1, 1, 1, 1]
    assert not any("rank" in made_of for made_of in made[4:])


@pytest.mark.slow
def test_simcse_lowers_its_loss_on_raw_texts():
    texts = [x.text for x in PAIRS] + [x.text_pair for x in PAIRS]
    data = [
        examples.TextExample(f"a.txt:{n + 1}", str(n), text)
        for n, text in enumerate(dict.fromkeys(texts))
    ]
    task = task_of("simcse", dropout=0.1)
    losses = trained(task, data, steps=60, rate=1e-3, batch_size=len(data))[1]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def vectors_as_outputs(*rows):
    return {"vectors": [np.array(row, np.float32) for row in rows]}


def test_predictions_by_hand():
    data = [PAIRS[0], PAIRS[1], PAIRS[4]]
    task = task_of(threshold=0.7)
    outputs = vectors_as_outputs(
        [[3.0, 0.0], [6.0, 8.0]], [[0.0, 2.0], [0.0, 0.5]], [[1.0, 0.0], [0.0, 0.0]]
    )
    # The second texts for (1, 0): 0.6, 0 and 0; for (0, 1): 0.8, 1 and 0.
    assert task.decode(data, task.table(data), outputs) == [
        {"id": "0", "similarity": 0.6, "label": "0", "rank": 1},
        {"id": "1", "similarity": 1.0, "label": "1", "rank": 1},
        {"id": "4", "similarity": 0.0, "label": "0"},
    ]


def test_in_parts_nothing_is_ranked_and_without_a_threshold_nothing_decided():
    task = task_of(ranked=False)
    outputs = vectors_as_outputs([[3.0, 0.0], [6.0, 8.0]])
    assert task.decode(PAIRS[:1], task.table(PAIRS[:1]), outputs) == [
        {"id": "0", "similarity": 0.6}
    ]


def test_of_several_other_labels_none_is_named():
    task = task_of(threshold=0.7, labels=("neutral", "no", "yes"), ranked=False)
    data = [pair(0, "cat", "dog", "neutral"), pair(1, "cat", "cat", "yes")]
    outputs = vectors_as_outputs([[3.0, 0.0], [6.0, 8.0]], [[1.0, 0.0], [1.0, 0.0]])
    made = task.decode(data, task.table(data), outputs)
    assert [x["label"] for x in made] == ["not yes", "yes"]
    assert task.score(data, made).metrics["accuracy"] == 1.0


def test_the_threshold_is_tuned_unless_it_is_given():
    data = [PAIRS[0], PAIRS[4], PAIRS[1]]
    made = [
        {"id": "0", "similarity": 0.2},
        {"id": "4", "similarity": 0.1},
        {"id": "1", "similarity": 0.9},
    ]
    tuned = task_of().score(data, made).metrics
    assert tuned["accuracy"] == 1.0 and 0.1 < tuned["threshold"] < 0.2
    given = task_of(threshold=0.5).score(data, made)
    assert given.metrics["accuracy"] == pytest.approx(2 / 3)
    assert given.metrics["threshold"] == 0.5
    (error,) = given.errors
    assert (error.expected, error.predicted, error.where) == ("1", "0", "dev.tsv:1")
    assert error.text == "the cat sat ||| the red cat"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"labels": ("1",)}, "data.labels .* 1 label"),
        ({"objective": "simcse"}, "the model has none"),
    ],
)
def test_fields_without_meaning_are_refused(fields, said):
    with pytest.raises(errors.InputError, match=said):
        task_of(**fields)


def test_examples_that_cannot_be_learned_from_are_refused():
    bare, single = pair(8, "cat", "dog"), pair(9, "cat", None)
    negative = pair(7, "cat", "dog", "0")
    with pytest.raises(errors.InputError, match=r"tsv:9: .* no score and no label"):
        task_of().check([PAIRS[0], bare], [])
    with pytest.raises(errors.InputError, match=r"tsv:8: .*'1'.*data\.labels"):
        task_of("in_batch").check([negative, SCORED[0]], [])
    with pytest.raises(errors.InputError, match="tsv:10: .* second text"):
        task_of("simcse", dropout=0.1).check([single], [PAIRS[0], single])
    task_of("simcse", dropout=0.1).check([single], [bare])
    task_of("in_batch").check([negative, bare], PAIRS)
    with pytest.raises(errors.InputError, match="'entailment' .* 2 labels"):
        task_of().table([pair(0, "cat", "dog", "entailment")])


def test_a_prediction_for_a_single_text_is_refused():
    data = [examples.TextExample("a.txt:1", "0", "the cat")]
    task = task_of("simcse", dropout=0.1)
    table = task.table(data)
    outputs = vectors_as_outputs([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(errors.InputError, match=r"a\.txt:1: .* second text"):
        task.decode(data, table, outputs)


@pytest.mark.parametrize(
    ("objective", "learned"), [("in_batch", 4), ("cosine", 6), ("simcse", 6)]
)
def test_fillers_of_a_batch_weigh_nothing(objective, learned):
    task = task_of(objective, dropout=0.1)
    batch = task.prepare(batch_of(task, PAIRS, 13), jax.random.key(0))
    assert batch[example_rows.WEIGHTS].sum() == 6
    assert task.weights(batch)["matching"] == learned
