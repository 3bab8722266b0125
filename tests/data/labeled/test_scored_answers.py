"""Answers that are not in their context: scored by the official rules, not learned.

The rules of evaluate-v1.1.py, evaluate-v2.0.py and cmrc2018_evaluate.py are written
here a second time, over the files as they are.
"""

import collections
import json
import re
import string

import numpy as np
import pytest

from bert_jax import errors, tasks
from bert_jax.data.labeled import question_examples, read_examples
from bert_jax.tasks import span


def _normal(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _english_f1(gold, found, version2):
    one, two = _normal(gold).split(), _normal(found).split()
    if version2 and (not one or not two):
        return float(one == two)
    same = sum((collections.Counter(one) & collections.Counter(two)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(two), same / len(one)
    return 2 * precision * recall / (precision + recall)


def _english(gold, found, version2):
    """Exact match and F1 of one question by the script of 1.1 or of 2.0."""
    if version2:
        gold = [text for text in gold if _normal(text)] or [""]
    exact = max(float(_normal(text) == _normal(found)) for text in gold)
    return exact, max(_english_f1(text, found, version2) for text in gold)


MARKS = [*"-:_*^/\\~`+=，。：？！“”；’《》", "……", *"·、「」（）－～『』"]


def _chinese_words(text):
    """Characters, and runs of what is not Chinese, here without a mark inside."""
    words, run = [], ""
    for character in str(text).lower().strip():
        if character in MARKS:
            continue
        if re.search("[\u4e00-\u9fa5]", character):
            words += [*run.split(), character]
            run = ""
        else:
            run += character
    return [*words, *run.split()]


def _common(one, two):
    table = np.zeros((len(one) + 1, len(two) + 1), int)
    for i, x in enumerate(one, 1):
        for j, y in enumerate(two, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if x == y else 0
    return int(table.max())


def _chinese(gold, found, _):
    def bare(text):
        return "".join(c for c in str(text).lower().strip() if c not in MARKS)

    exact = float(any(bare(text) == bare(found) for text in gold))
    scores = []
    for text in gold:
        one, two = _chinese_words(text), _chinese_words(found)
        same = _common(one, two)
        scores.append(2 * same / (len(one) + len(two)) if same else 0.0)
    return exact, max(scores)


ENGLISH = (
    "Nile is 6650 km long, the Amazon 6400 km.",
    [
        ("q1", [("6650 km", 8), ("6,650 kilometers", 8)], "6650 km"),
        ("q2", [("The Amazon River", 0), (6400.0, -1)], "the Amazon"),
        ("q3", [(6650, 8)], "6650"),
        ("q4", [(39764.0, 3), ("the", 26)], "39764.0"),
        ("q5", [("the", 26)], "a"),
        ("q6", [("about six thousand", 2), ("the", 26)], "the"),
    ],
)
CHINESE = (
    "《梵語》由Ubisoft於1998年發行，售出39764套。",
    [
        ("q1", [("梵語", 1), ("古代梵語", 1)], "《梵語》"),
        ("q2", [("育碧公司（Ubisoft）", 0), ("法國育碧", 3)], "Ubisoft"),
        ("q3", [(39764.0, 19)], "39764"),
        ("q4", [(39764, 19), ("三萬九千多套", 19)], "39764套"),
        ("q5", [("1998年 發行", 13)], "1998年發行"),
    ],
)


def _write(path, context, questions, version2=False):
    qas = [
        {
            "id": name,
            "question": "?",
            "answers": [{"text": text, "answer_start": at} for text, at in answers],
        }
        for name, answers, _ in questions
    ]
    if version2:
        none = {"id": "none", "question": "?", "answers": [], "is_impossible": True}
        # What the script of 2.0 counts as answered, whatever the flag says.
        both = {**qas[1], "id": "both", "is_impossible": True}
        qas += [none, both]
    tree = {"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def _scored(path, found):
    request = read_examples.Request(path, tasks.TASKS["span"].form, is_scored=True)
    examples = read_examples.read(request).examples
    null = None if "none" not in found else 0.0
    said = [
        {
            "answer": found[one.id],
            "n_best": [{"text": found[one.id] or "x"}],
            "null_score": null,
            "score": 1.0 if found[one.id] else -1.0,
            "probability": 0.5,
        }
        for one in examples
    ]
    return examples, span.Span.score(None, examples, said).metrics


@pytest.mark.parametrize(
    ("file", "rules", "version2"),
    [(ENGLISH, _english, False), (ENGLISH, _english, True), (CHINESE, _chinese, False)],
)
def test_scores_are_official_where_answers_are_not_in_the_text(
    tmp_path, file, rules, version2
):
    context, questions = file
    path = _write(tmp_path / "dev.json", context, questions, version2)
    found = {name: said for name, _, said in questions}
    if version2:
        found |= {"none": "", "both": "the Amazon"}
    examples, metrics = _scored(path, found)
    assert len(examples) == len(found)
    qas = json.loads(path.read_text())["data"][0]["paragraphs"][0]["qas"]
    each = [
        rules([str(x["text"]) for x in one["answers"]], found[one["id"]], version2)
        for one in qas
    ]
    exact, f1 = np.mean(each, axis=0)
    assert metrics["exact_match"] == pytest.approx(exact)
    assert metrics["f1"] == pytest.approx(f1)
    assert 0 < exact < 1 and 0 < f1 < 1
    if version2:
        has = [bool(one["answers"]) for one in qas]
        wanted = np.mean([x for x, is_there in zip(each, has, strict=True) if is_there])
        got = (metrics["has_answer_exact_match"] + metrics["has_answer_f1"]) / 2
        assert got == pytest.approx(wanted)


def test_training_leaves_out_what_it_cannot_learn_and_says_so(tmp_path):
    path = _write(tmp_path / "train.json", *CHINESE)
    request = read_examples.Request(path, tasks.TASKS["span"].form, repair=True)
    read = read_examples.read(request)
    assert [x.id for x in read.examples] == ["q1", "q4"]
    assert read.examples[1].answers[0].text == "39764"
    assert read.examples[1].gold == ("39764", "三萬九千多套")
    assert read.notes[question_examples.DROPPED] == 6
    assert read.notes[read_examples.UNANSWERED] == 3
    with pytest.raises(errors.InputError, match=r"question q1.*'古代梵語'"):
        read_examples.read(read_examples.Request(path, tasks.TASKS["span"].form))


def test_predictions_do_not_look_at_answers(tmp_path):
    path = _write(tmp_path / "dev.json", *ENGLISH)
    request = read_examples.Request(path, tasks.TASKS["span"].form)
    assert len(list(read_examples.iterate(request))) == 6


def test_columns_of_answers_may_be_numbers_too(tmp_path):
    path = tmp_path / "dev.jsonl"
    answers = {"text": [39764.0, "x"], "answer_start": [-1, 0]}
    line = {"id": "q", "question": "?", "context": "x 39764", "answers": answers}
    path.write_text(json.dumps(line), encoding="utf-8")
    request = read_examples.Request(path, tasks.TASKS["span"].form, is_scored=True)
    (example,) = read_examples.read(request).examples
    assert example.gold == ("39764.0", "x")
    path.write_text(
        json.dumps(line | {"answers": {"text": [True], "answer_start": [0]}})
    )
    with pytest.raises(errors.InputError, match="has an answer that is not a text"):
        read_examples.read(request)


def test_every_question_of_cmrc_and_drcd_is_scored(shared_data):
    for name, count in (("cmrc2018_trial", 1002), ("drcd_dev", 3524)):
        path = shared_data / "zh_qa" / f"{name}.json"
        request = read_examples.Request(
            path, tasks.TASKS["span"].form, is_scored=True, repair=True
        )
        read = read_examples.read(request)
        assert len(read.examples) == count
        assert read_examples.UNANSWERED not in read.notes
