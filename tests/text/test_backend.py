"""WordPiece agrees with the published ids on hard strings.

The expected values come from a plain-Python reading of google-research/bert's
`tokenization.py`; Hugging Face's BertTokenizer gives the same except where stated.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bert_jax.text import specials
from bert_jax.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "hard_strings.json"
HARD = json.loads(GOLDEN.read_text(encoding="utf-8"))
VOCABULARIES = {
    "english": "bert-base-uncased-vocab.txt",
    "chinese": "bert-base-chinese-vocab.txt",
}

TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),  # 0 to 4
    *("un", "##aff", "##able", "naive", "naïve", "[", "]", "mask", "MASK"),  # 5 to 13
    *("北", "京", "a", "##a", "ος", "οσ", "!", "$", "i", "I", "ab", "##²"),  # 14 to 25
)
UNCASED = Tokenizer("wordpiece", TOKENS, True, True)
CASED = Tokenizer("wordpiece", TOKENS, False, False)


@pytest.mark.parametrize("language", VOCABULARIES)
def test_official_ids_of_hard_strings(shared_data: Path, language: str):
    path = shared_data / "vocab" / VOCABULARIES[language]
    official = Tokenizer.load(path, rules="google")
    ids = official.encode([case["text"] for case in HARD])
    for case, row in zip(HARD, ids, strict=True):
        pieces = " ".join(official.tokens[index] for index in row)
        assert (case["text"], pieces) == (case["text"], case[language])
        assert row == case[f"{language}_ids"]


@pytest.mark.parametrize("language", VOCABULARIES)
def test_official_ids_do_not_depend_on_the_batch(shared_data: Path, language: str):
    path = shared_data / "vocab" / VOCABULARIES[language]
    official = Tokenizer.load(path, rules="google")
    texts = [case["text"] for case in HARD]
    assert [official.encode([text])[0] for text in texts] == official.encode(texts)
    with_offsets = official.encode_with_offsets(texts)
    assert [ids for ids, _ in with_offsets] == official.encode(texts)


def test_hard_strings_are_many():
    assert len(HARD) > 50
    assert len({case["text"] for case in HARD}) == len(HARD)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable", "un ##aff ##able"),
        ("UNAFFABLE!", "un ##aff ##able !"),
        ("NAÏVE naïve", "naive naive"),
        ("nai\u0308ve", "naive"),  # a combining mark
        ("北京", "北 京"),
        ("a北a京a", "a 北 a 京 a"),
        ("a\u200ba\x00\ufffda", "a ##a ##a"),  # dropped inside a word
        ("a\u00a0a\u3000a\ta\u2028a", "a a a a a"),  # all are white space
        ("\u0130", "i"),  # capital dotted I
        ("ΟΣ ΟΣ!", "ος ος !"),  # sigma at the end of a word
        ("ab² xyz", "ab ##² [UNK]"),
        ("[MASK]", "[ mask ]"),
        ("[MASK][mask]", "[ mask ] [ mask ]"),
        ("$ab$", "$ ab $"),
        ("a\ue000 a", "[UNK] a"),  # private use stays in its word
        ("a\U0002b820a", "a [UNK] a"),  # a Chinese character by the published ranges
        ("a\ud800 a", "[UNK] a"),  # half a surrogate pair, as JSON may hold
        ("", ""),
        (" \u0301\t", ""),
    ],
)
def test_uncased_pieces(text: str, pieces: str):
    (row,) = UNCASED.encode([text])
    assert " ".join(TOKENS[index] for index in row) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("naïve Naïve", "naïve [UNK]"),
        ("naive nai\u0308ve", "naive [UNK]"),  # nothing is composed
        ("[MASK]", "[ MASK ]"),
        ("I i \u0130", "I i [UNK]"),
        ("ΟΣ οσ ος", "[UNK] οσ ος"),
    ],
)
def test_cased_pieces(text: str, pieces: str):
    (row,) = CASED.encode([text])
    assert " ".join(TOKENS[index] for index in row) == pieces


@pytest.mark.parametrize(
    ("length", "known"), [(100, True), (101, True), (200, True), (201, False)]
)
def test_words_over_200_characters_are_unknown(length: int, known: bool):
    (row,) = UNCASED.encode(["a" * length + " a"])
    assert row == ([16] + [17] * (length - 1) if known else [1]) + [16]


def test_final_sigma_follows_the_published_lowering():
    greek = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "σ", "##σ", "ς", "##ς", "i")
    lower = Tokenizer("wordpiece", (*greek, "##i"), True, True)
    # "Σ" alone, "ΣΣ", a sigma before a letter, one after a grown character, none last.
    rows = lower.encode(["Σ", "ΣΣ", "ΣΣİ", "İΣ", "ςΣ σ"])
    assert rows == [[5], [5, 8], [5, 6, 10], [9, 8], [7, 8, 5]]
    # Dropped characters around it; a full stop does not end the word for Unicode.
    rows = lower.encode(["i\x85Σ", "i\u200bΣ", "Σ\x00i", "iΣ\x01", "iΣ.i"])
    assert rows == [[9, 8], [9, 8], [5, 10], [9, 8], [9, 6, 1, 9]]


def test_strip_accents_is_independent_of_lowercase():
    kept = Tokenizer("wordpiece", TOKENS, True, False)
    assert kept.encode(["NAÏVE naive"]) == [[9, 8]]


def test_offsets_are_characters_of_the_original():
    rows = UNCASED.encode_with_offsets(["\u200b北 nai\u0308ve", "😀ÀA", "\ue000 Σ!"])
    assert rows == [
        ([14, 8], [(1, 2), (3, 9)]),
        ([1], [(0, 3)]),
        ([1, 1, 20], [(0, 1), (2, 3), (3, 4)]),
    ]


def test_hugging_faces_rules():
    theirs = Tokenizer("wordpiece", TOKENS, True, True, rules="huggingface")
    # Private use is dropped; U+2B820 is a letter; sigma is sigma; 100 characters.
    assert theirs.encode(["a\ue000 a", "a\U0002b820a", "ΟΣ", "a\ud800 a"]) == [
        *([16, 16], [1], [19], [16, 16])
    ]
    rows = theirs.encode(["a" * 100, "a" * 101])
    assert rows == [[16] + [17] * 99, [1]]
    assert theirs.encode_with_offsets(["\ue000a!"]) == [([16, 20], [(1, 2), (2, 3)])]


def test_special_tokens_that_are_words_stay_text():
    named = specials.SpecialTokens(pad="a", unk="ab", cls="i", sep="I", mask="mask")
    it = Tokenizer("wordpiece", TOKENS, False, False, specials=named)
    assert it.encode(["a mask !ab"]) == [[24, 24, 20, 24]]
    assert it.encode_text("a!mask!") == [24, 20, 12, 20]
    # The names inside, and the character that marks them.
    assert it.encode(["\U0010ffffmask\U0010ffff a", "a\U0010ffff"]) == [[24, 24], [24]]
    theirs = dataclasses.replace(it, rules="huggingface")
    assert theirs.encode(["\U0010ffffmask\U0010ffff a"]) == [[24, 24]]


def test_flat_ids_and_lengths():
    ids, lengths = UNCASED.encode_flat(["a a", "", "北京!"])
    assert ids.dtype == np.uint32
    assert lengths.dtype == np.int64
    assert ids.tolist() == [16, 16, 14, 15, 20]
    assert lengths.tolist() == [2, 0, 3]
    ids, lengths = UNCASED.encode_flat([])
    assert (ids.shape, lengths.shape) == ((0,), (0,))


def test_replacements_are_not_in_the_vocabulary():
    taken = (*TOKENS, "\U00013000", "##\U00020000")
    it = Tokenizer("wordpiece", taken, True, True)
    assert it.encode(["\ue000 \U0002b820 \U00013000"]) == [[1, 1, len(TOKENS)]]
