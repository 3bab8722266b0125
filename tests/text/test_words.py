"""Words start by '##' or by the segmenter's words."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from bert_jax import errors
from bert_jax.text import vocabulary, words
from bert_jax.text.tokenizer import Tokenizer

TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "iphone", "ok", "##ay", "1998"),
    *("3", "5", ".", "，", "北", "京", "大", "学", "年", "手", "机", "t", "恤", "ip"),
    *("##hone", "##5"),
)
CHINESE = Tokenizer("wordpiece", TOKENS, True, True)


def mark(sentence: str, its_words: list[str] | None) -> str:
    """Joins the tokens of a sentence, with "|" before each that starts a word."""
    given = None if its_words is None else [its_words]
    ids, lengths, starts = words.encode(CHINESE, [sentence], given)
    assert lengths.tolist() == [len(ids)] == [len(starts)]
    pairs = zip(ids, starts, strict=True)
    return " ".join("|" * bool(start) + TOKENS[index] for index, start in pairs)


@pytest.mark.parametrize(
    ("sentence", "its_words", "expected"),
    [
        ("北京大学", ["北京", "大学"], "|北 京 |大 学"),
        ("北京大学", ["北京大学"], "|北 京 大 学"),
        ("北京大学", list("北京大学"), "|北 |京 |大 |学"),
        # Latin and digits keep the rule of '##', whatever the segmenter returns.
        ("iPhone手机", ["iPhone", "手机"], "|iphone |手 机"),
        ("Okay手机", ["Ok", "ay", "手机"], "|ok ##ay |手 机"),
        ("1998年", ["1998", "年"], "|1998 |年"),
        ("3.5年", ["3.5", "年"], "|3 |. |5 |年"),
        ("大ok学", ["大ok学"], "|大 |ok 学"),
        ("T恤", ["T恤"], "|t 恤"),
        # A word that starts inside a token starts with the token.
        ("iPhone手", ["iPh", "one手"], "|iphone 手"),
        ("北京，大学", ["北京", "，", "大学"], "|北 京 |， |大 学"),
        # What the tokenizer drops does not hide the start of a word.
        ("\u200b北京", ["\u200b", "北京"], "|北 京"),
        ("\u200b北京", ["\u200b北京"], "|北 京"),
        ("北\u200b京大学", ["北京", "大学"], "|北 京 |大 学"),
        ("北京\x00大\ufffd学", ["北京\x00", "大\ufffd学"], "|北 京 |大 学"),
        ("北京 大学", ["北京", "大学"], "|北 京 |大 学"),
        ("北京 大学", ["北京", " ", "大学"], "|北 京 |大 学"),
        ("北京　大学\n", ["北京", "大学"], "|北 京 |大 学"),
        ("北京大学", ["北京 ", "", "大学"], "|北 京 |大 学"),
        # Accents are stripped, and unknown characters keep their words.
        ("e\u0301北京", ["é", "北京"], None),
        ("北龘大学", ["北龘", "大学"], "|北 [UNK] |大 学"),
        ("龘龘", ["龘龘"], "|[UNK] [UNK]"),
        ("", [], ""),
        (" \u200b", [" \u200b"], ""),
    ],
)
def test_chinese_words(sentence: str, its_words: list[str], expected: str | None):
    if expected is None:
        with pytest.raises(errors.InputError, match="sentence 'e\u0301北京"):
            mark(sentence, its_words)
    else:
        assert mark(sentence, its_words) == expected


def test_without_words_the_tokens_decide():
    assert mark("Okay北京 ip5hone", None) == "|ok ##ay |北 |京 |ip ##5 ##hone"


def test_many_sentences_at_once():
    sentences = ["北京", "", "iphone大学"]
    ids, lengths, starts = words.encode(
        CHINESE, sentences, [["北京"], [], ["iphone", "大学"]]
    )
    assert (ids.dtype, lengths.dtype, starts.dtype) == (np.uint32, np.int64, bool)
    assert ids.tolist() == [13, 14, 5, 15, 16]
    assert lengths.tolist() == [2, 0, 3]
    assert starts.tolist() == [True, False, True, True, False]
    _, _, starts = words.encode(CHINESE, ["北京", "大学"], [["北京"], ["大学"]])
    assert starts.tolist() == [True, False, True, False]
    _, lengths, starts = words.encode(CHINESE, [], [])
    assert (lengths.shape, starts.shape) == ((0,), (0,))


def test_sentencepiece_words(tmp_path: Path):
    texts = ["北京大学 手机", "北京 the cat", "大学北京", "手机 cat"] * 9
    it = vocabulary.learn(
        texts, kind="sentencepiece-bpe", vocab_size=30, lowercase=True, folder=tmp_path
    )
    ids, _, starts = words.encode(it, ["北京机大学 cat"], [["北京", "机大学", "cat"]])
    shown = [it.tokens[index] for index in ids[starts]]
    assert "".join(it.tokens[index] for index in ids) == "▁北京机大学▁cat"
    assert [token[-1] for token in shown] == ["京", "机", "t"]
    # A space separates even the parts of one word.
    ids, _, starts = words.encode(it, ["手机 cat"], [["手机 cat"]])
    assert [it.tokens[index][0] for index in ids[starts]] == ["▁", "▁"]
    ids, _, starts = words.encode(it, ["北京机大学 cat"])
    assert [it.tokens[index][0] for index in ids[starts]] == ["▁", "▁"]


def test_the_first_token_always_starts_a_word(tmp_path: Path):
    options = {"pad_piece": "[PAD]", "unk_piece": "[UNK]", "vocab_size": 99}
    ids = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat", "cat the"] * 9),
        model_prefix=str(tmp_path / "spiece"),
        **{"model_type": "char", "hard_vocab_limit": False, "minloglevel": 2},
        **(options | ids | {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}),
        add_dummy_prefix=False,
    )
    (tmp_path / "spiece.vocab").unlink()
    it = Tokenizer.load(tmp_path)
    for its_words in (None, [["ca", "t the"], [], ["th", "e"]]):
        _, lengths, starts = words.encode(it, ["cat the", "", "the"], its_words)
        assert lengths.tolist() == [7, 0, 3]
        assert starts[[0, 7]].all()


def test_words_that_do_not_join_to_the_sentence_are_rejected():
    for its_words in (["北京"], ["北京", "大学", "年"], ["大学", "北京"], []):
        with pytest.raises(errors.InputError, match="the sentence '北京"):
            words.encode(CHINESE, ["北京大学"], [its_words])


def test_jieba():
    jieba = words.segmenter("jieba")
    assert jieba is not None
    assert jieba.cut("我在北京大学读书，1998年。") == [
        *("我", "在", "北京大学", "读书", "，", "1998", "年", "。")
    ]
    assert jieba.cut("北\u200b京 大学") == ["北京", " ", "大学"]
    assert jieba.cut("") == []
    hard = "a\tb\r\n手机 \u3000iPhone😀한국\xa0é"
    assert "".join(jieba.cut(hard)) == hard
    assert mark("手机iPhone，北\u200b京", jieba.cut("手机iPhone，北\u200b京")) == (
        "|手 机 |iphone |， |北 京"
    )


def test_jieba_writes_nothing(tmp_path: Path):
    code = "from bert_jax.text import words; print(words.Jieba().cut('北京大学'))"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("['北京大学']\n", "")
    assert list(tmp_path.iterdir()) == []


def test_jieba_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(errors.InputError, match=r'pip install "bert_jax\[zh\]"'):
        words.segmenter("jieba")


def test_names_of_segmenters():
    assert words.segmenter("none") is None
    assert words.segmenter("corpus") is None
    with pytest.raises(errors.InputError, match="none, jieba, corpus"):
        words.segmenter("ltp")
