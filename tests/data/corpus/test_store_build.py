"""Building a store: the same bytes always, all or nothing, reuse that is checked."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small_corpus
from small_corpus import NONE

from bert_jax import errors
from bert_jax.data.corpus import parsing, readers, sources, store, store_build
from bert_jax.text.tokenizer import Tokenizer

SPLIT = store.StoreOptions(0.2, True, "none", "none")


def build(folder, where, tokenizer, options=NONE, workers=1, **more):
    several = sources.parse_sources(where) if isinstance(where, str) else where
    return store_build.build(
        folder,
        sources=several,
        tokenizer=tokenizer,
        options=options,
        workers=workers,
        progress=False,
        **more,
    )


def text_file(tmp_path, text, name="c.txt"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def test_a_store_of_two_documents(tmp_path, tokenizer):
    where = text_file(tmp_path, "abc d\n北京\n\nj x\n")
    built = build(tmp_path / "s", where, tokenizer)
    ids = [[tokenizer.id_of(t) for t in s.split()] for s in ("a ##b ##c d", "北 京")]
    assert small_corpus.documents_of(tmp_path / "s") == [
        ids,
        [[tokenizer.id_of("j"), tokenizer.unk_id]],
    ]
    (shard,) = store.open_store(tmp_path / "s").shards
    starts = shard.word_start(np.arange(8)).astype(int).tolist()
    assert starts == [1, 0, 0, 1, 1, 1, 1, 1]
    assert built == store.read_manifest(tmp_path / "s")
    assert (built.vocab_size, built.tokenizer) == (37, tokenizer.fingerprint)
    assert built.dropped == store.Dropped(unknown_tokens=1)
    assert built.unknown_share == 1 / 8


def test_the_store_holds_its_tokenizer(tmp_path, tokenizer):
    build(tmp_path / "s", text_file(tmp_path, "a\n"), tokenizer)

    assert Tokenizer.load(tmp_path / "s").fingerprint == tokenizer.fingerprint


def test_built_again_by_any_number_of_workers_it_is_byte_identical(
    tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(store_build, "_CHUNK_CHARACTERS", 500)
    mixed = small_corpus.write_mixed(tmp_path / "text")
    built = build(tmp_path / "1", mixed, tokenizer, SPLIT, 1, shard_tokens=900)
    expected = small_corpus.bytes_of(tmp_path / "1")
    assert len(built.of_split("train")) > 3 and len(built.of_split("heldout")) > 1
    for workers in (2, 3):
        folder = tmp_path / str(workers)
        build(folder, mixed, tokenizer, SPLIT, workers, shard_tokens=900)
        assert small_corpus.bytes_of(folder) == expected
    monkeypatch.setattr(store_build, "_CHUNK_CHARACTERS", 7000)
    build(tmp_path / "other chunks", mixed, tokenizer, SPLIT, 1, shard_tokens=900)
    assert small_corpus.bytes_of(tmp_path / "other chunks") == expected


def test_the_manifest_names_no_place_and_no_time(tmp_path, tokenizer):
    where = text_file(tmp_path, "a\n")
    build(tmp_path / "s", where, tokenizer)
    text = (tmp_path / "s" / store.MANIFEST).read_text()
    assert str(tmp_path) not in text and "time" not in text
    (source,) = json.loads(text)["sources"]
    assert source["files"][0]["name"] == "c.txt" and source["documents"] == 1


def test_duplicates_and_empty_documents_are_dropped_and_counted(tmp_path, tokenizer):
    mixed = small_corpus.write_mixed(tmp_path / "text")
    kept = build(tmp_path / "all", mixed, tokenizer)
    assert kept.total("documents") == 400 + 47 + 31
    assert kept.dropped.duplicate_documents == 0
    options = dataclasses.replace(NONE, drop_duplicates=True)
    dropped = build(tmp_path / "once", mixed, tokenizer, options)
    # 47 texts came twice, and of the 30 JSON rows 21 repeat one of nine.
    assert dropped.dropped.duplicate_documents == 47 + 21
    assert dropped.total("documents") == 400 + 10
    for built in (kept, dropped):
        assert built.dropped.empty_documents == 1
        assert built.dropped.empty_sentences == 1
        assert [source.documents for source in built.sources] == [447, 32]
    several = small_corpus.documents_of(tmp_path / "once")
    assert len({str(document) for document in several}) == 410


def test_documents_are_held_out_by_content_and_know_their_source(tmp_path, tokenizer):
    mixed = small_corpus.write_mixed(tmp_path / "text")
    build(tmp_path / "s", mixed, tokenizer, SPLIT)
    expected = {True: [], False: []}
    for source in mixed:
        for document in readers.documents(source):
            ids = [row for row in tokenizer.encode(list(document.sentences)) if row]
            held_out = parsing.content_hash(document) < parsing.held_out_below(0.2)
            if ids and ids not in expected[held_out]:
                expected[held_out].append(ids)
    assert small_corpus.documents_of(tmp_path / "s", "train") == expected[False]
    assert small_corpus.documents_of(tmp_path / "s", "heldout") == expected[True]
    opened = store.open_store(tmp_path / "s")
    assert opened.source_weights == (1.0, 2.5)
    from_json = np.concatenate([shard.sources for shard in opened.shards]) == 1
    assert 4 <= from_json.sum() <= 10 and from_json[-1] and not from_json[0]


def test_words_of_the_corpus_are_in_the_store(tmp_path, tokenizer):
    pytest.importorskip("jieba")
    where = text_file(tmp_path, "北京大学好\n")
    options = store.StoreOptions(0.0, False, "jieba", "none")
    build(tmp_path / "s", where, tokenizer, options, 2)
    (shard,) = store.open_store(tmp_path / "s").shards
    assert shard.word_start(np.arange(5)).astype(int).tolist() == [1, 0, 0, 0, 1]


def test_a_corpus_without_a_token_is_refused_and_leaves_nothing(tmp_path, tokenizer):
    where = text_file(tmp_path, "\u200b\n")
    with pytest.raises(errors.InputError, match="corpus has no text"):
        build(tmp_path / "s", where, tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.txt", "v"]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_text_is_named_and_leaves_nothing(tmp_path, tokenizer, workers):
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(errors.InputError, match=r"c\.jsonl:2: byte 11 of the line"):
        build(tmp_path / "s", f"{tmp_path}/c.jsonl", tokenizer, NONE, workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "v"]


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    tmp_path, tokenizer, monkeypatch
):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.StorageError, match="No space left on device"):
        build(tmp_path / "s", text_file(tmp_path, "a\n"), tokenizer, NONE, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.txt", "v"]


def test_no_worker_at_all_is_refused(tmp_path, tokenizer):
    with pytest.raises(errors.InputError, match="workers is -1"):
        build(tmp_path / "s", text_file(tmp_path, "a\n"), tokenizer, NONE, -1)


def test_an_existing_store_is_not_overwritten(tmp_path, tokenizer):
    where = text_file(tmp_path, "a\n")
    build(tmp_path / "s", where, tokenizer)
    with pytest.raises(errors.InputError, match="s exists already"):
        build(tmp_path / "s", where, tokenizer)


# A suite that a shell runs in the background is started with SIGINT ignored.
BUILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from bert_jax.data.corpus import sources, store, store_build
from bert_jax.text.tokenizer import Tokenizer
store_build._CHUNK_CHARACTERS = 2000
store_build.build(
    Path(sys.argv[1]) / "s",
    sources=sources.parse_sources(sys.argv[1] + "/c.txt"),
    tokenizer=Tokenizer.load(Path(sys.argv[1]) / "v"),
    options=store.StoreOptions(0.1, True, "none", "none"),
    workers=int(sys.argv[2]),
    progress=False,
    shard_tokens=2000,
)
"""


def wait_for(condition, process):
    """Waits until a condition holds while a process runs."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.005)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_build_leaves_nothing_that_looks_finished(
    tmp_path, tokenizer, by, workers
):
    letters = str.maketrans("0123456789", "abcdefghij")
    lines = [f"{i} {i * i} 北京\n".translate(letters) for i in range(100_000)]
    where = text_file(tmp_path, "\n".join(lines))
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(tmp_path), workers], stderr=subprocess.PIPE
    )
    shard = tmp_path / ".s.building" / "train-00002.arrow"
    wait_for(shard.exists, process)
    process.send_signal(by)
    _, printed = process.communicate()
    assert not (tmp_path / "s").exists()
    if by == signal.SIGINT:
        assert b"KeyboardInterrupt" in printed
        assert not (tmp_path / ".s.building").exists()
    else:
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / ".s.building" / store.MANIFEST).exists()
    text_file(tmp_path, "\n".join(lines[:20]))
    built = build(tmp_path / "s", where, tokenizer)
    assert built.total("documents") == 20
    assert len(store.open_store(tmp_path / "s").shards) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.txt", "s", "v"]


def test_the_bar_reaches_the_bytes_of_the_corpus(tmp_path, tokenizer, capfd):
    where = text_file(tmp_path, "ab\n\n" * 2000)
    store_build.build(
        tmp_path / "s",
        sources=sources.parse_sources(where),
        tokenizer=tokenizer,
        options=NONE,
        workers=1,
    )
    assert "(100%)" in capfd.readouterr().err


@pytest.fixture
def mixed_store(tmp_path, tokenizer):
    mixed = small_corpus.write_mixed(tmp_path / "text", 40)
    build(tmp_path / "s", mixed, tokenizer, SPLIT)
    return mixed


def differences(tmp_path, mixed, tokenizer, options=SPLIT):
    try:
        store_build.reuse(
            tmp_path / "s", sources=mixed, tokenizer=tokenizer, options=options
        )
    except errors.InputError as error:
        found = str(error).partition("something else: ")[2]
        return found.removesuffix(
            ". Choose another data.store, or delete this one to build it again."
        ).split("; ")
    return []


def test_the_same_differs_in_nothing_even_elsewhere(tmp_path, tokenizer, mixed_store):
    assert differences(tmp_path, mixed_store, tokenizer) == []
    (tmp_path / "text").rename(tmp_path / "moved")
    moved = sources.parse_sources(
        [f"{tmp_path}/moved/a.txt", f"{tmp_path}/moved/b.jsonl@2.5"]
    )
    os.utime(tmp_path / "moved" / "a.txt", (1, 1))
    assert differences(tmp_path, moved, tokenizer) == []
    assert differences(tmp_path, None, tokenizer) == []


def test_every_difference_is_named(tmp_path, tokenizer, mixed_store):
    other = small_corpus.small_tokenizer(tmp_path / "w", [*small_corpus.PIECES, "x"])
    assert differences(tmp_path, mixed_store, other) == ["another tokenizer"]
    options = store.StoreOptions(0.1, True, "jieba", "none")
    assert differences(tmp_path, mixed_store, tokenizer, options) == [
        "held_out_fraction was 0.2 and is 0.1",
        "segmenter was 'none' and is 'jieba'",
    ]
    assert differences(tmp_path, mixed_store[:1], tokenizer) == [
        "the corpus had 2 sources and has 1"
    ]
    heavier = (mixed_store[0], dataclasses.replace(mixed_store[1], weight=3.0))
    (found,) = differences(tmp_path, heavier, tokenizer)
    assert found.startswith("weight of jsonl:") and found.endswith("was 2.5 and is 3.0")


def test_changed_text_of_the_same_length_is_found(tmp_path, tokenizer, mixed_store):
    path = tmp_path / "text" / "a.txt"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (found,) = differences(tmp_path, mixed_store, tokenizer)
    assert "a.txt" in found
    path.write_bytes(data + b"\nmore")
    (found,) = differences(tmp_path, mixed_store, tokenizer)
    assert "a.txt" in found


def test_files_that_came_are_named(tmp_path, tokenizer):
    (tmp_path / "t").mkdir()
    text_file(tmp_path / "t", "a\n", "a.txt")
    several = sources.parse_sources(f"text:{tmp_path}/t")
    build(tmp_path / "s", several, tokenizer, SPLIT)
    text_file(tmp_path / "t", "b\n", "b.txt")
    found = differences(tmp_path, several, tokenizer)
    (found,) = found
    assert "b.txt" in found


def test_a_store_is_reused_unchanged(tmp_path, tokenizer, mixed_store):
    before = small_corpus.bytes_of(tmp_path / "s")
    reused = store_build.reuse(
        tmp_path / "s", sources=mixed_store, tokenizer=tokenizer, options=SPLIT
    )
    assert reused == store.read_manifest(tmp_path / "s")
    assert small_corpus.bytes_of(tmp_path / "s") == before


def test_the_first_of_equal_hashes_is_new_like_in_a_set():
    draw = np.random.default_rng(7)
    seen, expected = store_build.SeenHashes(), set()
    for size in [0, 1, 13, 400, 3, 0, 257, 5, 1000, 1]:
        hashes = draw.integers(0, 900, size, dtype=np.uint64) << np.uint64(54)
        wanted = []
        for value in hashes.tolist():
            wanted.append(value not in expected)
            expected.add(value)
        assert seen.add(hashes).tolist() == wanted


def test_runs_stay_few_and_hold_eight_bytes_a_hash():
    seen = store_build.SeenHashes()
    for first in range(0, 100_000, 100):
        seen.add(np.arange(first, first + 100, dtype=np.uint64))
    assert len(seen._runs) <= 12
    assert sum(run.nbytes for run in seen._runs) == 800_000
