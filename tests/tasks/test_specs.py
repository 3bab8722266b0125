"""What a task learns of its data or of a given head, and how it is built from that."""

import dataclasses
from pathlib import Path

import pytest
import tiny_models
import tiny_tasks

from bert_jax import errors, tasks
from bert_jax.config import finetuning
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import scores
from bert_jax.model import heads
from bert_jax.runs import best_model
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.tasks import (
    class_names,
    classification,
    matching,
    regression,
    roles,
    span,
    spec,
)


def settings_of(task="classification", **changes):
    config = tiny_tasks.config(Path("p"), data__task=task, **changes)
    return finetuning.parse(config)


def learn(settings, examples, given=None):
    return tasks.of(settings).learn(settings, examples, given)


def texts(*labels):
    return [
        data_examples.TextExample(f"f:{n}", str(n), "a", labels=label and (label,))
        for n, label in enumerate(labels, start=1)
    ]


def scored(*scores):
    return [
        data_examples.TextExample(f"f:{n}", str(n), "a", "b", score=score)
        for n, score in enumerate(scores, start=1)
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("b a b a", ("a", "b")),
        ("10 9 -1 10 9 -1", ("-1", "9", "10")),
        ("x 2 10 x 2 10", ("2", "10", "x")),
        ("² 2 ² 2", ("2", "²")),
    ],
)
def test_classes_are_sorted_numbers_by_size(labels, expected):
    learned = learn(settings_of(), texts(*labels.split()))
    assert learned == spec.Metadata(labels=expected)


def test_named_classes_keep_their_order_and_need_not_occur():
    settings = settings_of(data__labels="dog, bird,cat")
    learned = learn(settings, texts("cat", "dog"))
    assert learned.labels == ("dog", "bird", "cat")
    with pytest.raises(errors.InputError, match="f:2: the label 'x' .* 3 labels"):
        learn(settings, texts("cat", "x"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [("a a", r"train\.tsv has 1 class \(a\)"), ("a b a", "f:2: the class 'b'")],
)
def test_classes_that_cannot_be_learned(labels, words):
    with pytest.raises(errors.InputError, match=words):
        learn(settings_of(), texts(*labels.split()))


def test_classes_stand_in_a_file_or_between_commas(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufeff猫, big\n\n dog \n", encoding="utf-8")
    assert class_names.configured(str(path)) == ("猫, big", "dog")
    assert class_names.configured("a, b,,c") == ("a", "b", "c")
    assert class_names.configured("") == ()
    for text, words in (
        ("a,b,a", "data.labels names 'a' twice"),
        ("a", "data.labels is 'a', .* 1 class"),
        (str(tmp_path / "no.txt"), "no.txt', .* 1 class"),
    ):
        with pytest.raises(errors.InputError, match=words):
            class_names.configured(text)
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(errors.InputError, match=r"classes\.txt:2: byte 1 of the line"):
        class_names.configured(str(path))
    path.write_text("a\n")
    with pytest.raises(errors.InputError, match="a file with 1 class"):
        class_names.configured(str(path))


def test_numbers_of_a_file_are_names_unless_a_name_is_a_number():
    found = texts("1", "cat", "7", None)
    named = tasks.TASKS["classification"].named(found, ("cat", "dog"))
    assert [x.labels for x in named] == [("dog",), ("cat",), ("7",), None]
    assert tasks.TASKS["classification"].named(found, ("2", "3")) == found


def test_scores_have_a_mean_a_deviation_and_a_range():
    learned = learn(settings_of("regression"), scored(1.0, 4.0, 4.0))
    assert (learned.mean, learned.lowest, learned.highest) == (3.0, 1.0, 4.0)
    assert learned.deviation == pytest.approx(2**0.5)
    with pytest.raises(errors.InputError, match="f:1: all 2 scores are 3"):
        learn(settings_of("regression"), scored(3.0, 3.0))


def test_matching_learns_of_scores_or_of_labels():
    settings = settings_of("matching")
    assert learn(settings, scored(1.0, 5.0)).highest == 5.0
    assert learn(settings, texts("1", "0", "1")).labels == ("0", "1")
    named = settings_of("matching", data__labels="other,same")
    assert learn(named, texts("same", "other")).labels == ("other", "same")
    assert learn(settings, scored(None, None)) == spec.Metadata()


def test_questions_may_have_no_answer():
    def question(impossible):
        return data_examples.QuestionExample("f", "0", "?", "a", (), impossible)

    settings = settings_of("span")
    assert not learn(settings, [question(False)]).impossible
    assert learn(settings, [question(False), question(True)]).impossible


GIVEN = spec.Metadata(("dog", "cat"), "", 2.0, 0.5)


def test_a_given_head_keeps_its_classes_and_its_scale():
    learned = learn(settings_of(), texts("cat", "dog"), GIVEN)
    assert learned.labels == ("dog", "cat")
    learned = learn(settings_of("regression"), scored(7.0, 9.0), GIVEN)
    assert (learned.mean, learned.deviation) == (2.0, 0.5)
    tags = dataclasses.replace(GIVEN, labels=("I-A", "O", "B-A"))
    learned = learn(settings_of("tagging"), [], tags)
    assert (learned.labels, learned.scheme) == (("I-A", "O", "B-A"), "BIO")
    same = settings_of(data__labels="dog,cat")
    assert learn(same, [], GIVEN).labels == ("dog", "cat")


@pytest.mark.parametrize(
    ("names", "asked", "expected"),
    [
        (("LABEL_0", "LABEL_1"), "no,yes", ("no", "yes")),
        (("LABEL_0", "LABEL_1"), "", ("LABEL_0", "LABEL_1")),
        ((), "no,yes", ("no", "yes")),
        (("LABEL_0", "LABEL_1", "LABEL_2"), "no,yes", "has LABEL_0, LABEL_1, LABEL_2"),
        (("dog", "cat"), "cat,dog", "data.labels is cat, dog, .* dog, cat"),
        ((), "", "init.head .* data.labels"),
    ],
)
def test_classes_without_names_are_named_by_the_config(names, asked, expected):
    given = spec.Metadata(labels=names)
    settings = settings_of(data__labels=asked)
    if isinstance(expected, tuple):
        assert learn(settings, [], given).labels == expected
        return
    with pytest.raises(errors.InputError, match=expected):
        learn(settings, [], given)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("classification", heads.HeadSpec("classifier", 2, dropout=0.2)),
        ("regression", heads.HeadSpec("classifier", 1, dropout=0.2)),
        ("tagging", heads.HeadSpec("tagger", 2, dropout=0.2)),
        ("srl", heads.HeadSpec("tagger", 2, at_predicate=True, dropout=0.2)),
        ("span", heads.HeadSpec("span", 2, dropout=0.2)),
        ("multiple_choice", heads.HeadSpec("multiple_choice", 1, dropout=0.2)),
        ("matching", heads.HeadSpec("vectors", 1, "mean")),
    ],
)
def test_every_task_has_its_head(kind, expected):
    changes = {"head__dropout": 0.2}
    if kind == "matching":
        changes = {"head__pooling": "mean"}
    if kind == "srl":
        changes |= {"data__predicates": "joint"}
    learned = spec.Metadata(labels=("a", "b"))
    assert tasks.TASKS[kind].head(settings_of(kind, **changes), learned) == expected


def test_what_was_learned_is_in_the_task(tmp_path):
    tiny_tasks.write_vocab(tmp_path)

    def build(kind, learned=None, **changes):
        path = str(tiny_models.write_file(tmp_path, kind))
        changes |= {"data__task": kind, "data__train": path, "data__dev": path}
        config = tiny_tasks.config(tmp_path, **changes)
        run = finetuning_run.assemble(finetuning.parse(config), tmp_path / "run")
        bert, tokenizer = run.start.bert, run.start.tokenizer
        learned = learned or run.learned
        return tasks.of(run.settings).task(
            run.settings, learned, bert, tokenizer, (1.0, 3.0)
        )

    made = build("classification", recipe__label_smoothing=0.1)
    assert isinstance(made, classification.Classification)
    assert made.labels == ("cat", "dog") and made.truncation == "longest_first"
    assert made.recipe.class_weights == (1.0, 3.0)
    assert made.recipe.label_smoothing == 0.1
    made = build("regression", GIVEN, recipe__r_drop=2.0)
    assert isinstance(made, regression.Regression)
    assert (made.mean, made.deviation, made.recipe.r_drop) == (2.0, 0.5, 2.0)
    learned = spec.Metadata(impossible=True, threshold=1.5)
    made = build("span", learned, data__doc_stride=3, data__max_answer_length=9)
    assert isinstance(made, span.Span)
    assert (made.doc_stride, made.max_answer_length) == (3, 9)
    assert (made.version2, made.null_threshold) == (True, 1.5)
    made = build("srl", data__repair=True)
    assert isinstance(made, roles.Roles) and made.repair and "V" in made.labels
    learned = spec.Metadata(("no", "yes"), threshold=0.25)
    made = build("matching", learned, head__objective="in_batch", head__temperature=0.2)
    assert isinstance(made, matching.Matching)
    assert (made.objective, made.temperature) == ("in_batch", 0.2)
    assert (made.labels, made.threshold) == (("no", "yes"), 0.25)


@pytest.mark.parametrize(
    ("kind", "metrics", "expected"),
    [
        ("classification", {"accuracy": 0.5, "micro_f1": 0.1}, "accuracy"),
        ("classification", {"subset_accuracy": 0.5, "micro_f1": 0.1}, "micro_f1"),
        ("tagging", {"token_accuracy": 0.5, "macro_f1": 0.1}, "token_accuracy"),
        ("tagging", {"token_accuracy": 0.5, "entity_f1": 0.1}, "entity_f1"),
        ("matching", {"mrr": 0.5, "recall@1": 0.1}, "mrr"),
    ],
)
def test_the_usual_metric_is_the_first_that_there_is(kind, metrics, expected):
    assert best_model.kept_by(settings_of(kind), metrics) == expected


def test_a_metric_that_is_asked_for_must_be_there():
    settings = settings_of(run__keep_best="auc")
    assert best_model.kept_by(settings, {"accuracy": 0.5, "auc": 0.25}) == "auc"
    with pytest.raises(errors.InputError, match="'auc': classification has accuracy"):
        best_model.kept_by(settings, {"accuracy": 0.5})


@pytest.mark.parametrize(
    ("name", "value", "best", "expected"),
    [
        ("accuracy", 0.5, None, True),
        ("accuracy", 0.5, 0.4, True),
        ("accuracy", 0.5, 0.5, False),
        ("rmse", 0.5, 0.4, False),
        ("rmse", 0.4, 0.5, True),
        ("accuracy", 0.5, 0.6, False),
    ],
)
def test_better_is_higher_but_for_errors(name, value, best, expected):
    assert scores.is_better(name, value, best) is expected


def test_thresholds_are_kept_where_a_task_decides_by_one():
    learned = spec.Metadata(labels=("a", "b"))
    metrics = {"threshold": 0.7, "best_f1_threshold": -1.0}
    assert best_model.tuned(tasks.TASKS["matching"], learned, metrics).threshold == 0.7
    assert best_model.tuned(tasks.TASKS["span"], learned, metrics).threshold == -1.0
    assert best_model.tuned(tasks.TASKS["span"], learned, {"f1": 0.5}) == learned
    assert best_model.tuned(tasks.TASKS["classification"], learned, metrics) == learned


@pytest.mark.parametrize(
    ("changes", "labels", "metric", "shown"),
    [
        ({}, ("neg", "pos"), "dev/f1", 'dev/f1 (of "pos")'),
        ({}, ("neg", "pos"), "accuracy", "accuracy"),
        ({}, ("neg", "pos", "mixed"), "f1", "f1"),
        ({"data__multi_label": ","}, ("neg", "pos"), "f1", "f1"),
        ({"task": "matching"}, ("no", "same"), "recall", 'recall (of "same")'),
        ({"task": "span"}, (), "f1", "f1"),
    ],
)
def test_the_f1_of_two_classes_names_its_class(changes, labels, metric, shown):
    settings = settings_of(**changes)
    assert best_model.shown_metric(settings, labels, metric) == shown


def test_the_log_of_an_evaluation_names_the_class_of_f1():
    made = scores.Scores({"accuracy": 0.5, "f1": 0.25}, positive="pos")
    assert finetuning_run._summary(3, "f1", made, is_better=True) == (
        'dev after step 3: f1 (of "pos") 0.2500  accuracy 0.5000  (best)'
    )
