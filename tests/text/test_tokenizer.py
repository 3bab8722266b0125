"""The Tokenizer: options, special ids, saving, loading, pickling."""

import json
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.text.tokenizer import Tokenizer

# [PAD] is not 0 here, so that a fixed id would show.
TOKENS = ("a", "[CLS]", "##b", "[MASK]", "[PAD]", "[SEP]", "[UNK]", "京", "##", "B")


def small(lowercase: bool = False) -> Tokenizer:
    """A tokenizer of ten tokens."""
    return Tokenizer("wordpiece", TOKENS, lowercase, lowercase)


def write(folder: Path, tokens: tuple[str, ...] = TOKENS, **config: object) -> Path:
    """Writes a vocab.txt, and the options that are given."""
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_ids_of_special_tokens():
    it = small()
    assert (it.cls_id, it.mask_id, it.pad_id, it.sep_id, it.unk_id) == (1, 3, 4, 5, 6)
    assert it.special_ids == (1, 3, 4, 5, 6)
    assert it.vocab_size == 10
    assert np.flatnonzero(it.is_continuation).tolist() == [2]  # not "##" itself


def test_encode_adds_nothing():
    assert small().encode(["ab京 B", "", "x"]) == [[0, 2, 7, 9], [], [6]]


def test_raw_text_never_becomes_a_special_token():
    it = small()
    raw = "[MASK] [CLS] a [PAD] [SEP]京[MASK]"
    (row,) = it.encode([raw])
    assert set(row) == {0, 6, 7}
    assert it.encode_flat([raw])[0].tolist() == row
    assert it.encode_with_offsets([raw])[0][0] == row


def test_encode_text_reads_the_mask_and_nothing_else():
    it = small()
    assert it.encode_text("a[MASK]京 [MASK] [CLS]") == [0, 3, 7, 3, 6, 6, 6]
    assert it.encode_text("[MASK]") == [3]
    assert it.encode_text("[mask]") == [6, 6, 6]
    assert it.encode_text("") == []


def test_decode():
    it = small()
    assert it.decode([0, 2, 7, 7, 9]) == "ab京京B"
    assert it.decode([1, 0, 0, 5]) == "[CLS] a a [SEP]"
    assert it.decode([]) == ""
    for wrong in (-1, 10):
        with pytest.raises(errors.InputError, match=f"id {wrong} is not in"):
            it.decode([0, wrong])


def test_id_of():
    assert small().id_of("##b") == 2
    with pytest.raises(errors.InputError, match="'b' .* 10 tokens"):
        small().id_of("b")


def test_build():
    assert small().build([0, 7]) == ([1, 0, 7, 5], [0, 0, 0, 0])
    assert small().build([0], [7]) == ([1, 0, 5, 7, 5], [0, 0, 0, 1, 1])


def test_special_tokens_of_other_names(tmp_path: Path):
    tokens = ("a", "<cls>", "sep", "PAD", "[UNK]", "[MASK]", "京", "<mask>", "cls")
    names = {"cls_token": "<cls>", "sep_token": {"content": "sep"}, "pad_token": "PAD"}
    write(tmp_path, tokens, **names, mask_token="<mask>", do_lower_case=False)
    it = Tokenizer.load(tmp_path)
    assert (it.cls_id, it.sep_id, it.pad_id, it.unk_id, it.mask_id) == (1, 2, 3, 4, 7)
    assert it.special_ids == (1, 2, 3, 4, 7)
    # A special token that text spells is unknown there.
    assert it.encode(["a sep PAD cls <mask>"]) == [[0, 4, 4, 8, 4, 4, 4]]
    assert it.encode_text("a<mask>京[MASK]a") == [0, 7, 6, 7, 0]
    it.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert (again, again.fingerprint) == (it, it.fingerprint)
    assert pickle.loads(pickle.dumps(it)).special_ids == it.special_ids
    usual = Tokenizer("wordpiece", tokens, False, False)
    assert it.fingerprint != usual.fingerprint


def test_a_vocabulary_without_a_mask(tmp_path: Path):
    write(tmp_path, tuple(token for token in TOKENS if token != "[MASK]"))
    with pytest.raises(
        errors.InputError, match=r"vocab.txt has no \[MASK\] among its 9"
    ):
        Tokenizer.load(tmp_path)
    it = Tokenizer.load(tmp_path, require_mask=False)
    assert it.special_ids == (1, 3, 4, 5)
    assert it.encode_text("a京") == it.encode(["a京"])[0] == [0, 6]
    for ask in (lambda: it.mask_id, lambda: it.encode_text("a [MASK]")):
        with pytest.raises(errors.InputError, match="9 tokens has no mask"):
            ask()
    it.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again", require_mask=False) == it


def test_rules_are_saved_and_change_the_fingerprint(tmp_path: Path):
    google = Tokenizer.load(write(tmp_path), rules="google")
    theirs = Tokenizer.load(tmp_path)
    assert (google.rules, theirs.rules) == ("google", "huggingface")
    assert google.encode(["\ue000 a"]) == [[6, 0]]
    assert theirs.encode(["\ue000 a"]) == [[0]]
    assert google.fingerprint != theirs.fingerprint
    theirs.save(tmp_path)
    assert Tokenizer.load(tmp_path) == theirs
    assert Tokenizer.load(tmp_path, rules="google").rules == "google"


def test_options_of_earlier_versions_are_read(tmp_path: Path):
    config = {"do_lower_case": False, "strip_accents": False}
    config |= {"tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer"}
    it = Tokenizer.load(write(tmp_path, **config), rules="google")
    assert (it, it.fingerprint) == (small(), small().fingerprint)


def test_save_and_load_keep_everything(tmp_path: Path):
    for lowercase in (True, False):
        small(lowercase).save(tmp_path / "deep" / "folder")
        loaded = Tokenizer.load(tmp_path / "deep" / "folder")
        assert loaded == small(lowercase)
        assert loaded.fingerprint == small(lowercase).fingerprint


def test_fingerprint_changes_with_what_changes_ids():
    changed = (
        small(),
        small(lowercase=True),
        Tokenizer("wordpiece", TOKENS, True, False),
        Tokenizer("wordpiece", TOKENS[::-1], False, False),
    )
    assert len({it.fingerprint for it in changed}) == 4
    assert small().fingerprint == (
        "20102e28bace1894f0bb98c1ac0442e02010a8930879df22beee61601999d488"
    )


def test_a_worker_process_gives_the_same_ids():
    it = small()
    it.encode(["a"])  # builds the back end, which is not pickled
    assert len(pickle.dumps(it)) < 1_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(it.encode, [["ab京 B"]]) == [[[0, 2, 7, 9]]]


def test_case_follows_the_tokens(tmp_path: Path):
    assert not Tokenizer.load(write(tmp_path)).lowercase  # "B" is a piece
    uncased = Tokenizer.load(write(tmp_path, TOKENS[:-1]))
    assert (uncased.lowercase, uncased.strip_accents) == (True, True)


def test_case_follows_the_options_next_to_the_file(tmp_path: Path):
    config = {"do_lower_case": True, "strip_accents": None, "model_max_length": 512}
    it = Tokenizer.load(write(tmp_path, **config))
    assert (it.lowercase, it.strip_accents) == (True, True)
    it = Tokenizer.load(write(tmp_path, do_lower_case=True, strip_accents=False))
    assert (it.lowercase, it.strip_accents) == (True, False)
    it = Tokenizer.load(tmp_path / "vocab.txt", lowercase=False, strip_accents=True)
    assert (it.lowercase, it.strip_accents) == (False, True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes'. Write true, false or null"),
        ({"strip_accents": 1}, "strip_accents is 1"),
        ({"tokenize_chinese_chars": 0}, "tokenize_chinese_chars is 0"),
    ],
)
def test_bad_options_are_rejected(tmp_path: Path, config: dict, message: str):
    with pytest.raises(errors.InputError, match=message):
        Tokenizer.load(write(tmp_path, **config))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[1]", "is not a JSON object"), ("", "is not JSON")],
)
def test_options_that_are_no_json_are_rejected(
    tmp_path: Path, content: str, message: str
):
    write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(errors.InputError, match=message):
        Tokenizer.load(tmp_path)


def test_folder_without_or_with_two_vocabularies_is_rejected(tmp_path: Path):
    with pytest.raises(errors.InputError, match="vocab.txt .*spiece.model"):
        Tokenizer.load(tmp_path)
    write(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"x")
    with pytest.raises(errors.InputError, match="vocab.txt .*spiece.model"):
        Tokenizer.load(tmp_path)


def test_official_vocabularies(shared_data: Path):
    english = Tokenizer.load(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    chinese = Tokenizer.load(shared_data / "vocab" / "bert-base-chinese-vocab.txt")
    assert (english.vocab_size, chinese.vocab_size) == (30_522, 21_128)
    assert english.lowercase and chinese.lowercase
    assert english.special_ids == chinese.special_ids == (0, 100, 101, 102, 103)
    assert english.encode_text("The capital of France is [MASK].") == [
        *(1996, 3007, 1997, 2605, 2003, 103, 1012)
    ]
    assert english.decode([1996, 14477, 20961, 3468, 1010]) == "the unaffable,"
