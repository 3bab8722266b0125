"""Stores whose bytes are as their manifest says, and whose content is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_jax.data.corpus import store

Columns = dict[str, np.ndarray]


def columns(path: Path) -> Columns:
    """Returns the flat arrays of a shard, which may be changed."""
    batch = pa.ipc.open_file(path).get_batch(0)
    sentences, starts, sources = (batch.column(i) for i in range(3))
    return {
        "tokens": sentences.values.values.to_numpy().copy(),
        "sentence_offsets": sentences.values.offsets.to_numpy().copy(),
        "document_offsets": sentences.offsets.to_numpy().copy(),
        "word_start": np.array(starts.values.values.to_pylist(), bool),
        "sources": sources.to_numpy().copy(),
    }


def write(path: Path, made: Columns) -> None:
    """Writes a shard, and its sum and counts into the manifest beside it.

    Arrays that do not fit are written as they are.
    """

    def nested(values: pa.Array, offsets: str = "sentence_offsets") -> pa.ListArray:
        inner = pa.ListArray.from_arrays(pa.array(made[offsets]), values)
        return pa.ListArray.from_arrays(pa.array(made["document_offsets"]), inner)

    starts = "word_offsets" if "word_offsets" in made else "sentence_offsets"
    arrays = [
        nested(pa.array(made["tokens"])),
        nested(pa.array(made["word_start"]), starts),
        pa.array(made["sources"]),
    ]
    batch = pa.record_batch(arrays, names=["sentences", "word_start", "source"])
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
    manifest = path.parent / "manifest.json"
    tree = json.loads(manifest.read_text())
    (entry,) = (x for x in tree["shards"] if x["name"] == path.name)
    entry["sha256"] = store.file_sha256(path)
    entry["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(tree))


def shard(edit: Callable[[Columns], object]) -> Callable[[Path], object]:
    """Returns what changes the arrays of a shard."""

    def forge(path: Path) -> None:
        made = columns(path)
        edit(made)
        write(path, made)

    return forge


def manifest(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Returns what changes a JSON object in a file."""

    def forge(path: Path) -> None:
        tree = json.loads(path.read_text())
        edit(tree)
        path.write_text(json.dumps(tree))

    return forge
