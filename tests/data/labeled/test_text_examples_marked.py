"""Pronoun and noun of CLUEWSC2020 are marked in the text, as CLUE's baselines do."""

import pytest
from example_files import read, refused
from test_text_examples import json_lines

from bert_jax.data.labeled import text_examples

# The example in CLUE's own README, and what its processor makes of it.
TEXT = (
    "这时候放在床上枕头旁边的手机响了，我感到奇怪，"
    "因为欠费已被停机两个月，现在它突然响了。"
)
TARGET = {"span1_text": "床", "span1_index": 5, "span2_text": "它", "span2_index": 37}
MARKED = (
    "这时候放在_床_上枕头旁边的手机响了，我感到奇怪，"
    "因为欠费已被停机两个月，现在[它]突然响了。"
)


def test_the_noun_gets_lines_and_the_pronoun_brackets(tmp_path):
    record = {"target": TARGET, "idx": 261, "label": "false", "text": TEXT}
    (found,) = read(json_lines(tmp_path, record)).examples
    assert (found.text, found.labels, found.id) == (MARKED, ("false",), "261")


def test_the_pronoun_may_come_first():
    target = {
        "span2_text": "他",
        "span2_index": 0,
        "span1_text": "小明",
        "span1_index": 3,
    }
    assert (
        text_examples.mark_target("他笑了小明哭", target, "f:1") == "[他]笑了_小明_哭"
    )


def test_other_targets_are_no_spans(tmp_path):
    record = {"target": {"span1_text": "a"}, "label": "x", "text": "a b"}
    (found,) = read(json_lines(tmp_path, record)).examples
    assert found.text == "a b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"span1_index": 6}, "span1 of the target, '床', is not at character 6"),
        ({"span2_index": -1}, "span2 of the target, '它', is not at"),
        ({"span2_index": "37"}, "span2 .* is not at character '37'"),
        ({"span2_text": "床", "span2_index": 5}, "span1 and span2 .* overlap"),
    ],
)
def test_spans_that_are_not_there_are_named(tmp_path, change, message):
    record = {"target": TARGET | change, "label": "false", "text": TEXT}
    refused(rf"c\.jsonl:1: {message}", json_lines(tmp_path, record))
