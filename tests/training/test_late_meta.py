"""What is saved of a step whose state is saved already, and of a run left behind."""

import errno
import logging

import pytest
import test_checkpoint as made

from bert_jax import errors
from bert_jax.foundation import files
from bert_jax.training import checkpoint


def resume_and_save(folder, *steps, keep=3):
    """Resumes, and saves steps; returns the step that it began with."""
    with checkpoint.Checkpoints(folder, keep=keep) as checkpoints:
        begin, _ = checkpoints.restore_latest(made.shapes_on())
        for step in steps:
            checkpoints.save(step, made.numbered(step), {"note": f"again {step}"})
    return int(begin.step)


def test_a_step_that_was_restored_gets_another_meta_and_is_not_written_again(tmp_path):
    made.save_numbers(tmp_path, 4, 8, keep=1)
    before = (tmp_path / "8" / "manifest.json").stat()
    assert resume_and_save(tmp_path, 8, keep=1) == 8
    assert checkpoint.steps(tmp_path) == [8]
    after = (tmp_path / "8" / "manifest.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    found, meta = made.restore(tmp_path)
    assert meta == {"note": "again 8"}
    assert int(found.step) == 8
    assert checkpoint.damage(tmp_path / "8") is None


def test_an_empty_meta_counts(tmp_path):
    made.save_numbers(tmp_path, 8)
    checkpoint.write_late_meta(tmp_path / "8", {})
    assert made.restore(tmp_path)[1] == {}


def test_a_full_disk_leaves_the_step_as_it_was(tmp_path, monkeypatch):
    made.save_numbers(tmp_path, 4, 8)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    with pytest.raises(
        errors.StorageError, match=r"cannot write late_meta.json into .*/8: "
    ):
        resume_and_save(tmp_path, 8)
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == [4, 8]
    assert made.restore(tmp_path)[1] == {"note": "step 8"}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"meta": "{}", "sha256": "0"}'])
def test_a_damaged_one_is_passed_over(tmp_path, caplog, content):
    made.save_numbers(tmp_path, 8)
    assert resume_and_save(tmp_path, 8) == 8
    (tmp_path / "8" / "late_meta.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert made.restore(tmp_path)[1] == {"note": "step 8"}
    assert "late_meta.json is damaged" in caplog.text


def test_steps_of_a_run_left_behind_do_not_push_out_the_good_one(tmp_path):
    made.save_numbers(tmp_path, 8, 11, keep=2)
    made.flip_parameters(tmp_path / "11")
    assert resume_and_save(tmp_path, 12, keep=2) == 8
    assert checkpoint.steps(tmp_path) == [8, 12]
    made.flip_parameters(tmp_path / "12")
    assert int(made.restore(tmp_path)[0].step) == 8
