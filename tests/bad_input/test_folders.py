"""What the folder of a run or of a store can have wrong, and the disk below it."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_place
import tiny_run

from bert_jax.config import pretraining
from bert_jax.data.corpus import store
from bert_jax.runs import workdirs
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint, remote

PLACES = [
    ("workdir=FILE", "file is a file or lies below one"),
    ("workdir=FILE/run", "is a file or lies below one"),
    ("config.data.store=FILE", "file exists already"),
    ("config.data.store=FULL", "full exists already"),
    ("config.data.store=FILE/s", "file is a file. Choose another place"),
]


@pytest.mark.parametrize(("argument", "words"), PLACES)
def test_a_place_that_is_taken(shell, place, tmp_path, argument, words):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    for name in ("file", "full"):
        argument = argument.replace(name.upper(), str(tmp_path / name))
    done = small_place.pretrain(shell, place, tmp_path, f"--{argument}")
    assert done.code == 2
    assert words in done.message
    assert small_place.files(tmp_path) == {"file": b"mine", "full/a": b"mine"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("workdir=PLACE", "is not writable: choose another"),
        ("config.data.store=PLACE/s", "is not writable. Choose another place"),
    ],
)
def test_a_place_that_is_not_writable(
    shell, place, tmp_path, monkeypatch, argument, words
):
    (tmp_path / "locked").mkdir()
    access = os.access  # the tests may run as root, to whom all is writable
    monkeypatch.setattr(
        os, "access", lambda p, mode: Path(p).name != "locked" and access(p, mode)
    )
    argument = argument.replace("PLACE", str(tmp_path / "locked"))
    done = small_place.pretrain(shell, place, tmp_path, f"--{argument}")
    assert done.code == 2
    assert words in done.message
    assert small_place.files(tmp_path) == {}


@pytest.mark.parametrize("argument", ["workdir=PLACE", "config.data.store=PLACE/s"])
def test_a_disk_that_is_read_only(shell, place, tmp_path, monkeypatch, argument):
    (tmp_path / "locked").mkdir()
    real, read_only = os.statvfs, SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(
        os, "statvfs", lambda p: read_only if Path(p).name == "locked" else real(p)
    )
    argument = argument.replace("PLACE", str(tmp_path / "locked"))
    done = small_place.pretrain(shell, place, tmp_path, f"--{argument}")
    assert done.code == 5
    assert "locked is on a disk that is read-only" in done.message
    assert small_place.files(tmp_path) == {}


def test_a_workdir_in_which_another_run_is_at_work(shell, place, tmp_path):
    with workdirs.locked(remote.WorkingCopy(tmp_path / "run")):
        before = small_place.files(tmp_path)
        done = small_place.pretrain(shell, place, tmp_path)
        assert done.code == 2
        assert "another process trains in" in done.message
        assert small_place.files(tmp_path) == before


def test_a_system_that_refuses_the_workdir(shell, place, tmp_path, monkeypatch):
    def refuse(path, *rest, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = small_place.pretrain(shell, place, tmp_path)
    assert done.code == 2
    assert "run: Permission denied. Choose another" in done.message


def test_a_full_disk(shell, place, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write_manifest", full)
    done = small_place.prepare(shell, place, tmp_path, place / "text.txt")
    assert done.code == 5
    assert "s cannot be written (No space left on device)" in done.message
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unstarted_run(place, store, tmp_path):
    """A workdir with everything but a checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(store, folder / "store")
    _record(folder, store, tiny_run.config(place / "text.txt"))
    return folder


def _record(folder, store, config):
    settings, tokenizer = pretraining.parse(config), Tokenizer.load(store)
    bert = settings.bert(tokenizer.vocab_size)
    workdirs.record(folder, settings, bert, tokenizer, allow_changed=False)


@pytest.fixture
def any_checkpoint(monkeypatch):
    """Lets `evaluate` get as far as the store."""
    monkeypatch.setattr(checkpoint, "restore_params", lambda *arguments: ({}, {}))


def _on_run(shell, place, folder, command):
    if command == "pretrain":
        return shell(command, f"--config={place / 'tiny.py'}", f"--workdir={folder}")
    if command == "predict":
        return shell(command, f"--model={folder}", "a [MASK]")
    return shell(command, f"--workdir={folder}")


def test_a_store_that_is_gone(shell, place, unstarted_run):
    shutil.rmtree(unstarted_run / "store")
    done = _on_run(shell, place, unstarted_run, "evaluate")
    assert done.code == 2
    assert "store of this run is not there" in done.message


@pytest.mark.parametrize("command", ["pretrain", "evaluate"])
def test_a_store_with_another_tokenizer(
    shell, place, unstarted_run, any_checkpoint, command
):
    (unstarted_run / "checkpoints" / "3").mkdir(parents=True)
    path = unstarted_run / "tokenizer" / "vocab.txt"
    path.write_text(path.read_text().replace("##a\n", "##aa\n"))
    done = _on_run(shell, place, unstarted_run, command)
    assert done.code == 2
    assert "another tokenizer than the run" in done.message
    assert "##aa\n" in path.read_text()


def test_the_corpus_may_be_gone_when_its_store_is_there(shell, place, store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    before = small_place.files(tmp_path / "s")
    missing = small_place.prepare(shell, place, tmp_path, tmp_path / "gone.txt")
    assert missing.code == 2
    assert "gone.txt does not exist" in missing.message
    assert "leave the corpus empty: --config.data.corpus=" in missing.message
    assert small_place.prepare(shell, place, tmp_path, "").code == 0
    other = small_place.prepare(
        shell, place, tmp_path, "", "--config.text.segmenter=jieba"
    )
    assert other.code == 2
    assert "segmenter was 'none' and is 'jieba'" in other.message
    assert small_place.files(tmp_path / "s") == before


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_folder_that_is_no_run(shell, place, tmp_path, command):
    done = _on_run(shell, place, tmp_path / "nope", command)
    assert done.code == 2
    any_model = "nope does not exist: give the folder of a model"
    a_run = "nope is not the workdir of a run"
    assert (any_model if command == "predict" else a_run) in done.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_run_without_checkpoints(shell, place, unstarted_run, command):
    done = _on_run(shell, place, unstarted_run, command)
    assert done.code == 3
    assert "no usable checkpoint in" in done.message


def test_a_start_that_failed_does_not_bind_the_next(tmp_path, place, store):
    for seed in (1, 2):
        config = tiny_run.config(place / "text.txt", run__seed=seed)
        _record(tmp_path, store, config)
    assert unstarted_run.read_settings(tmp_path).run.seed == 2


def test_a_resumption_without_the_corpus_keeps_its_name(tmp_path, place, store):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    for corpus in ("text.txt", ""):
        _record(tmp_path, store, tiny_run.config(place, data__corpus=corpus))
    assert unstarted_run.read_settings(tmp_path).data.corpus == "text.txt"
