"""Texts, labels and scores, and what is none."""

import pytest

from bert_jax import errors
from bert_jax.data.labeled import table_records

BAD = errors.InputError


def test_a_text_is_kept_as_it_is():
    assert table_records.text(" a  b\t", "x", "f:1") == " a  b\t"
    assert table_records.text(["水稻", "土壤"], "keyword", "f:1") == "水稻 土壤"


@pytest.mark.parametrize(
    "value, message",
    [
        (" \u3000", "f:3: the text in 'x' is empty"),
        ([], "f:3: the text in 'x' is empty"),
        (7, "f:3: 'x' is 7"),
        (None, "'x' is null"),
        ([1, 2], r"'x' is \[1, 2\]"),
        ("a\ud83d", "character 1 of .* half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_named(value, message):
    with pytest.raises(BAD, match=message):
        table_records.text(value, "x", "f:3")


@pytest.mark.parametrize(
    "value, spelled",
    [
        ("News ", "News"),
        ("1", "1"),
        (1, "1"),
        (1.0, "1.0"),
        (True, "true"),
        ("", None),
        (" ", None),
        (None, None),
    ],
)
def test_labels_are_spelled_as_json_spells_them(value, spelled):
    assert table_records.label(value, "f:1") == spelled
    assert table_records.labels(value, "", "f:1") == (spelled and (spelled,))


@pytest.mark.parametrize(
    "value, several",
    [
        ("a|b", ("a", "b")),
        ("a", ("a",)),
        (" b | a ", ("b", "a")),
        ("", ()),
        ([], ()),
        (["x|y", 3], ("x|y", "3")),
        (5, ("5",)),
        (None, None),
    ],
)
def test_several_labels_are_cut_at_the_separator_or_listed(value, several):
    assert table_records.labels(value, "|", "f:1") == several


@pytest.mark.parametrize(
    "value, separator, message",
    [
        (
            ["a", "b"],
            "",
            r"f:1: .* list \[\"a\", \"b\"\]. Train with data.multi_label=true",
        ),
        ("['a', 'b']", "", "f:1: .*Train with data.multi_label=true"),
        ("[a, b]", "", "f:1: .*looks like a list"),
        ("[a, b]", "|", "f:1: .*looks like a list"),
        ("a|b", "true", "data.multi_label is true.*multi_label=.\\|"),
        ("a, b", "true", "data.multi_label is true"),
        ({"a": 1}, "", "the label is .*data.columns.label"),
        ("a||b", "|", "an empty or duplicate one"),
        (["a", "a"], "|", "an empty or duplicate one"),
        (["a", None], "|", "an empty or duplicate one"),
        ([["a"]], "|", "include a list"),
    ],
)
def test_labels_that_are_none_are_named(value, separator, message):
    with pytest.raises(BAD, match=message):
        table_records.labels(value, separator, "f:1")


@pytest.mark.parametrize(
    "value, number",
    [
        ("4.5", 4.5),
        (" -1e3 ", -1000.0),
        (3, 3.0),
        (0.25, 0.25),
        ("", None),
        (None, None),
    ],
)
def test_scores_are_numbers(value, number):
    assert table_records.score(value, "f:1") == number


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-Infinity", "4,5", "1_0", "x", True, float("nan"), [1]]
)
def test_a_score_that_is_no_finite_number_is_named(value):
    with pytest.raises(BAD, match="f:9: the score is "):
        table_records.score(value, "f:9")


@pytest.mark.parametrize(
    "value, several",
    [
        ("['a', 'b c']", ("a", "b c")),
        ('["a","b"]', ("a", "b")),
        ("['a' 'b']", ("a", "b")),
        ("('a', 'b')", ("a", "b")),
        ("{'b', 'a'}", ("a", "b")),
        ("[]", ()),
        ("[2, 7]", ("2", "7")),
        ("[0, 1, 1]", ("1", "2")),
        ("[0 1 1]", ("1", "2")),
        ("[0. 1. 1.]", ("1", "2")),
        ([1, 0, 1], ("0", "2")),
        ("single", ("single",)),
        ("[sic]", ("[sic]",)),
    ],
)
@pytest.mark.parametrize("separator", ["true", "True", "#"])
def test_lists_of_labels_may_be_spelled_as_text(value, several, separator):
    assert table_records.labels(value, separator, "f:1") == several


@pytest.mark.parametrize(
    "value, single",
    [(["a"], "a"), ("['a']", "a"), ('["a"]', "a"), ([3], "3"), ("(0, 10)", "(0, 10)")],
)
def test_a_list_of_one_label_is_that_label(value, single):
    assert table_records.labels(value, "", "f:1") == (single,)
