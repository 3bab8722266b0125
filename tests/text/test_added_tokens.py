"""Tokens that a folder adds to its vocabulary: matched whole, as in transformers."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_tokenizers

from bert_jax import errors
from bert_jax.text import vocabulary, words
from bert_jax.text.tokenizer import Tokenizer

TOKENS = (*small_tokenizers.BERT_TOKENS, "e", "##1", "[E1]", "[/E1]", "1", "/")
E1, END = TOKENS.index("[E1]"), TOKENS.index("[/E1]")
NEW = len(TOKENS)  # the id after the vocabulary
TEXTS = [
    "the [E1]cat[/E1] sat",
    "[E1] 北 [/E1]京北京",
    " [E1]  the  [/E1]  cats",
    "unable[E1]able x[E1]x covid-19 Covid-19 the covid-19cat",
    "[e1] the [/e1] [ E1 ]",
    "<ent> naïve<ent><ent> [E1",
    "",
]
LIST = {"additional_special_tokens": ["[E1]", "[/E1]"]}


def token(content: str, **flags: bool) -> dict[str, Any]:
    """An entry as transformers writes it."""
    names = ("lstrip", "normalized", "rstrip", "single_word")
    return {"content": content} | dict.fromkeys(names, False) | flags


def decoder(**flags: bool) -> dict[str, Any]:
    special = {"special": True} | flags
    return {str(E1): token("[E1]", **special), str(END): token("[/E1]", **special)}


def in_json(*entries: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json of the same vocabulary with more added tokens."""
    tree = small_tokenizers.bert_json()
    tree["truncation"] = None
    tree["model"]["vocab"] = {piece: i for i, piece in enumerate(TOKENS)}
    tree["added_tokens"] += entries
    return tree


CONFIG = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
FOLDERS: dict[str, dict[str, Any]] = {
    "named in the map": {"special_tokens_map": LIST},
    "named in the options": {"tokenizer_config": CONFIG | LIST},
    "named by version 5": {
        "tokenizer_config": CONFIG | {"extra_special_tokens": ["[E1]", "[/E1]"]}
    },
    "named with flags": {
        "special_tokens_map": {
            "extra_special_tokens": [token("[E1]", lstrip=True), "[/E1]"]
        }
    },
    "the older file": {
        "special_tokens_map": {"additional_special_tokens": ["<ent>"]},
        "added_tokens": {"<ent>": NEW, "covid-19": NEW + 1},
    },
    "other roles": {
        "tokenizer_config": CONFIG | {"bos_token": "[E1]", "eos_token": "[/E1]"}
    },
    "the newer key": {"tokenizer_config": CONFIG | {"added_tokens_decoder": decoder()}},
    "strips": {
        "tokenizer_config": CONFIG
        | {"added_tokens_decoder": decoder(lstrip=True, rstrip=True)}
    },
    "single words": {
        "tokenizer_config": CONFIG | {"added_tokens_decoder": decoder(single_word=True)}
    },
    "normalized": {
        "tokenizer_config": CONFIG | {"added_tokens_decoder": decoder(normalized=True)}
    },
    "not special": {
        "tokenizer_config": CONFIG | {"added_tokens_decoder": decoder(special=False)}
    },
    "a tokenizer.json": {
        "tokenizer": in_json(
            token("[E1]", special=True, rstrip=True) | {"id": E1},
            token("<ent>", special=True) | {"id": NEW},
            token("covid-19", special=False, normalized=True) | {"id": NEW + 1},
        )
    },
    "a tokenizer.json and the newer key": {
        "tokenizer": in_json(token("[E1]", special=True) | {"id": E1}),
        "tokenizer_config": CONFIG | {"added_tokens_decoder": decoder()},
    },
    "a tokenizer.json and names": {
        "tokenizer": in_json(),
        "tokenizer_config": CONFIG | LIST,
    },
}


def write(folder: Path, files: dict[str, Any], pieces: tuple[str, ...] = TOKENS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    for name, tree in ({"tokenizer_config": CONFIG} | files).items():
        small_tokenizers.write_json(folder, tree, f"{name}.json")
    return folder


@pytest.mark.parametrize("kind", FOLDERS)
def test_added_tokens_are_matched_as_in_transformers(tmp_path: Path, kind: str):
    transformers = pytest.importorskip("transformers")
    folder = write(tmp_path / "folder", FOLDERS[kind])
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    expected = [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
    assert any({E1, END, NEW} & {*row} for row in expected)
    ours = Tokenizer.load(folder)
    assert ours.encode(TEXTS) == expected
    offsets = ours.encode_with_offsets(TEXTS)
    assert [ids for ids, _ in offsets] == expected
    assert ours.special_ids == (0, 1, 2, 3, 4)
    # Saved, exported and sent to another process they stay.
    ours.save(tmp_path / "saved")
    ours.export(tmp_path / "exported", 64)
    for again in (
        Tokenizer.load(tmp_path / "saved"),
        Tokenizer.load(tmp_path / "exported"),
        pickle.loads(pickle.dumps(ours)),
    ):
        assert again.encode(TEXTS) == expected
        assert again.fingerprint == ours.fingerprint
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "exported"))
    assert [theirs.encode(x, add_special_tokens=False) for x in TEXTS] == expected


def test_the_five_roles_stay_hidden(tmp_path: Path):
    added = {"added_tokens_decoder": decoder() | {"4": token("[MASK]", special=True)}}
    folder = write(tmp_path, {"tokenizer_config": CONFIG | added})
    it = Tokenizer.load(folder)
    (row,) = it.encode(["[E1] [CLS] [MASK] [PAD] [/E1]"])
    assert (row[0], row[-1]) == (E1, END) and not {*row} & {0, 2, 3, 4}
    assert it.encode_text("[E1][MASK][/E1]") == [E1, 4, END]
    assert it.decode([E1, TOKENS.index("cat"), END]) == "[E1] cat [/E1]"


def test_chinese_words_are_whole_around_added_tokens(tmp_path: Path):
    it = Tokenizer.load(write(tmp_path, {"special_tokens_map": LIST}))
    assert it.kind == "wordpiece"
    parts = ["[E1]", "北京", "[/E1]", "cat"]
    ids, lengths, starts = words.encode(it, ["[E1]北京[/E1]cat"], [parts])
    assert (ids.tolist(), lengths.tolist()) == ([E1, 9, 10, END, 6], [5])
    assert starts.tolist() == [True, True, False, True, True]


def test_a_name_that_the_vocabulary_lacks_is_ignored(tmp_path: Path):
    names = {"additional_special_tokens": ["[NEW]", "[E1]"], "eos_token": "</s>"}
    it = Tokenizer.load(write(tmp_path, {"special_tokens_map": names}))
    assert it.vocab_size == NEW and [t.content for t in it.added] == ["[E1]"]


def test_a_tokenizer_without_them_has_the_fingerprint_that_it_had(tmp_path: Path):
    it = Tokenizer.load(write(tmp_path, {}))
    head = json.dumps(["wordpiece", True, True, "huggingface"]).encode() + b"\n"
    assert it.fingerprint == hashlib.sha256(head + it.content).hexdigest()


def test_byte_level_bpe_finds_names_of_the_options(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    folder = small_tokenizers.write_roberta(tmp_path / "roberta")
    count = len(json.loads((folder / "vocab.json").read_text()))
    config = {
        "tokenizer_class": "RobertaTokenizer",
        "added_tokens_decoder": {
            str(count): token("[E1]", special=True),
            str(count + 1): token("<ent>", special=True, lstrip=True),
        },
    }
    small_tokenizers.write_json(folder, config, "tokenizer_config.json")
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    expected = [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
    ours = Tokenizer.load(folder)
    assert ours.encode(TEXTS) == expected and count in expected[0]
    assert np.isin(ours.special_ids, range(5)).all()


def test_sentencepiece_finds_added_tokens(tmp_path: Path):
    pytest.importorskip("sentencepiece")
    texts = [*small_tokenizers.TEXTS, "ab abc abcd the cats"] * 9
    plain = vocabulary.learn(
        texts,
        kind="sentencepiece-unigram",
        vocab_size=60,
        lowercase=True,
        folder=tmp_path,
    )
    new = plain.vocab_size
    small_tokenizers.write_json(tmp_path, {"[E1]": new}, "added_tokens.json")
    small_tokenizers.write_json(tmp_path, LIST, "special_tokens_map.json")
    it = Tokenizer.load(tmp_path)
    assert (it.vocab_size, it.special_ids) == (new + 1, plain.special_ids)
    row, again = it.encode(["the cat[E1] the", "the cats"])
    assert new in row and len(plain.encode(["the cat[E1] the"])[0]) > len(row)
    assert again == plain.encode(["the cats"])[0]


def test_wrong_flags_are_named(tmp_path: Path):
    wrong = {str(E1): token("[E1]") | {"lstrip": "yes"}}
    config = {"tokenizer_config": {"added_tokens_decoder": wrong}}
    with pytest.raises(errors.InputError, match=r"lstrip of the token '\[E1\]' is"):
        Tokenizer.load(write(tmp_path, config))
