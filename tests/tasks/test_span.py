"""Question answering: losses by hand, spans against all spans, learning, scores."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
import small_models
from small_questions import VOCABULARY, example

from bert_jax import errors
from bert_jax.data.labeled import examples as data_examples
from bert_jax.model import heads
from bert_jax.tasks import losses, span

ENGLISH = "Ada lives in Paris and Bob lives in old Rome (1895)."
EXAMPLES = [
    example(ENGLISH, "Where is Ada?", "Paris"),
    example(ENGLISH, "Who is in Rome?", "Bob", number=1),
    example("the red cat likes Eve", "What likes Eve?", "red cat", number=2),
    example("the red cat likes Eve", "Where is Bob?", number=3),
]


def task(version2=True, dropout=0.0, **changes):
    head = heads.HeadSpec("span", 2, dropout=dropout)
    model = small_models.model(VOCABULARY.vocab_size, head)
    given = {"max_seq_length": 15, "doc_stride": 3, "version2": version2, **changes}
    return span.Span(model=model, tokenizer=VOCABULARY, **given)


@pytest.fixture(scope="module")
def params():
    return small_models.params_of(task())


def logits_of(params, batch, of_task):
    apply = jax.jit(functools.partial(of_task.model.apply, dropout_key=None))
    return np.asarray(apply(params, batch)["logits"], np.float64)


def by_hand(logits, batch, row):
    """The mean of both ends' negative log-likelihoods over the tokens of a row."""
    count = int(np.asarray(batch["segment_ids"][row]).sum())
    lost = 0.0
    for at, name in enumerate(("start_positions", "end_positions")):
        z = logits[row, :count, at]
        lost += 0.5 * (np.log(np.exp(z).sum()) - z[int(batch[name][row])])
    return lost


def test_the_loss_is_the_mean_of_both_ends_over_the_tokens(params):
    it = task()
    unlabeled = example("old Rome", "what ?", labeled=False)
    table = it.table([*EXAMPLES, unlabeled])
    batch = small_models.batch_of(table, size=len(table) + 2, length=19)
    found, sums = small_models.losses(it, params, batch, 1)
    logits = logits_of(params, batch, it)
    labelled = range(len(table) - 1)
    expected = sum(by_hand(logits, batch, row) for row in labelled)
    assert found.keys() == {"span"}
    np.testing.assert_allclose(found["span"], expected, rtol=1e-5)
    assert float(it.weights(batch)["span"]) == len(table) - 1
    tokens = np.asarray(batch["segment_ids"])[..., None] > 0
    best = np.where(tokens, logits, -np.inf).argmax(axis=1)
    ends = np.stack([batch["start_positions"], batch["end_positions"]], axis=1)
    hits = (best == ends).all(axis=1)[: len(table) - 1].sum()
    assert [float(x) for x in sums["accuracy"]] == [hits, len(table) - 1]


def test_padding_and_other_rows_change_no_loss_and_no_output(params):
    it = task()
    table = it.table(EXAMPLES)
    batch = small_models.batch_of(table)
    wide = small_models.batch_of(table, size=len(table) + 3, length=23)
    one, two = (small_models.losses(it, params, x, 1)[0] for x in (batch, wide))
    np.testing.assert_allclose(one["span"], two["span"], rtol=1e-5)
    here, there = (it.predict(params, x) for x in (batch, wide))
    length = batch["input_ids"].shape[1]
    for name in ("start", "end"):
        cut = there[name][: len(table), :length]
        np.testing.assert_allclose(here[name], cut, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version2", [True, False])
def test_outputs_are_masked_where_no_answer_can_be(params, version2):
    it = task(version2)
    table = it.table(EXAMPLES)
    batch = small_models.batch_of(table, length=17)
    masked = np.asarray(it.predict(params, batch)["end"]) == -1e9
    allowed = np.asarray(batch["char_ends"]) > 0
    allowed[:, 0] = version2
    np.testing.assert_array_equal(masked, ~allowed)


def test_smoothing_spreads_over_tokens_only(params):
    it = task(recipe=losses.Recipe(label_smoothing=0.3, focal_gamma=1.0))
    batch = small_models.batch_of(it.table(EXAMPLES[:1]), length=18)
    logits = logits_of(params, batch, it)
    total = 0.0
    for row in range(len(logits)):
        count = int(np.asarray(batch["segment_ids"][row]).sum())
        for at, name in enumerate(("start_positions", "end_positions")):
            p = np.exp(logits[row, :count, at])
            p /= p.sum()
            target = np.full(count, 0.3 / count)
            target[int(batch[name][row])] += 0.7
            total -= 0.5 * (target * (1 - p) * np.log(p)).sum()
    found, _ = small_models.losses(it, params, batch, 0)
    np.testing.assert_allclose(found["span"], total, rtol=1e-5)


def test_r_drop_adds_the_divergence_of_two_passes(params):
    plain, dropped = (
        task(dropout=0.4, recipe=losses.Recipe(r_drop=weight)) for weight in (0.0, 2.0)
    )
    batch = small_models.batch_of(plain.table(EXAMPLES), length=16)

    @jax.jit
    def one_pass(params, key):
        outputs = plain.model.apply(params, batch, dropout_key=key)
        return outputs["logits"], plain.losses(params, batch, key)[0]["span"]

    keys = jax.random.split(jax.random.key(5))
    both, means = zip(*(one_pass(params, key) for key in keys), strict=True)
    both = [np.asarray(logits, np.float64) for logits in both]
    apart = 0.0
    for row, tokens in enumerate(np.asarray(batch["segment_ids"]) > 0):
        for at in (0, 1):
            p, q = (np.exp(z[row, tokens, at]) for z in both)
            p, q = p / p.sum(), q / q.sum()
            apart += 0.5 * 0.5 * ((p - q) * np.log(p / q)).sum()
    found = small_models.losses(dropped, params, batch, 5)[0]["span"]
    np.testing.assert_allclose(found, np.mean(means) + 2 * apart, rtol=1e-4)
    assert apart > 0.001


@pytest.mark.parametrize(("longest", "count"), [(1, 3), (4, 11), (99, 99), (99, 2000)])
def test_the_best_spans_are_those_of_all_spans(longest, count):
    rng = np.random.default_rng(longest)
    start, end = rng.normal(size=(2, 43)).astype(np.float32)
    allowed = rng.random(43) < 0.7
    every = [
        (first, last, float(start[first]) + float(end[last]))
        for first, last in itertools.product(range(43), repeat=2)
        if allowed[first] and allowed[last] and first <= last < first + longest
    ]
    expected = sorted(every, key=lambda x: -x[2])[:count]
    found = span.best_spans(start, end, allowed, longest, count)
    assert [x[:2] for x in found] == [x[:2] for x in expected]
    np.testing.assert_allclose([x[2] for x in found], [x[2] for x in expected])


def decoded(it, examples, places):
    """Predictions of logits that are 0 but at (row, name, position): value."""
    table = it.table(examples)
    width = int(table.lengths.max()) + 4
    outputs = {x: np.zeros((len(table), width), np.float32) for x in ("start", "end")}
    for (row, name, position), value in places.items():
        outputs[name][row, position] = value
    columns = {name: list(column) for name, column in outputs.items()}
    return it.decode(examples, table, columns)


def test_the_best_window_answers_with_the_characters_as_they_are():
    # [CLS] where ? [SEP] and 10 tokens of the context, of which it has 13.
    it = task(n_best=3)
    one = example("Ada  LIVES in Paris and Bob lives in old Rome (1895).", "Where ?")
    (made,) = decoded(
        it,
        [dataclasses.replace(one, id="x9")],
        {
            (0, "start", 5): 4.0,
            (0, "end", 7): 3.0,
            (0, "start", 0): 1.0,
            (1, "start", 6): 0.5,
            (1, "start", 8): 5.0,
            (1, "end", 9): 5.0,
            (1, "end", 0): -2.5,
        },
    )
    assert made["id"] == "x9"
    assert (made["answer"], made["start"], made["end"]) == ("in old", 34, 40)
    assert made["score"] == 10.0 and made["null_score"] == -2.5
    texts = [best["text"] for best in made["n_best"]]
    assert texts == ["in old", "LIVES in Paris", "Bob lives in old"]
    assert [best["score"] for best in made["n_best"]] == [10.0, 7.0, 5.5]
    assert one.context[made["n_best"][1]["start"] :].startswith("LIVES in Paris")
    scores = np.exp([10.0, 7.0, 5.5, -2.5])
    odds = [best["probability"] for best in made["n_best"]]
    np.testing.assert_allclose(odds, scores[:3] / scores.sum(), atol=1e-6)
    assert made["probability"] == odds[0]


def test_a_text_that_two_windows_find_is_listed_once():
    it = task(n_best=50, max_answer_length=2)
    (made,) = decoded(it, [example(ENGLISH, "Where ?")], {})
    texts = [best["text"] for best in made["n_best"]]
    assert len(texts) == len(set(texts)) > 15
    assert "lives in" in texts and "lives in Paris" not in texts


@pytest.mark.parametrize(("threshold", "answer"), [(0.9, ""), (1.1, "red")])
def test_none_is_given_above_the_threshold(threshold, answer):
    it = task(null_threshold=threshold)
    places = {(0, "start", 0): 3.0, (0, "start", 4): 2.0}
    (made,) = decoded(it, [example("red", "Where ?")], places)
    assert made["answer"] == answer
    assert made["start"] == (0 if answer else None)
    odds = np.exp([2.0, 3.0]) / np.exp([2.0, 3.0]).sum()
    np.testing.assert_allclose(made["probability"], odds[0 if answer else 1], atol=1e-6)
    assert made["n_best"][0]["text"] == "red"


def test_without_version2_there_is_always_an_answer():
    it = task(version2=False)
    (made,) = decoded(it, [example("red", "Where ?")], {(0, "start", 0): 90.0})
    assert made["answer"] == "red" and made["probability"] == 1.0
    assert made["null_score"] is None


def test_a_model_that_has_diverged_is_named():
    with pytest.raises(errors.NotFiniteError, match="small.json:6"):
        decoded(task(), [example("red", "Where ?", number=6)], {(0, "end", 4): np.nan})


def predicted(answer, best, margin, probability):
    span_of = {"text": best, "start": 0, "end": 1, "score": 1.0, "probability": 0.5}
    null = None if margin is None else 1.0 + margin
    return {
        "id": "x",
        "answer": answer,
        "score": 1.0,
        "null_score": null,
        "probability": probability,
        "n_best": [span_of],
    }


def test_scores_are_squads_and_errors_the_surest_first():
    made = task().score(
        EXAMPLES,
        [
            predicted("the Paris.", "the Paris.", -2.0, 0.7),
            predicted("", "Bob", 0.5, 0.5),
            predicted("cat", "cat", -1.0, 0.9),
            predicted("red", "red", -0.1, 0.6),
        ],
    )
    assert made.metrics["exact_match"] == 1 / 4
    assert made.metrics["f1"] == pytest.approx((1 + 2 / 3) / 4)
    assert made.metrics["has_answer_exact_match"] == 1 / 3
    assert made.metrics["no_answer_f1"] == 0.0
    assert made.metrics["best_f1"] == pytest.approx((1 + 2 / 3 + 1) / 4)
    assert made.metrics["best_f1_threshold"] == -1.0
    assert made.confidences is not None
    assert made.confidences.hits.tolist() == [1, 0, 0, 0]
    assert made.confidences.values.tolist() == [0.7, 0.5, 0.9, 0.6]
    assert [(x.where, x.expected, x.predicted) for x in made.errors] == [
        ("small.json:3", "(no answer)", "red"),
        ("small.json:1", "Bob", "(no answer)"),
        ("small.json:2", "red cat", "cat"),
    ]
    assert made.errors[1].text == "Who is in Rome?"


def test_without_null_scores_there_is_no_threshold():
    made = task().score(EXAMPLES[:1], [predicted("Rome", "Rome", None, 1.0)])
    assert made.metrics == {"exact_match": 0.0, "f1": 0.0}


def test_only_labelled_questions_are_scored():
    unlabeled = example("red", "what ?", number=4, labeled=False)
    with pytest.raises(errors.InputError, match="small.json:4: "):
        task().score([unlabeled], [predicted("red", "red", None, 1.0)])


CHINESE = "小明住在北京，小红住在上海。小明喜欢猫，小红喜欢大狗。"
CHINESE_EXAMPLES: list[data_examples.QuestionExample] = [
    example(CHINESE, "小明住在哪里？", "北京"),
    example(CHINESE, "小红住在哪里？", "上海", number=1),
    example(CHINESE, "小红喜欢什么？", "大狗", number=2),
    example(CHINESE, "小明喜欢什么？", "猫", number=3),
]


@pytest.mark.parametrize(
    ("questions", "version2"), [(EXAMPLES, True), (CHINESE_EXAMPLES, False)]
)
@pytest.mark.slow
def test_a_few_examples_are_learnt(questions, version2):
    it = task(version2, max_seq_length=24, doc_stride=6)
    params = small_models.trained(it, questions, 200)
    made = small_models.predictions(it, params, questions)
    answers = [made["answer"] for made in made]
    assert answers == [x.answers[0].text if x.answers else "" for x in questions]
    for one, answer in zip(questions, made, strict=True):
        if answer["answer"]:
            assert one.context[answer["start"] : answer["end"]] == answer["answer"]
    assert it.score(questions, made).metrics["f1"] == 1.0
