"""Ids and character offsets of `transformers.BertTokenizer` on every real text.

By Hugging Face's rules all are equal, with no exception. By Google's, at most one text
in a thousand differs but for private-use characters, which Google keeps as unknown
words and Hugging Face drops.
"""

import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bert_jax.text.tokenizer import Tokenizer

VOCABULARIES = ("bert-base-uncased-vocab.txt", "bert-base-chinese-vocab.txt")
TASKS = 16  # folders with texts, at least
PRIVATE = {"\ue305", "\ue012", "\ue00e", "\ue10d"}
RARE = re.compile("[\x00-\x08\x7f-\x9f\xad\u200b-\u200f\u2028\ue000-\uf8ff\ufeffΣ]")
_BATCH = 5_000


@functools.cache
def texts(folder: Path) -> dict[str, None]:
    """Returns each text of a folder once: lines, strings of JSON, joined characters."""
    found: dict[str, None] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".npz":
            continue
        lines = path.read_bytes().decode("utf-8").split("\n")
        found |= dict.fromkeys(lines)
        if path.suffix in (".json", ".jsonl"):
            trees = _values("\n".join(lines).strip())
            found |= dict.fromkeys(s for tree in trees for s in _strings(tree))
        if "weibo" in path.name:  # a character, a digit, a tab, a tag
            groups = itertools.groupby(lines, key=bool)
            joined = (
                "".join(line[0] for line in group) for full, group in groups if full
            )
            found |= dict.fromkeys(joined)
    return found


def _values(text: str) -> Iterator[object]:
    """Yields the JSON values of a text, one a line or printed over several."""
    decoder = json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()


@functools.cache
def sample(shared_data: Path) -> list[str]:
    """Returns texts of every folder, and all with characters that rules differ on."""
    chosen: dict[str, None] = {}
    for folder in _folders(shared_data):
        given = [text for text in texts(folder) if len(text) < 2_000]  # no whole file
        rare = [text for text in given if not text.isascii() and RARE.search(text)]
        chosen |= dict.fromkeys(given[:50] + given[:: len(given) // 150 + 1] + rare)
    return list(chosen)


def _strings(tree: Any) -> Iterator[str]:
    """Yields the strings in a JSON value."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from _strings(inner)


def theirs_of(path: Path) -> Any:
    """Loads transformers' tokenizer of a vocabulary."""
    transformers = pytest.importorskip("transformers")
    return transformers.BertTokenizer(str(path), do_lower_case=True)


def differing(given: list[str], theirs: Any, *ours: Tokenizer) -> list[list[str]]:
    """Returns, for each of ours, the texts that get other ids or other offsets."""
    wrong: list[list[str]] = [[] for _ in ours]
    for start in range(0, len(given), _BATCH):
        batch = given[start : start + _BATCH]
        found = theirs.backend_tokenizer.encode_batch(batch, add_special_tokens=False)
        pairs = [(encoding.ids, encoding.offsets) for encoding in found]
        for it, texts_of_it in zip(ours, wrong, strict=True):
            rows = it.encode_with_offsets(batch)
            both = zip(batch, rows, pairs, strict=True)
            texts_of_it += [text for text, row, pair in both if row != pair]
    return wrong


def _private(text: str) -> set[str]:
    """Returns the private-use characters of a text."""
    return {c for c in text if unicodedata.category(c) == "Co"}


def _folders(shared_data: Path) -> list[Path]:
    """Returns the folders of tasks; vocabularies and arrays are no texts."""
    names = sorted(path for path in shared_data.iterdir() if path.is_dir())
    return [path for path in names if path.name not in ("vocab", "golden")]


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_text_of_every_task(shared_data: Path, vocabulary: str):
    path = shared_data / "vocab" / vocabulary
    theirs, count = theirs_of(path), 0
    google = Tokenizer.load(path, rules="google")
    ours = Tokenizer.load(path)
    folders = _folders(shared_data)
    assert len(folders) >= TASKS
    for folder in folders:
        given = list(texts(folder))
        count += len(given)
        wrong, kept = differing(given, theirs, ours, google)
        assert (folder.name, wrong) == (folder.name, [])
        others = [text for text in kept if not _private(text)]
        assert len(others) <= len(given) // 1_000, (folder.name, others)
        if folder.name == "zh_ner":
            assert set().union(*map(_private, kept)) == PRIVATE
        fast = ours.encode(given[:1_000])
        assert fast == theirs(given[:1_000], add_special_tokens=False)["input_ids"]
    assert count > 250_000


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_sample_of_every_task(shared_data: Path, vocabulary: str):
    path = shared_data / "vocab" / vocabulary
    given = sample(shared_data)
    assert len(given) > 2_500
    ours, theirs = Tokenizer.load(path), theirs_of(path)
    assert differing(given, theirs, ours) == [[]]
    some = given[::9]
    assert ours.encode(some) == theirs(some, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_googles_rules_differ_only_in_private_use(shared_data: Path, vocabulary: str):
    path = shared_data / "vocab" / vocabulary
    given = list(texts(shared_data / "zh_ner"))
    (wrong,) = differing(given, theirs_of(path), Tokenizer.load(path, rules="google"))
    lines = sorted(text for text in wrong if text.endswith("\tO"))
    assert lines == [f"{c}0\tO" for c in sorted(PRIVATE)]
    joined = [text for text in wrong if text not in lines]
    assert joined and all(PRIVATE & set(text) for text in joined)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_typed_special_tokens_are_text_to_us(shared_data: Path, vocabulary: str):
    path = shared_data / "vocab" / vocabulary
    ours, theirs = Tokenizer.load(path), theirs_of(path)
    given = [text for text in texts(shared_data / "vocab") if "[" in text]
    assert len(given) > 1_000  # [unused1] and so on
    (wrong,) = differing(given, theirs, ours)
    assert sorted(wrong) == ["[CLS]", "[MASK]", "[PAD]", "[SEP]", "[UNK]"]
    split = theirs(wrong, add_special_tokens=False, split_special_tokens=True)
    assert ours.encode(wrong) == split["input_ids"]
    (mask,) = theirs("[MASK]", add_special_tokens=False)["input_ids"]
    assert ours.encode_text("[MASK]") == [mask]
