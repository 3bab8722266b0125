"""What every engine that fills a store shares: what is to be done, and what was done.

An engine reads the sources, tokenises them in chunks (`tokenise`), sorts documents
into splits and drops repeats here, and writes shards (`shards`). Engines differ in
where that happens, never in what comes out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from bert_jax.data.corpus import blocks, readers, tokenize
from bert_jax.data.corpus import manifest as manifests


@dataclass(frozen=True)
class Job:
    """What an engine is to do.

    Attributes:
      folder: where the shards go; the tokenizer is in it already.
      readings: the sources, none of them read yet.
      unk_id: the id of what the tokenizer does not know.
      shard_tokens: a shard of training text ends with the document that reaches it.
    """

    folder: Path
    readings: tuple[readers.Reading, ...]
    options: manifests.Options
    unk_id: int
    shard_tokens: int

    @property
    def settings(self) -> tokenize.Settings:
        """What a worker needs to know."""
        options = self.options
        return tokenize.Settings(
            self.folder, options.segmenter, options.segmenter_fallback
        )


@dataclass(frozen=True)
class Filled:
    """What an engine says of the store that it filled, for the manifest."""

    sources: tuple[manifests.SourceEntry, ...]
    dropped: manifests.Dropped
    shards: tuple[manifests.ShardEntry, ...]


Engine = Callable[[Job], Filled]


class Documents(NamedTuple):
    """Documents of one split, and the hashes that name their content."""

    block: blocks.Block
    content: UInt64[np.ndarray, " documents"]


def sort(
    result: tokenize.Tokenised, held_out_fraction: float, split: str = ""
) -> dict[str, Documents]:
    """Returns the documents of a chunk by split; where all is one split, that alone.

    `split` is that of the source of the chunk, "" where a hash decides.
    """
    block, content = result.block, result.content
    if split:
        return {split: Documents(block, content)}
    if held_out_fraction == 0:
        return {"train": Documents(block, content)}
    held_out = content < np.uint64(readers.held_out_below(held_out_fraction))
    return {
        split: Documents(block.select(chosen), content[chosen])
        for split, chosen in (("train", ~held_out), ("heldout", held_out))
    }


def splits(
    options: manifests.Options, readings: Iterable[readers.Reading] = ()
) -> tuple[str, ...]:
    """Returns the splits that `sort` gives."""
    is_fixed = any(reading.source.split == "heldout" for reading in readings)
    is_held_out = options.held_out_fraction or is_fixed
    return manifests.SPLITS if is_held_out else ("train",)


def shard_tokens(split: str, train: int) -> int:
    """Returns the tokens at which a shard of the split ends, given those of training.

    What is held out is little: in smaller shards it does not sit in memory long, and
    the peak of a build is reached early.
    """
    return train if split == "train" else train // 32 + 1


def unknown_tokens(block: blocks.Block, unk_id: int) -> int:
    """Returns how many tokens the tokenizer could only call unknown."""
    return int((block.tokens == unk_id).sum())


def source_entry(
    reading: readers.Reading, files: tuple[manifests.FileEntry, ...], documents: int
) -> manifests.SourceEntry:
    """Returns what the manifest says of a source that was read to its end."""
    source = reading.source
    return manifests.SourceEntry(
        source.recorded_kind, source.field, source.weight, files, documents
    )
