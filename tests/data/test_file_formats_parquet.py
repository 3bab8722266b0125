"""Parquet files as tables of labeled examples and as corpora."""

import json

import pyarrow as pa
import pytest
from example_files import columns, iterate, read, refused
from pyarrow import parquet

from bert_jax import errors
from bert_jax.data import file_formats, text_files
from bert_jax.data.corpus import parsing, readers, sources


def write(path, table, features=None):
    if features is not None:
        tree = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": tree})
    parquet.write_table(table, path, row_group_size=2)
    return path


def test_rows_have_the_values_of_json(tmp_path):
    table = pa.table(
        {
            "text": pa.array(["甲", None, "c"], pa.large_string()),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "raw": [b"a", "好".encode(), None],
            "answers": [{"start": [1, 2]}, {"start": []}, None],
        }
    )
    rows = list(file_formats.parquet_rows(write(tmp_path / "a.parquet", table)))
    assert rows == [
        (1, {"text": "甲", "kind": "x", "raw": "a", "answers": {"start": [1, 2]}}),
        (2, {"text": None, "kind": "y", "raw": "好", "answers": {"start": []}}),
        (3, {"text": "c", "kind": "x", "raw": None, "answers": None}),
    ]


@pytest.mark.parametrize("shape", [dict, list])
def test_classes_of_datasets_get_their_names(tmp_path, shape):
    tags = {"names": ["O", "B-X"], "_type": "ClassLabel"}
    listed = [tags] if shape is list else {"feature": tags, "_type": "Sequence"}
    features = {
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "tags": listed,
    }
    table = pa.table({"label": [1, -1, 0], "tags": [[0, 1], [], [1]], "n": [1, 0, 1]})
    rows = file_formats.parquet_rows(write(tmp_path / "a.parquet", table, features))
    assert [row for _, row in rows] == [
        {"label": "pos", "tags": ["O", "B-X"], "n": 1},
        {"label": None, "tags": [], "n": 0},
        {"label": "neg", "tags": ["B-X"], "n": 1},
    ]


@pytest.mark.parametrize("name", ["a.parquet", "part-00000"])
def test_examples_of_texts_and_of_tags(tmp_path, name):
    table = pa.table({"sentence": ["a b", "c"], "label": [1, 0]})
    path = write(tmp_path / name, table)
    found = read(path).examples
    assert [(x.text, x.labels, x.where) for x in found] == [
        ("a b", ("1",), f"{path} row 1"),
        ("c", ("0",), f"{path} row 2"),
    ]
    assert iterate(path) == found
    write(path, pa.table({"tokens": [["a", "b"]], "ner_tags": [["O", "B-X"]]}))
    (tagged,) = read(path, "tagging").examples
    assert (tagged.text, tagged.tags) == ("a b", ("O", "B-X"))


def test_questions_have_the_columns_of_datasets(tmp_path):
    table = pa.table(
        {
            "id": ["q1"],
            "context": ["a bc d"],
            "question": ["?"],
            "answers": [{"text": ["bc"], "answer_start": [2]}],
        }
    )
    (question,) = read(write(tmp_path / "a.parquet", table), "span").examples
    assert question.answers[0].start == 2


def test_a_corpus_reads_one_column(tmp_path):
    table = pa.table({"body": ["他来了。走了！", "a\nb."], "x": [1, 2]})
    path = write(tmp_path / "a.parquet", table)
    reading = readers.Reading(sources.parse_source(f"{path}#body"))
    found = [parsing.parse(record) for record in reading.records()]
    assert [x.sentences for x in found] == [("他来了。", "走了！"), ("a", "b.")]
    assert [x.where for x in found] == [f"{path} row 1", f"{path} row 2"]
    (entry,) = reading.files
    tally = text_files.Tally()
    with text_files.open_raw(text_files.NamedPath(entry.name, path), tally):
        pass
    assert tally.files == [entry]
    assert reading.bytes_read == reading.total_bytes


def test_what_is_wrong_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + b"x" * 50)
    refused("a.parquet .*Parquet", path)
    whole = write(path, pa.table({"text": ["a"] * 9, "label": ["b"] * 9})).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("a.parquet .*Parquet", path)
    write(path, pa.table({"text": [b"\xff"], "label": ["b"]}))
    refused("a.parquet row 1: character 0 of ", path)
    refused("in a value that is not UTF-8", path)
    with pytest.raises(errors.InputError, match="no column 'body', only 'text', 'lab"):
        list(readers.documents(sources.parse_source(f"{path}#body")))
    write(path, pa.table([["a"], ["b"]], names=["text", "text"]))
    refused("two columns with the name 'text'", path)
    write(path, pa.table({"text": ["a"], "label": [2]}), {"label": {"names": ["x"]}})
    refused("row 1 has the class 2", path)
    write(path, pa.table({"text": ["a"], "label": ["x"]}))
    refused("no column 'z'", path, columns=columns(label="z"))
