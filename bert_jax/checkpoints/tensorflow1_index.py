"""The `.index` of a TensorFlow checkpoint: a sorted table of names and entries.

TensorFlow's reader ends the process when an entry has an impossible shape or dtype,
and allocates what a footer asks for. So the table (the LevelDB format: blocks of
prefix-compressed keys, an index block, a footer) is walked here first.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from bert_jax.checkpoints import untrusted

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # a byte for the compression and a checksum, after each block
_MAX_BYTES = 1 << 24  # BERT-large with its optimizer needs 100 kB
_MAX_KEY = 1000


def read(path: Path) -> dict[str, bytes]:
    """Reads the entries, still as protocol buffers, by name; the header's name is "".

    Raises InputError unless the table is whole and its names are sorted text.
    """
    if untrusted.size_of(path) > _MAX_BYTES:
        raise untrusted.refusal(path, "it is too long for an index of a checkpoint")
    try:
        entries = {name.decode("utf-8"): value for name, value in _walk(path)}
    except (ValueError, IndexError, struct.error) as error:
        raise untrusted.refusal(path, f"it is damaged ({error})") from None
    if len(entries) < 2 or "" not in entries:
        raise untrusted.refusal(path, "it holds no tensors")
    return entries


def _walk(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yields the entries of all blocks; their names grow."""
    table = path.read_bytes()
    if len(table) < _FOOTER or not table.endswith(_MAGIC):
        raise ValueError("its last bytes are not those of an index")
    _, _, at, size = _varints(table[-_FOOTER:], 4)
    last = None
    for _, handle in _block(table, at, size):
        for name, value in _block(table, *_varints(handle, 2)):
            if last is not None and name <= last:
                raise ValueError("its names are not sorted, or one stands twice")
            yield name, value
            last = name


def _block(table: bytes, begin: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and values of a block, of which nothing points into an entry."""
    if begin + size + _TRAILER > len(table) - _FOOTER:
        raise ValueError("a block lies outside the file")
    block = table[begin : begin + size]
    if table[begin + size] != 0:
        raise ValueError("a block is compressed, which TensorFlow does not do")
    (count,) = struct.unpack("<I", block[-4:])
    end = size - 4 - 4 * count
    if count < 1 or end < 0:
        raise ValueError("a block has no entries")
    restarts = set(struct.unpack(f"<{count}I", block[end:-4]))
    if block[end : end + 4] != bytes(4):
        raise ValueError("a block does not begin with an entry")
    at, key = 0, b""
    while at < end:
        shared, own, length, begin_key = _entry(block, at)
        if not shared:
            restarts.discard(at)
        key = key[:shared] + block[begin_key : begin_key + own]
        at = begin_key + own + length
        if len(key) != shared + own or len(key) > _MAX_KEY or at > end:
            raise ValueError("an entry leaves its block")
        yield key, block[at - length : at]
    if restarts - {0}:
        raise ValueError("a place to start from is not that of an entry")


def _entry(block: bytes, at: int) -> tuple[int, int, int, int]:
    """Returns the three lengths that an entry begins with, and where its key begins."""
    numbers = []
    for _ in range(3):
        number, at = _varint(block, at)
        numbers.append(number)
    return numbers[0], numbers[1], numbers[2], at


def _varints(content: bytes, count: int) -> list[int]:
    """Reads some numbers in a row."""
    numbers, at = [], 0
    for _ in range(count):
        number, at = _varint(content, at)
        numbers.append(number)
    return numbers


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Reads a number of seven bits a byte, and says where the next thing begins.

    >>> _varint(bytes([0x96, 0x01]), 0)
    (150, 2)
    """
    number = 0
    for shift in range(0, 64, 7):
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a number is too long")
