"""What every reader of tensors checks of a file and of its arrays."""

import hashlib
import os

import ml_dtypes
import numpy as np
import pytest

from bert_jax import errors
from bert_jax.checkpoints import tensors


def test_the_check_file_a_regular_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"seven b")
    assert tensors.check_file(path) == 7
    (tmp_path / "link").symlink_to(path)
    assert tensors.check_file(tmp_path / "link") == 7


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "pointer").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for name, message in [
        ("pipe", "pipe is refused"),
        ("empty", "it is empty"),
        ("loop", r"it cannot be read \(Too many levels"),
        ("pointer", "git lfs pull"),
        ("absent", "absent is refused: it does not exist"),
        ("", "it is a folder"),
    ]:
        with pytest.raises(errors.InputError, match=message):
            tensors.check_file(tmp_path / name)


def test_the_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert tensors.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_values_that_are_not_finite_are_counted(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(tensors, "_CHUNK", 5)  # 37 elements are in eight chunks
    array = np.zeros(37, dtype)
    tensors.check_array(tmp_path, "a", array)
    array[[0, 17, 36]] = np.nan, np.inf, -np.inf
    with pytest.raises(errors.InputError, match="'a' holds 3 NaN or .* values of 37"):
        tensors.check_array(tmp_path, "a", array)


def test_a_signalling_nan_is_counted_without_a_warning(tmp_path):
    array = np.array([0x7F81, 0x3F80], np.uint16).view(ml_dtypes.bfloat16)
    with pytest.raises(errors.InputError, match="'a' holds 1 NaN or .* values of 2"):
        tensors.check_array(tmp_path, "a", array)


def test_arrays_of_other_kinds_and_empty_ones_are_refused(tmp_path):
    for array, message in [
        (np.zeros(3, np.complex64), "'x' has the dtype complex64"),
        (np.array(["a"]), "'x' has the dtype <U1"),
        (np.zeros(3, ">f4"), "'x' has the dtype >f4"),
        (np.zeros((0, 37), np.float32), "'x' has no elements"),
    ]:
        with pytest.raises(errors.InputError, match=message):
            tensors.check_array(tmp_path, "x", array)
    tensors.check_array(tmp_path, "x", np.array(7))


def test_a_quoted_name_is_short_and_harmless():
    assert tensors.quoted("\x1b[2J\ud800") == "'\\x1b[2J\\ud800'"
    assert tensors.quoted("a" * 500) == "'" + "a" * 120 + "'..."

    class Hostile:
        def __repr__(self) -> str:
            raise AssertionError("evaluated")

    assert tensors.quoted(Hostile()) == "(a Hostile, not a string)"
