"""Reads and checks vocab.txt: one piece a line, its id the number of lines before.

Whatever is wrong with such a file is said with its line, before a model sees an id.
"""

from pathlib import Path

from bert_jax import errors, files, hub, json_file

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIALS = (PAD, UNK, CLS, SEP, MASK)


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file that is there and not empty.

    Raises:
      InputError: it is missing, a directory, not readable, empty or too long.
    """
    try:
        content = files.read(path, json_file.MAX_BYTES)
    except FileNotFoundError:
        raise errors.InputError(
            f"{path} does not exist. Give the path of a vocabulary, or "
            f"{hub.suggestion(path)}."
        ) from None
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        raise errors.InputError(f"{path} is empty. Give a vocabulary with pieces.")
    return content


def read(path: Path) -> tuple[str, ...]:
    """Reads the pieces of a vocab.txt in the order of their ids.

    A byte-order mark, carriage returns, ASCII blanks around a piece and blank lines
    at the end are dropped; other white space is kept, for published vocabularies
    have pieces such as U+2028.

    Raises:
      InputError: the file is no vocabulary.
    """
    lines = decode_utf8(read_bytes(path), path).removeprefix("\ufeff").split("\n")
    tokens = [line.strip(" \t\r") for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    check(tokens, str(path))
    return tuple(tokens)


def decode_utf8(content: bytes, path: Path) -> str:
    """Decodes the bytes of a file.

    Raises:
      InputError: with the line and the byte that are not UTF-8.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise errors.InputError(
            f"{path} is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path} > new.txt"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise errors.InputError(
            f"{path}:{line}: byte {error.start} (0x{content[error.start]:02x}) is not"
            " UTF-8. Save the vocabulary as UTF-8; a SentencePiece model must be"
            " named *.model."
        ) from None


def check(tokens: list[str], where: str) -> None:
    """Refuses pieces that cannot make a vocabulary.

    Raises:
      InputError: a piece is blank, divided or doubled.
    """
    first_line: dict[str, int] = {}
    for line, token in enumerate(tokens, 1):
        if not token or " " in token or "\t" in token:
            what = f"is {token!r}" if token else "is blank"
            raise errors.InputError(
                f"{where}:{line}: the line {what}. Write one piece a line, without"
                " spaces, for its place is its id."
            )
        if "\0" in token:
            raise errors.InputError(
                f"{where}:{line}: the piece {token!r} has a NUL byte. Save the"
                " vocabulary as UTF-8."
            )
        if token in first_line:
            raise errors.InputError(
                f"{where}: lines {first_line[token]} and {line} hold the same piece"
                f" {token!r}. Remove one: a piece can have one id only."
            )
        first_line[token] = line


def is_lowercase(tokens: tuple[str, ...]) -> bool:
    """Says whether no piece, but for names in brackets, has an upper-case letter.

    >>> is_lowercase(("[MASK]", "<S>", "the")), is_lowercase(("[MASK]", "The"))
    (True, False)
    """
    names = (("[", "]"), ("<", ">"))
    return not any(
        token != token.lower() and (token[0], token[-1]) not in names
        for token in tokens
    )
