"""Scores as text, and the files of an evaluation."""

import json

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.metrics import classes, report, scores

SCORED = scores.Scores(
    {"accuracy": 0.87654321, "steps": 1234, "auc": float("nan")},
    (
        {"class": "体育", "f1": 0.5, "examples": 1500},
        {"class": "finance", "f1": 1.0, "examples": 2},
    ),
    scores.Confusion(("体育", "finance"), np.array([[1300, 200], [0, 2]])),
    scores.Confidences(np.array([0.9, 0.6]), np.array([True, False])),
    (
        scores.PredictionError(
            0.97531, "dev.tsv:7", "a\ttab\nand 体育", "体育", "finance"
        ),
        scores.PredictionError(0.25, "dev.tsv:9", "lone \ud800", "finance", "体育"),
    ),
)


def test_the_whole_text():
    assert report.text(SCORED).split("\n") == [
        "metric        value",
        "accuracy     0.8765",
        "steps         1,234",
        "auc       undefined",
        "",
        "class        f1  examples",
        "体育     0.5000     1,500",
        "finance  1.0000         2",
        "",
        "true \\ predicted   体育  finance",
        "体育              1,300      200",
        "finance               0        2",
        "",
        "the worst errors",
        "  1. 0.9753  体育, predicted as finance  (dev.tsv:7)",
        "     a\\ttab\\nand 体育",
        "  2. 0.2500  finance, predicted as 体育  (dev.tsv:9)",
        "     lone \\ud800",
    ]


def test_the_number_of_errors_is_limited_and_long_texts_are_shortened():
    wrong = tuple(
        scores.PredictionError(1.0, "f:1", "很" * 99, "a", "b") for _ in range(5)
    )
    scored = scores.Scores({"f1": 0.5}, errors=wrong)
    lines = report.text(scored, max_errors=2).split("\n")
    assert [line for line in lines if line.endswith("…")] == [
        "     " + "很" * 49 + "…"
    ] * 2
    assert "errors" not in report.text(scored, max_errors=0)


def test_a_wide_confusion_matrix_is_only_plotted():
    labels = tuple(f"c{n}" for n in range(13))
    scored = scores.Scores(
        {}, confusion=scores.Confusion(labels, np.eye(13, dtype=int))
    )
    assert "predicted" not in report.text(scored)


def test_classes_may_have_different_columns():
    rows = ({"class": "PER", "f1": 0.5}, {"class": "core", "roles": 3})
    lines = report.text(scores.Scores({}, rows)).split("\n")
    assert lines[-2:] == ["PER    0.5000      -", "core        -      3"]


def test_micro_averages_are_hidden_if_they_are_the_accuracy():
    micro = {"micro_precision": 0.5, "micro_f1": 0.5}
    one = scores.Scores({"accuracy": 0.5, "macro_f1": 0.4} | micro)
    assert report.text(one).split("\n") == [
        "metric     value",
        "accuracy  0.5000",
        "macro_f1  0.4000",
    ]
    several = report.text(scores.Scores({"subset_accuracy": 0.5} | micro))
    assert "micro_precision  0.5000" in several


def test_f1_of_two_classes_names_its_class_but_keys_in_files_do_not(tmp_path):
    scored = classes.single_label(
        np.array([0, 1, 1]),
        np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]),
        ("negative", "positive"),
        where=["a", "b", "c"],
        texts=["x", "y", "z"],
    )
    lines = report.text(scored).split("\n")
    assert [x.split("  ")[0] for x in lines if '"positive"' in x] == [
        f'{name} (of "positive")' for name in ("precision", "recall", "f1")
    ]
    report.write(scored, tmp_path, "dev", {})
    assert "f1" in json.loads((tmp_path / "dev.json").read_text())["metrics"]


def test_files(tmp_path):
    folder = tmp_path / "deep" / "eval"
    about = {"data": "dev.tsv", "examples": 2}
    written = report.write(SCORED, folder, "dev", about)
    assert [path.name for path in written] == [
        "dev.json",
        "dev_confusion.png",
        "dev_reliability.png",
        "dev_errors.tsv",
    ]
    assert sorted(folder.iterdir()) == sorted(written)
    tree = json.loads(written[0].read_text(encoding="utf-8"))
    assert tree["about"] == about
    assert tree["metrics"] == {"accuracy": 0.87654321, "steps": 1234, "auc": None}
    assert tree["classes"][0] == {"class": "体育", "f1": 0.5, "examples": 1500}
    assert tree["confusion"] == {
        "labels": ["体育", "finance"],
        "counts": [[1300, 200], [0, 2]],
    }
    assert len(tree["calibration"]) == 15
    assert tree["calibration"][13] == {
        "above": pytest.approx(13 / 15),
        "up_to": pytest.approx(14 / 15),
        "count": 1,
        "confidence": 0.9,
        "accuracy": 1.0,
    }
    assert tree["errors"][1]["text"] == "lone \ud800"
    assert "体育" in written[0].read_text(encoding="utf-8")
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert written[2].read_bytes().startswith(b"\x89PNG")


def test_each_error_is_one_line_of_the_tsv(tmp_path):
    report.write(SCORED, tmp_path, "dev", {})
    assert (tmp_path / "dev_errors.tsv").read_text(encoding="utf-8") == (
        "badness\twhere\texpected\tfound\ttext\n"
        "0.975310\tdev.tsv:7\t体育\tfinance\ta\\ttab\\nand 体育\n"
        "0.250000\tdev.tsv:9\tfinance\t体育\tlone \\ud800\n"
    )


def test_files_of_an_earlier_evaluation_are_removed(tmp_path):
    report.write(SCORED, tmp_path, "dev", {})
    (tmp_path / "test_confusion.png").write_bytes(b"another's")
    written = report.write(scores.Scores({"f1": 1.0}), tmp_path, "dev", {})
    assert [path.name for path in written] == ["dev.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dev.json",
        "test_confusion.png",
    ]
    tree = json.loads(written[0].read_text())
    assert tree["confusion"] is tree["calibration"] is None and tree["errors"] == []


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "eval").write_text("a file")
    with pytest.raises(errors.StorageError, match="eval"):
        report.write(SCORED, tmp_path / "eval", "dev", {})
