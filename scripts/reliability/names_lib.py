"""Paths that leave a folder, pickles, archives. A library of fuzz.py.

Next to the folder is `outside`, with valid files: a reader that reads or writes one of
them has failed.
"""

import dataclasses
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import damaged_checkpoints_lib as damage
import damaged_models_lib
import fuzz_files
import numpy as np

from bert_jax import evaluate, tasks
from bert_jax.checkpoints import native, sentence_encoder, tensors
from bert_jax.data import text_files
from bert_jax.data.corpus import store
from bert_jax.data.labeled import read_examples
from bert_jax.inference import inputs
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint

_UP = "../outside/"
_NAMES = ("/etc/passwd", "/dev/zero", "a\0b", "x" * 5000, "..", ".", "", "~/x", "a/b")
_NAMES += ("..\\outside", "C:x", "\ud800", "a\nb", "con", "\u202e", "linked")


@dataclasses.dataclass(frozen=True)
class Case:
    """A hostile folder and its reader."""

    name: str
    prepare: Callable[[Path], None]  # takes the folder; `outside` is next to it
    read: Callable[[Path], Any]

    def run(self, root: Path) -> str:
        """Writes the folder and reads it; returns "refused", "ok ..." or a failure."""
        shutil.rmtree(root, ignore_errors=True)
        outside = root / "outside"
        outside.mkdir(parents=True)
        tensors.write_safetensors(outside / "secret.safetensors", damage.arrays())
        (outside / "secret").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
        (root / "folder").mkdir()
        self.prepare(root / "folder")
        before = _state(root)
        result = fuzz_files.audited(lambda: str(self.read(root / "folder")))
        if _state(root) != before:
            return "! files were changed"
        if "secret" in result or not result.startswith(("refused", "!", "ok")):
            return f"! was read: {result[:200]}"
        return result


def _state(root: Path) -> dict[str, bytes]:
    """Returns the content of every file below a folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(x): x.read_bytes() for x in files if not x.is_symlink()}


def names() -> Iterator[Case]:
    """Yields paths that leave a folder, in each file that contains paths."""
    yield from _indexes()
    yield from _manifests()
    yield from _options()


def _indexes() -> Iterator[Case]:
    for name in (f"{_UP}secret.safetensors", *_NAMES):
        for suffix in (".safetensors", ".bin"):
            single = "model" if suffix == ".safetensors" else "pytorch_model"
            index = f"{single}{suffix}.index.json"
            named = {"weight_map": {"a.weight": f"{name}"}, "metadata": {}}
            if name == "linked":
                named["weight_map"]["a.weight"] = f"linked{suffix}"

            def prepare(folder: Path, index: str = index, named: Any = named) -> None:
                for end in (".safetensors", ".bin"):
                    target = folder.parent / "outside" / "secret.safetensors"
                    (folder / f"linked{end}").symlink_to(target)
                (folder / index).write_text(json.dumps(named))

            yield Case(f"{index}: {name[:30]!r}", prepare, tensors.read)


def _manifests() -> Iterator[Case]:
    for name in (f"{_UP}secret", *_NAMES):
        yield Case(
            f"shard of a store: {name[:30]!r}",
            lambda folder, name=name: _store(folder, name),
            store.open_store,
        )
        yield Case(
            f"checkpoint's manifest: {name[:30]!r}",
            lambda folder, name=name: _write(
                folder / "manifest.json", {"sha256": {name: _digest(folder)}}
            ),
            lambda folder: _damage_of(folder),
        )
        yield Case(
            f"task.json: {name[:30]!r}",
            lambda folder, name=name: _task(folder, name),
            native.read_task,
        )
        yield Case(
            f"modules.json: {name[:30]!r}",
            lambda folder, name=name: _modules(folder, name),
            sentence_encoder.read,
        )


def _damage_of(folder: Path) -> str:
    """Returns "refused" for a step that is damaged."""
    return "refused" if checkpoint.damage(folder) else "was accepted"


def _digest(folder: Path) -> str:
    content = (folder.parent / "outside" / "secret").read_bytes()
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree))


def _store(folder: Path, name: str) -> None:
    damaged_models_lib.KINDS["store"][0](folder)
    tree = json.loads((folder / "manifest.json").read_bytes())
    tree["shards"][0]["name"] = name
    shard = (folder / "train-00000.arrow").rename(folder.parent / "outside" / "secret")
    (folder / "linked").symlink_to("/dev/zero")
    assert shard.exists()
    _write(folder / "manifest.json", tree)


def _task(folder: Path, name: str) -> None:
    damaged_models_lib.KINDS["task folder"][0](folder)
    tree = json.loads((folder / "task.json").read_bytes())
    tree["files"] = {name: _digest(folder), **tree["files"]}
    _write(folder / "task.json", tree)


def _modules(folder: Path, name: str) -> None:
    kinds = [("a.Transformer", ""), ("a.Pooling", name)]
    _write(folder / "modules.json", [{"type": k, "path": p} for k, p in kinds])
    _write(folder.parent / "outside" / "config.json", {"secret": 1})


def _options() -> Iterator[Case]:
    """Yields files that name others, which must not be read."""
    outside = f"{_UP}secret"
    keys = (
        "vocab_file",
        "tokenizer_file",
        "sp_model_kwargs",
        "auto_map",
        "merges_file",
    )
    tree = {key: outside for key in keys} | {"name_or_path": outside}

    def prepare(folder: Path) -> None:
        damaged_models_lib.KINDS["Hugging Face folder"][0](folder)
        for name in ("tokenizer_config.json", "config.json"):
            old = json.loads((folder / name).read_bytes())
            _write(folder / name, old | tree | {"_name_or_path": outside})

    yield Case("tokenizer_config.json names files", prepare, _reads_own)
    links = {"vocab.txt": "/dev/zero", "tokenizer.json": "/dev/zero"}
    for name, target in (*links.items(), ("config.json", "/dev/zero")):

        def link(folder: Path, name: str = name, target: str = target) -> None:
            damaged_models_lib.KINDS["Hugging Face folder"][0](folder)
            (folder / name).unlink()
            (folder / name).symlink_to(target)

        yield Case(f"{name} is a link to {target}", link, _reads_others)
    for name in ("../../x", "/tmp/x", "a/b", "..", ".", "a\0", "-x", "a\n"):
        yield Case(
            f"name of an evaluation: {name!r}",
            lambda folder: None,
            lambda folder, name=name: evaluate.evaluate_task(
                folder, inputs.AnswerRequest("x.tsv"), name
            ),
        )


def _reads_own(folder: Path) -> str:
    tokenizer = Tokenizer.load(folder)
    damaged_models_lib.read(folder)
    return f"ok {[token for token in tokenizer.tokens if 'sec' in token]}"


def _reads_others(folder: Path) -> str:
    """Returns "ok" if the folder is read from its other files, without the link."""
    return damaged_models_lib.read(folder).replace("read", "ok")


class _Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickles() -> Iterator[Case]:
    """Yields pickles that run code, plain and inside other formats."""
    if not fuzz_files.installed("torch"):
        return
    for protocol in (0, 2, 4):
        for name in ("plain", "zip", "in an npy"):

            def prepare(
                folder: Path, protocol: int = protocol, how: str = name
            ) -> None:
                harm = _Runs(folder.parent / "outside" / "executed")
                content = pickle.dumps({"a.weight": harm}, protocol=protocol)
                path = folder / "pytorch_model.bin"
                if how == "in an npy":
                    with path.open("wb") as file:
                        np.save(file, np.array([harm], object), allow_pickle=True)
                elif how == "plain":
                    path.write_bytes(content)
                else:
                    with zipfile.ZipFile(path, "w") as archive:
                        archive.writestr("archive/data.pkl", content)
                        archive.writestr("archive/version", "3\n")

            yield Case(f"pickle, {name}, protocol {protocol}", prepare, tensors.read)


def archives() -> Iterator[Case]:
    """Yields archives of all kinds where weights or text are expected."""
    for kind in ("tar", "tar.gz", "zip"):
        for name in (f"{_UP}planted", "/tmp/planted-by-an-archive", "link/planted"):
            for target in ("pytorch_model.bin", "model.safetensors", "corpus.txt"):
                content = _archive(kind, name)
                yield Case(
                    f"{kind} with {name} as {target}",
                    lambda folder, target=target, content=content: _put(
                        folder / target, content
                    ),
                    _read_text if target == "corpus.txt" else tensors.read,
                )


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


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


def _read_text(folder: Path) -> str:
    path = folder / "corpus.txt"
    request = read_examples.Request(path, tasks.TASKS["classification"].form, "tsv")
    file = text_files.NamedPath(path.name, path)
    for _ in text_files.lines(file, text_files.Tally()):
        pass
    return str(read_examples.read(request))
