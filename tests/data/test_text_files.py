"""Text files line by line, and everything that can be wrong with them."""

import bz2
import gzip
import hashlib
import os

import pytest

from bert_jax import errors
from bert_jax.data import text_files


def file_of(tmp_path, data, name="c.txt"):
    path = tmp_path / name
    path.write_bytes(data)
    return text_files.NamedPath(name, path)


def read_lines(file):
    return list(text_files.lines(file))


def read_blocks(file, blank_lines=1):
    return list(text_files.blocks(file, blank_lines=blank_lines))


def test_lines_are_numbered_and_blank_ones_left_out(tmp_path):
    file = file_of(tmp_path, b"one\n\n \t\n  two \nthree")
    assert read_lines(file) == [(1, "one"), (4, "two"), (5, "three")]


def test_whole_lines_keep_white_space_and_blank_lines(tmp_path):
    file = file_of(tmp_path, b"\xef\xbb\xbf\t a \r\n\n \nb\rc")
    assert list(text_files.whole_lines(file)) == [
        (1, "\t a "),
        (2, ""),
        (3, " "),
        (4, "b\rc"),
    ]


def test_blocks_end_at_blank_lines(tmp_path):
    file = file_of(tmp_path, b"\n\na\nb\n\n\n\nc\n \nd\n")
    assert read_blocks(file) == [(3, "a\nb"), (8, "c"), (10, "d")]


def test_blocks_that_end_at_two_blank_lines_keep_one_inside(tmp_path):
    file = file_of(tmp_path, b"a\n\nb\n\n\nc\n\n\n\nd\ne\n\n")
    assert read_blocks(file, 2) == [(1, "a\n\nb"), (6, "c"), (10, "d\ne")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_byte_order_mark_and_crlf_are_taken_away(tmp_path, pack):
    data = "\ufeff一\r\n二\r\n\r\n三\r\n".encode()
    file = file_of(tmp_path, pack(data))
    assert read_lines(file) == [(1, "一"), (2, "二"), (4, "三")]
    assert read_blocks(file) == [(1, "一\n二"), (4, "三")]


def test_other_line_separators_end_no_line(tmp_path):
    data = "a\u2028b\u0085c\x0bd\n".encode()
    assert read_lines(file_of(tmp_path, data)) == [(1, "a\u2028b\u0085c\x0bd")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_tally_has_size_and_digest_of_the_file_itself(tmp_path, pack):
    data = pack(b"a\n\nb\n" * 100_000)
    file, tally = file_of(tmp_path, data), text_files.Tally()
    assert len(list(text_files.lines(file, tally))) == 200_000
    (entry,) = tally.files
    assert (entry.name, entry.bytes) == ("c.txt", len(data)) and tally.bytes_read == (
        len(data)
    )
    assert entry.sha256 == hashlib.sha256(data).hexdigest()


def test_a_file_left_half_read_is_still_digested_to_its_end(tmp_path):
    data = b"abcdef\n" * 500_000
    file, tally = file_of(tmp_path, data), text_files.Tally()
    with text_files.open_raw(file, tally) as raw:
        raw.read(2)
    assert tally.files[0].sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", r"c\.txt is empty"),
        (gzip.compress(b"", mtime=0), r"c\.txt is empty"),
        ("一\n二".encode("utf-16")[:-1], r"c\.txt begins like UTF-16-LE"),
        (b"ab\nc\xffd\n", r"c\.txt:2: byte 2 of the line \(0xff\) is not UTF-8"),
        ("一\n".encode() + "二".encode()[:2], r"c\.txt:2: byte 1 .*not UTF-8"),
        ("中文".encode("gbk"), r"c\.txt:1: byte 1 of the line \(0xd6\) is not"),
        (b"a\nb\nxyz\0\n", r"c\.txt:3: byte 4 of the line \(0x00\) is a NUL byte"),
        (
            gzip.compress(b"abc\n" * 999, mtime=0)[:-9],
            r"c\.txt is a damaged or truncated archive",
        ),
        (
            gzip.compress(b"abc\n", mtime=0)[:5],
            r"c\.txt is a damaged or truncated archive",
        ),
        (
            gzip.compress(b"abc\n", mtime=0)[:-8] + b"12345678",
            "damaged or truncated.*CRC",
        ),
        (bz2.compress(b"abc\n" * 999)[:-9], "damaged or truncated archive"),
    ],
)
@pytest.mark.parametrize("read", [read_lines, read_blocks])
def test_bad_files_are_named_with_line_and_byte(tmp_path, data, message, read):
    with pytest.raises(errors.InputError, match=message):
        read(file_of(tmp_path, data))


def test_a_bad_byte_deep_in_a_block_is_placed_in_its_own_line(tmp_path):
    file = file_of(tmp_path, b"a\n\nb\nc\nde\xe4\n\n")
    with pytest.raises(errors.InputError, match=r"c\.txt:5: byte 3 of"):
        read_blocks(file)


def test_a_line_of_50_mb_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "c.txt"
    with open(path, "wb") as opened:
        opened.write(b"short\n")
        opened.truncate(50 << 20)
        opened.seek(6)
        opened.write(b"x" * (9 << 20))
    with pytest.raises(errors.InputError, match=r"c\.txt:2: the line .* 8 MiB.*lines"):
        read_lines(text_files.NamedPath("c.txt", path))


@pytest.mark.parametrize(
    "blank_lines, remedy", [(1, "1 blank line "), (2, "2 blank l")]
)
def test_a_document_without_end_is_refused(tmp_path, blank_lines, remedy):
    file = file_of(tmp_path, b"a\n\n\n" + b"0123456789abcde\n" * (1 << 20))
    with pytest.raises(errors.InputError, match=rf"c\.txt:4: the document .*{remedy}"):
        read_blocks(file, blank_lines)


def test_a_folder_or_a_forbidden_file_cannot_be_read(tmp_path):
    with pytest.raises(errors.InputError, match="cannot be read .*[Dd]irectory"):
        read_lines(text_files.NamedPath("d", tmp_path))
    if os.geteuid():
        file = file_of(tmp_path, b"a\n")
        file.path.chmod(0)
        with pytest.raises(errors.InputError, match="cannot be read .*permission"):
            read_lines(file)
