"""Texts with marked stretches, and lists of tokens with tags."""

import json

import pytest
from example_files import columns, iterate, read, refused, write

from bert_jax.data.labeled import annotations
from bert_jax.metrics import entities

TEXT = "浙商银行的叶老桂 says OK."
CLUENER = {"company": {"浙商银行": [[0, 3]]}, "name": {"叶老桂": [[5, 7]]}}
ENTITIES = [
    {"start": 0, "end": 4, "type": "company"},
    {"start": 5, "end": 8, "label": "name"},
]
LISTS = [[5, 8, "name"], [0, 4, "company"]]


def file_of(tmp_path, *objects):
    lines = (json.dumps(each, ensure_ascii=False) + "\n" for each in objects)
    return write(tmp_path, "".join(lines), "c.json")


def words(example):
    return [example.text[start:end] for start, end in example.tokens]


@pytest.mark.parametrize(
    "marked",
    [{"label": CLUENER}, {"entities": ENTITIES}, {"label": LISTS}, {"spans": LISTS}],
)
def test_entities_become_tags_of_words(tmp_path, marked):
    path = file_of(tmp_path, {"id": 7, "text": TEXT, **marked})
    found = read(path, "tagging")
    (example,) = found.examples
    assert (example.where, example.id, example.text) == (f"{path}:1", "7", TEXT)
    assert words(example) == [*"浙商银行的叶老桂", "says", "OK", "."]
    company = ["B-company", *["I-company"] * 3]
    name = ["B-name", "I-name", "I-name"]
    assert example.tags == (*company, "O", *name, "O", "O", "O")
    assert found.notes == {}


def test_words_are_cut_at_the_ends_of_entities(tmp_path):
    path = file_of(
        tmp_path, {"text": "2009年IBMer", "entities": [[2, 5, "t"], [5, 8, "o"]]}
    )
    found = read(path, "tagging")
    (example,) = found.examples
    assert words(example) == ["20", "09", "年", "IBM", "er"]
    assert example.tags == ("O", "B-t", "I-t", "B-o", "O")
    assert found.notes == {"entities that begin or end inside a word": 2}


def test_a_text_without_entities_is_all_outside(tmp_path):
    (example,) = read(
        file_of(tmp_path, {"text": "a b", "label": {}}), "tagging"
    ).examples
    assert example.tags == ("O", "O")


def test_of_entities_that_overlap_the_longer_is_kept_on_request(tmp_path):
    path = file_of(
        tmp_path, {"text": "abc def", "entities": [[0, 3, "x"], [0, 7, "y"]]}
    )
    refused(r"c\.json:1: the entity 'x' at characters 0 to 3 overlaps", path, "tagging")
    found = read(path, "tagging", repair=True)
    assert found.examples[0].tags == ("B-y", "I-y")
    assert found.notes == {"entities left out that overlap a longer one": 1}


def test_lists_of_tokens_have_lists_of_tags(tmp_path):
    path = file_of(
        tmp_path, {"tokens": ["他", "在", "IBM"], "ner_tags": [0, "O", "B-X"]}
    )
    (example,) = read(path, "tagging").examples
    assert (example.text, words(example)) == ("他在 IBM", ["他", "在", "IBM"])
    assert example.tags == ("0", "O", "B-X")
    path = file_of(tmp_path, {"tokens": ["a"], "pos": ["NN"]})
    assert read(path, "tagging", columns=columns(tag="pos")).examples[0].tags == ("NN",)


def test_texts_without_entities_can_be_streamed(tmp_path):
    path = file_of(tmp_path, {"content": "a b"}, {"content": "好"})
    found = iterate(path, "tagging", columns=columns(text="content"))
    assert [(e.id, e.tokens, e.tags) for e in found] == [
        ("0", ((0, 1), (2, 3)), None),
        ("1", ((0, 1),), None),
    ]
    path = file_of(tmp_path, {"tokens": ["a"]})
    assert iterate(path, "tagging")[0].tags is None


@pytest.mark.parametrize(
    "record, message",
    [
        (
            {"text": TEXT, "label": {"name": {"叶老桂": [[5, 8]]}}},
            r"c\.json:1: characters 5 to 8 are '叶老桂 ' and not '叶老桂'.*its last",
        ),
        (
            {"text": "ab", "entities": [[1, 3, "x"]]},
            "'x' is characters 1 to 3 of .* of 2",
        ),
        (
            {"text": "ab", "entities": [[1, 1, "x"]]},
            "the entity 'x' is characters 1 to 1",
        ),
        ({"text": "ab", "entities": [[-1, 1, "x"]]}, "'x' is characters -1 to 1"),
        ({"text": "ab", "entities": [[0, 1]]}, "entity. Write"),
        ({"text": "ab", "entities": [{"start": 0}]}, "entity. Write"),
        ({"text": "ab", "entities": [[0, True, "x"]]}, "entity. Write"),
        ({"text": "ab", "label": "x"}, "'x' .*entity. Write"),
        ({"text": "ab", "label": {"x": [1]}}, "entity. Write"),
        ({"text": "ab", "label": {"x": {"a": [1]}}}, "entity. Write"),
        ({"text": "ab"}, r"c\.json:1: the label is missing: .*entities"),
        ({"text": " ", "label": []}, "the text in 'text' is empty"),
        ({"body": "a"}, "c.json:1: there is no 'text', only 'body'.*data.columns.text"),
        ({"tokens": ["a"]}, "there are no tags in tags, ner_tags.*data.columns.tag"),
        ({"tokens": ["a"], "tags": []}, "c.json:1 has 1 tokens and 0 tags"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "'tokens' "),
        ({"tokens": [], "tags": []}, "'tokens' "),
        ({"tokens": ["a"], "tags": [""]}, "c.json:1: a tag is empty"),
    ],
)
def test_malformed_records_are_named(tmp_path, record, message):
    refused(message, file_of(tmp_path, record), "tagging")


def test_what_cluener_has_in_its_training_split(tmp_path):
    """Overlaps, one text at several places and of two types, wrong places, no label."""
    lines = [
        {
            "text": "浙商银行企业信贷部叶老桂在浙商银行",
            "label": {
                "company": {"浙商银行": [[0, 3], [13, 16]]},
                "organization": {"浙商银行企业信贷部": [[0, 8]]},
                "name": {"叶老桂": [[9, 11]], "叶老": [[9, 10]]},
                "position": {"叶老桂": [[9, 11]]},
            },
        },
        {
            "text": "他去了北京",
            "label": {"address": {"北京": [[4, 5]], "上海": [[0, 1]]}},
        },
        {"text": "没有实体", "label": {}},
    ]
    path = tmp_path / "train.json"
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text(text, encoding="utf-8")
    refused(r"train\.json:1: the entity .* overlaps", path, "tagging", format="spans")
    made = read(path, "tagging", format="spans", repair=True)
    spans = [
        [(kind, one.text[one.tokens[a][0] : one.tokens[b - 1][1]]) for kind, a, b in x]
        for one in made.examples
        for x in [entities.spans_of(one.tags)]
    ]
    assert spans[0] == [
        ("organization", "浙商银行企业信贷部"),
        ("name", "叶老桂"),
        ("company", "浙商银行"),
    ]
    assert spans[1:] == [[("address", "北京")], []]
    assert made.notes == {
        annotations.OVERLAPPING: 3,
        annotations.MOVED: 1,
        annotations.DROPPED: 1,
    }
    cut = lines[1] | {"label": {"address": {"上海": [[0, 1]]}}}
    path.write_text(json.dumps(cut, ensure_ascii=False), encoding="utf-8")
    refused(r"are '他去' and not '上海'.*data\.repair", path, "tagging", format="spans")
