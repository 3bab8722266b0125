"""What a person or a program hands over: texts, pairs, questions, choices."""

import dataclasses

import numpy as np
import pytest

from bert_jax import errors, tasks
from bert_jax.data.labeled import (
    examples,
    python_examples,
    text_examples,
)


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


WRONG = [
    ("classification", ("a", "b", "c"), "takes text and text_pair (text_pair may be"),
    ("classification", 3, "f:7 is 3: give a str"),
    ("regression", None, "f:7 is None: give a str"),
    ("classification", b"a", "f:7 is b'a': give a str"),
    ("tagging", float("nan"), "f:7 is nan: give a str"),
    ("matching", None, "f:7 is None: matching takes text and text_pair: give (text"),
    ("matching", ("a", None), "f:7: text_pair is None: give a str"),
    ("span", (3, "a"), "f:7: question is 3: give a str"),
    ("span", None, "f:7 is None: span takes question and context"),
    ("multiple_choice", ("a", ["b", None]), "f:7: choices[1] is None: give a str"),
    ("srl", (None, "ran"), "f:7: text is None: give a str"),
    ("tagging", ["a", None], "f:7: tokens[1] is None: give a str"),
    ("tagging", ["a", " "], "f:7: tokens[1] is empty: leave it out"),
    ("tagging", {"tokens": "a"}, "f:7: tokens is 'a': give a list of str"),
    ("classification", {"txt": "a"}, '{"text": ..., "text_pair": ...}'),
    ("classification", {"text_pair": "a"}, "takes text"),
    ("classification", {"text": "a", "txt": "b"}, "takes text"),
    ("classification", ("a", None), "text_pair is None: give a str"),
    ("classification", {"text": "a", "id": 1.5}, "takes text"),
    ("matching", "a", "matching takes text and text_pair: give (text, text_pair)"),
    ("tagging", "a \ud800 cat", "character 2 of 'a \\ud800 cat'... is half of a"),
    ("multiple_choice", ("a", ["b", "\udcff"]), "character 0 of '\\udcff'... is half"),
    ("tagging", ("a", "b"), "tagging takes text: give (text)"),
    ("span", "who ?", "span takes question and context: give (question, context)"),
    ("multiple_choice", "a cat", "takes context and choices, a list of two texts or"),
    ("multiple_choice", ("a cat", "sat"), "a list of two texts or more"),
    ("multiple_choice", ("a cat", ["sat"]), "a list of two texts or more"),
    ("multiple_choice", ("a cat", ["sat", 1]), "choices[1] is 1: give a str"),
    ("srl", "the cat ran", "srl takes text and predicate"),
    ("srl", ("the cat ran", 2), "srl takes text and predicate"),
    ("srl", ("the cat ran", ["ran", "x"]), "srl takes text and predicate"),
    ("srl", ("the cat ran", [8]), "srl takes text and predicate"),
    ("srl", ("the cat ran", ""), "predicate is empty"),
    ("srl", ("the cat ran", "flew"), "the predicate 'flew' is not a word of the text"),
    ("srl", ("the cat ran", (3, 4)), "the predicate (3, 4) is not a word of the text"),
    ("srl", ("the cat ran", (80, 84)), "is not a word of the text 'the cat ran'"),
]


@pytest.mark.parametrize(("task", "value", "words"), WRONG)
def test_what_a_task_does_not_take_is_said(task, value, words):
    with pytest.raises(errors.InputError) as raised:
        python_examples.examples_of_values(
            tasks.TASKS[task].form, ["the cat", value][-1:], ["f:7"]
        )
    assert str(raised.value).startswith(("f:7: ", "f:7 is "))
    assert words in str(raised.value)


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
