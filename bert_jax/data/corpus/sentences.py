"""Splits plain text into paragraphs and sentences, by rules for Chinese and English.

Whether a mark ends a sentence depends on its context. Chinese marks always do. Western
ones do if white space without a lower-case letter, or a Chinese character, follows; a
period does not after abbreviations and initials. Semicolons never do.
"""

import re

_CJK = (
    "\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff"
)
_CLOSERS = "”’」』）】》〉〕\"')\\]}"
_END = re.compile(rf"(?P<mark>[。！？｡…!?.]+)(?P<closers>[{_CLOSERS}]*)")
_IS_CJK = re.compile(rf"[{_CJK}]")
# The word before a period, with periods inside it ("e.g", "U.S", "Ph.D").
_LAST_WORD = re.compile(r"\b[^\W_]+(?:\.[^\W_]+)*\Z")
_LONGEST_ABBREVIATION = 10
_LONGEST_BRACKET = 2000  # bounds the search for its beginning
_CHINESE_MARKS = frozenset("。！？｡")
_LINE_END_CJK = re.compile(rf"[{_CJK}”’…—·]\Z")

# Never the last word of a sentence.
_TITLES = frozenset(
    "mr mrs ms dr prof rev hon gen col capt lt sgt maj cmdr gov sen rep pres st mt ft "
    "messrs mme mlle fr sr e.g i.e cf vs viz al approx ca fig figs eq eqs sec ch vol "
    "no nos pp p ed eds trans dept univ".split()
)
# Sometimes the last word; then a word that often begins sentences follows.
_ABBREVIATIONS = frozenset(
    "etc jr inc ltd co corp bros a.m p.m b.c a.d u.s u.k u.n e.u ph.d m.d b.a m.a d.c "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun "
    "ave blvd rd".split()
)
_STARTERS = frozenset(
    "the a an this that these those he she it they we i you his her its their our my "
    "in on at by for from with as after before when while if although however but and "
    "so there then what who why how".split()
)


def split_sentences(text: str) -> list[str]:
    """Returns the sentences of a paragraph, stripped; white space does not split.

    >>> split_sentences('Dr. Li paid 3.50 in the U.S. He left.')
    ['Dr. Li paid 3.50 in the U.S.', 'He left.']
    >>> split_sentences("他问：“真的吗？”没有人回答。天黑了！")
    ['他问：“真的吗？”', '没有人回答。', '天黑了！']
    """
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Returns start and end of every sentence, in characters, without outer space."""
    cuts, start = [], 0
    for match in _END.finditer(text):
        if _ends_sentence(text, start, match):
            cuts.append(match.end())
            start = match.end()
    spans = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece = text[begin:end]
        inner = piece.strip()
        if inner:
            begin += len(piece) - len(piece.lstrip())
            spans.append((begin, begin + len(inner)))
    return spans


def split_paragraphs(text: str) -> list[str]:
    """Returns the paragraphs of plain text, with wrapped lines joined.

    A blank line ends a paragraph, and so does a line that ends in a Chinese character
    or mark, because Chinese text is not wrapped; other lines are joined by a space.
    """
    paragraphs, wrapped = [], []
    for line in text.split("\n"):
        line = line.strip()
        if line:
            wrapped.append(line)
        if wrapped and (not line or _LINE_END_CJK.search(line)):
            paragraphs.append(" ".join(wrapped))
            wrapped = []
    if wrapped:
        paragraphs.append(" ".join(wrapped))
    return paragraphs


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Returns whether a sentence that began at `start` ends with this mark."""
    mark, after = match["mark"], text[match.end() : match.end() + 1]
    if not after:
        return True
    if _inside_brackets(text, start, match):
        return False
    if _CHINESE_MARKS.intersection(mark):
        return True
    if mark.strip("…") == "":
        return len(mark) > 1 or bool(match["closers"]) or after.isspace()
    if _IS_CJK.match(after) and after not in "，、；：,;:":
        before = text[match.start() - 1 : match.start()]
        chinese = bool(_IS_CJK.match(before)) if before else False
        return mark[-1] in "!?" or (chinese and len(mark) != 2)
    if not after.isspace():
        return False
    return _ends_western(text, start, match)


def _inside_brackets(text: str, start: int, match: re.Match[str]) -> bool:
    """Returns whether the mark ends a title or bracket inside a sentence."""
    if "》" in match["closers"] or "〉" in match["closers"]:
        return True
    low = max(start, match.start() - _LONGEST_BRACKET)
    before = text[low : match.start()].strip()
    for closer, opener in (("）", "（"), (")", "(")):
        if closer in match["closers"]:
            return before.rfind(opener, low == start) >= 0
    return False


def _ends_western(text: str, start: int, match: re.Match[str]) -> bool:
    """Returns whether a Western mark before white space ends the sentence."""
    following = text[match.end() : match.end() + 40].lstrip()
    first = following.lstrip("\"'“‘([")[:1]
    if first.islower():
        return False
    if match["mark"] != "." or match["closers"]:
        return True
    window = max(start, match.start() - _LONGEST_ABBREVIATION)
    last = _LAST_WORD.search(text, window, match.start())
    word = last[0].lower() if last else ""
    if word in _TITLES or (word.isdecimal() and last and _alone(text, start, last)):
        return False
    if word in _ABBREVIATIONS or _is_initial(word):
        next_word = re.match(r"[^\W\d_]+", following)
        return bool(next_word) and next_word[0].lower() in _STARTERS
    return True


def _alone(text: str, start: int, last: re.Match[str]) -> bool:
    """Returns whether nothing precedes the word in its sentence, as in "1. Begin"."""
    return not text[start : last.start()].strip()


def _is_initial(word: str) -> bool:
    """Returns whether a word is the first letter of a name, as in "J. K. Rowling"."""
    return len(word) == 1 and word.isalpha() and word != "i"
