"""Hostile files and folders: paths, pickles, archives, bombs. A library of fuzz.py.

Next to the folder of a case is `outside`, with valid files: a reader that reads or
changes one of them has failed. Bombs must be read or rejected within the sandbox's
memory and time.
"""

import dataclasses
import functools
import io
import json
import lzma
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import damaged_files_lib as damaged
import numpy as np
import pyarrow as pa
import sandbox_lib

from bert_jax import tasks
from bert_jax.checkpoints import native, sentence_encoder, tensors
from bert_jax.data.corpus import readers, sources
from bert_jax.data.labeled import read_examples
from bert_jax.foundation import json_file
from bert_jax.text import files
from bert_jax.text.tokenizer import Tokenizer

_UP = "../outside/"
_NAMES = ("/etc/passwd", "/dev/zero", "a\0b", "x" * 5000, "..", ".", "", "~/x", "a/b")
_NAMES += ("..\\outside", "C:x", "\ud800", "a\nb", "con", "\u202e", "linked")
_MIB = 1 << 20
_COLLIDING = 2**61 - 1  # Python's hash of an int is its remainder by this


@dataclasses.dataclass(frozen=True)
class Case:
    """A hostile folder and its reader.

    Attributes:
      must_refuse: whether a result of `read` other than "ok ..." is a failure.
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    must_refuse: bool = False

    def run(self, root: Path) -> str:
        """Writes the folder and reads it; returns "refused", "read" or a failure."""
        shutil.rmtree(root, ignore_errors=True)
        outside = root / "outside"
        outside.mkdir(parents=True)
        tensors.write_safetensors(outside / "secret.safetensors", damaged.arrays())
        (outside / "secret").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
        (root / "folder").mkdir()
        self.write(root / "folder")
        before = _state(root)
        result = sandbox_lib.audited(lambda: str(self.read(root / "folder")))
        if _state(root) != before:
            return "! files were changed"
        if result.startswith(("refused", "!")) or not self.must_refuse:
            return result
        is_ok = result.startswith("ok") and "secret" not in result
        return result if is_ok else f"! was read: {result[:200]}"


def _state(root: Path) -> dict[str, int]:
    """Returns the size of every file below a folder."""
    return {str(x): x.lstat().st_size for x in root.rglob("*")}


def _put(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def _write(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree))


# Names that lead out of a folder, programs, and archives.


def _names() -> Iterator[Case]:
    """Yields paths that leave a folder, in each file that contains paths."""
    refused = functools.partial(Case, must_refuse=True)
    for name in (f"{_UP}secret.safetensors", *_NAMES):
        for suffix in (".safetensors", ".bin"):
            single = "model" if suffix == ".safetensors" else "pytorch_model"
            index = f"{single}{suffix}.index.json"
            write = functools.partial(_write_index, name=name, index=index)
            yield refused(f"{index}: {name[:30]!r}", write, tensors.read)
    for name in (f"{_UP}secret", *_NAMES):
        write = functools.partial(_write_task, name=name)
        yield refused(f"task.json: {name[:30]!r}", write, native.read_task)
        write = functools.partial(_write_modules, name=name)
        yield refused(f"modules.json: {name[:30]!r}", write, sentence_encoder.read)
    yield refused("tokenizer_config.json names files", _write_options, _read_own)
    for name in ("vocab.txt", "tokenizer.json", "config.json"):
        write = functools.partial(_write_link, name=name)
        yield refused(f"{name} is a link to /dev/zero", write, _read_others)


def _write_index(folder: Path, name: str, index: str) -> None:
    for end in (".safetensors", ".bin"):
        target = folder.parent / "outside" / "secret.safetensors"
        (folder / f"linked{end}").symlink_to(target)
    shard = f"linked.{index.split('.')[1]}" if name == "linked" else name
    _write(folder / index, {"weight_map": {"a.weight": shard}, "metadata": {}})


def _write_task(folder: Path, name: str) -> None:
    damaged.write_task(folder)
    tree = json.loads((folder / "task.json").read_bytes())
    tree["files"] = {name: "0" * 64, **tree["files"]}
    _write(folder / "task.json", tree)


def _write_modules(folder: Path, name: str) -> None:
    kinds = [("a.Transformer", ""), ("a.Pooling", name)]
    _write(folder / "modules.json", [{"type": k, "path": p} for k, p in kinds])
    _write(folder.parent / "outside" / "config.json", {"secret": 1})


def _write_options(folder: Path) -> None:
    """Writes files that name others, which must not be read."""
    damaged.write_huggingface(folder)
    keys = ("vocab_file", "tokenizer_file", "auto_map", "merges_file", "_name_or_path")
    tree = dict.fromkeys(keys, f"{_UP}secret")
    for name in ("tokenizer_config.json", "config.json"):
        _write(folder / name, json.loads((folder / name).read_bytes()) | tree)


def _write_link(folder: Path, name: str) -> None:
    damaged.write_huggingface(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")


def _read_own(folder: Path) -> str:
    tokenizer = Tokenizer.load(folder)
    damaged.read_model(folder)
    return f"ok {[token for token in tokenizer.tokens if 'sec' in token]}"


def _read_others(folder: Path) -> str:
    """Returns "ok" if the folder is read from its other files, without the link."""
    return damaged.read_model(folder).replace("read", "ok")


class _Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _pickles() -> Iterator[Case]:
    """Yields pickles that run code, plain and inside other formats."""
    if not damaged.installed("torch"):
        return
    for protocol in (0, 2, 4):
        for form in ("plain", "zip", "in an npy"):
            write = functools.partial(_write_pickle, protocol=protocol, form=form)
            name = f"pickle, {form}, protocol {protocol}"
            yield Case(name, write, tensors.read, must_refuse=True)


def _write_pickle(folder: Path, protocol: int, form: str) -> None:
    harm = _Runs(folder.parent / "outside" / "executed")
    content = pickle.dumps({"a.weight": harm}, protocol=protocol)
    path = folder / "pytorch_model.bin"
    if form == "in an npy":
        with path.open("wb") as file:
            np.save(file, np.array([harm], object), allow_pickle=True)
    elif form == "plain":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")


def _archives() -> Iterator[Case]:
    """Yields archives of all kinds where weights or text are expected."""
    for kind in ("tar", "tar.gz", "zip"):
        for name in (f"{_UP}planted", "/tmp/planted-by-an-archive", "link/planted"):
            content = _archive(kind, name)
            for target in ("pytorch_model.bin", "model.safetensors", "bomb"):
                write = functools.partial(_put, name=target, content=content)
                read = tensors.read if target != "bomb" else _READERS["tsv"]
                title = f"{kind} with {name} as {target}"
                yield Case(title, write, read, must_refuse=True)


def _archive(kind: str, name: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, "planted")
        return buffer.getvalue()
    mode = "w:gz" if kind == "tar.gz" else "w"
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../outside"
        archive.addfile(link)
        for each in (name, "storages", "tensors", "pickle", "sys_info"):
            info = tarfile.TarInfo(each)
            info.size = 7
            archive.addfile(info, io.BytesIO(b"planted"))
    return buffer.getvalue()


# Bombs.


def _headers() -> Iterator[Case]:
    """Yields lengths beyond the end of the file, and headers of 100 MB."""
    for length in (2**63, 2**64 - 1, 2**40, 10**8, 10**8 + 1, 2**31):
        content = length.to_bytes(8, "little") + b'{"a": {}}'
        write = functools.partial(_put, name="model.safetensors", content=content)
        yield Case(f"safetensors, header of {length:,}", write, tensors.read)
    for what, parts in (
        ("lists", (b'{"a": [', b"[],", 33_000_000, b"0]}")),
        ("a name", (b'{"', b"x", 99_000_000, b'": {}}')),
        ("depth", (b'{"a": ', b"[", 99_000_000, b"")),
    ):
        write = functools.partial(_write_header, parts=parts)
        yield Case(f"safetensors, 100 MB of JSON, {what}", write, tensors.read)
    for length in (
        b"\xff\xff\xff\xff\x07",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ):
        content = b"\x0a" + length + b"\x0a\x01a"
        write = functools.partial(_put, name="spiece.model", content=content)
        yield Case(f"SentencePiece, length {length.hex()}", write, Tokenizer.load)


def _write_header(folder: Path, parts: tuple[bytes, bytes, int, bytes]) -> None:
    begin, each, times, end = parts
    body = begin + each * times + end
    _put(folder, "model.safetensors", len(body).to_bytes(8, "little") + body)


def _packed() -> Iterator[Case]:
    """Yields text that is compressed in ways that are not read."""
    zeros = b"\0" * _MIB
    for how in _READERS:
        yield _bomb(f"xz, {how}", lzma.compress(zeros * 50), how)
    yield _bomb("zstd", pa.compress(zeros * 100, codec="zstd", asbytes=True), "corpus")


def _bomb(name: str, content: bytes, how: str) -> Case:
    write = functools.partial(_put, name="bomb", content=content)
    return Case(name, write, _READERS[how])


def _read_corpus(folder: Path, kind: str = "text") -> None:
    for _ in readers.documents(sources.Source(kind, str(folder / "bomb"))):
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
_JSON_READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "object": ("x.json", lambda folder: json_file.read_object(folder / "x.json")),
    "tokenizer.json": ("tokenizer.json", Tokenizer.load),
    "header": ("model.safetensors", tensors.read),
    "line": ("bomb", _reading("classification", "jsonl")),
    "spans": ("bomb", _reading("tagging", "spans")),
    "choices": ("bomb", _reading("multiple_choice", "jsonl")),
    "squad": ("bomb", _READERS["squad"]),
    "c3": ("bomb", _READERS["c3"]),
}


def _trees() -> Iterator[Case]:
    """Yields JSON that is deeply nested, or has huge numbers or colliding keys."""
    keys = ", ".join(f'"{n * _COLLIDING}": {n * _COLLIDING}' for n in range(50_000))
    contents = {
        "deep lists": b"[" * 200_000 + b"]" * 200_000,
        "deep objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        "deep in a line": b'{"text": ' + b"[" * 950 + b"]" * 950 + b"}",
        "five million digits": b'{"a": ' + b"9" * 5_000_000 + b"}",
        "1e400": b'{"text": 1e400, "format_version": 1e400, "step": 1e400}',
        "4,300 digits": b'{"text": ' + b"9" * 4300 + b', "step": ' + b"9" * 4300 + b"}",
        "fifty thousand keys of one number": f"{{{keys}}}".encode(),
        "lone surrogates": b'{"text": "\\ud800", "\\udfff": "\\ud800"}',
    }
    for what, content in contents.items():
        for how, (name, read) in _JSON_READERS.items():
            write = functools.partial(_put, name=name, content=content + b"\n")
            yield Case(f"{how}: {what}", write, read)


def _long() -> Iterator[Case]:
    """Yields text on which a naive reader takes quadratic time."""
    read = functools.partial(_read_corpus, kind="paragraphs")
    for what, text in {
        "ends": "。" * 2_600_000,
        "ends in brackets": "x（" + "。）" * 1_300_000,
        "stops": "a. " * 2_600_000,
        "blanks": "a" + " " * 8_000_000 + "b",
        "quotes": '"' * 8_000_000,
        "digits": "1. " * 2_600_000,
        "abbreviations": "e.g. " * 1_600_000,
    }.items():
        write = functools.partial(_put, name="bomb", content=text.encode())
        yield Case(f"8 MB in a line: {what}", write, read)
    vocabulary = functools.partial(_put, name="vocab.txt", content=b"x\n" * 50_000_000)
    yield Case(
        "vocab.txt of 100 MB",
        vocabulary,
        lambda folder: files.read_vocabulary(folder / "vocab.txt"),
    )
    yield Case(
        "index of 20 MB",
        lambda folder: _write(
            folder / "model.safetensors.index.json",
            {"weight_map": {str(n): "x.bin" for n in range(900_000)}},
        ),
        tensors.read,
    )


NAMES = {
    "names that lead out of a folder": _names,
    "programs in pickles": _pickles,
    "archives with hostile paths": _archives,
}
BOMBS = {
    "giant lengths and headers": _headers,
    "text in xz and zstd, which are not read": _packed,
    "JSON: depth, digits, collisions": _trees,
    "long lines and files": _long,
}
