"""Compares our WordPiece with two others, on random strings and every character.

    python scripts/compare/wordpiece.py --vocab=vocab.txt --count=200000 --seed=0

The others are the pipeline of Hugging Face's `tokenizers`, and the rules of
google-research/bert in plain Python, implemented here from their description without
regard to speed. Ours runs with both rule sets: "huggingface" must give the ids and
offsets of the former, "google" the ids of the latter. Prints one line for each
comparison, with the number of differences of each known kind, and up to five of no
known kind. Exits with 1 if there is one.

Known kinds, most of them between Google's rules and Hugging Face's:

  special token [MASK] in the text: for us only `encode_text` reads it as the mask
  private use   U+E000 to U+F8FF, planes 15 and 16: unknown words, or dropped
  CJK gap       U+2B820 to U+2B91F: a Chinese character is a word, or is not
  long word     of 101 to 200 characters: split into subwords, or unknown
  final sigma   a capital sigma that ends a word: becomes U+03C2, or U+03C3
  Unicode       characters newer than one of the two Unicode tables in use
"""

import argparse
import collections
import itertools
import json
import random
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
import tqdm
from tokenizers import models, normalizers, pre_tokenizers

from bert_jax.text.tokenizer import Tokenizer

_BATCH = 2_000
_MAX_SHOWN = 5
_FROZEN = Path(__file__).parents[2] / "tests" / "golden" / "unicode_differences.json"
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
# Characters of random strings, in addition to those of the vocabulary.
_ODD = (
    *"\t\n\r\x00\x01\x7f\x85\xa0\xad\u200b\u200d\u2028\u3000\ufeff\ufffd\ufe0f",
    *"ÀÉïñøßİıŉǅΣσςΐϓ\u0301\u0308\u0327\u0489가각ﬁﬀ①½²ªＡａ！～·•§¿«“”‘…—",
    *"京北大学年㐀豈\U00020000\U0002a700\U0002b820\U0002b91f\U0002b920\U0002f800",
    *"かカ한ไทยअकاब\u0591א😀👨\U0001f1e8\ue000\uf8ff\U000f0000\U0010fffd\u0378",
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
)
_WORDS = (
    "[MASK]",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[UNK]",
    "##ing",
    "ΟΔΟΣ",
    "naïve",
    "don't",
)


class Plain:
    """An independent, slow implementation of the published rules."""

    def __init__(self, tokens: tuple[str, ...], *, lowercase: bool) -> None:
        """Takes the tokens in the order of their ids."""
        self._ids = {token: index for index, token in enumerate(tokens)}
        self._lowercase = lowercase

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        ids = []
        for word in _spaced(text).split():
            if self._lowercase:
                decomposed = unicodedata.normalize("NFD", word.lower())
                word = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
            for part in _parted(word):
                ids += self._subwords(part)
        return ids

    def _subwords(self, word: str) -> list[int]:
        """Splits a word greedily into its longest subwords, or returns [UNK]."""
        unknown = [self._ids["[UNK]"]]
        if len(word) > 200:
            return unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            head = "##" if start else ""
            ends = range(len(word), start, -1)
            fits = (end for end in ends if head + word[start:end] in self._ids)
            end = next(fits, None)
            if end is None:
                return unknown
            found.append(self._ids[head + word[start:end]])
            start = end
        return found


def _spaced(text: str) -> str:
    """Drops controls, normalizes white space, and separates Chinese characters."""
    spaced = []
    for character in text:
        category = unicodedata.category(character)
        if character in " \t\n\r" or category == "Zs":
            spaced.append(" ")
        elif category in ("Cc", "Cf") or character in "\x00\ufffd":
            continue
        elif any(first <= ord(character) <= last for first, last in _CHINESE):
            spaced.append(f" {character} ")
        else:
            spaced.append(character)
    return "".join(spaced)


def _parted(word: str) -> list[str]:
    """Splits a word at punctuation marks, each of which is a part."""
    parts = [""]
    for character in word:
        ascii_mark = 33 <= ord(character) <= 126 and not character.isalnum()
        if ascii_mark or unicodedata.category(character).startswith("P"):
            parts += [character, ""]
        else:
            parts[-1] += character
    return [part for part in parts if part]


def hugging_face(tokens: tuple[str, ...], *, lowercase: bool) -> tokenizers.Tokenizer:
    """Returns BertTokenizer's pipeline, which recognizes special tokens in text."""
    ids = {token: index for index, token in enumerate(tokens)}
    rust = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.add_special_tokens([name for name in _SPECIALS if name in ids])
    return rust


KINDS = (
    "special token",
    "private use",
    "CJK gap",
    "long word",
    "final sigma",
    "Unicode",
)


COMPARISONS = (
    "huggingface = tokenizers",
    "google = plain Python",
    "google = tokenizers",
)


class Differences:
    """The known differences, and the removal of their causes from a text."""

    def __init__(self, rust: tokenizers.Tokenizer, *, lowercase: bool) -> None:
        """Reads the frozen list of characters that the Unicode tables disagree on.

        If this Python has a later Unicode table than the list, marks and punctuation
        that the Rust code treats as letters are added.
        """
        frozen = json.loads(_FROZEN.read_text(encoding="utf-8"))
        runs = frozen["uncased" if lowercase else "cased"]
        points = (range(first, last + 1) for first, last in runs)
        self._newer = set(map(chr, itertools.chain.from_iterable(points)))
        if frozen["unicode"] != unicodedata.unidata_version:
            every = map(chr, range(0x0370, sys.maxunicode + 1))
            self._newer |= {c for c in every if _is_mark(c) and _is_letter(c, rust)}
        self._lowercase = lowercase

    def kind_of(self, character: str) -> str | None:
        """Returns the kind of difference that a character causes."""
        if unicodedata.category(character) == "Co":
            return "private use"
        if "\U0002b820" <= character <= "\U0002b91f":
            return "CJK gap"
        if character == "Σ" and self._lowercase:
            return "final sigma"
        return "Unicode" if character in self._newer else None

    def kinds(self, text: str) -> set[str]:
        """Returns the known kinds of difference that a text may cause."""
        found = {self.kind_of(character) for character in text} - {None}
        if any(name in text for name in _SPECIALS):
            found.add("special token")
        if any(map(_is_long, _spaced(text).split())):
            found.add("long word")
        return {str(kind) for kind in found}

    def without(self, text: str) -> str:
        """Returns a text without the causes of known differences."""
        for name in _SPECIALS:
            text = text.replace(name, "")
        kept = "".join(c for c in text if self.kind_of(c) is None)
        return " ".join(word for word in _spaced(kept).split() if not _is_long(word))


def _is_long(word: str) -> bool:
    """Returns whether a word may be too long for one of the rule sets."""
    return len(unicodedata.normalize("NFD", word)) > 100


def _is_mark(character: str) -> bool:
    """Returns whether a character is a mark, a control, a space or punctuation."""
    category = unicodedata.category(character)
    return category in ("Mn", "Cf", "Zs") or category.startswith("P")


def _is_letter(character: str, rust: tokenizers.Tokenizer) -> bool:
    """Returns whether the Rust code treats a character as part of a word."""
    text = f"a{character}b"
    clean = rust.normalizer.normalize_str(text)
    return clean == text and len(rust.pre_tokenizer.pre_tokenize_str(text)) == 1


class Fuzz:
    """Compares three tokenizers of one vocabulary, and counts differences."""

    def __init__(self, vocab: Path, *, lowercase: bool) -> None:
        """Builds ours with both rule sets, and the two others."""
        self.name = "uncased" if lowercase else "cased"
        given = {"lowercase": lowercase, "strip_accents": lowercase}
        self._google = Tokenizer.load(vocab, rules="google", **given)
        self._ours = Tokenizer.load(vocab, rules="huggingface", **given)
        self._plain = Plain(self._google.tokens, lowercase=lowercase)
        self._rust = hugging_face(self._google.tokens, lowercase=lowercase)
        self._differences = Differences(self._rust, lowercase=lowercase)
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.unknown: list[str] = []

    def compare(self, texts: list[str]) -> None:
        """Counts the differences of a batch, by comparison and kind."""
        google = self._google.encode(texts)
        theirs = self._ours.encode_with_offsets(texts)
        rust = self._rust.encode_batch(texts, add_special_tokens=False)
        plain = [self._plain.encode(text) for text in texts]
        for text, ids, pair, other, expected in zip(
            texts, google, theirs, rust, plain, strict=True
        ):
            if pair != (other.ids, other.offsets):
                self._judge("huggingface = tokenizers", text, ("special token",))
            if ids != expected:
                self._judge("google = plain Python", text, ("Unicode",))
            if ids != other.ids:
                self._judge("google = tokenizers", text, KINDS[:-1])
        self.counts["", "texts"] += len(texts)

    def _judge(self, comparison: str, text: str, allowed: Iterable[str]) -> None:
        """Counts a difference by its kinds, or keeps it as unknown."""
        kinds = self._differences.kinds(text) & set(allowed)
        if not kinds or not self._agree(self._differences.without(text)):
            self.unknown.append(f"{comparison}: {text!r}")
        for kind in kinds or ("unknown",):
            self.counts[comparison, kind] += 1

    def _agree(self, text: str) -> bool:
        """Returns whether all agree on a text."""
        (google,), (theirs,) = self._google.encode([text]), self._ours.encode([text])
        rust = self._rust.encode(text, add_special_tokens=False).ids
        return google == theirs == rust == self._plain.encode(text)

    def report(self) -> None:
        """Prints one line for each comparison."""
        print(f"{self.name}: {self.counts['', 'texts']:,} texts")
        for comparison in COMPARISONS:
            found = {k: n for (name, k), n in self.counts.items() if name == comparison}
            shown = [
                f"{kind} {found[kind]:,}"
                for kind in (*KINDS, "unknown")
                if kind in found
            ]
            print(f"  {comparison:26} {', '.join(shown) or 'no difference'}")
        for text in self.unknown[:_MAX_SHOWN]:
            print(f"  unknown difference: {text[:300]}")


def characters() -> Iterator[str]:
    """Yields every code point that is text, inside a word and as a word."""
    for point in range(sys.maxunicode + 1):
        if not 0xD800 <= point <= 0xDFFF:
            yield f"a{chr(point)}b {chr(point)}"


def strings(count: int, seed: str, tokens: tuple[str, ...]) -> Iterator[str]:
    """Yields random strings of one to twelve parts."""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        parts = [_part(rng, tokens) for _ in range(rng.randint(1, 12))]
        text = rng.choice(("", "", " ")).join(parts)
        yield text.upper() if not rng.randrange(6) else text


def _part(rng: random.Random, tokens: tuple[str, ...]) -> str:
    """Returns a token, a special character, a word, any character or a long word."""
    match rng.randrange(20):
        case 0:
            length = rng.choice((99, 100, 101, 199, 200, 201))
            return rng.choice("aé1Σ") * length
        case 1 | 2:
            return rng.choice(_WORDS)
        case 3 | 4 | 5:
            below = rng.choice((0x250, 0x3000, 0x10000, 0x110000))
            character = chr(rng.randrange(below))
            return character if not "\ud800" <= character <= "\udfff" else " "
        case 6 | 7 | 8 | 9 | 10 | 11:
            return rng.choice(tokens).removeprefix("##")
    return rng.choice(_ODD)


def main() -> None:
    """Runs both comparisons, uncased and cased."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=Path, required=True, help="a vocab.txt")
    parser.add_argument("--count", type=int, default=200_000, help="random strings")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tokens = Tokenizer.load(arguments.vocab).tokens
    half = arguments.count // 2
    plans = (
        ("every character", 2 * (sys.maxunicode + 1 - 0x800)),
        ("random strings", 2 * half),
    )
    unknown = 0
    for title, total in plans:
        print(title)
        with tqdm.tqdm(total=total, unit=" texts", disable=None) as bar:
            for lowercase in (True, False):
                texts = strings(half, f"{arguments.seed} {lowercase}", tokens)
                if title == "every character":
                    texts = characters()
                unknown += run(Fuzz(arguments.vocab, lowercase=lowercase), texts, bar)
    sys.exit(1 if unknown else 0)


def run(fuzz: Fuzz, texts: Iterator[str], bar: tqdm.tqdm) -> int:
    """Compares all texts, prints the counts and returns how many are unknown."""
    while batch := list(itertools.islice(texts, _BATCH)):
        fuzz.compare(batch)
        bar.update(len(batch))
    bar.clear()
    fuzz.report()
    return len(fuzz.unknown)


if __name__ == "__main__":
    main()
