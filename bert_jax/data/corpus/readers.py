"""Reads raw documents from text, JSON, tables, TFDS or an installed package.

Reading has two stages: `Reading` streams records, which is cheap, and `parse` turns a
record into a document, which may run in another process. A hash of its sentences
decides whether a document is held out, so the split is stable when the corpus grows.
"""

import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from bert_jax import errors
from bert_jax.data import file_formats, hub_dataset, text_files
from bert_jax.data.corpus import sentences, sources
from bert_jax.data.labeled import examples, table_records, tables, text_examples
from bert_jax.foundation import hub, interrupts, json_file

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


class Reading:
    """One pass over a source, which counts bytes and files.

    `files` is complete when `records()` is exhausted.
    """

    def __init__(
        self, source: sources.Source, only: text_files.NamedPath | None = None
    ) -> None:
        """Finds the files of a source, or reads `only` one of them.

        Raises InputError if the source does not exist.
        """
        self.source = source
        self._tally = text_files.Tally()
        self._dataset: sources.TfdsDataset | None = None
        self._paths: list[text_files.NamedPath] = []
        if source.kind == "tfds":
            self._dataset = sources.open_tfds(source)
            self.total_bytes = self._dataset.entry.bytes
        else:
            self._paths = _find_files(source) if only is None else [only]
            self.total_bytes = sum(file.path.stat().st_size for file in self._paths)

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, of `total_bytes`."""
        return self._tally.bytes_read

    @property
    def files(self) -> tuple[text_files.FileEntry, ...]:
        """Names, sizes and digests of the files that were read completely."""
        return tuple(self._tally.files)

    def records(self) -> Iterator[RawDocument]:
        """Yields every record of the source, in order."""
        if self._dataset is not None:
            for where, text in self._dataset.texts(self._tally):
                yield RawDocument("prose", text, where, "")
        for file in self._paths:
            yield from self._records_of_file(file)

    def findings(self) -> list[str]:
        """Describes the detected kinds of files whose kind was not given.

        Raises InputError for a file without readable text.
        """
        found: dict[str, list[text_files.NamedPath]] = {}
        for file in self._paths if not self.source.is_named else ():
            found.setdefault(kind_of(self.source, file), []).append(file)
        return [
            f"{_listed(files)}: read as {_SHOWN[kind]}{self._of_field(kind)}"
            for kind, files in found.items()
            if kind in _SHOWN
        ]

    def _of_field(self, kind: str) -> str:
        if kind == "wikiextractor":
            return ""
        return f", its text in {self.source.field or _FIELD!r}"

    def _records_of_file(self, file: text_files.NamedPath) -> Iterator[RawDocument]:
        kind, field = kind_of(self.source, file), self.source.field or _FIELD
        if kind in ("parquet", "csv", "xlsx", "json"):
            yield from _records_of_rows(file, kind, field)
            with text_files.open_raw(file, self._tally):
                pass  # for its digest
            return
        style = _style(self.source, file, kind)
        numbered: Iterator[tuple[int | str, str]]
        if style == "lines":
            numbered = text_files.blocks(file, self._tally, blank_lines=1)
        elif style == "paragraphs":
            numbered = text_files.blocks(file, self._tally, blank_lines=2)
        elif style == "tagged":
            numbered = sources.articles_of_news(file, self._tally)
        elif style == "wikitext":
            numbered = sources.wikipedia_articles(file, self._tally)
        elif kind == "wikiextractor":
            numbered = extracted_articles(text_files.lines(file, self._tally))
        else:
            numbered = text_files.lines(file, self._tally)
        is_blank = True
        for line, text in numbered:
            is_blank = False
            yield RawDocument(style, text, f"{file.path}:{line}", field)
        if is_blank:
            raise errors.InputError(
                f"{file.path} has only blank lines. Remove it or take it out of "
                "data.corpus."
            )


_FIELD = "text"  # the usual name of the field of JSON, or the column, with the text
# What is reported of a file whose kind was not named.
_SHOWN = {
    "jsonl": "JSON lines",
    "json": "JSON",
    "csv": "a table (CSV or TSV)",
    "parquet": "Parquet",
    "xlsx": "an Excel workbook",
    "wikiextractor": "WikiExtractor's articles",
}


def kind_of(source: sources.Source, file: text_files.NamedPath) -> str:
    """Returns the kind of a file, as given or detected from the content.

    It is one of `sources.FILE_KINDS`, or `json` for JSON that is not in lines.

    Raises InputError for HTML, XML, or what is not text, if no kind was named.
    """
    kind = hub_dataset.kind_of(file) if source.kind == "hf" else source.kind
    if source.kind == "hf" and kind != "jsonl":
        return kind
    if kind == "package" or (source.is_named and kind != "jsonl"):
        return kind
    found = file_formats.kind(file)
    if source.is_named and kind == "jsonl":
        return "json" if found == "json" else kind
    if found == "html":
        raise errors.InputError(
            f"{file.path} is an HTML page. If it is a failed download, fetch the file "
            "again; if you want its text, remove the tags, or name its kind "
            f"(text:{file.path}) and set text.clean=html."
        )
    if found == "xml":
        raise errors.InputError(
            f"{file.path} is XML. Extract its text (WikiExtractor does so for a "
            f"Wikipedia dump), or name its kind (text:{file.path}) to keep the tags."
        )
    return kind if found == "text" else found


def _listed(files: Sequence[text_files.NamedPath]) -> str:
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"{files[0].path}{more}"


def _records_of_rows(
    file: text_files.NamedPath, kind: str, field: str
) -> Iterator[RawDocument]:
    """Yields the rows of a table as JSON objects with the text field."""
    for where, cells in _rows(file, kind, field):
        names = [*cells]
        if re.fullmatch(r"-?\d{1,6}", field) and field not in cells:
            name = names[examples.column_number(field, len(names), "text", where)]
            cells = {field: cells[name]}
        if field not in cells:
            raise errors.InputError(
                f"{where}: no column {field!r}, only {sorted(names)[:9]}. Name the "
                f"column of the text in the source, as in {file.path}#body."
            )
        if isinstance(cells[field], str):
            table_records.check_unicode(cells[field], where)
        row = json.dumps({field: cells[field]}, ensure_ascii=False)
        yield RawDocument("json", row, where, field)


_TEXTS = examples.ExampleForm(
    "a corpus",
    examples.TextExample,
    examples.TABLES,
    ("text",),
    text_examples.text_examples,
)


def _rows(
    file: text_files.NamedPath, kind: str, field: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the location of each row of a table, and its cells."""
    if kind == "parquet":
        for number, cells in file_formats.parquet_rows(file.path, [field]):
            yield f"{file.path} row {number}", cells
        return
    columns = examples.ColumnNames(text=field)
    # A column that is named is in a header, or the error lists the names there are.
    header = "auto" if re.fullmatch(r"-?\d{1,6}", field) else "true"
    asked = examples.ExampleRequest(
        file.path,
        _TEXTS,
        header=header,
        columns=columns,
        needs_labels=False,
        is_corpus=True,
    )
    for record in tables.records(kind, file, asked, Counter()):
        if record.fault:
            raise record.fault
        yield record.where, record.cells


def parts(source: sources.Source) -> list[text_files.NamedPath | None]:
    """Returns the parts of a source to read separately: files, or None for all."""
    return [None] if source.kind == "tfds" else [*_find_files(source)]


def runs(
    records: Iterable[RawDocument], characters: int
) -> Iterator[tuple[RawDocument, ...]]:
    """Yields records in groups of at least so many characters; no group is empty."""
    run, size = [], 0
    for record in records:
        run.append(record)
        size += len(record.text)
        if size >= characters:
            interrupts.check()
            yield tuple(run)
            run, size = [], 0
    if run:
        yield tuple(run)


def _find_files(source: sources.Source) -> list[text_files.NamedPath]:
    """Lists the files of a source."""
    if source.kind == "package":
        return sources.package_files(source)
    if source.kind == "hf":
        return [*hub_dataset.find(hub.PREFIX + source.where).files]
    return sources.find_files(source)


def _style(source: sources.Source, file: text_files.NamedPath, kind: str) -> Style:
    """Returns how to parse the records of a file."""
    if source.kind != "package":
        return _STYLES[kind]
    if source.where == "gensim":
        return "wikitext"
    return "tagged" if file.name.startswith("tag/") else "prose"


_STYLES: dict[str, Style] = {
    "text": "lines",
    "paragraphs": "paragraphs",
    "jsonl": "json",
    "wikiextractor": "prose",
}


def file_entries(
    source: sources.Source, *, digests: bool = True
) -> Iterator[text_files.FileEntry]:
    """Yields the files of a source as a manifest names them, without parsing them.

    Digests cost about a second per gigabyte; without them sha256 is "".
    """
    if source.kind == "tfds":
        yield sources.open_tfds(source).entry
        return
    for file in _find_files(source):
        tally = text_files.Tally()
        if digests:
            with text_files.open_raw(file, tally):
                pass
            yield tally.files[0]
        else:
            yield text_files.FileEntry(file.name, file.path.stat().st_size, "")


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
        split = _split_all(sentences.split_paragraphs(record.text))
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
    return [s for text in paragraphs for s in sentences.split_sentences(text)]


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
        tagged = [word for word, _ in sources.tagged_words(line) if word]
        joined = "".join(tagged)
        ends = [end for _, end in sentences.sentence_spans(joined)]
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


def documents(
    source: sources.Source, clean: Callable[[str], str] | None = None
) -> Iterator[Document]:
    """Yields the documents of a source, streaming; some may have no sentence."""
    return (parse(record, clean) for record in Reading(source).records())


def training_documents(
    several: Sequence[sources.Source],
    held_out_fraction: float,
    clean: Callable[[str], str] | None = None,
) -> Iterator[Document]:
    """Yields the documents of several sources that are not held out.

    A vocabulary may be learned from these. Each comes once, whatever its weight.
    """
    for source in several:
        if source.split == "heldout":
            continue
        fraction = 0.0 if source.split else held_out_fraction
        for document in documents(source, clean):
            if not is_held_out(content_hash(document), fraction):
                yield document


def content_hash(document: Document) -> int:
    """Returns 64 bits of BLAKE2b over the sentences, which identify the content."""
    text = "\n".join(document.sentences).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def is_held_out(content: int, fraction: float) -> bool:
    """Returns whether a document with this content hash is held out of training."""
    return content < held_out_below(fraction)


def held_out_below(fraction: float) -> int:
    """Returns the content hash below which documents are held out."""
    return int(fraction * 2**64)


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
    text = _NO_CHARACTER.sub("", text)
    text = _EMPTY_BRACKETS.sub("", html.unescape(text).replace("\xa0", " "))
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


_OPENING = re.compile(r"<doc\b[^<>]*>")
_TITLE = re.compile(r'\btitle="([^"]*)"')


def extracted_articles(
    numbered: Iterable[tuple[int, str]],
) -> Iterator[tuple[int, str]]:
    """Yields the articles in the output of WikiExtractor, without titles.

    An article is the text between `<doc id=... title=...>` and `</doc>`; its number is
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
