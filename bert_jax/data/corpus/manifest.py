"""The manifest of a store: its tokenizer, sources, options and shards.

`manifest.json` is written last. It has no time and no absolute path, so the same text
tokenized in the same way gives the same bytes.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.foundation import files, json_file

NAME = "manifest.json"
FORMAT_VERSION = 1
SPLITS = ("train", "heldout")
_MAX_BYTES = 1 << 28  # of the files of a corpus there may be a million
_SHARD = re.compile(r"[\w-][\w.-]*", re.ASCII)  # a name in the folder


@dataclass(frozen=True)
class SourceEntry:
    """One source of the corpus, with its documents before any were dropped."""

    kind: str
    field: str
    weight: float
    files: tuple[text_files.FileEntry, ...]
    documents: int


@dataclass(frozen=True)
class StoreOptions:
    """The choices that change what a store contains.

    `vocabulary` describes how the vocabulary was learned; "given" if it was not.
    """

    held_out_fraction: float
    drop_duplicates: bool
    segmenter: str
    segmenter_fallback: str
    vocabulary: str = "given"


@dataclass(frozen=True)
class Dropped:
    """Counts of what was read and not stored, and of unknown tokens."""

    duplicate_documents: int = 0
    empty_documents: int = 0
    empty_sentences: int = 0
    documents_without_words: int = 0
    unknown_tokens: int = 0


@dataclass(frozen=True)
class ShardEntry:
    """One Arrow file of the store."""

    name: str
    split: str
    documents: int
    sentences: int
    tokens: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    format_version: int
    tokenizer: str
    vocab_size: int
    options: StoreOptions
    sources: tuple[SourceEntry, ...]
    dropped: Dropped
    shards: tuple[ShardEntry, ...]

    def of_split(self, split: str) -> tuple[ShardEntry, ...]:
        """Returns the shards of one split, in order."""
        return tuple(entry for entry in self.shards if entry.split == split)

    def total(self, quantity: str, split: str | None = None) -> int:
        """Returns how many "documents", "sentences", "tokens" or "bytes" there are."""
        shards = self.shards if split is None else self.of_split(split)
        return sum(getattr(entry, quantity) for entry in shards)

    @property
    def unknown_share(self) -> float:
        """The fraction of stored tokens that are unknown."""
        return self.dropped.unknown_tokens / max(1, self.total("tokens"))


def to_json(manifest: Manifest) -> str:
    """Returns the text of `manifest.json`."""
    return json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest:
    """Reads a store's manifest.

    Raises InputError if the folder is not a finished store or has another format.
    """
    path = folder / NAME
    try:
        data = json_file.loads(files.read(path, _MAX_BYTES))
    except FileNotFoundError:
        raise errors.InputError(
            f"{folder} is not a store: it has no {NAME}. Build it with "
            "python -m bert_jax.prepare."
        ) from None
    except (errors.InputError, ValueError) as error:
        raise errors.InputError(
            f"{path} cannot be read ({error}). Delete {folder} and build it again."
        ) from None
    return _parse(data, path)


def _parse(data: Any, path: Path) -> Manifest:
    """Returns the manifest of a JSON value."""
    known = isinstance(data, dict) and "format_version" in data
    version = data["format_version"] if known else None
    if version != FORMAT_VERSION:
        raise errors.InputError(
            f"{path} has format {version}; this version reads {FORMAT_VERSION}. "
            f"Delete {path.parent} and build it again."
        )
    try:
        return Manifest(
            format_version=version,
            options=_build(StoreOptions, data["options"]),
            tokenizer=_typed("tokenizer", str, data["tokenizer"]),
            vocab_size=_typed("vocab_size", int, data["vocab_size"]),
            sources=tuple(_source(entry) for entry in data["sources"]),
            dropped=_build(Dropped, data["dropped"]),
            shards=tuple(_shard(entry) for entry in data["shards"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise errors.InputError(
            f"{path} is damaged ({error}). Delete {path.parent} and build it again."
        ) from None


def _source(entry: dict[str, Any]) -> SourceEntry:
    """Returns the source of a JSON value."""
    files = tuple(_build(text_files.FileEntry, file) for file in entry["files"])
    return _build(SourceEntry, {**entry, "files": files})


def _shard(entry: dict[str, Any]) -> ShardEntry:
    """Returns the shard of a JSON value; its file must be in the folder."""
    shard = _build(ShardEntry, entry)
    if not _SHARD.fullmatch(shard.name) or shard.split not in SPLITS:
        raise ValueError(
            f"no shard has the name {shard.name[:80]!r} in {shard.split!r}"
        )
    return shard


def _build(kind: Any, values: dict[str, Any]) -> Any:
    """Builds a dataclass of JSON values; raises TypeError for a wrong type."""
    built = kind(**values)
    for field in dataclasses.fields(kind):
        if field.name != "files":
            _typed(field.name, field.type, getattr(built, field.name))
    return built


def _typed(name: str, kind: Any, value: Any) -> Any:
    """Returns a value after checking its type; numbers are finite and not negative."""
    is_whole = kind is float and type(value) is int
    if type(value) is not kind and not is_whole:
        raise TypeError(f"{name} is {repr(value)[:80]}")
    if kind in (int, float) and not 0 <= value < 2**63:
        raise ValueError(f"{name} is {value}")
    return value
