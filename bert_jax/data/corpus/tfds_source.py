"""Text datasets of TensorFlow Datasets by name: `tfds:wikipedia/20230601.zh`.

The split is `train` unless the name ends in another, as in `tfds:lm1b[test]`.
TensorFlow is imported inside, and never given a GPU.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bert_jax import errors
from bert_jax.data import lines, quiet_tensorflow
from bert_jax.data.corpus import manifest as manifests
from bert_jax.data.corpus import sources


@dataclass(frozen=True)
class Dataset:
    """One split of a prepared dataset; `entry` stands for its files."""

    source: sources.Source
    builder: Any
    split: str
    num_examples: int
    entry: manifests.FileEntry

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields every record as numpy values, in a fixed order."""
        return _examples(self.builder, self.split)

    def texts(self, tally: lines.Tally) -> Iterator[tuple[str, str]]:
        """Yields where each record is and its text, in a fixed order."""
        for number, example in enumerate(self.records()):
            where = f"tfds:{self.source.where} record {number}"
            yield where, _text(example, self.source.field, where)
            tally.bytes_read = self.entry.bytes * (number + 1) // self.num_examples
        tally.files.append(self.entry)


def open_dataset(source: sources.Source) -> Dataset:
    """Finds a dataset on this machine, or downloads and prepares it.

    Raises InputError when TFDS is not installed or the dataset cannot be had.
    """
    tfds = _import_tfds()
    match = re.fullmatch(r"(.*?)(?:\[(.*)\])?", source.where)
    assert match is not None
    name, split = match[1], match[2] or "train"
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
        info = builder.info.splits[split]
    except ImportError as error:
        raise errors.InputError(
            f"the dataset tfds:{source.where} needs {error.name}, which is not "
            f"installed. Install it: pip install {error.name}"
        ) from None
    except Exception as error:  # TFDS and its network raise whatever they like.
        raise errors.InputError(
            f"the dataset tfds:{source.where} cannot be had: {_first_line(error)}. "
            "Check its name and split, and the network; or prepare it elsewhere "
            "(tfds build) and set TFDS_DATA_DIR to its folder."
        ) from None
    about = [builder.info.full_name, split, info.num_bytes, list(info.shard_lengths)]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    full_name = f"{builder.info.full_name}[{split}]"
    entry = manifests.FileEntry(full_name, info.num_bytes, digest)
    return Dataset(source, builder, split, info.num_examples, entry)


def _import_tfds() -> Any:
    """Imports TFDS, and TensorFlow without GPUs."""
    quiet_tensorflow.load()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        missing = error.name or "tensorflow_datasets"
        raise errors.missing_extra(missing, "data") from None
    return tfds


def _examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yields the records of a split as numpy values, in the same order always."""
    import tensorflow_datasets as tfds

    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        yield from builder.as_data_source(split)
        return
    yield from tfds.as_numpy(builder.as_dataset(split, shuffle_files=False))


def _text(example: dict[str, Any], field: str, where: str) -> str:
    """Returns the text of a record."""
    value = example[field] if field in example else None
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise errors.InputError(
            f"{where} has no text {field!r}, only {sorted(example)}. Name the feature "
            "with the text in the source, as in tfds:name#feature."
        )
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.InputError(
            f"{where}: byte {error.start} of {field!r} is not UTF-8. "
            "Prepare the dataset again."
        ) from None


def _first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
