"""Options next to a vocabulary, in the spellings that Hugging Face's files use."""

from pathlib import Path
from typing import Any

import pytest
import small_tokenizers

from bert_jax import errors
from bert_jax.text import options as tokenizer_options


def read(folder: Path, **files: Any) -> tokenizer_options.TokenizerOptions:
    """Writes files by the stems of their names and reads the options."""
    for stem, tree in files.items():
        small_tokenizers.write_json(folder, tree, f"{stem}.json")
    return tokenizer_options.read(folder)


def test_nothing_is_set(tmp_path: Path):
    options = read(tmp_path)
    assert set(options.flags.values()) == {None}
    assert (options.rules, options.tokenizer_class) == (None, "")
    assert (options.named, options.added) == ({}, [])


def test_flags_rules_and_class(tmp_path: Path):
    config = {"do_lower_case": False, "strip_accents": None, "keep_accents": True}
    config |= {"rules": "google", "tokenizer_class": "AlbertTokenizer", "other": [1]}
    options = read(tmp_path, tokenizer_config=config)
    assert options.flags["do_lower_case"] is False
    assert options.flags["strip_accents"] is None
    assert options.flags["keep_accents"] is True
    assert (options.rules, options.tokenizer_class) == ("google", "AlbertTokenizer")


def test_names_as_strings_and_as_objects(tmp_path: Path):
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True}
    options = read(
        tmp_path,
        tokenizer_config={"mask_token": mask, "cls_token": "<s>", "pad_token": None},
        special_tokens_map={"cls_token": {"content": "<s>"}, "unk_token": "<unk>"},
    )
    assert options.named == {"mask": "<mask>", "cls": "<s>", "unk": "<unk>"}


def test_added_tokens_of_the_newer_key(tmp_path: Path):
    decoder = {
        "12": {"content": "covid", "lstrip": True, "special": False},
        "3": {"content": "[X]", "special": True, "normalized": False},
    }
    config = {"added_tokens_decoder": decoder}
    options = read(tmp_path, tokenizer_config=config, added_tokens={"ignored": 4})
    flags = {"single_word": False, "rstrip": False}
    assert options.added == [
        {"id": 3, "content": "[X]", "lstrip": False, "special": True}
        | {"normalized": False, **flags},
        {"id": 12, "content": "covid", "lstrip": True, "special": False}
        | {"normalized": True, **flags},
    ]


def test_added_tokens_of_the_older_file(tmp_path: Path):
    special = {"additional_special_tokens": ["[A]", {"content": "[B]"}]}
    options = read(
        tmp_path,
        tokenizer_config={"mask_token": "[M]"},
        special_tokens_map=special,
        added_tokens={"word": 9, "[A]": 6, "[B]": 7, "[M]": 8},
    )
    shown = [(t["id"], t["content"], t["special"]) for t in options.added]
    assert shown == [(6, "[A]", True), (7, "[B]", True), (8, "[M]", True)] + [
        (9, "word", False)
    ]


@pytest.mark.parametrize(
    ("stem", "tree", "message"),
    [
        ("tokenizer_config", {"do_lower_case": 1}, "do_lower_case is 1"),
        ("tokenizer_config", {"rules": "own"}, "rules is 'own'"),
        ("tokenizer_config", {"rules": ["google"]}, "rules is"),
        ("tokenizer_config", {"cls_token": 5}, "cls_token is 5"),
        ("tokenizer_config", {"cls_token": {"text": "x"}}, "cls_token is {'text'"),
        ("special_tokens_map", {"sep_token": ""}, "map.json: sep_token is ''"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": {}}}, "'x'"),
        ("tokenizer_config", {"added_tokens_decoder": {"1": "a"}}, "'1': 'a'"),
        ("tokenizer_config", {"added_tokens_decoder": 7}, "added_tokens_decoder"),
        ("tokenizer_config", {"added_tokens_decoder": {"1": {}}}, "decoder 1 is {}"),
        ("added_tokens", {"a": "9"}, "'a' is '9'"),
        ("added_tokens", {"a": -1}, "'a' is -1"),
        ("added_tokens", [1], "is not a JSON object"),
    ],
)
def test_bad_options_are_rejected(tmp_path: Path, stem: str, tree: Any, message: str):
    with pytest.raises(errors.InputError, match=message):
        read(tmp_path, **{stem: tree})


def test_files_that_contradict_each_other_are_rejected(tmp_path: Path):
    with pytest.raises(errors.InputError) as caught:
        read(
            tmp_path,
            tokenizer_config={"mask_token": "<mask>"},
            special_tokens_map={"mask_token": "[MASK]"},
        )
    message = str(caught.value)
    assert "tokenizer_config.json: mask_token is '<mask>'" in message
    assert "'[MASK]' in special_tokens_map.json" in message
