"""A vocab.txt is read as published, and a bad one is refused with its line."""

from pathlib import Path

import pytest

from bert_jax import errors
from bert_jax.text import vocabulary_file

SPECIALS = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


def write(folder: Path, content: bytes | str) -> Path:
    """Writes a vocabulary and returns its path."""
    path = folder / "vocab.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_line_is_the_id(tmp_path: Path):
    path = write(tmp_path, SPECIALS + "a\n##b\n北\n")
    assert vocabulary_file.read(path)[4:] == ("[MASK]", "a", "##b", "北")


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + SPECIALS + "a",
        (SPECIALS + "a\n").replace("\n", "\r\n"),
        SPECIALS + "a \n\n \n",
    ],
)
def test_marks_of_editors_are_dropped(tmp_path: Path, content: str):
    tokens = vocabulary_file.read(write(tmp_path, content))
    assert tokens == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")


def test_pieces_of_other_white_space_keep_their_ids(tmp_path: Path):
    tokens = vocabulary_file.read(write(tmp_path, SPECIALS + "\u2028\n##\u2028\na\n"))
    assert tokens[5:] == ("\u2028", "##\u2028", "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocab.txt is empty"),
        (b" \n\n", "vocab.txt is empty"),
        (SPECIALS + "a\nb\na\n", r"lines 6 and 8 hold the same piece 'a'"),
        (SPECIALS + "a\n\nb\n", r"vocab.txt:7: the line is blank"),
        (SPECIALS + "a\t12\n", r"vocab.txt:6: the line is 'a\\t12'"),
        (SPECIALS + "two words\n", r"vocab.txt:6: .*one piece a line"),
        (b"[PAD]\n[UNK]\nab\xffc\n", r"vocab.txt:3: byte 14 \(0xff\) is not UTF-8"),
        (SPECIALS.encode("utf-16"), "vocab.txt is UTF-16. Convert it"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes | str, message: str):
    with pytest.raises(errors.InputError, match=message):
        vocabulary_file.read(write(tmp_path, content))


def test_missing_file_and_folder_are_refused(tmp_path: Path):
    with pytest.raises(errors.InputError, match="does not exist"):
        vocabulary_file.read(tmp_path / "none.txt")
    with pytest.raises(errors.InputError, match="cannot be read: Is a directory"):
        vocabulary_file.read(tmp_path)


def test_lowercase_is_seen_in_the_pieces():
    assert vocabulary_file.is_lowercase(("[PAD]", "[unused1]", "<S>", "a", "##é", "京"))
    assert not vocabulary_file.is_lowercase(("[PAD]", "a", "##B"))
    assert not vocabulary_file.is_lowercase(("[PAD]", "É"))
