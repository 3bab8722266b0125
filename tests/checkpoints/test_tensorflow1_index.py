"""The table of names of a TensorFlow checkpoint, read without TensorFlow."""

import struct

import pytest

from bert_jax import errors
from bert_jax.checkpoints import tensorflow1


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bert_model.ckpt.index"


def refuse(path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=message):
        tensorflow1.read_index(path)


def test_entries_are_read_in_order(path, fuzzer):
    entries = {b"": b"head", b"bert/a": b"1", b"bert/b": b"22" * 100}
    path.write_bytes(fuzzer["table"](entries))
    expected = {key.decode(): value for key, value in entries.items()}
    assert tensorflow1.read_index(path) == expected


def test_a_block_by_hand_with_prefixes(path):
    first = b"\x00\x00\x01" + b"h"  # shares 0, 0 bytes of key, 1 of value
    second = b"\x00\x06\x01" + b"bert/a" + b"1"
    third = b"\x05\x01\x01" + b"b" + b"2"  # shares "bert/"
    block = first + second + third + struct.pack("<3I", 0, len(first), 2)
    index = b"\x00\x01\x02" + b"c" + bytes([0, len(block)]) + struct.pack("<2I", 0, 1)
    at = len(block) + 5
    footer = bytes([0, 0, at, len(index)]).ljust(40, b"\0")
    magic = struct.pack("<Q", 0xDB4775248B80FB57)
    content = block + bytes(5) + index + bytes(5) + footer + magic
    path.write_bytes(content)
    expected = {"": b"h", "bert/a": b"1", "bert/b": b"2"}
    assert tensorflow1.read_index(path) == expected
    inside = content.replace(struct.pack("<3I", 0, 4, 2), struct.pack("<3I", 0, 5, 2))
    refuse(path, inside, "a restart")
    shared = content.replace(struct.pack("<3I", 0, 4, 2), struct.pack("<3I", 0, 14, 2))
    refuse(path, shared, "a restart")
    late = content.replace(struct.pack("<3I", 0, 4, 2), struct.pack("<3I", 4, 4, 2))
    refuse(path, late, "a block does not begin with an entry")
    packed = bytearray(content)
    packed[len(block)] = 1
    refuse(path, bytes(packed), "a block is compressed")


def test_names_grow_and_are_text(path, fuzzer):
    table = fuzzer["table"]
    refuse(path, table({b"": b"", b"b": b"", b"a": b""}), "names are not sorted")
    refuse(path, table({b"": b"", b"a\xff": b""}), "it is damaged .*utf-8")
    refuse(path, table({b"": b"", b"a" * 1001: b""}), "an entry leaves its block")
    good = table({b"": b"", b"a": b"1", b"b": b"2"})
    refuse(path, good.replace(b"\x01\x01b2", b"\x01\x01a2"), "duplicated")
    refuse(path, good.replace(b"\x01\x01b2", b"\x01\x7fb2"), "an entry leaves its bl")


def test_what_is_no_table(path, fuzzer, monkeypatch):
    good = fuzzer["table"]({b"": b"", b"a": b"1"})
    refuse(path, b"", "it is empty")
    refuse(path, b"x" * 100, "last bytes are not those of an index")
    refuse(path, good[:-1], "last bytes are not those of an index")
    refuse(path, fuzzer["table"]({b"": b""}), "no tensors")
    huge = b"\0\0" + fuzzer["varint"](1) + fuzzer["varint"](2**62)
    refuse(path, good[:-48] + huge.ljust(40, b"\0") + good[-8:], "outside the file")
    refuse(path, good[:-48] + b"\xff" * 40 + good[-8:], "a number is too long")
    monkeypatch.setattr(tensorflow1, "_MAX_INDEX", 100)
    refuse(path, good + good, "too long for an index")
