"""The tokenised corpus on disk, read: Arrow shards mapped into numpy without a copy.

A store is a folder: `manifest.json`, the tokenizer's files, and for each split
("train", "heldout") shards of one Arrow record batch with one row per document:
`sentences: list<list<uint16|uint32>>`, `word_start: list<list<bool>>` and
`source: uint16`. Nested lists are flat arrays plus offsets, which is what is used here.
`store_build` writes it.
"""

import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, Integer, UInt, UInt8, UInt16

from bert_jax import errors, files
from bert_jax.data.corpus import manifest as manifests

_COLUMNS = ("sentences", "word_start", "source")
_TOKENS = [pa.list_(pa.list_(kind())) for kind in (pa.uint16, pa.uint32)]
_TYPES = [pa.list_(pa.list_(pa.bool_())), pa.uint16()]


@dataclass(frozen=True, eq=False)
class Shard:
    """The documents of one Arrow file as flat arrays that live in the file.

    Sentence s holds tokens[sentence_offsets[s]:sentence_offsets[s + 1]]; document d
    holds sentences document_offsets[d] up to document_offsets[d + 1].
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
        """Says of positions in `tokens` whether a word starts there."""
        octets = self.word_start_bits[positions >> 3]
        return (octets >> (positions & 7).astype(np.uint8)) & 1 != 0


@dataclass(frozen=True, eq=False)
class Store:
    """One split of a store, open for reading."""

    folder: Path
    split: str
    manifest: manifests.Manifest
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
    """Opens one split of a finished store, after checking the bytes of its shards.

    Raises InputError when the folder is no store, the split is empty or unknown, and
    StorageError naming the shard that is missing or whose sha256 is not the manifest's.
    """
    if split not in manifests.SPLITS:
        raise errors.InputError(f"split {split!r} is none of {manifests.SPLITS}.")
    manifest = manifests.read(folder)
    entries = manifest.of_split(split)
    if not entries:
        raise errors.InputError(
            f"the store {folder} has no {split} documents: of "
            f"{manifest.total('documents')} documents the fraction held out was "
            f"{manifest.options.held_out_fraction}. Change the fraction or add text."
        )
    if verify:
        _verify(folder, entries)
    shards = tuple(_map_shard(folder, entry) for entry in entries)
    for shard, entry in zip(shards, entries, strict=True):
        if reason := _problem(shard, entry, manifest, looks_at_tokens=verify):
            raise _damaged(folder / shard.name, reason)
    return Store(folder=folder, split=split, manifest=manifest, shards=shards)


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal, about a second per gigabyte."""
    return files.sha256(path)


def _verify(folder: Path, entries: Sequence[manifests.ShardEntry]) -> None:
    """Raises StorageError when a shard's bytes are not those that were written."""
    for entry in entries:
        path = folder / entry.name
        _check_size(path, entry)
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise _damaged(path, str(error)) from None
        if digest != entry.sha256:
            raise _damaged(path, "its sha256 is not the one in the manifest")


def _check_size(path: Path, entry: manifests.ShardEntry) -> None:
    """Raises StorageError unless a shard is a file of the size it had."""
    try:
        status = path.stat()
    except OSError as error:
        raise _damaged(path, str(error)) from None
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.bytes:
        raise _damaged(path, f"it has {status.st_size:,} bytes, not {entry.bytes:,}")


def _map_shard(folder: Path, entry: manifests.ShardEntry) -> Shard:
    """Maps one Arrow file and takes its flat arrays out."""
    path = folder / entry.name
    try:
        batch = _batch(path)
        sentences, starts, sources = (batch.column(i) for i in range(3))
        bits = starts.values.values.buffers()[1]
        return Shard(
            name=entry.name,
            tokens=sentences.values.values.to_numpy(),
            sentence_offsets=sentences.values.offsets.to_numpy(),
            document_offsets=sentences.offsets.to_numpy(),
            sources=sources.to_numpy(),
            word_start_bits=np.frombuffer(bits, np.uint8),
        )
    except (OSError, EOFError, pa.ArrowException, ValueError, struct.error) as error:
        raise _damaged(path, " ".join(str(error).split())[:200]) from None


def _problem(
    shard: Shard,
    entry: manifests.ShardEntry,
    manifest: manifests.Manifest,
    *,
    looks_at_tokens: bool,
) -> str | None:
    """Says what is wrong with the content of a shard; ids are looked at on request."""
    counts = (shard.num_documents, shard.num_sentences, shard.num_tokens)
    if counts != (entry.documents, entry.sentences, entry.tokens):
        return "it holds other counts than the manifest"
    if not all(counts):
        return "it holds nothing"
    for offsets, end in (
        (shard.sentence_offsets, shard.num_tokens),
        (shard.document_offsets, shard.num_sentences),
    ):
        if offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) <= 0).any():
            return "its documents and sentences do not follow one another"
    if shard.sources.max() >= len(manifest.sources):
        return f"it has source {shard.sources.max()} of {len(manifest.sources)}"
    if looks_at_tokens and shard.tokens.max() >= manifest.vocab_size:
        pieces = f"the vocabulary has {manifest.vocab_size} pieces"
        return f"it has the id {shard.tokens.max()}, and {pieces}"
    return None


def _batch(path: Path) -> pa.RecordBatch:
    """Returns the one batch of an Arrow file, in the file, as the store has it.

    Buffers are inside the file, and each token has its mark: numpy would believe any
    length. What offsets say is looked at in `_problem`. Raises ValueError, or what
    Arrow raises.
    """
    file = pa.memory_map(str(path))
    file.seek(len(b"ARROW1\0\0"))
    schema = pa.ipc.read_schema(file)
    names, types = (tuple(schema.names), schema.types)
    if names != _COLUMNS or types[1:] != _TYPES or types[0] not in _TOKENS:
        found = ", ".join(f"{x.name} of {x.type}" for x in schema)
        raise ValueError(f"it has other columns than a store: {found}")
    message = pa.ipc.read_message(file)
    if _is_packed(message.metadata.to_pybytes()):
        raise ValueError("it is compressed, as no shard is")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    sentences, starts, _ = batch.columns
    for column in (sentences, starts):
        parts = (column, column.values, column.values.values)
        if any(part.null_count for part in parts):
            raise ValueError("it has empty places")
    if not (
        sentences.offsets.equals(starts.offsets)
        and sentences.values.offsets.equals(starts.values.offsets)
        and len(starts.values.values) == len(sentences.values.values)
    ):
        raise ValueError("it has not one mark of words for each token")
    return batch


def _is_packed(message: bytes) -> bool:
    """Says whether the buffers of a message of Arrow's are compressed.

    A message is a flatbuffer, whose field 2 is a RecordBatch, whose field 3 says so.
    """

    def field(table: int, number: int) -> int:
        fields = table - struct.unpack_from("<i", message, table)[0]
        (size,) = struct.unpack_from("<H", message, fields)
        place = 4 + 2 * number
        if place >= size:
            return 0
        (offset,) = struct.unpack_from("<H", message, fields + place)
        return table + offset if offset else 0

    (root,) = struct.unpack_from("<I", message)
    header = field(root, 2)
    header += struct.unpack_from("<I", message, header)[0]
    return field(header, 3) != 0


def _damaged(path: Path, reason: str) -> errors.StorageError:
    """Returns the error for a shard that cannot be trusted."""
    return errors.StorageError(
        f"{path} is damaged: {reason}. Delete {path.parent} and build the store again."
    )
