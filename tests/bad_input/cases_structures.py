"""Bad labeled files with a structure: SQuAD, CoNLL and CoNLL-U."""

import json
from typing import Any

from bad_files import Case, Content, case, fifo

_TRAIN = (
    "finetune --config={good}/tasks/tiny.py --workdir={here}/run "
    "--config.data.train={here}/%s --config.data.dev={here}/%s --config.data.task=%s"
)


def _of(
    kind: str, file: str, task: str, name: str, content: Content, expected: str
) -> Case:
    words = f"{{here}}/{file}{expected}"
    return case(kind, name, _TRAIN % (file, file, task), words, {file: content})


def _squad(name: str, content: Any, expected: str) -> Case:
    """A document, or its text."""
    written = content if isinstance(content, str | bytes) else json.dumps(content)
    return _of("SQuAD", "a.json", "span", name, written, expected)


def _question(**changes) -> dict[str, Any]:
    """A document of one question; a change of None takes a key away."""
    answers = [{"text": "cat", "answer_start": 4}]
    question = {"id": "q1", "question": "a cat ?", "answers": answers} | changes
    kept = {key: value for key, value in question.items() if value is not None}
    return _document([kept])


def _document(questions: Any, context: Any = "the cat sat") -> dict[str, Any]:
    paragraph = {"context": context, "qas": questions}
    return {"data": [{"paragraphs": [paragraph]}]}


def _answer(text: Any, start: Any) -> dict[str, Any]:
    return _question(answers=[{"text": text, "answer_start": start}])


_AT = ": data[0].paragraphs[0]"
_Q1 = f"{_AT}.qas[0] (question q1)"
_TWICE = _document([_question()["data"][0]["paragraphs"][0]["qas"][0]] * 2)
SQUAD = [
    _squad("an answer elsewhere", _answer("cat", 1), f"{_Q1}…'cat'"),
    _squad("an answer after the end", _answer("cat", 99), f"{_Q1}…'cat'"),
    _squad("an answer over the end", _answer("sat there", 8), f"{_Q1}…'sat"),
    _squad("an answer before the start", _answer("cat", -1), f"{_Q1}…'cat'"),
    _squad("an answer of another text", _answer("dog", 4), f"{_Q1}…'dog'"),
    _squad("an empty answer", _answer("", 4), f"{_Q1}…''"),
    _squad("an answer without an offset", _answer("cat", None), f"{_Q1}…'cat'"),
    _squad("an offset that is a text", _answer("cat", "4"), f"{_Q1}…answer_start"),
    _squad("an offset that is a fraction", _answer("cat", 4.0), f"{_Q1}…answer_st"),
    _squad("an offset that is true", _answer("cat", True), f"{_Q1}…answer_start"),
    _squad("an answer that is a number", _answer(4, 4), f"{_Q1}…answer"),
    _squad("an answer that is null", _question(answers=[None]), f"{_Q1}…answer"),
    _squad("answers that are a text", _question(answers="cat"), f"{_Q1}…answers"),
    _squad(
        "more answers than offsets",
        _question(answers={"text": ["cat", "the"], "answer_start": [4]}),
        f"{_Q1}…answers",
    ),
    _squad("no answer", _question(answers=[]), f"{_Q1}…answer"),
    _squad("no answers", _question(answers=None), f"{_Q1}…answer"),
    _squad(
        "impossible, and answered",
        _question(is_impossible=True),
        f"{_Q1}…impossible",
    ),
    _squad(
        "impossible is a text",
        _question(is_impossible="false"),
        f"{_Q1}…'false'…is_impossible…true",
    ),
    _squad("no question", _question(question=None), f"{_Q1}…'question'…'quer"),
    _squad("an empty question", _question(question=" "), f"{_Q1}…'question"),
    _squad("a question that is a list", _question(question=[1]), f"{_Q1}…'question'"),
    _squad("no id", _question(id=None), f"{_AT}.qas[0]…'id'…'query_id'"),
    _squad("an empty id", _question(id=""), f"{_AT}.qas[0]…empty"),
    _squad("an id that is a list", _question(id=[]), f"{_AT}.qas[0]…[]"),
    _squad("an id twice", _TWICE, f"{_AT}.qas[1] (question q1)…'q1'"),
    _squad("a question that is a text", _document(["?"]), f"{_AT}.qas[0]…object"),
    _squad("questions that are an object", _document({}), f"{_AT}.qas…list"),
    _squad("an empty context", _document([], ""), f"{_AT}…'context'"),
    _squad("a context that is null", _document([], None), f"{_AT}…'context'…null"),
    _squad("no context", {"data": [{"paragraphs": [{"qas": []}]}]}, f"{_AT}…'con"),
    _squad(
        "a title that is a list",
        {"data": [{"title": [], "paragraphs": []}]},
        ": data[0]",
    ),
    _squad(
        "paragraphs that are a number", {"data": [{"paragraphs": 3}]}, ": data[0].pa"
    ),
    _squad("a paragraph that is null", {"data": [{"paragraphs": [None]}]}, f"{_AT}"),
    _squad("an article that is a text", {"data": ["x"]}, ": data[0]…object"),
    _squad("data that is an object", {"data": {}}, ": data…list"),
    _squad("no data", '{"version":\n"1.1"}', ":1…'context'"),
    _squad("no example", {"data": []}, "…example"),
    _squad("cut", json.dumps(_question())[:-9], "…JSON"),
    _squad("two documents", json.dumps(_question()) * 2, "…JSON"),
    _squad("a key twice", '{"data": [], "data": []}', "…'data'"),
    _squad("no UTF-8", b'{"data": [\n"\xff"]}', ":2…0xff"),
    _squad("half of a surrogate pair", _document([], "a \ud800"), f"{_AT}…character 2"),
    _squad(
        "half of a pair in a question",
        _question(question="\udc00 ?"),
        f"{_Q1}…character 0…'\\udc00 ?'",
    ),
    _squad("empty", "", "…empty"),
    case(
        "SQuAD",
        "lines: an answer elsewhere",
        _TRAIN % ("a.jsonl", "a.jsonl", "span"),
        "{here}/a.jsonl:2…'dog'…answer_start",
        {
            "a.jsonl": '{"question": "?", "context": "a cat", "answers": {"text": '
            '["a"], "answer_start": [0]}}\n{"question": "?", "context": "a cat", '
            '"answers": {"text": ["dog"], "answer_start": [0]}}\n'
        },
    ),
    case(
        "SQuAD",
        "predicted, no context",
        "predict --model={good}/tasks/models/span --input={here}/a.json "
        "--output={here}/answers.json --format=squad",
        f"{{here}}/a.json…{_AT}…'context'",
        {"a.json": '{"data": [{"paragraphs": [{"qas": []}]}]}'},
    ),
]


def _conll(name: str, content: Content, expected: str) -> Case:
    return _of("CoNLL", "a.conll", "tagging", name, content, expected)


_TAGS = "the O\ncat B-A\n\na O\ndog B-A\n\n"
CONLL = [
    _conll("a column less", "the O\ncat\n\n", ":2…1 column"),
    _conll("a column more", f"{_TAGS}a x O\n", ":7…3 columns"),
    _conll("one column", "the\ncat\n", ":1…1 column"),
    _conll("I after another B", "the O\ncat B-A\ndog I-B\n", ":3…token 3"),
    _conll("I after O", f"{_TAGS}the O\ncat I-A\n", ":8…token 2…'cat'"),
    _conll("a sentence begins with I", f"{_TAGS}cat I-A\n", ":7…token 1"),
    _conll("a tab that ends in no tag", "the\tO\ncat\t\n", ":2…tag"),
    _conll("a tab that begins with no token", "the\tO\n\tO\n", ":2…token"),
    _conll("tabs, then spaces", "the\tO\ncat O\n", ":2…1 column"),
    _conll("no UTF-8", _TAGS.encode() + b"\xff O\n", ":7…0xff"),
    _conll("a NUL byte", f"{_TAGS}\0 O\n", ":7…0x00…NUL"),
    _conll("empty", "", "…empty"),
    _conll("blank lines", "\n\n", "…example"),
    _conll("only documents' marks", "-DOCSTART- -X- O O\n\n", "…example"),
    _conll("UTF-16", _TAGS.encode("utf-16")[:-1], "…UTF-16"),
    _conll("a pipe", fifo, "…regular file"),
    case(
        "CoNLL",
        "evaluated, a tag that is unknown",
        "evaluate --workdir={here}/tagging --data={here}/a.conll",
        "{here}/a.conll:1…'CITY'",
        {"a.conll": "the I-CITY\ncat B-CITY\n"},
        base="tasks/models/tagging",
    ),
    case(
        "CoNLL",
        "predicted, a column less",
        "predict --model={good}/tasks/models/tagging --input={here}/a.conll "
        "--format=conll --output={here}/out.conll",
        "{here}/a.conll:5…1 column",
        {"a.conll": "the O\ncat B-ANIMAL\n\na O\ncat\n"},
    ),
]


def _row(number: object, word: str, *more: str) -> str:
    return "\t".join([str(number), word, "_", "NOUN", *["_"] * 6, *more]) + "\n"


def _conllu(name: str, content: Content, expected: str, task: str = "tagging") -> Case:
    return _of("CoNLL-U", "a.conllu", task, name, content, expected)


_GOOD = _row(1, "the") + _row(2, "cat") + "\n"
CONLLU = [
    _conllu("a number twice", _GOOD + _row(1, "a") * 2, ":5…number is '1'"),
    _conllu("a number left out", _GOOD + _row(1, "a") + _row(3, "b"), ":5…word"),
    _conllu("a first number of 0", _row(0, "a"), ":1…number is '0'"),
    _conllu("no number", _GOOD + _row("x", "a"), ":4…number is 'x'"),
    _conllu("a range turned about", _row("2-1", "ab") + _GOOD, ":1…2-1"),
    _conllu(
        "a range after its words",
        _row(1, "the") + _row(2, "cat") + _row("1-2", "x"),
        ":3…1-2",
    ),
    _conllu("a range over the end", _row("1-3", "ab") + _GOOD, ":1…range"),
    _conllu("a range of words", _row("a-b", "ab") + _GOOD, ":1…'a"),
    _conllu("spaces for tabs", _GOOD.replace("\t", " "), ":1…word"),
    _conllu("a column less", _GOOD + _row(1, "a") + "2\tb\t_\n", ":5…3 columns"),
    _conllu("three columns", "1\tcat\t_\n", ":1…'4'"),
    _conllu("an empty word", _GOOD + _row(1, " "), ":4…word"),
    _conllu("no tag", _GOOD + _row(1, "a").replace("NOUN", "_"), ":4…tag"),
    _conllu("only comments", "# text = a\n\n", "…example"),
    _conllu("no UTF-8", _GOOD.encode() + b"# \xff\n", ":4…0xff"),
    _conllu("no column of senses", _GOOD, ":1…'11'", "srl"),
    _conllu(
        "a predicate without its roles",
        _row(1, "the", "_", "A0")
        + _row(2, "ran", "run.01", "_")
        + "\n"
        # Two predicates, and one column.
        + _row(1, "sat", "sit.01", "_")
        + _row(2, "ran", "run.01", "_"),
        ":4…2 predicates…11…1 columns",
        "srl",
    ),
    _conllu(
        "roles without a predicate to them",
        _row(1, "the", "_", "A0", "A1") + _row(2, "ran", "run.01", "_", "_"),
        ":1…1 predicates…11…2 columns",
        "srl",
    ),
    _conllu(
        "an id twice",
        ("# sent_id = s1\n" + _GOOD) * 2,
        ":6…'s1'…{here}/a.conllu:2",
    ),
]


CASES = SQUAD + CONLL + CONLLU
