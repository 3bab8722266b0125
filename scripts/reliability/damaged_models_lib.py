"""Small folders of models and stores, and damage to them. A library of fuzz.py.

Files with a recorded checksum are damaged with the checksum corrected, as an attacker
would.
"""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damaged_checkpoints_lib as damage
import damaged_vocabularies_lib
import numpy as np

from bert_jax import checkpoints
from bert_jax.checkpoints import huggingface, mapping, native, sentence_encoder, weights
from bert_jax.config import finetuning
from bert_jax.data.corpus import store
from bert_jax.model import config
from bert_jax.tasks import spec
from bert_jax.text.tokenizer import Tokenizer

_LABELS = ("cat", "dog")


def _weights(rows: int) -> weights.Weights:
    """Returns a classifier of one layer."""
    bert = config.BertConfig(
        vocab_size=rows,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=5,
        max_position_embeddings=9,
    )
    shapes = mapping.parameter_shapes(
        bert, frozenset({"encoder", "pooler", "classifier"}), 2
    )
    flat = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return weights.Weights(bert, mapping.unflatten(flat), _LABELS)


def _tokenizer(folder: Path) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    damaged_vocabularies_lib.KINDS["vocab.txt"][0](folder)
    return Tokenizer.load(folder)


def _write_huggingface(folder: Path) -> None:
    tokenizer = _tokenizer(folder)
    huggingface.write(folder, _weights(tokenizer.vocab_size), dtype="float32")
    tokenizer.export(folder, 9)
    sentence_encoder.write(folder, sentence_encoder.Pooling(), 4)


def _write_native(folder: Path) -> None:
    tokenizer = _tokenizer(folder)
    native.write(folder, _weights(tokenizer.vocab_size), dtype="float32")


def _write_task(folder: Path) -> None:
    tokenizer = _tokenizer(folder / "vocabulary")
    of_vocabulary = _weights(tokenizer.vocab_size)
    tree = finetuning.default()
    tree.init_from = "runs/demo"
    tree.data.task, tree.data.train = "classification", "train.tsv"
    written = native.TaskFolder(
        finetuning.parse(tree),
        spec.Metadata(labels=_LABELS),
        of_vocabulary.config,
        of_vocabulary.params,
        tokenizer,
        {"accuracy": 0.5},
    )
    native.write_task(folder / "model", written)
    for path in (folder / "vocabulary").iterdir():
        path.unlink()
    (folder / "vocabulary").rmdir()
    for path in (folder / "model").iterdir():
        path.rename(folder / path.name)
    (folder / "model").rmdir()


def _write_store(folder: Path) -> None:
    documents = [[[5, 6, 7], [8]], [[9, 10], [11], [5, 6]], [[7] * 40]]
    store.write_ids(folder / "store", documents, vocab_size=20)
    for path in (folder / "store").iterdir():
        path.rename(folder / path.name)
    (folder / "store").rmdir()


# Readers, for fuzz_files.py.


def read(folder: Path) -> str:
    """Reads a folder of any kind; returns "read", or what is inconsistent."""
    if (folder / "manifest.json").exists():
        return _read_store(folder)
    if (folder / native.TASK).exists():
        native.read_task(folder)
        return "read"
    found = checkpoints.open(folder).read()
    _ = checkpoints.open(folder).config
    return "read" if found.weights.params else "! empty"


def _read_store(folder: Path) -> str:
    found = store.open_store(folder)
    for shard in found.shards:
        sentences, documents = shard.sentence_offsets, shard.document_offsets
        for offsets, end in ((sentences, len(shard.tokens)), (documents, None)):
            end = shard.num_sentences if end is None else end
            if offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
                return f"! offsets {offsets} of {end}"
        if len(shard.sources) != shard.num_documents:
            return "! the number of sources differs from that of documents"
        int(shard.tokens.astype(np.int64).sum())  # every byte can be read
        shard.word_start(np.arange(shard.num_tokens))
    return "read" if found.num_tokens else "! empty"


# Damage.


def damage_with_right_checksums(rng: random.Random, folder: Path) -> None:
    """Damages a file, then corrects the recorded checksums and sizes."""
    rng.choice([damage.flip, damage.flip, _numbers, damage.cut])(rng, folder)
    fix_checksums(folder)


def fix_checksums(folder: Path) -> None:
    """Corrects the checksums and sizes that are recorded for files."""
    for name, change in ((native.TASK, _sums), ("manifest.json", _shards)):
        try:
            tree = json.loads(damage.content_of(folder / name))
            change(folder, tree)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        (folder / name).write_text(json.dumps(tree), encoding="utf-8")


def _sums(folder: Path, tree: Any) -> None:
    for name in tree["files"]:
        content = damage.content_of(folder / name)
        tree["files"][name] = hashlib.sha256(content).hexdigest()


def _shards(folder: Path, tree: Any) -> None:
    for entry in tree["shards"]:
        content = damage.content_of(folder / entry["name"])
        entry["sha256"] = hashlib.sha256(content).hexdigest()
        entry["bytes"] = len(content)


def _numbers(rng: random.Random, folder: Path) -> None:
    """Overwrites aligned numbers of four or eight bytes."""
    path = damage.pick(rng, folder, "*.arrow")
    content = bytearray(damage.content_of(path))
    for _ in range(rng.choice([1, 2, 8])):
        if len(content) > 16:
            size = rng.choice([4, 8])
            at = rng.randrange(0, len(content) - 8) & -4
            number = rng.choice([0, 1, 40, 2**20, 2**31 - 1, 2**31, 2**62, 2**63])
            content[at : at + size] = (number % 2 ** (8 * size)).to_bytes(
                size, "little"
            )
    path.write_bytes(content)


_JSON = damaged_vocabularies_lib.edit_json
_ANY: list[damage.Mutation] = [damage.flip, damage.cut, damage.replace, *[_JSON] * 5]
KINDS: dict[str, tuple[Callable[[Path], None], list[damage.Mutation]]] = {
    "Hugging Face folder": (_write_huggingface, [*_ANY, damage.edit_header]),
    "exported folder": (_write_native, [*_ANY, damage.edit_header]),
    "task folder": (_write_task, [*_ANY, *[damage_with_right_checksums] * 4]),
    "store": (_write_store, [*_ANY, *[damage_with_right_checksums] * 16]),
}
