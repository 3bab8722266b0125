"""[UNK] and truncated texts are counted, and their cause is named."""

import dataclasses
import re

import pytest

from bert_jax.data.labeled import encoding
from bert_jax.text import coverage
from bert_jax.text.tokenizer import Tokenizer

SPECIALS = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
ENGLISH = "the cat sat résumé cafe , ! 一 二".split()
SIMPLIFIED = [*"这个国家发现头发很美，我们来学习。"]
TRADITIONAL = [*"這個國家發現頭髮很美，我們來學習。"]


def _tokenizer(tokens, lowercase=False, strip_accents=False):
    return Tokenizer(
        "wordpiece",
        tuple([*SPECIALS, *dict.fromkeys(tokens)]),
        lowercase,
        strip_accents,
    )


def _warnings(tokenizer, texts, length=64):
    rows = encoding.encode(tokenizer, [encoding.Text("f", *x) for x in texts], length)
    return [*rows.coverage.warnings(tokenizer, "split them")]


def test_tokens_are_counted_before_truncation_and_without_special_ones():
    texts = [encoding.Text("f", "the dog sat", "the cat"), encoding.Text("f", "cat")]
    counted = encoding.encode(_tokenizer(ENGLISH), texts, 6).coverage
    assert dataclasses.replace(counted, sample=[]) == coverage.Coverage(2, 1, 6, 1)
    assert counted.sample == ["the dog sat"]
    other = coverage.Coverage(1, 1, 4, 2, ["x"])
    other.update(counted)
    assert (other.texts, other.truncated, other.tokens, other.unknown) == (3, 2, 10, 3)
    assert other.sample == ["x", "the dog sat"]
    assert coverage.Coverage().describe() == "0.0% [UNK], 0.0% truncated"


@pytest.mark.parametrize(
    ("tokens", "options", "text", "cause"),
    [
        (ENGLISH, {}, "The CAT sat", "do_lower_case to true"),
        (["cafe", "the"], {}, "the Café", "strip_accents to true"),
        (["The", "Cat"], {"lowercase": True}, "The Cat", "do_lower_case to false"),
        (ENGLISH, {"lowercase": True}, "我们来学习", r"this script \(Chinese\)"),
        (SIMPLIFIED, {}, "все люди рождаются", r"this script \(Cyrillic\)"),
        (SIMPLIFIED, {"lowercase": True}, "the cat sat", r"this script \(Latin\)"),
        (SIMPLIFIED, {}, "".join(TRADITIONAL), "text.clean=simplified"),
        (TRADITIONAL, {}, "".join(SIMPLIFIED), "the texts are simplified"),
        (ENGLISH, {}, "the cat catsat", "do_lower_case wrong"),
    ],
)
def test_the_usual_cause_is_named(tokens, options, text, cause):
    tokenizer = _tokenizer(tokens, **options)
    (warning,) = _warnings(tokenizer, [(text,)])
    assert re.match(r"\d+\.\d % of the tokens are \[UNK\]: ", warning)
    assert re.search(cause, warning), warning


def test_no_warning_up_to_five_percent():
    tokenizer = _tokenizer(ENGLISH)
    texts = [("the " * 19 + "dog",)]
    assert _warnings(tokenizer, texts) == []
    assert _warnings(tokenizer, [*texts, ("dog",)]) != []
    (truncated,) = _warnings(tokenizer, texts, length=9)
    assert truncated == "100.0 % of the texts are truncated: split them"
