"""Exports of Label Studio and doccano, for tagging and for tasks of texts."""

import csv
import io
import json

import pytest
from example_files import columns, read, refused, write

TEXT = "😀 Li lives in Bern"
REGION = {"start": 3, "end": 5, "text": "Li", "labels": ["PER"]}
TAGS = [("😀", "O"), ("Li", "B-PER"), ("lives", "O"), ("in", "O"), ("Bern", "B-LOC")]


def task(result, **more):
    given = {"id": 5, "result": result, "was_cancelled": False, **more}
    return {"id": 7, "data": {"text": TEXT}, "annotations": [given], "predictions": []}


def tags(path):
    (example,) = read(path, "tagging").examples
    words = [example.text[start:end] for start, end in example.tokens]
    return list(zip(words, example.tags, strict=True))


def result(value, kind="labels"):
    return {"value": value, "from_name": "label", "to_name": "text", "type": kind}


LOCATION = {"start": 15, "end": 19, "text": "Bern", "labels": ["LOC"]}
MINIMAL = {"id": 7, "text": TEXT, "label": [REGION, LOCATION], "annotator": 1}
OFFSETS = [(2, 4, "PER"), (14, 18, "LOC")]
TAGGING = {
    "studio": [task([result(REGION), result(LOCATION), {"type": "relation"}])],
    "studio min": [MINIMAL],
    "doccano": {"id": 1, "text": TEXT, "label": [list(x) for x in OFFSETS]},
    "doccano entities": {
        "id": 1,
        "text": TEXT,
        "entities": [
            {"id": i, "label": kind, "start_offset": start, "end_offset": end}
            for i, (start, end, kind) in enumerate(OFFSETS)
        ],
        "relations": [],
        "Comments": [],
    },
}


@pytest.mark.parametrize("kind", TAGGING)
@pytest.mark.parametrize("indent", [None, 2])
def test_entities(tmp_path, kind, indent):
    content = json.dumps(TAGGING[kind], indent=indent, ensure_ascii=False)
    assert tags(write(tmp_path, content, "a.json")) == TAGS


def test_entities_in_the_csv_of_label_studio(tmp_path):
    file = io.StringIO()
    writer = csv.DictWriter(file, ["text", "id", "label", "annotator"])
    writer.writeheader()
    writer.writerow(MINIMAL | {"label": json.dumps(MINIMAL["label"])})
    assert tags(write(tmp_path, file.getvalue(), "a.csv")) == TAGS


@pytest.mark.parametrize(
    "record, label",
    [
        ([task([result({"choices": ["pos"]}, "choices")])], "pos"),
        ([{"id": 1, "text": TEXT, "label": "pos"}], "pos"),
        ([{"id": 1, "text": TEXT, "label": {"choices": ["pos"]}}], "pos"),
        ({"id": 1, "text": TEXT, "label": ["pos"], "Comments": []}, "pos"),
        ({"id": 1, "text": TEXT, "annotations": [{"label": 3, "user": 1}]}, "3"),
    ],
)
def test_labels_of_texts(tmp_path, record, label):
    path = write(tmp_path, json.dumps(record), "a.json")
    (example,) = read(path).examples
    assert (example.text, example.labels) == (TEXT, (label,))


def test_several_labels_and_ratings(tmp_path):
    both = [task([result({"choices": ["a", "b"]}, "choices")])]
    path = write(tmp_path, json.dumps(both), "a.json")
    assert read(path, multi_label="true").examples[0].labels == ("a", "b")
    rated = [task([result({"rating": 4}, "rating")])]
    path = write(tmp_path, json.dumps(rated), "a.json")
    assert read(path, "regression").examples[0].score == 4.0


def test_tasks_without_or_with_several_annotations(tmp_path):
    first, second = (
        {"result": [result({"choices": [name]}, "choices")]} for name in "ab"
    )
    tasks = [
        {"id": 1, "data": {"text": "x"}, "annotations": [first, second]},
        {"id": 2, "data": {"text": "y"}, "annotations": []},
        {
            "id": 3,
            "data": {"text": "z"},
            "annotations": [second | {"was_cancelled": 1}],
        },
    ]
    found = read(write(tmp_path, json.dumps(tasks), "a.json"))
    assert [(x.id, x.labels) for x in found.examples] == [("1", ("a",))]
    assert found.notes == {
        "annotations left out after the first of their text": 1,
        "tasks left out that nobody has annotated": 2,
    }


def test_what_an_export_lacks_is_named(tmp_path):
    moved = [task([result(REGION | {"text": "Lu"})])]
    refused("characters 3 to 5 are", write(tmp_path, json.dumps(moved), "a"), "tagging")
    two = [task([result(REGION | {"labels": ["A", "B"]})])]
    refused("start, end and one", write(tmp_path, json.dumps(two), "a"), "tagging")
    old = {
        "text": "x",
        "annotations": [{"label": 2, "start_offset": 0, "end_offset": 1}],
    }
    refused("numbers", write(tmp_path, json.dumps(old), "a"), "tagging")
    path = write(tmp_path, json.dumps(two), "a.json")
    refused("no column 'z'", path, columns=columns(label="z"))
