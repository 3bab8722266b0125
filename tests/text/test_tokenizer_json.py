"""Any tokenizer.json: ids as it says, and special pieces never out of raw text."""

import json
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers
import tokenizers

from bert_jax import errors
from bert_jax.text import special_pieces, tokenizer, tokenizer_json

PIECES = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "▁", "▁the", "a", "t", "▁a"]
UNIGRAM: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {**small_tokenizers.BERT_JSON["added_tokens"][0], "id": i, "content": PIECES[i]}
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
    # ALBERT's special pieces have the best score of all: text must not become them.
    "model": {
        "type": "Unigram",
        "unk_id": 1,
        "byte_fallback": False,
        "vocab": [[piece, 0.0 if i < 5 else -1.0 - i] for i, piece in enumerate(PIECES)]
        + [["[", -20.0], ["m", -20.0]],
    },
}


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> tokenizer.Tokenizer:
    """Small byte-level BPE."""
    folder = tmp_path_factory.mktemp("roberta")
    return tokenizer.load(small_tokenizers.write_roberta(folder))


def described(tree: Any, folder: Path) -> tokenizer.Tokenizer:
    """Writes a tokenizer.json and loads it."""
    return tokenizer.load(small_tokenizers.write_json(folder, tree))


def spell(it: tokenizer.Tokenizer, ids: list[int]) -> str:
    """Joins pieces with blanks."""
    return " ".join(it.tokens[index] for index in ids)


def test_byte_level_ids_and_offsets(roberta: tokenizer.Tokenizer):
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


def test_raw_text_never_becomes_a_special_piece(roberta: tokenizer.Tokenizer):
    raw = "<s> the <mask> </s><pad><unk> [MASK]"
    (row,) = roberta.encode([raw])
    assert not set(row) & set(roberta.special_ids)
    assert roberta.encode_flat([raw])[0].tolist() == row
    assert roberta.encode_with_offsets([raw])[0][0] == row
    assert roberta.decode(row) == raw


def test_raw_text_never_becomes_a_special_piece_of_unigram(tmp_path: Path):
    it = described(UNIGRAM, tmp_path)
    assert it.lowercase
    (row,) = it.encode(["the [MASK] [mask] <pad> a"])
    assert not set(row) & {0, 2, 3, 4}
    (row,) = it.encode(["\U0010ffff[MASK] a\U0010ffff<pad>"])  # the names inside
    assert not set(row) & {0, 2, 3, 4}
    assert spell(it, it.encode(["The A"])[0]) == "▁the ▁a"
    assert it.build([7], [8]) == ([2, 7, 3, 8, 3], [0, 0, 0, 1, 1])


def test_encode_text_reads_the_mask_in_both_spellings(roberta: tokenizer.Tokenizer):
    text = roberta.encode_text("the <mask> cat<mask>")
    assert spell(roberta, text) == "the <mask> Ġcat <mask>"  # it takes the space
    assert roberta.encode_text("the [MASK] cat[MASK]") == text
    assert spell(roberta, roberta.encode_text("<s>the cat")).startswith("< s > t")
    assert roberta.encode_text("[MASK]") == [roberta.mask_id]


def test_word_starts_and_special_ids(roberta: tokenizer.Tokenizer):
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
    # Whole words that spell special pieces stay text.
    assert set(it.encode(["[MASK] [CLS]"])[0]).isdisjoint({2, 4})


def test_lone_surrogates_do_not_stop_it(roberta: tokenizer.Tokenizer):
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
    assert tokenizer_json.canonical(turned) == tokenizer_json.canonical(UNIGRAM)
    content = tokenizer_json.canonical(UNIGRAM)
    assert tokenizer_json.canonical(json.loads(content)) == content


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
    """A tokenizer.json with changed ids; None takes a piece out."""
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
        ({}, "no model with a vocabulary"),
        ({"model": 5}, "no model with a vocabulary"),
        ({"model": {"vocab": {}}}, "no model with a vocabulary"),
        ({"model": {"vocab": []}}, "no model with a vocabulary"),
        (_vocabulary(sat=None), "has no piece with id 8, near '北'"),
        (_vocabulary(sat=7), "has two pieces with id 7"),
        (_vocabulary(sat=99), "has no piece with id 8"),
        (_vocabulary(sat=-1), "the id of the piece 'sat' is -1"),
        (_vocabulary(sat=1.5), "the id of the piece 'sat' is 1.5"),
        (_vocabulary(sat=True), "the id of the piece 'sat' is True"),
        (_vocabulary(sat=2**40), "the id of the piece 'sat' is 1099511627776"),
        (_vocabulary(sat="8"), "the id of the piece 'sat' is '8'"),
        (_unigram(["a", -1.0]), "ids 7 and 12 hold the same piece 'a'"),
        (_unigram(["x"]), r"entry 12 of its vocabulary is \['x'\]"),
        (_unigram([5, 1.0]), "entry 12"),
        (_unigram("x"), "entry 12"),
        (_added(id=7), r"'\[PAD\]' has the id 0 in the vocabulary and 7 among"),
        (_added(id="0"), "among added_tokens is"),
        (_added(content=7), "among added_tokens is"),
        ({**UNIGRAM, "added_tokens": 3}, "among added_tokens is 3"),
        (_added(content="[NEW]", id=25), "has no piece with id 19"),
        (_beyond(20, 19), "added_tokens are not in the order of their ids"),
        ({**UNIGRAM, "pre_tokenizer": {"type": "Strange"}}, "can use"),
        ({**UNIGRAM, "model": {**UNIGRAM["model"], "unk_id": 99}}, "can use"),
        ({**UNIGRAM, "model": {**UNIGRAM["model"], "unk_id": None}}, "can use"),
        ({**UNIGRAM, "post_processor": {"type": "Strange"}}, "post_processor cannot"),
        (
            {**UNIGRAM, "post_processor": {"type": "BertProcessing"}
             | {"cls": ["[CLS]", 2], "sep": ["[SEP]", 12]}},
            "adds the id 12, and there are 12 pieces",
        ),
    ],
)  # fmt: skip
def test_broken_files_are_refused(tmp_path: Path, tree: Any, message: str):
    with pytest.raises(errors.InputError, match=message) as caught:
        described(tree, tmp_path)
    assert "tokenizer.json" in str(caught.value)


def test_files_that_are_no_json_are_refused(tmp_path: Path):
    whole = json.dumps(UNIGRAM)
    doubled = whole.replace('"version": "1.0"', '"version": "1.0", "version": "1.0"')
    for text in ("", "[]", whole[:-1], whole[: len(whole) // 2], doubled, "[" * 99_999):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(errors.InputError, match="tokenizer.json"):
            tokenizer.load(tmp_path)


def test_merges_that_do_not_fit_are_refused(tmp_path: Path):
    vocabulary = {name: i for i, name in enumerate([*PIECES, "b"])}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]]}
    with pytest.raises(errors.InputError, match="can use: Token `ab` out of vocab"):
        described({**UNIGRAM, "model": model}, tmp_path)


def test_panics_of_the_library_are_one_message(tmp_path: Path, capfd: Any):
    broken = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(errors.InputError, match="can use: Precompiled"):
        described({**UNIGRAM, "normalizer": broken}, tmp_path)
    capfd.readouterr()  # what the library says by itself


def test_specials_are_told_by_the_added_tokens_too():
    content = tokenizer_json.canonical(UNIGRAM)
    few = special_pieces.Specials("<pad>", "<unk>", "[CLS]", "[SEP]", None)
    backend = tokenizer_json.TokenizerJson(content, few)
    assert 4 not in backend.encode(["[MASK]"])[0]
