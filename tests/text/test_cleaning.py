"""What cleaning removes, and that a model's tokenizer applies it everywhere."""

import dataclasses
import sys

import pytest

from bert_jax import errors
from bert_jax.text import cleaning
from bert_jax.text.tokenizer import Tokenizer

TOKENS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat a b c 1 ! 好".split()


def cleaned(steps, text):
    return cleaning.Cleaning(cleaning.parse_steps(steps))(text)


@pytest.mark.parametrize(
    "steps, text, expected",
    [
        ("html", "<p>a <b>b</b>old</p>c &lt;b&gt;", "\na bold\nc <b>"),
        ("html", "a<br/>b<!-- x\n -->c<script>var x;</script>d", "a\nb c d"),
        ("html", "a < b > c <name> x<y", "a < b > c <name> x<y"),
        ("urls", "见https://a.cn/b?c=1。好", "见 。好"),
        ("urls", "see www.a.org, or (http://b.de/c).", "see  , or ( )."),
        ("control", "a\u200bb\x07c\td\ufeff\u00ade\n", "abc\tde\n"),
        ("width", "ＡＢ１２，！\u3000x ｶﾞ 好", "AB12,! x ガ 好"),
        ("none", "<b>Ａ</b>", "<b>Ａ</b>"),
        ("width,html", "<b>Ａ</b>", "A"),
    ],
)
def test_steps(steps, text, expected):
    assert cleaned(steps, text) == expected


def test_the_extra_of_traditional_chinese_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    cleaning._converter.cache_clear()
    with pytest.raises(errors.InputError, match=r"bert_jax\[opencc\]"):
        cleaning.from_config("simplified", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("漢語 a\r\n語", "汉语 a\r\n语"),
        ("頭髮與發展", "头发与发展"),  # two characters become the same one
        ("乾淨的乾隆，皇后在後面", "干净的乾隆，皇后在后面"),  # phrases decide
        ("头发", "头发"),
        ("漢\ud800語\0", "汉\ud800语\0"),
        ("", ""),
    ],
)
def test_traditional_becomes_simplified(text, expected):
    pytest.importorskip("opencc")
    assert cleaned("simplified", text) == expected


def test_traditional_and_simplified_texts_have_the_same_tokens(tmp_path):
    pytest.importorskip("opencc")
    tokens = [*TOKENS[:5], *"头发展汉语"]
    (tmp_path / "vocab.txt").write_text("".join(f"{x}\n" for x in tokens), "utf-8")
    bare = Tokenizer.load(tmp_path / "vocab.txt")
    steps = cleaning.from_config("simplified", "")
    dataclasses.replace(bare, cleaning=steps).save(tmp_path / "kept")
    read = Tokenizer.load(tmp_path / "kept")
    assert read.encode(["頭髮發展漢語"]) == [[5, 6, 6, 7, 8, 9]]
    assert bare.encode(["頭髮發展漢語"]) == [[1, 1, 1, 7, 1, 1]]


def test_stop_words(tmp_path):
    path = tmp_path / "stop.txt"
    path.write_text("\ufeffThe\n\nit's\n", encoding="utf-8")
    clean = cleaning.from_config("", str(path))
    assert clean("The cat, THE theme; it's").split() == ["cat,", "theme;"]
    pytest.importorskip("jieba")
    path.write_text("的\nthe\n", encoding="utf-8")
    clean = cleaning.from_config("", str(path))
    assert (
        clean("我的目的地是the北京") == "我目的地是北京"
        or clean("我的目的") == "我目的"
    )


@pytest.mark.parametrize(
    "clean, stop_words, message",
    [
        ("htlm", "", "text.clean has 'htlm': "),
        ("", "missing.txt", "text.stop_words is missing.txt"),
    ],
)
def test_bad_settings_are_named(clean, stop_words, message):
    with pytest.raises(errors.InputError, match=message):
        cleaning.from_config(clean, stop_words)


@pytest.fixture
def cleaning_tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{x}\n" for x in TOKENS), encoding="utf-8")
    plain = Tokenizer.load(path)
    return dataclasses.replace(
        plain, cleaning=cleaning.Cleaning(("html", "width"), ("the",))
    )


def test_a_tokenizer_cleans_and_keeps_it_in_its_folder(tmp_path, cleaning_tokenizer):
    bare = dataclasses.replace(cleaning_tokenizer, cleaning=cleaning.NONE)
    dirty, clean = "<p>The cat ｓａｔ！</p>", "cat sat!"
    assert cleaning_tokenizer.encode([dirty]) == bare.encode([clean])
    assert (
        cleaning_tokenizer.encode_flat([dirty])[0].tolist() == bare.encode([clean])[0]
    )
    assert cleaning_tokenizer.encode_text("<i>[MASK]</i> ｓａｔ") == bare.encode_text(
        "[MASK] sat"
    )
    assert cleaning_tokenizer.fingerprint != bare.fingerprint
    with pytest.raises(errors.InputError, match="text.clean=none"):
        cleaning_tokenizer.encode_with_offsets([dirty])
    cleaning_tokenizer.save(tmp_path / "ours")
    cleaning_tokenizer.export(tmp_path / "theirs", 16)
    for name in ("ours", "theirs"):
        read = Tokenizer.load(tmp_path / name)
        assert read.cleaning == cleaning_tokenizer.cleaning
    assert (
        Tokenizer.load(tmp_path / "ours").fingerprint == cleaning_tokenizer.fingerprint
    )
    bare.save(tmp_path / "bare")
    assert not (tmp_path / "bare" / cleaning.NAME).exists()


def test_the_cleaning_of_a_folder_is_the_default(cleaning_tokenizer):
    assert (
        cleaning.from_config("", "", cleaning_tokenizer.cleaning)
        == cleaning_tokenizer.cleaning
    )
    assert not cleaning.from_config("none", "", cleaning_tokenizer.cleaning)
    assert cleaning.from_config("urls", "", cleaning_tokenizer.cleaning).steps == (
        "urls",
    )


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / cleaning.NAME).write_text('{"clean": "html"}')
    with pytest.raises(errors.InputError, match="text_cleaning.json"):
        cleaning.read(tmp_path)
