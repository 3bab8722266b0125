"""The table of a suite: the best rate, means, deviations, figures beside them."""

import json

import pytest
import tiny_suites

from bert_jax import errors
from bert_jax.runs import suite

RUNS = [
    {"seed": seed, "learning_rate": rate, "metrics": {"dev/f1": f1, "dev/accuracy": a}}
    for rate, seed, f1, a in [
        (1e-5, 0, 0.9, 0.1),
        (2e-5, 0, 0.8, 0.5),
        (2e-5, 1, 0.9, 0.7),
    ]
]


def test_the_best_rate_is_that_of_the_best_mean():
    assert suite.best_rate(RUNS, "dev/f1") == RUNS[:1]
    assert suite.best_rate(RUNS, "dev/accuracy") == RUNS[1:]


def test_means_and_deviations_stand_beside_published_figures(tmp_path):
    made = tiny_suites.module("glue").SUITE
    results = {"qqp": suite.Result({}, RUNS[1:])}
    lines = suite.text(made, results).splitlines()
    header = "task metric mean deviation runs BERT-base BERT-large"
    assert lines[0].split() == header.split()
    found = {tuple(line.split()[:2]): line.split()[2:] for line in lines[1:]}
    assert found["QQP", "f1"] == ["85.00", "7.07", "2", "71.2", "72.1"]
    assert found["QQP", "accuracy"] == ["60.00", "14.14", "2", "-", "-"]
    assert found["CoLA", "matthews"] == ["-", "-", "0", "52.1", "60.5"]
    suite.write(tmp_path, made, results)
    text = (tmp_path / suite.MARKDOWN).read_text()
    assert "| QQP | f1 | 85.00 | 7.07 | 2 | 71.2 | 72.1 |\n" in text
    assert "hidden test sets" in text


def test_the_f1_of_two_classes_names_its_class(tmp_path):
    made = tiny_suites.module("glue").SUITE
    shown = {"dev/f1": 'dev/f1 (of "a|b")'}
    path = suite.result_path(tmp_path, "qqp")
    suite.write_result(path, suite.Result({}, RUNS, {}, shown))
    results = {"qqp": suite.read_result(path)}
    assert ' f1 (of "a|b") ' in suite.text(made, results)
    suite.write(tmp_path, made, results)
    assert '| QQP | f1 (of "a\\|b") | ' in (tmp_path / suite.MARKDOWN).read_text()
    rows = json.loads((tmp_path / suite.JSON).read_text())["rows"]
    assert [x["metric"] for x in rows if x["task"] == "qqp"] == ["f1", "accuracy"]


def test_a_damaged_result_is_named(tmp_path):
    path = suite.result_path(tmp_path, "qqp")
    assert suite.read_result(path) is None
    suite.write_result(path, suite.Result({}, RUNS))
    assert suite.read_result(path).runs == RUNS
    path.write_text("{}")
    with pytest.raises(errors.InputError, match="is damaged: remove it"):
        suite.read_result(path)
