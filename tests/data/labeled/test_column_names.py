"""Columns that are named, numbered or guessed."""

import pytest

from bert_jax import errors, tasks
from bert_jax.data.labeled import column_names, examples

USUAL = {
    "CoLA test": ("index sentence", "sentence", None, None),
    "SST-2": ("sentence label", "sentence", None, "label"),
    "MRPC": (
        "Quality|#1 ID|#2 ID|#1 String|#2 String",
        "#1 String",
        "#2 String",
        "Quality",
    ),
    "QQP": (
        "id qid1 qid2 question1 question2 is_duplicate",
        "question1",
        "question2",
        "is_duplicate",
    ),
    "QNLI": ("index question sentence label", "question", "sentence", "label"),
    "MNLI": (
        "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse "
        "sentence1_parse sentence2_parse sentence1 sentence2 label1 gold_label",
        "sentence1",
        "sentence2",
        "gold_label",
    ),
    "TNEWS": ("label label_desc sentence keywords", "sentence", None, "label"),
    "CMNLI": ("sentence1 sentence2 label", "sentence1", "sentence2", "label"),
    "CSL": ("id abst keyword label", "keyword", "abst", "label"),
    "SICK": (
        "pair_ID sentence_A sentence_B relatedness_score entailment_judgment",
        "sentence_A",
        "sentence_B",
        "entailment_judgment",
    ),
    "TFDS imdb": ("label text", "text", None, "label"),
    "NLI": ("premise hypothesis label", "premise", "hypothesis", "label"),
}


def choose(names, task="classification", **options):
    split = names.split("|" if "|" in names else " ")
    columns = examples.ColumnNames(**options.pop("columns", {}))
    request = examples.ExampleRequest(
        "f", tasks.TASKS[task].form, columns=columns, **options
    )
    return column_names.choose_columns(split, request, "f:2")


@pytest.mark.parametrize("name", USUAL)
def test_usual_names_are_known(name):
    names, text, pair, label = USUAL[name]
    chosen = choose(names, needs_labels=label is not None)
    assert (chosen.text, chosen.text_pair, chosen.label) == (text, pair, label)
    assert chosen.score is None


def test_ids_are_guessed_and_can_be_refused():
    assert choose("id text label").id == "id"
    assert choose("pair_ID text label").id == "pair_ID"
    assert choose("id text label", columns={"id": "none"}).id is None


def test_numbers_and_names_are_taken_as_given():
    chosen = choose("1 2 3 4", columns={"text": "4", "label": "-3"})
    assert (chosen.text, chosen.text_pair, chosen.label) == ("4", None, "2")
    chosen = choose("a b 1", columns={"text": "1", "text_pair": "-2", "label": "a"})
    assert (chosen.text, chosen.text_pair, chosen.label) == ("1", "b", "a")


def test_a_pair_is_guessed_only_with_its_text():
    names = "sentence1 sentence2 label"
    assert choose(names, columns={"text": "sentence1"}).text_pair is None
    assert choose(names, columns={"text_pair": "none"}).text_pair is None


def test_a_regression_has_a_score_that_may_be_called_its_label():
    names = "index genre sentence1 sentence2 score"
    chosen = choose(names, "regression")
    assert (chosen.score, chosen.label) == ("score", None)
    assert choose("text label", "regression").score == "label"
    assert choose("text y", "regression", columns={"label": "y"}).score == "y"


def test_matching_has_a_label_or_a_score_or_neither():
    chosen = choose(USUAL["SICK"][0], "matching")
    assert (chosen.label, chosen.score) == (None, "relatedness_score")
    named = {"label": "entailment_judgment"}
    chosen = choose(USUAL["SICK"][0], "matching", columns=named)
    assert (chosen.label, chosen.score) == ("entailment_judgment", "relatedness_score")
    assert choose("sentence1 sentence2 label", "matching").label == "label"
    chosen = choose("sentence1 sentence2", "matching")
    assert (chosen.label, chosen.score) == (None, None)


def test_one_column_without_a_name_is_the_text():
    assert choose("1", needs_labels=False).text == "1"


def test_labels_that_are_not_needed_may_be_missing_though_they_are_named():
    columns = {"text": "1", "label": "gold"}
    assert choose("1", needs_labels=False, columns=columns).label is None
    assert choose("1", needs_labels=False, columns=columns | {"label": "2"}).label is (
        None
    )
    chosen = choose("1 2", needs_labels=False, columns=columns | {"label": "2"})
    assert chosen.label == "2"


@pytest.mark.parametrize(
    "names, context, begin, choices",
    [
        (
            "video-id fold-ind startphrase sent1 sent2 gold-source ending0 ending1 "
            "ending2 ending3 label",
            "sent1",
            "sent2",
            ("ending0", "ending1", "ending2", "ending3"),
        ),
        (
            "startphrase ending1 ending0 label",
            "startphrase",
            None,
            ("ending0", "ending1"),
        ),
        ("ind ctx_a ctx_b ctx endings label", "ctx_a", "ctx_b", ("endings",)),
        ("article question options answer", "article", "question", ("options",)),
        ("id question A B C D answer", "question", None, ("A", "B", "C", "D")),
        ("context choices label", "context", None, ("choices",)),
        ("premise choice1 choice2 label", "premise", None, ("choice1", "choice2")),
    ],
)
def test_choices_are_known_by_their_usual_names(names, context, begin, choices):
    chosen = choose(names, "multiple_choice")
    assert (chosen.text, chosen.text_pair, chosen.choices) == (context, begin, choices)
    assert chosen.label in ("label", "answer")


def test_choices_are_taken_as_given():
    chosen = choose(
        "q x y l",
        "multiple_choice",
        columns={"text": "q", "choices": ("x", "3"), "label": "l"},
    )
    assert chosen.choices == ("x", "y")


@pytest.mark.parametrize(
    "names, task, columns, message",
    [
        ("a b", "classification", {}, "f:2: .* text .*'a', 'b'"),
        ("text b", "classification", {}, "label .*columns.label"),
        ("text b", "regression", {}, "score .*data.columns.score"),
        (
            "text label",
            "classification",
            {"label": "lable"},
            "f:2: there is no column 'lable' for data.columns.label, only 'text', 'lab",
        ),
        ("text label", "classification", {"text": "x"}, "'x' for data.columns.text,"),
        (
            "1 2",
            "classification",
            {"text": "text", "label": "2"},
            "only columns 1 to 2 without names .data.header=true names them",
        ),
        ("1 2", "classification", {"text": "3"}, "no column '3' .* numbered 1 to 2"),
        ("1 2", "classification", {"text": "0"}, "no column '0' .* from the end -1"),
        ("1 2", "classification", {"text": "-3"}, "no column '-3' for data.columns.t"),
        ("text label", "multiple_choice", {}, "choices among"),
    ],
)
def test_columns_that_are_not_there_are_errors_that_list_those_that_are(
    names, task, columns, message
):
    with pytest.raises(errors.InputError, match=message):
        choose(names, task, columns=columns)


@pytest.mark.parametrize(
    ("line", "given", "options", "expected"),
    [
        ("sentence label", {}, {}, True),
        ("Sentence LABEL", {}, {}, True),
        ("phrase kind", {}, {}, False),
        ("phrase kind", {"text": "phrase"}, {}, True),
        ("phrase kind", {"text": "sentence"}, {}, True),
        ("phrase kind", {"choices": ("a", "b")}, {}, True),
        ("phrase kind", {"text": "1", "id": "none"}, {}, False),
        ("phrase none", {"text": "1", "id": "none"}, {}, False),
        ("phrase kind", {"text": "sentence"}, {"needs_labels": False}, False),
        ("phrase kind", {"text": "kind"}, {"needs_labels": False}, True),
        ("phrase kind", {}, {"header": "true"}, True),
        ("sentence label", {}, {"header": "false"}, False),
        ("text note", {}, {}, False),
        ("note label", {"text": "1", "label": "2"}, {}, False),
        ("text text", {}, {}, False),
        ("text", {}, {}, False),
        ("文本", {}, {}, False),
        ("内容 标签", {}, {}, True),
        ("\ufeff文本 \u200b类别", {}, {}, True),
        ("编号 评论内容", {}, {}, True),
        ("问题 答案", {}, {}, True),
        ("index sentence", {}, {"needs_labels": False}, True),
        ("id prompt 选项1", {}, {}, True),
        ("text", {"text": "text"}, {"needs_labels": False}, True),
    ],
)
def test_a_header_is_known_by_its_names_or_by_those_that_are_given(
    line, given, options, expected
):
    columns = examples.ColumnNames(**given)
    request = examples.ExampleRequest(
        "f", tasks.TASKS["classification"].form, columns=columns, **options
    )
    assert column_names.is_header(line.split(" "), request) is expected


@pytest.mark.parametrize(
    ("line", "rows", "expected"),
    [
        ("comment_text,toxic", ["a,0", "b,1"], True),
        ("tweet,insult", ["a,0.5", "b,-1"], True),
        ("label,phrase", ["1,a", "0,b"], True),
        (",text", ["0,a", "1,b"], True),
        ("text", ["1,a", "2,b"], True),  # the numbers of R's rows
        ("text,phrase", ["a,b", "c,d"], False),
        ("text,1", ["a,0", "b,1"], False),
        ("text,spam", ["a,ham", "b,3"], False),
        ("text,", ["a,3", "b,4"], False),
        ("text", ["1", "2"], False),
        ("text,toxic", ["a,0", "b"], False),
        ("text,toxic", [], False),
        ("phrase,toxic", ["a,0", "b,1"], False),  # no usual name
    ],
)
def test_a_header_with_one_usual_name_is_above_numbers(line, rows, expected):
    request = examples.ExampleRequest("f", tasks.TASKS["classification"].form)
    following = [row.split(",") for row in rows]
    assert column_names.is_header(line.split(","), request, following) is expected
