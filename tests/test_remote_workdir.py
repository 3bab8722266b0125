"""A run whose workdir is in an object store is the run of a folder.

fsspec's file system in memory stands for gs:// and s3://.
"""

import json
import shutil

import fsspec
import jax
import numpy as np
import pytest
import tiny_run

from bert_jax import errors, faults, finetune, pretrain, suite
from bert_jax.training import saved_steps, working_copy


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
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    clock = ("tokens_per_second", "input_wait", "save_wait")
    kept = [{k: v for k, v in x.items() if not k.endswith(clock)} for x in lines]
    return kept, (folder / "examples-0.jsonl").read_text()


@pytest.fixture(scope="module")
def plain(place):
    """The run of a folder."""
    return pretrain.train(config(place), place / "plain")


def test_a_stopped_run_goes_on_on_another_machine(place, plain, monkeypatch):
    monkeypatch.setattr(working_copy.tempfile, "gettempdir", lambda: str(place))
    url = f"memory://{place.name}/runs/zh"
    system, root = fsspec.core.url_to_fs(url)
    faults.arm("loop/step=4:SIGTERM")
    try:
        with pytest.raises(errors.Stopped):
            pretrain.train(config(place), url)
    finally:
        faults.arm("")
    shutil.rmtree(working_copy.WorkingCopy(url).folder)

    resumed = pretrain.train(config(place), url)

    assert trace(resumed.workdir) == trace(plain.workdir)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, plain.state)
    assert saved_steps.steps(plain.workdir / "checkpoints") == [4, 6]
    there = {path[len(root) + 1 :] for path in system.find(root)}
    steps = {name.split("/")[1] for name in there if name.startswith("checkpoints/")}
    assert steps == {"4", "6"}
    assert {"config.json", "curves.png", "store/manifest.json"} <= there
    again = (resumed.workdir / "metrics.jsonl").read_bytes()
    assert system.cat_file(f"{root}/metrics.jsonl") == again


def test_a_checkpoint_that_cannot_be_uploaded_ends_the_run(place, monkeypatch):
    monkeypatch.setattr(working_copy.tempfile, "gettempdir", lambda: str(place))
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


@pytest.mark.parametrize("run", [finetune.train, suite.run])
def test_other_commands_want_a_folder(run, monkeypatch):
    parsed = "bert_jax.settings.finetuning_configuration.parse"
    monkeypatch.setattr(parsed, lambda config: config)
    monkeypatch.setattr(
        "bert_jax.suites.suite_configuration.parse", lambda config: config
    )
    with pytest.raises(errors.InputError, match="pretraining alone writes into an obj"):
        run({}, "gs://bucket/run")
