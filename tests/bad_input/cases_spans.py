"""Bad labeled files of JSON: C3, and texts with marked spans or tokens."""

import json
from typing import Any

from bad_files import Case, case

_TRAIN = (
    "finetune --config={good}/tasks/tiny.py --workdir={here}/run "
    "--config.data.train={here}/%s --config.data.dev={here}/%s --config.data.task=%s"
)


def _c3(name: str, content: Any, expected: str) -> Case:
    written = content if isinstance(content, str | bytes) else json.dumps(content)
    command = (
        _TRAIN % ("a.json", "a.json", "multiple_choice") + " --config.data.format=c3"
    )
    return case("C3", name, command, f"{{here}}/a.json{expected}", {"a.json": written})


def _asked(**changes) -> list[Any]:
    question = {"question": "?", "choice": ["a", "b"], "answer": "a"} | changes
    return [[["a cat"], [question], "7"]]


C3 = [
    _c3("an object", {}, "…C3"),
    _c3("a document that is a text", ["x"], ": [0]…C3"),
    _c3("a document of one part", [[["a"]]], ": [0]…C3"),
    _c3("a paragraph that is a number", [[[3], []]], ": [0]…C3"),
    _c3("no choice", _asked(choice=None), ": [0], question 0…C3"),
    _c3("one choice", _asked(choice=["a"]), ": [0], question 0…'choices'"),
    _c3("an empty choice", _asked(choice=["a", ""]), ": [0], question 0…text"),
    _c3(
        "an answer of no choice",
        _asked(answer="c"),
        ": [0], question 0…'c'",
    ),
    _c3(
        "an answer that is a number",
        _asked(answer=1),
        ": [0], question 0…1",
    ),
    _c3("a choice twice", _asked(choice=["a", "a"]), ": [0], question 0…'a'"),
    _c3("no answer", _asked(answer=None), ": [0], question 0…label"),
    _c3("a question that is null", [[["a"], [None], "7"]], ": [0], question 0…C3"),
    _c3(
        "a question that is a list",
        _asked(question=[1]),
        ": [0], question 0…'question'",
    ),
    _c3(
        "no paragraph",
        [[[], *_asked()[0][1:]]],
        ": [0], question 0…'conte",
    ),
    _c3("an id twice", _asked() * 2, ": [1], question 0…'7-0'"),
    _c3("a key twice", '[[["a"], [{"question": "", "question": ""}]]]', "…'question'"),
    _c3("cut", json.dumps(_asked())[:-5], "…JSON"),
    _c3("no UTF-8", b'["\xff"]', ":1…0xff"),
    _c3("no document", "[]", "…example"),
    _c3("empty", "", "…empty"),
]


def _spans(name: str, record: Any, expected: str) -> Case:
    written = record if isinstance(record, str) else json.dumps(record) + "\n"
    command = _TRAIN % ("a.jsonl", "a.jsonl", "tagging")
    words = f"{{here}}/a.jsonl:1{expected}"
    return case("spans", name, command, words, {"a.jsonl": written})


def _marked(*stretches: Any) -> dict[str, Any]:
    return {"text": "a cat sat", "entities": list(stretches)}


SPANS = [
    _spans("an end before its start", _marked([5, 2, "A"]), "…'A'"),
    _spans("an empty stretch", _marked([2, 2, "A"]), "…'A'…characters 2"),
    _spans("a stretch over the end", _marked([6, 10, "A"]), "…'A'"),
    _spans("a negative start", _marked([-3, 2, "A"]), "…'A'…characters -3"),
    _spans("an overlap", _marked([0, 3, "A"], [2, 5, "B"]), "…'B'"),
    _spans("no type", _marked([0, 1, ""]), "…''…characters 0 to 1"),
    _spans("offsets that are texts", _marked(["0", "1", "A"]), "…\"['0', '1', 'A']\""),
    _spans(
        "offsets that are fractions", _marked([0.0, 1.0, "A"]), "…\"[0.0, 1.0, 'A']\""
    ),
    _spans("offsets that are truths", _marked([False, True, "A"]), "…[False, True, "),
    _spans("two parts", _marked([0, 1]), "…'[0, 1]'"),
    _spans("an object without an end", _marked({"start": 0, "type": "A"}), "…'start'"),
    _spans("entities that are a text", {"text": "a", "entities": "A"}, "…'A'"),
    _spans("no entities", {"text": "a cat"}, "…label"),
    _spans("no text", {"entities": []}, "…'text'…'entities'"),
    _spans("an empty text", {"text": " ", "entities": []}, "…'text'"),
    _spans(
        "a surface that is not there",
        {"text": "a cat", "label": {"A": {"dog": [[2, 4]]}}},
        "…characters 2 to 4…'cat'…'dog'",
    ),
    _spans(
        "a surface over the end",
        {"text": "a cat", "label": {"A": {"cat": [[2, 9]]}}},
        "…'A'…characters 2 to 10…5",
    ),
    _spans(
        "a surface with one position",
        {"text": "a cat", "label": {"A": {"cat": [2]}}},
        "…'2'",
    ),
    _spans("surfaces that are a list", {"text": "a", "label": {"A": []}}, "…'[]'"),
    _spans("tokens that are a text", {"tokens": "ab", "tags": ["O", "O"]}, "…'tokens'"),
    _spans("tokens that are a number", {"tokens": 3, "tags": ["O"]}, "…'tokens'"),
    _spans(
        "tokens that are an object", {"tokens": {"a": 1}, "tags": ["O"]}, "…'tokens'"
    ),
    _spans(
        "a token that is empty", {"tokens": ["a", ""], "tags": ["O"] * 2}, "…'tokens'"
    ),
    _spans(
        "a token that is a number", {"tokens": ["a", 3], "tags": ["O"] * 2}, "…'tokens'"
    ),
    _spans("no token", {"tokens": [], "tags": []}, "…'tokens'"),
    _spans("tags that are a text", {"tokens": ["a"], "tags": "O"}, "…tags"),
    _spans("tags that are a number", {"tokens": ["a"], "tags": 1}, "…tags"),
    _spans("a tag less", {"tokens": ["a", "b"], "tags": ["O"]}, "…2 tokens…1 tag"),
    _spans("a tag that is null", {"tokens": ["a"], "tags": [None]}, "…tag"),
    _spans("a tag that is a list", {"tokens": ["a"], "tags": [[]]}, "…[]"),
    _spans("no tags", {"tokens": ["a"]}, "…ner_tags"),
    _spans(
        "broken tags",
        {"tokens": ["a", "b"], "tags": ["B-A", "I-B"]},
        "…token 2",
    ),
    _spans("no JSON", '{"text": "a", ', "…JSON"),
    _spans("a list", "[3]\n", "…JSON"),
    _spans("a key twice", '{"text": "a", "text": "b"}', "…'text'"),
]
CASES = C3 + SPANS
