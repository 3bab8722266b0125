"""Bad texts: corpora of lines and of JSON lines, and texts to be asked about."""

import bz2
import gzip
import lzma

from bad_files import Case, Content, case, dangling, fifo

_TEXT = b"the cat sat\non a mat\n\ndogs run fast\nrain falls\n"
_ZIPPED = gzip.compress(_TEXT * 40, mtime=0)
_PREPARE = "prepare --config={good}/text/tiny.py --store={here}/s --config.data.corpus="
_VOCAB = " --config.text.vocab={good}/text/vocab.txt"


def _text(name: str, content: Content, says: str, file: str = "c.txt") -> Case:
    command = f"{_PREPARE}{{here}}/{file}"
    return case("text", name, command, f"{{here}}/{file}{says}", {file: content})


def _jsonl(name: str, content: Content, says: str, **others) -> Case:
    command = f"{_PREPARE}{{here}}/c.jsonl{_VOCAB}"
    words = f"{{here}}/c.jsonl{says}"
    return case("JSON lines", name, command, words, {"c.jsonl": content}, **others)


def _asked(name: str, task: str, content: Content, says: str) -> Case:
    """Texts for `predict`, one a line."""
    command = "predict --model={good}/tasks/models/classification --input={here}/q.txt "
    if task == "answer":
        command += "--input_format=lines --output={here}/a.jsonl"
    else:
        command = command.replace("tasks/models/classification", "export")
        command += "--task=features --output={here}/v.npy"
    return case("text", name, command, f"{{here}}/q.txt{says}", {"q.txt": content})


TEXT = [
    _text("empty", b"", " is empty"),
    _text("a byte order mark alone", b"\xef\xbb\xbf", " is empty"),
    _text("only blank lines", b"\n  \n\t\n", " has only blank lines"),
    _text("a mark and blank lines", b"\xef\xbb\xbf\n\n", " has only blank lines"),
    _text("UTF-16", "text\n".encode("utf-16")[:-1], " opens like UTF-16"),
    _text("UTF-16, big end first", b"\xfe\xff\0t\0", " opens like UTF-16-BE"),
    _text(
        "UTF-16 without a mark",
        _TEXT.decode().encode("utf-16-le")[:-1],
        " opens like UTF-16-LE and is not",
    ),
    _text(
        "UTF-32",
        "text\n".encode("utf-32")[:-1],
        " opens like UTF-32-LE and is not",
    ),
    _text("no UTF-8", b"fine\nb\xffd\n", ":2: byte 2 of the line (0xff) is not UTF-8"),
    _text(
        "no UTF-8 in line 7",
        _TEXT + b"\nso far\nthe c\xe9 dilla\n",
        ":8: byte 6 of the line (0xe9) is not UTF-8",
    ),
    _text("GBK", "猫说它饿\n".encode("gbk"), ":1: byte 5 of the line (0xcb) is not"),
    _text(
        "a character cut", "猫\n狗".encode()[:-1], ":2: byte 1 of the line (0xe7) is"
    ),
    _text("a surrogate in UTF-8", b"a\xed\xa0\x80b\n", ":1: byte 2 of the line (0xed)"),
    _text(
        "a long spelling of /", b"a\n\n\nb\xc0\xaf\n", ":4: byte 2 of the line (0xc0"
    ),
    _text("a NUL byte", b"fine\nb\0d\n", ":2: byte 2 of the line (0x00) is a NUL byte"),
    _text("NUL bytes alone", bytes(4096), ":1: byte 1 of the line (0x00) is a NUL"),
    _text("a line of 100 MB", b"a" * (100 << 20), ":1: the line that begins here is"),
    _text(
        "a document of 9 MB",
        b"the cat sat on a mat\n" * (9 << 16),
        ":1: the document that begins here is longer",
    ),
    _text(
        "a line of 10 MB behind others", _TEXT + b"\n" + b"b" * (10 << 20), ":7: the"
    ),
    _text("a gzip bomb", gzip.compress(b"a" * (100 << 20), 9, mtime=0), ":1: the line"),
    case(
        "text",
        "no character twice",
        f"{_PREPARE}{{here}}/c.txt",
        "no character occurs 2 times",
        {"c.txt": b"a b c\n"},
    ),
    _text("cut gzip", _ZIPPED[:-9], " is a damaged or cut archive", "c.txt.gz"),
    _text("gzip cut in its head", _ZIPPED[:7], " is a damaged or cut", "c.txt.gz"),
    _text(
        "gzip, one byte flipped",
        _ZIPPED[:30] + bytes([_ZIPPED[30] ^ 255]) + _ZIPPED[31:],
        " is a damaged or cut archive",
        "c.txt.gz",
    ),
    _text("gzip and more", _ZIPPED + b"more", " is a damaged or cut", "c.txt.gz"),
    _text("gzip of nothing", gzip.compress(b"", mtime=0), " is empty", "c.txt.gz"),
    _text("cut bzip2", bz2.compress(_TEXT * 40)[:-9], " is a damaged or cut archive"),
    _text(
        "bzip2, damaged",
        bz2.compress(_TEXT * 40)[:40] + bytes(40),
        " is a damaged or cut archive",
    ),
    _text("xz", lzma.compress(_TEXT), " is compressed with xz. Decompress it"),
    _text("zstd", b"\x28\xb5\x2f\xfd" + bytes(9), " is compressed with zstd. Decomp"),
    _text("zip", b"PK\3\4" + bytes(30), " is compressed with zip. Decompress it"),
    _text("a folder without texts", lambda path: path.mkdir(), " has no .txt"),
    _text("a link to nothing", dangling, " does not exist"),
    _text("a pipe", fifo, " is not a regular file"),
    _text("not there", lambda path: None, " does not exist. Check data.corpus"),
    case(
        "text",
        "a folder whose second file is bad",
        f"{_PREPARE}{{here}}/c",
        "{here}/c/b.txt:3: byte 1 of the line (0xff) is not UTF-8",
        {"c/a.txt": _TEXT * 9, "c/b.txt": b"a\n\n\xff\n"},
    ),
    case(
        "text",
        "a good file and one that is not there",
        f"{_PREPARE}{{good}}/text/text.txt,{{here}}/no.txt",
        "{here}/no.txt does not exist",
        {},
    ),
    case(
        "text",
        "a corpus of pretrain",
        "pretrain --config={good}/text/tiny.py --workdir={here}/run "
        f"--config.data.store={{here}}/s --config.data.corpus={{here}}/c.txt{_VOCAB}",
        "{here}/c.txt:2: byte 2 of the line (0xff) is not UTF-8",
        {"c.txt": b"fine\nb\xffd\n", "run/keep": b"", "s/": lambda path: None},
    ),
    _asked("texts to answer: empty", "answer", b"", " is empty"),
    _asked("texts to answer: blank", "answer", b"\n \n", " has no text"),
    _asked("texts to answer: no UTF-8", "answer", b"a\nb\xff\n", ":2: byte 2 of the"),
    _asked(
        "texts to answer: three parts", "answer", b"a\nb\tc\td\n", ":2: classificat"
    ),
    _asked("texts to answer: a NUL byte", "answer", b"a\n\0\n", ":2: byte 1 of the"),
    _asked("texts to embed: empty", "features", b"", " is empty"),
    _asked("texts to embed: no UTF-8", "features", b"a\nb\xff\n", ":2: byte 2 of the"),
    _asked(
        "texts to embed: UTF-16",
        "features",
        "a".encode("utf-16")[:-1],
        " opens like UTF-16",
    ),
    _asked("texts to embed: a NUL byte", "features", b"a\nb\0c\n", ":2: byte 2 of the"),
    _asked(
        "texts to embed: a folder", "features", lambda path: path.mkdir(), " cannot"
    ),
    _asked("texts to embed: not there", "features", lambda path: None, " cannot be"),
]

_GOOD = b'{"text": "a cat sat. a dog ran."}\n'
JSON_LINES = [
    _jsonl("no JSON", _GOOD + b'{"text"\n', ":2: "),
    _jsonl("cut", _GOOD + b'{"text": "a c', ":2: "),
    _jsonl("single quotes", b"{'text': 'a'}\n", ":1: "),
    _jsonl("two objects a line", _GOOD.strip() * 2, ":1 is not JSON"),
    _jsonl("a comma at the end", b'{"text": "a"},\n', ":1: "),
    _jsonl("NaN for the text", b'{"text": NaN}\n', ":1: the field 'text' is neither"),
    _jsonl("null", _GOOD * 2 + b"null\n", ":3: no field 'text', only NoneType"),
    _jsonl("a number", b"17\n", ":1: no field 'text', only int"),
    _jsonl("a list", b'["text"]\n', ":1: no field 'text', only list"),
    _jsonl("a text", b'"text"\n', ":1: no field 'text', only str"),
    _jsonl("another field", b'{"body": "a"}\n', ":1: no field 'text', only ['body']"),
    _jsonl("no field at all", b"{}\n", ":1: no field 'text', only []"),
    _jsonl(
        "a number for the text", b'{"text": 3}\n', ":1: the field 'text' is neither"
    ),
    _jsonl("null for the text", b'{"text": null}\n', ":1: the field 'text' is neither"),
    _jsonl("an object for the text", b'{"text": {}}\n', ":1: the field 'text' is nei"),
    _jsonl("a list with a number", b'{"text": ["a", 3]}\n', ":1: the field 'text' is"),
    _jsonl(
        "the text twice",
        _GOOD + b'{"text": "a cat", "text": "a dog"}\n',
        ":2 has the key 'text' twice",
    ),
    _jsonl("deep nesting", b'{"text": ' + b"[" * 100000 + b"\n", ":1: "),
    _jsonl("a huge number", b'{"text": ' + b"9" * 5000 + b"}\n", ":1: "),
    _jsonl("no UTF-8", _GOOD + b'{"text": "\xff"}\n', ":2: byte 11 of the line (0xff)"),
    _jsonl("a raw NUL byte", b'{"text": "\0"}\n', ":1: byte 11 of the line (0x00)"),
    _jsonl("a raw tab in a text", b'{"text": "a\tb"}\n', ":1: "),
    _jsonl("empty", b"", " is empty"),
    case(
        "JSON lines",
        "no sentence at all",
        f"{_PREPARE}{{here}}/c.jsonl{_VOCAB}",
        "the corpus has corpus has no text",
        {"c.jsonl": b'{"text": ""}\n{"text": []}\n'},
    ),
    _jsonl("pretty-printed", b'{\n"text" "a"\n}\n', ":1: "),
]
CASES = TEXT + JSON_LINES
