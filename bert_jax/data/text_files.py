"""Reads text files line by line, and reports what is wrong with them.

Files may be compressed with gzip or bzip2 (detected from their first bytes), may begin
with a byte order mark, may be UTF-16 or UTF-32, and may end lines with CRLF or CR; they
are read as UTF-8 with line feeds. Anything else that is not plain UTF-8 text is an
InputError with file, line and byte, and the likely encoding: GBK, Big5 and others are
only guessed, which is good enough for a message, but not for training data.
"""

import bz2
import codecs
import enum
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bert_jax import errors
from bert_jax.foundation import interrupts


@dataclass(frozen=True)
class FileEntry:
    """One file that was read: its name below the source's folder, size and digest."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class NamedPath:
    """A file and its name relative to its source, which survives a move."""

    name: str
    path: Path


# Longer than any sentence and almost any document; bounds the memory of one. A longer
# one is a file without line breaks or blank lines.
MAX_BYTES = 8 << 20
# A JSON document is in memory in several forms.
MAX_DOCUMENT = 512 << 20
_BUFFER_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 16
# Signatures of files that are not text, with what they are and what to do.
_NO_TEXT = {
    b"\xfd7zXZ": ("compressed with xz", "Decompress it, or use gzip or bzip2."),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Decompress it, or use gzip."),
    b"7z\xbc\xaf": ("compressed with 7z", "Decompress it, or use gzip or bzip2."),
    b"Rar!": ("compressed with rar", "Decompress it, or use gzip or bzip2."),
    b"ARROW1": ("an Arrow (Feather) file", "Write it as Parquet, which is read."),
    b"ORC": ("an ORC file", "Write it as Parquet, which is read."),
    b"Obj\x01": ("an Avro file", "Write it as Parquet or JSON lines."),
    b"SQLite format 3\0": ("a database of SQLite", "Export the table as CSV."),
    b"{\\rtf": ("rich text (RTF)", "Save it as plain text in UTF-8."),
    b"\x93NUMPY": ("an array of NumPy", "Write its texts as JSON lines."),
    b"\x89HDF": ("an HDF5 file", "Write its texts as Parquet or JSON lines."),
    b"PK\x03\x04": (
        "a zip archive, as Office documents are",
        "Decompress it, or save it as plain text; an .xlsx is read if its format is "
        "left to be detected.",
    ),
    b"\xd0\xcf\x11\xe0": (
        "an Office file from before 2007 (.xls, .doc)",
        "Save it as .xlsx or CSV, which are read.",
    ),
    b"PAR1": ("Parquet, and not text", "Leave its format to be detected."),
    b"%PDF-": ("a PDF", "Extract its text first, as with pdftotext."),
    b"version https://git-lfs.github.com/spec/": (
        "a pointer of Git LFS, not the file itself",
        "Fetch it with git lfs pull, or download it from its page.",
    ),
    **dict.fromkeys(
        (bytes((0x80, protocol)) for protocol in range(2, 6)),
        ("a pickle, which could run code", "Write its texts as JSON lines."),
    ),
}


class Faults(enum.Enum):
    """How to decode NUL characters and bytes that are not UTF-8.

    `KEEP` decodes them to lone surrogates, so that their record can be found and left
    out: NUL to U+DC00, a byte to U+DC00 plus its value.
    """

    REFUSE = "an InputError"
    OFFER = "an InputError that advises to repair"
    KEEP = "kept"


NUL = "\udc00"


class Tally:
    """Counts the bytes of files while they are read, and stores their digests."""

    def __init__(self) -> None:
        self.bytes_read = 0
        self.files: list[FileEntry] = []


class _Digesting(io.RawIOBase):
    """A file that hashes and counts what is read from it."""

    def __init__(self, file: io.FileIO, tally: Tally) -> None:
        self._file, self._tally = file, tally
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        interrupts.check()
        count = self._file.readinto(buffer)
        self.sha256.update(memoryview(buffer)[:count])
        self.bytes += count
        self._tally.bytes_read += count
        return count


@contextmanager
def open_raw(
    file: NamedPath, tally: Tally | None = None
) -> Iterator[io.BufferedReader]:
    """Opens a file unchanged; its digest is in `tally` after the context.

    For the digest the rest of the file is read. Raises InputError if the file cannot be
    read or is a damaged archive.
    """
    try:
        with open(file.path, "rb", buffering=0) as raw:
            digesting = _Digesting(raw, tally or Tally())
            buffered = io.BufferedReader(cast(Any, digesting), _BUFFER_BYTES)
            yield buffered
            if tally is not None:
                while buffered.read(_BUFFER_BYTES):
                    pass
                digest = digesting.sha256.hexdigest()
                tally.files.append(FileEntry(file.name, digesting.bytes, digest))
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise errors.InputError(
                f"{file.path} cannot be read ({error.strerror or error}). "
                "Check the file and its permissions."
            ) from None
        raise errors.InputError(
            f"{file.path} is a damaged or truncated archive ({error}). Copy it again, "
            "or check it with gzip -t."
        ) from None


@contextmanager
def open_bytes(
    file: NamedPath, tally: Tally | None = None
) -> Iterator[io.BufferedReader]:
    """Opens a file as `open_raw`, decompressed and as UTF-8 without a byte order mark.

    Raises InputError for files that are not text, such as a PDF or a Git LFS pointer.
    """
    with open_raw(file, tally) as raw:
        opened = _decompress(raw)
        head = opened.peek(64)
        for signature, (what, advice) in _NO_TEXT.items():
            if head.startswith(signature):
                raise errors.InputError(f"{file.path} is {what}. {advice}")
        text = as_utf8(opened, file.path)
        if not text.peek(1):
            raise errors.InputError(
                f"{file.path} is empty. Remove it, or name another file."
            )
        yield text


def _decompress(file: io.BufferedReader) -> io.BufferedReader:
    """Returns a file decompressed, if its first bytes are those of gzip or bzip2."""
    head = file.peek(3)
    if head.startswith(b"\x1f\x8b"):
        return io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=file)), _BUFFER_BYTES)
    if head.startswith(b"BZh"):
        return io.BufferedReader(cast(Any, bz2.BZ2File(file)), _BUFFER_BYTES)
    return file


def head(file: NamedPath, size: int = _SAMPLE_BYTES) -> bytes:
    """Returns the first bytes of a file, decompressed and as UTF-8.

    Raises InputError as `open_bytes`.
    """
    with open_bytes(file) as opened:
        return opened.read(size)


def document(file: NamedPath) -> bytes:
    """Returns the whole of a file, decompressed.

    Raises:
      InputError: as `open_bytes`, or it is too long.
    """
    with open_bytes(file) as opened:
        return _whole(opened, file.path)


def _whole(opened: io.BufferedReader, path: Path) -> bytes:
    content = opened.read(MAX_DOCUMENT + 1)
    if len(content) > MAX_DOCUMENT:
        raise errors.InputError(
            f"{path} is longer than {MAX_DOCUMENT >> 20} MiB, and must be read into "
            "memory. Write it in UTF-8 as lines of text or JSON, which stream."
        )
    return content


def lines(file: NamedPath, tally: Tally | None = None) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank with their numbers from 1."""
    for number, line in _raw_lines(file, tally):
        if not line.isspace():
            yield number, decode(line, file.path, number).strip()


def whole_lines(
    file: NamedPath, faults: Faults = Faults.REFUSE
) -> Iterator[tuple[int, str]]:
    """Yields every line without its line break, with numbers from 1."""
    for number, line in _raw_lines(file, None):
        yield number, decode(line, file.path, number, faults).removesuffix("\n")


def of_stream(
    stream: Iterable[bytes], name: str, faults: Faults = Faults.REFUSE
) -> Iterator[tuple[int, str]]:
    """Yields the lines of standard input, as `whole_lines` does for a file."""
    for number, line in enumerate(stream, start=1):
        data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        text = decode(data, Path(name), number, faults, is_file=False)
        yield number, text.rstrip("\r\n")


def blocks(
    file: NamedPath, tally: Tally | None = None, blank_lines: int = 1
) -> Iterator[tuple[int, str]]:
    """Yields blocks separated by at least so many blank lines, with their first line.

    Shorter runs of blank lines stay inside a block.
    """
    first, block, size, blanks = 0, [], 0, 0
    for number, line in _raw_lines(file, tally):
        if line.isspace():
            blanks += 1
            if blanks == blank_lines and block:
                yield first, decode(b"".join(block), file.path, first).strip()
                block, size = [], 0
        elif not block:
            first, block, size, blanks = number, [line], len(line), 0
            continue
        else:
            blanks = 0
        if block:
            block.append(line)
            size += len(line)
            if size > MAX_BYTES:
                s = "s"[: blank_lines - 1]
                advice = f"Put {blank_lines} blank line{s} between documents."
                raise _too_long(file.path, first, "document", advice)
    if block:
        yield first, decode(b"".join(block), file.path, first).strip()


def _raw_lines(file: NamedPath, tally: Tally | None) -> Iterator[tuple[int, bytes]]:
    """Yields numbered lines as bytes; a line that is too long is an error."""
    with open_bytes(file, tally) as opened:
        number = 0
        while line := opened.readline(MAX_BYTES + 1):
            number += 1
            if len(line) > MAX_BYTES:
                advice = "Break it into lines, one sentence each, or into records."
                raise _too_long(file.path, number, "line", advice)
            yield number, line


def _too_long(path: Path, line: int, what: str, advice: str) -> errors.InputError:
    return errors.InputError(
        f"{path}:{line}: the {what} that begins here is longer than "
        f"{MAX_BYTES >> 20} MiB. {advice}"
    )


def decode(
    data: bytes,
    path: Path,
    first_line: int,
    faults: Faults = Faults.REFUSE,
    *,
    is_file: bool = True,
) -> str:
    """Decodes lines of UTF-8.

    Raises:
      InputError: a byte is not UTF-8 or is NUL, unless `faults` keeps them; the message
        has its line and column.
    """
    keeps = faults is Faults.KEEP
    try:
        text = data.decode("utf-8", "surrogateescape" if keeps else "strict")
    except UnicodeDecodeError as error:
        problem, advice = "is not UTF-8", "Convert the text to UTF-8"
        if is_file:
            problem = f"(0x{data[error.start]:02x}) {problem}"
            advice = encoding_advice(path, data)
        at, advice = error.start, advice + _end(faults)
        raise _bad_byte(data, at, path, first_line, problem, advice) from None
    if "\0" in text and not keeps:
        advice = "Remove it, or check that the file is text" + _end(faults)
        at, problem = data.index(0), "(0x00) is a NUL byte"
        raise _bad_byte(data, at, path, first_line, problem, advice)
    text = text.replace("\0", NUL)
    return text.replace("\r\n", "\n") if "\r" in text else text


def _end(faults: Faults) -> str:
    """Returns the end of advice on bytes that are not text."""
    if faults is not Faults.OFFER:
        return "."
    repair = errors.setting("data.repair")
    return f". Or set {repair}, which leaves out the records with such bytes."


def _bad_byte(
    data: bytes, at: int, path: Path, first_line: int, problem: str, advice: str
) -> errors.InputError:
    """Returns the error for a byte, with line and column from 1."""
    line = first_line + data.count(b"\n", 0, at)
    column = at - data.rfind(b"\n", 0, at)
    return errors.InputError(
        f"{path}:{line}: byte {column} of the line {problem}. {advice}"
    )


# The mark of UTF-16 begins that of UTF-32, so the longer ones come first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def of_head(head: bytes) -> tuple[str, int]:
    """Returns the Unicode encoding of a file and the length of its byte order mark.

    Without a mark, UTF-16 shows in the zero byte of each ASCII character:

    >>> of_head("a,b".encode("utf-16-le")), of_head("a".encode("utf-8-sig"))
    (('utf-16-le', 0), ('utf-8', 3))
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding, len(mark)
    if _are_zero(head[1::2], head[::2]):
        return "utf-16-le", 0
    if _are_zero(head[::2], head[1::2]):
        return "utf-16-be", 0
    return "utf-8", 0


def _are_zero(some: bytes, others: bytes) -> bool:
    """Returns whether many bytes (of a short text all) are zero, and the others not."""
    least = 0.3 * len(some) if len(some) > 8 else len(some)
    return bool(some) and some.count(0) >= least and not others.count(0)


def as_utf8(file: io.BufferedReader, path: Path) -> io.BufferedReader:
    """Returns a file as UTF-8 without a byte order mark, with line feeds.

    UTF-8 is not validated here. Other encodings, and files whose lines end in a
    carriage return alone, are read into memory. Raises InputError if a file does not
    have the encoding of its mark.
    """
    encoding, mark = of_head(file.peek(4)[:4096])
    file.read(mark)
    start = file.peek(_SAMPLE_BYTES)
    if encoding == "utf-8" and (b"\n" in start or b"\r" not in start):
        return file
    content = _whole(file, path)
    if encoding != "utf-8":
        try:
            content = content.decode(encoding).replace("\r\n", "\n").encode()
        except UnicodeError as error:
            raise errors.InputError(
                f"{path} begins like {encoding.upper()}, but is not ({error}). Save it "
                "again as UTF-8."
            ) from None
    return io.BufferedReader(cast(Any, io.BytesIO(content.replace(b"\r", b"\n"))))


# Encodings to guess: the displayed name and that of iconv.
_GUESSED = {
    "gb18030": ("GBK (GB18030)", "GB18030"),
    "big5": ("Big5", "BIG5"),
    "shift_jis": ("Shift JIS", "SHIFT_JIS"),
    "euc_kr": ("EUC-KR", "EUC-KR"),
    "cp1251": ("Windows-1251", "CP1251"),
    "cp1252": ("Windows-1252 (Latin-1)", "CP1252"),
}


def encoding_advice(path: Path, faulty: bytes = b"") -> str:
    """Returns advice on a file that is not UTF-8, with its likely encoding.

    A file that is UTF-8 except for a few bytes has no other encoding.

    Args:
      faulty: lines that are not UTF-8, which decide with the head of the file.
    """
    sample = faulty[:_SAMPLE_BYTES] + head(NamedPath(path.name, path))
    text = sample.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    others = sum(not char.isascii() for char in text) - bad
    name = None if others > bad else _guess(sample)
    if name is None:
        return (
            "Convert the file to UTF-8 (iconv -f ENCODING -t UTF-8), or remove the line"
        )
    shown, iconv = _GUESSED[name]
    return (
        f"The file looks like {shown}: convert it with iconv -f {iconv} -t UTF-8 "
        f"{path} > new.txt, and check a few lines"
    )


def _guess(sample: bytes) -> str | None:
    """Returns the most probable of the encodings that are guessed."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(_GUESSED)).best()
    return best.encoding if best is not None and best.encoding in _GUESSED else None
