"""Small checkpoints of each format, and mutations that damage them.

A library of fuzz_files.py. A mutation randomly changes files of a folder: bytes of any
file, or the JSON, pickle or index inside one, with lengths and checksums corrected.
"""

import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bert_jax import errors
from bert_jax.checkpoints import tensorflow1, tensors

CHECKPOINT = "bert_model.ckpt"

_NASTY = [
    *(-1, 0, 1, 3, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 1.5, 1e300, True, None),
    *(
        "",
        "F32",
        "F8_E4M3",
        "I64",
        "BF16",
        "../up",
        "/etc/passwd",
        "a\\b",
        "\0",
        "\ud800",
    ),
    *([], {}, [0], [2**40, 2**40], [1] * 100, {"dtype": "F32"}, [[]], "x" * 5000),
]

Mutation = Callable[[random.Random, Path], None]


# Checkpoints to damage.


def arrays() -> dict[str, np.ndarray]:
    """Returns small arrays of several dtypes and odd sizes."""
    values = np.random.default_rng(7)
    return {
        "a.weight": values.normal(size=(3, 37)).astype(np.float32),
        "a.bias": values.normal(size=5).astype(ml_dtypes.bfloat16),
        "b.weight": values.normal(size=(2, 3, 5)).astype(np.float16),
        "positions": np.arange(7, dtype=np.int64)[None],
        "scale": np.array(0.5, np.float64),
    }


def _write_safetensors(folder: Path) -> None:
    tensors.write_safetensors(folder / tensors.SINGLE, arrays())


def _write_sharded(folder: Path) -> None:
    weight_map = {}
    for number, (name, array) in enumerate(arrays().items(), start=1):
        weight_map[name] = f"model-{number:05d}-of-{len(arrays()):05d}.safetensors"
        tensors.write_safetensors(folder / weight_map[name], {name: array})
    index = folder / (tensors.SINGLE + tensors.INDEX)
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _write_torch(folder: Path, zipped: bool = True) -> None:
    import torch

    state = {
        name: torch.from_numpy(array.astype(np.float32))
        for name, array in arrays().items()
    }
    state["tied"] = state["a.weight"].T
    path = folder / "pytorch_model.bin"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)


def _write_legacy(folder: Path) -> None:
    _write_torch(folder, zipped=False)


def _write_tensorflow1(folder: Path) -> None:
    tensorflow1.write_variables(folder / CHECKPOINT, arrays())


# Damage to any file.


def pick(rng: random.Random, folder: Path, pattern: str = "*") -> Path:
    """Chooses a regular file; a link or pipe of an earlier mutation could block."""
    paths = sorted(path for path in folder.glob(pattern) if _is_plain(path))
    return rng.choice(paths) if paths else folder / "one.safetensors"


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def content_of(path: Path) -> bytes:
    return path.read_bytes() if _is_plain(path) else b""


def flip(rng: random.Random, folder: Path) -> None:
    """Flips bits, most of them in headers."""
    path = pick(rng, folder)
    content = bytearray(content_of(path))
    end = rng.choice([8, 64, 600, len(content)])
    for _ in range(rng.choice([1, 1, 1, 3, 9])):
        if content:
            at = rng.randrange(min(end, len(content)))
            content[rng.choice([at, at, -1 - at % 48 % len(content)])] ^= (
                1 << rng.randrange(8)
            )
    path.write_bytes(content)


def cut(rng: random.Random, folder: Path) -> None:
    """Truncates, extends, empties or doubles a file, or removes a part of it."""
    path = pick(rng, folder)
    content = content_of(path)
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    junk = rng.randbytes(rng.choice([1, 4, 8, 100]))
    cuts = [content[:a], content[:a] + content[b:], content + junk, b"", content * 2]
    path.write_bytes(rng.choice([*cuts, content[:a] + junk + content[a:]]))


def replace(rng: random.Random, folder: Path) -> None:
    """Replaces a file by a folder, a link, a pipe, another file, or nothing."""
    path = pick(rng, folder)
    other = content_of(pick(rng, folder))
    path.unlink(missing_ok=True)
    match rng.randrange(6):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(rng.choice(["/dev/zero", "nowhere", path.name, "/etc"]))
        case 2:
            os.mkfifo(path)
        case 3:
            path.write_bytes(other)
        case 4:
            path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


# Damage to JSON.


def edit(rng: random.Random, tree: Any) -> Any:
    """Returns a JSON tree with one node changed."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.1:
        return rng.choice(_NASTY)
    key = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    other = rng.choice(list(tree.values()) if isinstance(tree, dict) else tree)
    match rng.randrange(6):
        case 0:
            del tree[key]
        case 1:
            tree[key] = other
        case 2 if isinstance(tree, dict):
            tree[rng.choice(["a.weight", "", "x", "__metadata__"])] = other
        case _:
            tree[key] = edit(rng, tree[key])
    return tree


def dumped(rng: random.Random, tree: Any) -> bytes:
    """Serializes JSON, sometimes with a duplicate key or an invalid number."""
    text = json.dumps(tree)
    match rng.randrange(8):
        case 0 if isinstance(tree, dict) and tree:
            key = rng.choice(list(tree))
            text = f"{{{json.dumps(key)}: {json.dumps(tree[key])}, {text[1:]}"
        case 1:
            text = text.replace("1", rng.choice(["NaN", "1e999", "01", "[" * 9999]), 1)
    return text.encode("utf-8", "surrogatepass")


def edit_header(rng: random.Random, folder: Path) -> None:
    """Changes the header of a safetensors file; its length is right or wrong."""
    path = pick(rng, folder, "*.safetensors")
    content = content_of(path)
    length = int.from_bytes(content[:8], "little")
    try:
        tree = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        return
    text = dumped(rng, edit(rng, tree))
    lies = [0, 1, 2**31, 2**63, 2**64 - 1, len(content), 10**8, len(text) + 1]
    stated = rng.choice(lies) if rng.random() < 0.2 else len(text)
    path.write_bytes(stated.to_bytes(8, "little") + text + content[8 + length :])


def edit_index(rng: random.Random, folder: Path) -> None:
    """Changes the index of a sharded checkpoint."""
    for path in folder.glob("*.index.json"):
        try:
            tree = json.loads(content_of(path))
        except (ValueError, RecursionError):
            return
        if isinstance(tree, dict) and isinstance(tree.get("weight_map"), dict):
            part = edit(rng, tree["weight_map"])
            tree = {**tree, "weight_map": part}
        path.write_bytes(dumped(rng, tree if rng.random() < 0.8 else edit(rng, tree)))


# Damage to pickles.


def edit_archive(rng: random.Random, folder: Path) -> None:
    """Changes bytes of the pickle in a zip archive, and corrects its checksums."""
    path = folder / "pytorch_model.bin"
    if not _is_plain(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = {i.filename: archive.read(i) for i in archive.infolist()}
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError):
        return
    packed = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            if name.endswith(".pkl"):
                content = _other_pickle(rng, content)
            archive.writestr(name, content)


def _other_pickle(rng: random.Random, content: bytes) -> bytes:
    """Changes some bytes of a pickle, or inserts a call of a function."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(changed))
        changed[at : at + 1] = rng.choice(
            [b"", rng.randbytes(1), b"\x7f", b"\xff", b"J\xff\xff\xff\x7f", b"0", b"Q"]
        )
    if rng.random() < 0.2:
        call = rng.choice([b"cposix\nsystem\n", b"cbuiltins\neval\n", b"cos\nmkdir\n"])
        changed[2:2] = call + b"X\x07\x00\x00\x00escaped\x85R0"
    return bytes(changed)


def edit_legacy(rng: random.Random, folder: Path) -> None:
    """Changes bytes of a pickle outside an archive."""
    path = folder / "pytorch_model.bin"
    if content := content_of(path):
        path.write_bytes(_other_pickle(rng, content))


# Damage to a TensorFlow index, with corrected checksums.


def edit_entries(rng: random.Random, folder: Path) -> None:
    """Changes the entries of variables: dtype, shape, file, offset, size."""
    path = folder / f"{CHECKPOINT}.index"
    try:
        entries = tensorflow1.read_index(path)
    except errors.InputError:
        return
    numbers = [0, 1, 2, 5, 7, 20, 21, 99, 2**31, 2**40, 2**62, 2**63, 2**64 - 1]
    for name in rng.sample(sorted(entries), k=min(2, len(entries))):
        dims = [rng.choice(numbers) for _ in range(rng.choice([0, 1, 2, 3, 300]))]
        fields = {n: rng.choice(numbers) for n in rng.sample([1, 3, 4, 5], k=2)}
        extra = b"".join(varint(n << 3) + varint(value) for n, value in fields.items())
        shape = b"".join(field(2, b"\x08" + varint(n)) for n in dims)
        junk = rng.choice([b"", rng.randbytes(3), field(7, b""), field(2, shape)])
        entries[name] = rng.choice([entries[name], b""]) + extra + junk
    if rng.random() < 0.1:
        entries = {name[:-1]: value for name, value in entries.items()}
    path.write_bytes(table({k.encode(): v for k, v in entries.items()}))


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


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


_ANY: list[Mutation] = [flip, flip, cut, replace]
KINDS: dict[str, tuple[Callable[[Path], None], list[Mutation]]] = {
    "safetensors": (_write_safetensors, [*_ANY, *[edit_header] * 4]),
    "safetensors_shards": (_write_sharded, [*_ANY, edit_header, *[edit_index] * 4]),
    "torch": (_write_torch, [*_ANY, *[edit_archive] * 4]),
    "torch_legacy": (_write_legacy, [*_ANY, *[edit_legacy] * 4]),
    "tensorflow1": (_write_tensorflow1, [*_ANY, *[edit_entries] * 4]),
}
