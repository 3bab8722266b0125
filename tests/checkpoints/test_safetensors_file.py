"""Safetensors files: what is read, the bytes that are written, and every lie."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from bert_jax import errors
from bert_jax.checkpoints import safetensors_file


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


def test_the_bytes_are_those_of_the_library(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = small_arrays()
    del arrays["d"]  # the library has its own order of dtypes of one width
    safetensors_file.write(path, arrays, {"format": "pt"})
    written = path.read_bytes()
    assert written == safetensors.numpy.save(arrays, {"format": "pt"})
    safetensors_file.write(path, dict(reversed(arrays.items())), {"format": "pt"})
    assert path.read_bytes() == written


def test_what_is_written_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors_file.write(path, small_arrays(), {"z": "1", "a": "2"})
    found = safetensors_file.read(path)
    assert list(found) == sorted(small_arrays())
    for name, array in small_arrays().items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].flags.c_contiguous


def test_metadata_are_in_order_and_strides_do_not_matter(tmp_path):
    path = tmp_path / "a.safetensors"
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T
    arrays = {"a": turned, "b": np.arange(9)[::2]}
    safetensors_file.write(path, arrays, {"z": "1", "é": "2", "b": "3"})
    assert b'{"__metadata__":{"b":"3","z":"1","\xc3\xa9":"2"},"b"' in path.read_bytes()
    with safetensors.safe_open(path, framework="np") as file:
        assert file.get_tensor("a").tolist() == turned.tolist()
        assert file.get_tensor("b").tolist() == [0, 2, 4, 6, 8]


def test_the_header_of_every_known_dtype(tmp_path):
    path = tmp_path / "a.safetensors"
    for code, dtype in safetensors_file.CODES.items():
        size = np.dtype(safetensors_file.untrusted.DTYPES[dtype]).itemsize
        path.write_bytes(spelt({"x": entry((1,), 0, size, code)}, bytes(size)))
        assert safetensors_file.read_header(path) == {
            "x": (safetensors_file.untrusted.DTYPES[dtype], (1,))
        }
        assert safetensors_file.read(path)["x"].dtype.name == dtype


LIES = {
    "cut length": (b"\x05\0\0", "should have 5 bytes and can have -5"),
    "huge length": (spelt({}, length=2**40), "should have 1,099,511,627,776 bytes and"),
    "negative length": (spelt({}, length=2**64 - 1), "should have 18,446,744,073"),
    "length beyond": (spelt({"x": entry()}, bytes(8), 500), "should have 500 bytes"),
    "no JSON": (spelt(b"{nonsense}"), "is not JSON"),
    "no object": (spelt(b"[1, 2, 3]"), "is not a JSON object"),
    "not UTF-8": (spelt(b'{"\xff": 1}'), "is not JSON"),
    "deep": (spelt(b"[" * 100_000), "is not JSON"),
    "no tensors": (spelt({}), "holds no tensors"),
    "only metadata": (spelt({"__metadata__": {"a": "b"}}), "holds no tensors"),
    "metadata": (
        spelt({"__metadata__": {"a": 1}, "x": entry()}, bytes(8)),
        "not all st",
    ),
    "twice": (
        spelt(b'{"x":%b,"x":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
        "has the key 'x' twice",
    ),
    "overlap": (
        spelt({"x": entry(), "y": entry((3,), 4, 16)}, bytes(16)),
        "'y' begins at 4, not at 8",
    ),
    "gap": (
        spelt({"x": entry(), "y": entry((1,), 12, 16)}, bytes(16)),
        "'y' begins at 12, not at 8",
    ),
    "late begin": (spelt({"x": entry((2,), 4, 12)}, bytes(12)), "'x' begins at 4, not"),
    "short": (spelt({"x": entry()}, bytes(7)), "need 8 bytes and it has 7"),
    "long": (spelt({"x": entry()}, bytes(9)), "need 8 bytes and it has 9"),
    "backwards": (spelt({"x": entry((2,), 8, 0)}, bytes(8)), "'x' has -8 bytes"),
    "shape": (
        spelt({"x": entry((3,))}, bytes(8)),
        "'x' has 8 bytes, which is not what",
    ),
    "overflow": (
        spelt({"x": entry((2**33, 2**31))}, bytes(8)),
        "'x' has 8 bytes, which",
    ),
    "negative": (
        spelt({"x": entry((-1, -2))}, bytes(8)),
        "no dtype, shape and offsets",
    ),
    "fraction": (spelt({"x": entry((2.0,))}, bytes(8)), "no dtype, shape and offsets"),
    "truth": (spelt({"x": entry((2, True))}, bytes(8)), "no dtype, shape and offsets"),
    "rank": (spelt({"x": entry((2,) + (1,) * 64)}, bytes(8)), "'x' has 65 dimensions"),
    "no elements": (spelt({"x": entry((0, 2**70), 0, 0)}), "'x' has no elements"),
    "dtype": (
        spelt({"x": entry((8,), dtype="F8_E4M3")}, bytes(8)),
        "dtype 'F8_E4M3', w",
    ),
    "dtype kind": (
        spelt({"x": entry(dtype=7)}, bytes(8)),
        "no dtype, shape and offsets",
    ),
    "more": (
        spelt({"x": {**entry(), "y": 1}}, bytes(8)),
        "no dtype, shape and offsets",
    ),
    "no entry": (spelt({"x": 3}), "'x' has no dtype, shape and offsets"),
    "library": (
        spelt(b"\xef\xbb\xbf" + json.dumps({"x": entry()}).encode(), bytes(8)),
        "damaged",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(tmp_path, lie):
    content, message = LIES[lie]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=message) as caught:
        safetensors_file.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_cut_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors_file.write(path, {"a": np.ones((2, 3), np.float32)}, {})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(errors.InputError):
            safetensors_file.read(path)


def test_nan_is_refused_in_and_out(tmp_path):
    path = tmp_path / "a.safetensors"
    bad = {"layer.0.weight": np.array([1, np.nan, np.inf], np.float32)}
    with pytest.raises(errors.InputError, match="'layer.0.weight' holds 2 NaN or inf"):
        safetensors_file.write(path, bad, {})
    assert not path.exists()
    path.write_bytes(safetensors.numpy.save(bad))
    with pytest.raises(errors.InputError, match="'layer.0.weight' holds 2 NaN or inf"):
        safetensors_file.read(path)


@pytest.mark.parametrize("arrays", [{}, {"__metadata__": np.ones(3)}])
def test_what_could_not_be_read_again_is_not_written(tmp_path, arrays):
    with pytest.raises(errors.InputError, match="no tensors, or one called __meta"):
        safetensors_file.write(tmp_path / "a", arrays, {})
