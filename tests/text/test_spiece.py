"""SentencePiece models: ids, offsets, masks, messages, and models that are rejected."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from bert_jax import errors
from bert_jax.text import backend, spiece, vocabulary
from bert_jax.text.tokenizer import Tokenizer

TEXTS = ["the cat sat", "the dog sat", "a cat and a dog", "北京大学", "我在北京"] * 9


def train(**options: object) -> bytes:
    """Trains a tiny model whose tokens are characters."""
    writer = io.BytesIO()
    names = {"pad_piece": "[PAD]", "unk_piece": "[UNK]", "control_symbols": ["[MASK]"]}
    ours = {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "pad_id": 0, "unk_id": 1}
    size = {"model_type": "char", "vocab_size": 99, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=writer,
        **(
            size | names | ours | {"bos_id": 2, "eos_id": 3, "minloglevel": 2} | options
        ),
    )
    return writer.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    """The bytes of the tiny model."""
    return train()


def load(model: bytes, folder: Path, **options: Any) -> Tokenizer:
    """Writes a model and loads it as a user does."""
    (folder / "spiece.model").write_bytes(model)
    return Tokenizer.load(folder, **options)


def spell(it: Tokenizer, ids: list[int]) -> str:
    """Joins tokens with spaces, the word mark written as "_"."""
    return " ".join(it.tokens[index] for index in ids).replace("▁", "_")


def test_special_tokens_and_word_starts(model: bytes, tmp_path: Path):
    it = load(model, tmp_path)
    assert it.kind == "sentencepiece"
    assert it.tokens[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert (it.pad_id, it.unk_id, it.cls_id, it.sep_id, it.mask_id) == (0, 1, 2, 3, 4)
    starts = [t for t, c in zip(it.tokens, it.is_continuation, strict=True) if not c]
    assert starts == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁"]


def test_encode_and_decode(model: bytes, tmp_path: Path):
    it = load(model, tmp_path)
    rows = it.encode(["the cat", "", "大北"])
    assert [spell(it, row) for row in rows] == ["_ t h e _ c a t", "", "_ 大 北"]
    assert it.decode(rows[0]) == "the cat"
    ids, lengths = it.encode_flat(["the cat", "", "大北"])
    assert ids.tolist() == [*rows[0], *rows[2]]
    assert lengths.tolist() == [8, 0, 3]


def test_raw_text_never_becomes_a_special_token(model: bytes, tmp_path: Path):
    it = load(model, tmp_path)
    (row,) = it.encode(["[MASK] a [CLS][PAD] [SEP]"])
    assert set(row) & {0, 2, 3, 4} == set()


def test_encode_text_puts_no_word_mark_after_a_mask(model: bytes, tmp_path: Path):
    it = load(model, tmp_path)
    text = it.encode_text("我[MASK]北京 [MASK] cat[MASK]")
    assert spell(it, text) == "_ 我 [MASK] 北 京 [MASK] _ c a t [MASK]"
    assert spell(it, it.encode_text("[MASK]s")) == "[MASK] s"


def test_offsets_are_characters(model: bytes, tmp_path: Path):
    it = load(model, tmp_path)
    ((ids, offsets),) = it.encode_with_offsets(["大 é京"])
    assert spell(it, ids) == "_ 大 _ [UNK] 京"
    assert offsets[1:] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    ((_, offsets),) = it.encode_with_offsets(["a cat"])
    assert offsets[1:] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_lowercase_is_applied_before_the_model(model: bytes, tmp_path: Path):
    it = load(model, tmp_path, lowercase=True)
    assert spell(it, it.encode(["The CAT"])[0]) == "_ t h e _ c a t"
    # U+0130 becomes two characters; the offsets are those of the input.
    ((ids, offsets),) = it.encode_with_offsets(["aİ大"])
    assert ids == it.encode(["aİ大"])[0]
    assert offsets[1] == (0, 1)
    assert offsets[-1] == (2, 3)
    it.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again") == it
    assert not load(model, tmp_path).lowercase


def test_lone_surrogates_do_not_stop_it(model: bytes, tmp_path: Path):
    it = load(model, tmp_path)
    assert spell(it, it.encode(["a\ud800a"])[0]) == "_ a _ a"  # U+FFFD


def test_albert_names_are_accepted(tmp_path: Path):
    albert = train(
        **{"pad_piece": "<pad>", "unk_piece": "<unk>", "bos_id": -1, "eos_id": -1},
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
    )
    it = load(albert, tmp_path)
    assert [it.tokens[index] for index in it.special_ids] == [
        *("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    ]
    assert it.tokens[it.pad_id] == "<pad>"


def test_albert_changes_quotes_accents_and_case(tmp_path: Path):
    albert = train(
        **{"pad_piece": "<pad>", "unk_piece": "<unk>", "bos_id": -1, "eos_id": -1},
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        user_defined_symbols=['"'],
    )
    it = load(albert, tmp_path, rules="huggingface")
    assert (it.rules, it.lowercase, it.strip_accents) == ("huggingface", True, True)
    ((ids, offsets),) = it.encode_with_offsets(["``Cá''T"])
    assert spell(it, ids) == '_ " c a " t'
    assert offsets[1:] == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]
    assert it.encode(["``Cá''T"]) == [ids]
    it.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert (again, again.fingerprint) == (it, it.fingerprint)
    # Hugging Face's folders have the class, or keep_accents.
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"tokenizer_class": "AlbertTokenizer", "do_lower_case": false}')
    it = Tokenizer.load(tmp_path)
    assert (it.rules, it.lowercase, it.strip_accents) == ("huggingface", False, True)
    config.unlink()
    assert Tokenizer.load(tmp_path).rules == "google"
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    it = Tokenizer.load(tmp_path)
    assert (it.rules, it.lowercase, it.strip_accents) == ("huggingface", True, True)
    config.write_text('{"rules": "google", "do_lower_case": false}')  # ours
    assert Tokenizer.load(tmp_path).rules == "google"
    config.write_text('{"keep_accents": true}')
    it = Tokenizer.load(tmp_path)
    assert (it.rules, it.lowercase, it.strip_accents) == ("huggingface", True, False)
    assert spell(it, it.encode(["Cá"])[0]) == "_ c <unk>"


def test_t5_names_are_rejected(tmp_path: Path):
    t5 = train(
        **{"pad_piece": "<pad>", "unk_piece": "<unk>", "eos_piece": "</s>"},
        **{"bos_id": -1, "eos_id": 2, "control_symbols": []},
    )
    with pytest.raises(errors.InputError) as caught:
        load(t5, tmp_path)
    assert "has no [CLS], [MASK] among its" in str(caught.value)


def test_special_tokens_that_raw_text_could_contain_are_rejected(tmp_path: Path):
    loose = train(control_symbols=[], user_defined_symbols=["[MASK]"])
    with pytest.raises(errors.InputError, match=r"\[MASK\] \(id 4\) is an ordinary"):
        load(loose, tmp_path)


@pytest.mark.parametrize("content", [b"hello world", b"\x00" * 99, b"[PAD]\n[UNK]\n"])
def test_files_that_are_not_a_model_are_rejected(tmp_path: Path, content: bytes):
    with pytest.raises(errors.InputError, match="is not a SentencePiece model"):
        load(content, tmp_path)


def test_broken_models_are_rejected(model: bytes, tmp_path: Path):
    for cut in (1, 50, len(model) // 2, len(model) - 1):
        with pytest.raises(errors.InputError):
            load(model[:cut], tmp_path)
    with pytest.raises(errors.InputError, match="is empty"):
        load(b"", tmp_path)
    no_text = model.replace("京".encode(), b"\xff\xff\xff")  # a token that is not UTF-8
    with pytest.raises(errors.InputError, match="is not a SentencePiece model"):
        load(no_text, tmp_path)


def test_strip_accents_is_rejected(model: bytes, tmp_path: Path):
    with pytest.raises(
        errors.InputError, match="strip_accents is for WordPiece and ALBERT"
    ):
        load(model, tmp_path, strip_accents=True)


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
    assert _read(content, spiece.message_of_model) == _read(content, theirs)


def test_fields_that_are_not_there_have_the_published_defaults():
    empty = spiece.message_of_model(b"")
    assert empty.trainer_spec.model_type == spiece.UNIGRAM == 1
    assert empty.normalizer_spec.add_dummy_prefix is True
    assert empty.normalizer_spec.remove_extra_whitespaces is True
    assert empty.normalizer_spec.precompiled_charsmap == b""
    assert empty.trainer_spec.byte_fallback is False
    (piece,) = spiece.message_of_model(b"\x0a\x00").pieces
    assert (piece.piece, piece.score, piece.type) == ("", 0.0, 1)


def test_an_encoding_has_the_bytes_of_its_tokens():
    processor = sentencepiece.SentencePieceProcessor(model_proto=train())
    content = processor.encode("a 北", out_type="serialized_proto")
    pieces = spiece.message_of_text(content).pieces
    assert [(piece.begin, piece.end) for piece in pieces][-1] == (2, 5)
    assert [piece.id for piece in pieces] == processor.encode("a 北")


def test_offsets_and_exports_need_no_generated_code(tmp_path):
    (tmp_path / "spiece.model").write_bytes(train(model_type="bpe", vocab_size=40))
    program = (
        f"{REFUSED}from bert_jax.text.tokenizer import Tokenizer\n"
        "it = Tokenizer.load(pathlib.Path(sys.argv[1]))\n"
        "[(ids, bounds)] = it.encode_with_offsets(['the cat'])\n"
        "assert bounds[-1][1] == 7, bounds\n"
        "assert it.pipeline()['model']['type'] == 'BPE'\n"
    )
    _run(program, str(tmp_path))


def test_a_wordpiece_model_needs_no_sentencepiece(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    program = (
        "import pathlib, sys\nsys.modules['sentencepiece'] = None\n"
        "from bert_jax import load, pretrain, finetune, predict, convert\n"
        "from bert_jax.text.tokenizer import Tokenizer\n"
        "it = Tokenizer.load(pathlib.Path(sys.argv[1]))\n"
        "assert it.encode(['the cat']) == [[5, 6]]\n"
    )
    _run(program, str(tmp_path))


def _run(program: str, *arguments: str) -> None:
    words = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def both(it: Tokenizer, text: str) -> tuple[str, str]:
    """Tokenizes a text by the sentencepiece library, and by `tokenizers`."""
    rust = backend.Backend(it.pipeline(), it.specials)
    (ours,), (theirs,) = it.encode([text]), rust.encode([text])
    return spell(it, ours), spell(it, theirs)


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A unigram model with tokens of several exclamation marks."""
    texts = [*TEXTS, *(f"a cat{'!' * n} ｶﾞ 한국" for n in (1, 2, 3, 3, 3, 5) * 9)]
    folder = tmp_path_factory.mktemp("unigram")
    return vocabulary.learn(
        texts,
        kind="sentencepiece-unigram",
        vocab_size=60,
        lowercase=False,
        folder=folder,
    )


def test_tokenizers_breaks_ties_otherwise(unigram: Tokenizer):
    pairs = [both(unigram, f"the cat{'!' * count}") for count in range(40)]
    different = [(ours, theirs) for ours, theirs in pairs if ours != theirs]
    assert different, unigram.tokens
    for ours, theirs in different:  # the same tokens in another order
        assert sorted(ours.split()) == sorted(theirs.split())
    ours, theirs = both(unigram, "the cat! a dog 北京大学")
    assert ours == theirs


@pytest.mark.parametrize("text", ["ｶﾞ", "\U0010ffff", "a\U0010ffffb"])
def test_tokenizers_normalizes_some_characters_otherwise(unigram: Tokenizer, text: str):
    ours, theirs = both(unigram, text)
    assert ours != theirs
