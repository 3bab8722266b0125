"""Documents passed to pretraining from Python, as sources of a corpus.

["One document. Its second sentence.", ...]        texts, split into sentences by rule
[["A sentence.", "The next one."], ...]            lists of sentences

from a list, an iterator, a generator or a pandas Series. Documents are read twice, for
the vocabulary and for the store, so they are first written as JSON lines to a temporary
folder ($TMPDIR), one document in memory at a time. The store is that of the same file.
"""

import contextlib
import dataclasses
import hashlib
import json
import reprlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from bert_jax import errors
from bert_jax.data.corpus import sources
from bert_jax.foundation import interrupts

PREFIX = "python:"  # prefix of data.corpus, before the sha256 of the documents
_SPLITS = {"train": "train", "dev": "heldout"}  # of data -> of the store


@dataclasses.dataclass(frozen=True)
class PythonDocuments:
    """Documents written to files.

    Attributes:
      sources: the files, as sources.
      sha256: the digest of each split's file, by its name in `data`.
    """

    sources: tuple[sources.Source, ...]
    sha256: dict[str, str]

    @property
    def corpus(self) -> str:
        """Their value of data.corpus: `python:` and a sha256 of all of them."""
        joined = "".join(f"{name} {x}\n" for name, x in sorted(self.sha256.items()))
        return f"{PREFIX}{hashlib.sha256(joined.encode()).hexdigest()}"

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """The record of each split for data.json, by `data.NAME`."""
        return {
            f"data.{name}": {"path": f"{PREFIX}{sha256}", "sha256": sha256}
            for name, sha256 in self.sha256.items()
        }


NONE = PythonDocuments((), {})


@contextlib.contextmanager
def written(data: Any) -> Iterator[PythonDocuments]:
    """Writes documents to files that exist while the context is open.

    Args:
      data: `train`, and optionally `dev`, the held-out documents. Without `dev`, a
        fraction data.held_out_fraction of `train` is held out.

    Raises:
      InputError: a split is unknown or missing, or a value is not a document.
      StorageError: the temporary folder is full.
    """
    if not isinstance(data, Mapping):
        raise errors.InputError(
            f"data is {type(data).__name__}: give documents as "
            '{"train": [...]}, or {"train": [...], "dev": [...]}'
        )
    unknown = [name for name in data if name not in _SPLITS]
    if unknown or "train" not in data:
        raise errors.InputError(
            f"data has {', '.join(map(repr, data)) or 'nothing'}: give documents as "
            '{"train": [...]}, or {"train": [...], "dev": [...]}'
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        interrupts.unfinished(Path(folder)),
    ):
        found = {}
        found_sources = []
        for name, split in _SPLITS.items():
            if name in data:
                path = Path(folder) / f"{name}.jsonl"
                found[name] = _write(path, data[name], name)
                source = sources.Source("jsonl", str(path), "text", is_named=True)
                split = split if "dev" in data else ""
                found_sources.append(dataclasses.replace(source, split=split))
        yield PythonDocuments(tuple(found_sources), found)


def _write(path: Path, values: Any, name: str) -> str:
    """Writes documents as JSON lines, and returns the sha256 of the file."""
    digest = hashlib.sha256()
    try:
        file = path.open("wb")
    except OSError as error:
        raise _storage(path, error) from None
    with file:
        for at, value in enumerate(_values(values, name)):
            interrupts.check()
            line = _line(_document(value, f"{name}[{at}]"))
            digest.update(line)
            _put(file, line, path)
        if not file.tell():
            raise errors.InputError(f"data[{name!r}] has no document: give one or more")
    return digest.hexdigest()


def _put(file: IO[bytes], line: bytes, path: Path) -> None:
    try:
        file.write(line)
    except OSError as error:
        raise _storage(path, error) from None


def _storage(path: Path, error: OSError) -> errors.StorageError:
    return errors.StorageError(
        f"cannot write the documents of data to {path}: {error.strerror}. Set TMPDIR "
        "to a folder with more room"
    )


def _values(values: Any, name: str) -> Iterable[Any]:
    """Returns an iterable of documents; raises InputError for a text or a table."""
    if hasattr(values, "columns") or isinstance(values, Mapping):
        raise errors.InputError(
            f"data[{name!r}] is {type(values).__name__}: give the column of the texts, "
            'as in frame["text"]'
        )
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise errors.InputError(
            f"data[{name!r}] is {reprlib.repr(values)}: give a list of documents, each "
            "a text or a list of sentences"
        )
    return values


def _document(value: Any, where: str) -> str | list[str]:
    """Returns a text or a list of sentences; raises InputError for anything else."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise errors.InputError(
            f"{where} is {reprlib.repr(value)}: give a text or a list of sentences"
        )
    for at, sentence in enumerate(value):
        if not isinstance(sentence, str):
            raise errors.InputError(
                f"{where}[{at}] is {reprlib.repr(sentence)}: give a sentence, a str"
            )
    return [str(sentence) for sentence in value]


def _line(document: str | list[str]) -> bytes:
    """Returns a document as a line of JSON; lone surrogates are escaped."""
    tree = {"text": document}
    try:
        return f"{json.dumps(tree, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(tree)}\n".encode()
