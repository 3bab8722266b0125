"""Bad folders of runs and stores, and faults of the disk below them."""

import errno
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_inputs
import tiny_run

from bert_jax.checkpoints import run_folder
from bert_jax.config import pretraining
from bert_jax.data.corpus import store
from bert_jax.runs import workdirs
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint, remote

TAKEN = [
    ("workdir=FILE", "FILE"),
    ("workdir=FILE/run", "FILE/run"),
    ("config.data.store=FILE", "FILE"),
    ("config.data.store=FULL", "FULL"),
    ("config.data.store=FILE/s", "FILE"),
]


@pytest.mark.parametrize(("argument", "path"), TAKEN)
def test_a_path_that_is_taken(shell, inputs, tmp_path, argument, path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    for name in ("file", "full"):
        argument = argument.replace(name.upper(), str(tmp_path / name))
        path = path.replace(name.upper(), str(tmp_path / name))
    done = small_inputs.pretrain(shell, inputs, tmp_path, f"--{argument}")
    assert done.code == 2
    assert path in done.message
    assert small_inputs.files(tmp_path) == {"file": b"mine", "full/a": b"mine"}


@pytest.mark.parametrize("argument", ["workdir=LOCKED", "config.data.store=LOCKED/s"])
def test_a_folder_that_is_not_writable(shell, inputs, tmp_path, monkeypatch, argument):
    (tmp_path / "locked").mkdir()
    access = os.access  # the tests may run as root, to whom all is writable
    monkeypatch.setattr(
        os, "access", lambda p, mode: Path(p).name != "locked" and access(p, mode)
    )
    argument = argument.replace("LOCKED", str(tmp_path / "locked"))
    done = small_inputs.pretrain(shell, inputs, tmp_path, f"--{argument}")
    assert done.code == 2
    assert str(tmp_path / "locked") in done.message
    assert small_inputs.files(tmp_path) == {}


@pytest.mark.parametrize("argument", ["workdir=LOCKED", "config.data.store=LOCKED/s"])
def test_a_disk_that_is_read_only(shell, inputs, tmp_path, monkeypatch, argument):
    (tmp_path / "locked").mkdir()
    real, read_only = os.statvfs, SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(
        os, "statvfs", lambda p: read_only if Path(p).name == "locked" else real(p)
    )
    argument = argument.replace("LOCKED", str(tmp_path / "locked"))
    done = small_inputs.pretrain(shell, inputs, tmp_path, f"--{argument}")
    assert done.code == 5
    assert str(tmp_path / "locked") in done.message
    assert small_inputs.files(tmp_path) == {}


def test_a_workdir_that_is_locked_by_another_run(shell, inputs, tmp_path):
    with workdirs.locked(remote.WorkingCopy(tmp_path / "run")):
        before = small_inputs.files(tmp_path)
        done = small_inputs.pretrain(shell, inputs, tmp_path)
        assert done.code == 2
        assert str(tmp_path / "run") in done.message
        assert small_inputs.files(tmp_path) == before


def test_a_workdir_that_cannot_be_created(shell, inputs, tmp_path, monkeypatch):
    def refuse(path, *rest, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = small_inputs.pretrain(shell, inputs, tmp_path)
    assert done.code == 2
    assert "run: Permission denied" in done.message


def test_a_full_disk(shell, inputs, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write_manifest", full)
    done = small_inputs.prepare(shell, inputs, tmp_path, inputs / "text.txt")
    assert done.code == 5
    assert "No space left on device" in done.message
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unstarted_run(inputs, store, tmp_path):
    """A workdir with everything but a checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(store, folder / "store")
    _record(folder, store, tiny_run.config(inputs / "text.txt"))
    return folder


def _record(folder, store, config):
    settings, tokenizer = pretraining.parse(config), Tokenizer.load(store)
    bert = settings.bert(tokenizer.vocab_size)
    workdirs.record(folder, settings, bert, tokenizer, allow_changed=False)


@pytest.fixture
def any_checkpoint(monkeypatch):
    """Lets `evaluate` get as far as the store."""
    monkeypatch.setattr(checkpoint, "restore_params", lambda *arguments: ({}, {}))


def _on_run(shell, inputs, folder, command):
    if command == "pretrain":
        return shell(command, f"--config={inputs / 'tiny.py'}", f"--workdir={folder}")
    if command == "predict":
        return shell(command, f"--model={folder}", "a [MASK]")
    return shell(command, f"--workdir={folder}")


def test_a_missing_store(shell, inputs, unstarted_run):
    shutil.rmtree(unstarted_run / "store")
    done = _on_run(shell, inputs, unstarted_run, "evaluate")
    assert done.code == 2
    assert str(unstarted_run / "store") in done.message


@pytest.mark.parametrize("command", ["pretrain", "evaluate"])
def test_a_store_with_another_tokenizer(
    shell, inputs, unstarted_run, any_checkpoint, command
):
    (unstarted_run / "checkpoints" / "3").mkdir(parents=True)
    path = unstarted_run / "tokenizer" / "vocab.txt"
    path.write_text(path.read_text().replace("##a\n", "##aa\n"))
    done = _on_run(shell, inputs, unstarted_run, command)
    assert done.code == 2
    assert "tokenizer" in done.message
    assert "##aa\n" in path.read_text()


def test_the_corpus_may_be_gone_when_its_store_is_there(shell, inputs, store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    before = small_inputs.files(tmp_path / "s")
    missing = small_inputs.prepare(shell, inputs, tmp_path, tmp_path / "gone.txt")
    assert missing.code == 2
    assert str(tmp_path / "gone.txt") in missing.message
    assert "--config.data.corpus=" in missing.message
    assert small_inputs.prepare(shell, inputs, tmp_path, "").code == 0
    other = small_inputs.prepare(
        shell, inputs, tmp_path, "", "--config.text.segmenter=jieba"
    )
    assert other.code == 2
    assert re.search("segmenter.*'none'.*'jieba'", other.message)
    assert small_inputs.files(tmp_path / "s") == before


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_folder_that_is_not_a_run(shell, inputs, tmp_path, command):
    done = _on_run(shell, inputs, tmp_path / "nope", command)
    assert done.code == 2
    assert str(tmp_path / "nope") in done.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_run_without_checkpoints(shell, inputs, unstarted_run, command):
    done = _on_run(shell, inputs, unstarted_run, command)
    assert done.code == 3
    assert str(unstarted_run / "checkpoints") in done.message


def test_a_failed_start_does_not_bind_the_next(tmp_path, inputs, store):
    for seed in (1, 2):
        config = tiny_run.config(inputs / "text.txt", run__seed=seed)
        _record(tmp_path, store, config)
    assert run_folder.read_settings(tmp_path).run.seed == 2


def test_a_resumption_without_the_corpus_keeps_its_name(tmp_path, inputs, store):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    for corpus in ("text.txt", ""):
        _record(tmp_path, store, tiny_run.config(inputs, data__corpus=corpus))
    assert run_folder.read_settings(tmp_path).data.corpus == "text.txt"
