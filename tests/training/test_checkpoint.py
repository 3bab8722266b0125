import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import small_model
from jax.experimental import multihost_utils

from bert_jax import errors
from bert_jax.foundation import files
from bert_jax.training import checkpoint, optimizer, sharding, state

OPTIMIZER = optimizer.make(optimizer.OptimizerConfig(learning_rate=0.01), 100)


def shapes_on(*sizes, init_fn=small_model.init_fn):
    mesh = sharding.make_mesh(*(sizes or (1, 1, 1)))
    return state.abstract(init_fn, OPTIMIZER, mesh)


def state_on(*sizes):
    mesh = sharding.make_mesh(*sizes)
    return state.create(small_model.init_fn, jax.random.key(0), OPTIMIZER, mesh)


def numbered(number, *sizes):
    """A state whose every leaf holds this number, on a mesh."""
    shapes = shapes_on(*sizes)
    fill = jax.jit(
        lambda: jax.tree.map(
            lambda s: jax.numpy.full(s.shape, number, s.dtype), shapes
        ),
        out_shardings=jax.tree.map(lambda s: s.sharding, shapes),
    )
    return fill()


def save_numbers(folder, *numbers, keep=3):
    with checkpoint.Checkpoints(folder, keep=keep) as checkpoints:
        for number in numbers:
            checkpoints.save(number, numbered(number), {"note": f"step {number}"})


def restore(folder, *sizes):
    with checkpoint.Checkpoints(folder, keep=3) as checkpoints:
        return checkpoints.restore_latest(shapes_on(*sizes))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def largest_file(step_folder, item):
    files = [path for path in (step_folder / item).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def test_what_is_saved_is_restored_with_its_meta(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        saved = state_on(1, 1, 1)
        meta = {"interval": {"loss": [0.1, 3.0]}, "seed": 7}
        checkpoints.save(12, saved, meta)
    found, found_meta = restore(tmp_path)
    assert found_meta == meta
    assert int(found.step) == 12
    expected = saved._replace(step=np.int32(12))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    chex.assert_trees_all_equal(found, expected)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(
        lambda x: x.dtype, expected
    )


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path / "new") is None


def test_a_state_moves_between_meshes(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        saved = state_on(2, 2, 2)
        checkpoints.save(1, saved, {})
    found, _ = restore(tmp_path, 1, 4, 2)
    shapes = shapes_on(1, 4, 2)
    chex.assert_trees_all_equal(found.params, saved.params)
    for leaf, shape in zip(
        jax.tree.leaves(found), jax.tree.leaves(shapes), strict=True
    ):
        assert leaf.sharding == shape.sharding


def test_only_the_newest_are_kept_and_the_trash_is_emptied(tmp_path):
    save_numbers(tmp_path, 1, 2, 3, 4, keep=2)
    assert checkpoint.steps(tmp_path) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_keep_must_keep_something(tmp_path):
    with pytest.raises(errors.InputError, match="must be at least 1; found 0"):
        checkpoint.Checkpoints(tmp_path, keep=0)


def test_every_file_is_in_the_manifest_of_a_listed_step(tmp_path):
    save_numbers(tmp_path, 5)
    listed = json.loads((tmp_path / "5" / "manifest.json").read_text())["sha256"]
    files = {
        path.relative_to(tmp_path / "5").as_posix()
        for path in (tmp_path / "5").rglob("*")
        if path.is_file()
    }
    unlisted = {"manifest.json", "_CHECKPOINT_METADATA", "commit_success.txt"}
    assert {"manifest.json", "_CHECKPOINT_METADATA"} <= files - set(listed) <= unlisted
    assert set(listed) <= files
    assert checkpoint.damage(tmp_path / "5") is None


def remove_manifest(step_folder):
    (step_folder / "manifest.json").unlink()


def garble_manifest(step_folder):
    (step_folder / "manifest.json").write_bytes(b'{"sha256')


def flip_parameters(step_folder):
    flip_a_bit(largest_file(step_folder, "params"))


def flip_moments(step_folder):
    flip_a_bit(largest_file(step_folder, "opt_state"))


def flip_meta(step_folder):
    flip_a_bit(step_folder / "meta" / "metadata")


def lose_a_file(step_folder):
    largest_file(step_folder, "params").unlink()


def cut_a_file(step_folder):
    path = largest_file(step_folder, "params")
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = [
    (remove_manifest, "manifest.json is missing"),
    (garble_manifest, "manifest.json is not readable"),
    (flip_parameters, "has another sha256 than when it was written"),
    (flip_moments, "has another sha256 than when it was written"),
    (flip_meta, "has another sha256 than when it was written"),
    (lose_a_file, "is missing"),
    (cut_a_file, "has another sha256 than when it was written"),
]


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three_steps")
    save_numbers(folder, 1, 2, 3)
    return folder


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_step_falls_back_with_a_warning(
    damage, reason, three_steps, tmp_path, caplog
):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three_steps, folder)
    damage(folder / "3")
    with caplog.at_level(logging.WARNING, "bert_jax"):
        found, meta = restore(folder)
    assert (int(found.step), meta) == (2, {"note": "step 2"})
    assert float(found.params["embedding"][0, 0]) == 2
    (record,) = [r for r in caplog.records if r.name.startswith("bert_jax")]
    assert f"{folder / '3'} is damaged" in record.getMessage()
    assert reason in record.getMessage()


def test_every_flipped_bit_is_noticed(three_steps, tmp_path):
    """Orbax alone reads more than half of such files, with wrong weights."""
    path = largest_file(three_steps / "3", "params").relative_to(three_steps)
    folder = tmp_path / "checkpoints"
    shutil.copytree(three_steps, folder)
    content = (folder / path).read_bytes()
    for position in range(0, len(content), len(content) // 40):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        (folder / path).write_bytes(flipped)
        assert checkpoint.damage(folder / "3") is not None
    (folder / path).write_bytes(content)
    assert checkpoint.damage(folder / "3") is None


def test_all_damaged_is_an_error_and_never_fresh_weights(tmp_path, caplog):
    save_numbers(tmp_path, 1, 2)
    flip_parameters(tmp_path / "1")
    lose_a_file(tmp_path / "2")
    with pytest.raises(errors.CheckpointError) as caught:
        restore(tmp_path)
    assert f"no usable checkpoint in {tmp_path} (found steps [1, 2])" in str(
        caught.value
    )
    assert len([r for r in caplog.records if r.name.startswith("bert_jax")]) == 2


def test_saving_after_a_fall_back_replaces_the_damaged_steps(tmp_path, caplog):
    save_numbers(tmp_path, 10, 20, 30)
    flip_parameters(tmp_path / "20")
    flip_parameters(tmp_path / "30")
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        restored = checkpoints.restore_latest(shapes_on())
        assert restored is not None and int(restored[0].step) == 10
        checkpoints.save(15, numbered(15), {})
    assert checkpoint.steps(tmp_path) == [10, 15]
    assert float(restore(tmp_path)[0].params["embedding"][0, 0]) == 15
    assert caplog.records


def test_saving_a_step_again_is_not_ignored(tmp_path):
    save_numbers(tmp_path, 4)
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(4, numbered(9), {})
    assert float(restore(tmp_path)[0].params["embedding"][0, 0]) == 9


def test_unfinished_folders_of_a_killed_run_are_cleaned(tmp_path):
    save_numbers(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp-7")
    shutil.copytree(tmp_path / "1", tmp_path / "deleted" / "0")
    assert int(restore(tmp_path)[0].step) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def wider(key):
    return small_model.init_fn(key) | {"embedding": jax.numpy.zeros((27, 8))}


def half(key):
    return small_model.init_fn(key) | {
        "embedding": jax.numpy.zeros((26, 8), "bfloat16")
    }


def longer(key):
    return small_model.init_fn(key) | {"bias": jax.numpy.zeros(3)}


def shorter(key):
    boxed = dict(small_model.init_fn(key))
    del boxed["embedding"]
    return boxed


@pytest.mark.parametrize(
    ("init_fn", "words"),
    [
        (wider, "has embedding as float32[26, 8], this model as float32[27, 8]"),
        (half, "has embedding as float32[26, 8], this model as bfloat16[26, 8]"),
        (longer, "lacks bias, which this model has"),
        (shorter, "has embedding, which this model lacks"),
    ],
)
def test_another_model_is_refused_not_padded_nor_cast(init_fn, words, three_steps):
    shapes = shapes_on(init_fn=init_fn)
    with checkpoint.Checkpoints(three_steps, keep=3) as checkpoints:
        with pytest.raises(errors.CheckpointError) as caught:
            checkpoints.restore_latest(shapes)
    assert words in str(caught.value)
    with pytest.raises(errors.CheckpointError) as caught:
        checkpoint.restore_params(three_steps, shapes.params)
    assert words in str(caught.value)


def test_parameters_restore_alone_and_nothing_changes(three_steps):
    before = sorted(three_steps.rglob("*"))
    shapes = shapes_on(2, 2, 2).params
    params, meta = checkpoint.restore_params(three_steps, shapes)
    assert meta == {"note": "step 3"}
    np.testing.assert_array_equal(params["embedding"], np.full((26, 8), 3.0))
    assert params["embedding"].sharding == shapes["embedding"].sharding
    assert sorted(three_steps.rglob("*")) == before


def test_parameters_from_nowhere(tmp_path):
    with pytest.raises(errors.CheckpointError, match="no usable checkpoint in"):
        checkpoint.restore_params(tmp_path / "absent", shapes_on().params)
    assert not (tmp_path / "absent").exists()


# In a process of its own: Orbax's threads complain late about a save that failed.
FULL_DISK = """
import resource, signal, sys, time
from pathlib import Path
import test_checkpoint
from bert_jax import errors
from bert_jax.training import checkpoint

folder = Path(sys.argv[1])
test_checkpoint.save_numbers(folder, 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def attempt(error=None, checks=False):
    try:
        with checkpoint.Checkpoints(folder, keep=2) as c:
            # Writing beyond 100 bytes of a file fails, as on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            c.save(2, test_checkpoint.numbered(2), {})
            if error is not None:
                raise error
            for _ in range(3000 * checks):
                time.sleep(0.01)
                c.check()
            assert not checks, "a save that failed was not noticed in 30 s"
            c.wait()
    except errors.BertJaxError as caught:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        message = str(caught).splitlines()[0]
        print("RESULT", type(caught).__name__, checkpoint.steps(folder), message)

attempt()
attempt(error=errors.Stopped("all saved"))
attempt(error=errors.NotFiniteError("the first error"))
attempt(checks=True)
print("RESTORED", int(test_checkpoint.restore(folder)[0].step))
"""


def test_a_full_disk_is_a_storage_error_and_old_steps_survive(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    here = Path(__file__).parent
    folders = here, here.parent / "support", here.parents[1]
    path = os.pathsep.join(map(str, folders))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RE")]
    assert len(lines) == 5, done.stderr[-2000:]
    failed = "RESULT StorageError [1] the checkpoint of step 2 could not be written to"
    assert lines[0].startswith(failed)
    # "Everything saved" must be true, and a first error is not hidden by a second.
    assert lines[1].startswith(failed)
    assert lines[2] == "RESULT NotFiniteError [1] the first error"
    assert lines[3].startswith(failed)  # noticed by a step, not by the next save
    assert lines[4] == "RESTORED 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StorageError, match="cannot open"):
        checkpoint.Checkpoints(tmp_path / "file" / "checkpoints", keep=1)


def test_a_file_in_the_place_of_the_folder_is_refused_at_once(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(errors.StorageError, match="cannot open .*checkpoints"):
        checkpoint.Checkpoints(tmp_path / "checkpoints", keep=1)
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_save_does_not_ask_whether_to_stop(tmp_path, monkeypatch):
    """Its steps are not the places at which all processes ask."""
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    save_numbers(tmp_path, 1, 2)
    assert checkpoint.steps(tmp_path) == [1, 2]
    assert not asked


def resume_and_save(folder, *steps, keep=3):
    """Resumes, and saves steps; returns the step that it began with."""
    with checkpoint.Checkpoints(folder, keep=keep) as checkpoints:
        begin, _ = checkpoints.restore_latest(shapes_on())
        for step in steps:
            checkpoints.save(step, numbered(step), {"note": f"again {step}"})
    return int(begin.step)


def test_a_step_that_was_restored_gets_another_meta_and_is_not_written_again(tmp_path):
    save_numbers(tmp_path, 4, 8, keep=1)
    before = (tmp_path / "8" / "manifest.json").stat()
    assert resume_and_save(tmp_path, 8, keep=1) == 8
    assert checkpoint.steps(tmp_path) == [8]
    after = (tmp_path / "8" / "manifest.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    found, meta = restore(tmp_path)
    assert meta == {"note": "again 8"}
    assert int(found.step) == 8
    assert checkpoint.damage(tmp_path / "8") is None


def test_an_empty_meta_counts(tmp_path):
    save_numbers(tmp_path, 8)
    checkpoint.write_late_meta(tmp_path / "8", {})
    assert restore(tmp_path)[1] == {}


def test_a_full_disk_leaves_the_step_as_it_was(tmp_path, monkeypatch):
    save_numbers(tmp_path, 4, 8)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    with pytest.raises(
        errors.StorageError, match=r"cannot write late_meta.json into .*/8: "
    ):
        resume_and_save(tmp_path, 8)
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == [4, 8]
    assert restore(tmp_path)[1] == {"note": "step 8"}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"meta": "{}", "sha256": "0"}'])
def test_a_damaged_one_is_passed_over(tmp_path, caplog, content):
    save_numbers(tmp_path, 8)
    assert resume_and_save(tmp_path, 8) == 8
    (tmp_path / "8" / "late_meta.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert restore(tmp_path)[1] == {"note": "step 8"}
    assert "late_meta.json is damaged" in caplog.text


def test_steps_of_a_run_left_behind_do_not_push_out_the_good_one(tmp_path):
    save_numbers(tmp_path, 8, 11, keep=2)
    flip_parameters(tmp_path / "11")
    assert resume_and_save(tmp_path, 12, keep=2) == 8
    assert checkpoint.steps(tmp_path) == [8, 12]
    flip_parameters(tmp_path / "12")
    assert int(restore(tmp_path)[0].step) == 8
