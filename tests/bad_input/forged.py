"""Stores whose checksums agree with the manifest, and whose content is invalid."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_jax.data.corpus import store

Columns = dict[str, np.ndarray]


def columns(path: Path) -> Columns:
    """Returns the flat arrays of a shard, writable."""
    batch = pa.ipc.open_file(path).get_batch(0)
    sentences, starts, sources = (batch.column(i) for i in range(3))
    return {
        "tokens": sentences.values.values.to_numpy().copy(),
        "sentence_offsets": sentences.values.offsets.to_numpy().copy(),
        "document_offsets": sentences.offsets.to_numpy().copy(),
        "word_start": np.array(starts.values.values.to_pylist(), bool),
        "sources": sources.to_numpy().copy(),
    }


def write(path: Path, arrays: Columns) -> None:
    """Writes a shard, and its checksum and size into its manifest.

    Inconsistent arrays are written unchanged.
    """

    def nested(values: pa.Array, offsets: str = "sentence_offsets") -> pa.ListArray:
        inner = pa.ListArray.from_arrays(pa.array(arrays[offsets]), values)
        return pa.ListArray.from_arrays(pa.array(arrays["document_offsets"]), inner)

    starts = "word_offsets" if "word_offsets" in arrays else "sentence_offsets"
    nested_arrays = [
        nested(pa.array(arrays["tokens"])),
        nested(pa.array(arrays["word_start"]), starts),
        pa.array(arrays["sources"]),
    ]
    batch = pa.record_batch(nested_arrays, names=["sentences", "word_start", "source"])
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
    manifest = path.parent / "manifest.json"
    tree = json.loads(manifest.read_text())
    (entry,) = (x for x in tree["shards"] if x["name"] == path.name)
    entry["sha256"] = store.file_sha256(path)
    entry["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(tree))


def shard(edit: Callable[[Columns], object]) -> Callable[[Path], object]:
    """Returns a function that edits the arrays of a shard."""

    def forge(path: Path) -> None:
        arrays = columns(path)
        edit(arrays)
        write(path, arrays)

    return forge


def manifest(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Returns a function that edits the JSON object of a file."""

    def forge(path: Path) -> None:
        tree = json.loads(path.read_text())
        edit(tree)
        path.write_text(json.dumps(tree))

    return forge
