"""Bad texts: corpora of lines and of JSON lines, and texts for `predict`."""

import bz2
import gzip
import lzma

from bad_files import Case, Content, case, dangling, fifo

_TEXT = b"the cat sat\non a mat\n\ndogs run fast\nrain falls\n"
_ZIPPED = gzip.compress(_TEXT * 40, mtime=0)
_PREPARE = "prepare --config={good}/text/tiny.py --store={here}/s --config.data.corpus="
_VOCAB = " --config.text.vocab={good}/text/vocab.txt"


def _text(name: str, content: Content, expected: str, file: str = "c.txt") -> Case:
    command = f"{_PREPARE}{{here}}/{file}"
    return case("text", name, command, f"{{here}}/{file}{expected}", {file: content})


def _jsonl(name: str, content: Content, expected: str, **others) -> Case:
    command = f"{_PREPARE}{{here}}/c.jsonl{_VOCAB}"
    words = f"{{here}}/c.jsonl{expected}"
    return case("JSON lines", name, command, words, {"c.jsonl": content}, **others)


def _asked(name: str, task: str, content: Content, expected: str) -> Case:
    """Texts for `predict`, one per line."""
    command = "predict --model={good}/tasks/models/classification --input={here}/q.txt "
    if task == "answer":
        command += "--input_format=lines --output={here}/a.jsonl"
    else:
        command = command.replace("tasks/models/classification", "export")
        command += "--task=features --output={here}/v.npy"
    return case("text", name, command, f"{{here}}/q.txt{expected}", {"q.txt": content})


TEXT = [
    _text("empty", b"", "…empty"),
    _text("only a byte order mark", b"\xef\xbb\xbf", "…empty"),
    _text("only blank lines", b"\n  \n\t\n", "…blank"),
    _text("a mark and blank lines", b"\xef\xbb\xbf\n\n", "…blank"),
    _text("UTF-16", "text\n".encode("utf-16")[:-1], "…UTF-16"),
    _text("UTF-16, big end first", b"\xfe\xff\0t\0", "…UTF-16-BE"),
    _text(
        "UTF-16 without a mark",
        _TEXT.decode().encode("utf-16-le")[:-1],
        "…UTF-16-LE",
    ),
    _text(
        "UTF-32",
        "text\n".encode("utf-32")[:-1],
        "…UTF-32-LE",
    ),
    _text("no UTF-8", b"fine\nb\xffd\n", ":2…0xff"),
    _text(
        "no UTF-8 in line 7",
        _TEXT + b"\nso far\nthe c\xe9 dilla\n",
        ":8…0xe9",
    ),
    _text("GBK", "猫说它饿\n".encode("gbk"), ":1…0xcb"),
    _text("a character cut", "猫\n狗".encode()[:-1], ":2…0xe7"),
    _text("a surrogate in UTF-8", b"a\xed\xa0\x80b\n", ":1…0xed"),
    _text("a long spelling of /", b"a\n\n\nb\xc0\xaf\n", ":4…0xc0"),
    _text("a NUL byte", b"fine\nb\0d\n", ":2…0x00…NUL"),
    _text("only NUL bytes", bytes(4096), ":1…0x00…NUL"),
    _text("a line of 100 MB", b"a" * (100 << 20), ":1…line"),
    _text(
        "a document of 9 MB",
        b"the cat sat on a mat\n" * (9 << 16),
        ":1…document",
    ),
    _text("a line of 10 MB after others", _TEXT + b"\n" + b"b" * (10 << 20), ":7"),
    _text("a gzip bomb", gzip.compress(b"a" * (100 << 20), 9, mtime=0), ":1…line"),
    case(
        "text",
        "no character twice",
        f"{_PREPARE}{{here}}/c.txt",
        "2 times",
        {"c.txt": b"a b c\n"},
    ),
    _text("cut gzip", _ZIPPED[:-9], "…damaged", "c.txt.gz"),
    _text("gzip cut in its head", _ZIPPED[:7], "…damaged", "c.txt.gz"),
    _text(
        "gzip, one byte flipped",
        _ZIPPED[:30] + bytes([_ZIPPED[30] ^ 255]) + _ZIPPED[31:],
        "…damaged",
        "c.txt.gz",
    ),
    _text("gzip and more", _ZIPPED + b"more", "…damaged", "c.txt.gz"),
    _text("gzip of nothing", gzip.compress(b"", mtime=0), "…empty", "c.txt.gz"),
    _text("cut bzip2", bz2.compress(_TEXT * 40)[:-9], "…damaged"),
    _text(
        "bzip2, damaged",
        bz2.compress(_TEXT * 40)[:40] + bytes(40),
        "…damaged",
    ),
    _text("xz", lzma.compress(_TEXT), "…xz"),
    _text("zstd", b"\x28\xb5\x2f\xfd" + bytes(9), "…zstd"),
    _text("zip", b"PK\3\4" + bytes(30), "…zip"),
    _text("a folder without texts", lambda path: path.mkdir(), "….txt"),
    _text("a link to nothing", dangling, "…exist"),
    _text("a pipe", fifo, "…regular file"),
    _text("not there", lambda path: None, "…data.corpus"),
    case(
        "text",
        "a folder whose second file is bad",
        f"{_PREPARE}{{here}}/c",
        "{here}/c/b.txt:3…0xff",
        {"c/a.txt": _TEXT * 9, "c/b.txt": b"a\n\n\xff\n"},
    ),
    case(
        "text",
        "a good file and one that is not there",
        f"{_PREPARE}{{good}}/text/text.txt,{{here}}/no.txt",
        "{here}/no.txt…exist",
        {},
    ),
    case(
        "text",
        "a corpus of pretrain",
        "pretrain --config={good}/text/tiny.py --workdir={here}/run "
        f"--config.data.store={{here}}/s --config.data.corpus={{here}}/c.txt{_VOCAB}",
        "{here}/c.txt:2…0xff",
        {"c.txt": b"fine\nb\xffd\n", "run/keep": b"", "s/": lambda path: None},
    ),
    _asked("texts to answer: empty", "answer", b"", "…empty"),
    _asked("texts to answer: blank", "answer", b"\n \n", "…text"),
    _asked("texts to answer: no UTF-8", "answer", b"a\nb\xff\n", ":2…byte 2"),
    _asked("texts to answer: three parts", "answer", b"a\nb\tc\td\n", ":2…classificat"),
    _asked("texts to answer: a NUL byte", "answer", b"a\n\0\n", ":2…byte 1"),
    _asked("texts to embed: empty", "features", b"", "…empty"),
    _asked("texts to embed: no UTF-8", "features", b"a\nb\xff\n", ":2…byte 2"),
    _asked(
        "texts to embed: UTF-16",
        "features",
        "a".encode("utf-16")[:-1],
        "…UTF-16",
    ),
    _asked("texts to embed: a NUL byte", "features", b"a\nb\0c\n", ":2…byte 2"),
    _asked(
        "texts to embed: a folder", "features", lambda path: path.mkdir(), "…cannot"
    ),
    _asked("texts to embed: not there", "features", lambda path: None, "…cannot"),
]

_GOOD = b'{"text": "a cat sat. a dog ran."}\n'
JSON_LINES = [
    _jsonl("no JSON", _GOOD + b'{"text"\n', ":2…JSON"),
    _jsonl("cut", _GOOD + b'{"text": "a c', ":2…JSON"),
    _jsonl("single quotes", b"{'text': 'a'}\n", ":1…JSON"),
    _jsonl("two objects a line", _GOOD.strip() * 2, ":1…JSON"),
    _jsonl("a comma at the end", b'{"text": "a"},\n', ":1…JSON"),
    _jsonl("NaN for the text", b'{"text": NaN}\n', ":1…'text'"),
    _jsonl("null", _GOOD * 2 + b"null\n", ":3…'text'…NoneType"),
    _jsonl("a number", b"17\n", ":1…'text'…int"),
    _jsonl("a list", b'["text"]\n', ":1…JSON"),
    _jsonl("a text", b'"text"\n', ":1…'text'…str"),
    _jsonl("another field", b'{"body": "a"}\n', ":1…'text'…['body']"),
    _jsonl("no field at all", b"{}\n", ":1…'text'…[]"),
    _jsonl("a number for the text", b'{"text": 3}\n', ":1…'text'"),
    _jsonl("null for the text", b'{"text": null}\n', ":1…'text'"),
    _jsonl("an object for the text", _GOOD + b'{"text": {}}\n', ":2…'text'"),
    _jsonl("a list with a number", b'{"text": ["a", 3]}\n', ":1…'text'"),
    _jsonl(
        "the text twice",
        _GOOD + b'{"text": "a cat", "text": "a dog"}\n',
        ":2…'text'",
    ),
    _jsonl("deep nesting", b'{"text": ' + b"[" * 100000 + b"\n", ":1…JSON"),
    _jsonl("a huge number", b'{"text": ' + b"9" * 5000 + b"}\n", ":1…JSON"),
    _jsonl("no UTF-8", _GOOD + b'{"text": "\xff"}\n', ":2…0xff"),
    _jsonl("a raw NUL byte", b'{"text": "\0"}\n', ":1…0x00"),
    _jsonl("a raw tab in a text", b'{"text": "a\tb"}\n', ":1…JSON"),
    _jsonl("empty", b"", "…empty"),
    case(
        "JSON lines",
        "no sentence at all",
        f"{_PREPARE}{{here}}/c.jsonl{_VOCAB}",
        "corpus…text",
        {"c.jsonl": b'{"text": ""}\n{"text": []}\n'},
    ),
    _jsonl("pretty-printed", b'{\n"text" "a"\n}\n', ":1…JSON"),
]
CASES = TEXT + JSON_LINES
