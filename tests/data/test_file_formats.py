"""What a file holds decides how it is read: labeled examples and corpora alike."""

import bz2
import gzip
import json
import zipfile

import pytest
from example_files import columns, iterate, read, refused, write

from bert_jax import errors
from bert_jax.data import file_formats, text_files
from bert_jax.data.corpus import readers, sources

ROWS = [("a, b", "x"), ('he said "no"', "y"), ("c\td\ne", "x")]
PACKS = [bytes, gzip.compress, bz2.compress]


def texts(path, **options):
    found = read(path, **options).examples
    assert iterate(path, **options) == found
    return [(x.text, x.labels[0]) for x in found]


def documents(source):
    return [list(x.sentences) for x in readers.documents(sources.parse_source(source))]


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, pack, encoding, end):
    content = end.join(["text\tlabel", "好 a\t1", "b\t0", ""])
    path = write(tmp_path, pack(content.encode(encoding)))
    assert texts(path) == [("好 a", "1"), ("b", "0")]
    assert read(path).examples[1].where == f"{path}:3"


@pytest.mark.parametrize(
    "encoding, text, name",
    [
        ("gbk", "这家酒店的服务态度非常好，房间也很干净。", "GBK .*iconv -f GB18030"),
        ("big5", "這家飯店的服務態度非常好，房間也很乾淨。", "Big5.*iconv -f BIG5"),
        ("cp1252", "Le café était très bon, déjà vu à Paris", "Windows-1252"),
    ],
)
@pytest.mark.parametrize("pack", PACKS)
def test_other_encodings_are_named(tmp_path, encoding, text, name, pack):
    content = pack(f"text\tlabel\n{text}\t1\n".encode(encoding))
    refused(f"c.tsv:2: byte .* is not UTF-8. .*{name}", write(tmp_path, content))
    with pytest.raises(errors.InputError, match=name):
        documents(str(write(tmp_path, content, "c.txt")))


def test_one_bad_byte_of_utf8_is_no_other_encoding(tmp_path):
    content = "text\tlabel\n好好好\t1\n".encode() + b"a\xff\t1\n"
    refused("byte 2 .* is not UTF-8. Convert the file .*ENC", write(tmp_path, content))


TABLES = {
    "pandas": 'text\tlabel\n"a, b"\tx\n"he said ""no"""\ty\n"c\td\ne"\tx\n',
    "r": '"text"\t"label"\n"1"\t"a, b"\t"x"\n"2"\t"he said ""no"""\t"y"\n'
    '"3"\t"c\td\ne"\t"x"\n',
    "r escapes": '"text"\t"label"\n"1"\t"a, b"\t"x"\n"2"\t"he said \\"no\\""\t"y"\n'
    '"3"\t"c\td\ne"\t"x"\n',
    "semicolons": 'text;label\na, b;x\n"he said ""no""";y\n"c\td\ne";x\n',
    "sep": 'sep=;\ntext;label\na, b;x\n"he said ""no""";y\n"c\td\ne";x\n',
    "bars": 'text|label\na, b|x\n"he said ""no"""|y\n"c\td\ne"|x\n',
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_other_programs(tmp_path, kind):
    name = "a.tsv" if kind in ("pandas", "r", "r escapes") else "a.csv"
    assert texts(write(tmp_path, TABLES[kind], name)) == ROWS
    if kind != "sep":
        assert texts(write(tmp_path, TABLES[kind], "a.txt")) == ROWS


@pytest.mark.parametrize(
    "content",
    [
        'text\tlabel\n"So it goes."\t1\nwell, yes\t0\n',
        'text\tlabel\n"stray\t1\nb\t0\n',
        'text\tlabel\n"a" b\t1\n"c"\t0\n',
        'text\tlabel\na ""b""\t1\n',
    ],
)
def test_quotes_of_the_text_itself_stay(tmp_path, content):
    rows = [tuple(line.split("\t")) for line in content.splitlines()[1:]]
    assert texts(write(tmp_path, content)) == rows
    quoted = '"x""y"\tlabel\n1\t2\n'
    assert file_formats.is_quoted(quoted)
    asked = {"columns": columns(text="1", label="2"), "header": "false"}
    path = write(tmp_path, quoted)
    assert texts(path, **asked)[0] == ('x"y', "label")
    assert texts(path, format="tsv", **asked)[0] == ('"x""y"', "label")


RECORDS = [{"text": "a", "label": "x"}, {"text": "好\nb", "label": "y"}]
JSON = {
    "array": json.dumps(RECORDS),
    "indented array": json.dumps(RECORDS, indent=2),
    "pretty objects": "\n".join(json.dumps(x, indent=2) for x in RECORDS),
    "lines": "\n".join(json.dumps(x) for x in RECORDS),
    "one list": json.dumps({"data": RECORDS}, indent=1),
    "one list in a line": json.dumps({"data": RECORDS}),
    "pandas": json.dumps(
        {"text": {"0": "a", "1": "好\nb"}, "label": {"0": "x", "1": "y"}}
    ),
}


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt", "wiki_00"])
def test_json_in_every_layout(tmp_path, kind, name):
    path = write(tmp_path, JSON[kind], name)
    assert texts(path) == [("a", "x"), ("好\nb", "y")]
    assert documents(str(path)) == [["a"], ["好", "b"]]
    gzipped = write(tmp_path, gzip.compress(JSON[kind].encode()), f"{name}.gz")
    assert documents(str(gzipped)) == [["a"], ["好", "b"]]


def test_records_of_json_know_their_line(tmp_path):
    path = write(tmp_path, JSON["indented array"], "a.json")
    assert [x.where for x in read(path).examples] == [f"{path}:2", f"{path}:6"]
    refused(r"a.json:2 is not JSON", write(tmp_path, '[\n{"text": "a",}]', "a.json"))
    refused(
        "a.json:3 is not a JSON object",
        write(tmp_path, '[\n{"text": "x", "label": "y"}\n,"a"]', "a.json"),
    )
    twice = '[{"text": "a",\n"text": "b"}]'
    refused("a.json:1 has the key 'text' twice", write(tmp_path, twice, "a.json"))


def test_a_long_array_is_told_by_its_head(tmp_path):
    rows = [{"text": "a " * 90_000, "label": "x"}, {"text": "b", "label": "y"}]
    path = write(tmp_path, json.dumps(rows), "a.txt")
    assert [x for _, x in texts(path)] == ["x", "y"]


def test_an_excel_workbook(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("text", "label", None), *ROWS, (None, None), (39764.0, True)]:
        book.active.append(row)
    book.create_sheet("empty")
    path = tmp_path / "a.xlsx"
    book.save(path)
    assert texts(path) == [*ROWS, ("39764", "TRUE")]
    assert read(path).examples[3].where == f"{path}:6"
    assert documents(f"{path}#text")[0] == ["a, b"]
    path.rename(tmp_path / "a.bin")
    assert texts(tmp_path / "a.bin")[0] == ROWS[0]
    book["empty"].append(["x"])
    book.save(path)
    refused("2 sheets with cells .'Sheet', 'empty'", path)
    path.write_bytes(path.read_bytes()[:-50])
    refused("a.xlsx", path)


BINARY = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs"),
    "PDF": (b"%PDF-1.7\n", "pdftotext"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "Save it as .xlsx"),
    "pickle": (b"\x80\x04\x95", "a pickle"),
    "HTML": (b"\n<!DOCTYPE html>\n<html><body>a</body></html>", "an HTML page"),
    "XML": (b'<?xml version="1.0"?>\n<a>b</a>\n', "is XML"),
    "a dump of Wikipedia": (b"<mediawiki xml:lang='zh'>\n<page>", "is XML"),
    "HTML 2": (b'<html lang="en">\na\tb\n', "an HTML page"),
}


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.jsonl", "a.csv"])
def test_what_is_no_text_is_named(tmp_path, kind, name):
    content, message = BINARY[kind]
    path = write(tmp_path, content, name)
    refused(message, path)
    with pytest.raises(errors.InputError, match=message):
        documents(str(path))
    with pytest.raises(errors.InputError, match=message):
        readers.Reading(sources.parse_source(str(path))).findings()


def test_documents_of_word_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    with pytest.raises(errors.InputError, match="a.docx is a zip archive"):
        documents(f"{tmp_path / 'a.docx'}")


def test_a_table_as_a_corpus_is_read_by_column(tmp_path):
    path = write(tmp_path, 'id,text\n1,"a, b."\n2,"c\nd"\n', "a.csv")
    for source in (path, write(tmp_path, path.read_bytes(), "posts.txt")):
        assert documents(str(source)) == [["a, b."], ["c", "d"]]
    assert documents(f"csv:{path}#1") == documents(f"{path}#id") == [["1"], ["2"]]
    with pytest.raises(errors.InputError, match="no column 'x', only .'id', 'text'."):
        documents(f"{path}#x")
    assert documents(f"text:{path}") == [["id,text", '1,"a, b."', '2,"c', 'd"']]


def test_what_wikiextractor_writes(tmp_path):
    plain = (
        '<doc id="1" url="u" title="A &amp; B">\nA & B\n\nOne. Two.\nThree.\n\n</doc>\n'
        '<doc id="2" url="u" title="C">\nC\n\n</doc>\n'
        '<doc id="3" url="u" title="D">\nD\n四。\n</doc>\n'
    )
    for name, pack in (("wiki_00", bytes), ("wiki_01.bz2", bz2.compress)):
        path = write(tmp_path, pack(plain.encode()), name)
        assert documents(str(path)) == [["One.", "Two.", "Three."], ["四。"]]
    reading = readers.Reading(sources.parse_source(f"{tmp_path}/wiki_*"))
    (said,) = reading.findings()
    assert said == f"{tmp_path}/wiki_00 and 1 more: read as WikiExtractor's articles"


def test_what_was_found_is_reported(tmp_path):
    path = write(tmp_path, '{"id": 1, "text": "a"}\n{"text": "b"}\n', "wiki_00")
    assert documents(str(path)) == [["a"], ["b"]]
    (said,) = readers.Reading(sources.parse_source(str(path))).findings()
    assert said == f"{path}: read as JSON lines, its text in 'text'"
    assert documents(f"text:{path}") == [['{"id": 1, "text": "a"}', '{"text": "b"}']]
    plain = write(tmp_path, "{a} and\n[b]\n", "a.txt")
    assert readers.Reading(sources.parse_source(str(plain))).findings() == []
    assert documents(str(plain)) == [["{a} and", "[b]"]]


def test_a_corpus_keeps_the_digest_of_every_kind(tmp_path):
    path = write(tmp_path, JSON["indented array"], "a.json")
    reading = readers.Reading(sources.parse_source(str(path)))
    list(reading.records())
    tally = text_files.Tally()
    with text_files.open_raw(text_files.NamedPath("a.json", path), tally):
        pass
    assert list(reading.files) == tally.files
