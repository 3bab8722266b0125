"""A file is whole or it is not there."""

import os

import pytest

from bert_jax import errors
from bert_jax.foundation import files


def test_a_file_takes_its_name_at_the_end(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with files.writing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_interrupted_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.writing(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_disk_that_refuses_is_a_storage_error(tmp_path):
    with (
        pytest.raises(errors.StorageError, match=r"none/a cannot be written \(No such"),
        files.writing(tmp_path / "none" / "a"),
    ):
        pass
    files.remove(tmp_path / "absent")
    with pytest.raises(errors.StorageError, match="cannot be written"):
        files.remove(tmp_path)
