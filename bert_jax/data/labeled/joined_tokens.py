"""Tokens and the text that they stand in: joining the one, cutting the other."""

import re
from collections.abc import Iterable, Sequence

from bert_jax.data.labeled import examples
from bert_jax.text import characters

_CJK = re.compile(f"[{characters.CJK_AND_MARKS}]")
_WORD_OR_CJK = re.compile(
    "[{0}]|[^{0}]+".format(
        "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in characters.CJK_RANGES)
    )
)


def join(tokens: Sequence[str]) -> tuple[str, tuple[examples.Span, ...]]:
    """Joins tokens into a text, and says where each stands in it.

    One space parts two tokens, but none parts two Chinese characters or marks.

    >>> join(["他", "在", "IBM", "上班", "。"])
    ('他在 IBM 上班。', ((0, 1), (1, 2), (3, 6), (7, 9), (9, 10)))
    """
    pieces, spans, length, last = [], [], 0, ""
    for token in tokens:
        if last and token and not (_writes_no_space(last) and _writes_no_space(token)):
            pieces.append(" ")
            length += 1
        pieces.append(token)
        spans.append((length, length + len(token)))
        length += len(token)
        last = token[-1:]
    return "".join(pieces), tuple(spans)


def _writes_no_space(token: str) -> bool:
    """Says whether a token begins with what Chinese writes no space beside.

    Full-width letters and digits are words, as those of half width are.
    """
    first = token[0]
    return bool(_CJK.match(first)) and not ("\uff00" < first and first.isalnum())


def find_in_order(tokens: Sequence[str], text: str) -> tuple[examples.Span, ...] | None:
    """Returns where tokens stand in a text that is nothing but them and white space.

    None where it is not.

    >>> find_in_order(["do", "n't", "!"], "don't !")
    ((0, 2), (2, 5), (6, 7))
    """
    spans, at = [], 0
    for token in tokens:
        while at < len(text) and text[at].isspace() and not text.startswith(token, at):
            at += 1
        if not text.startswith(token, at):
            return None
        spans.append((at, at + len(token)))
        at += len(token)
    return None if text[at:].strip() else tuple(spans)


def words(text: str, ends: Iterable[int] = ()) -> list[examples.Span]:
    """Cuts a text into words: as BERT does, and also at the characters `ends`.

    White space is in no word.

    >>> words("叶老 isn't", [4])
    [(0, 1), (1, 2), (3, 4), (4, 6), (6, 7), (7, 8)]
    """
    found = []
    for run in characters.punctuation_pattern().finditer(text):
        for word in _WORD_OR_CJK.finditer(text, *run.span()):
            found.append(word.span())
    cuts = sorted(set(ends))
    return [part for word in found for part in _cut(word, cuts)] if cuts else found


def _cut(word: examples.Span, cuts: list[int]) -> list[examples.Span]:
    """Cuts a word at those of the characters that are inside it."""
    edges = [word[0], *(cut for cut in cuts if word[0] < cut < word[1]), word[1]]
    return list(zip(edges, edges[1:], strict=False))
