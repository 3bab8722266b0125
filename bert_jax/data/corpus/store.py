"""The tokenized corpus on disk: Arrow shards mapped into numpy without a copy.

A store is a folder: `manifest.json`, the tokenizer's files, and for each split
("train", "heldout") shards of one Arrow record batch with one row per document:
`sentences: list<list<uint16|uint32>>`, `word_start: list<list<bool>>` and
`source: uint16`. Nested lists are flat arrays plus offsets, which are used directly.

The bytes on disk depend only on the documents and the shard size, not on the build: the
manifest, which is written last, has no time and no absolute path. The sha256 of every
shard in it detects damage.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, Int64, Integer, UInt, UInt8, UInt16

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.foundation import faults, files, json_file

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_SHARD = re.compile(r"[\w-][\w.-]*", re.ASCII)  # a name in the folder
SPLITS = ("train", "heldout")


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


def read_manifest(folder: Path) -> Manifest:
    """Reads a store's manifest.

    Raises InputError if the folder is not a finished store or has another format.
    """
    path = folder / MANIFEST
    try:
        data = json_file.loads(path.read_bytes())
    except FileNotFoundError:
        raise errors.InputError(
            f"{folder} is not a store: it has no {MANIFEST}. Build it with "
            "python -m bert_jax.prepare."
        ) from None
    except (OSError, ValueError) as error:
        raise errors.InputError(
            f"{path} cannot be read ({error}). Delete {folder} and build it again."
        ) from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise errors.InputError(
            f"{path} has format {version}; this version reads {FORMAT_VERSION}. "
            f"Delete {folder} and build it again."
        )
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError) as error:
        raise errors.InputError(
            f"{path} is damaged ({error}). Delete {folder} and build it again."
        ) from None


def _parse(data: dict[str, Any]) -> Manifest:
    """Returns the manifest of a JSON object; raises ValueError and the like."""
    return Manifest(
        format_version=data["format_version"],
        options=_build(StoreOptions, data["options"]),
        tokenizer=_typed("tokenizer", str, data["tokenizer"]),
        vocab_size=_typed("vocab_size", int, data["vocab_size"]),
        sources=tuple(_source(entry) for entry in data["sources"]),
        dropped=_build(Dropped, data["dropped"]),
        shards=tuple(_shard(entry) for entry in data["shards"]),
    )


def _source(entry: dict[str, Any]) -> SourceEntry:
    """Returns the source of a JSON value."""
    read = tuple(_build(text_files.FileEntry, file) for file in entry["files"])
    return _build(SourceEntry, {**entry, "files": read})


def _shard(entry: dict[str, Any]) -> ShardEntry:
    """Returns the shard of a JSON value; its file must be in the folder."""
    shard: ShardEntry = _build(ShardEntry, entry)
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


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, which turns a folder of shards into a finished store."""
    tree = dataclasses.asdict(manifest)
    text = json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Shard:
    """The documents of one Arrow file as flat, memory-mapped arrays.

    Sentence s is tokens[sentence_offsets[s]:sentence_offsets[s + 1]]; document d has
    sentences document_offsets[d] up to document_offsets[d + 1].
    """

    name: str
    tokens: UInt[np.ndarray, " tokens"]
    sentence_offsets: Int[np.ndarray, " sentence_offsets"]
    document_offsets: Int[np.ndarray, " document_offsets"]
    sources: UInt16[np.ndarray, " documents"]
    word_start_bits: UInt8[np.ndarray, " bytes"]

    @property
    def num_documents(self) -> int:
        """The number of documents."""
        return len(self.document_offsets) - 1

    @property
    def num_sentences(self) -> int:
        """The number of sentences."""
        return len(self.sentence_offsets) - 1

    @property
    def num_tokens(self) -> int:
        """The number of tokens."""
        return len(self.tokens)

    def word_start(
        self, positions: Integer[np.ndarray, "..."]
    ) -> Bool[np.ndarray, "..."]:
        """Returns whether a word starts at these positions in `tokens`."""
        octets = self.word_start_bits[positions >> 3]
        return (octets >> (positions & 7).astype(np.uint8)) & 1 != 0


@dataclass(frozen=True, eq=False)
class Store:
    """One split of a store, open for reading."""

    folder: Path
    split: str
    manifest: Manifest
    shards: tuple[Shard, ...]

    @property
    def num_documents(self) -> int:
        """The number of documents in the split."""
        return self.manifest.total("documents", self.split)

    @property
    def num_sentences(self) -> int:
        """The number of sentences in the split."""
        return self.manifest.total("sentences", self.split)

    @property
    def num_tokens(self) -> int:
        """The number of tokens in the split."""
        return self.manifest.total("tokens", self.split)

    @property
    def source_weights(self) -> tuple[float, ...]:
        """The weight of every source; `Shard.sources` are indices into it."""
        return tuple(source.weight for source in self.manifest.sources)


def open_store(folder: Path, split: str = "train", *, verify: bool = True) -> Store:
    """Opens one split of a finished store after verifying its shards.

    Raises InputError if the folder is not a store or the split is empty or unknown, and
    StorageError for a shard that is missing or whose sha256 is not the manifest's.
    """
    if split not in SPLITS:
        raise errors.InputError(
            f"there is no split {split!r}. Use one of {', '.join(SPLITS)}."
        )
    manifest = read_manifest(folder)
    entries = manifest.of_split(split)
    if not entries:
        raise errors.InputError(
            f"the store {folder} has no {split} documents: "
            f"data.held_out_fraction is {manifest.options.held_out_fraction} of "
            f"{manifest.total('documents')} documents. Change it or add text."
        )
    shards = []
    for entry in entries:
        if verify:
            _verify(folder / entry.name, entry)
        shard = _map_shard(folder / entry.name)
        if reason := _problem(shard, entry, manifest, looks_at_tokens=verify):
            raise _damaged(folder / entry.name, reason)
        shards.append(shard)
    return Store(folder=folder, split=split, manifest=manifest, shards=tuple(shards))


def _verify(path: Path, entry: ShardEntry) -> None:
    """Raises StorageError if the bytes of a shard have changed."""
    try:
        size = path.stat().st_size
        digest = files.sha256(path) if size == entry.bytes else ""
    except OSError as error:
        raise _damaged(path, str(error)) from None
    if size != entry.bytes:
        raise _damaged(path, f"it has {size:,} bytes, not {entry.bytes:,}")
    if digest != entry.sha256:
        raise _damaged(path, "its sha256 is not the one in the manifest")


def _map_shard(path: Path) -> Shard:
    """Memory-maps one Arrow file and returns its flat arrays."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from None
    sentences, starts, sources = batch.columns
    return Shard(
        name=path.name,
        tokens=sentences.values.values.to_numpy(),
        sentence_offsets=sentences.values.offsets.to_numpy(),
        document_offsets=sentences.offsets.to_numpy(),
        sources=sources.to_numpy(),
        word_start_bits=np.frombuffer(starts.values.values.buffers()[1], np.uint8),
    )


def _problem(
    shard: Shard,
    entry: ShardEntry,
    manifest: Manifest,
    *,
    looks_at_tokens: bool,
) -> str | None:
    """Returns what is wrong with the content of a shard; ids are checked on request."""
    counts = (shard.num_documents, shard.num_sentences, shard.num_tokens)
    if counts != (entry.documents, entry.sentences, entry.tokens):
        return "its counts differ from the manifest's"
    if not all(counts):
        return "it is empty"
    for offsets, end in (
        (shard.sentence_offsets, shard.num_tokens),
        (shard.document_offsets, shard.num_sentences),
    ):
        if offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) <= 0).any():
            return "its documents and sentences are not consecutive"
    if shard.sources.max() >= len(manifest.sources):
        return f"it has source {shard.sources.max()} of {len(manifest.sources)}"
    if looks_at_tokens and shard.tokens.max() >= manifest.vocab_size:
        size = f"the vocabulary has {manifest.vocab_size} tokens"
        return f"it has the id {shard.tokens.max()}, but {size}"
    return None


def _damaged(path: Path, reason: str) -> errors.StorageError:
    """Returns the error for a damaged shard."""
    return errors.StorageError(
        f"{path} is damaged: {reason}. Delete {path.parent} and build the store again."
    )


@dataclass(frozen=True, eq=False)
class Block:
    """Documents as flat arrays; lengths count tokens and sentences."""

    tokens: UInt[np.ndarray, " tokens"]
    word_starts: Bool[np.ndarray, " tokens"]
    sentence_lengths: Int64[np.ndarray, " sentences"]
    document_lengths: Int64[np.ndarray, " documents"]
    sources: UInt16[np.ndarray, " documents"]

    def document_tokens(self) -> Int64[np.ndarray, " documents"]:
        """Returns the number of tokens of every document."""
        ends = np.cumsum(self.sentence_lengths)[np.cumsum(self.document_lengths) - 1]
        return np.diff(ends, prepend=0)

    def select(self, documents: Bool[np.ndarray, " documents"]) -> "Block":
        """Returns the block of the documents for which the mask is true."""
        if documents.all():
            return self
        tokens = np.repeat(documents, self.document_tokens())
        return Block(
            tokens=self.tokens[tokens],
            word_starts=self.word_starts[tokens],
            sentence_lengths=self.sentence_lengths[
                np.repeat(documents, self.document_lengths)
            ],
            document_lengths=self.document_lengths[documents],
            sources=self.sources[documents],
        )

    def cut(self, documents: int) -> tuple["Block", "Block"]:
        """Returns the first documents and the others."""
        sentences = int(self.document_lengths[:documents].sum())
        tokens = int(self.sentence_lengths[:sentences].sum())
        at = (tokens, tokens, sentences, documents, documents)
        parts = [np.split(a, [i]) for a, i in zip(self._arrays(), at, strict=True)]
        return Block(*(p[0] for p in parts)), Block(*(p[1] for p in parts))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return tuple(getattr(self, x.name) for x in dataclasses.fields(self))


def concatenate(blocks: Sequence[Block]) -> Block:
    """Returns the documents of several blocks as one."""
    return Block(*map(np.concatenate, zip(*(b._arrays() for b in blocks), strict=True)))


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the smallest integer type of the store that fits every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


# 16 MiB of uint16 tokens: few files for a large corpus, little memory for a build.
SHARD_TOKENS = 1 << 23


class Cutter:
    """Finds the ends of the shards of one split in a sequence of documents."""

    def __init__(self, shard_tokens: int) -> None:
        self._shard_tokens, self._tokens = shard_tokens, 0

    def ends(self, document_tokens: Int64[np.ndarray, " documents"]) -> list[int]:
        """Returns the numbers of the next documents after which a shard ends.

        A shard ends with the document that fills it:

        >>> cutter = Cutter(10)
        >>> cutter.ends(np.array([4, 7, 25, 3]))
        [2, 3]
        >>> cutter.ends(np.array([6, 1, 5]))
        [2]
        """
        if not len(document_tokens):
            return []
        upto = np.cumsum(document_tokens) + self._tokens
        found, done = [], 0
        while (at := int(np.searchsorted(upto, done + self._shard_tokens))) < len(upto):
            found.append(at + 1)
            done = int(upto[at])
        self._tokens = int(upto[-1]) - done
        return found


class SplitWriter:
    """Writes the shards of one split, with at most one in memory."""

    def __init__(self, folder: Path, split: str, shard_tokens: int) -> None:
        self.entries: list[ShardEntry] = []
        self._folder, self._split = folder, split
        self._cutter = Cutter(shard_tokens)
        self._pending: list[Block] = []

    def append(self, block: Block) -> None:
        """Adds documents; a shard ends with the document that fills it."""
        done = 0
        for end in self._cutter.ends(block.document_tokens()):
            head, block = block.cut(end - done)
            self._pending.append(head)
            self._flush()
            done = end
        if len(block.document_lengths):
            self._pending.append(block)

    def close(self) -> list[ShardEntry]:
        """Writes the last shard and returns the entries of all."""
        if self._pending:
            self._flush()
        return self.entries

    def _flush(self) -> None:
        block = concatenate(self._pending)
        self._pending = []
        index = len(self.entries)
        self.entries.append(write_shard(self._folder, self._split, index, block))


def write_shard(folder: Path, split: str, index: int, block: Block) -> ShardEntry:
    """Writes the shard of a split that has this index, and returns its entry."""
    path = folder / f"{split}-{index:05d}.arrow"
    batch = _record_batch(block)
    with path.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    faults.point("store/shard")
    return ShardEntry(
        name=path.name,
        split=split,
        documents=len(block.document_lengths),
        sentences=len(block.sentence_lengths),
        tokens=len(block.tokens),
        bytes=path.stat().st_size,
        sha256=files.sha256(path),
    )


def _record_batch(block: Block) -> pa.RecordBatch:
    """Returns the block in the schema of the store."""
    sentence_offsets = _offsets(block.sentence_lengths)
    document_offsets = _offsets(block.document_lengths)

    def nested(values: pa.Array) -> pa.ListArray:
        sentences = pa.ListArray.from_arrays(sentence_offsets, values)
        return pa.ListArray.from_arrays(document_offsets, sentences)

    bits = pa.py_buffer(np.packbits(block.word_starts, bitorder="little"))
    starts = pa.Array.from_buffers(pa.bool_(), len(block.tokens), [None, bits])
    columns = [nested(pa.array(block.tokens)), nested(starts), pa.array(block.sources)]
    return pa.record_batch(columns, names=["sentences", "word_start", "source"])


def _offsets(lengths: Int64[np.ndarray, " n"]) -> pa.Array:
    """Returns Arrow's list offsets for the lengths."""
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def write_ids(
    folder: Path,
    documents: Sequence[Sequence[Sequence[int]]],
    *,
    vocab_size: int,
    word_starts: Sequence[Sequence[Sequence[int]]] | None = None,
    sources: Sequence[int] | None = None,
    weights: Sequence[float] = (1.0,),
    split: str = "train",
    shard_tokens: int = SHARD_TOKENS,
) -> Manifest:
    """Writes a store of documents given as ids, for tests and experiments.

    Args:
      documents: the ids of every sentence of every document, none of them empty.
      word_starts: 0 or 1 in the same shape; by default every token starts a word.
      sources: the source of every document, an index into weights; 0 by default.
    """
    folder.mkdir(parents=True)
    writer = SplitWriter(folder, split, shard_tokens)
    flat = [token for document in documents for s in document for token in s]
    starts = [
        start for document in word_starts or () for s in document for start in s
    ] or [True] * len(flat)
    writer.append(
        Block(
            tokens=np.array(flat, token_dtype(vocab_size)),
            word_starts=np.array(starts, bool),
            sentence_lengths=np.array([len(s) for d in documents for s in d], np.int64),
            document_lengths=np.array([len(d) for d in documents], np.int64),
            sources=np.array(sources or [0] * len(documents), np.uint16),
        )
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        tokenizer="",
        vocab_size=vocab_size,
        options=StoreOptions(0.0, False, "none", "none"),
        sources=tuple(SourceEntry("ids", "", w, (), 0) for w in weights),
        dropped=Dropped(),
        shards=tuple(writer.close()),
    )
    write_manifest(folder, manifest)
    return manifest
