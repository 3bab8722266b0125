"""What a person or a program hands over: texts, pairs, questions, choices."""

import dataclasses

import numpy as np
import pytest

from bert_jax import errors, tasks
from bert_jax.data.labeled import examples, python_examples, text_examples


def one(task, value):
    (made,) = python_examples.examples_of_values(tasks.TASKS[task].form, [value])
    return made


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(
    ("value", "pair"),
    [("a cat", None), (("a cat",), None), (("a cat", "sat"), "sat")]
    + [(["a cat", "sat"], "sat"), ({"text": "a cat"}, None)]
    + [({"text_pair": "sat", "text": "a cat"}, "sat")],
)
def test_texts_and_pairs(task, value, pair):
    expected = examples.TextExample("values[0]", "0", "a cat", pair)
    assert one(task, value) == expected


def test_matching_needs_both_texts():
    made = one("matching", ("a cat", "sat"))
    assert made == examples.TextExample("values[0]", "0", "a cat", "sat")


def test_values_are_numbered_and_know_where_they_are_from():
    made = python_examples.examples_of_values(
        tasks.TASKS["classification"].form, ["a", "b"], ["f:3", "f:9"]
    )
    assert [(x.where, x.id, x.text) for x in made] == [
        ("f:3", "0", "a"),
        ("f:9", "1", "b"),
    ]
    value = {"id": "x7", "text": "a"}
    assert one("classification", value).id == "x7"
    assert one("tagging", {"id": 7, "text": "a"}).id == "7"


def test_questions_have_no_answer_to_learn():
    made = one("span", ("who ?", "the cat sat"))
    assert made == examples.QuestionExample(
        "values[0]", "0", "who ?", "the cat sat", labeled=False
    )
    assert one("span", {"context": "the cat sat", "question": "who ?"}) == made


def test_choices_are_a_list():
    made = one("multiple_choice", ("a cat", ["sat", "ran", "flew"]))
    assert made == examples.ChoiceExample(
        "values[0]", "0", "a cat", ("sat", "ran", "flew")
    )


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("the  cat sat.", ["the", "cat", "sat", "."]),
        ("我爱U2吗？那猫", ["我", "爱", "U2", "吗", "？", "那", "猫"]),
        ("don't", ["don", "'", "t"]),
        ("Größe_1 -3", ["Größe_1", "-", "3"]),
        ("３Ａ", ["３", "Ａ"]),
        ("\u3000猫\u00a0x", ["猫", "x"]),
    ],
)
def test_tokens_of_running_text_keep_their_characters(text, tokens):
    made = one("tagging", text)
    assert [made.text[a:b] for a, b in made.tokens] == tokens
    assert (made.text, made.tags, made.predicate) == (text, None, None)


@pytest.mark.parametrize(
    ("predicate", "token"),
    [("ran", 2), ("the", 0), ("home", 3), ((8, 11), 2), ([4, 7], 1), ("hom", 3)],
)
def test_a_predicate_is_a_word_or_its_characters(predicate, token):
    assert one("srl", ("the cat ran home", predicate)).predicate == token


def test_a_predicate_of_chinese_stands_on_its_first_character():
    assert one("srl", ("那猫喜欢跑", "喜欢")).predicate == 2


@pytest.mark.parametrize(
    ("task", "value", "place"),
    [
        ("classification", ("a", "b", "c"), " is ('a', 'b', 'c')"),
        ("classification", {"txt": "a"}, " is {"),
        ("classification", {"text_pair": "a"}, " is {"),
        ("classification", {"text": "a", "txt": "b"}, " is {"),
        ("classification", ("a", None), ": text_pair is None"),
        ("classification", {"text": "a", "id": 1.5}, ": id is 1.5"),
        ("matching", "a", " is 'a'"),
        ("span", (3, "a"), ": question is 3"),
        ("span", "who ?", " is 'who ?'"),
        ("tagging", ("a", "b"), " is ('a', 'b')"),
        ("tagging", "a \ud800 cat", ": character 2"),
        ("tagging", ["a", None], ": tokens is"),
        ("tagging", ["a", " "], ": tokens is"),
        ("tagging", {"tokens": "a"}, ": tokens is 'a'"),
        ("multiple_choice", "a cat", " is 'a cat'"),
        ("multiple_choice", ("a", ["b", None]), ": choices is"),
        ("multiple_choice", ("a", ["b", "\udcff"]), ": character 0"),
        ("multiple_choice", ("a cat", "sat"), ": choices is 'sat'"),
        ("multiple_choice", ("a cat", ["sat"]), ": choices is ['sat']"),
        ("srl", (None, "ran"), ": text is None"),
        ("srl", "the cat ran", " is 'the cat ran'"),
        ("srl", ("the cat ran", 2), ": predicate is 2"),
        ("srl", ("the cat ran", ["ran", "x"]), ": predicate is"),
        ("srl", ("the cat ran", [8]), ": predicate is [8]"),
        ("srl", ("the cat ran", ""), ": predicate is ''"),
        ("srl", ("the cat ran", "flew"), ": the predicate 'flew'"),
        ("srl", ("the cat ran", (3, 4)), ": the predicate (3, 4)"),
        ("srl", ("the cat ran", (80, 84)), ": the predicate (80, 84)"),
    ],
)
def test_what_a_task_does_not_take_is_named(task, value, place):
    with pytest.raises(errors.InputError) as raised:
        python_examples.examples_of_values(
            tasks.TASKS[task].form, ["the cat", value][-1:], ["f:7"]
        )
    assert str(raised.value).startswith(f"f:7{place}")


@pytest.mark.parametrize("task", tasks.TASKS)
def test_what_is_no_text_is_named_with_its_position(task):
    for wrong in (None, float("nan"), 3, b"a"):
        with pytest.raises(errors.InputError) as raised:
            python_examples.examples_of_values(tasks.TASKS[task].form, [wrong])
        assert str(raised.value).startswith(f"values[0] is {wrong!r}: ")


@pytest.mark.parametrize(
    "tokens", [["John", "lives", "here"], ["New York", "don't"], ["他", "在", "IBM"]]
)
def test_a_list_of_tokens_is_tagged_token_by_token(tokens):
    made = one("tagging", tokens)
    assert [made.text[a:b] for a, b in made.tokens] == tokens
    assert (made.text, made.tokens) == text_examples.join_tokens(tokens)
    assert one("tagging", {"tokens": tokens, "id": 7}) == dataclasses.replace(
        made, id="7"
    )


@pytest.mark.parametrize("values", ["a cat", b"a cat", {"text": "a cat"}])
def test_a_text_alone_is_no_list(values):
    with pytest.raises(errors.InputError, match='give a list of texts, as in \\["one"'):
        python_examples.examples_of_values(tasks.TASKS["classification"].form, values)


def test_values_may_be_an_array_or_come_one_by_one():
    texts = np.array(["a cat", "a dog"])
    for values in (texts, iter(texts), ("a cat", "a dog")):
        made = python_examples.examples_of_values(
            tasks.TASKS["classification"].form, values
        )
        assert [x.text for x in made] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("classification", ""),
        ("classification", ("a", "\u200b")),
        ("tagging", "  "),
        ("span", ("who ?", "")),
        ("multiple_choice", ("a cat", ["sat", " "])),
    ],
)
def test_an_empty_text_is_a_value(task, value):
    assert len(python_examples.examples_of_values(tasks.TASKS[task].form, [value])) == 1
