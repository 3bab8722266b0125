"""Which file of a folder is read, and what is checked of a file and its arrays."""

import hashlib
import os

import ml_dtypes
import numpy as np
import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import tensors


def test_a_folder_and_its_file_are_the_same(tmp_path):
    arrays = {"b": np.ones((3, 37), np.float32), "a": np.array([1], np.int64)}
    path = tmp_path / "model.safetensors"
    tensors.write_safetensors(path, arrays)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for given in (tmp_path, path):
        found = tensors.read(given)
        assert list(found.arrays) == ["a", "b"]
        assert found.arrays["b"].shape == (3, 37)
        assert found.files == {"model.safetensors": digest}


def test_a_file_of_another_name(tmp_path):
    path = tmp_path / "model.fp16.safetensors"
    tensors.write_safetensors(path, {"a": np.ones(3, np.float16)})
    assert tensors.read(path).arrays["a"].dtype == np.float16
    path.rename(tmp_path / "model.h5")
    with pytest.raises(
        errors.InputError, match="model.h5 is refused: it is Tensor.*from_tf"
    ):
        tensors.read(tmp_path / "model.h5")


def test_safetensors_come_before_pickles(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    (tmp_path / "pytorch_model.bin.index.json").write_bytes(b"never read")
    arrays = {"a": np.ones(3, np.float32), "b": np.ones(5, np.float32)}
    small_weights.write_shards(tmp_path, *small_weights.halves(arrays))
    assert "model.safetensors.index.json" in tensors.read(tmp_path).files
    tensors.write_safetensors(tmp_path / tensors.SINGLE, arrays)
    assert list(tensors.read(tmp_path).files) == ["model.safetensors"]


@pytest.mark.parametrize("name", tensors.WEIGHTS)
def test_a_folder_has_weights_or_has_not(tmp_path, name):
    assert not tensors.has_weights(tmp_path)
    with pytest.raises(errors.InputError, match="it has none of model.safetensors, "):
        tensors.read(tmp_path)
    (tmp_path / name).mkdir()
    assert tensors.has_weights(tmp_path)
    with pytest.raises(errors.InputError, match=f"{name} is refused: it is a folder"):
        tensors.read(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(errors.InputError, match="x.safetensors .* does not exist"):
        tensors.read(tmp_path / "x.safetensors")
    (tmp_path / tensors.SINGLE).symlink_to("nowhere")
    with pytest.raises(errors.InputError, match="model.safetensors .* does not exist"):
        tensors.read(tmp_path)


def test_torch_loads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors import torch as of_torch

    path = tmp_path / tensors.SINGLE
    arrays = {
        "a": np.arange(37).astype(ml_dtypes.bfloat16),
        "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    tensors.write_safetensors(path, arrays)
    state = of_torch.load_file(path)
    assert state["a"].dtype == torch.bfloat16
    assert state["a"].tolist() == list(range(37))
    assert state["b"].tolist() == [[0, 3], [1, 4], [2, 5]]


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
