"""A run whose workdir is in an object store is the run of a folder.

fsspec's file system in memory stands for gs:// and s3://.
"""

import json
import shutil

import chex
import fsspec
import jax
import numpy as np
import pytest
import tiny_run
import tiny_suites
import tiny_tasks

from bert_jax import errors, finetune, pretrain, suite
from bert_jax.checkpoints import native
from bert_jax.foundation import faults
from bert_jax.runs import sweep
from bert_jax.training import checkpoint, remote


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus and its store."""
    folder = tmp_path_factory.mktemp("remote")
    tiny_run.write_corpus(folder / "text.txt")
    return folder


def config(place, **changes):
    changes |= {"run__num_train_steps": 6, "run__save_every_steps": 2}
    changes |= {"run__log_examples": True, "run__keep_checkpoints": 2}
    return tiny_run.config(place / "text.txt", **changes)


def trace(folder):
    """Returns what each step was: its examples, and its metrics but for the speed."""
    return steps_of(folder), (folder / "examples-0.jsonl").read_text()


def steps_of(folder):
    """Returns the lines of metrics.jsonl, but for the speed."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    clock = ("tokens_per_second", "mfu", "input_wait", "save_wait")
    return [{k: v for k, v in x.items() if not k.endswith(clock)} for x in lines]


@pytest.fixture(scope="module")
def plain(place):
    """The run of a folder."""
    return pretrain.train(config(place), place / "plain")


def test_a_stopped_run_goes_on_on_another_machine(place, plain, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(place))
    url = f"memory://{place.name}/runs/zh"
    system, root = fsspec.core.url_to_fs(url)
    faults.arm("loop/step=4:SIGTERM")
    try:
        with pytest.raises(errors.Stopped):
            pretrain.train(config(place), url)
    finally:
        faults.arm("")
    shutil.rmtree(remote.WorkingCopy(url).folder)

    resumed = pretrain.train(config(place), url)

    assert trace(resumed.workdir) == trace(plain.workdir)
    chex.assert_trees_all_equal(resumed.state, plain.state)
    assert checkpoint.steps(plain.workdir / "checkpoints") == [4, 6]
    there = {path[len(root) + 1 :] for path in system.find(root)}
    steps = {name.split("/")[1] for name in there if name.startswith("checkpoints/")}
    assert steps == {"4", "6"}
    assert {"config.json", "curves.png", "store/manifest.json"} <= there
    again = (resumed.workdir / "metrics.jsonl").read_bytes()
    assert system.cat_file(f"{root}/metrics.jsonl") == again


def test_a_checkpoint_that_cannot_be_uploaded_ends_the_run(place, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(place))
    url = f"memory://{place.name}/runs/full"
    system, root = fsspec.core.url_to_fs(url)
    real = type(system).put_file

    def put_file(self, source, target, **options):
        if "/checkpoints/4/" in target:
            raise OSError("no space left in the bucket")
        return real(self, source, target, **options)

    monkeypatch.setattr(type(system), "put_file", put_file)
    with pytest.raises(errors.StorageError, match="step 4 .* no space left"):
        pretrain.train(config(place), url)
    monkeypatch.undo()
    there = {path[len(root) + 1 :] for path in system.find(root)}
    assert "checkpoints/2/manifest.json" in there
    assert "checkpoints/4/manifest.json" not in there


@pytest.mark.slow
def test_a_run_that_another_took_over_ends(place, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(place))
    url = f"memory://{place.name}/runs/two"
    system, root = fsspec.core.url_to_fs(url)
    real = type(system).put_file

    def put_file(self, source, target, **options):
        real(self, source, target, **options)
        if target.endswith("checkpoints/2/manifest.json"):
            system.pipe_file(f"{root}/.owner.json", b"another")

    monkeypatch.setattr(type(system), "put_file", put_file)
    with pytest.raises(errors.InputError, match=r"another run .* \(another\): "):
        pretrain.train(config(place), url)
    there = {path[len(root) + 1 :] for path in system.find(root)}
    assert "checkpoints/2/manifest.json" in there
    assert not any(name.startswith("checkpoints/4/") for name in there)


@pytest.fixture(scope="module")
def classes(place):
    """Labelled files, and a run of a folder that learned them."""
    tiny_tasks.write_vocab(place)
    tiny_tasks.write_classes(place / "train.tsv", 64, seed=0)
    tiny_tasks.write_classes(place / "dev.tsv", 30, seed=1)
    return finetune.train(tiny_tasks.config(place), place / "classes")


@pytest.mark.slow
def test_stopped_fine_tuning_goes_on_on_another_machine(place, classes, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(place))
    url = f"memory://{place.name}/runs/classes"
    system, root = fsspec.core.url_to_fs(url)
    faults.arm("loop/step=25:SIGTERM")
    try:
        with pytest.raises(errors.Stopped):
            finetune.train(tiny_tasks.config(place), url)
    finally:
        faults.arm("")
    folder = remote.WorkingCopy(url).folder
    stopped_at = native.best(folder).name
    before = {path.name for path in (folder / "best" / stopped_at).iterdir()}
    shutil.rmtree(folder)

    resumed = finetune.train(tiny_tasks.config(place), url)

    workdir = place / "classes"
    assert resumed.metrics == classes.metrics
    assert steps_of(folder) == steps_of(workdir)
    kept = native.read_task(resumed.folder).params
    jax.tree.map(
        np.testing.assert_array_equal, kept, native.read_task(classes.folder).params
    )
    there = {path[len(root) + 1 :] for path in system.find(root)}
    best = {name for name in there if name.startswith("best/")}
    assert best == {f"best/{classes.folder.name}/{name}" for name in before}
    for name in ("eval/dev.json", "predictions/dev.jsonl", "metrics.jsonl"):
        assert system.cat_file(f"{root}/{name}") == (folder / name).read_bytes()
    lines = (workdir / "predictions" / "dev.jsonl").read_bytes()
    assert system.cat_file(f"{root}/predictions/dev.jsonl") == lines


@pytest.mark.slow
def test_a_sweep_is_the_same_from_its_store(place, classes, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(place))
    url = f"memory://{place.name}/runs/sweep"
    config = tiny_tasks.config(place, sweep__seeds=2, run__num_train_steps=20)
    made = finetune.train(config, url)
    folder = remote.WorkingCopy(url).folder
    report = (folder / "sweep.json").read_bytes()
    shutil.rmtree(folder)
    assert finetune.train(config, url).metrics == made.metrics
    assert (folder / "sweep.json").read_bytes() == report


@pytest.mark.slow  # a minute and a half
def test_a_stopped_suite_goes_on_on_another_machine(tmp_path, monkeypatch, capsys):
    tiny_suites.write_clue(tmp_path)
    changes = {"tasks": "ocnli,c3", "run__num_train_steps": 3}
    config = tiny_suites.config("clue", tmp_path, **changes)
    suite.run(config, tmp_path / "plain")
    url = f"memory://{tmp_path.name}/runs/clue"
    system, root = fsspec.core.url_to_fs(url)
    monkeypatch.setattr(remote.tempfile, "tempdir", str(tmp_path / "scratch"))
    train, before = sweep.train_in, []

    def train_and_stop(name, settings):
        before.append({path[len(root) + 1 :] for path in system.find(root)})
        faults.arm("loop/step=2:SIGTERM" if name.endswith("c3") else "")
        return train(name, settings)

    with monkeypatch.context() as first:
        first.setattr(sweep, "train_in", train_and_stop)
        try:
            with pytest.raises(errors.Stopped):
                suite.run(config, url)
        finally:
            faults.arm("")
    # What is finished is there at once: the machine may be lost in the next task.
    assert {"suite.json", "results/ocnli.json", "ocnli/config.json"} <= before[1]
    there = {path[len(root) + 1 :] for path in system.find(root)}
    assert "c3/checkpoints/2/manifest.json" in there
    assert "results/c3.json" not in there
    shutil.rmtree(tmp_path / "scratch")
    capsys.readouterr()

    suite.run(config, url)

    assert "ocnli: finished before" in capsys.readouterr().err
    plain = tmp_path / "plain"
    for name in ("suite.json", "suite.md"):
        assert system.cat_file(f"{root}/{name}") == (plain / name).read_bytes()
    results = system.cat_file(f"{root}/results/c3.json"), plain / "results" / "c3.json"
    one, other = json.loads(results[0]), json.loads(results[1].read_text())
    for tree in (one, other):  # the joined files lie in the workdir or its copy
        for file in tree["data"].values():
            assert "/data/c3/d-" in file.pop("path")
    assert one == other
    made = {path.name: path.read_bytes() for path in (plain / "predictions").iterdir()}
    assert len(made) == 2
    for name, content in made.items():
        assert system.cat_file(f"{root}/predictions/{name}") == content
