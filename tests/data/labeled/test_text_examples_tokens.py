"""Tokens joined into a text, found in one, and cut out of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data.labeled import text_examples


@pytest.mark.parametrize(
    "tokens, text",
    [
        (["EU", "rejects", "."], "EU rejects ."),
        (["吴", "重", "阳", "，", "中国"], "吴重阳，中国"),
        (["用", "i", "P", "说"], "用 i P 说"),
        (["１", "２", "月"], "１ ２ 月"),
        (["二", "〇", "年"], "二〇年"),
        (["a", "\u3000", "b"], "a \u3000 b"),
    ],
)
def test_no_space_parts_chinese(tokens, text):
    joined, spans = text_examples.join_tokens(tokens)
    assert joined == text
    assert [joined[start:end] for start, end in spans] == tokens


@given(st.lists(st.text("a是，1 々ＡＢ\u200b", min_size=1), min_size=1))
def test_every_token_is_found_where_it_is_said_to_be(tokens):
    text, spans = text_examples.join_tokens(tokens)
    assert [text[start:end] for start, end in spans] == tokens
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize(
    "tokens, text, spans",
    [
        (["a", "b", "."], "a  b.", ((0, 1), (3, 4), (4, 5))),
        (["a b", "c"], "a b c ", ((0, 3), (4, 5))),
        (["de", "le"], "du", None),
        (["a"], "a b", None),
        (["a", "b"], "a", None),
        (["\u3000", "a"], "\u3000a", ((0, 1), (1, 2))),
    ],
)
def test_tokens_are_found_in_a_text_that_is_only_them(tokens, text, spans):
    assert text_examples.find_in_order(tokens, text) == spans


def test_words_are_those_of_bert_and_are_cut_where_asked():
    text = "浙商银行 Ltd. isn't"
    assert [text[a:b] for a, b in text_examples.split_words(text)] == (
        "浙 商 银 行 Ltd . isn ' t".split()
    )
    cut = text_examples.split_words(text, [0, 2, 6, 7, 18])
    assert [text[a:b] for a, b in cut] == "浙 商 银 行 L t d . isn ' t".split()
