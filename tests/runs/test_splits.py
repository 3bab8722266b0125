"""Splits of a run: read and named, held out by content, folds, and what is said."""

import numpy as np
import pytest
import tiny_tasks

from bert_jax import errors, tasks
from bert_jax.config import finetuning
from bert_jax.data.labeled import example_rows
from bert_jax.data.labeled import examples as data_examples
from bert_jax.runs import splits
from bert_jax.tasks import regression, spec
from bert_jax.text import coverage
from bert_jax.text.tokenizer import Tokenizer


@pytest.fixture
def place(tmp_path):
    tiny_tasks.write_vocab(tmp_path)
    tiny_tasks.write_classes(tmp_path / "train.tsv", 50, seed=0)
    tiny_tasks.write_classes(tmp_path / "dev.tsv", 9, seed=1)
    return tmp_path


def _read(place, **changes):
    config = tiny_tasks.config(place, **changes)
    return splits.read(finetuning.parse(config))


def test_files_are_read_by_their_names(place, capsys):
    made = _read(place, data__test=str(place / "dev.tsv"))
    assert {name: len(found) for name, found in made.items()} == {
        "train": 50,
        "dev": 9,
        "test": 9,
    }
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"train: 50 examples of {place / 'train.tsv'}"


def test_without_dev_a_share_is_held_out_that_no_order_changes(place, capsys):
    made = _read(place, data__dev="", data__dev_share=0.3)
    held = {x.text for x in made["dev"]}
    assert len(made["train"]) + len(made["dev"]) == 50
    assert 5 <= len(made["dev"]) <= 25
    # Equal texts stay together: nothing of dev is trained on.
    assert held.isdisjoint(x.text for x in made["train"])
    assert "by hash of content" in capsys.readouterr().err
    lines = (place / "train.tsv").read_text().splitlines()
    backwards = [lines[0], *reversed(lines[1:])]
    (place / "train.tsv").write_text("\n".join(backwards) + "\n")
    again = _read(place, data__dev="", data__dev_share=0.3)
    assert {x.text for x in again["dev"]} == held


def test_the_share_is_about_what_was_asked_for():
    made = [data_examples.TextExample(f"f:{n}", str(n), f"{n}") for n in range(4000)]
    train, dev = splits.held_out(made, 0.1)
    assert len(train) + len(dev) == 4000
    assert 340 <= len(dev) <= 460


def test_a_file_too_small_to_hold_out(place):
    tiny_tasks.write_classes(place / "train.tsv", 4, seed=0)
    with pytest.raises(errors.InputError, match="data.dev_share"):
        _read(place, data__dev="", data__dev_share=0.01)


def test_folds_are_cut_out_of_train(place):
    made = _read(place, data__dev="", data__folds=5)
    assert made["dev"] is made["train"] and len(made["train"]) == 50
    with open(place / "train.tsv", "a", encoding="utf-8") as file:
        file.write("the cat\tcat\nthe cat\tdog\n")
    with pytest.raises(errors.InputError, match="52 folds .*51"):
        _read(place, data__dev="", data__folds=52)
    with pytest.raises(errors.InputError, match="52 folds .*51"):
        _read(place, data__dev="", sweep__folds=52)
    assert len(_read(place, data__dev="", sweep__folds=51)["dev"]) == 52


def test_examples_of_a_text_are_a_group():
    def question(context, question):
        return data_examples.QuestionExample("f", "0", question, context)

    made = [question("a", "?"), question("b", "?"), question("a", "!")]
    assert splits.groups_of(made).tolist() == [0, 1, 0]
    words = ((0, 1),)
    made = [
        data_examples.TaggedExample("f", "0", text, words, ("V",), at)
        for text, at in (("x", 0), ("x", 0), ("y", 0))
    ]
    assert splits.groups_of(made).tolist() == [0, 0, 1]


def test_numbers_become_the_names_of_a_file_of_classes(place):
    (place / "class.txt").write_text("kitten\npuppy\n")
    (place / "train.tsv").write_text("sentence\tlabel\na cat\t0\na dog\tpuppy\n")
    made = _read(
        place, data__labels=str(place / "class.txt"), data__folds=2, data__dev=""
    )
    assert [x.labels for x in made["train"]] == [("kitten",), ("puppy",)]


def test_a_part_keeps_rows_with_their_examples():
    owner = np.array([0, 0, 1, 2, 2])
    ids = [np.ones(length, np.int32) for length in (3, 1, 4, 2, 5)]
    table = example_rows.ExampleTable(
        {"segment_ids": ids}, {"labels": owner * 10}, owner
    )
    split = splits.Split("train", ["a", "b", "c"], table)
    part = split.part("dev", owner != 1)
    assert (part.name, part.examples) == ("dev", ["a", "c"])
    assert part.table.examples.tolist() == [0, 0, 1, 1]
    assert part.table.fixed["labels"].tolist() == [0, 0, 20, 20]
    assert part.table.lengths.tolist() == [3, 1, 2, 5]


def test_a_part_knows_which_examples_its_rows_are_of():
    ids = [np.ones(3, np.int32)] * 3
    numbers = np.array([[1, 2], [3, 0], [5, 4]], np.int32)  # counted from 1
    owners = np.array([0, 2, 3])
    table = example_rows.ExampleTable(
        {"segment_ids": ids}, {"example_numbers": numbers}, owners
    )
    split = splits.Split("train", ["a", "b", "c", "d", "e"], table)
    part = split.part("dev", np.array([False, True, True]))
    assert part.examples == ["c", "d", "e"]
    assert part.table.fixed["example_numbers"].tolist() == [[1, 0], [3, 2]]
    assert part.table.examples.tolist() == [0, 1]


def test_what_is_held_out_shares_no_text_with_training():
    questions = [
        data_examples.QuestionExample(f"f:{n}", str(n), f"{n}?", f"c{n // 4}")
        for n in range(400)
    ]
    tagged = [
        data_examples.TaggedExample(f"f:{n}", str(n), f"s{n // 3}", (), (), predicate=n)
        for n in range(300)
    ]
    for examples, of in ((questions, "context"), (tagged, "text")):
        train, dev = splits.held_out(examples, 0.2)
        assert len(dev) > 20
        assert {getattr(x, of) for x in dev}.isdisjoint(getattr(x, of) for x in train)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"data__dev": ""}, ["a", "b"]),
        ({}, ["a"]),
        ({"data__dev": "", "data__folds": 2}, ["a"]),
        ({"data__dev": "", "sweep__folds": 2}, ["a"]),
        ({"data__dev": "", "data__task": "regression"}, ["a"]),
    ],
)
def test_labels_are_those_of_the_whole_training_file(place, changes, known):
    config = tiny_tasks.config(place, **changes)
    settings = finetuning.parse(config)
    files = {"train": ["a"], "dev": ["b"]}
    assert splits.that_name_labels(settings, files) == known


class _Rows(regression.Regression):
    """A task that makes one row an example, cuts two, and does not know one token."""

    tokenizer = Tokenizer(
        "wordpiece", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), True, True
    )

    def table(self, examples):
        segments = [np.ones(n + 2, np.int32) for n in range(len(examples))]
        ids = [np.arange(2, n + 4, dtype=np.int32) for n in range(len(examples))]
        ids[0][1] = self.tokenizer.unk_id
        notes = {"rows cut": 2, "tokens cut off": 0}
        order = np.arange(len(examples))
        tokens = {"segment_ids": segments, "input_ids": ids}
        counted = coverage.Coverage(texts=3, truncated=2, tokens=9, unknown=1)
        return example_rows.ExampleTable(tokens, {}, order, notes, coverage=counted)


def test_rows_and_what_was_cut_are_said(capsys, caplog, monkeypatch):
    monkeypatch.setattr(spec, "checked", lambda of_task, examples, table: table)
    texts = [data_examples.TextExample("f", "0", text) for text in "aba"]
    made = splits.table("dev", object.__new__(_Rows), texts)
    assert made.groups is not None and made.groups.tolist() == [0, 1, 0]
    assert capsys.readouterr().err.endswith(
        "3 rows of up to 4 tokens, 9 in all, 11.1% [UNK], 66.7% truncated"
        " (rows cut: 2)\n"
    )
    unknown, cut = (record.getMessage() for record in caplog.records)
    assert unknown.startswith("dev: 11.1 % of the tokens are [UNK]")
    assert (
        cut.startswith("dev: 66.7 % of the texts are truncated")
        and "max_seq_length" in cut
    )


@pytest.mark.parametrize(
    ("train", "dev", "level", "told"),
    [
        (
            "text\tlabel\n",
            "text\tlabel\n",
            "",
            "header: text, label (data.header=false",
        ),
        ("", "", "", "taken as an example (data.header=true"),
        ("text\tnote\n", "", "WARNING", "as only 'text' is a usual name"),
        ("文本\t标签\n", "", "WARNING", "data.dev as an example"),
    ],
)
def test_what_first_lines_are_taken_as_is_reported(
    tmp_path, capsys, caplog, train, dev, level, told
):
    tiny_tasks.write_vocab(tmp_path)
    for name, header in (("train", train), ("dev", dev)):
        rows = f"{header}the cat\ta\nthe dog\tb\n"
        (tmp_path / f"{name}.tsv").write_text(rows, encoding="utf-8")
    columns = {"data__columns__text": "1", "data__columns__label": "2"}
    made = _read(tmp_path, **columns)
    counted = 2 + (train == "text\tnote\n")
    assert {name: len(x) for name, x in made.items()} == {"train": counted, "dev": 2}
    said = capsys.readouterr().err
    assert told in (caplog.text if level else said)
    assert {x.levelname for x in caplog.records} == {level} - {""}
    warned = [x.getMessage() for x in caplog.records]  # which may be on stderr, too
    for message in warned:
        said = said.replace(message, "")
    count = len(warned) + said.count("first line ")
    assert count == 2 + (train == "文本\t标签\n")


def test_a_first_line_that_the_config_describes_is_not_reported(place, capsys, caplog):
    _read(place, data__header="True")
    assert "first line" not in capsys.readouterr().err + caplog.text
    _read(
        place, data__header="false", data__columns__text="1", data__columns__label="2"
    )
    assert "are usual names of columns (data.header=true" in caplog.text


@pytest.mark.parametrize("labels", ["cat,dog", ""])
def test_repair_leaves_out_a_label_that_is_no_class(place, capsys, labels):
    path = place / "train.tsv"
    path.write_text(path.read_text() + "the cat\tcta\n", encoding="utf-8")
    settings = finetuning.parse(tiny_tasks.config(place, data__labels=labels))
    with pytest.raises(errors.InputError, match=r"train.tsv:52: .*'cta'.*data\.repair"):
        tasks.of(settings).learn(settings, splits.read(settings)["train"])
    made = _read(place, data__labels=labels, data__repair=True)["train"]
    assert len(made) == 50 and {x.labels for x in made} == {("cat",), ("dog",)}
    said = capsys.readouterr().err
    assert f"{splits.UNKNOWN}: 1, first at {path}:52" in said


def test_repair_leaves_out_a_sentence_with_a_tag_of_no_scheme(place, capsys):
    path = place / "train.conll"
    path.write_text("the O\ncat B-X\nsat O\n\n" * 9 + "a 0\ndog B-X\n\n")
    given = {"data__task": "tagging", "data__train": str(path), "data__dev": str(path)}
    settings = finetuning.parse(tiny_tasks.config(place, **given))
    with pytest.raises(errors.InputError, match=r"train.conll:37: .*'0'.*data\.repair"):
        tasks.of(settings).learn(settings, splits.read(settings)["train"])
    made = _read(place, data__repair=True, **given)
    assert [len(made[name]) for name in ("train", "dev")] == [9, 9]
    assert f"{splits.UNKNOWN}: 1, first at {path}:37" in capsys.readouterr().err
