"""Records of labelled data sets of TensorFlow Datasets: `tfds:glue/sst2[validation]`.

Classes get their names, texts are decoded, and a class of -1, which TFDS writes where a
publisher keeps the labels to himself, is no label.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data.corpus import sources, tfds_source
from bert_jax.data.labeled import table_records


def records(path: str) -> Iterator[table_records.Record]:
    """Yields the records of a split; the split is `train` unless it is named.

    Raises InputError when the data set cannot be had, or a text of it is not UTF-8.
    """
    dataset = tfds_source.open_dataset(sources.parse_source(path))
    features = dataset.builder.info.features
    for number, example in enumerate(dataset.records()):
        where = f"{path} record {number}"
        cells = {
            name: _plain(value, features[name], f"{where}: {name!r}")
            for name, value in example.items()
        }
        yield table_records.Record(where, cells)


def _plain(value: Any, feature: Any, where: str) -> Any:
    """Returns a value as JSON would have it."""
    if isinstance(value, Mapping):
        inner = feature.feature if hasattr(feature, "feature") else feature
        return {name: _plain(value[name], inner[name], where) for name in value}
    if isinstance(value, bytes):
        return _decoded(value, where)
    if isinstance(value, np.ndarray | list | tuple):
        inner = feature.feature if hasattr(feature, "feature") else feature
        return [_plain(each, inner, where) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return _decoded(value, where)
    if hasattr(feature, "int2str") and isinstance(value, int):
        return None if value < 0 else feature.int2str(value)
    return value


def _decoded(value: bytes, where: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.InputError(
            f"{where}: byte {error.start} is not UTF-8. Prepare the data set again."
        ) from None
