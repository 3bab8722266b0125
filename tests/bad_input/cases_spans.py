"""Bad labelled files of JSON: C3, and texts with marked stretches or tokens."""

import json
from typing import Any

from bad_files import Case, case

_TRAIN = (
    "finetune --config={good}/tasks/tiny.py --workdir={here}/run "
    "--config.data.train={here}/%s --config.data.dev={here}/%s --config.data.task=%s"
)


def _c3(name: str, content: Any, says: str) -> Case:
    written = content if isinstance(content, str | bytes) else json.dumps(content)
    command = (
        _TRAIN % ("a.json", "a.json", "multiple_choice") + " --config.data.format=c3"
    )
    return case("C3", name, command, f"{{here}}/a.json{says}", {"a.json": written})


def _asked(**changes) -> list[Any]:
    question = {"question": "?", "choice": ["a", "b"], "answer": "a"} | changes
    return [[["a cat"], [question], "7"]]


C3 = [
    _c3("an object", {}, " does not have the format of C3"),
    _c3("a document that is a text", ["x"], ": [0] does not have the format of C3"),
    _c3("a document of one part", [[["a"]]], ": [0] does not have the format of C3"),
    _c3(
        "a paragraph that is a number",
        [[[3], []]],
        ": [0] does not have the format of C3",
    ),
    _c3(
        "no choice",
        _asked(choice=None),
        ": [0], question 0 does not have the format of C3",
    ),
    _c3("one choice", _asked(choice=["a"]), ": [0], question 0: 'choices' has no list"),
    _c3("an empty choice", _asked(choice=["a", ""]), ": [0], question 0: the text in"),
    _c3(
        "an answer of no choice",
        _asked(answer="c"),
        ": [0], question 0: the answer 'c'",
    ),
    _c3(
        "an answer that is a number",
        _asked(answer=1),
        ": [0], question 0: the answer 1",
    ),
    _c3(
        "a choice twice", _asked(choice=["a", "a"]), ": [0], question 0: the choice 'a'"
    ),
    _c3("no answer", _asked(answer=None), ": [0], question 0: the label is missing"),
    _c3("a question that is null", [[["a"], [None], "7"]], ": [0], question 0 has not"),
    _c3(
        "a question that is a list",
        _asked(question=[1]),
        ": [0], question 0: 'question'",
    ),
    _c3(
        "no paragraph",
        [[[], *_asked()[0][1:]]],
        ": [0], question 0: the text in 'conte",
    ),
    _c3("an id twice", _asked() * 2, ": [1], question 0: the id '7-0'"),
    _c3("a key twice", '[[["a"], [{"question": "", "question": ""}]]]', " has the key"),
    _c3("cut", json.dumps(_asked())[:-5], " is not JSON"),
    _c3("no UTF-8", b'["\xff"]', ":1: byte 3 of the line (0xff) is not UTF-8"),
    _c3("no document", "[]", " has no example"),
    _c3("empty", "", " is empty"),
]


def _spans(name: str, record: Any, says: str) -> Case:
    written = record if isinstance(record, str) else json.dumps(record) + "\n"
    command = _TRAIN % ("a.jsonl", "a.jsonl", "tagging")
    words = f"{{here}}/a.jsonl:1{says}"
    return case("spans", name, command, words, {"a.jsonl": written})


def _marked(*stretches: Any) -> dict[str, Any]:
    return {"text": "a cat sat", "entities": list(stretches)}


SPANS = [
    _spans("an end before its start", _marked([5, 2, "A"]), ": the entity 'A' is char"),
    _spans(
        "an empty stretch", _marked([2, 2, "A"]), ": the entity 'A' is characters 2"
    ),
    _spans(
        "a stretch over the end", _marked([6, 10, "A"]), ": the entity 'A' is chara"
    ),
    _spans(
        "a negative start", _marked([-3, 2, "A"]), ": the entity 'A' is characters -3"
    ),
    _spans(
        "an overlap", _marked([0, 3, "A"], [2, 5, "B"]), ": the entity 'B' at charac"
    ),
    _spans("no type", _marked([0, 1, ""]), ": the entity '' is characters 0 to 1"),
    _spans(
        "places that are texts", _marked(["0", "1", "A"]), ": \"['0', '1', 'A']\" is no"
    ),
    _spans(
        "places that are fractions", _marked([0.0, 1.0, "A"]), ": \"[0.0, 1.0, 'A']\""
    ),
    _spans("places that are truths", _marked([False, True, "A"]), ': "[False, True, '),
    _spans("two parts", _marked([0, 1]), ": '[0, 1]' is not an entity"),
    _spans(
        "an object without an end", _marked({"start": 0, "type": "A"}), ": \"{'start'"
    ),
    _spans(
        "entities that are a text", {"text": "a", "entities": "A"}, ": 'A' is not an "
    ),
    _spans("no entities", {"text": "a cat"}, ": the label is missing"),
    _spans("no text", {"entities": []}, ": there is no 'text', only 'entities'"),
    _spans(
        "an empty text", {"text": " ", "entities": []}, ": the text in 'text' is emp"
    ),
    _spans(
        "a surface that is not there",
        {"text": "a cat", "label": {"A": {"dog": [[2, 4]]}}},
        ": characters 2 to 4 are 'cat' and not 'dog'",
    ),
    _spans(
        "a surface over the end",
        {"text": "a cat", "label": {"A": {"cat": [[2, 9]]}}},
        ": the entity 'A' is characters 2 to 10 of a text of 5",
    ),
    _spans(
        "a surface with one place",
        {"text": "a cat", "label": {"A": {"cat": [2]}}},
        ": '2' is not an entity",
    ),
    _spans(
        "surfaces that are a list", {"text": "a", "label": {"A": []}}, ": '[]' is no"
    ),
    _spans(
        "tokens that are a text", {"tokens": "ab", "tags": ["O", "O"]}, ": 'tokens'"
    ),
    _spans("tokens that are a number", {"tokens": 3, "tags": ["O"]}, ": 'tokens' "),
    _spans(
        "tokens that are an object", {"tokens": {"a": 1}, "tags": ["O"]}, ": 'tokens'"
    ),
    _spans(
        "a token that is empty", {"tokens": ["a", ""], "tags": ["O"] * 2}, ": 'token"
    ),
    _spans(
        "a token that is a number", {"tokens": ["a", 3], "tags": ["O"] * 2}, ": 'tok"
    ),
    _spans("no token", {"tokens": [], "tags": []}, ": 'tokens' "),
    _spans("tags that are a text", {"tokens": ["a"], "tags": "O"}, ": the tags "),
    _spans("tags that are a number", {"tokens": ["a"], "tags": 1}, ": the tags "),
    _spans(
        "a tag less", {"tokens": ["a", "b"], "tags": ["O"]}, " has 2 tokens and 1 tag"
    ),
    _spans("a tag that is null", {"tokens": ["a"], "tags": [None]}, ": a tag is empty"),
    _spans(
        "a tag that is a list", {"tokens": ["a"], "tags": [[]]}, ": the label is []"
    ),
    _spans("no tags", {"tokens": ["a"]}, ": there are no tags in tags, ner_tags"),
    _spans(
        "broken tags",
        {"tokens": ["a", "b"], "tags": ["B-A", "I-B"]},
        ": the tags of token 2 (",
    ),
    _spans("no JSON", '{"text": "a", ', " is not JSON"),
    _spans("a list", "[3]\n", " is not a JSON object"),
    _spans("a key twice", '{"text": "a", "text": "b"}', " has the key 'text' twice"),
]
CASES = C3 + SPANS
