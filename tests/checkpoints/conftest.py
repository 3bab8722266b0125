"""What the tests of checkpoint files share: indexes as TensorFlow writes them."""

import struct
from typing import Any

import pytest


@pytest.fixture(scope="session")
def fuzzer() -> dict[str, Any]:
    """Functions that write the tables of TensorFlow's indexes."""
    return {"table": table, "varint": varint}


def table(entries: dict[bytes, bytes]) -> bytes:
    """Returns a LevelDB table of one block of entries, as TensorFlow reads it."""
    content = b""
    handles = []
    block = b"".join(_entry(key, value) for key, value in entries.items())
    for part in (block, b""):
        handles.append(varint(len(content)) + varint(len(part) + 8))
        content += _with_checksum(part)
    part = _entry(b"\xff", handles[0])
    handles.append(varint(len(content)) + varint(len(part) + 8))
    content += _with_checksum(part)
    footer = (handles[1] + handles[2]).ljust(40, b"\0")
    return content + footer + bytes.fromhex("57fb808b247547db")


def _entry(key: bytes, value: bytes) -> bytes:
    return varint(0) + varint(len(key)) + varint(len(value)) + key + value


def _with_checksum(content: bytes) -> bytes:
    """Returns a block with its one restart point and a masked CRC-32C."""
    content += struct.pack("<II", 0, 1) + b"\0"
    rest = 0xFFFFFFFF
    for byte in content:
        rest ^= byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 if rest & 1 else 0)
    rest ^= 0xFFFFFFFF
    masked = ((rest >> 15 | rest << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return content + struct.pack("<I", masked)


def varint(number: int) -> bytes:
    """Returns a base-128 varint: seven bits a byte, the lowest first."""
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])
