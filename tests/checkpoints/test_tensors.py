"""Which file of a folder is read, and files that other libraries load."""

import hashlib

import ml_dtypes
import numpy as np
import pytest

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
    path = tmp_path / tensors.SINGLE
    tensors.write_safetensors(path, arrays, max_shard_bytes=20)
    assert "model.safetensors.index.json" in tensors.read(tmp_path).files
    tensors.write_safetensors(path, arrays)
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
    tensors.write_safetensors(path, arrays, {"base": "x"})
    state = of_torch.load_file(path)
    assert state["a"].dtype == torch.bfloat16
    assert state["a"].tolist() == list(range(37))
    assert state["b"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_transformers_loads_shards_that_are_written(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=41,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=11,
    )
    model = transformers.BertModel(config)
    arrays = {name: x.numpy() for name, x in model.state_dict().items()}
    config.save_pretrained(tmp_path)
    path = tmp_path / tensors.SINGLE
    tensors.write_safetensors(path, arrays, max_shard_bytes=3000)
    assert not path.exists()
    loaded, report = transformers.BertModel.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, tensor in loaded.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name])
