"""The index of a checkpoint in several files, and the names in it."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import tensors

FIRST, SECOND, THIRD = (f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))


def small_arrays() -> dict[str, np.ndarray]:
    """Of 20, 74, 12 and 8 bytes."""
    return {
        "c": np.arange(3, dtype=np.float32),
        "a": np.arange(5, dtype=np.float32),
        "b": np.arange(37).astype(ml_dtypes.bfloat16),
        "d": np.array([7]),
    }


@pytest.fixture
def folder(tmp_path):
    """A folder with three shards: a | b | c, d."""
    path = tmp_path / "model"
    path.mkdir()
    one = small_arrays()
    parts = ({"a": one["a"]}, {"b": one["b"]}, {"c": one["c"], "d": one["d"]})
    small_weights.write_shards(path, *parts)
    return path


def edit(folder, change) -> None:
    """Changes the index by a function."""
    path = folder / "model.safetensors.index.json"
    tree = json.loads(path.read_bytes())
    change(tree["weight_map"])
    path.write_text(json.dumps(tree))


def test_shards_are_read_as_they_were_with_all_digests(folder):
    found = tensors.read(folder)
    assert list(found.arrays) == ["a", "b", "c", "d"]
    for name, array in small_arrays().items():
        assert found.arrays[name].tobytes() == array.tobytes()
        assert found.arrays[name].dtype == array.dtype
    assert sorted(found.files) == sorted(os.listdir(folder))
    again = tensors.read(folder / "model.safetensors.index.json")
    assert again.files == found.files


@pytest.mark.parametrize(
    "name",
    [
        *("../up.safetensors", "/tmp/up.safetensors", ""),
        *("sub/up.safetensors", "./" + FIRST, "..", "."),
        *("\0.safetensors", "\x1b[2J.safetensors", "up.bin"),
        *("\ud800.safetensors", 7, None, [FIRST], {}),
    ],
)
def test_names_that_are_not_of_files_beside_the_index(folder, name):
    (folder.parent / "up.safetensors").write_bytes((folder / FIRST).read_bytes())
    (folder / "sub").mkdir()
    (folder / "sub/up.safetensors").write_bytes((folder / FIRST).read_bytes())
    edit(folder, lambda weight_map: weight_map.update(a=name))
    with pytest.raises(errors.InputError, match="puts tensor 'a' in .*not the name of"):
        tensors.read(folder)


def test_the_links_of_the_hub_cache_are_followed(folder, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "f00d"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        path.rename(blobs / path.name[5:])
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name[5:]}")
    assert len(tensors.read(snapshot).arrays) == 4


def test_an_index_and_its_shards_agree(folder):
    content = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes((folder / FIRST).read_bytes())
    with pytest.raises(errors.InputError, match=f"{SECOND} is refused: .* tensor 'a'"):
        tensors.read(folder)
    (folder / SECOND).write_bytes(content)
    edit(folder, lambda weight_map: weight_map.pop("d"))
    with pytest.raises(errors.InputError, match=f"{THIRD} is refused: .* tensor 'd'"):
        tensors.read(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    twice = {"b": np.ones(5, np.float32), "a": np.ones(5, np.float32)}
    tensors.write_safetensors(folder / SECOND, twice)
    with pytest.raises(errors.InputError, match=f"{SECOND} is refused: .* tensor 'a'"):
        tensors.read(folder)


def test_a_shard_that_is_missing_or_damaged(folder):
    content = (folder / THIRD).read_bytes()
    (folder / THIRD).write_bytes(content[:-1])
    with pytest.raises(errors.InputError, match=f"{THIRD} is refused"):
        tensors.read(folder)
    (folder / THIRD).unlink()
    with pytest.raises(
        errors.InputError, match=f"{THIRD} is refused: it does not exist"
    ):
        tensors.read(folder)
    (folder / THIRD).mkdir()
    with pytest.raises(errors.InputError, match=f"{THIRD} is refused: it is a folder"):
        tensors.read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"weight_map": {"a": "x", "a": "x"}}', "has the key 'a' twice"),
        ('{"weight_map": {}}', "no 'weight_map' with tensors"),
        ('{"weight_map": ["a"]}', "no 'weight_map' with tensors"),
        ("{}", "no 'weight_map' with tensors"),
        ("[]", "is not a JSON object"),
        ('{"weight_map": {', "is not JSON"),
        ("", "it is empty"),
    ],
)
def test_an_index_that_is_none(folder, text, message):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(errors.InputError, match=message):
        tensors.read(folder)
