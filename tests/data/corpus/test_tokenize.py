"""Chunks of records into blocks, here and in child processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_corpus

from bert_jax import errors
from bert_jax.data.corpus import parsing, tokenize


@pytest.fixture
def vocabulary(tmp_path):
    small_corpus.small_tokenizer(tmp_path / "v")
    return tmp_path / "v"


def record(text, style="lines", where="f.txt:1"):
    return parsing.RawDocument(style, text, where, "text")


def tokenize_here(vocabulary, records, segmenter="none", fallback="none"):
    settings = tokenize.TokenizeSettings(vocabulary, segmenter, fallback)
    return tokenize.ChunkTokenizer(settings).tokenize(tokenize.Chunk(3, tuple(records)))


def pieces(block):
    marks = ["|" if start else "" for start in block.word_starts]
    tokens = [small_corpus.PIECES[token] for token in block.tokens]
    return " ".join(mark + token for mark, token in zip(marks, tokens, strict=True))


def test_ids_lengths_and_what_was_dropped(vocabulary):
    records = [record("abc d\n\u200b\n北京"), record("\u200b"), record("z")]
    result = tokenize_here(vocabulary, records)
    assert pieces(result.block) == "|a ##b ##c |d |北 |京 |[UNK]"
    assert result.block.sentence_lengths.tolist() == [4, 2, 1]
    assert result.block.document_lengths.tolist() == [2, 1]
    assert result.block.sources.tolist() == [3, 3]
    assert result.block.tokens.dtype == np.uint16
    assert (result.empty_documents, result.empty_sentences) == (1, 2)
    expected = [parsing.content_hash(parsing.parse(records[i])) for i in (0, 2)]
    assert result.content.tolist() == expected


def test_a_chunk_without_records_is_an_empty_block(vocabulary):
    result = tokenize_here(vocabulary, [])
    assert len(result.block.tokens) == len(result.content) == 0


NEWS = record("北京/ns 大学/n 好/a 。/w abc/x 的/u", style="tagged")


def test_words_of_the_corpus_begin_words(vocabulary):
    result = tokenize_here(vocabulary, [NEWS], "corpus")
    assert pieces(result.block) == "|北 京 |大 学 |好 |。 |a ##b ##c |的"
    assert result.documents_without_words == 0


def test_documents_without_words_follow_the_fallback_and_are_counted(vocabulary):
    pytest.importorskip("jieba")
    records = [NEWS, record("北京大学ab")]
    own = tokenize_here(vocabulary, records, "corpus", "none")
    assert pieces(own.block).endswith("|的 |北 |京 |大 |学 |a ##b")
    cut = tokenize_here(vocabulary, records, "corpus", "jieba")
    assert pieces(cut.block).endswith("|的 |北 京 大 学 |a ##b")
    assert own.documents_without_words == cut.documents_without_words == 1
    alone = tokenize_here(vocabulary, records[1:], "corpus", "none")
    assert pieces(alone.block) == "|北 |京 |大 |学 |a ##b"


def test_jieba_cuts_every_document_by_itself(vocabulary):
    pytest.importorskip("jieba")
    result = tokenize_here(vocabulary, [NEWS, record("新年好人")], "jieba")
    assert pieces(result.block) == ("|北 京 大 学 |好 |。 |a ##b ##c |的 |新 年 好 |人")
    assert result.documents_without_words == 0


def test_a_long_document_is_encoded_in_parts_with_the_same_result(
    vocabulary, monkeypatch
):
    records = [record("abc d\nef\n北京\ng"), NEWS, record("a\nb"), record("")]
    whole = tokenize_here(vocabulary, records, "corpus")
    monkeypatch.setattr(tokenize, "_BATCH_CHARACTERS", 3)
    parts = tokenize_here(vocabulary, records, "corpus")
    assert pieces(parts.block) == pieces(whole.block)
    assert parts.content.tolist() == whole.content.tolist()
    for name in ("sentence_lengths", "document_lengths"):
        assert np.array_equal(getattr(parts.block, name), getattr(whole.block, name))


def chunks_of(count):
    return [tokenize.Chunk(0, (record("ab c\n" * (i % 5 + 1)),)) for i in range(count)]


def test_children_answer_in_order(vocabulary):
    settings = tokenize.TokenizeSettings(vocabulary, "none", "none")
    chunks = chunks_of(23)
    here = list(tokenize.tokenize_all(chunks, settings, 1))
    there = list(tokenize.tokenize_all(iter(chunks), settings, 3))
    assert len(there) == 23
    for a, b in zip(here, there, strict=True):
        assert pieces(a.block) == pieces(b.block)


def test_no_more_than_two_chunks_a_worker_are_in_flight(vocabulary):
    taken = []

    def chunks():
        for chunk in chunks_of(12):
            taken.append(chunk)
            yield chunk

    settings = tokenize.TokenizeSettings(vocabulary, "none", "none")
    results = tokenize.tokenize_all(chunks(), settings, 2)
    next(results)
    assert len(taken) == 4
    next(results)
    assert len(taken) == 5
    results.close()


def test_an_error_of_a_record_comes_from_a_child_by_name(vocabulary):
    bad = tokenize.Chunk(0, (record("{", "json", "b.jsonl:7"),))
    settings = tokenize.TokenizeSettings(vocabulary, "none", "none")
    with pytest.raises(errors.InputError, match=r"b\.jsonl:7:"):
        list(tokenize.tokenize_all([*chunks_of(3), bad], settings, 2))


def test_an_error_at_the_start_of_a_child_comes_by_name(tmp_path):
    settings = tokenize.TokenizeSettings(tmp_path / "nothing", "none", "none")
    with pytest.raises(errors.InputError, match="nothing"):
        list(tokenize.tokenize_all(chunks_of(1), settings, 2))


def test_a_bug_in_a_worker_shows(vocabulary):
    chunk = tokenize.Chunk(0, (parsing.RawDocument("lines", None, "f:1", ""),))
    settings = tokenize.TokenizeSettings(vocabulary, "none", "none")
    with pytest.raises(AttributeError, match="split"):
        list(tokenize.tokenize_all([chunk], settings, 2))


def workers_of(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in lists for child in path.read_text().split()]
    return [child for child in children if b"spawn_main" in command_of(child)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="no /proc to find children in"
)


@needs_proc
def test_a_killed_child_is_a_storage_error(vocabulary):
    before = set(workers_of(os.getpid()))
    killed = []

    def chunks():
        for i, chunk in enumerate(chunks_of(20)):
            if i == 5:
                killed.extend(set(workers_of(os.getpid())) - before)
                os.kill(killed[0], signal.SIGKILL)
                time.sleep(1)
            yield chunk

    settings = tokenize.TokenizeSettings(vocabulary, "none", "none")
    with pytest.raises(errors.StorageError, match="worker"):
        list(tokenize.tokenize_all(chunks(), settings, 2))
    assert not set(killed) & set(workers_of(os.getpid()))


ENDLESS = """
import itertools, sys
from pathlib import Path
from bert_jax.data.corpus import parsing, tokenize
chunk = tokenize.Chunk(0, (parsing.RawDocument("lines", "ab", "f:1", ""),))
settings = tokenize.TokenizeSettings(Path(sys.argv[1]), "none", "none")
for i, _ in enumerate(tokenize.tokenize_all(itertools.repeat(chunk), settings, 2)):
    if i == 9:
        print("running", flush=True)
"""


@needs_proc
def test_children_do_not_outlive_a_killed_parent(vocabulary):
    parent = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(vocabulary)], stdout=subprocess.PIPE
    )
    assert parent.stdout.readline() == b"running\n"
    children = workers_of(parent.pid)
    parent.kill()
    parent.communicate()
    assert len(children) == 2
    for _ in range(200):
        if not any(is_alive(child) for child in children):
            break
        time.sleep(0.05)
    assert not any(is_alive(child) for child in children)


def is_alive(pid):
    """Says whether a process runs; one that nobody has waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
