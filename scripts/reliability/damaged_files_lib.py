"""Small checkpoints, vocabularies and models, damage to them, and their readers.

A library of fuzz.py. A mutation randomly changes files of a folder: bytes of any file,
or the JSON, pickle or protocol buffer in one, whose lengths and checksums stay right.
"""

import functools
import importlib.util
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import sandbox_lib
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from bert_jax import checkpoints
from bert_jax.checkpoints import (
    huggingface,
    mapping,
    native,
    sentence_encoder,
    tensorflow1,
    tensors,
    weights,
)
from bert_jax.config import finetuning
from bert_jax.model import config
from bert_jax.tasks import spec
from bert_jax.text.tokenizer import Tokenizer

CHECKPOINT = "bert_model.ckpt"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
Mutation = Callable[[random.Random, Path], None]
_LIBRARIES = {"torch": "torch", "tensorflow1": "tensorflow"}
_LABELS = ("cat", "dog")
_TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat"),
    *("北", "京", "!", "Cat", "[", "]", "mask", "un", "##able", "é", "\u2028"),
)
_TEXTS = ["the cat sat on the mat", "the cats are naïve", "北京大学 is in 北京"] * 5
_SENTENCES = ["the cat sat [MASK] on", "北京 \u0130 e\u0301", "", "\0\ud800", "a" * 300]
_LINES = (
    *("[MASK]", "", " ", "a b", "\t", "\0", "x" * 100_000, "##", "[UNK]", "\ufeff"),
    *("\u0130", "\U0010ffff", "\r", "\x85", "\u200b", "é", "e\u0301", "ﬁ"),
)
_NASTY = [
    *(-1, 0, 1, 3, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 1.5, 1e300, True, None),
    *("", "F32", "F8_E4M3", "BF16", "../up", "/etc/passwd", "a\\b", "\0", "\ud800"),
    *([], {}, [0], [2**40, 2**40], [1] * 100, {"dtype": "F32"}, [[]], "x" * 5000),
]


# Files to damage.


def arrays() -> dict[str, np.ndarray]:
    """Returns small arrays of several dtypes and odd sizes."""
    values = np.random.default_rng(7)
    return {
        "a.weight": values.normal(size=(3, 37)).astype(np.float32),
        "a.bias": values.normal(size=5).astype(ml_dtypes.bfloat16),
        "b.weight": values.normal(size=(2, 3, 5)).astype(np.float16),
        "positions": np.arange(7, dtype=np.int64)[None],
        "scale": np.array(0.5, np.float64),
    }


def _write_safetensors(folder: Path) -> None:
    tensors.write_safetensors(folder / tensors.SINGLE, arrays())


def _write_shards(folder: Path) -> None:
    weight_map = {}
    for number, (name, array) in enumerate(arrays().items(), start=1):
        weight_map[name] = f"model-{number:05d}-of-{len(arrays()):05d}.safetensors"
        tensors.write_safetensors(folder / weight_map[name], {name: array})
    index = folder / (tensors.SINGLE + tensors.INDEX)
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _write_torch(folder: Path, *, zipped: bool = True) -> None:
    import torch

    state = {
        name: torch.from_numpy(array.astype(np.float32))
        for name, array in arrays().items()
    }
    state["tied"] = state["a.weight"].T
    path = folder / "pytorch_model.bin"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)


def _write_tensorflow1(folder: Path) -> None:
    tensorflow1.write_variables(folder / CHECKPOINT, arrays())


def _write_wordpiece(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(_TOKENS) + "\n", encoding="utf-8")


def _write_wordpiece_json(folder: Path) -> None:
    """Writes a vocabulary with all of Hugging Face's files."""
    _write_wordpiece(folder)
    Tokenizer.load(folder).export(folder, 64)


def _write_json(folder: Path) -> None:
    """Writes only a tokenizer.json, with RoBERTa's rules."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=names, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")


@functools.cache
def _sentencepiece(kind: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS),
        model_writer=model,
        vocab_size=60,
        model_type=kind,
        hard_vocab_limit=False,
        control_symbols=["[PAD]", "[CLS]", "[SEP]", "[MASK]"],
        unk_piece="[UNK]",
        pad_id=-1,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return model.getvalue()


def _write_sentencepiece(folder: Path, *, kind: str) -> None:
    (folder / "spiece.model").write_bytes(_sentencepiece(kind))


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
    parts = frozenset({"encoder", "pooler", "classifier"})
    shapes = mapping.parameter_shapes(bert, parts, 2)
    flat = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return weights.Weights(bert, mapping.unflatten(flat), _LABELS)


def write_huggingface(folder: Path) -> None:
    """Writes a folder of Hugging Face with the files of sentence-transformers."""
    _write_wordpiece(folder)
    tokenizer = Tokenizer.load(folder)
    huggingface.write(folder, _weights(tokenizer.vocab_size), dtype="float32")
    tokenizer.export(folder, 9)
    sentence_encoder.write(folder, sentence_encoder.Pooling(), 4)


def _write_native(folder: Path) -> None:
    _write_wordpiece(folder)
    size = Tokenizer.load(folder).vocab_size
    native.write(folder, _weights(size), dtype="float32")


def write_task(folder: Path) -> None:
    """Writes a fine-tuned classifier."""
    _write_wordpiece(folder)
    tokenizer = Tokenizer.load(folder)
    model = _weights(tokenizer.vocab_size)
    tree = finetuning.default()
    tree.init_from = "runs/demo"
    tree.data.task, tree.data.train = "classification", "train.tsv"
    learned, metrics = spec.Metadata(labels=_LABELS), {"accuracy": 0.5}
    settings = finetuning.parse(tree)
    folder.rmdir() if not any(folder.iterdir()) else shutil.rmtree(folder)
    native.write_task(
        folder,
        native.TaskFolder(
            settings, learned, model.config, model.params, tokenizer, metrics
        ),
    )


# Damage to any file.


def _pick(rng: random.Random, folder: Path, pattern: str = "*") -> Path:
    """Chooses a regular file; a link or pipe of an earlier mutation could block."""
    paths = sorted(path for path in folder.glob(pattern) if _is_plain(path))
    return rng.choice(paths) if paths else folder / "one.safetensors"


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _content_of(path: Path) -> bytes:
    return path.read_bytes() if _is_plain(path) else b""


def _json_of(content: bytes) -> Any:
    """Returns the JSON tree, or None for damaged JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _flip(rng: random.Random, folder: Path) -> None:
    """Flips bits, most of them in headers."""
    path = _pick(rng, folder)
    content = bytearray(_content_of(path))
    end = min(rng.choice([8, 64, 600, len(content)]), len(content))
    for _ in range(rng.choice([1, 1, 1, 3, 9]) if content else 0):
        content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(rng: random.Random, folder: Path) -> None:
    """Truncates, extends, empties or doubles a file, or removes a part of it."""
    path = _pick(rng, folder)
    content = _content_of(path)
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    junk = rng.randbytes(rng.choice([1, 4, 8, 100]))
    cuts = [content[:a], content[:a] + content[b:], content + junk, b"", content * 2]
    path.write_bytes(rng.choice([*cuts, content[:a] + junk + content[a:]]))


def _replace(rng: random.Random, folder: Path) -> None:
    """Replaces a file by a folder, a link, another file, an LFS pointer or nothing."""
    path = _pick(rng, folder)
    other = _content_of(_pick(rng, folder))
    path.unlink(missing_ok=True)
    match rng.randrange(5):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(rng.choice(["/dev/zero", "nowhere", path.name, "/etc"]))
        case 2:
            path.write_bytes(other)
        case 3:
            path.write_bytes(LFS_POINTER)


# Damage to JSON.


def edit(rng: random.Random, tree: Any) -> Any:
    """Returns a JSON tree with one node changed."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.1:
        return rng.choice(_NASTY)
    key = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    other = rng.choice(list(tree.values()) if isinstance(tree, dict) else tree)
    match rng.randrange(6):
        case 0:
            del tree[key]
        case 1:
            tree[key] = other
        case 2 if isinstance(tree, dict):
            tree[rng.choice(["a.weight", "", "x", "__metadata__"])] = other
        case _:
            tree[key] = edit(rng, tree[key])
    return tree


def dumped(rng: random.Random, tree: Any) -> bytes:
    """Serializes JSON, sometimes with a duplicate key or an invalid number."""
    text = json.dumps(tree)
    match rng.randrange(8):
        case 0 if isinstance(tree, dict) and tree:
            key = rng.choice(list(tree))
            text = f"{{{json.dumps(key)}: {json.dumps(tree[key])}, {text[1:]}"
        case 1:
            text = text.replace("1", rng.choice(["NaN", "1e999", "01", "[" * 9999]), 1)
    return text.encode("utf-8", "surrogatepass")


def _edit_json(rng: random.Random, folder: Path) -> None:
    """Changes one of the JSON files."""
    path = _pick(rng, folder, "*.json")
    tree = _json_of(_content_of(path))
    if tree is not None:
        path.write_bytes(dumped(rng, edit(rng, tree)))


def _edit_header(rng: random.Random, folder: Path) -> None:
    """Changes the header of a safetensors file; its length is right or wrong."""
    path = _pick(rng, folder, "*.safetensors")
    content = _content_of(path)
    length = int.from_bytes(content[:8], "little")
    tree = _json_of(content[8 : 8 + length])
    if tree is None:
        return
    text = dumped(rng, edit(rng, tree))
    wrong = [0, 1, 2**31, 2**63, 2**64 - 1, len(content), 10**8, len(text) + 1]
    stated = rng.choice(wrong) if rng.random() < 0.2 else len(text)
    path.write_bytes(stated.to_bytes(8, "little") + text + content[8 + length :])


# Damage to other formats.


def _edit_pickle(rng: random.Random, folder: Path) -> None:
    """Changes bytes of a pickle, which may be in a zip archive with checksums."""
    path = folder / "pytorch_model.bin"
    content = _content_of(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {i.filename: archive.read(i) for i in archive.infolist()}
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError):
        if content:
            path.write_bytes(_other_pickle(rng, content))
        return
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            is_pickle = name.endswith(".pkl")
            archive.writestr(name, _other_pickle(rng, member) if is_pickle else member)


def _other_pickle(rng: random.Random, content: bytes) -> bytes:
    """Changes some bytes of a pickle, or inserts a call of a function."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(changed))
        changed[at : at + 1] = rng.choice(
            [b"", rng.randbytes(1), b"\x7f", b"\xff", b"J\xff\xff\xff\x7f", b"0", b"Q"]
        )
    if rng.random() < 0.2:
        call = rng.choice([b"cposix\nsystem\n", b"cbuiltins\neval\n", b"cos\nmkdir\n"])
        changed[2:2] = call + b"X\x07\x00\x00\x00escaped\x85R0"
    return bytes(changed)


def _edit_lines(rng: random.Random, folder: Path) -> None:
    """Changes, doubles, removes or adds lines of a vocab.txt."""
    path = folder / "vocab.txt"
    if not _is_plain(path):
        return
    lines = path.read_bytes().split(b"\n")
    at = rng.randrange(len(lines))
    other = rng.choice([*(x.encode() for x in _LINES), rng.choice(lines), b"\xff\xc3"])
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines[at] = other
        case 2:
            lines.insert(at, other)
        case 3:
            rng.shuffle(lines)
    path.write_bytes(rng.choice([b"\n", b"\n", b"\r\n", b"\r"]).join(lines))


def _edit_proto(rng: random.Random, folder: Path) -> None:
    """Changes fields of a SentencePiece model; it remains a valid protocol buffer."""
    path = _pick(rng, folder, "*.model")
    proto: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore
    try:
        proto.ParseFromString(_content_of(path))
    except Exception:  # damaged before
        return
    for _ in range(rng.choice([1, 1, 3])):
        rng.choice([_edit_piece, _edit_charsmap, _edit_trainer])(rng, proto)
    path.write_bytes(proto.SerializePartialToString())


def _edit_piece(rng: random.Random, proto: Any) -> None:
    if not proto.pieces:
        return
    piece = proto.pieces[rng.randrange(len(proto.pieces))]
    match rng.randrange(4):
        case 0:
            piece.piece = rng.choice([*_LINES, proto.pieces[0].piece, "\u2581" * 3])
        case 1:
            piece.score = rng.choice([float("nan"), float("inf"), -1e38, 1e38, 0.0])
        case 2:
            piece.type = rng.choice([1, 2, 3, 4, 5, 6])
        case 3:
            del proto.pieces[rng.randrange(len(proto.pieces)) :]


def _edit_charsmap(rng: random.Random, proto: Any) -> None:
    """Changes the compiled table of the normalizer, which C++ code traverses."""
    table = bytearray(proto.normalizer_spec.precompiled_charsmap)
    for _ in range(rng.choice([1, 4, 64]) if table else 0):
        at = rng.randrange(min(len(table), rng.choice([8, 400, len(table)])))
        table[at] = rng.choice([0, 0xFF, 0x7F, 0x80, rng.randrange(256)])
    cut = rng.choice([len(table), len(table), 3, 4, 5, 100])
    proto.normalizer_spec.precompiled_charsmap = bytes(table[:cut])


def _edit_trainer(rng: random.Random, proto: Any) -> None:
    """Changes the type of the model and the ids of its special tokens."""
    trainer = proto.trainer_spec
    trainer.model_type = rng.choice([1, 2, 3, 4])
    trainer.unk_id = rng.choice([0, 1, -1, 2**31 - 1, -(2**31), 59, 60])


# Readers, with independent checks of the result.


def _read_checkpoint(folder: Path) -> str:
    if list(folder.glob(f"{CHECKPOINT}*")):
        found = tensorflow1.read_variables(folder / CHECKPOINT)
    else:
        found = tensors.read(folder)
    for name, array in found.arrays.items():
        if not array.flags.c_contiguous or not np.isfinite(array).all():
            return f"! {name!r} is not contiguous or not finite"
    size = sum((folder / name).stat().st_size for name in found.files)
    if sum(array.nbytes for array in found.arrays.values()) > 8 * size:
        return "! more bytes than in the files"
    return "read" if found.arrays else "! no arrays"


def _read_vocabulary(folder: Path) -> str:
    """Loads a tokenizer and calls all that training and inference call."""
    tokenizer = Tokenizer.load(folder)
    rows = tokenizer.encode(_SENTENCES)
    flat, lengths = tokenizer.encode_flat(_SENTENCES)
    with_offsets = tokenizer.encode_with_offsets(_SENTENCES)
    masked = tokenizer.encode_text("the [MASK] cat")
    ids, _ = tokenizer.build(rows[0], rows[1])
    tokenizer.decode(rows[0])
    sandbox_lib.stop_watching()  # what follows reads and writes files itself
    every = [index for row in (*rows, masked, ids) for index in row]
    if not all(0 <= index < tokenizer.vocab_size for index in every):
        return f"! an id is out of range: {every}"
    if flat.tolist() != [i for row in rows for i in row] or lengths.sum() != flat.size:
        return "! encode and encode_flat differ"
    if [row for row, _ in with_offsets] != rows:
        return "! encode and encode_with_offsets differ"
    for sentence, (_, offsets) in zip(_SENTENCES, with_offsets, strict=True):
        if not all(0 <= a <= b <= len(sentence) for a, b in offsets):
            return f"! offsets are out of range: {offsets}"
    if not _has_tokens(folder, tokenizer.tokens):
        return "! tokens that are not in the files"
    saved = folder.parent / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    tokenizer.export(saved, 64)
    same = Tokenizer.load(saved).encode(_SENTENCES[:2]) == rows[:2]
    return "read" if same else "! the exported tokenizer differs"


def _has_tokens(folder: Path, tokens: Iterable[str]) -> bool:
    """Returns whether all tokens are in the bytes of the files."""
    files = [path for path in folder.iterdir() if path.is_file()]
    text = b"".join(path.read_bytes() for path in files).decode("utf-8", "replace")
    return all(x in text or json.dumps(x)[1:-1] in text for x in tokens)


def read_model(folder: Path) -> str:
    """Reads the folder of a model; returns "read", or what is wrong."""
    if (folder / native.TASK).exists():
        native.read_task(folder)
        return "read"
    opened = checkpoints.open(folder)
    _ = opened.config
    return "read" if opened.read().weights.params else "! empty"


class Kind(NamedTuple):
    """A kind of file: how it is written, damaged and read.

    Attributes:
      percent: of the damaged files; reading a model is slow.
    """

    percent: float
    write: Callable[[Path], None]
    read: Callable[[Path], str]
    mutations: list[Mutation]

    def damage(self, rng: random.Random, folder: Path) -> None:
        """Damages a folder once or twice."""
        every = [_flip, _flip, _cut, _replace, *self.mutations]
        for _ in range(rng.choice([1, 1, 2])):
            rng.choice(every)(rng, folder)


def installed(kind: str) -> bool:
    """Returns whether the library that writes a kind of file is installed."""
    module = _LIBRARIES.get(kind.split("_")[0])
    return module is None or importlib.util.find_spec(module) is not None


_checkpoint = functools.partial(Kind, read=_read_checkpoint)
_vocabulary = functools.partial(Kind, read=_read_vocabulary)
_model = functools.partial(Kind, read=read_model)
_OF_MODEL = [*[_edit_json] * 5, _edit_header]
KINDS = {
    "safetensors": _checkpoint(20, _write_safetensors, mutations=[_edit_header] * 4),
    "safetensors_shards": _checkpoint(
        15, _write_shards, mutations=[_edit_header, *[_edit_json] * 4]
    ),
    "torch": _checkpoint(1, _write_torch, mutations=[_edit_pickle] * 4),
    "torch_legacy": _checkpoint(
        1,
        functools.partial(_write_torch, zipped=False),
        mutations=[_edit_pickle] * 4,
    ),
    "tensorflow1": _checkpoint(1, _write_tensorflow1, mutations=[]),
    "vocab.txt": _vocabulary(15, _write_wordpiece, mutations=[_edit_lines] * 5),
    "vocab.txt and JSON": _vocabulary(
        10, _write_wordpiece_json, mutations=[_edit_lines, *[_edit_json] * 5]
    ),
    "tokenizer.json": _vocabulary(14, _write_json, mutations=[_edit_json] * 6),
    "SentencePiece unigram": _vocabulary(
        14,
        functools.partial(_write_sentencepiece, kind="unigram"),
        mutations=[_edit_proto] * 5,
    ),
    "SentencePiece BPE": _vocabulary(
        12,
        functools.partial(_write_sentencepiece, kind="bpe"),
        mutations=[_edit_proto] * 5,
    ),
    "task folder": _model(2, write_task, mutations=_OF_MODEL),
    "Hugging Face folder": _model(0.5, write_huggingface, mutations=_OF_MODEL),
    "exported folder": _model(0.5, _write_native, mutations=_OF_MODEL),
}
