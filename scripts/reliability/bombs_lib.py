"""Giant lengths, decompression bombs, deep JSON, huge numbers. A library of fuzz.py.

Each must be read or rejected within the sandbox's memory and time.
"""

import bz2
import dataclasses
import gzip
import json
import lzma
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import damaged_checkpoints_lib as damage
import damaged_models_lib
import fuzz_files
import pyarrow as pa

from bert_jax import tasks
from bert_jax.checkpoints import tensorflow1, tensors
from bert_jax.data.corpus import manifest, readers, sources, store
from bert_jax.data.labeled import read_examples
from bert_jax.foundation import json_file
from bert_jax.text import files
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint, logs

_MIB = 1 << 20
_ZEROS = b"\0" * _MIB
_DEEP = b"[" * 200_000 + b"]" * 200_000
_DIGITS = b'{"a": ' + b"9" * 5_000_000 + b"}"
_COLLIDING = 2**61 - 1  # Python's hash of an int is its remainder by this


@dataclasses.dataclass(frozen=True)
class Case:
    """A file and its reader."""

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]

    def run(self, folder: Path) -> str:
        """Writes the file and reads it; returns "read", "refused" or a failure."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.write(folder)
        return fuzz_files.audited(lambda: self.read(folder) and "" or "read")


def _file(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def headers() -> Iterator[Case]:
    """Yields lengths beyond the end of the file, and headers of 100 MB."""
    for length in (2**63, 2**64 - 1, 2**40, 10**8, 10**8 + 1, 2**31):
        content = length.to_bytes(8, "little") + b'{"a": {}}'
        write = _file("model.safetensors", content)
        yield Case(f"safetensors, header of {length:,}", write, tensors.read)
    for what, body in (
        ("lists", b'{"a": [' + b"[]," * 33_000_000 + b"0]}"),
        ("a name", b'{"' + b"x" * 99_000_000 + b'": {}}'),
        ("depth", b'{"a": ' + b"[" * 99_000_000),
    ):

        def write(folder: Path, body: bytes = body) -> None:
            content = len(body).to_bytes(8, "little") + body
            (folder / "model.safetensors").write_bytes(content)

        yield Case(f"safetensors, 100 MB of JSON, {what}", write, tensors.read)
    for length in (2**31 - 1, 2**32, 2**63, 2**64 - 1):
        content = b"\x0a" + damage.varint(length) + b"\x0a\x01a"
        write = _file("spiece.model", content)
        yield Case(f"SentencePiece, length {length:,}", write, Tokenizer.load)
        table = damage.table({b"": b"\x08\x01", b"a": b"\x08\x01"})
        handle = damage.varint(length) * 2
        content = table[:-48] + (handle * 2)[:40].ljust(40, b"\0") + table[-8:]
        yield Case(
            f"TF1 index, block at {length:,}",
            _file("x.index", content),
            lambda folder: tensorflow1.read_index(folder / "x.index"),
        )
    for number in (2**31 - 1, 2**31, 2**62, 2**63):
        for at in range(0, 24, 4):
            yield Case(
                f"Arrow, {number:,} at {at} after the schema",
                lambda folder, number=number, at=at: _arrow(folder, number, at),
                store.open_store,
            )
    for codec in ("zstd", "lz4"):
        yield Case(
            f"Arrow, compressed by {codec}",
            lambda folder, codec=codec: _packed_arrow(folder, codec),
            store.open_store,
        )


def _arrow(folder: Path, number: int, at: int) -> None:
    """Overwrites lengths of a record batch, with correct checksums."""
    damaged_models_lib.KINDS["store"][0](folder)
    path = next(folder.glob("*.arrow"))
    content = bytearray(path.read_bytes())
    begin = content.index(b"\xff\xff\xff\xff", 12) + 4 + at
    content[begin : begin + 8] = number.to_bytes(8, "little")
    path.write_bytes(content)
    damaged_models_lib.fix_checksums(folder)


def _packed_arrow(folder: Path, codec: str) -> None:
    damaged_models_lib.KINDS["store"][0](folder)
    path = next(folder.glob("*.arrow"))
    batch = pa.ipc.open_file(path).get_batch(0)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(path, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    damaged_models_lib.fix_checksums(folder)


def _bomb(pack: Callable[[bytes], bytes], times: int, line: bytes) -> bytes:
    """Returns `times` MiB of a line, compressed as concatenated members of 10 MiB."""
    return pack(line * (10 * _MIB // len(line))) * (times // 10)


def packed() -> Iterator[Case]:
    """Yields text of 500 MiB, compressed to a thousandth of it or less."""
    lines = b"a " * 500 + b"b\tdddd\t1\n"
    texts = {"lines": ("tsv", lines), "no line ends": ("squad", b"a")}
    texts |= {"one name": ("c3", b"x"), "blank lines": ("corpus", b"\n")}
    for suffix, pack in {"gz": gzip.compress, "bz2": bz2.compress}.items():
        for what, (how, line) in texts.items():
            content = _bomb(pack, 500, line)
            name = f"{suffix}, {len(content):,} bytes of {what}, {how}"
            yield Case(name, _file("bomb", content), _READERS[how])
    for how, read in _READERS.items():
        yield Case(f"xz, {how}", _file("bomb", lzma.compress(_ZEROS * 50)), read)
    zstd = pa.compress(_ZEROS * 100, codec="zstd", asbytes=True)
    yield Case("zstd", _file("bomb", zstd), _READERS["corpus"])


def _read_corpus(folder: Path) -> None:
    source = sources.Source("text", str(folder / "bomb"))
    for _ in readers.documents(source):
        pass


def _reading(task: str, kind: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        request = read_examples.Request(folder / "bomb", tasks.TASKS[task].form, kind)
        for _ in read_examples.iterate(request):
            pass

    return read


_READERS: dict[str, Callable[[Path], None]] = {
    "corpus": _read_corpus,
    "tsv": _reading("classification", "tsv"),
    "squad": _reading("span", "squad"),
    "c3": _reading("multiple_choice", "c3"),
}


def trees() -> Iterator[Case]:
    """Yields JSON that is deeply nested, or has huge numbers or colliding keys."""
    keys = ", ".join(f'"{n * _COLLIDING}": {n * _COLLIDING}' for n in range(50_000))
    contents = {
        "deep lists": _DEEP,
        "deep objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        "deep in a line": b'{"text": ' + b"[" * 950 + b"]" * 950 + b"}",
        "five million digits": _DIGITS,
        "1e400": b'{"text": 1e400, "format_version": 1e400, "step": 1e400}',
        "4,300 digits": b'{"text": ' + b"9" * 4300 + b', "step": ' + b"9" * 4300 + b"}",
        "fifty thousand keys of one number": f"{{{keys}}}".encode(),
        "lone surrogates": b'{"text": "\\ud800", "\\udfff": "\\ud800"}',
    }
    for what, content in contents.items():
        for how, (name, read) in _JSON_READERS.items():
            yield Case(f"{how}: {what}", _file(name, content + b"\n"), read)


_JSON_READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "object": ("x.json", lambda folder: json_file.read_object(folder / "x.json")),
    "tokenizer.json": ("tokenizer.json", Tokenizer.load),
    "manifest": (manifest.NAME, manifest.read),
    "manifest of a checkpoint": (checkpoint.MANIFEST, checkpoint.damage),
    "metrics": ("m.jsonl", lambda folder: logs.read(folder / "m.jsonl")),
    "header": ("model.safetensors", tensors.read),
    "line": ("bomb", _reading("classification", "jsonl")),
    "spans": ("bomb", _reading("tagging", "spans")),
    "choices": ("bomb", _reading("multiple_choice", "jsonl")),
    "squad": ("bomb", _READERS["squad"]),
    "c3": ("bomb", _READERS["c3"]),
}


def long() -> Iterator[Case]:
    """Yields text on which a naive reader takes quadratic time."""
    for what, text in {
        "ends": "。" * 2_600_000,
        "ends in brackets": "x（" + "。）" * 1_300_000,
        "stops": "a. " * 2_600_000,
        "blanks": "a" + " " * 8_000_000 + "b",
        "quotes": '"' * 8_000_000,
        "digits": "1. " * 2_600_000,
        "abbreviations": "e.g. " * 1_600_000,
    }.items():
        content = text.encode()[: 8 * _MIB - 9]

        def read(folder: Path) -> None:
            source = sources.Source("paragraphs", str(folder / "bomb"))
            for _ in readers.documents(source):
                pass

        text = content.decode("utf-8", "ignore").encode()
        yield Case(f"8 MiB in a line: {what}", _file("bomb", text), read)
    yield Case(
        "vocab.txt of 100 MB",
        lambda folder: (folder / "vocab.txt").write_bytes(b"x\n" * 50_000_000),
        lambda folder: files.read_vocabulary(folder / "vocab.txt"),
    )
    yield Case(
        "index of 20 MB",
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {str(n): "x.bin" for n in range(900_000)}})
        ),
        tensors.read,
    )
