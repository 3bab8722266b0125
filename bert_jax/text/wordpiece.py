"""WordPiece by the Rust code of `tokenizers`, by Hugging Face's rules or Google's.

By Hugging Face's rules, those of `transformers`, private-use characters are dropped and
words over 100 characters are unknown. By those of google-research/bert's
`tokenization.py` few characters are read otherwise; they are replaced, one for one,
before the Rust code sees the text: a private-use character stays part of its word
(which is then unknown), U+2B820 to U+2B91F are Chinese characters, and a capital sigma
at the end of a word becomes the final small one. Words over 200 characters are unknown.
Lone surrogates, which are no text, are treated as private-use characters.
"""

import itertools
import re
from typing import Literal

import numpy as np
import tokenizers
from jaxtyping import Int64, UInt32
from tokenizers import models, normalizers, pre_tokenizers

from bert_jax.text import characters, special_pieces

MAX_CHARACTERS_PER_WORD = 200  # google-research/bert
HUGGING_FACE_CHARACTERS_PER_WORD = 100

# Whose rules hold where google-research/bert and Hugging Face's code differ.
Rules = Literal["google", "huggingface"]

_PRIVATE = "\ue000-\uf8ff\U000f0000-\U0010ffff\ud800-\udfff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_CJK_MISSED = "\U0002b820-\U0002b91f"
_DIFFERENT = re.compile(f"[{_PRIVATE}{_CJK_MISSED}]")
_DIFFERENT_LOWERCASE = re.compile(f"[Σ{_PRIVATE}{_CJK_MISSED}]")

Offsets = list[tuple[int, int]]


def normalizer(lowercase: bool, strip_accents: bool) -> normalizers.BertNormalizer:
    """Returns what cleans text, parts Chinese characters and lowers case."""
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )


class WordPiece:
    """Turns sentences into ids by a vocabulary of pieces, the longest first."""

    def __init__(
        self,
        tokens: tuple[str, ...],
        specials: special_pieces.Specials,
        *,
        lowercase: bool,
        strip_accents: bool,
        rules: Rules = "google",
        added: tuple[special_pieces.Added, ...] = (),
    ) -> None:
        """Builds the Rust tokenizer; in raw text it finds `added`, no special piece."""
        published = rules == "google"
        longest = MAX_CHARACTERS_PER_WORD
        if not published:
            longest = HUGGING_FACE_CHARACTERS_PER_WORD
        # A name with a blank in it is no word, so that no text spells it.
        hidden = {name: f" {name}" for name in specials.present().values()}
        self._clean = self._published if published else _without_surrogates
        self._lowercase = lowercase
        self._different = _DIFFERENT_LOWERCASE if lowercase else _DIFFERENT
        self._unknown_letter = _absent(tokens, 0x13000)
        self._unknown_cjk = _absent(tokens, 0x20000)
        self._rust = tokenizers.Tokenizer(
            models.WordPiece(
                {hidden.get(token, token): i for i, token in enumerate(tokens)},
                unk_token=hidden[specials.unk],
                max_input_chars_per_word=longest,
            )
        )
        self._rust.normalizer = normalizer(lowercase, strip_accents)
        self._rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._rust.add_special_tokens(
            [tokenizers.AddedToken(**vars(token), special=True) for token in added]
        )

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence."""
        encodings = self._rust.encode_batch_fast(
            self._clean(sentences), add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def encode_flat(
        self, sentences: list[str]
    ) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
        """Returns the ids of all sentences in a row, and each one's length."""
        return flatten(self.encode(sentences))

    def encode_with_offsets(
        self, sentences: list[str]
    ) -> list[tuple[list[int], Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from."""
        encodings = self._rust.encode_batch(
            self._clean(sentences), add_special_tokens=False
        )
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def encode_masked(self, parts: list[str], mask_id: int) -> list[int]:
        """Returns the ids of a text whose parts the mask divides."""
        return with_masks(self.encode(parts), mask_id)

    def _published(self, sentences: list[str]) -> list[str]:
        """Replaces, one for one, the characters that Rust and Google read apart."""
        found = self._different.search
        return [
            sentence
            if sentence.isascii() or not found(sentence)
            # A rare branch: few sentences hold such a character.
            else self._replace(sentence)
            for sentence in sentences
        ]

    def _replace(self, sentence: str) -> str:
        """Puts stand-ins of the same meaning into one sentence."""
        if self._lowercase and "Σ" in sentence:
            # Only U+0130 grows when lowered, so the two strings stay side by side.
            # Control characters, dropped before, must not end a word: a soft hyphen
            # does not.
            even = characters.control_pattern().sub("\xad", sentence)
            lowered = even.replace("\u0130", "I").lower()
            pairs = zip(sentence, lowered, strict=True)
            sentence = "".join(low if low == "ς" else c for c, low in pairs)
        return _DIFFERENT.sub(self._stand_in, sentence)

    def _stand_in(self, match: re.Match[str]) -> str:
        """Returns a character of the same class that no piece contains."""
        is_cjk = "\U0002b820" <= match[0] <= "\U0002b91f"
        return self._unknown_cjk if is_cjk else self._unknown_letter


def flatten(
    rows: list[list[int]],
) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
    """Joins lists of ids into one array, with their lengths.

    >>> flatten([[5, 6], [], [7]])
    (array([5, 6, 7], dtype=uint32), array([2, 0, 1]))
    """
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    every = itertools.chain.from_iterable(rows)
    return np.fromiter(every, np.uint32, int(lengths.sum())), lengths


def with_masks(rows: list[list[int]], mask_id: int) -> list[int]:
    """Joins the ids of the parts of a text by the mask.

    >>> with_masks([[5, 6], [], [7]], 4)
    [5, 6, 4, 4, 7]
    """
    ids = list(rows[0])
    for row in rows[1:]:
        ids += [mask_id, *row]
    return ids


def _without_surrogates(sentences: list[str]) -> list[str]:
    """Replaces lone surrogates in every sentence."""
    return [without_surrogates(sentence) for sentence in sentences]


def without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which libraries refuse as no text, by U+FFFD.

    >>> without_surrogates("a\\ud800b")
    'a\ufffdb'
    """
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _absent(tokens: tuple[str, ...], first: int) -> str:
    """Returns the first character from a code point on that no piece contains."""
    present = frozenset(itertools.chain.from_iterable(tokens))
    return next(c for c in map(chr, itertools.count(first)) if c not in present)
