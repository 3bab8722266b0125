"""Safetensors files: what is read, the bytes that are written, and every lie."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from bert_jax import errors
from bert_jax.checkpoints import tensors


def small_arrays() -> dict[str, np.ndarray]:
    """Arrays of all widths; 3 x 37 halves leave the next tensor on an odd place."""
    return {
        "w": np.arange(111, dtype=np.float16).reshape(3, 37),
        "b": np.linspace(-1, 1, 5).astype(ml_dtypes.bfloat16),
        "a": np.arange(10, dtype=np.float32).reshape(2, 5),
        "ids": np.array([[-1, 2**40]], np.int64),
        "d": np.array(0.5, np.float64),
        "flags": np.array([True, False, True]),
    }


def spelt(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of a header, with the length of the header or a lie about it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    told = len(text) if length is None else length
    return told.to_bytes(8, "little") + text + data


def entry(shape=(2,), begin=0, end=8, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_the_same_arrays_have_the_same_bytes(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors.write_safetensors(path, small_arrays())
    written = path.read_bytes()
    tensors.write_safetensors(path, dict(reversed(small_arrays().items())))
    assert path.read_bytes() == written


def test_what_is_written_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors.write_safetensors(path, small_arrays(), {"format": "mine"})
    found = tensors.read(path).arrays
    assert list(found) == sorted(small_arrays())
    for name, array in small_arrays().items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].flags.c_contiguous


def test_the_layout_is_in_the_header_and_strides_do_not_matter(tmp_path):
    path = tmp_path / "a.safetensors"
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T
    tensors.write_safetensors(path, {"a": turned, "b": np.arange(9)[::2]})
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("a").tolist() == turned.tolist()
        assert file.get_tensor("b").tolist() == [0, 2, 4, 6, 8]


CODES = {
    **{"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"},
    **{"BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"},
}


def test_every_known_dtype(tmp_path):
    path = tmp_path / "a.safetensors"
    for code, dtype in CODES.items():
        size = tensors.DTYPES[dtype].itemsize
        path.write_bytes(spelt({"x": entry((1,), 0, size, code)}, bytes(size)))
        assert tensors.shapes(path) == {"x": (1,)}
        assert tensors.read(path).arrays["x"].dtype.name == dtype


LIES = {
    "cut length": b"\x05\0\0",
    "huge length": spelt({}, length=2**40),
    "length beyond": spelt({"x": entry()}, bytes(8), 500),
    "no JSON": spelt(b"{nonsense}"),
    "deep": spelt(b"[" * 100_000),
    "no tensors": spelt({}),
    "overlap": spelt({"x": entry(), "y": entry((3,), 4, 16)}, bytes(16)),
    "short": spelt({"x": entry()}, bytes(7)),
    "long": spelt({"x": entry()}, bytes(9)),
    "shape": spelt({"x": entry((3,))}, bytes(8)),
    "overflow": spelt({"x": entry((2**33, 2**31))}, bytes(8)),
    "no elements": spelt({"x": entry((0, 2**70), 0, 0)}),
    "dtype": spelt({"x": entry((8,), dtype="F8_E4M3")}, bytes(8)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(tmp_path, lie):
    path = tmp_path / "a.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(errors.InputError) as caught:
        tensors.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_cut_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors.write_safetensors(path, {"a": np.ones((2, 3), np.float32)})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(errors.InputError):
            tensors.read(path)


def test_nan_is_refused_in_and_out(tmp_path):
    path = tmp_path / "a.safetensors"
    bad = {"layer.0.weight": np.array([1, np.nan, np.inf], np.float32)}
    with pytest.raises(errors.InputError, match="'layer.0.weight' holds 2 NaN or inf"):
        tensors.write_safetensors(path, bad)
    assert not path.exists()
    path.write_bytes(safetensors.numpy.save(bad))
    with pytest.raises(errors.InputError, match="'layer.0.weight' holds 2 NaN or inf"):
        tensors.read(path)
