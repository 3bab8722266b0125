"""Google's rules, Hugging Face's and plain Python differ only where known.

The reading of the rules and the lists are those of scripts/compare/wordpiece.py.
"""

import importlib.util
import json
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest

from bert_jax.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
FROZEN = json.loads(
    (ROOT / "tests" / "golden" / "unicode_differences.json").read_text("utf-8")
)
TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "b", "##b", "[", "]"),
    *("mask", "MASK", "σ", "##σ", "ς", "##ς", "Σ", "##Σ", "北", "é", "!"),
)


def _script() -> ModuleType:
    """Imports scripts/compare/wordpiece.py, which is in no package."""
    path = ROOT / "scripts" / "compare" / "wordpiece.py"
    spec = importlib.util.spec_from_file_location("fuzz_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_tokenizer"] = module
    spec.loader.exec_module(module)
    return module


fuzz_tokenizer = _script()


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    """A vocabulary with other ids for what differs."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TOKENS), encoding="utf-8")
    return path


def counts(fuzz, texts) -> dict[str, dict[str, int]]:
    """Compares texts and returns the differences of each comparison by kind."""
    texts = list(texts)
    for start in range(0, len(texts), 5_000):
        fuzz.compare(texts[start : start + 5_000])
    found: dict[str, dict[str, int]] = {name: {} for name in fuzz_tokenizer.COMPARISONS}
    for (comparison, kind), number in fuzz.counts.items():
        if comparison:
            found[comparison][kind] = number
    assert fuzz.unknown == []
    return found


def known(private: int, gap: int, newer: int) -> dict[str, dict[str, int]]:
    """Returns the counts that are expected of single characters."""
    google = {"private use": private, "CJK gap": gap}
    newer_kind = {"Unicode": newer} if newer else {}
    return {
        "huggingface = tokenizers": {},
        "google = plain Python": newer_kind,
        "google = tokenizers": {kind: n for kind, n in google.items() if n},
    }


def test_the_frozen_lists():
    sizes = [sum(last - first + 1 for first, last in FROZEN[name]) for name in
             ("uncased", "cased")]  # fmt: skip
    assert (FROZEN["unicode"], sizes) == ("14.0.0", [503, 119])


@pytest.mark.parametrize("lowercase", [True, False])
def test_every_listed_character_differs(vocab: Path, lowercase: bool):
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=lowercase)
    runs = FROZEN["uncased" if lowercase else "cased"]
    points = [point for first, last in runs for point in range(first, last + 1)]
    found = counts(fuzz, (f"a{chr(point)}b" for point in points))
    assert found == known(0, 0, 503 if lowercase else 119)
    gap = (f"a{chr(point)}b" for point in range(0x2B820, 0x2B920))
    private = (f"a{chr(point)}b" for point in range(0xE000, 0xF900, 7))
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=lowercase)
    assert counts(fuzz, [*gap, *private]) == known(915, 256, 0)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_sample_of_characters(vocab: Path, lowercase: bool):
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=lowercase)
    texts = [*fuzz_tokenizer.characters()][:: 211]  # fmt: skip
    found = counts(fuzz, texts)
    assert found["huggingface = tokenizers"] == {}
    assert set(found["google = plain Python"]) <= {"Unicode"}
    assert set(found["google = tokenizers"]) == {"private use", "CJK gap"}


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_every_character(vocab: Path, lowercase: bool):
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=lowercase)
    found = counts(fuzz, fuzz_tokenizer.characters())
    newer = 503 if lowercase else 119
    if FROZEN["unicode"] == unicodedata.unidata_version:
        assert found == known(137_468, 256, newer)


@pytest.mark.parametrize("lowercase", [True, False])
def test_random_strings(vocab: Path, lowercase: bool):
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=lowercase)
    found = counts(fuzz, fuzz_tokenizer.strings(700, "7", TOKENS))
    assert set(found["huggingface = tokenizers"]) == {"special token"}
    kinds = {"special token", "private use", "CJK gap", "long word"}
    kinds |= {"final sigma"} if lowercase else set()
    assert set(found["google = tokenizers"]) == kinds


def test_differences_in_words(vocab: Path):
    google = Tokenizer.load(vocab, lowercase=True, rules="google")
    theirs = Tokenizer.load(vocab, lowercase=True)
    rust = fuzz_tokenizer.hugging_face(TOKENS, lowercase=True)
    plain = fuzz_tokenizer.Plain(TOKENS, lowercase=True)

    def both(text: str) -> tuple[list[int], list[int]]:
        (ours,), (other,) = google.encode([text]), theirs.encode([text])
        rust.encode_special_tokens = True
        assert ours == plain.encode(text)
        assert other == rust.encode(text, add_special_tokens=False).ids
        return ours, other

    assert both("a" * 100) == ([5] + [6] * 99, [5] + [6] * 99)
    assert both("a" * 101) == ([5] + [6] * 100, [1])
    assert both("a" * 200) == ([5] + [6] * 199, [1])
    assert both("a" * 201) == ([1], [1])
    assert both("aΣ σΣ") == ([5, 16, 13, 16], [5, 14, 13, 14])
    assert both("a\ue000b a") == ([1, 5], [5, 8, 5])
    assert both("a\U0002b820b") == ([5, 1, 7], [1])
    assert both("[MASK]!") == ([9, 11, 10, 21], [9, 11, 10, 21])
    rust.encode_special_tokens = False  # as BertTokenizer reads a typed mask
    assert rust.encode("[MASK]!", add_special_tokens=False).ids == [4, 21]
    assert google.encode_text("[MASK]!") == theirs.encode_text("[MASK]!") == [4, 21]


def test_dropped_characters_and_marks_count_to_long_words(vocab: Path):
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=True)
    texts = ["b\x85" + "a" * 100, "가" * 51 + "!", "a" * 60 + " " + "a" * 60]
    found = counts(fuzz, texts)
    assert found["google = tokenizers"] == {"long word": 1}
    # In the second both are unknown, and the third holds no long word.


def test_an_unknown_difference_is_found(vocab: Path, capsys: pytest.CaptureFixture):
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=True)
    fuzz._plain = fuzz_tokenizer.Plain(TOKENS, lowercase=False)
    fuzz.compare(["A", "a", "A\ue000"])
    assert fuzz.unknown == [
        "google = plain Python: 'A'",
        "google = tokenizers: 'A\\ue000'",
    ]
    fuzz.report()
    assert "unknown difference: google = plain Python: 'A'" in capsys.readouterr().out
    fuzz = fuzz_tokenizer.Fuzz(vocab, lowercase=True)
    fuzz._rust = fuzz_tokenizer.hugging_face(TOKENS, lowercase=False)
    fuzz.compare(["B!", "[MASK]"])
    assert fuzz.counts["huggingface = tokenizers", "unknown"] == 1
    assert fuzz.counts["huggingface = tokenizers", "special token"] == 1


def test_the_command(vocab: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(fuzz_tokenizer, "characters", lambda: iter(["a", "\ue000"]))
    arguments = ["fuzz_tokenizer.py", f"--vocab={vocab}", "--count=60"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        fuzz_tokenizer.main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.count("uncased: 2 texts") == shown.count("uncased: 30 texts") == 1
    assert "google = tokenizers        private use 1\n" in shown
