"""Questions on contexts, in the shapes of their publishers."""

import json

import pytest
from example_files import iterate, read, refused, write

from bert_jax.data.labeled import examples

CONTEXT = "猫在树上。狗在树下，猫在家。"


def question(name="q1", text="猫在哪里？", *answers, **more):
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": text, "answers": listed, **more}


def document(*questions, context=CONTEXT):
    paragraphs = [{"context": context, "qas": list(questions)}]
    return {"version": "2.0", "data": [{"title": "猫", "paragraphs": paragraphs}]}


def file_of(tmp_path, value, name="c.json"):
    return write(tmp_path, json.dumps(value, ensure_ascii=False), name)


def test_questions_have_their_answers_and_their_place(tmp_path):
    path = file_of(
        tmp_path,
        document(
            question("q1", "猫？", ("树上", 2), ("在树上", 1)),
            question("q2", "鱼？", is_impossible=True),
        ),
    )
    at = f"{path}: data[0].paragraphs[0].qas"
    found = read(path, "span")
    assert found.notes == {}
    assert found.examples == [
        examples.QuestionExample(
            f"{at}[0] (question q1)",
            "q1",
            "猫？",
            CONTEXT,
            (examples.Answer("树上", 2), examples.Answer("在树上", 1)),
            title="猫",
        ),
        examples.QuestionExample(
            f"{at}[1] (question q2)", "q2", "鱼？", CONTEXT, (), True, True, "猫"
        ),
    ]


def test_a_list_of_contexts_as_cmrc_has_it(tmp_path):
    qas = [{"query_id": "D_0", "query_text": "狗？", "answers": ["树下", "在树下"]}]
    contexts = [{"context_id": "D", "context_text": CONTEXT, "qas": qas}]
    path = file_of(tmp_path, contexts)
    refused(
        r"data\[0\]\.qas\[0\] .*'树下' has no answer_start.*moved to 7", path, "span"
    )
    found = read(path, "span", repair=True)
    (example,) = found.examples
    assert (example.id, example.question) == ("D_0", "狗？")
    assert example.answers == (examples.Answer("树下", 7), examples.Answer("在树下", 6))
    assert found.notes == {"answers moved to where their text is": 2}


def test_flat_records_are_questions_too(tmp_path):
    path = write(
        tmp_path,
        json.dumps(
            {
                "id": 5,
                "context": CONTEXT,
                "question": "狗？",
                "answers": {"text": ["树下"], "answer_start": [7]},
            }
        )
        + "\n"
        + json.dumps({"context": CONTEXT, "question": "鱼？"}),
        "c.json",
    )
    first, second = iterate(path, "span")
    assert (first.where, first.id, first.labeled) == (f"{path}:1", "5", True)
    assert first.answers == (examples.Answer("树下", 7),)
    assert (second.id, second.answers, second.labeled) == ("1", (), False)
    refused(r"c\.json:2 has no answer", path, "span")


def test_answers_that_stand_elsewhere_are_moved_to_the_nearest_place(tmp_path):
    path = file_of(
        tmp_path,
        document(
            question("a", "?", ("猫", 8)),
            question("b", "?", ("猫", 1), ("鱼", 0)),
            question("c", "?", ("鱼", 0)),
            question("d", "?", ("。", -1)),
        ),
    )
    refused(r"\(question a\): the answer '猫' .* 8, .*to 10", path, "span")
    found = read(path, "span", repair=True)
    assert [(e.id, [a.start for a in e.answers]) for e in found.examples] == [
        ("a", [10]),
        ("b", [0]),
        ("d", [4]),
    ]
    assert found.notes == {
        "answers moved to where their text is": 3,
        "answers left out that are not in their context": 2,
        "questions left out that are left without an answer": 1,
    }


def test_ids_that_come_twice_are_refused_or_numbered(tmp_path):
    several = [question(name, "?", ("猫", 0)) for name in ("a", "a", "a#2", "a")]
    path = file_of(tmp_path, document(*several))
    refused(r"qas\[1\] .*: the id 'a' is already used at .*qas\[0\]", path, "span")
    found = read(path, "span", repair=True)
    assert [e.id for e in found.examples] == ["a", "a#2", "a#2#2", "a#3"]
    assert found.notes == {"ids that came again and got a number": 3}


def test_other_contradictions_are_refused_or_repaired(tmp_path):
    impossible = question("a", "?", ("猫", 0), is_impossible=True)
    path = file_of(tmp_path, document(impossible))
    refused(r"\(question a\) is marked impossible", path, "span")
    found = read(path, "span", repair=True)
    assert (found.examples[0].answers, found.examples[0].impossible) == ((), True)
    assert found.notes == {"answers left out of questions said to have none": 1}
    path = file_of(tmp_path, document(question("a", " ", ("猫", 0))))
    refused(r"\(question a\): the text in 'question' is empty", path, "span")
    found = read(path, "span", repair=True)
    assert found.examples[0].question == " "
    assert found.notes == {"questions that are empty": 1}


def test_questions_without_answers_can_be_streamed(tmp_path):
    path = file_of(tmp_path, document({"id": 1, "question": "?"}, question("b")))
    assert [(e.id, e.labeled) for e in iterate(path, "span")] == [
        ("1", False),
        ("b", False),
    ]
    refused(r"\(question 1\) has no answer", path, "span")


@pytest.mark.parametrize(
    "value, message",
    [
        ({"a": 1}, r"c\.json has no 'data'"),
        ({"data": {}}, r"c\.json: data is not a list"),
        ({"data": [1]}, r"data\[0\] is not an object"),
        ({"data": [{"paragraphs": [1]}]}, r"data\[0\]\.paragraphs\[0\] is not"),
        ({"data": [{"title": "t"}]}, r"data\[0\] has no 'qas'"),
        ({"data": [{"qas": []}]}, r"data\[0\] has no 'context' or 'context_text'"),
        (document(1), r"qas\[0\] is not an object"),
        (document({"question": "?"}), r"qas\[0\] has no 'id' or 'query_id'"),
        (document({"id": "", "question": "?"}), r"qas\[0\] has an empty id"),
        (document({"id": "a"}), r"\(question a\) has no 'question' or 'query_text'"),
        (
            document(question(), context=" "),
            r"paragraphs\[0\]: the text in 'context' is",
        ),
        (
            document({"id": 1, "question": "?", "answers": [{"text": True}]}),
            "has an answer that is not a text",
        ),
        (
            document({"id": 1, "question": "?", "answers": [True]}),
            "has an answer that is not a text",
        ),
        (document({"id": 1, "question": "?", "answers": "猫"}), "answers is not"),
        (document(question("a", "?", ("猫", "0"))), "has the answer_start '0'"),
        (
            document(
                {
                    "id": 1,
                    "question": "?",
                    "answers": {"text": ["猫"], "answer_start": []},
                }
            ),
            "different numbers of answers",
        ),
        ({"data": []}, r"c\.json has no example"),
    ],
)
def test_documents_of_another_shape_are_named(tmp_path, value, message):
    refused(message, file_of(tmp_path, value), "span", format="squad")


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"data": [', r"c\.json is not JSON"),
        (b'{\n"data": "\xff"}', r"c\.json:2: byte 10 of the line .* is not UTF-8"),
    ],
)
def test_files_that_are_no_json_are_named(tmp_path, content, message):
    refused(message, write(tmp_path, content, "c.json"), "span", format="squad")
