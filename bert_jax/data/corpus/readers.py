"""Reads raw documents from text, JSON, tables, TFDS or an installed package.

Reading has two stages: `Reading` streams records, which is cheap, and `parsing.parse`
turns a record into a document, which may run in another process.
"""

import functools
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bert_jax import errors
from bert_jax.data import file_formats, hub_dataset, text_files
from bert_jax.data.corpus import parsing, sources
from bert_jax.data.labeled import examples, table_records, tables, text_examples
from bert_jax.foundation import hub, interrupts


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

    def records(self) -> Iterator[parsing.RawDocument]:
        """Yields every record of the source, in order."""
        if self._dataset is not None:
            for where, text in self._dataset.texts(self._tally):
                yield parsing.RawDocument("prose", text, where, "")
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

    def _records_of_file(
        self, file: text_files.NamedPath
    ) -> Iterator[parsing.RawDocument]:
        kind, field = kind_of(self.source, file), self.source.field or _FIELD
        if kind in ("parquet", "csv", "xlsx", "json"):
            yield from _records_of_rows(file, kind, field)
            with text_files.open_raw(file, self._tally):
                pass  # for its digest
            return
        if kind == "package":
            kind = sources.package_part(file)
        read, style = _FORMATS[kind]
        is_blank = True
        for line, text in read(file, self._tally):
            is_blank = False
            yield parsing.RawDocument(style, text, f"{file.path}:{line}", field)
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
) -> Iterator[parsing.RawDocument]:
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
        yield parsing.RawDocument("json", row, where, field)


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
    records: Iterable[parsing.RawDocument], characters: int
) -> Iterator[tuple[parsing.RawDocument, ...]]:
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


def documents(
    source: sources.Source, clean: Callable[[str], str] | None = None
) -> Iterator[parsing.Document]:
    """Yields the documents of a source, streaming; some may have no sentence."""
    return (parsing.parse(record, clean) for record in Reading(source).records())


def training_documents(
    several: Sequence[sources.Source],
    held_out_fraction: float,
    clean: Callable[[str], str] | None = None,
) -> Iterator[parsing.Document]:
    """Yields the documents of several sources that are not held out.

    A vocabulary may be learned from these. Each comes once, whatever its weight.
    """
    for source in several:
        if source.split == "heldout":
            continue
        fraction = 0.0 if source.split else held_out_fraction
        for document in documents(source, clean):
            if parsing.content_hash(document) >= parsing.held_out_below(fraction):
                yield document


_OPENING = re.compile(r"<doc\b[^<>]*>")
_TITLE = re.compile(r'\btitle="([^"]*)"')


def extracted_articles(
    file: text_files.NamedPath, tally: text_files.Tally | None = None
) -> Iterator[tuple[int, str]]:
    """Yields the articles in the output of WikiExtractor, without titles.

    An article is the text between `<doc id=... title=...>` and `</doc>`; its number is
    that of the opening line. Articles without text are left out.
    """
    first, title, article = 0, "", list[str]()
    for number, line in text_files.lines(file, tally):
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


# Kind of a file, or part of a package -> how its records are read, and their style.
_FORMATS: dict[str, tuple[Callable[..., Iterator], parsing.Style]] = {
    "text": (functools.partial(text_files.blocks, blank_lines=1), "lines"),
    "paragraphs": (functools.partial(text_files.blocks, blank_lines=2), "paragraphs"),
    "jsonl": (text_files.lines, "json"),
    "wikiextractor": (extracted_articles, "prose"),
    "news": (sources.articles_of_news, "tagged"),
    "reviews": (text_files.lines, "prose"),
    "articles": (sources.wikipedia_articles, "wikitext"),
}
