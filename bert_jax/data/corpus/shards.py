"""The tokenised corpus on disk, written: blocks of documents become Arrow files.

Bytes on disk depend on the documents and `shard_tokens` alone, not on how they came.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from bert_jax import faults
from bert_jax.data.corpus import blocks, store
from bert_jax.data.corpus import manifest as manifests

# 16 MiB of uint16 tokens: few files for a large corpus, little memory for a build.
SHARD_TOKENS = 1 << 23


class Cutter:
    """Says where the shards of one split end, among documents that come in order."""

    def __init__(self, shard_tokens: int) -> None:
        self._shard_tokens, self._tokens = shard_tokens, 0

    def ends(self, document_tokens: Int64[np.ndarray, " documents"]) -> list[int]:
        """Returns after how many of the next documents a shard ends, every time.

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
    """Writes the shards of one split; holds at most one shard in memory."""

    def __init__(self, folder: Path, split: str, shard_tokens: int) -> None:
        self.entries: list[manifests.ShardEntry] = []
        self._folder, self._split = folder, split
        self._cutter = Cutter(shard_tokens)
        self._pending: list[blocks.Block] = []

    def append(self, block: blocks.Block) -> None:
        """Adds documents; a shard ends with the document that fills it."""
        done = 0
        for end in self._cutter.ends(block.document_tokens()):
            head, block = block.cut(end - done)
            self._pending.append(head)
            self._flush()
            done = end
        if len(block.document_lengths):
            self._pending.append(block)

    def close(self) -> list[manifests.ShardEntry]:
        """Writes what is left and returns the entries of all shards."""
        if self._pending:
            self._flush()
        return self.entries

    def _flush(self) -> None:
        block = blocks.concatenate(self._pending)
        self._pending = []
        index = len(self.entries)
        self.entries.append(write_shard(self._folder, self._split, index, block))


def write_shard(
    folder: Path, split: str, index: int, block: blocks.Block
) -> manifests.ShardEntry:
    """Writes the shard of a split that has this index, and returns its entry."""
    path = folder / f"{split}-{index:05d}.arrow"
    _write(path, _record_batch(block))
    faults.point("store/shard")
    return manifests.ShardEntry(
        name=path.name,
        split=split,
        documents=len(block.document_lengths),
        sentences=len(block.sentence_lengths),
        tokens=len(block.tokens),
        bytes=path.stat().st_size,
        sha256=store.file_sha256(path),
    )


def _record_batch(block: blocks.Block) -> pa.RecordBatch:
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


def _write(path: Path, batch: pa.RecordBatch) -> None:
    """Writes one record batch as an Arrow file and waits until it is on the disk."""
    with open(path, "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())


def write_manifest(folder: Path, manifest: manifests.Manifest) -> None:
    """Writes `manifest.json`, which makes a folder of shards a finished store."""
    with open(folder / manifests.NAME, "w", encoding="utf-8") as file:
        file.write(manifests.to_json(manifest))
        file.flush()
        os.fsync(file.fileno())


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
) -> manifests.Manifest:
    """Writes a store of documents that are already ids, for tests and experiments.

    Args:
      documents: the ids of every sentence of every document; none is empty.
      word_starts: of the same shape, 0 or 1; every token starts a word when left out.
      sources: the source of every document, an index into weights; 0 when left out.
    """
    folder.mkdir(parents=True)
    writer = SplitWriter(folder, split, shard_tokens)
    flat = [token for document in documents for s in document for token in s]
    starts = [
        start for document in word_starts or () for s in document for start in s
    ] or [True] * len(flat)
    writer.append(
        blocks.Block(
            tokens=np.array(flat, blocks.token_dtype(vocab_size)),
            word_starts=np.array(starts, bool),
            sentence_lengths=np.array([len(s) for d in documents for s in d], np.int64),
            document_lengths=np.array([len(d) for d in documents], np.int64),
            sources=np.array(sources or [0] * len(documents), np.uint16),
        )
    )
    manifest = manifests.Manifest(
        format_version=manifests.FORMAT_VERSION,
        tokenizer="",
        vocab_size=vocab_size,
        options=manifests.Options(0.0, False, "none", "none"),
        sources=tuple(manifests.SourceEntry("ids", "", w, (), 0) for w in weights),
        dropped=manifests.Dropped(),
        shards=tuple(writer.close()),
    )
    write_manifest(folder, manifest)
    return manifest
