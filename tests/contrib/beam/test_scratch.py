"""Files that workers leave for each other: whole, once, in a folder of one build."""

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.contrib.beam import scratch


@pytest.fixture
def place(tmp_path):
    with scratch.temporary(tmp_path) as made:
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

    monkeypatch.setattr(scratch.np, "savez", half)
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
    with scratch.temporary(tmp_path) as ended:
        ended.check()
    with scratch.temporary(tmp_path) as other:
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
