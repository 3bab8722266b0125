"""Plain text into sentences: hard cases in Chinese and English."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data.corpus import parsing

# Sentences are parted by "|" here; the input is the line without it.
HARD_CASES = [
    # Chinese marks, quotes and brackets.
    "今天很好。|明天呢？|后天！",
    "他问：“真的吗？”|没有人回答。",
    "“你好。”|“再见。”",
    "他（谁知道呢？）走了。|（真的。）|又来了。",
    "《为什么？》是一本书。",
    "太好了！！！|真的？！|是的。",
    "一是好；二是快；三是省。|完了。",
    "我想……|不知道。",
    "他…走了。",
    "价格是３．５万元。|不贵。",
    "没有结尾的句子",
    "『他来了。』|她说。",
    # Western marks in Chinese text.
    "质量好!|真的很好?|下次再来.|很棒...|还行",
    "孩子喜欢,很不错.|自家孩子2岁半.",
    "iPhone 3.5很好。|www.abc.com不错。",
    "版本是2.0，价格是3.50元。",
    # English.
    "It works. |It really does! |Does it? |Yes.",
    "Dr. Li and Mrs. Wu met Prof. J. K. Rowling at St. Mary's. |They left.",
    "He paid 3.50 dollars. |She paid 1,000.25.",
    "The U.S. Army left. |It was in the U.S. |The war ended.",
    "We met at 5 p.m. on Monday. |He came at 6 p.m. |She did not.",
    "See Fig. 3 and e.g. Eq. 4, i.e. No. 5. |Then stop.",
    "Apples, pears, etc. are fruit. |Buy apples, pears, etc. |They are good.",
    'He said "Stop." |Then he left.',
    '"Really?" he asked. |"Yes."',
    "Wait... what? |Oh... |Nothing!",
    "(This is so.) |It (why?) is not.",
    "1. Begin here. |2. Go on.",
    "Visit example.com today. |Python 3.11 is out.",
    "She lives in Jan. but not in Washington D.C. |He does.",
    "Yahoo! is a firm. |Is it?",
    "What is it?! |I know I. |You too.",
    "no capital. letters follow. here",
    "Plan B. |The end.",
    "The war ended in 1945. |42 men came.",
    # Both in one line.
    "他说OK。|She said 好的. |Right.",
    "北京大学（Peking Univ.）很大。|很美。",
]


@pytest.mark.parametrize("case", HARD_CASES)
def test_hard_cases(case):
    expected = [part.strip() for part in case.split("|")]
    assert parsing.split_sentences(case.replace("|", "")) == expected


@given(st.text(alphabet='ab A.!?。！？…”"（）() 中,3\n', max_size=40))
def test_nothing_but_white_space_is_lost(text):
    joined = "".join(parsing.split_sentences(text))
    assert "".join(joined.split()) == "".join(text.split())


@given(st.text(alphabet='ab A.!?。！？…”"（）() 中,3', max_size=40))
def test_spans_are_the_sentences(text):
    spans = parsing.sentence_spans(text)
    assert [text[a:b] for a, b in spans] == parsing.split_sentences(text)
    flat = [edge for span in spans for edge in span]
    assert flat == sorted(flat) and all(a < b for a, b in spans)


def test_empty_text_has_no_sentence():
    assert parsing.split_sentences("") == parsing.split_sentences(" \n ") == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a line that\nis wrapped\n\nnext one", ["a line that is wrapped", "next one"]),
        ("第一章\n他来了。\n她走了", ["第一章", "他来了。", "她走了"]),
        ("mixed 中文\nand\nmore\n\n\n", ["mixed 中文", "and more"]),
        ("\n\n", []),
    ],
)
def test_paragraphs_join_wrapped_lines(text, expected):
    assert parsing.split_paragraphs(text) == expected
