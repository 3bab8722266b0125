"""Parses the records of a corpus into documents of sentences.

A record is what a reader finds: a block of lines, a row of JSON, an article. Parsing is
the expensive half of reading, and may run in another process.

Sentences are split by rules for Chinese and English. Whether a mark ends a sentence
depends on its context. Chinese marks always do. Western ones do if white space without
a lower-case letter, or a Chinese character, follows; a period does not after
abbreviations and initials. Semicolons never do.
"""

import hashlib
import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bert_jax import errors
from bert_jax.foundation import json_file

Style = Literal["lines", "paragraphs", "json", "prose", "tagged", "wikitext"]


@dataclass(frozen=True)
class Document:
    """A document as sentences, with their words if the corpus has them.

    `words[i]` join to `sentences[i]`; `where` is its location, as in "file.txt:123".
    """

    sentences: tuple[str, ...]
    words: tuple[tuple[str, ...], ...] | None
    where: str


class RawDocument(NamedTuple):
    """A document as read: its raw text and how to parse it."""

    style: Style
    text: str
    where: str
    field: str


def parse(record: RawDocument, clean: Callable[[str], str] | None = None) -> Document:
    """Returns the document of a record; raises InputError with its location.

    `clean` is applied to the text before it is split into sentences; words that come
    with the text cannot be cleaned.
    """
    words = None
    if clean is not None and record.style != "json":
        record = record._replace(text=clean(record.text))
    if record.style == "lines":
        split = [line.strip() for line in record.text.split("\n")]
    elif record.style == "paragraphs":
        split = _split_all(split_paragraphs(record.text))
    elif record.style == "json":
        split = _parse_json(record, clean)
    elif record.style == "tagged":
        split, words = _parse_tagged(record.text)
    elif record.style == "wikitext":
        split = _split_all(plain_wikitext(record.text).split("\n"))
    else:
        split = _split_all(record.text.split("\n"))
    return Document(tuple(filter(None, split)), words, record.where)


def _split_all(paragraphs: Sequence[str]) -> list[str]:
    """Returns the sentences of several paragraphs."""
    return [s for text in paragraphs for s in split_sentences(text)]


def _parse_json(
    record: RawDocument, clean: Callable[[str], str] | None = None
) -> list[str]:
    """Returns the sentences of a JSON line.

    The field is a text, whose lines are paragraphs, or a list of sentences.
    """
    try:
        value = json_file.loads(record.text, json_file.unique(record.where))
    except ValueError as error:
        raise errors.InputError(
            f"{record.where}: not JSON ({error}). Fix or remove the line."
        ) from None
    if not isinstance(value, dict) or record.field not in value:
        found = sorted(value)[:9] if isinstance(value, dict) else type(value).__name__
        raise errors.InputError(
            f"{record.where}: no field {record.field!r}, only {found}. Name the field "
            "of the text in the source, as in jsonl:corpus.jsonl#body."
        )
    text = value[record.field]
    if isinstance(text, str):
        return _split_all((clean(text) if clean else text).split("\n"))
    if isinstance(text, list) and all(isinstance(item, str) for item in text):
        cleaned = map(clean, text) if clean else text
        return [" ".join(item.split()) for item in cleaned]
    raise errors.InputError(
        f"{record.where}: the field {record.field!r} must be a text or a list of "
        f"texts. Fix or remove the line."
    )


def _parse_tagged(text: str) -> tuple[list[str], tuple[tuple[str, ...], ...]]:
    """Returns sentences and their words of "word/tag word/tag" lines."""
    split, words = [], []
    for line in text.split("\n"):
        tagged = [word for word, _ in tagged_words(line) if word]
        joined = "".join(tagged)
        ends = [end for _, end in sentence_spans(joined)]
        sentence, length = [], 0
        for word in tagged:
            sentence.append(word)
            length += len(word)
            # A boundary inside a word moves to the end of the word.
            if ends and length >= ends[0]:
                words.append(tuple(sentence))
                split.append("".join(sentence))
                sentence = []
                ends = [end for end in ends if end > length]
    return split, tuple(words)


def content_hash(document: Document) -> int:
    """Returns 64 bits of BLAKE2b over the sentences, which identify the content."""
    text = "\n".join(document.sentences).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def held_out_below(fraction: float) -> int:
    """Returns the content hash below which documents are held out."""
    return int(fraction * 2**64)


def tagged_words(line: str) -> Iterator[tuple[str, str]]:
    """Yields the words of a tagged line with their tags.

    >>> list(tagged_words("新年/t  讲话/n  １/2/m"))
    [('新年', 't'), ('讲话', 'n'), ('１/2', 'm')]
    """
    for item in line.split():
        word, _, tag = item.rpartition("/")
        yield word, tag


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


# Articles of Wikipedia.

_COMMENT = re.compile(r"<!--.*?-->", re.S)


_DROPPED_ELEMENT = re.compile(
    r"<(ref|math|gallery|timeline|source|syntaxhighlight|pre|score|imagemap)\b"
    r"(?:[^<>]*?/>|[^>]*?>.*?</\1\s*>)",
    re.S | re.I,
)


_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")


_LAST_ARGUMENT = frozenset({"lang", "nowrap", "transl", "angle bracket"})


_TWO_ARGUMENTS = frozenset({"convert", "cvt"})


_TABLE = re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.S)


_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")


_WEB_LINK = re.compile(r"\[(?:https?:|ftp:)?//\S+\s*([^\]]*)\]")


_NO_TEXT = re.compile(
    r"\s*:?(?:File|Image|Category|Media|[a-z]{2,3}(?:-[a-z]+)?):", re.I
)


_EMPHASIS = re.compile(r"'{2,}")


_SWITCH = re.compile(r"__[A-Z]+__")


_NO_CHARACTER = re.compile(r"&#[0-9]{8,};?")  # html refuses thousands of digits
_EMPTY_BRACKETS = re.compile(r"\s*\([\s,;:]*\)")


_HEADING = re.compile(r"^(=+)\s*(.*?)\s*\1\s*$")


_LIST_MARK = re.compile(r"^[*#:;]+\s*")


_LEFT_OVER = ("|", "!", "{", "}")


_LINK_SECTIONS = frozenset(
    {
        "bibliography",
        "external links",
        "footnotes",
        "further reading",
        "notes",
        "references",
        "see also",
        "sources",
    }
)


def plain_wikitext(text: str) -> str:
    """Returns the paragraphs of an article, one a line, without markup or headings.

    >>> plain_wikitext("'''Mars''' is a [[planet|world]].{{cite}}\\n==Notes==\\n* x")
    'Mars is a world.'
    """
    text = _COMMENT.sub("", text)
    text = _DROPPED_ELEMENT.sub("", text)
    text = _until_stable(_TEMPLATE, _template_text, text)
    text = _until_stable(_TABLE, "", text)
    text = _until_stable(_LINK, _link_text, text)
    text = _WEB_LINK.sub(r"\1", text)
    text = _SWITCH.sub("", _EMPHASIS.sub("", _TAG.sub("", text)))
    text = _EMPTY_BRACKETS.sub(
        "", html.unescape(_NO_CHARACTER.sub("", text)).replace("\xa0", " ")
    )
    return "\n".join(_body_lines(text))


def _until_stable(pattern: re.Pattern[str], replacement, text: str) -> str:
    """Replaces until nothing changes, which resolves nested matches inside out."""
    count = 1
    while count:
        text, count = pattern.subn(replacement, text)
    return text


def _template_text(match: re.Match[str]) -> str:
    """Returns the visible text of the few templates that have any."""
    name, *arguments = (part.strip() for part in match[1].split("|"))
    if name.lower() in _LAST_ARGUMENT and arguments:
        return arguments[-1]
    return " ".join(arguments[:2]) if name.lower() in _TWO_ARGUMENTS else ""


def _link_text(match: re.Match[str]) -> str:
    """Returns the visible text of an internal link."""
    target, _, label = match[1].rpartition("|")
    return "" if _NO_TEXT.match(target or label) else label


def _body_lines(text: str) -> list[str]:
    """Returns the lines of running text, without sections of links."""
    lines, dropped_level = [], 0
    for line in text.split("\n"):
        line = " ".join(line.split())
        if heading := _HEADING.match(line):
            level = len(heading[1])
            if not dropped_level or level <= dropped_level:
                is_links = heading[2].lower() in _LINK_SECTIONS
                dropped_level = level if is_links else 0
            continue
        line = _LIST_MARK.sub("", line)
        if line and not dropped_level and not line.startswith(_LEFT_OVER):
            lines.append(line)
    return lines
