"""Rows of one text and of two, as tokenizer.json describes them."""

from typing import Any

import pytest

from bert_jax import errors
from bert_jax.text import pipelines

TEMPLATE: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ],
    "pair": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
    ],
    "special_tokens": {
        "[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]},
        "[SEP]": {"id": "[SEP]", "ids": [102], "tokens": ["[SEP]"]},
    },
}
PAIR = {"sep": ["</s>", 2], "cls": ["<s>", 0]}


def test_rows_of_bert():
    bert = pipelines.bert_rows(101, 102)
    assert bert.build([7, 8]) == ([101, 7, 8, 102], [0, 0, 0, 0])
    assert bert.build([]) == ([101, 102], [0, 0])
    assert bert.build([7], [8, 9]) == ([101, 7, 102, 8, 9, 102], [0, 0, 0, 1, 1, 1])
    assert bert.build([7], []) == ([101, 7, 102, 102], [0, 0, 0, 1])


def test_rows_of_roberta():
    roberta = pipelines.roberta_rows(0, 2)
    assert roberta.build([7, 8]) == ([0, 7, 8, 2], [0, 0, 0, 0])
    assert roberta.build([7], [8, 9]) == ([0, 7, 2, 2, 8, 9, 2], [0] * 7)


def test_building_changes_nothing_that_was_given():
    ids_a, ids_b = [7], [8]
    pipelines.bert_rows(101, 102).build(ids_a, ids_b)
    assert (ids_a, ids_b) == ([7], [8])


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (None, None),
        ({"type": "ByteLevel", "trim_offsets": True}, None),
        (TEMPLATE, pipelines.bert_rows(101, 102)),
        ({"type": "BertProcessing", **PAIR}, pipelines.bert_rows(0, 2)),
        (
            {"type": "RobertaProcessing", **PAIR, "trim_offsets": True},
            pipelines.roberta_rows(0, 2),
        ),
        (
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, TEMPLATE]},
            pipelines.bert_rows(101, 102),
        ),
        ({"type": "Sequence", "processors": []}, None),
    ],
)
def test_post_processors(tree: Any, expected: pipelines.RowTemplate | None):
    assert pipelines.rows_of_post_processor(tree, "t.json", 200) == expected


@pytest.mark.parametrize(
    "tree",
    [
        {"type": "Strange"},
        {},
        [],
        {"type": "BertProcessing", "cls": ["<s>", 0]},
        {"type": "BertProcessing", "cls": ["<s>"], "sep": ["</s>", 2]},
        {"type": "BertProcessing", "cls": ["<s>", "0"], "sep": ["</s>", 2]},
        {"type": "BertProcessing", "cls": ["<s>", True], "sep": ["</s>", 2]},
        {"type": "BertProcessing", "cls": ["<s>", -1], "sep": ["</s>", 2]},
        {"type": "BertProcessing", "cls": ["<s>", 200], "sep": ["</s>", 2]},
        {**TEMPLATE, "special_tokens": {}},
        {**TEMPLATE, "single": [{"Sequence": {"id": "C", "type_id": 0}}]},
        {**TEMPLATE, "single": [{"Sequence": {"id": "A"}}]},
        {**TEMPLATE, "single": [{}]},
        {**TEMPLATE, "single": "A"},
    ],
)
def test_broken_post_processors_are_rejected(tree: Any):
    with pytest.raises(errors.InputError, match="t.json: its post_processor"):
        pipelines.rows_of_post_processor(tree, "t.json", 200)
