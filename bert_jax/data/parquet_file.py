"""Rows of a Parquet file, streamed by pyarrow, as JSON would have them.

Where the file was written by `datasets`, its schema has the names of the classes: a
number of a `ClassLabel` becomes its name, and -1, which stands for a label that the
publisher keeps, becomes None.
"""

import decimal
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax import errors, json_file

MAGIC = b"PAR1"
_BATCH_ROWS = 1024
_FEATURES = b"huggingface"  # the key of the schema's metadata


def rows(
    path: Path, columns: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of a file, numbered from 1, as values of JSON by column.

    Memory holds a batch of 1,024 rows of the columns that are asked for. Bytes that are
    not UTF-8 become lone surrogates, which `cell_values.check_unicode` finds.

    Args:
      columns: the columns to read; all of them if empty.

    Raises:
      InputError: the file is not Parquet or damaged, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            missing = [name for name in columns if name not in schema.names]
            if missing:
                raise errors.InputError(
                    f"{path} has no column {missing[0]!r}, only "
                    f"{', '.join(map(repr, schema.names))}"
                )
            _check_names(schema.names, path)
            features = _features(schema.metadata, path)
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns) or None):
                for row in _values(batch):
                    number += 1
                    yield number, named(row, features, f"{path} row {number}")
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise errors.InputError(
            f"{path} is no Parquet file that can be read ({reason}). Copy or download "
            "it again."
        ) from None


def _values(batch: Any) -> list[dict[str, Any]]:
    """Returns the rows of a batch; texts are bytes where one of them is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        columns = [column.cast(_as_bytes(column.type)) for column in batch.columns]
        return pa.RecordBatch.from_arrays(columns, batch.schema.names).to_pylist()


def _as_bytes(kind: Any) -> Any:
    """Returns a type of pyarrow with bytes instead of texts."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(_as_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_bytes(field.type)) for field in kind])
    return kind


def _check_names(names: Sequence[str], path: Path) -> None:
    """Raises InputError for a file with two columns of one name."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise errors.InputError(
            f"{path} has two columns with the name {twice[0]!r}. Rename one of them."
        )


def _features(metadata: Mapping[bytes, bytes] | None, path: Path) -> Any:
    """Returns what `datasets` wrote about the columns, {} where it did not."""
    if not metadata or _FEATURES not in metadata:
        return {}
    tree = json_file.parse(metadata[_FEATURES], f"{path}: the schema's metadata")
    for key in ("info", "features"):
        tree = tree[key] if isinstance(tree, dict) and key in tree else {}
    return tree


def named(value: Any, feature: Any, where: str) -> Any:
    """Returns a value as JSON has it, with the numbers of classes as their names.

    Args:
      feature: what `datasets` says of it: `names` of a class, `feature` of the parts of
        a list, or features by the names of the parts; {} where nothing is known.

    Raises:
      InputError: a number is of no class.
    """
    if isinstance(value, dict):
        inner = feature["feature"] if _has(feature, "feature") else feature
        return {
            name: named(part, inner[name] if _has(inner, name) else {}, where)
            for name, part in value.items()
        }
    if isinstance(value, list):
        inner: Any = feature
        inner = inner[0] if isinstance(inner, list) and inner else inner
        inner = inner["feature"] if _has(inner, "feature") else inner
        return [named(part, inner, where) for part in value]
    if _has(feature, "names") and _is_number(value, feature["names"]):
        return _class_name(int(value), feature["names"], where)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if value is None or isinstance(value, str | int | float):
        return value
    return float(value) if isinstance(value, decimal.Decimal) else str(value)


def _is_number(value: Any, names: Any) -> bool:
    """Returns whether a value is the number of a class; in a CSV file it is text."""
    if isinstance(value, str):
        is_digits = re.fullmatch(r"-?\d{1,6}", value) is not None
        return is_digits and isinstance(names, list) and value not in names
    return type(value) is int


def _has(feature: Any, key: str) -> bool:
    return isinstance(feature, dict) and key in feature


def _class_name(number: int, names: Any, where: str) -> Any:
    """Returns the name of a class, or None for -1."""
    if not isinstance(names, list):
        return number
    if number < 0:
        return None
    if number >= len(names):
        raise errors.InputError(
            f"{where} has the class {number}, and the file names {len(names)} of them. "
            "Correct the row, or the names in the schema."
        )
    return names[number]
