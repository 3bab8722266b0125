"""The classes of characters are those of the published tokenizer."""

import re

import pytest

from bert_jax.text import characters


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("一", True),
        ("\u9fff", True),
        ("\u4dff", False),  # a hexagram, between two blocks
        ("\U0002b820", True),
        ("\U0002ceb0", False),
        ("\u2f00", False),  # a Kangxi radical
        ("々", False),
        ("カ", False),
        ("한", False),
        ("，", False),
        ("a", False),
    ],
)
def test_is_cjk(character: str, expected: bool):
    assert characters.is_cjk(character) is expected


def test_punctuation_parts_words():
    find = characters.punctuation_pattern().findall
    assert find("don't~x^2 «é»…ok_") == [
        *("don", "'", "t", "~", "x", "^", "2", "«", "é", "»", "…", "ok", "_")
    ]
    assert find(" \t\u3000") == []
    assert find("€5") == ["€5"]  # a currency sign is not punctuation, "$" is ASCII
    assert find("$5") == ["$", "5"]


def test_controls_are_removed_and_white_space_is_not():
    sub = characters.control_pattern().sub
    assert sub("", "a\x00b\x7f\x85\x0b\u200b\u200e\ufeff\xad\ufffd") == "ab"
    assert sub("", "a\tb\r\nc\u3000d\ue000") == "a\tb\r\nc\u3000d\ue000"


def test_dropped_is_controls_and_white_space():
    sub = characters.dropped_pattern().sub
    assert sub("", " a\t\u3000\xa0b\x00\u200b\u2028\ufffd.") == "ab."


def test_regex_class_is_exact():
    pattern = re.compile(f"[{characters.regex_class(['-', ']', '^', 'a', 'b'])}]")
    assert pattern.findall("\\-]^abc[") == ["-", "]", "^", "a", "b"]


def test_marks_and_chinese_are_written_without_spaces():
    pattern = re.compile(f"[{characters.CJK_AND_MARKS}]")
    assert pattern.findall("京，。「（a한, カ") == ["京", "，", "。", "「", "（"]
