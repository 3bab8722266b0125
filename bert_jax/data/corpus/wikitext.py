"""Wikipedia's markup into plain paragraphs, well enough for a corpus.

Templates, tables, references, files and the sections of links are dropped; links and
emphasis leave their text. What is nested is resolved from the inside.
"""

import html
import re
from collections.abc import Iterable, Iterator

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
_EMPTY_BRACKETS = re.compile(r"\s*\([\s,;:]*\)")
_NO_CHARACTER = re.compile(r"&#[0-9]{8,};?")  # html refuses thousands of digits
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


def plain_paragraphs(text: str) -> str:
    """Returns the paragraphs of an article, one a line, without markup or headings.

    >>> plain_paragraphs("'''Mars''' is a [[planet|world]].{{cite}}\\n==Notes==\\n* x")
    'Mars is a world.'
    """
    text = _COMMENT.sub("", text)
    text = _DROPPED_ELEMENT.sub("", text)
    text = _until_stable(_TEMPLATE, _template_text, text)
    text = _until_stable(_TABLE, "", text)
    text = _until_stable(_LINK, _link_text, text)
    text = _WEB_LINK.sub(r"\1", text)
    text = _SWITCH.sub("", _EMPHASIS.sub("", _TAG.sub("", text)))
    text = _NO_CHARACTER.sub("", text)
    text = _EMPTY_BRACKETS.sub("", html.unescape(text).replace("\xa0", " "))
    return "\n".join(_body_lines(text))


def _until_stable(pattern: re.Pattern[str], replacement, text: str) -> str:
    """Replaces again and again, so that what encloses a match becomes one."""
    count = 1
    while count:
        text, count = pattern.subn(replacement, text)
    return text


def _template_text(match: re.Match[str]) -> str:
    """Returns what a reader sees of the few templates that stand for running text."""
    name, *arguments = (part.strip() for part in match[1].split("|"))
    if name.lower() in _LAST_ARGUMENT and arguments:
        return arguments[-1]
    return " ".join(arguments[:2]) if name.lower() in _TWO_ARGUMENTS else ""


def _link_text(match: re.Match[str]) -> str:
    """Returns what a reader sees of an inner link."""
    target, _, label = match[1].rpartition("|")
    return "" if _NO_TEXT.match(target or label) else label


def _body_lines(text: str) -> list[str]:
    """Returns the lines of running text, without the sections of links."""
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


_OPENING = re.compile(r"<doc\b[^<>]*>")
_TITLE = re.compile(r'\btitle="([^"]*)"')


def extracted_articles(
    numbered: Iterable[tuple[int, str]],
) -> Iterator[tuple[int, str]]:
    """Yields the articles of lines that WikiExtractor has written, without titles.

    An article is what is between `<doc id=... title=...>` and `</doc>`; its number is
    that of the opening line. Articles without text are left out.
    """
    first, title, article = 0, "", list[str]()
    for number, line in numbered:
        if _OPENING.match(line):
            found = _TITLE.search(line)
            title = html.unescape(found[1]) if found else ""
            first, article = number, []
        elif line.startswith("</doc>"):
            if article:
                yield first, "\n".join(article)
            first, article = number, []
        elif article or line != title:
            article.append(line)
    if article:
        yield first, "\n".join(article)
