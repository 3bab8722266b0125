"""C3: documents of paragraphs and questions, whose answers are texts of choices."""

import json

import pytest
from example_files import iterate, read, refused, write

DIALOGUE = [
    ["男：你今天晚上有时间吗?", "女：我要去看电影。"],
    [
        {"question": "女的去哪儿?", "choice": ["学校", "电影院"], "answer": "电影院"},
        {
            "question": "谁有时间?",
            "choice": ["男的", "女的", "没有人"],
            "answer": "男的",
        },
    ],
    "15-101",
]
TEXT = "男：你今天晚上有时间吗?\n女：我要去看电影。"


def _file(tmp_path, *documents):
    return write(tmp_path, json.dumps(documents, ensure_ascii=False), "c3.json")


def test_a_question_is_an_example_of_its_choices(tmp_path):
    found = read(_file(tmp_path, DIALOGUE), "multiple_choice", format="c3").examples
    assert [(e.id, e.label) for e in found] == [("15-101-0", 1), ("15-101-1", 0)]
    assert [e.context for e in found] == [TEXT, TEXT]
    assert found[0].choices == ("女的去哪儿? 学校", "女的去哪儿? 电影院")
    assert len(found[1].choices) == 3
    assert found[1].where.endswith("c3.json: [0], question 1")


def test_questions_of_a_test_file_have_ids_and_no_answer(tmp_path):
    asked = {"question": "谁?", "choice": ["甲", "乙"], "answer": "", "id": 7}
    path = _file(tmp_path, [["甲说"], [asked], "1"])
    (found,) = iterate(path, "multiple_choice", format="c3")
    assert (found.id, found.label) == ("7", None)
    refused("question 0: the label is missing", path, "multiple_choice", format="c3")


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (["a"], r"\[0\] does not have the format of C3"),
        ([[["a"]]], r"\[0\] does not have the format of C3"),
        ([["a", []]], r"\[0\] does not have the format of C3"),
        (
            [[["a"], [{"choice": ["b", "c"]}]]],
            r"\[0\], question 0 does not have the format",
        ),
        ([[["a"], [{"question": "q", "choice": "bc"}]]], "does not have the format"),
        (
            [[["a"], [{"question": "q", "choice": ["b", "c"], "answer": "d"}]]],
            r"\[0\], question 0: the answer 'd' .* \(b, c\)",
        ),
    ],
)
def test_other_shapes_are_named(tmp_path, documents, message):
    refused(message, _file(tmp_path, *documents), "multiple_choice", format="c3")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "does not have the format of C3"), ("[[", "is not JSON")],
)
def test_files_that_are_no_list_are_named(tmp_path, content, message):
    path = write(tmp_path, content, "c3.json")
    refused(message, path, "multiple_choice", format="c3")
