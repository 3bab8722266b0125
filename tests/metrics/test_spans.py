"""Answers by the rules of SQuAD and CMRC: published scores, and counts by hand.

golden/squad_predictions.json has the output of the published scripts for it:
`evaluate-v2.0.py data.json pred.json --na-prob-file margins.json -t 0`, with the best
answers in pred.json, and the functions of `cmrc2018_evaluate.py` with NLTK 3.10.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.metrics import spans

GOLDEN = Path(__file__).parents[1] / "golden" / "squad_predictions.json"


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def _english(questions, threshold=0.0):
    return [
        spans.AnsweredQuestion(
            tuple(q["answers"]),
            "" if q["margin"] > threshold else q["best"],
            q["best"],
            q["margin"],
        )
        for q in questions
    ]


def test_english_scores_are_those_of_the_published_script(golden):
    scored = spans.evaluate(_english(golden["english"]["questions"]))
    published = golden["english"]["metrics"]
    assert scored.metrics.keys() == published.keys()
    for name, value in published.items():
        scale = 1 if name.endswith("threshold") else 100
        assert scored.metrics[name] * scale == pytest.approx(value, abs=1e-9), name


def test_chinese_scores_are_those_of_the_published_script(golden):
    questions = golden["chinese"]["questions"]
    judged = [
        spans.AnsweredQuestion((*q["answers"],), q["found"], q["found"])
        for q in questions
    ]
    scored = spans.evaluate(judged)
    assert scored.exact_match.tolist() == [q["exact_match"] for q in questions]
    np.testing.assert_allclose(scored.f1, [q["f1"] for q in questions], atol=1e-12)
    assert {
        name: 100 * value for name, value in scored.metrics.items()
    } == pytest.approx(golden["chinese"]["metrics"])


def test_the_best_threshold_gives_the_best_score(golden):
    questions = golden["english"]["questions"]
    best = spans.evaluate(_english(questions)).metrics
    every = [-99.0, *(q["margin"] for q in questions)]
    for name in ("exact_match", "f1"):
        tried = [
            spans.evaluate(_english(questions, threshold)).metrics[name]
            for threshold in every
        ]
        assert best[f"best_{name}"] == pytest.approx(max(tried))
        applied = _english(questions, best[f"best_{name}_threshold"])
        assert spans.evaluate(applied).metrics[name] == pytest.approx(max(tried))


def test_questions_of_equal_margin_are_answered_together():
    """The published script would stop between them, which no threshold can."""
    judged = [
        spans.AnsweredQuestion(("blue",), "", "blue", -2.0),
        spans.AnsweredQuestion(("red",), "", "red", 1.0),
        spans.AnsweredQuestion((), "", "green", 1.0),
        spans.AnsweredQuestion((), "", "black", 1.0),
    ]
    metrics = spans.evaluate(judged).metrics
    assert metrics["best_exact_match"] == 0.75
    assert metrics["best_exact_match_threshold"] == -2.0
    tied = [judged[1], judged[2]]
    metrics = spans.evaluate(tied).metrics
    assert metrics["best_f1"] == 0.5
    assert metrics["best_f1_threshold"] < 1.0


def test_predicting_no_answer_may_be_best():
    judged = [spans.AnsweredQuestion((), "blue", "blue", -3.0)] * 2
    metrics = spans.evaluate(judged).metrics
    assert metrics["f1"] == 0.0 and metrics["no_answer_f1"] == 0.0
    assert "has_answer_f1" not in metrics
    assert metrics["best_f1"] == 1.0 and metrics["best_f1_threshold"] < -3.0


def test_without_margins_and_unanswerable_questions_there_are_two_metrics():
    judged = [
        spans.AnsweredQuestion(("blue",), "blue", "blue"),
        spans.AnsweredQuestion(("a b",), "b", "b"),
    ]
    metrics = spans.evaluate(judged).metrics
    assert metrics == {"exact_match": 1.0, "f1": 1.0}


@pytest.mark.parametrize(
    ("answers", "found", "exact", "f1"),
    [
        (["the cat, a dog"], "Cat dog!", 1, 1),
        (["red", "blue sky"], "the sky", 0, 2 / 3),
        (["one two three"], "three two one four", 0, 6 / 7),
        (["x x y"], "x y y", 0, 2 / 3),
        (["anthem"], "them", 0, 0),
        ([], "", 1, 1),
        ([], "x", 0, 0),
        (["x"], "", 0, 0),
        (["The", "Who"], "", 0, 0),
    ],
)
def test_english_by_hand(answers, found, exact, f1):
    assert spans.exact_match(answers, found, "english") == exact
    assert spans.f1(answers, found, "english") == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answers", "found", "exact", "f1"),
    [
        (["「甲乙丙丁」"], "乙丙", 0, 2 / 3),
        (["甲乙丙丁"], "甲丙丁乙", 0, 1 / 2),
        (["甲乙"], "乙，甲。", 0, 1 / 2),
        (["甲乙", "丙"], "丙", 1, 1),
        (["Nexon公司"], "NEXON 公司", 0, 1),
        (["甲"], "", 0, 0),
        (["甲 "], "\n甲", 1, 1),
        (["乙甲乙"], "甲乙" * 130, 0, 6 / 263),
        ([], "", 1, 1),
        ([], "甲", 0, 0),
    ],
)
def test_chinese_by_hand(answers, found, exact, f1):
    assert spans.exact_match(answers, found, "chinese") == exact
    assert spans.f1(answers, found, "chinese") == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't aint", ["do", "n't", "aint"]),
        ("Ubisoft's 2.5 GB", ["ubisoft", "'s", "2.5", "gb"]),
        ("U.S. (EP), v1.2.", ["u.s.", "(", "ep", ")", ",", "v1.2", "."]),
        ("a-b c/d", ["ab", "cd"]),
        ('55°30\' "x"…', ["55°30'", '"', "x", '"', "…"]),
        ("1—2–3...", ["1", "—", "2", "–", "3", "..."]),
        ("they've", ["they", "'ve"]),
        ("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』", []),
        ("10,000, 20", ["10,000", ",", "20"]),
    ],
)
def test_words_that_are_not_chinese(text, words):
    assert spans.segments(text) == words


def test_no_questions_cannot_be_scored():
    with pytest.raises(errors.InputError):
        spans.evaluate([])


def test_the_language_of_published_files_is_detected(shared_data):
    def language(name):
        tree = json.loads((shared_data / name).read_text(encoding="utf-8"))
        return spans.language_of(
            [
                answer["text"]
                for article in tree["data"]
                for paragraph in article["paragraphs"]
                for question in paragraph["qas"]
                for answer in question["answers"]
            ]
        )

    assert language("zh_qa/drcd_dev.json") == "chinese"
    assert language("zh_qa/cmrc2018_trial.json") == "chinese"
    assert language("en_qa/dev.json") == "english"
