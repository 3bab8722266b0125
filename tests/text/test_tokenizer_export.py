"""An exported folder gives `transformers` the same ids, and loads as it was saved."""

import json
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers

from bert_jax import errors
from bert_jax.text import VocabularyKind, vocabulary
from bert_jax.text.tokenizer import Tokenizer

TEXTS = [
    "the cat sat on naïve mats, wasn't it?",
    "北京大学，我在读书 1998年。the",
    "",
    "  two  blanks\tand\nlines ",
    "ÀÉ ﬁ ½ ① ｶ é 한국어 русский 😀👨‍👩‍👧",
    "The CAT\u200b\u00a0x",
]


def auto(folder: Path) -> Any:
    """Loads a folder as a user of transformers does."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def learnt(kind: VocabularyKind, folder: Path, lowercase: bool) -> Tokenizer:
    """Learns a small vocabulary."""
    texts = [*small_tokenizers.TEXTS, *TEXTS, "ab abc abcd the cats"] * 9
    return vocabulary.learn(
        texts, kind=kind, vocab_size=150, lowercase=lowercase, folder=folder
    )


def roberta(folder: Path) -> Tokenizer:
    """Loads small byte-level BPE."""
    return Tokenizer.load(small_tokenizers.write_roberta(folder))


def check(it: Tokenizer, folder: Path, texts: list[str] = TEXTS) -> Any:
    """Saves, compares ids with specials, pairs and masks, and loads again."""
    it.export(folder, 97)
    theirs = auto(folder)
    assert theirs.model_max_length == 97
    mask = it.specials.mask
    for text in [*texts, f"the {mask} cat {mask}"]:
        ids = it.encode_text(text)
        assert (text, it.build(ids)[0]) == (text, theirs(text)["input_ids"])
        pair = theirs(text, "a cat", return_token_type_ids=True)
        row = it.build(ids, it.encode(["a cat"])[0])
        assert row == (pair["input_ids"], pair["token_type_ids"])
    names = (theirs.pad_token_id, theirs.unk_token_id, theirs.mask_token_id)
    assert names == (it.pad_id, it.unk_id, it.mask_id)
    assert (theirs.cls_token_id, theirs.sep_token_id) == (it.cls_id, it.sep_id)
    assert len(theirs) == it.vocab_size
    again = Tokenizer.load(folder)
    assert (again, again.fingerprint) == (it, it.fingerprint)
    return theirs


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece(tmp_path: Path, lowercase: bool):
    it = learnt("wordpiece", tmp_path / "learnt", lowercase)
    theirs = check(it, tmp_path / "saved")
    assert type(theirs).__name__ == "BertTokenizer"
    kept = Tokenizer("wordpiece", it.tokens, True, False)
    check(kept, tmp_path / "kept")


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("kind", ["sentencepiece-unigram", "sentencepiece-bpe"])
def test_sentencepiece(tmp_path: Path, kind: VocabularyKind, lowercase: bool):
    check(learnt(kind, tmp_path / "learnt", lowercase), tmp_path / "saved")


def test_sentencepiece_differs_where_several_characters_become_one(tmp_path: Path):
    it = learnt("sentencepiece-unigram", tmp_path / "learnt", False)
    it.export(tmp_path / "saved", 97)
    text = "ｶﾞ"  # half-width, two characters of three bytes: one for the model
    theirs = auto(tmp_path / "saved")(text, add_special_tokens=False)["input_ids"]
    assert [it.tokens[index] for index in it.encode([text])[0]] == ["▁", "[UNK]"]
    assert [it.tokens[index] for index in theirs] == ["▁", "カ", "[UNK]"]


def test_albert(tmp_path: Path):
    it = learnt("sentencepiece-unigram", tmp_path / "a", False)
    it = Tokenizer.load(tmp_path / "a", rules="huggingface", strip_accents=True)
    # Of Korean letters their code makes no syllables again.
    texts = [text.replace("한국어", "") for text in TEXTS]
    check(it, tmp_path / "saved", [*texts, "``the'' cat"])


def test_byte_level(tmp_path: Path):
    theirs = check(roberta(tmp_path / "a"), tmp_path / "saved", [*TEXTS, " the cat"])
    assert type(theirs).__name__ == "RobertaTokenizer"
    assert theirs.model_input_names == ["input_ids", "attention_mask"]
    transformers = pytest.importorskip("transformers")
    (tmp_path / "saved" / "tokenizer.json").unlink()
    theirs = transformers.RobertaTokenizer.from_pretrained(str(tmp_path / "saved"))
    text = TEXTS[1]
    it = Tokenizer.load(tmp_path / "a")
    assert theirs(text)["input_ids"] == it.build(it.encode([text])[0])[0]


def test_any_other_pipeline(tmp_path: Path):
    tree = small_tokenizers.bert_json()
    tree["pre_tokenizer"] = {"type": "Whitespace"}
    it = Tokenizer.load(small_tokenizers.write_json(tmp_path / "a", tree))
    theirs = check(it, tmp_path / "saved")
    assert type(theirs).__name__ != "BertTokenizer"
    assert not (tmp_path / "saved" / "vocab.json").exists()


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert"])
def test_a_model_config_next_to_it_changes_nothing(tmp_path: Path, kind: str):
    it = learnt("sentencepiece-unigram", tmp_path / "a", True)
    small_tokenizers.write_json(tmp_path / "saved", {"model_type": kind}, "config.json")
    check(it, tmp_path / "saved")


def test_official_vocabularies(shared_data: Path, tmp_path: Path):
    english = shared_data / "vocab" / "bert-base-uncased-vocab.txt"
    chinese = shared_data / "vocab" / "bert-base-chinese-vocab.txt"
    check(Tokenizer.load(english, rules="huggingface"), tmp_path / "en")
    check(Tokenizer.load(chinese, lowercase=False), tmp_path / "zh")


def test_files_and_their_bytes(tmp_path: Path):
    made = {
        "wordpiece": learnt("wordpiece", tmp_path / "w", True),
        "sentencepiece": learnt("sentencepiece-bpe", tmp_path / "s", False),
        "roberta": roberta(tmp_path / "r"),
    }
    own = {"wordpiece": ["vocab.txt"], "sentencepiece": ["spiece.model"]}
    own["roberta"] = ["vocab.json", "merges.txt"]
    always = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    for name, it in made.items():
        contents = []
        for folder in (tmp_path / name / "1", tmp_path / name / "2"):
            it.export(folder, 512)
            contents.append({p.name: p.read_bytes() for p in folder.iterdir()})
            it = Tokenizer.load(folder)
        assert contents[0] == contents[1]
        assert sorted(contents[0]) == sorted([*always, *own[name]])
        assert all(content.endswith(b"\n") for file, content in contents[0].items()
                   if file.endswith(".json") and file != "vocab.json")  # fmt: skip


def test_the_exported_options(tmp_path: Path):
    it = Tokenizer("wordpiece", small_tokenizers.BERT_TOKENS, False, False)
    it.export(tmp_path, 128)
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS")}
    special |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    found = json.loads((tmp_path / "special_tokens_map.json").read_text())
    assert found == special
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == special | {
        "do_lower_case": False,
        "model_max_length": 128,
        "rules": "google",
        "strip_accents": False,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
    }


def test_without_a_mask(tmp_path: Path):
    tokens = tuple(t for t in small_tokenizers.BERT_TOKENS if t != "[MASK]")
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    it = Tokenizer.load(tmp_path, require_mask=False)
    it.export(tmp_path / "saved", 512)
    assert (
        "mask_token" not in (tmp_path / "saved" / "tokenizer_config.json").read_text()
    )
    again = Tokenizer.load(tmp_path / "saved", require_mask=False)
    assert again.specials.mask is None and again == it


def test_lengths_below_one_are_rejected(tmp_path: Path):
    it = Tokenizer("wordpiece", small_tokenizers.BERT_TOKENS, False, False)
    for length in (0, -1):
        with pytest.raises(errors.InputError, match=f"max_length is {length}. Give 1"):
            it.export(tmp_path, length)
