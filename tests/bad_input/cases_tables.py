"""Bad tables of labeled texts: TSV, CSV, and JSON lines of examples."""

import bz2
import gzip
import lzma

from bad_files import Case, Content, case, dangling, fifo

_FINETUNE = "finetune --config={good}/tasks/tiny.py --workdir={here}/run "
_TRAIN = (
    _FINETUNE + "--config.data.train={here}/%s --config.data.dev={here}/%s "
    "--config.data.task=%s"
)
_HEAD = "sentence\tlabel\n"
_GOOD = f"{_HEAD}a cat\tcat\na dog\tdog\nthe cat\tcat\nthe dog\tdog\n"
_LINES = "word word word word\n" * (9 << 16)  # nine megabytes
_CSV = "text,label\na cat,cat\na dog,dog\nthe cat,cat\nthe dog,dog\n"


def _table(
    name: str,
    content: Content,
    expected: str,
    task: str = "classification",
    more: str = "",
) -> Case:
    return _of("TSV", "a.tsv", name, content, expected, task, more)


def _csv(
    name: str, content: Content, expected: str, task: str = "classification"
) -> Case:
    return _of("CSV", "a.csv", name, content, expected, task, "")


def _json(
    name: str, content: Content, expected: str, task: str = "classification"
) -> Case:
    return _of("JSON examples", "a.jsonl", name, content, expected, task, "")


def _of(
    kind: str,
    file: str,
    name: str,
    content: Content,
    expected: str,
    task: str,
    more: str,
) -> Case:
    command = f"{_TRAIN % (file, file, task)} {more}"
    return case(kind, name, command, f"{{here}}/{file}{expected}", {file: content})


def _evaluated(name: str, content: Content, expected: str, more: str = "") -> Case:
    command = "evaluate --workdir={here}/run --data={here}/d.tsv " + more
    words = f"{{here}}/d.tsv{expected}"
    return case("TSV", name, command, words, {"d.tsv": content}, base="tasks/run")


def _predicted(name: str, content: Content, expected: str) -> Case:
    command = "predict --model={good}/tasks/run --input={here}/p.tsv "
    command += "--output={here}/answers.jsonl"
    return case("TSV", name, command, f"{{here}}/p.tsv{expected}", {"p.tsv": content})


TSV = [
    _table("a column more", f"{_GOOD}a\tcat\tx\n", ":6…3 columns"),
    _table("a column less", f"{_GOOD}a cat\n", ":6…1 column"),
    _table("a line of tabs", f"{_GOOD}\t\t\t\n", ":6…4 columns"),
    _table("no label", f"{_GOOD}a cat\t\n", ":6…label"),
    _table("a blank label", f"{_GOOD}a cat\t  \n", ":6…label"),
    _table("no text", f"{_GOOD}\tcat\n", ":6…'sentence'"),
    _table("a blank text", f"{_GOOD} \tcat\n", ":6…'sentence'"),
    _table("a wide blank", f"{_GOOD}\u3000\tcat\n", ":6…'sentence'"),
    _table("a class seen once", f"{_GOOD}a\tbird\n", ":6…'bird'"),
    _table("one class", f"{_HEAD}a\tx\nb\tx\n", "…1 class"),
    _table("only a header", _HEAD, "…example"),
    _table("empty", "", "…empty"),
    _table("only a byte order mark", b"\xef\xbb\xbf", "…empty"),
    _table("blank lines", "\n\n\n", "…example"),
    _table(
        "GBK",
        f"{_GOOD}那只猫很好\tcat\n".encode("gbk"),
        ":6…0xc4",
    ),
    _table("Latin-1", f"{_GOOD}caf\xe9\tcat\n".encode("latin-1"), ":6…byte 4"),
    _table("UTF-16", _GOOD.encode("utf-16")[:-1], "…UTF-16"),
    _table("a NUL byte", f"{_GOOD}a\0b\tcat\n", ":6…0x00"),
    _table("cut gzip", gzip.compress(_GOOD.encode(), mtime=0)[:-9], "…damaged"),
    _table("cut bzip2", bz2.compress(_GOOD.encode())[:-9], "…damaged"),
    _table("xz", lzma.compress(_GOOD.encode()), "…xz"),
    _table(
        "gzip and more",
        gzip.compress(_GOOD.encode(), mtime=0) + b"more",
        "…damaged",
    ),
    _table(
        "an id twice",
        "id\tsentence\tlabel\n7\ta\tx\n8\tb\ty\n7\tc\tx\n",
        ":4…'7'…{here}/a.tsv:2",
    ),
    _table("no id", "id\tsentence\tlabel\n7\ta\tx\n\tb\tx\n", ":3…'id'"),
    _table(
        "two columns of a name",
        "sentence\tsentence\tlabel\na\tb\tx\n",
        ":1…'sentence'",
    ),
    _table(
        "another column than is named",
        "phrase\tkind\na cat\tcat\n",
        ":1…'text'…data.columns.text…'phrase'…'kind'",
        more="--config.data.columns.text=text",
    ),
    _table(
        "a column beyond the last",
        _GOOD,
        ":1…'7'…data.columns.label",
        more="--config.data.columns.label=7",
    ),
    _table(
        "several labels, one twice",
        f"{_GOOD}a\tcat|cat\n",
        ':6…"cat|cat"',
        more="--config.data.multi_label=|",
    ),
    _table("a line of 100 MB", b"a" * (100 << 20), ":1…line"),
    _table("a folder", lambda path: path.mkdir(), "…Is a directory"),
    _table("a link to nothing", dangling, "…exist"),
    _table("a pipe", fifo, "…regular file"),
    _table("not there", lambda path: None, "…exist"),
    _of(
        "TSV",
        "a.txt",
        "no tab at all",
        "no tab here\n",
        "…format",
        "classification",
        "",
    ),
    _table("NaN", "text\tscore\na\tnan\nb\t1\n", ":2…score", "regression"),
    _table("infinity", "text\tscore\na\tinf\nb\t1\n", ":2…score", "regression"),
    _table("1e999", "text\tscore\nb\t1\na\t1e999\n", ":3…score", "regression"),
    _table("a word", "text\tscore\na\tgood\nb\t1\n", ":2…score", "regression"),
    _table("1_0", "text\tscore\na\t1_0\nb\t1\n", ":2…score", "regression"),
    _table("no score", "text\tscore\na\t\nb\t1\n", ":2…score", "regression"),
    _table("equal scores", "text\tscore\na\t1\nb\t1.0\n", ":2…2 scores", "regression"),
    _table(
        "half labeled pairs",
        "sentence1\tsentence2\tlabel\na\tb\t1\na\tb\t\n",
        ":3…label",
        "matching",
    ),
    _table(
        "an empty second text",
        "sentence1\tsentence2\tlabel\na\tb\t1\na\t\t1\n",
        ":3…'sentence2'",
        "matching",
    ),
    case(
        "TSV",
        "labels of dev that train has not",
        f"{_FINETUNE}--config.data.dev={{here}}/d.tsv",
        "{here}/d.tsv:2…'bird'…2",
        {"d.tsv": f"{_HEAD}a\tbird\nb\tbird\n"},
    ),
    case(
        "TSV",
        "dev without labels",
        f"{_FINETUNE}--config.data.dev={{here}}/d.tsv",
        "{here}/d.tsv:1…label",
        {"d.tsv": "sentence\nthe cat\n"},
    ),
    case(
        "TSV",
        "a file of labels with one twice",
        f"{_FINETUNE}--config.data.labels={{here}}/labels.txt",
        "data.labels…'cat'",
        {"labels.txt": "cat\ndog\ncat\n"},
    ),
    case(
        "TSV",
        "a file of labels that is not UTF-8",
        f"{_FINETUNE}--config.data.labels={{here}}/labels.txt",
        "{here}/labels.txt:2…0xff",
        {"labels.txt": b"cat\n\xff\n"},
    ),
    _evaluated("a label that is unknown", f"{_HEAD}a\tbird\n", ":2…'bird'"),
    _evaluated("a number beyond the labels", f"{_HEAD}a\t2\n", ":2…'2'"),
    _evaluated("a negative label", f"{_HEAD}a\t-1\n", ":2…'-1'"),
    _evaluated("ragged", f"{_GOOD}a\n", ":6…1 column"),
    _evaluated("empty", "", "…empty"),
    _evaluated("no label at all", "sentence\na\n", ":1…column"),
    _predicted("a pipe", fifo, "…regular file"),
    _predicted("ragged in its last line", f"{_GOOD}a\n", ":6…1 column"),
    _predicted("only a header", _HEAD, "…example"),
    _predicted(
        "no UTF-8 in its last line", f"{_GOOD}caf\xe9\tx".encode("latin-1"), ":6"
    ),
]
CSV = [
    _csv("a quote that stays open", f'{_CSV}"a,x\nmore,y\n', ":6…row"),
    _csv("a quote in a cell", f'{_CSV}"a"b,cat\n', ":6…row"),
    _csv("a column more", f"{_CSV}a,b,cat\n", ":6…3 columns"),
    _csv("a column less", f"{_CSV}a\n", ":6…1 column"),
    _csv(
        "a bad row after one of three lines",
        f'{_CSV}"a\nb\nc",cat\nx\n',
        ":9…1 column",
    ),
    _csv("a column twice", "text,text,label\na,b,x\n", ":1…columns"),
    _csv("no UTF-8", _CSV.encode() + b"\xff,x\n", ":6…0xff"),
    _csv("a NUL byte", f"{_CSV}a\0,x\n", ":6…0x00…NUL"),
    _csv("no label", f"{_CSV}a,\n", ":6…label"),
    _csv("a quoted blank text", f'{_CSV}" ",cat\n', ":6…'text'"),
    _csv("a cell of 9 MB", f'{_CSV}"{"a" * (9 << 20)}",x\n', ":6…line"),
    _csv(
        "a cell of many lines of 9 MB",
        f'{_CSV}"{_LINES}",x\n',
        ":6…CSV",
    ),
    _csv("empty", "", "…empty"),
    _csv("only a header", "text,label\n", "…example"),
    _csv(
        "scores, one not a number",
        "text,score\na,1\nb,1;5\n",
        ":3…score",
        "regression",
    ),
]
_ONE = '{"text": "a cat", "label": "x"}\n'
_PICK = "multiple_choice"
JSON = [
    _json("no known field", '{"phrase": "a", "kind": "b"}\n', ":1…column"),
    _json("cut", f'{_ONE}{{"text":\n', ":2…JSON"),
    _json("a list", f"{_ONE}[1]\n", ":2…JSON"),
    _json("null", f"{_ONE}null\n", ":2…JSON"),
    _json("a number", f"{_ONE}3\n", ":2…JSON"),
    _json("a key twice", '{"text": "a", "text": "b", "label": "x"}\n', ":1…key"),
    _json("a number for the text", '{"text": 3, "label": "x"}\n', ":1…'text'…3"),
    _json("null for the text", '{"text": null, "label": "x"}\n', ":1…'text'…null"),
    _json("an object for the text", '{"text": {}, "label": "x"}\n', ":1…'text'"),
    _json("null for the label", '{"text": "a", "label": null}\n', ":1…label"),
    _json("a list for the label", '{"text": "a", "label": []}\n', ":1…[]"),
    _json("NaN for the label", '{"text": "a", "label": NaN}\n', ":1…label is nan"),
    _json(
        "half of a surrogate pair",
        '{"text": "a \\ud83d", "label": "x"}\n',
        ":1…character 2…'a \\ud83d'",
    ),
    _json(
        "half of a pair in a label",
        '{"text": "a", "label": "\\ude00"}\n',
        ":1…character 0…'\\ude00'",
    ),
    _json("a label only in the second", '{"text": "a"}\n' + _ONE, ":1…column"),
    _json("deep nesting", f'{_ONE}{{"text": {"[" * 100000}\n', ":2…JSON"),
    _json("pretty-printed", '{\n"text": "a"\n"label": "x"\n}\n', ":1…JSON"),
    _json("a document", '[{"text": "a", "label": "x"}, 3]\n', ":1…JSON"),
    _json("NaN", '{"text": "a", "score": NaN}\n', ":1…score is nan", "regression"),
    _json("1e999", '{"text": "a", "score": 1e999}\n', ":1…score", "regression"),
    _json("true", '{"text": "a", "score": true}\n', ":1…score", "regression"),
    _json(
        "a choice beyond the last",
        '{"context": "a", "choices": ["b", "c"], "label": 2}\n',
        ":1…'2'…2 choices",
        _PICK,
    ),
    _json(
        "a choice before the first",
        '{"context": "a", "choices": ["b", "c"], "label": -1}\n',
        ":1…'-1'…2 choices",
        _PICK,
    ),
    _json(
        "half a choice",
        '{"context": "a", "choices": ["b", "c"], "label": 0.5}\n',
        ":1…'0.5'…2 choices",
        _PICK,
    ),
    _json(
        "one choice",
        '{"context": "a", "choices": ["b"], "label": 0}\n',
        ":1…'choices'",
        _PICK,
    ),
    _json(
        "a text for the choices",
        '{"context": "a", "choices": "bc", "label": 0}\n',
        ":1…'choices'",
        _PICK,
    ),
    _json(
        "an empty choice",
        '{"context": "a", "choices": ["b", ""], "label": 0}\n',
        ":1…'choices'",
        _PICK,
    ),
    _json(
        "a number among the choices",
        '{"context": "a", "choices": ["b", 3], "label": 0}\n',
        ":1…'choices'…3",
        _PICK,
    ),
]
CASES = TSV + CSV + JSON
