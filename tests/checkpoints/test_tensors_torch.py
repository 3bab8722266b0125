"""PyTorch's pickles: the tensors of any layout, and no program."""

import collections
import importlib.util
import io
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bert_jax import errors
from bert_jax.checkpoints import tensors

torch = pytest.importorskip("torch")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def refuse(path: Path, message: str) -> None:
    """Asserts that reading is one InputError with the file and a message."""
    with pytest.raises(errors.InputError, match=message) as caught:
        tensors.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch says how to switch it off


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_of_all_layouts_come_out_right(path, zipped):
    grid = torch.arange(111, dtype=torch.float32).reshape(3, 37)
    state = collections.OrderedDict(
        turned=grid.T,
        strided=grid[1:, ::5],
        spread=grid[:1].expand(4, 37),
        tied=grid,
        half=torch.tensor([0.5, -2], dtype=torch.float16),
        brain=torch.tensor([[1.5, -3]], dtype=torch.bfloat16).T,
        double=torch.tensor(0.1, dtype=torch.float64),
        ids=torch.arange(7)[None],
        parameter=torch.nn.Parameter(torch.ones(2)),
    )
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = tensors.read(path).arrays
    expected = np.arange(111, dtype=np.float32).reshape(3, 37)
    assert list(found) == sorted(state)
    assert all(array.flags.c_contiguous for array in found.values())
    np.testing.assert_array_equal(found["turned"], expected.T)
    np.testing.assert_array_equal(found["strided"], expected[1:, ::5])
    np.testing.assert_array_equal(found["spread"], np.tile(expected[0], (4, 1)))
    np.testing.assert_array_equal(found["tied"], expected)
    assert found["half"].dtype == np.float16
    assert found["brain"].dtype == ml_dtypes.bfloat16
    assert found["brain"].tolist() == [[1.5], [-3]]
    assert found["double"].shape == () and found["double"] == 0.1
    assert found["ids"].dtype == np.int64 and found["ids"].shape == (1, 7)
    assert found["parameter"].tolist() == [1, 1]


def test_a_real_legacy_pickle_with_transposed_strides():
    package = importlib.util.find_spec("rxnfp")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package rxnfp is not installed")
    root = Path(package.submodule_search_locations[0])
    folder = root / "models/transformers/bert_pretrained"
    found = tensors.read(folder)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    assert len(found.arrays) == len(state) == 207
    assert sum(not tensor.is_contiguous() for tensor in state.values()) == 74
    for name, tensor in state.items():
        np.testing.assert_array_equal(found.arrays[name], np.array(tensor.tolist()))
        assert found.arrays[name].flags.c_contiguous
    digest = "50a6ed263d33ae759affa82c1e85554cc5ea9f56145f5c7fb39b6c25d4356437"
    assert found.files == {"pytorch_model.bin": digest}


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def test_a_malicious_pickle_does_not_run(path, tmp_path):
    target = tmp_path / "ran"
    state = {"a": torch.ones(2), "b": Malicious(target)}
    pickle.loads(pickle.dumps(state))
    assert target.exists()  # it would
    target.unlink()
    for write in [
        lambda: torch.save(state, path),
        lambda: torch.save(state, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps(state)),
    ]:
        write()
        refuse(path, "damaged|asks for the object")
        assert not target.exists()


def test_the_object_that_a_pickle_asks_for_is_named(path):
    path.write_bytes(pickle.dumps({"a": np.ones(3)}, protocol=2))
    refuse(path, r"damaged|object 'numpy")
    module = b"csubprocess\nrun\n)R."
    torch.save({"a": torch.ones(2)}, path)
    repacked(path, lambda pickled: pickled[:2] + module)
    refuse(path, "subprocess.run")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not a dictionary of tensors"),
        ([torch.ones(2)], "not a dictionary of tensors"),
        (torch.ones(2), "not a dictionary of tensors"),
        ({"model": {"a": torch.ones(2)}}, "'model' is a dict"),
        ({"a": torch.ones(2), "epoch": 3}, "'epoch' is a int"),
        ({3: torch.ones(2)}, r"name of a tensor is \(a int, not a string\)"),
        ({("a",): torch.ones(2)}, r"name of a tensor is \(a tuple, not"),
        ({"a": torch.eye(3).to_sparse()}, "'a' is sparse or has no values"),
        ({"a": torch.ones(2, device="meta")}, "'a' is sparse or has no values"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "dtype torch.complex64"),
        ({"a": torch.ones(2).to(torch.float8_e5m2)}, "dtype torch.float8_e5m2"),
        ({"a": torch.ones(0, 3)}, "'a' has no elements"),
        ({"a.b": torch.tensor([1, np.nan])}, "'a.b' holds 1 NaN or infinite"),
        ({"a": torch.zeros(1).expand(9**9)}, "need 1,549,681,956 bytes and it has"),
    ],
)
def test_what_is_no_dictionary_of_plain_tensors(path, state, message):
    torch.save(state, path)
    refuse(path, message)


def repacked(path: Path, change, packed: int = zipfile.ZIP_STORED) -> None:
    """Writes the members of an archive again with right checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith("pkl") else content)


def test_an_archive_that_unpacks_to_more_is_refused(path):
    torch.save({"a": torch.zeros(100_000)}, path)
    repacked(path, bytes, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 4000
    refuse(path, "its archive unpacks to more than the file")


def test_a_member_that_is_there_twice_is_refused(path):
    torch.save({"a": torch.zeros(3)}, path)
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(path, "a") as archive,
    ):
        archive.writestr(archive.infolist()[0].filename, b"other")
    refuse(path, "it is damaged")


def test_a_pickle_that_lies_about_a_shape(path):
    torch.save({"a": torch.ones(5)}, path)
    lie = b"J" + struct.pack("<I", 10**8)
    repacked(path, lambda pickled: pickled.replace(b"K\x05", lie))
    refuse(path, "damaged|need 400,000,000 bytes")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_each_cut_is_refused(path, zipped):
    torch.save({"a": torch.ones(5)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for length in [1, 2, 5, 30, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        refuse(path, "is refused: it is damaged")
    path.write_bytes(b"")
    refuse(path, "it is empty")
    path.write_text("<html>404 Not Found</html>")
    refuse(path, "is refused: it is damaged")


def test_shards_with_an_index(path, tmp_path):
    for number in (1, 2):
        torch.save({f"t{number}": torch.full((3,), number)}, tmp_path / f"{number}.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"t2": "2.bin", "t1": "1.bin"}}')
    found = tensors.read(tmp_path)
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        "t1": [1, 1, 1],
        "t2": [2, 2, 2],
    }
    assert sorted(found.files) == ["1.bin", "2.bin", index.name]
    index.write_text('{"weight_map": {"t2": "2.bin", "t1": "1.safetensors"}}')
    with pytest.raises(errors.InputError, match="not the name of a '.bin' file"):
        tensors.read(tmp_path)


def test_without_torch_the_extra_is_named(path, monkeypatch):
    path.write_bytes(io.BytesIO(b"PK").getvalue())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(errors.InputError, match=r"torch is not .*bert_jax\[torch\]"):
        tensors.read(path)
