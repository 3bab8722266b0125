"""A store filled by many workers is, byte for byte, that of one machine."""

import dataclasses
import errno
import functools
import itertools
import json
import os
import signal
import subprocess
import sys

import mixed_corpus
import numpy as np
import pytest
import scrambled_runner
import small_corpus

from bert_jax import errors
from bert_jax.contrib.beam import beam_engine
from bert_jax.data import text_files
from bert_jax.data.corpus import sources, store, store_build

SPLIT = store.StoreOptions(0.2, True, "none", "none")


@pytest.fixture
def tiny_chunks(monkeypatch):
    monkeypatch.setattr(beam_engine, "_CHUNK_CHARACTERS", 500)


def build(folder, several, tokenizer, options=SPLIT, *, runner=None, tokens=900):
    """Builds a store by a runner, or on this machine."""
    engine = runner and functools.partial(beam_engine.fill_distributed, runner=runner)
    store_build.build(
        folder,
        sources=several,
        tokenizer=tokenizer,
        options=options,
        workers=1,
        progress=False,
        engine=engine,
        shard_tokens=tokens,
    )
    return small_corpus.bytes_of(folder)


@pytest.mark.parametrize(
    "options, seeds",
    [
        (SPLIT, (0, 1)),
        (store.StoreOptions(0.2, False, "none", "none"), (2,)),
        (store.StoreOptions(0.0, True, "none", "none"), (3,)),
    ],
)
def test_every_file_is_that_of_one_machine(
    tmp_path, tokenizer, tiny_chunks, options, seeds
):
    several = mixed_corpus.write(tmp_path / "text")
    expected = build(tmp_path / "local", several, tokenizer, options)
    written = json.loads(expected[store.MANIFEST])
    for seed in seeds:
        runner = scrambled_runner.Runner(seed)
        folder = tmp_path / str(seed)
        assert build(folder, several, tokenizer, options, runner=runner) == expected
    # What makes the test hard: many files, many chunks, many shards, many repeats.
    assert [len(source["files"]) for source in written["sources"]] == [2, 1, 1, 1]
    repeats = written["dropped"]["duplicate_documents"]
    assert repeats > 150 or not options.drop_duplicates
    assert written["dropped"]["empty_documents"] == 2
    shards = [shard["split"] for shard in written["shards"]]
    assert shards.count("train") > 5
    assert shards.count("heldout") > 2 or not options.held_out_fraction


def test_the_size_of_chunks_changes_nothing(tmp_path, tokenizer, monkeypatch):
    several = mixed_corpus.write(tmp_path / "text")
    expected = build(tmp_path / "local", several, tokenizer)
    for characters in (200, 1 << 22):
        monkeypatch.setattr(beam_engine, "_CHUNK_CHARACTERS", characters)
        runner = scrambled_runner.Runner()
        folder = tmp_path / str(characters)
        assert build(folder, several, tokenizer, runner=runner) == expected


def test_sources_are_found_from_another_folder(tmp_path, tokenizer, monkeypatch):
    mixed_corpus.write(tmp_path / "text")
    monkeypatch.chdir(tmp_path)
    several = sources.parse_sources(
        ["text/text/*.txt*", "text/text", "text/text/a.txt"]
    )
    expected = build(tmp_path / "local", several, tokenizer)

    class Elsewhere(scrambled_runner.Runner):
        def tokenize(self, steps):
            with monkeypatch.context() as there:
                there.chdir("/")
                super().tokenize(steps)

    made = build(tmp_path / "made", several, tokenizer, runner=Elsewhere())
    assert made == expected


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_the_first_bad_record_is_the_error_and_nothing_stays(
    tmp_path, tokenizer, tiny_chunks
):
    lines = ['{"text": "ab"}\n'] * 400
    for number in (150, 320):
        lines[number - 1] = "{\n"
    (tmp_path / "c.jsonl").write_text("".join(lines))
    (tmp_path / "d.txt").write_bytes(b"a\n\xff\n")
    several = sources.parse_sources([f"{tmp_path}/c.jsonl", f"{tmp_path}/d.txt"])
    for seed in (1, 2):
        runner = scrambled_runner.Runner(seed)
        with pytest.raises(errors.InputError, match=r"c\.jsonl:150:"):
            build(tmp_path / "s", several, tokenizer, runner=runner)
    assert left(tmp_path) == ["c.jsonl", "d.txt", "v"]
    with pytest.raises(errors.InputError, match=r"d\.txt:2: byte 1 of the line"):
        build(tmp_path / "s", several[1:], tokenizer, runner=runner)
    assert left(tmp_path) == ["c.jsonl", "d.txt", "v"]


def test_a_corpus_without_a_token_is_refused(tmp_path, tokenizer):
    (tmp_path / "c.txt").write_text("\u200b\n")
    several = sources.parse_sources(f"{tmp_path}/c.txt")
    with pytest.raises(errors.InputError, match="corpus has no text"):
        build(tmp_path / "s", several, tokenizer, runner=scrambled_runner.Runner())
    assert left(tmp_path) == ["c.txt", "v"]


def test_workers_that_do_not_see_the_corpus_are_named(tmp_path, tokenizer):
    several = mixed_corpus.write(tmp_path / "text")

    class Blind(scrambled_runner.Runner):
        def tokenize(self, steps):
            (tmp_path / "text" / "text").rename(tmp_path / "away")
            super().tokenize(steps)

    with pytest.raises(errors.InputError, match="the worker on .* finds that .*exist"):
        build(tmp_path / "s", several, tokenizer, runner=Blind())


@pytest.mark.parametrize("lost", ["blocks", "repeats", "shards"])
def test_files_of_workers_that_are_not_there_are_a_storage_error(
    tmp_path, tokenizer, tiny_chunks, lost
):
    """As where every worker has a disk of its own."""
    several = mixed_corpus.write(tmp_path / "text")

    class Losing(scrambled_runner.Runner):
        def _lose(self, steps):
            sorted((steps.scratch.folder / lost).iterdir())[0].unlink()

        def tokenize(self, steps):
            super().tokenize(steps)
            if lost != "shards":
                self._lose(steps)

        def write(self, steps, count):
            super().write(steps, count)
            self._lose(steps)

    with pytest.raises(errors.StorageError, match="all workers share under one name"):
        build(tmp_path / "s", several, tokenizer, runner=Losing())
    assert left(tmp_path) == ["text", "v"]


def test_a_scratch_that_a_worker_does_not_see_is_named(tmp_path, tokenizer):
    several = mixed_corpus.write(tmp_path / "text")

    class Blind(scrambled_runner.Runner):
        def tokenize(self, steps):
            steps.scratch.folder.rename(tmp_path / "away")
            super().tokenize(steps)

    with pytest.raises(errors.StorageError, match="the worker on .* does not see"):
        build(tmp_path / "s", several, tokenizer, runner=Blind())


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    tmp_path, tokenizer, monkeypatch
):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    several = mixed_corpus.write(tmp_path / "text")
    monkeypatch.setattr("bert_jax.contrib.beam.beam_engine.np.savez", full)
    with pytest.raises(errors.StorageError, match="No space left on device"):
        build(tmp_path / "s", several, tokenizer, runner=scrambled_runner.Runner())
    assert left(tmp_path) == ["text", "v"]


@pytest.mark.parametrize("point", ["tokenized", "planned", "written"])
def test_a_build_killed_between_its_passes_leaves_no_store(tmp_path, tokenizer, point):
    mixed_corpus.write(tmp_path / "text")
    environment = os.environ | {
        "BERT_JAX_FAULTS": f"beam/{point}:SIGKILL",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    runner = "import scrambled_runner; runner = scrambled_runner.Runner()"
    program = mixed_corpus.builder(tmp_path, runner)
    assert subprocess.run(program, env=environment).returncode == -signal.SIGKILL
    assert left(tmp_path) == [".s.building", ".s.building.lock", "text", "v"]
    assert not (tmp_path / ".s.building" / store.MANIFEST).exists()
    several = sources.parse_sources(f"{tmp_path}/text/text")
    expected = build(tmp_path / "local", several, tokenizer)
    runner = scrambled_runner.Runner()
    assert build(tmp_path / "s", several, tokenizer, runner=runner) == expected
    assert left(tmp_path) == ["local", "s", "text", "v"]


FILES = [text_files.FileEntry(f"{name}.txt", 7, "ab") for name in "xyz"]
PARTS = [
    beam_engine.PartRead(f"00000-0000000{i}", 2 + i, 30 + i, f)
    for i, f in enumerate(FILES)
]
REPORTS = [
    beam_engine.BuildReport(parts=(PARTS[2],)),
    beam_engine.BuildReport(parts=(PARTS[0],), dropped=store.Dropped(3, 0, 5)),
    beam_engine.BuildReport(dropped=store.Dropped(1, 1, 0, 2, 9)),
    beam_engine.BuildReport(parts=(PARTS[1],)),
]


def test_parts_are_sorted_and_counts_added_in_any_order():
    for order in itertools.permutations(REPORTS):
        merged = beam_engine.merge(order)
        assert merged.parts == tuple(PARTS)
        assert merged.dropped == store.Dropped(4, 1, 5, 2, 9)
        assert beam_engine.merge([beam_engine.merge(order[:3]), order[3]]) == merged
    assert beam_engine.merge([]) == beam_engine.BuildReport()


def test_the_failure_that_comes_first_in_the_corpus_is_kept():
    bad = [
        beam_engine.failure("00001-00000000-00000002", errors.InputError("late")),
        beam_engine.failure("00001-00000000-00000001", errors.StorageError("early")),
    ]
    found = beam_engine.merge([*REPORTS, *bad]).failure
    assert found == ("00001-00000000-00000001", "StorageError", "early")


def test_a_report_survives_json():
    failed = beam_engine.failure("a", errors.InputError("ü"))
    for report in (beam_engine.merge(REPORTS), failed):
        text = json.dumps(dataclasses.asdict(report))
        assert beam_engine.from_json(json.loads(text)) == report


@pytest.fixture
def place(tmp_path):
    with beam_engine.temporary_scratch(tmp_path) as made:
        yield made


def test_what_is_written_is_read_and_nothing_else_is_there(place):
    place.write_arrays("blocks/a", x=np.arange(3), y=np.array([True, False]))
    place.write_json("report", {"a": [1, "ü"]})
    y, x = place.read_arrays("blocks/a", "y", "x")
    assert x.tolist() == [0, 1, 2] and y.tolist() == [True, False]
    assert place.read_json("report") == {"a": [1, "ü"]}
    assert [path.name for path in (place.folder / "blocks").iterdir()] == ["a"]


def test_a_file_that_was_not_finished_is_not_there(place, monkeypatch):
    def half(file, **arrays):
        file.write(b"PK")
        raise OSError("disk")

    monkeypatch.setattr(beam_engine.np, "savez", half)
    with pytest.raises(OSError, match="disk"):
        place.write_arrays("blocks/a", x=np.arange(3))
    assert not (place.folder / "blocks" / "a").exists()


def test_files_of_a_folder_appear_at_its_end(place):
    for text in ("first", "again"):
        with place.appearing_folder("shards") as folder:
            (folder / "s").write_text(text)
            there = place.folder / "shards" / "s"
            assert not there.exists() or there.read_text() == "first"
        assert there.read_text() == text
    assert [path.name for path in (place.folder / "shards").iterdir()] == ["s"]


def test_what_another_worker_did_not_write_is_named(place):
    with pytest.raises(errors.StorageError, match="blocks/a, which another worker"):
        place.read_arrays("blocks/a", "x")
    (place.folder / "report").write_text("{")
    with pytest.raises(errors.StorageError, match="report, which another worker"):
        place.read_json("report")
    place.write_arrays("blocks/a", x=np.arange(3))
    with pytest.raises(errors.StorageError, match="blocks/a, which another worker"):
        place.read_arrays("blocks/a", "y")


def test_a_worker_that_outlives_its_build_writes_nowhere(tmp_path):
    with beam_engine.temporary_scratch(tmp_path) as ended:
        ended.check()
    with beam_engine.temporary_scratch(tmp_path) as other:
        assert other.folder != ended.folder
        with pytest.raises(FileNotFoundError):
            ended.write_json("report", {})
        with pytest.raises(errors.StorageError, match="does not see"):
            ended.check()
        assert not (other.folder / "report").exists()
    assert list(tmp_path.iterdir()) == []


def test_flipped_bits_are_found(place):
    place.write_arrays("blocks/a", x=np.arange(1000))
    path = place.folder / "blocks" / "a"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(errors.StorageError, match="cannot be read"):
        place.read_arrays("blocks/a", "x")
