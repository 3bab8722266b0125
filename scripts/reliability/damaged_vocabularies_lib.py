"""Small vocabularies of each format, and damage to them. A library of fuzz.py."""

import functools
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damaged_checkpoints_lib as damage
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from bert_jax.text.tokenizer import Tokenizer

_PIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat"),
    *("北", "京", "!", "Cat", "[", "]", "mask", "un", "##able", "é", "\u2028"),
)
_TEXTS = ["the cat sat on the mat", "the cats are naïve", "北京大学 is in 北京"] * 5
_CONTROL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
_LINES = (
    *("[MASK]", "", " ", "a b", "\t", "\0", "x" * 100_000, "##", "[UNK]", "\ufeff"),
    *("\u0130", "\U0010ffff", "\r", "\x85", "\u200b", "é", "e\u0301", "ﬁ"),
)

Mutation = damage.Mutation


def _write_wordpiece(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(_PIECES) + "\n", encoding="utf-8")


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
def _spiece(kind: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS),
        model_writer=model,
        vocab_size=60,
        model_type=kind,
        hard_vocab_limit=False,
        control_symbols=_CONTROL,
        unk_piece="[UNK]",
        pad_id=-1,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return model.getvalue()


def _write_unigram(folder: Path) -> None:
    (folder / "spiece.model").write_bytes(_spiece("unigram"))


def _write_bpe(folder: Path) -> None:
    (folder / "spiece.model").write_bytes(_spiece("bpe"))


# Damage.


def edit_lines(rng: random.Random, folder: Path) -> None:
    """Changes, doubles, removes or adds lines of a vocab.txt."""
    path = folder / "vocab.txt"
    if not path.is_file() or path.is_symlink():
        return
    lines = path.read_bytes().split(b"\n")
    at = rng.randrange(len(lines))
    other = rng.choice([*(x.encode() for x in _LINES), rng.choice(lines), b"\xff\xc3"])
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines[at] = other
        case 2:
            lines.insert(at, other)
        case 3:
            rng.shuffle(lines)
        case 4:
            lines[at] += other
    path.write_bytes(rng.choice([b"\n", b"\n", b"\r\n", b"\r"]).join(lines))


def edit_json(rng: random.Random, folder: Path) -> None:
    """Changes one of the JSON files."""
    path = damage.pick(rng, folder, "*.json")
    try:
        tree = json.loads(damage.content_of(path))
    except (ValueError, RecursionError):
        return
    path.write_bytes(damage.dumped(rng, damage.edit(rng, tree)))


def edit_proto(rng: random.Random, folder: Path) -> None:
    """Changes fields of a SentencePiece model; it remains a valid protocol buffer."""
    path = damage.pick(rng, folder, "*.model")
    proto: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore
    try:
        proto.ParseFromString(damage.content_of(path))
    except Exception:  # damaged before
        return
    for _ in range(rng.choice([1, 1, 3])):
        rng.choice([_piece, _charsmap, _spec, _denormal])(rng, proto)
    path.write_bytes(proto.SerializePartialToString())


def _piece(rng: random.Random, proto: Any) -> None:
    if not proto.pieces:
        return
    piece = proto.pieces[rng.randrange(len(proto.pieces))]
    match rng.randrange(5):
        case 0:
            piece.piece = rng.choice([*_LINES, proto.pieces[0].piece, "\u2581" * 3])
        case 1:
            piece.score = rng.choice([float("nan"), float("inf"), -1e38, 1e38, 0.0])
        case 2:
            piece.type = rng.choice([1, 2, 3, 4, 5, 6])
        case 3:
            del proto.pieces[rng.randrange(len(proto.pieces)) :]
        case 4:
            proto.pieces.add().CopyFrom(piece)


def _charsmap(rng: random.Random, proto: Any) -> None:
    """Changes the compiled table of a normalizer, which C++ code traverses."""
    table = bytearray(proto.normalizer_spec.precompiled_charsmap)
    for _ in range(rng.choice([1, 4, 64])):
        if table:
            at = rng.randrange(min(len(table), rng.choice([8, 400, len(table)])))
            table[at] = rng.choice([0, 0xFF, 0x7F, 0x80, rng.randrange(256)])
    cut = rng.choice([len(table), len(table), 3, 4, 5, 100])
    proto.normalizer_spec.precompiled_charsmap = bytes(table[:cut])


def _spec(rng: random.Random, proto: Any) -> None:
    """Changes a number or a flag of the specs."""
    spec = rng.choice([proto.trainer_spec, proto.normalizer_spec])
    numbers = [0, 1, -1, 2**31 - 1, -(2**31), 59, 60]
    for field, _ in rng.sample(spec.ListFields(), k=min(2, len(spec.ListFields()))):
        value = getattr(spec, field.name)
        if isinstance(value, bool):
            setattr(spec, field.name, not value)
        elif isinstance(value, int) and field.enum_type is None:
            setattr(spec, field.name, rng.choice(numbers))
        elif isinstance(value, str):
            setattr(spec, field.name, rng.choice(_LINES))
    if spec is proto.trainer_spec:
        spec.model_type = rng.choice([1, 2, 3, 4])


def _denormal(rng: random.Random, proto: Any) -> None:
    """Adds a denormalizer's table and self-test data with wrong results."""
    proto.denormalizer_spec.precompiled_charsmap = rng.randbytes(40)
    expected = rng.choice([b"the cat", b"\0", b"x" * 999])
    sample = damage.field(1, b"the cat") + damage.field(2, expected)
    proto.MergeFromString(damage.field(4, damage.field(1, sample)))


def giant_length(rng: random.Random, folder: Path) -> None:
    """Writes a length beyond the end of the file into the wire format."""
    path = damage.pick(rng, folder, "*.model")
    content = damage.content_of(path)
    tags = [at for at in range(len(content)) if content[at] in (0x0A, 0x12, 0x1A, 0x2A)]
    if tags:
        at = rng.choice(tags) + 1
        length = damage.varint(rng.choice([2**20, 2**31 - 1, 2**31, 2**63, 2**64 - 1]))
        path.write_bytes(content[:at] + length + content[at + rng.randrange(2) :])


_ANY: list[Mutation] = [damage.flip, damage.flip, damage.cut, damage.replace]
KINDS: dict[str, tuple[Callable[[Path], None], list[Mutation]]] = {
    "vocab.txt": (_write_wordpiece, [*_ANY, *[edit_lines] * 5]),
    "vocab.txt and JSON": (
        _write_wordpiece_json,
        [*_ANY, edit_lines, *[edit_json] * 5],
    ),
    "tokenizer.json": (_write_json, [*_ANY, *[edit_json] * 6]),
    "SentencePiece unigram": (
        _write_unigram,
        [*_ANY, *[edit_proto] * 5, *[giant_length] * 2],
    ),
    "SentencePiece BPE": (_write_bpe, [*_ANY, *[edit_proto] * 5, *[giant_length] * 2]),
}
