"""Google's checkpoints of TensorFlow 1: bert_model.ckpt with bert_config.json.

The names are those of google-research/bert, `modeling.py`, `run_pretraining.py`,
`run_classifier.py` and `run_squad.py`. Taggers and multiple choice take the names of
the classifier; keys of bert_config.json that Google's code ignores define which it is.
"""

import contextlib
import dataclasses
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import console, errors
from bert_jax.checkpoints import hf_config, mapping, tensors, weights
from bert_jax.foundation import files, json_file
from bert_jax.model import config
from bert_jax.model import heads as model_heads

CONFIG, CHECKPOINT = "bert_config.json", "bert_model.ckpt"
_INDEX = ".index"
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MAX_RANK = 32

# The LevelDB table in an `.index`.
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # a byte for the compression and a checksum, after each block
_MAX_INDEX = 1 << 24  # bytes; BERT-large with its optimizer needs 100 kB
_MAX_KEY = 1000

# What optimizers keep for each parameter, and counters of training.
_NOT_PARAMETERS = frozenset(
    {
        *("adam_m", "adam_v", "Adam", "Adam_1", "LAMB", "LAMB_1"),
        *("ExponentialMovingAverage", "global_step", "beta1_power", "beta2_power"),
        *("good_steps", "bad_steps", "loss_scale", "current_loss_scale"),
    }
)
# A tensor that only a part has; classifiers share `output_weights`.
_TENSORS = {
    "pooler": "bert/pooler/dense/kernel",
    "mlm_head": "cls/predictions/output_bias",
    **{
        part: f"{kind.google}_weights"
        for part, kind in model_heads.KINDS.items()
        if kind.google and part not in mapping.CLASSIFIERS
    },
}


def read(
    path: Path, choice: weights.Choice = weights.WHOLE
) -> tuple[weights.Weights, weights.Report]:
    """Reads the one checkpoint of a folder, or that of a prefix, and bert_config.json.

    Raises:
      InputError: as `weights.assemble`, or the files are not whole.
    """
    folder = path if path.is_dir() else path.parent
    described, tree = read_config(folder)
    raw = read_variables(
        path, wanted=lambda name: name.rpartition("/")[2] not in _NOT_PARAMETERS
    )
    found = weights.Found(raw.arrays, str(folder), raw.files)
    return weights.assemble(
        found,
        described,
        mapping.tensorflow1_mapping,
        _parts(found, tree, choice),
        choice,
        "Google, TensorFlow 1",
    )


class TensorFlow1Files(weights.ModelFiles):
    """A checkpoint of Google's: its folder, or its prefix."""

    format = "tensorflow1"

    def describe(self) -> weights.Described:
        """Returns the architecture and the labels in bert_config.json."""
        return read_config(self.folder)[0]

    def weights(self, choice: weights.Choice) -> tuple[weights.Weights, weights.Report]:
        """Reads all parameters."""
        return read(self.path, choice)


def write(folder: Path, given: weights.Weights) -> None:
    """Writes bert_model.ckpt and bert_config.json into a folder that is there, float32.

    Raises:
      InputError: the model is not BERT itself, or has parts without a name of Google's.
    """
    refuse_others(given.config, given.parts)
    of_parts = frozenset(given.parts)
    flat = mapping.flatten(given.params)
    arrays = {}
    for param in mapping.tensorflow1_mapping(given.config, of_parts, given.num_labels):
        arrays |= param.split(flat[param.ours])
    write_variables(folder / CHECKPOINT, arrays)
    tree = {key: getattr(given.config, key) for key in hf_config.BERT_KEYS}
    if given.config.layer_norm_eps != 1e-12:
        tree["layer_norm_eps"] = given.config.layer_norm_eps
    name = mapping.CLASSES["bert"].get(of_parts - {"encoder"})
    if name is not None:  # Google's files may have any parts
        tree["architectures"] = [f"Bert{name}"]
    if given.labels:
        tree["id2label"] = {str(i): name for i, name in enumerate(given.labels)}
    json_file.write(folder / CONFIG, tree, sort_keys=True)


def refuse_others(bert: config.BertConfig, of_parts: tuple[str, ...]) -> None:
    """Raises InputError unless Google's code could hold such a model."""
    reasons = _reasons(bert)
    if not bert.tie_word_embeddings and "mlm_head" in of_parts:
        reasons.append("its decoder is always tied to the token embeddings")
    if "rtd_head" in of_parts:
        reasons.append("it has no head for replaced tokens")
    if model_heads.TRANSFORM in of_parts:
        reasons.append("it has no layer before a head but the pooler")
    if reasons:
        other = "bert_jax" if model_heads.TRANSFORM in of_parts else "huggingface"
        raise errors.InputError(
            f"Google's format cannot hold this model: {'; '.join(reasons)}. Use "
            f"--to={other}"
        )


def _reasons(bert: config.BertConfig) -> list[str]:
    """Returns why the format cannot hold an encoder."""
    reasons = []
    if bert.model_type != "bert":
        reasons.append(f"it holds only BERT, and this is {bert.model_type}")
    elif bert.projects_embeddings:
        reasons.append("its embeddings are as wide as its layers")
    if bert.num_groups != bert.num_hidden_layers:
        reasons.append("its layers share no parameters")
    return reasons


def read_config(folder: Path) -> tuple[weights.Described, dict[str, Any]]:
    """Reads the architecture and the labels, and all keys, of bert_config.json.

    Raises:
      InputError: it is missing, lacks a key, or a value does not fit.
    """
    path = folder / CONFIG
    tree = json_file.read_object(path)
    labels = hf_config.labels(tree, path)
    lacking = [key for key in hf_config.BERT_KEYS if key not in tree]
    if lacking:
        raise errors.InputError(
            f"{path} has no {', '.join(lacking)}: give the file of the model"
        )
    known = {field.name for field in dataclasses.fields(config.BertConfig)}
    try:
        bert = config.from_json({k: v for k, v in tree.items() if k in known})
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None
    if reasons := _reasons(bert):
        raise errors.InputError(
            f"{path} is not of Google's BERT: {'; '.join(reasons)}. Give the "
            "model's folder of Hugging Face's"
        )
    return weights.Described(bert, labels), tree


def _parts(
    found: weights.Found, tree: dict[str, Any], choice: weights.Choice
) -> frozenset[str]:
    """Returns the parts that have tensors; the config names that of output_weights."""
    wanted = {"encoder"} | {p for p, name in _TENSORS.items() if name in found.arrays}
    if "output_weights" not in found.arrays:
        return frozenset(wanted)
    classes = tree["architectures"] if "architectures" in tree else []
    if not isinstance(classes, list):
        raise errors.InputError(
            f"{found.where}: architectures of {CONFIG} is {classes!r}: write a list of "
            "names, or leave it out"
        )
    named = [
        part
        for part in mapping.CLASSIFIERS
        if f"Bert{model_heads.KINDS[part].transformers}" in classes
    ]
    # Google's own code writes these names only for classifiers.
    wanted.add(choice.head or (named[0] if named else "classifier"))
    return frozenset(wanted)


def read_variables(
    prefix: Path, wanted: Callable[[str], bool] | None = None
) -> tensors.Tensors:
    """Reads the variables of a checkpoint, all of them or those whose name is wanted.

    A checkpoint of pretraining has the optimizer's `adam_m` and `adam_v` too, twice the
    size of the model: they are returned unless `wanted` declines them.

    Args:
      prefix: `folder/bert_model.ckpt`, its `.index` file, or a folder with one such.
      wanted: called with the name of each variable.

    Raises:
      InputError: TensorFlow is not installed, or a file is missing, damaged or not
        finite.
    """
    tf = _tensorflow()
    prefix = _prefix(prefix)
    index = Path(f"{prefix}{_INDEX}")
    digests = {index.name: tensors.sha256(index)}
    names, data = _checked_entries(tf, index, prefix)
    digests |= {file.name: tensors.sha256(file) for file in data}
    arrays = {}
    try:
        # What tf.train.load_checkpoint returns; that would prefer a folder of the name.
        reader = tf.compat.v1.train.NewCheckpointReader(os.path.abspath(prefix))
        for name in sorted(filter(wanted, names) if wanted else names):
            arrays[name] = np.asarray(reader.get_tensor(name), order="C")
    except Exception as error:  # its own kinds, and what damage does to the reader
        what = f"it is damaged ({str(error).splitlines()[0][:200]})"
        raise tensors.refusal(prefix, what) from None
    for name, array in arrays.items():
        tensors.check_array(prefix, name, array)
    return tensors.Tensors(arrays, digests)


def _tensorflow() -> Any:
    """Imports TensorFlow, kept off the GPUs unless it has started on them already."""
    tf = console.import_tensorflow()
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
        raise tensors.refusal(
            path,
            f"a folder with one checkpoint is expected, and it has {names}",
            "Give the prefix, such as bert_model.ckpt",
        )
    return Path(str(found[0]).removesuffix(_INDEX))


def _checked_entries(
    tf: Any, index: Path, prefix: Path
) -> tuple[list[str], list[Path]]:
    """Returns the names of the variables and the files of data.

    TensorFlow's reader aborts the process if an entry has an impossible shape or dtype,
    and allocates what the entries claim, so they are checked before it opens the files.
    """
    from google.protobuf import message
    from tensorflow.core.protobuf import tensor_bundle_pb2 as bundle

    entries = read_index(index)
    try:
        header = bundle.BundleHeaderProto.FromString(entries.pop(""))
        found = {
            name: bundle.BundleEntryProto.FromString(value)
            for name, value in entries.items()
        }
    except message.DecodeError:
        raise tensors.refusal(index, "it is damaged (an entry)") from None
    if _OBJECTS in found:
        raise tensors.refusal(
            index,
            "it is a TensorFlow 2 checkpoint of objects, without names of variables",
            "Save it by name with tf.compat.v1.train.Saver",
        )
    if not 1 <= header.num_shards <= len(found):
        what = f"it lists {header.num_shards:,} files of data"
        raise tensors.refusal(index, what)
    data = [
        Path(f"{prefix}.data-{number:05d}-of-{header.num_shards:05d}")
        for number in range(header.num_shards)
    ]
    sizes = [tensors.check_file(file) for file in data]
    for name, entry in found.items():
        _check_entry(tf, index, name, entry, sizes)
    if sum(entry.size for entry in found.values()) > sum(sizes):
        what = "its tensors need more bytes than the files of data have"
        raise tensors.refusal(index, what)
    return list(found), data


def _check_entry(tf: Any, index: Path, name: str, entry: Any, sizes: list[int]) -> None:
    """Raises InputError unless a variable is plain numbers within a file of data."""
    shape = [dimension.size for dimension in entry.shape.dim]
    try:
        dtype = np.dtype(tf.dtypes.as_dtype(entry.dtype).as_numpy_dtype)
    except (TypeError, KeyError):
        dtype = None
    if dtype is None or dtype not in tensors.DTYPES.values():
        what = f"has the dtype {entry.dtype} of TensorFlow, which is not supported"
    elif entry.slices or entry.shape.unknown_rank:
        what = "is saved in slices"
    elif len(shape) > _MAX_RANK or any(size < 1 for size in shape):
        what = "has an impossible shape, or no elements"
    elif math.prod(shape) * dtype.itemsize != entry.size:
        what = f"has {entry.size:,} bytes, which does not match its shape and dtype"
    elif not 0 <= entry.shard_id < len(sizes):
        what = "is in a file of data that does not exist"
    elif not 0 <= entry.offset <= sizes[entry.shard_id] - entry.size:
        what = "reaches beyond the end of its file of data"
    else:
        return
    raise tensors.refusal(index, f"tensor {tensors.quoted(name)} {what}")


def read_index(path: Path) -> dict[str, bytes]:
    """Reads the table of an `.index`: serialized entries by name, the header's is "".

    The format is LevelDB's: blocks of prefix-compressed keys, an index block, a footer.

    Raises InputError unless the table is complete and its names are sorted text.
    """
    if tensors.check_file(path) > _MAX_INDEX:
        raise tensors.refusal(path, "it is too long for an index of a checkpoint")
    try:
        entries = {name.decode("utf-8"): value for name, value in _walk(path)}
    except (ValueError, IndexError, struct.error) as error:
        raise tensors.refusal(path, f"it is damaged ({error})") from None
    if len(entries) < 2 or "" not in entries:
        raise tensors.refusal(path, "it has no tensors")
    return entries


def _walk(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yields the entries of all blocks, in the order of their names."""
    table = path.read_bytes()
    if len(table) < _FOOTER or not table.endswith(_MAGIC):
        raise ValueError("its last bytes are not those of an index")
    _, _, begin, size = _varints(table[-_FOOTER:], 4)
    last = None
    for _, handle in _block(table, begin, size):
        for name, value in _block(table, *_varints(handle, 2)):
            if last is not None and name <= last:
                raise ValueError("its names are not sorted, or one is duplicated")
            yield name, value
            last = name


def _block(table: bytes, begin: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and values of a block; its restarts must be at entries."""
    if begin + size + _TRAILER > len(table) - _FOOTER:
        raise ValueError("a block lies outside the file")
    block = table[begin : begin + size]
    if table[begin + size] != 0:
        raise ValueError("a block is compressed, which TensorFlow does not do")
    (count,) = struct.unpack("<I", block[-4:])
    end = size - 4 - 4 * count
    if count < 1 or end < 0:
        raise ValueError("a block has no entries")
    restarts = set(struct.unpack(f"<{count}I", block[end:-4]))
    if block[end : end + 4] != bytes(4):
        raise ValueError("a block does not begin with an entry")
    start, key = 0, b""
    while start < end:
        shared, own, length, begin_key = _entry_lengths(block, start)
        if not shared:
            restarts.discard(start)
        key = key[:shared] + block[begin_key : begin_key + own]
        start = begin_key + own + length
        if len(key) != shared + own or len(key) > _MAX_KEY or start > end:
            raise ValueError("an entry leaves its block")
        yield key, block[start - length : start]
    if restarts - {0}:
        raise ValueError("a restart is not at an entry")


def _entry_lengths(block: bytes, start: int) -> tuple[int, int, int, int]:
    """Returns an entry's lengths (shared key, own key, value) and its key's start."""
    shared, start = _varint(block, start)
    own, start = _varint(block, start)
    length, start = _varint(block, start)
    return shared, own, length, start


def _varints(content: bytes, count: int) -> list[int]:
    """Reads consecutive varints."""
    numbers, start = [], 0
    for _ in range(count):
        number, start = _varint(content, start)
        numbers.append(number)
    return numbers


def _varint(content: bytes, start: int) -> tuple[int, int]:
    """Reads a varint, seven bits a byte, and returns where the next field starts.

    >>> _varint(bytes([0x96, 0x01]), 0)
    (150, 2)
    """
    number = 0
    for shift in range(0, 64, 7):
        byte = content[start]
        start += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, start
    raise ValueError("a number is too long")


def write_variables(prefix: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint by name, as TensorFlow 1 does, `.index` and `.data` files.

    Raises:
      InputError: TensorFlow is not installed, there is nothing to write, or it could
        not be read again.
      StorageError: the disk refuses it.
    """
    tf = _tensorflow()
    if not arrays or "" in arrays:
        raise tensors.refusal(prefix, "no tensors, or one without a name", "Rename")
    for name, array in arrays.items():
        tensors.check_array(prefix, name, array)
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
