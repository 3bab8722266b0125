"""Encodings of text: those that are read as UTF-8, and a guess at the others.

UTF-16 and UTF-32 are converted while a file is read, and line ends of old Macs (a
carriage return only) become line feeds. GBK, Big5 and others are only named: a guess
is good enough for a message, and not for training data.
"""

import codecs
import io
from pathlib import Path
from typing import Any

from bert_jax import errors

_CHUNK_BYTES = 1 << 16
# The mark of UTF-16 opens that of UTF-32, so the longer ones come first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# Encodings that are guessed: the name for people, and that of iconv.
_GUESSED = {
    "gb18030": ("GBK (GB18030)", "GB18030"),
    "big5": ("Big5", "BIG5"),
    "shift_jis": ("Shift JIS", "SHIFT_JIS"),
    "euc_kr": ("EUC-KR", "EUC-KR"),
    "cp1251": ("Windows-1251", "CP1251"),
    "cp1252": ("Windows-1252 (Latin-1)", "CP1252"),
}


def of_head(head: bytes) -> tuple[str, int]:
    """Returns the Unicode encoding that a file opens with, and the bytes of its mark.

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
    """Says whether many bytes are zero, of a short text all, and no other ones are."""
    least = 0.3 * len(some) if len(some) > 8 else len(some)
    return bool(some) and some.count(0) >= least and not others.count(0)


def as_utf8(file: io.BufferedReader, path: Path) -> io.BufferedReader:
    """Returns a file as UTF-8 without a mark, whose lines end in a line feed.

    What is UTF-8 already is not checked here. Raises InputError, on reading, where a
    file is not what its mark says.
    """
    encoding, mark = of_head(file.peek(len(codecs.BOM_UTF32_LE))[:4096])
    file.read(mark)
    if encoding != "utf-8":
        decoder = codecs.getincrementaldecoder(encoding)()
        ends = io.IncrementalNewlineDecoder(decoder, translate=True)
        return io.BufferedReader(_Recoded(file, path, ends, encoding))
    head = file.peek(_CHUNK_BYTES)
    if b"\r" in head and b"\n" not in head:
        return io.BufferedReader(_Recoded(file, path, _CarriageReturns(), encoding))
    return file


class _CarriageReturns:
    """Bytes whose carriage returns become line feeds."""

    def decode(self, data: bytes, final: bool = False) -> str:
        """Returns the bytes as Latin-1, which spells each byte as itself."""
        return data.replace(b"\r", b"\n").decode("latin-1")


class _Recoded(io.RawIOBase):
    """A file in another encoding, read as UTF-8."""

    def __init__(
        self, file: io.BufferedReader, path: Path, decoder: Any, encoding: str
    ) -> None:
        self._file, self._path = file, path
        self._decoder, self._encoding = decoder, encoding
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            data = self._file.read(_CHUNK_BYTES)
            self._left = self._utf8(data)
            if not data:
                break
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _utf8(self, data: bytes) -> bytes:
        if self._encoding == "utf-8":
            return self._decoder.decode(data).encode("latin-1")
        try:
            return self._decoder.decode(data, final=not data).encode("utf-8")
        except UnicodeError as error:
            raise errors.InputError(
                f"{self._path} opens like {self._encoding.upper()} and is not "
                f"({error}). Save it again as UTF-8."
            ) from None


def remedy(sample: bytes, path: Path) -> str:
    """Returns what to do about bytes that are not UTF-8: the likely encoding, by name.

    A file that is UTF-8 but for a few bytes has no other encoding.
    """
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
