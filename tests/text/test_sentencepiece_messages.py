"""SentencePiece's messages without its generated code, which may not be importable."""

import subprocess
import sys

import pytest
import sentencepiece
from test_spiece import train

from bert_jax.text import sentencepiece_messages

OPTIONS = [
    {"model_type": "unigram", "vocab_size": 60},
    {"model_type": "bpe", "vocab_size": 60, "add_dummy_prefix": False},
    {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    {"model_type": "unigram", "vocab_size": 310, "byte_fallback": True},
]
# Both of sentencepiece's generated modules refuse an older protobuf like this.
REFUSED = """
import pathlib, sys
sys.modules["sentencepiece.sentencepiece_model_pb2"] = None
sys.modules["sentencepiece.sentencepiece_pb2"] = None
"""


def _read(content: bytes, read):
    model = read(content)
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    rules = model.normalizer_spec
    return (
        pieces,
        (model.trainer_spec.model_type, model.trainer_spec.byte_fallback),
        (rules.precompiled_charsmap, rules.add_dummy_prefix),
        rules.remove_extra_whitespaces,
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_a_model_reads_as_by_the_generated_code(options):
    try:
        from sentencepiece import sentencepiece_model_pb2
    except Exception as error:  # protobuf is older than that of its generator
        pytest.skip(f"sentencepiece's own messages cannot be imported: {error}")
    content = train(**options)
    theirs = sentencepiece_model_pb2.ModelProto.FromString  # pyright: ignore
    assert _read(content, sentencepiece_messages.model) == _read(content, theirs)


def test_fields_that_are_not_there_have_the_published_defaults():
    empty = sentencepiece_messages.model(b"")
    assert empty.trainer_spec.model_type == sentencepiece_messages.UNIGRAM == 1
    assert empty.normalizer_spec.add_dummy_prefix is True
    assert empty.normalizer_spec.remove_extra_whitespaces is True
    assert empty.normalizer_spec.precompiled_charsmap == b""
    assert empty.trainer_spec.byte_fallback is False
    (piece,) = sentencepiece_messages.model(b"\x0a\x00").pieces
    assert (piece.piece, piece.score, piece.type) == ("", 0.0, 1)


def test_an_encoding_has_the_bytes_of_its_pieces():
    processor = sentencepiece.SentencePieceProcessor(model_proto=train())
    content = processor.encode("a 北", out_type="serialized_proto")
    pieces = sentencepiece_messages.text(content).pieces
    assert [(piece.begin, piece.end) for piece in pieces][-1] == (2, 5)
    assert [piece.id for piece in pieces] == processor.encode("a 北")


def test_offsets_and_exports_need_no_generated_code(tmp_path):
    (tmp_path / "spiece.model").write_bytes(train(model_type="bpe", vocab_size=40))
    program = (
        f"{REFUSED}from bert_jax.text import huggingface_folder, tokenizer\n"
        "it = tokenizer.load(pathlib.Path(sys.argv[1]))\n"
        "[(ids, bounds)] = it.encode_with_offsets(['the cat'])\n"
        "assert bounds[-1][1] == 7, bounds\n"
        "assert huggingface_folder.pipeline(it)['model']['type'] == 'BPE'\n"
    )
    _run(program, str(tmp_path))


def test_a_wordpiece_model_needs_no_sentencepiece(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    program = (
        "import pathlib, sys\nsys.modules['sentencepiece'] = None\n"
        "from bert_jax import load, pretrain, finetune, predict, convert\n"
        "from bert_jax.text import tokenizer\n"
        "it = tokenizer.load(pathlib.Path(sys.argv[1]))\n"
        "assert it.encode(['the cat']) == [[5, 6]]\n"
    )
    _run(program, str(tmp_path))


def _run(program: str, *arguments: str) -> None:
    words = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
