"""Character classes as Google's BERT tokenizer defines them.

The ranges are those of `_is_chinese_char` and `_is_control` in
google-research/bert, `tokenization.py`, and of the Unicode table of this Python.
"""

import functools
import re
import sys
import unicodedata

Offsets = list[tuple[int, int]]  # of tokens: characters [start, end) of their text

CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)

# For a regex character class: Chinese characters, and the punctuation and full-width
# forms next to which Chinese has no space.
CJK_AND_MARKS = "".join(
    f"\\U{first:08x}-\\U{last:08x}"
    for first, last in (*CJK_RANGES, (0x3000, 0x303F), (0xFF00, 0xFF65))
)


def is_cjk(character: str) -> bool:
    """Returns whether BERT makes a character a separate word, as it does Chinese ones.

    Kana, Hangul and full-width punctuation are not Chinese characters.

    >>> [is_cjk(c) for c in "京あ한，a"]
    [True, False, False, False, False]
    """
    point = ord(character)
    return any(first <= point <= last for first, last in CJK_RANGES)


def regex_class(characters: list[str]) -> str:
    """Returns the ranges of a regex character class for sorted characters.

    >>> regex_class(["a", "b", "c", "x"])
    '\\\\U00000061-\\\\U00000063\\\\U00000078-\\\\U00000078'
    """
    runs: list[list[int]] = []
    for point in map(ord, characters):
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)


def without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which are not valid text, by U+FFFD.

    >>> without_surrogates("a\\ud800b")
    'a\ufffdb'
    """
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


_SURROGATE = re.compile("[\ud800-\udfff]")


def _in_categories(*categories: str) -> list[str]:
    """Returns the characters whose Unicode category starts with one of these."""
    every = map(chr, range(sys.maxunicode + 1))
    return [c for c in every if unicodedata.category(c).startswith(categories)]


@functools.cache
def punctuation_pattern() -> re.Pattern[str]:
    """Returns a pattern whose matches are BERT's words in normalized text.

    A punctuation character (Unicode P*, and every ASCII symbol) is one word, and so is
    each run of other characters between white space.

    >>> punctuation_pattern().findall("it's 5$ 。好")
    ['it', "'", 's', '5', '$', '。', '好']
    """
    symbols = [c for c in map(chr, range(33, 127)) if not c.isalnum()]
    marks = regex_class(sorted({*symbols, *_in_categories("P")}))
    return re.compile(rf"[{marks}]|[^\s{marks}]+")


@functools.cache
def control_pattern() -> re.Pattern[str]:
    """Returns a pattern for the control characters that tokenizers remove.

    >>> control_pattern().sub("", "a\\u200b b\\x00\\ufffdc\\n")
    'a bc\\n'
    """
    controls = [c for c in _in_categories("Cc", "Cf") if c not in "\t\n\r"]
    return re.compile(rf"[\ufffd{regex_class(controls)}]")


@functools.cache
def dropped_pattern() -> re.Pattern[str]:
    """Returns a pattern for what yields no token: control characters and white space.

    >>> dropped_pattern().sub("", "a\\u200b b\\x00\\ufffdc\\n")
    'abc'
    """
    return re.compile(rf"[\s\ufffd{regex_class(_in_categories('Cc', 'Cf', 'Z'))}]")
