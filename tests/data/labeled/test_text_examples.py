"""Examples of one text, two texts and choices, from their files."""

import json

import pytest
from example_files import columns, iterate, read, refused, write

from bert_jax.data.labeled import examples


def json_lines(tmp_path, *objects):
    return write(
        tmp_path, "".join(map("{}\n".format, map(json.dumps, objects))), "c.jsonl"
    )


def test_a_classification_example_knows_its_line(tmp_path):
    path = write(tmp_path, "id\tsentence\tlabel\n7\t a b\tpos\nx\tc\tneg\n")
    found = read(path)
    assert found.notes == {}
    assert found.examples == [
        examples.TextExample(f"{path}:2", "7", " a b", None, ("pos",), None),
        examples.TextExample(f"{path}:3", "x", "c", None, ("neg",), None),
    ]


def test_columns_by_number_and_examples_numbered_from_0(tmp_path):
    path = write(tmp_path, "gj04\t1\t\tA b.\ncj99\t0\t*\tC d.\n")
    found = read(path, columns=columns(text="4", label="2")).examples
    assert [(e.id, e.text, e.labels) for e in found] == [
        ("0", "A b.", ("1",)),
        ("1", "C d.", ("0",)),
    ]


def test_a_regression_has_scores_and_matching_both(tmp_path):
    path = write(
        tmp_path,
        "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
        "4\ta\tb\t3.6\tNEUTRAL\n",
    )
    where = f"{path}:2"
    assert read(path, "regression").examples == [
        examples.TextExample(where, "4", "a", "b", None, 3.6)
    ]
    assert read(path, "matching").examples == read(path, "regression").examples
    named = columns(label="entailment_judgment")
    assert read(path, "matching", columns=named).examples == [
        examples.TextExample(where, "4", "a", "b", ("NEUTRAL",), 3.6)
    ]
    assert read(path).examples == [
        examples.TextExample(where, "4", "a", "b", ("NEUTRAL",), None)
    ]


def test_json_lines_may_differ_in_their_keys(tmp_path):
    path = json_lines(
        tmp_path,
        {"label": 102, "sentence": "上课时学生手机响", "keywords": ""},
        {"sentence": "商赢环球", "label_desc": "news_stock", "label": "104"},
    )
    found = read(path).examples
    assert [(e.text, e.labels) for e in found] == [
        ("上课时学生手机响", ("102",)),
        ("商赢环球", ("104",)),
    ]


def test_several_labels_are_a_list_or_parted_by_a_separator(tmp_path):
    path = json_lines(
        tmp_path, {"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}
    )
    found = read(path, multi_label=",").examples
    assert [e.labels for e in found] == [("x", "y"), ()]
    path = write(tmp_path, "text\tlabel\na\tx,y\nb\t\n")
    found = read(path, multi_label=",").examples
    assert [e.labels for e in found] == [("x", "y"), ()]


def test_labels_can_be_left_out(tmp_path):
    path = write(tmp_path, "premise\thypothesis\tlabel\na\tb\t-\nc\td\tyes\n")
    found = read(path, skip_labels=("-",))
    assert [(e.id, e.text) for e in found.examples] == [("1", "c")]
    assert found.notes == {"examples left out for their label": 1}


def test_streaming_takes_labels_where_there_are_any(tmp_path):
    path = json_lines(tmp_path, {"text": "a"}, {"text": "b", "label": 1})
    assert [e.labels for e in iterate(path)] == [None, ("1",)]
    path = write(tmp_path, "just one text\nand another\n", "c.tsv")
    assert [(e.text, e.labels) for e in iterate(path)] == [
        ("just one text", None),
        ("and another", None),
    ]


def test_matching_needs_no_labels_but_all_or_none(tmp_path):
    path = json_lines(tmp_path, {"sentence1": "a", "sentence2": "b"})
    (found,) = read(path, "matching").examples
    assert (found.text_pair, found.labels, found.score) == ("b", None, None)
    path = write(tmp_path, "text1\ttext2\tscore\na\tb\t1\nc\td\t\n")
    refused(r"c\.tsv:3: the score is missing, and 1 of 2", path, "matching")
    path = json_lines(tmp_path, {"text": "a", "label": 0}, {"text": "b"})
    refused(r"c\.jsonl:2: the label is missing, and 1 of 2", path, "matching")


@pytest.mark.parametrize(
    "content, message",
    [
        ("text\tlabel\na\t1\n \t1\n", r"c\.tsv:3: the text in 'text' is empty"),
        ("text\tlabel\na\t1\nb\t \n", r"c\.tsv:3: the label is missing\. Fill it"),
        (
            "id\ttext\tlabel\n1\ta\t1\n1\tb\t1\n",
            r"c\.tsv:3: the id '1' is already used at",
        ),
        ("id\ttext\tlabel\n\ta\t1\n", r"c\.tsv:2: the id in 'id' is empty"),
        ("sentence1\tsentence2\tlabel\na\t\t1\n", "the text in 'sentence2' is empty"),
    ],
)
def test_bad_examples_are_named_with_their_line(tmp_path, content, message):
    refused(message, write(tmp_path, content))


def test_a_score_that_is_none_is_named(tmp_path):
    path = write(tmp_path, "text\tscore\na\t1\nb\tnan\n")
    refused(r"c\.tsv:3: the score is \"nan\"", path, "regression")
    path = write(tmp_path, "text\tscore\na\t1\nb\t\n")
    refused(r"c\.tsv:3: the score is missing", path, "regression")


def test_the_choices_of_swag_begin_with_the_second_sentence(tmp_path):
    path = write(
        tmp_path,
        "id,startphrase,sent1,sent2,ending0,ending1,ending2,label\n"
        'q,A man. He,A man.,He,"runs, fast.",sits.,sings.,2\n',
        "c.csv",
    )
    assert read(path, "multiple_choice").examples == [
        examples.ChoiceExample(
            f"{path}:2", "q", "A man.", ("He runs, fast.", "He sits.", "He sings."), 2
        )
    ]


def test_choices_are_a_list_and_their_label_a_letter(tmp_path):
    path = json_lines(
        tmp_path,
        {"context": "x", "choices": ["a", "b", "c"], "label": "B"},
        {"context": "y", "choices": ["d", "e"], "label": 1},
    )
    found = read(path, "multiple_choice").examples
    assert [(e.id, e.choices, e.label) for e in found] == [
        ("0", ("a", "b", "c"), 1),
        ("1", ("d", "e"), 1),
    ]
    path = json_lines(
        tmp_path,
        {"article": "文", "question": "谁？", "options": ["我", "他"], "answer": "a"},
    )
    (found,) = read(path, "multiple_choice").examples
    assert (found.context, found.choices, found.label) == (
        "文",
        ("谁？我", "谁？他"),
        0,
    )
    path = json_lines(tmp_path, {"context": "x", "choices": ["a", "b"]})
    assert iterate(path, "multiple_choice")[0].label is None


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"label": 2}, "c.jsonl:1: the label '2' .* A to B"),
        ({"label": "C"}, "the label 'C' is not one of the 2 choices"),
        ({"label": -1}, "the label '-1' "),
        ({"label": "a b"}, "the label 'a b' "),
        ({"label": None}, "c.jsonl:1: the label is missing"),
        ({"choices": ["a"]}, "'choices' has no list of two or more choices"),
        ({"choices": "a"}, "'choices' has no list of two or more choices"),
        ({"choices": ["a", ""]}, "the text in 'choices' is empty"),
    ],
)
def test_bad_choices_are_named(tmp_path, changed, message):
    record = {"context": "x", "choices": ["a", "b"], "label": 0} | changed
    refused(message, json_lines(tmp_path, record), "multiple_choice")


def test_one_column_a_label(tmp_path):
    rows = ["id,comment_text,toxic,threat,insult", "a1,x,0,1,1", "a2,y,0,0,0"]
    path = write(tmp_path, "\n".join(rows), "c.csv")
    for label in ("toxic,threat,insult", "toxic+threat+insult", "3,4,-1"):
        found = read(path, multi_label="true", columns=columns(label=label)).examples
        assert [(x.id, x.labels) for x in found] == [
            ("a1", ("threat", "insult")),
            ("a2", ()),
        ]
    named = columns(label="toxic,threat")
    refused("0 or 1", write(tmp_path, "comment_text,toxic,threat\nx,0,2\n", "c.csv"),
            multi_label="true", columns=named)  # fmt: skip
    refused("no column 'toxic,threat'.*multi_label=true", path, columns=named)
    refused("with commas", path, multi_label="true")
    bare = write(tmp_path, "comment_text\nx\n", "d.csv")
    assert iterate(bare, multi_label="true", columns=named)[0].labels is None
    kept = write(tmp_path, "comment_text,toxic,threat\nx,-1,-1\n", "e.csv")
    refused("e.csv:2: the label is missing", kept, multi_label="true", columns=named)


@pytest.mark.parametrize("spelled", ['"[{}]"', '"[ {} ]"'])
def test_lists_of_0_and_1_are_flags_where_all_lists_are(tmp_path, spelled):
    def labels(*lists):
        rows = [f"x,{spelled.format(', '.join(map(str, each)))}" for each in lists]
        path = write(tmp_path, "\n".join(["text,label", *rows]), "c.csv")
        return [x.labels for x in read(path, multi_label="true").examples]

    assert labels([0, 1], [1, 0], [0, 0]) == [("1",), ("0",), ()]
    assert labels([0, 1], [2], []) == [("0", "1"), ("2",), ()]
    assert labels([0, 1], [1, 2]) == [("0", "1"), ("1", "2")]
