"""vocab.json and merges.txt mean what RobertaTokenizer makes of them."""

import json
from pathlib import Path

import pytest
import small_tokenizers

from bert_jax import errors
from bert_jax.text import byte_level_files, folder_options, tokenizer

TEXTS = ["the cat sat", " the  cats! ", "", "naïve 北京 😀\n\tx", "a\u0301"]


def read(folder: Path) -> dict:
    """Reads the files of a folder with the options beside them."""
    return byte_level_files.read(folder, folder_options.read(folder))


@pytest.mark.parametrize("prefix", [False, True])
def test_ids_and_offsets_of_transformers(tmp_path: Path, prefix: bool):
    transformers = pytest.importorskip("transformers")
    small_tokenizers.write_roberta(tmp_path)
    config = {"add_prefix_space": prefix, "tokenizer_class": "RobertaTokenizer"}
    small_tokenizers.write_json(tmp_path, config, "tokenizer_config.json")
    theirs = transformers.RobertaTokenizer.from_pretrained(str(tmp_path))
    ours = tokenizer.load(tmp_path)
    for text, (ids, offsets) in zip(
        TEXTS, ours.encode_with_offsets(TEXTS), strict=True
    ):
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert (ids, offsets) == (found["input_ids"], found["offset_mapping"])
        pair = theirs(text, "a cat", return_token_type_ids=True)
        row = ours.build(ids, ours.encode(["a cat"])[0])
        assert row == (pair["input_ids"], pair["token_type_ids"])
        assert ours.build(ids)[0] == theirs(text)["input_ids"]


def test_added_tokens_follow_the_vocabulary(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path)
    size = len(byte_level_files.ids(tmp_path / "vocab.json"))
    small_tokenizers.write_json(tmp_path, {"covid": size}, "added_tokens.json")
    it = tokenizer.load(tmp_path)
    assert it.tokens[size] == "covid"
    assert it.encode(["the covid"])[0][-1] == size


def test_written_files_are_those_that_were_read(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path / "a")
    tree = read(tmp_path / "a")
    (tmp_path / "b").mkdir()
    byte_level_files.write(tree, tmp_path / "b")
    assert read(tmp_path / "b") == tree
    first, *lines = (tmp_path / "b" / "merges.txt").read_text().splitlines()
    assert first.startswith("#version") and " " in lines[0]
    theirs = (tmp_path / "a" / "merges.txt").read_text().splitlines()[1:]
    assert lines == theirs


def test_are_in(tmp_path: Path):
    assert not byte_level_files.are_in(tmp_path)
    small_tokenizers.write_roberta(tmp_path)
    assert byte_level_files.are_in(tmp_path)
    (tmp_path / "merges.txt").unlink()
    assert not byte_level_files.are_in(tmp_path)
    with pytest.raises(errors.InputError, match="merges.txt does not exist"):
        tokenizer.load(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ("#version: 0.2\na t\nth\n", r"merges.txt:3: 'th' does not join two pieces"),
        ("t h e\n", r"merges.txt:1: 't h e'"),
        ("t q\n", r"merges.txt:1: 't q' does not join two pieces of vocab.json"),
        ("é h\n", r"merges.txt:1: 'é h'"),
        ("", "merges.txt is empty"),
    ],
)
def test_merges_that_do_not_fit_are_refused(tmp_path: Path, merges: str, message: str):
    small_tokenizers.write_roberta(tmp_path)
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    with pytest.raises(errors.InputError, match=message):
        tokenizer.load(tmp_path)


def test_carriage_returns_and_blank_ends_are_dropped(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path)
    before = tokenizer.load(tmp_path).fingerprint
    path = tmp_path / "merges.txt"
    text = path.read_text(encoding="utf-8").replace("\n", "\r\n") + "\r\n"
    path.write_bytes(text.encode())
    assert tokenizer.load(tmp_path).fingerprint == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"the": 3}, "has two pieces with id 3"),
        ({"zzz": 999}, "has no piece with id"),
        ({"the": None}, "the id of the piece 'the' is None"),
        ({"<unk>": None}, "the id of the piece '<unk>' is None"),
    ],
)
def test_bad_vocabularies_are_refused(tmp_path: Path, change: dict, message: str):
    small_tokenizers.write_roberta(tmp_path)
    path = tmp_path / "vocab.json"
    whole = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(whole))
    with pytest.raises(errors.InputError, match=message):
        tokenizer.load(tmp_path)


def test_a_vocabulary_without_unknown_is_refused(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path)
    path = tmp_path / "vocab.json"
    text = path.read_text(encoding="utf-8").replace('"<unk>"', '"<other>"')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(errors.InputError, match=r"vocab.json has no \[UNK\] among"):
        tokenizer.load(tmp_path)
