"""A folder that is there when it is finished, and not before."""

import contextlib
import errno
import os

import pytest

from bert_jax import errors
from bert_jax.foundation import files


def test_the_folder_appears_at_the_end_with_what_was_written(tmp_path):
    folder = tmp_path / "deep" / "store"
    with files.building_folder(folder) as unfinished:
        (unfinished / "a").write_text("a")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert [path.name for path in folder.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, errors.InputError, SystemExit])
def test_nothing_stays_when_something_is_raised(tmp_path, raised):
    with pytest.raises(raised):
        with files.building_folder(tmp_path / "store") as unfinished:
            (unfinished / "a").write_text("a")
            raise raised
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_storage_error(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(errors.StorageError, match="store.*No space left.*Free some"):
        with files.building_folder(tmp_path / "store"):
            raise full
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_emptied(tmp_path):
    left = tmp_path / ".store.building"
    (left / "inner").mkdir(parents=True)
    (left / "train-00000.arrow").write_text("half")
    (tmp_path / ".store.building.lock").touch()
    with files.building_folder(tmp_path / "store") as unfinished:
        assert list(unfinished.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_folder_that_another_process_builds_is_left_alone(tmp_path):
    with files.building_folder(tmp_path / "store") as other:
        (other / "a").write_text("a")
        with pytest.raises(errors.InputError, match="another process is building"):
            with files.building_folder(tmp_path / "store"):
                pass
        assert (other / "a").exists() and not (tmp_path / "store").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]


def test_a_build_that_ends_before_ours_begins_is_kept(tmp_path, monkeypatch):
    """Another process finishes between our look at the place and our lock."""
    held = files.locked

    @contextlib.contextmanager
    def late(path, in_use):
        monkeypatch.undo()
        with files.building_folder(tmp_path / "store") as other:
            (other / "a").write_text("a")
        with held(path, in_use):
            yield

    monkeypatch.setattr(files, "locked", late)
    with pytest.raises(errors.InputError, match="store exists already"):
        with files.building_folder(tmp_path / "store"):
            pass
    assert (tmp_path / "store" / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_existing_file_or_full_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(errors.InputError, match=f"{name} exists already"):
            with files.building_folder(tmp_path / name):
                pass
    (tmp_path / "empty").mkdir()
    with files.building_folder(tmp_path / "empty") as unfinished:
        (unfinished / "a").write_text("a")
    assert (tmp_path / "empty" / "a").exists()


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(errors.InputError, match="store .*file is a"):
        with files.building_folder(tmp_path / "file" / "store"):
            pass
