"""What must be on disk before it counts; inject_faults.py --only=power tests it."""

import errno
import os

import pytest
import tiny_run

from bert_jax import pretrain
from bert_jax.foundation import files


@pytest.fixture(scope="module")
def synced(tmp_path_factory):
    """Returns what a run of two steps, saved after each, waited for, in its order."""
    corpus = tiny_run.write_corpus(tmp_path_factory.mktemp("corpus") / "text.txt")
    config = tiny_run.config(
        corpus, run__num_train_steps=2, run__save_every_steps=1, run__log_examples=True
    )
    workdir, paths = tmp_path_factory.mktemp("run") / "run", []
    wait = files.sync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "sync", lambda path: (paths.append(path), wait(path)))
        pretrain.train(config, workdir)
    return [os.path.relpath(path, workdir) for path in paths]


def first(synced, end):
    return next(i for i, name in enumerate(synced) if name.endswith(end))


def test_a_checkpoint_gets_its_name_when_all_of_it_and_the_logs_are_there(synced):
    unfinished = [name for name in synced if "/1.orbax-checkpoint-tmp" in name]
    (folder,) = {name.split("/")[1] for name in unfinished}
    inner = {name.partition(folder)[2] for name in unfinished}
    assert {"/manifest.json", "/meta/metadata", "/params/_METADATA", ""} <= inner
    begin = synced.index(unfinished[0])
    for log in ("metrics.jsonl", "examples-0.jsonl"):
        assert first(synced, log) < begin
    assert "checkpoints" in synced[synced.index(unfinished[-1]) :]  # it is renamed


def test_a_store_and_what_a_run_is_are_there_before_its_first_checkpoint(synced):
    begin = first(synced, "/manifest.json")
    for name in ("config.json.tmp", "tokenizer/vocab.txt", ".", ".store.building"):
        assert synced.index(name) < first(synced[begin:], "meta/metadata") + begin
    assert ".store.building/vocab.txt" in synced


def test_a_file_is_waited_for_before_it_gets_its_name_and_the_name_after(
    tmp_path, monkeypatch
):
    seen, path = [], tmp_path / "a"
    monkeypatch.setattr(files, "sync", lambda x: seen.append((x, path.exists())))
    files.replace(path, b"new")
    assert seen == [(tmp_path / "a.tmp", False), (tmp_path, True)]


def test_a_file_system_that_cannot_wait_for_names(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    files.sync(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        files.sync(tmp_path / "file")
