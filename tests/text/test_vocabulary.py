"""Vocabularies are learned, checked by eye, and the same every time."""

import collections
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from bert_jax import errors
from bert_jax.text import vocabulary
from bert_jax.text.tokenizer import Tokenizer

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KINDS = ("wordpiece", "sentencepiece-unigram", "sentencepiece-bpe")

# Many words of equal counts: an order by hash would show.
SCRIPT = """
import pathlib, random, sys
from bert_jax.text import vocabulary
rng = random.Random(7)
words = ["".join(rng.choices("abcdéf京北", k=rng.randint(1, 6))) for _ in range(300)]
texts = (" ".join(rng.choices(words, k=9)) for _ in range(200))
folder = pathlib.Path(sys.argv[2])
vocabulary.learn(texts, kind=sys.argv[1], vocab_size=120, lowercase=True, folder=folder)
"""


def learn(texts: Iterable[str], folder: Path, **options: object) -> Tokenizer:
    """Learns with small defaults."""
    ours = {"kind": "wordpiece", "vocab_size": 30, "lowercase": True}
    return vocabulary.learn(iter(texts), folder=folder, **(ours | options))


def test_wordpiece_by_eye(tmp_path: Path):
    # "ab" 4 times and "bab" 3 times: the most frequent pair is "a" "##b" (4); of
    # "b" "##a" and "##a" "##b" (3 each) the one whose ids are smaller comes first.
    texts = ["ab Ab AB áb", "bab bab bab"]
    it = learn(texts, tmp_path, vocab_size=11)
    assert it.tokens == (*SPECIALS, "a", "b", "##a", "##b", "ab", "ba")
    assert it.encode(["abab bab"]) == [[9, 7, 8, 10, 8]]
    assert Tokenizer.load(tmp_path) == it
    assert learn(texts, tmp_path, lowercase=False).encode(["AB"]) == [[1]]


def test_chinese_characters_are_tokens(tmp_path: Path):
    it = learn(["北京大学，北京", "大学。2008 2008"] * 2, tmp_path, vocab_size=40)
    assert {"北", "京", "大", "学", "，", "。", "2008"} <= set(it.tokens)
    assert "北京" not in it.tokens and "##京" not in it.tokens


def test_min_frequency(tmp_path: Path):
    texts = ["ab ab ab cd cd e"]
    assert set(learn(texts, tmp_path, min_frequency=1).tokens[5:]) == {
        *("a", "b", "c", "d", "e", "##b", "##d", "ab", "cd")
    }
    assert set(learn(texts, tmp_path).tokens[5:]) == {
        *("a", "b", "c", "d", "##b", "##d", "ab", "cd")
    }
    assert set(learn(texts, tmp_path, min_frequency=3).tokens[5:]) == {
        *("a", "b", "##b", "ab")
    }


def test_the_alphabet_leaves_room_to_merge(tmp_path: Path):
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    it = learn([rare * 2, "abab " * 50], tmp_path, vocab_size=105)
    singles = [token for token in it.tokens[5:] if len(token.removeprefix("##")) == 1]
    assert len(singles) == 90  # nine tenths of the 100 that are not special
    assert it.tokens[95:] == ("ab", "##ab", "abab")


def test_an_alphabet_of_thousands(tmp_path: Path):
    common = "".join(map(chr, range(0x4E00, 0x4E00 + 3_000)))
    it = learn([common] * 2, tmp_path, vocab_size=4_000)
    assert it.tokens[5:] == tuple(common)


def test_a_small_corpus_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        it = learn(["ab ab"], tmp_path, vocab_size=99)
    assert it.vocab_size == 9
    assert "yields 9 tokens, fewer than text.vocab_size=99" in caplog.text


def test_words_are_counted_after_normalization():
    texts = ["It's 北京!", "IT\u200b naïve \ud800 x", ""]
    assert vocabulary.count_words(texts, lowercase=True) == collections.Counter(
        {"it": 2, "'": 1, "s": 1, "北": 1, "京": 1, "!": 1, "naive": 1, "x": 1}
    )
    counts = vocabulary.count_words(texts, lowercase=False)
    assert (counts["It"], counts["IT"], counts["naïve"]) == (1, 1, 1)


def test_of_too_many_words_the_rarest_are_dropped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vocabulary, "_MAX_DISTINCT_WORDS", 3)
    texts = ["a a a b b", "c d", "b a e"]
    counts = vocabulary.count_words(texts, lowercase=True)
    assert counts == collections.Counter({"a": 4, "b": 3, "e": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_other_processes_learn_the_same_bytes(tmp_path: Path, kind: str):
    contents = []
    for run, threads in enumerate(("1", "2")):
        folder = tmp_path / f"run{run}"
        paths = {"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"]}
        subprocess.run(
            [sys.executable, "-c", SCRIPT, kind, str(folder)],
            env=paths | {"PYTHONHASHSEED": str(run), "RAYON_NUM_THREADS": threads},
            check=True,
            capture_output=True,
        )
        contents.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_wordpiece_does_not_depend_on_the_order_of_texts(tmp_path: Path):
    texts = ["ab cd ef", "cd ef gh", "gh ab xy", "xy zz"] * 3
    first = learn(texts, tmp_path / "a").tokens
    random.Random(3).shuffle(texts)
    assert learn(texts, tmp_path / "b").tokens == first


@pytest.mark.parametrize("kind", KINDS[1:])
def test_sentencepiece(tmp_path: Path, kind: str):
    texts = ["the cat sat on the mat", "THE dog\x00 sat", "北京大学", "x" * 5_000] * 20
    it = learn(texts, tmp_path, kind=kind, vocab_size=60)
    assert it.kind == "sentencepiece"
    assert it.tokens[:5] == SPECIALS
    assert it.special_ids == (0, 1, 2, 3, 4)
    assert it.encode(["The CAT"]) == it.encode(["the cat"])
    assert it.unk_id not in it.encode(["The cat 北京 x"])[0]
    assert set(it.encode(["[MASK][CLS]"])[0]) & {0, 2, 3, 4} == set()
    assert it.decode(it.encode(["the dog sat"])[0]) == "the dog sat"
    assert Tokenizer.load(tmp_path) == it
    cased = learn(texts, tmp_path, kind=kind, vocab_size=60, lowercase=False)
    assert cased.encode(["THE dog"]) != cased.encode(["the dog"])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_sentencepiece_learns_from_a_sample(tmp_path: Path, kind: str):
    texts = [f"word{number} in line {number}" for number in range(500)]
    options = {"kind": kind, "vocab_size": 40, "max_sentences": 150}
    first = learn(texts, tmp_path / "a", **options)
    assert learn(texts, tmp_path / "b", **options) == first


@pytest.mark.parametrize("kind", KINDS)
def test_what_reading_the_texts_raises_reaches_the_caller(tmp_path: Path, kind: str):
    def texts() -> Iterator[str]:
        yield "ab cd"
        raise errors.InputError("corpus.txt:2: bad")

    with pytest.raises(errors.InputError, match="^corpus.txt:2: bad$"):
        learn(texts(), tmp_path, kind=kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_learn_from(tmp_path: Path, kind: str):
    for texts in ([], ["", " \x00\u200b"]):
        with pytest.raises(errors.InputError, match="the texts"):
            learn(texts, tmp_path, kind=kind)
    assert list(tmp_path.iterdir()) == []


def test_sentencepiece_names_the_size_that_the_characters_need(tmp_path: Path):
    with pytest.raises(errors.InputError, match=r"vocab_size is 12, .* 16"):
        learn(["abcdefghij"] * 9, tmp_path, kind="sentencepiece-bpe", vocab_size=12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 5}, "text.vocab_size 5 is too small"),
        ({"min_frequency": 99}, "no character occurs 99 times"),
    ],
)
def test_bad_arguments_are_rejected(tmp_path: Path, options: dict, message: str):
    with pytest.raises(errors.InputError, match=message):
        learn(["ab ab"], tmp_path, **options)
