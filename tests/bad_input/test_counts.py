"""Records that are read are either used or counted as skipped."""

import json

import bad_files
import pytest
from bad_files import case

from bert_jax import tasks
from bert_jax.data.corpus import store
from bert_jax.data.labeled import (
    question_examples,
    read_examples,
    table_records,
    tables,
)

_GOOD = "a cat\tcat\na dog\tdog\nthe cat\tcat\nthe dog\tdog\n"
_TSV = f"sentence\tlabel\n{_GOOD}ragged\na\tb\tc\n\tcat\n"
_CSV = 'text,label\na cat,x\n"a, dog",y\nragged\n" ",x\n'
_JSON = '{"text": "a", "label": "x"}\n' * 3 + '{"text": "", "label": "x"}\n'
_JSON += '{"text": null, "label": "x"}\n'


def _squad() -> str:
    """Questions whose answer is at its offset, at another one, and missing."""
    qas = [
        {"id": f"q{n}", "question": "?", "answers": [{"text": t, "answer_start": at}]}
        for n, (t, at) in enumerate((("cat", 4), ("cat", 0), ("dog", 4)))
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": "the cat", "qas": qas}]}]})


READ = [
    (
        "a.tsv",
        _TSV,
        "classification",
        7,
        4,
        {tables.RAGGED: 2, table_records.EMPTY: 1},
    ),
    (
        "a.csv",
        _CSV,
        "classification",
        4,
        2,
        {tables.RAGGED: 1, table_records.EMPTY: 1},
    ),
    ("a.jsonl", _JSON, "classification", 5, 3, {table_records.EMPTY: 2}),
    ("a.json", _squad(), "span", 3, 2, {read_examples.UNANSWERED: 1}),
]


@pytest.mark.parametrize(("name", "text", "task", "count", "used", "left_out"), READ)
def test_records_are_used_or_counted(tmp_path, name, text, task, count, used, left_out):
    (tmp_path / name).write_text(text)
    request = read_examples.Request(
        tmp_path / name, tasks.TASKS[task].form, repair=True
    )
    found = read_examples.read(request)
    others = (
        question_examples.MOVED,
        question_examples.DROPPED,
    )  # answers, and no records
    left = {name: n for name, n in found.notes.items() if name not in others}
    assert (len(found.examples), left) == (used, left_out)
    assert count == used + sum(left_out.values())


def test_a_command_reports_the_counts(good, tmp_path, shell):
    flags = "evaluate --workdir={here}/run --data={here}/a.tsv --repair"
    one = case("", "", flags, "", {"a.tsv": _TSV}, base="tasks/run")
    bad_files.prepare(one, good, tmp_path)
    done = shell(*(x.replace("{here}", str(tmp_path)) for x in one.command))
    assert done.code == 0, done.err
    file = tmp_path / "a.tsv"
    counts = f"4 examples of {file} ({tables.RAGGED}: 2, first at {file}:6; "
    assert f"{counts}{table_records.EMPTY}: 1, first at {file}:8)" in done.err


def test_documents_are_stored_or_counted(good, tmp_path, shell):
    sentences = ["a cat sat", "a dog ran", "a cat sat", "", "rain falls", "\n"]
    lines = [json.dumps({"text": text}) for text in sentences]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    done = shell(
        "prepare",
        f"--config={good / 'text' / 'tiny.py'}",
        f"--store={tmp_path / 's'}",
        f"--config.data.corpus={tmp_path / 'c.jsonl'}",
        f"--config.text.vocab={good / 'text' / 'vocab.txt'}",
    )
    assert done.code == 0, done.err
    built = store.read_manifest(tmp_path / "s")
    dropped = built.dropped
    assert (dropped.duplicate_documents, dropped.empty_documents) == (1, 2)
    assert built.sources[0].documents == 6 == built.total("documents") + 3
    assert "dropped: 1 duplicate and 2 empty documents" in done.out
