"""Files of vocabularies: what they mean, and errors that give the line or entry."""

import json
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers
import tokenizers

from bert_jax import errors
from bert_jax.text import backend, files, pipelines, specials
from bert_jax.text.tokenizer import Tokenizer

TOKENS = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "▁", "▁the", "a", "t", "▁a"]
UNIGRAM: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {**small_tokenizers.BERT_JSON["added_tokens"][0], "id": i, "content": TOKENS[i]}
        for i in range(5)
    ],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]},
    "pre_tokenizer": {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": True,
    },
    "post_processor": None,
    "decoder": None,
    # ALBERT's special tokens have the best score of all: text must not become them.
    "model": {
        "type": "Unigram",
        "unk_id": 1,
        "byte_fallback": False,
        "vocab": [[piece, 0.0 if i < 5 else -1.0 - i] for i, piece in enumerate(TOKENS)]
        + [["[", -20.0], ["m", -20.0]],
    },
}


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Small byte-level BPE."""
    folder = tmp_path_factory.mktemp("roberta")
    return Tokenizer.load(small_tokenizers.write_roberta(folder))


def described(tree: Any, folder: Path) -> Tokenizer:
    """Writes a tokenizer.json and loads it."""
    return Tokenizer.load(small_tokenizers.write_json(folder, tree))


def spell(it: Tokenizer, ids: list[int]) -> str:
    """Joins tokens with spaces."""
    return " ".join(it.tokens[index] for index in ids)


def test_byte_level_ids_and_offsets(roberta: Tokenizer):
    assert roberta.kind == "tokenizer_json"
    assert not roberta.lowercase and not roberta.strip_accents
    rows = roberta.encode(["the cat", " the", "", "Cé京"])
    assert spell(roberta, rows[0]) == "the Ġcat"
    assert spell(roberta, rows[1]) == "Ġthe"
    assert rows[2] == []
    assert spell(roberta, rows[3]).startswith("C Ã © ")
    ids, lengths = roberta.encode_flat(["the cat", "", "the"])
    assert ids.tolist() == [*rows[0], rows[0][0]]
    assert lengths.tolist() == [2, 0, 1]
    ((ids, offsets),) = roberta.encode_with_offsets(["the  cat é"])
    assert ids == roberta.encode(["the  cat é"])[0]
    # Blanks are no part of a word, and both bytes of a letter are at the letter.
    assert offsets[0] == (0, 3) and offsets[2] == (5, 8) and offsets[-1] == (9, 10)
    assert roberta.decode(roberta.encode(["the cat é京!"])[0]) == "the cat é京!"


def test_raw_text_never_becomes_a_special_token(roberta: Tokenizer):
    raw = "<s> the <mask> </s><pad><unk> [MASK]"
    (row,) = roberta.encode([raw])
    assert not set(row) & set(roberta.special_ids)
    assert roberta.encode_flat([raw])[0].tolist() == row
    assert roberta.encode_with_offsets([raw])[0][0] == row
    assert roberta.decode(row) == raw


def test_raw_text_never_becomes_a_special_token_of_unigram(tmp_path: Path):
    it = described(UNIGRAM, tmp_path)
    assert it.lowercase
    (row,) = it.encode(["the [MASK] [mask] <pad> a"])
    assert not set(row) & {0, 2, 3, 4}
    (row,) = it.encode(["\U0010ffff[MASK] a\U0010ffff<pad>"])  # the names inside
    assert not set(row) & {0, 2, 3, 4}
    assert spell(it, it.encode(["The A"])[0]) == "▁the ▁a"
    assert it.build([7], [8]) == ([2, 7, 3, 8, 3], [0, 0, 0, 1, 1])


def test_encode_text_reads_the_mask_in_both_spellings(roberta: Tokenizer):
    text = roberta.encode_text("the <mask> cat<mask>")
    assert spell(roberta, text) == "the <mask> Ġcat <mask>"  # it takes the space
    assert roberta.encode_text("the [MASK] cat[MASK]") == text
    assert spell(roberta, roberta.encode_text("<s>the cat")).startswith("< s > t")
    assert roberta.encode_text("[MASK]") == [roberta.mask_id]


def test_word_starts_and_special_ids(roberta: Tokenizer):
    starts = {
        t for t, c in zip(roberta.tokens, roberta.is_continuation, strict=True) if not c
    }
    assert {"<s>", "<mask>", "Ġ", "Ġcat"} <= starts
    assert "the" not in starts and "a" not in starts
    assert roberta.special_ids == (0, 1, 2, 3, 4)
    assert (roberta.cls_id, roberta.pad_id, roberta.sep_id, roberta.unk_id) == (
        0,
        1,
        2,
        3,
    )
    assert roberta.mask_id == 4
    assert roberta.build([7], [8]) == ([0, 7, 2, 2, 8, 2], [0] * 6)


def test_word_marks_of_other_models(tmp_path: Path):
    it = described(UNIGRAM, tmp_path / "unigram")
    assert it.is_continuation.tolist() == [False] * 7 + [True, True, False, True, True]
    tree = small_tokenizers.bert_json()
    tree["pre_tokenizer"] = {"type": "Whitespace"}
    it = described(tree, tmp_path / "wordpiece")
    assert it.kind == "tokenizer_json"
    marked = [t for t, c in zip(it.tokens, it.is_continuation, strict=True) if c]
    assert marked == ["##s", "##able"]
    assert spell(it, it.encode(["the cats!"])[0]) == "the cat ##s !"
    # Whole words that are special tokens stay text.
    assert set(it.encode(["[MASK] [CLS]"])[0]).isdisjoint({2, 4})


def test_lone_surrogates_do_not_stop_it(roberta: Tokenizer):
    assert roberta.encode(["a\ud800"]) == roberta.encode(["a\ufffd"])
    assert len(roberta.encode_text("a\ud800<mask>")) > 2


def test_padding_and_truncation_of_the_file_are_left_out(tmp_path: Path):
    padding = {"strategy": {"Fixed": 30}, "direction": "Right", "pad_id": 0}
    padding |= {"pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "<pad>"}
    cut = {"max_length": 1, "strategy": "LongestFirst", "stride": 0}
    tree = {**UNIGRAM, "padding": padding, "truncation": cut}
    it = described(tree, tmp_path / "a")
    assert it.encode(["a a a"]) == [[9, 9, 9]]
    assert it.fingerprint == described(UNIGRAM, tmp_path / "b").fingerprint


def test_canonical_bytes_do_not_depend_on_the_order_of_keys():
    turned = json.loads(json.dumps(UNIGRAM))
    turned = dict(reversed(turned.items()))
    assert pipelines.canonical(turned) == pipelines.canonical(UNIGRAM)
    content = pipelines.canonical(UNIGRAM)
    assert pipelines.canonical(json.loads(content)) == content


def test_special_tokens_are_matched_exactly(tmp_path: Path):
    tree = small_tokenizers.bert_json()
    tree["pre_tokenizer"] = {"type": "Whitespace"}
    for token in tree["added_tokens"]:
        token["normalized"] = True  # in lowercased text [MASK] is [mask]
    it = described(tree, tmp_path)
    assert it.encode_text("the [MASK] cat")[1] == it.mask_id
    assert it.encode_text("[mask] [MASK]").count(it.mask_id) == 1


def test_added_words_are_read_from_text(tmp_path: Path):
    tree = small_tokenizers.bert_json()
    word = {**tree["added_tokens"][0], "id": 19, "content": "covid-19"}
    extra = {**tree["added_tokens"][0], "id": 20, "content": "<ent>"}
    tree["added_tokens"] += [{**word, "special": False}, extra]
    it = described(tree, tmp_path)
    assert it.tokens[18:] == ("##able", "covid-19", "<ent>")
    assert spell(it, it.encode(["the covid-19 <ent>"])[0]) == "the covid-19 <ent>"
    rust = tokenizers.Tokenizer.from_str(json.dumps(tree))
    rust.no_truncation()
    text = "the covid-19 cats [MASK]"
    assert it.encode_text(text) == rust.encode(text, add_special_tokens=False).ids


def _vocabulary(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json with changed ids; None removes a token."""
    tree = small_tokenizers.bert_json()
    whole = tree["model"]["vocab"] | changes
    tree["model"]["vocab"] = {k: v for k, v in whole.items() if v is not None}
    return tree


def _unigram(entry: Any) -> dict[str, Any]:
    """A Unigram tokenizer.json with one more entry."""
    model = UNIGRAM["model"]
    return {**UNIGRAM, "model": {**model, "vocab": [*model["vocab"], entry]}}


def _added(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json whose first added token is changed."""
    tree = small_tokenizers.bert_json()
    tree["added_tokens"][0] |= changes
    return tree


def _beyond(*ids: int) -> dict[str, Any]:
    """A tokenizer.json with added tokens after its vocabulary."""
    tree = small_tokenizers.bert_json()
    first = tree["added_tokens"][0]
    tree["added_tokens"] += [{**first, "id": i, "content": f"<{i}>"} for i in ids]
    return tree


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "the tokenizers library"),
        ({"model": 5}, "the tokenizers library"),
        ({"model": {"vocab": {}}}, "the tokenizers library"),
        (_vocabulary(sat=None), "id 8, near '北'"),
        (_vocabulary(sat=7), "id 7, near"),
        (_vocabulary(sat=99), "id 8"),
        (_vocabulary(sat=-1), "the tokenizers library"),
        (_vocabulary(sat=1.5), "the tokenizers library"),
        (_vocabulary(sat=True), "the tokenizers library"),
        (_vocabulary(sat=2**40), "the tokenizers library"),
        (_vocabulary(sat="8"), "the tokenizers library"),
        (_unigram(["a", -1.0]), "id 7"),
        (_unigram(["x"]), "the tokenizers library"),
        (_unigram([5, 1.0]), "the tokenizers library"),
        (_unigram("x"), "the tokenizers library"),
        (_added(id=7), r"'\[PAD\]' .* 0 .* 7"),
        (_added(id="0"), "the tokenizers library"),
        (_added(content=7), "the tokenizers library"),
        ({**UNIGRAM, "added_tokens": 3}, "the tokenizers library"),
        (_added(content="[NEW]", id=25), "id 19"),
        (_beyond(20, 19), "added_tokens"),
        ({**UNIGRAM, "pre_tokenizer": {"type": "Strange"}}, "tokenizer.json"),
        ({**UNIGRAM, "model": {**UNIGRAM["model"], "unk_id": 99}}, "tokenizer.json"),
        ({**UNIGRAM, "post_processor": {"type": "Strange"}}, "post_processor"),
    ],
)  # fmt: skip
def test_broken_files_are_rejected(tmp_path: Path, tree: Any, message: str):
    with pytest.raises(errors.InputError, match=message) as caught:
        described(tree, tmp_path)
    assert "tokenizer.json" in str(caught.value)


def test_files_that_are_no_json_are_rejected(tmp_path: Path):
    whole = json.dumps(UNIGRAM)
    doubled = whole.replace('"version": "1.0"', '"version": "1.0", "version": "1.0"')
    for text in ("", "[]", whole[:-1], whole[: len(whole) // 2], doubled, "[" * 99_999):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(errors.InputError, match="tokenizer.json"):
            Tokenizer.load(tmp_path)


def test_merges_that_do_not_fit_are_rejected(tmp_path: Path):
    vocabulary = {name: i for i, name in enumerate([*TOKENS, "b"])}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]]}
    with pytest.raises(errors.InputError, match="can use: Token `ab` out of vocab"):
        described({**UNIGRAM, "model": model}, tmp_path)


def test_panics_of_the_library_are_one_message(tmp_path: Path, capfd: Any):
    broken = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(errors.InputError, match="can use: Precompiled"):
        described({**UNIGRAM, "normalizer": broken}, tmp_path)
    capfd.readouterr()  # the library's own output


def test_a_missing_mask_hides_its_usual_names():
    content = pipelines.canonical(UNIGRAM)
    few = specials.SpecialTokens("<pad>", "<unk>", "[CLS]", "[SEP]", None)
    it = backend.Backend(json.loads(content), few)
    assert 4 not in it.encode(["[MASK]"])[0]


LINES = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


def write_vocabulary(folder: Path, content: bytes | str) -> Path:
    """Writes a vocabulary and returns its path."""
    path = folder / "vocab.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_line_is_the_id(tmp_path: Path):
    path = write_vocabulary(tmp_path, LINES + "a\n##b\n北\n")
    assert files.read_vocabulary(path)[4:] == ("[MASK]", "a", "##b", "北")


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + LINES + "a",
        (LINES + "a\n").replace("\n", "\r\n"),
        LINES + "a \n\n \n",
    ],
)
def test_byte_order_marks_and_blank_ends_are_dropped(tmp_path: Path, content: str):
    tokens = files.read_vocabulary(write_vocabulary(tmp_path, content))
    assert tokens == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")


def test_tokens_of_other_white_space_keep_their_ids(tmp_path: Path):
    tokens = files.read_vocabulary(
        write_vocabulary(tmp_path, LINES + "\u2028\n##\u2028\na\n")
    )
    assert tokens[5:] == ("\u2028", "##\u2028", "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocab.txt is empty"),
        (b" \n\n", "vocab.txt is empty"),
        (LINES + "a\nb\na\n", r"lines 6 and 8 .* 'a'"),
        (LINES + "a\n\nb\n", r"vocab.txt:7: "),
        (LINES + "a\t12\n", r"vocab.txt:6: .*'a\\t12'"),
        (LINES + "two words\n", r"vocab.txt:6: .*'two words'"),
        (b"[PAD]\n[UNK]\nab\xffc\n", r"vocab.txt:3: byte 14 \(0xff\)"),
        (LINES.encode("utf-16"), "vocab.txt:1: .*UTF-8"),
    ],
)
def test_bad_vocabularies_are_rejected(
    tmp_path: Path, content: bytes | str, message: str
):
    with pytest.raises(errors.InputError, match=message):
        files.read_vocabulary(write_vocabulary(tmp_path, content))


def test_missing_file_and_folder_are_rejected(tmp_path: Path):
    with pytest.raises(errors.InputError, match="does not exist"):
        files.read_vocabulary(tmp_path / "none.txt")
    with pytest.raises(errors.InputError, match="cannot be read: Is a directory"):
        files.read_vocabulary(tmp_path)


def test_lowercase_is_seen_in_the_pieces():
    assert files.is_lowercase(("[PAD]", "[unused1]", "<S>", "a", "##é", "京"))
    assert not files.is_lowercase(("[PAD]", "a", "##B"))
    assert not files.is_lowercase(("[PAD]", "É"))


BYTE_TEXTS = ["the cat sat", " the  cats! ", "", "naïve 北京 😀\n\tx", "a\u0301"]


@pytest.mark.parametrize("prefix", [False, True])
def test_ids_and_offsets_of_transformers(tmp_path: Path, prefix: bool):
    transformers = pytest.importorskip("transformers")
    small_tokenizers.write_roberta(tmp_path)
    config = {"add_prefix_space": prefix, "tokenizer_class": "RobertaTokenizer"}
    small_tokenizers.write_json(tmp_path, config, "tokenizer_config.json")
    theirs = transformers.RobertaTokenizer.from_pretrained(str(tmp_path))
    ours = Tokenizer.load(tmp_path)
    for text, (ids, offsets) in zip(
        BYTE_TEXTS, ours.encode_with_offsets(BYTE_TEXTS), strict=True
    ):
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert (ids, offsets) == (found["input_ids"], found["offset_mapping"])
        pair = theirs(text, "a cat", return_token_type_ids=True)
        row = ours.build(ids, ours.encode(["a cat"])[0])
        assert row == (pair["input_ids"], pair["token_type_ids"])
        assert ours.build(ids)[0] == theirs(text)["input_ids"]


def test_added_tokens_follow_the_vocabulary(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path)
    size = len(json.loads((tmp_path / "vocab.json").read_text()))
    small_tokenizers.write_json(tmp_path, {"covid": size}, "added_tokens.json")
    it = Tokenizer.load(tmp_path)
    assert it.tokens[size] == "covid"
    assert it.encode(["the covid"])[0][-1] == size


def test_written_files_are_those_that_were_read(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path / "a")
    it = Tokenizer.load(tmp_path / "a")
    (tmp_path / "b").mkdir()
    files.write_byte_level(it.pipeline(), tmp_path / "b")
    assert Tokenizer.load(tmp_path / "b") == it
    first, *lines = (tmp_path / "b" / "merges.txt").read_text().splitlines()
    assert first.startswith("#version") and " " in lines[0]
    theirs = (tmp_path / "a" / "merges.txt").read_text().splitlines()[1:]
    assert lines == theirs


def test_has_byte_level(tmp_path: Path):
    assert not files.has_byte_level(tmp_path)
    small_tokenizers.write_roberta(tmp_path)
    assert files.has_byte_level(tmp_path)
    (tmp_path / "merges.txt").unlink()
    assert not files.has_byte_level(tmp_path)
    with pytest.raises(errors.InputError, match="merges.txt does not exist"):
        Tokenizer.load(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ("#version: 0.2\na t\nth\n", r"merges.txt:3: 'th'"),
        ("t h e\n", r"merges.txt:1: 't h e'"),
        ("t q\n", r"merges.txt:1: 't q' .* vocab.json"),
        ("é h\n", r"merges.txt:1: 'é h'"),
        ("", "merges.txt is empty"),
    ],
)
def test_bad_merges_are_rejected(tmp_path: Path, merges: str, message: str):
    small_tokenizers.write_roberta(tmp_path)
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    with pytest.raises(errors.InputError, match=message):
        Tokenizer.load(tmp_path)


def test_carriage_returns_and_blank_ends_are_dropped(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path)
    before = Tokenizer.load(tmp_path).fingerprint
    path = tmp_path / "merges.txt"
    text = path.read_text(encoding="utf-8").replace("\n", "\r\n") + "\r\n"
    path.write_bytes(text.encode())
    assert Tokenizer.load(tmp_path).fingerprint == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"the": 3}, "id 3, near"),
        ({"zzz": 999}, "with id "),
    ],
)
def test_bad_byte_level_vocabularies_are_rejected(
    tmp_path: Path, change: dict, message: str
):
    small_tokenizers.write_roberta(tmp_path)
    path = tmp_path / "vocab.json"
    whole = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(whole))
    with pytest.raises(errors.InputError, match=message):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_without_unknown_is_rejected(tmp_path: Path):
    small_tokenizers.write_roberta(tmp_path)
    path = tmp_path / "vocab.json"
    text = path.read_text(encoding="utf-8").replace('"<unk>"', '"<other>"')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(errors.InputError, match=r"vocab.json has no \[UNK\] among"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "model",
    [
        {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"a": 0, "b": 1}},
        {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0], ["b", -2.0]]},
    ],
    ids=["WordPiece", "Unigram"],
)
def test_a_tokenizer_that_cannot_encode_unknown_characters(model):
    extra = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    model = model | (extra if model["type"] == "WordPiece" else {})
    with pytest.raises(errors.InputError, match="t.json"):
        files.TokenizerJson(
            {"version": "1.0", "added_tokens": [], "model": model}, "t.json"
        )
