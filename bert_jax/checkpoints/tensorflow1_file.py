"""Google's TensorFlow 1 checkpoints, `bert_model.ckpt`, by the names of the variables.

Two kinds of files share a prefix: `.index` says where each variable is, and the
`.data-00000-of-00001` holds them. TensorFlow reads and writes them, and checks their
checksums; what the index says is held against the sizes of the files before that.
"""

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import files
from bert_jax.checkpoints import tensorflow1_index, tensors, untrusted
from bert_jax.data import quiet_tensorflow

_INDEX = ".index"
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MAX_RANK = 32


def read_tensorflow1(
    prefix: Path, wanted: Callable[[str], bool] | None = None
) -> tensors.Tensors:
    """Reads the variables of a checkpoint, all of them or those whose name is wanted.

    A checkpoint of pretraining holds the optimizer's `adam_m` and `adam_v` too, twice
    the size of the model: they are returned unless `wanted` declines them.

    Args:
      prefix: `folder/bert_model.ckpt`, its `.index` file, or a folder with one such.
      wanted: called with the name of each variable.

    Raises InputError when TensorFlow is not installed, and for whatever is missing,
    damaged, not finite, or not what it says it is.
    """
    tf = _tensorflow()
    prefix = _prefix(prefix)
    index = Path(f"{prefix}{_INDEX}")
    digests = {index.name: untrusted.sha256(index)}
    names, data = _checked_entries(tf, index, prefix)
    digests |= {file.name: untrusted.sha256(file) for file in data}
    arrays = {}
    try:
        # What tf.train.load_checkpoint returns; that would prefer a folder of the name.
        reader = tf.compat.v1.train.NewCheckpointReader(os.path.abspath(prefix))
        for name in sorted(filter(wanted, names) if wanted else names):
            arrays[name] = np.asarray(reader.get_tensor(name), order="C")
    except Exception as error:  # its own kinds, and whatever damage makes of the reader
        what = f"it is damaged ({str(error).splitlines()[0][:200]})"
        raise untrusted.refusal(prefix, what) from None
    for name, array in arrays.items():
        untrusted.check_array(prefix, name, array)
    return tensors.Tensors(arrays, digests)


def _tensorflow() -> Any:
    """Imports TensorFlow, kept off the GPUs unless it has started on them already."""
    tf = quiet_tensorflow.imported()
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf


def _prefix(path: Path) -> Path:
    """Returns the prefix that a prefix, an index or a folder with one index means."""
    if Path(f"{path}{_INDEX}").exists() or not path.is_dir():
        return Path(str(path).removesuffix(_INDEX))
    found = sorted(path.glob(f"*{_INDEX}"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise untrusted.refusal(
            path,
            f"a folder with one checkpoint is expected, and it has {names}",
            "Give the prefix, such as bert_model.ckpt",
        )
    return Path(str(found[0]).removesuffix(_INDEX))


def _checked_entries(
    tf: Any, index: Path, prefix: Path
) -> tuple[list[str], list[Path]]:
    """Returns the names and the files of data, when one fits into the other."""
    from google.protobuf import message
    from tensorflow.core.protobuf import tensor_bundle_pb2 as bundle

    entries = tensorflow1_index.read(index)
    try:
        header = bundle.BundleHeaderProto.FromString(entries.pop(""))
        found = {
            name: bundle.BundleEntryProto.FromString(value)
            for name, value in entries.items()
        }
    except message.DecodeError:
        raise untrusted.refusal(index, "it is damaged (an entry)") from None
    if _OBJECTS in found:
        raise untrusted.refusal(
            index,
            "it is a TensorFlow 2 checkpoint of objects, without names of variables",
            "Save it by name with tf.compat.v1.train.Saver",
        )
    count = len(found)
    if not 1 <= header.num_shards <= count:
        raise untrusted.refusal(index, f"it names {header.num_shards:,} files of data")
    data = [
        Path(f"{prefix}.data-{number:05d}-of-{header.num_shards:05d}")
        for number in range(header.num_shards)
    ]
    sizes = [untrusted.size_of(file) for file in data]
    for name, entry in found.items():
        _check_entry(tf, index, name, entry, sizes)
    if sum(entry.size for entry in found.values()) > sum(sizes):
        raise untrusted.refusal(index, "its tensors need more bytes than there are")
    return list(found), data


def _check_entry(tf: Any, index: Path, name: str, entry: Any, sizes: list[int]) -> None:
    """Raises InputError unless a variable is plain numbers within a file of data."""
    shape = [dimension.size for dimension in entry.shape.dim]
    try:
        dtype = np.dtype(tf.dtypes.as_dtype(entry.dtype).as_numpy_dtype)
    except (TypeError, KeyError):
        dtype = None
    if dtype is None or dtype not in untrusted.DTYPES.values():
        what = f"has the dtype {entry.dtype} of TensorFlow, which is not known here"
    elif entry.slices or entry.shape.unknown_rank:
        what = "is saved in slices"
    elif len(shape) > _MAX_RANK or any(size < 1 for size in shape):
        what = "has an impossible shape, or no elements"
    elif math.prod(shape) * dtype.itemsize != entry.size:
        what = f"has {entry.size:,} bytes, which is not what its shape and dtype need"
    elif not 0 <= entry.shard_id < len(sizes):
        what = "is in a file of data that is not there"
    elif not 0 <= entry.offset <= sizes[entry.shard_id] - entry.size:
        what = "reaches beyond the end of its file of data"
    else:
        return
    raise untrusted.refusal(index, f"tensor {untrusted.quoted(name)} {what}")


def write_tensorflow1(prefix: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint by name, as TensorFlow 1 does, `.index` and `.data` files.

    Raises:
      InputError: TensorFlow is not installed, there is nothing to write, or it could
        not be read again.
      StorageError: the disk refuses it.
    """
    tf = _tensorflow()
    if not arrays or "" in arrays:
        raise untrusted.refusal(prefix, "no tensors, or one without a name", "Rename")
    for name, array in arrays.items():
        untrusted.check_array(prefix, name, array)
    names = sorted(arrays)
    try:
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=os.path.abspath(prefix),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[tf.constant(arrays[name]) for name in names],
            )
    except tf.errors.OpError as error:
        raise files.refused(prefix, error.message) from None
