"""Google's checkpoints, in and out, compared with TensorFlow's reader and writer."""

import hashlib
import os
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from bert_jax import errors
from bert_jax.checkpoints import tensorflow1

tf = pytest.importorskip("tensorflow")

DATA = "bert_model.ckpt.data-00000-of-00001"


def small_arrays() -> dict[str, np.ndarray]:
    return {
        "bert/pooler/dense/kernel": np.arange(111, dtype=np.float32).reshape(3, 37).T,
        "bert/pooler/dense/bias": np.linspace(0, 1, 37).astype(ml_dtypes.bfloat16),
        "cls/half": np.array([[0.5]], np.float16),
        "global_step": np.array(1000, np.int64),
        "bert/pooler/dense/bias/adam_m": np.ones(37, np.float32),
    }


@pytest.fixture
def prefix(tmp_path):
    path = tmp_path / "bert_model.ckpt"
    tensorflow1.write_variables(path, small_arrays())
    return path


def refuse(prefix, message: str) -> None:
    with pytest.raises(errors.InputError, match=message) as caught:
        tensorflow1.read_variables(prefix)
    assert "\n" not in str(caught.value)


def test_tensorflow_reads_what_is_written(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    assert reader.get_variable_to_shape_map() == {
        name: list(array.shape) for name, array in small_arrays().items()
    }
    for name, array in small_arrays().items():
        np.testing.assert_array_equal(reader.get_tensor(name), array)
        assert reader.get_tensor(name).dtype == array.dtype


def test_what_a_tensorflow_1_saver_writes_is_read(tmp_path):
    compat = tf.compat.v1
    with tf.Graph().as_default(), compat.Session() as session:
        kernel = compat.get_variable("bert/kernel", initializer=np.ones((3, 7), "f4"))
        compat.get_variable("global_step", initializer=np.int64(5))
        session.run(compat.global_variables_initializer())
        session.run(kernel.assign(np.arange(21, dtype="f4").reshape(3, 7)))
        compat.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=5)
    found = tensorflow1.read_variables(tmp_path)
    assert list(found.arrays) == ["bert/kernel", "global_step"]
    np.testing.assert_array_equal(
        found.arrays["bert/kernel"], np.arange(21).reshape(3, 7)
    )
    assert found.arrays["global_step"] == 5


def test_prefix_folder_and_index_are_the_same(prefix):
    digests = {
        name: hashlib.sha256((prefix.parent / name).read_bytes()).hexdigest()
        for name in os.listdir(prefix.parent)
    }
    assert sorted(digests) == [DATA, "bert_model.ckpt.index"]
    for given in (prefix, prefix.parent, prefix.with_name("bert_model.ckpt.index")):
        found = tensorflow1.read_variables(given)
        assert found.files == digests
        assert list(found.arrays) == sorted(small_arrays())
        for name, array in small_arrays().items():
            np.testing.assert_array_equal(found.arrays[name], array)
            assert found.arrays[name].dtype == array.dtype
            assert found.arrays[name].flags.c_contiguous


def test_only_what_is_wanted_is_read(prefix):
    found = tensorflow1.read_variables(
        prefix, wanted=lambda name: "adam" not in name and name != "global_step"
    )
    assert list(found.arrays) == [
        "bert/pooler/dense/bias",
        "bert/pooler/dense/kernel",
        "cls/half",
    ]


def test_a_folder_needs_one_checkpoint(prefix, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    refuse(folder, "one checkpoint is expected, and it has none. Give the prefix")
    tensorflow1.write_variables(tmp_path / "other", {"a": np.ones(3)})
    refuse(tmp_path, "it has bert_model.ckpt.index, other.index")
    refuse(tmp_path / "absent", "absent.index is refused: it does not exist")
    (tmp_path / "other").mkdir()
    found = tensorflow1.read_variables(tmp_path / "other")
    assert list(found.arrays) == ["a"]


def test_damage_is_refused(prefix):
    data = prefix.with_name(DATA)
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    refuse(prefix, "reaches beyond the end of its file of data")
    data.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    refuse(prefix, "bert_model.ckpt is refused: it is damaged .*[Cc]hecksum")
    data.unlink()
    refuse(prefix, f"{DATA} is refused: it does not exist")
    data.mkdir()
    refuse(prefix, f"{DATA} is refused: it is a folder")
    data.rmdir()
    data.write_bytes(content)
    index = prefix.with_name("bert_model.ckpt.index")
    index.write_bytes(index.read_bytes()[:-60])
    refuse(prefix, "bert_model.ckpt.index is refused: it is damaged")


def entry(fuzzer, shape, size, dtype=1, offset=0, shard=0, slices=False) -> bytes:
    """Encodes an entry as a protocol buffer."""
    varint = fuzzer["varint"]
    sizes = [b"\x08" + varint(dimension) for dimension in shape]
    dimensions = b"".join(b"\x12" + varint(len(size)) + size for size in sizes)
    encoded = b"\x08" + varint(dtype) + b"\x12" + varint(len(dimensions)) + dimensions
    encoded += b"\x18" + varint(shard) + b"\x20" + varint(offset)
    encoded += b"\x28" + varint(size)
    return encoded + (b"\x3a\x00" if slices else b"")


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (dict(shape=[2**40], size=2**42), "reaches beyond the end"),
        (dict(shape=[2**40], size=20), "has 20 bytes"),
        (dict(shape=[2**40, 2**40], size=20), "has 20 bytes"),
        (dict(shape=[2**64 - 1], size=20), "an impossible shape, or no elements"),
        (dict(shape=[0], size=0), "an impossible shape, or no elements"),
        (dict(shape=[1] * 300, size=4), "an impossible shape, or no elements"),
        (dict(shape=[5], size=20, dtype=99), "the dtype 99 of TensorFlow"),
        (dict(shape=[5], size=20, dtype=7), "the dtype 7 of TensorFlow"),
        (dict(shape=[5], size=20, dtype=20), "the dtype 20 of TensorFlow"),
        (dict(shape=[5], size=20, shard=1), "does not exist"),
        (dict(shape=[5], size=20, offset=2**64 - 4), "reaches beyond the end"),
        (dict(shape=[5], size=20, slices=True), "is saved in slices"),
    ],
)
def test_a_forged_entry_with_a_correct_checksum(prefix, fuzzer, lie, message):
    index = prefix.with_name("bert_model.ckpt.index")
    entries = tensorflow1.read_index(index)
    entries["cls/half"] = entry(fuzzer, **lie)
    table = {name.encode(): value for name, value in entries.items()}
    index.write_bytes(fuzzer["table"](table))
    refuse(prefix, f"ckpt.index is refused: tensor 'cls/half' .*{message}")


def test_other_forged_indices(prefix, fuzzer):
    index = prefix.with_name("bert_model.ckpt.index")
    size = prefix.with_name(DATA).stat().st_size
    whole = entry(fuzzer, [size], size, dtype=4)
    for entries, message in [
        ({b"": b"\x08\x02", b"a": whole, b"b": whole}, "00000-of-00002 is refused"),
        ({b"": b"\x08" + fuzzer["varint"](2**30), b"a": whole}, "1,073,741,824"),
        ({b"": b"\x08\x01", b"a": whole, b"b": whole}, "more bytes"),
        ({b"": b"\x08\x01", b"a": b"\xff"}, r"is damaged \(an entry\)"),
    ]:
        index.write_bytes(fuzzer["table"](entries))
        refuse(prefix, message)


READ = """
import sys
import tensorflow
reader = tensorflow.compat.v1.train.NewCheckpointReader(sys.argv[1])
for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)
"""


def test_tensorflow_itself_is_aborted_by_a_forged_entry(prefix, fuzzer):
    """The reason for `read_index`: an exception could be caught, a signal cannot."""
    index = prefix.with_name("bert_model.ckpt.index")
    entries = tensorflow1.read_index(index)
    entries["cls/half"] = entry(fuzzer, shape=[2**40, 2**40], size=20)
    table = {name.encode(): value for name, value in entries.items()}
    index.write_bytes(fuzzer["table"](table))
    command = [sys.executable, "-c", READ, str(prefix)]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGABRT, done.stderr.decode()[-500:]
    refuse(prefix, "ckpt.index is refused: tensor 'cls/half' .*has 20 bytes")


def test_a_checkpoint_of_objects_is_refused_with_a_remedy(tmp_path):
    module = tf.Module()
    module.v = tf.Variable([1.0])
    tf.train.Checkpoint(m=module).write(str(tmp_path / "objects"))
    refuse(tmp_path / "objects", "TensorFlow 2 checkpoint of objects.*v1.train.Saver")


def test_nan_is_refused_in_and_out(tmp_path):
    with pytest.raises(errors.InputError, match="'a' holds 1 NaN or infinite"):
        tensorflow1.write_variables(tmp_path / "x", {"a": np.array([np.nan])})
    assert os.listdir(tmp_path) == []
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "x"),
        tensor_names=["a", "b"],
        shape_and_slices=["", ""],
        tensors=[tf.constant([1.0, np.inf]), tf.constant([1.0])],
    )
    refuse(tmp_path / "x", "'a' holds 1 NaN or infinite values of 2")
    found = tensorflow1.read_variables(tmp_path / "x", lambda name: name == "b")
    assert list(found.arrays) == ["b"]


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(errors.InputError, match="no tensors, or one without a name"):
        tensorflow1.write_variables(tmp_path / "x", {})
    (tmp_path / "file").touch()
    with pytest.raises(errors.StorageError, match="file/x cannot be written"):
        tensorflow1.write_variables(tmp_path / "file/x", {"a": np.ones(3)})


def test_without_tensorflow_the_extra_is_named(prefix, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    refuse(prefix, r"tensorflow is not installed.*bert_jax\[data\]")
