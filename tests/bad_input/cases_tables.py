"""Bad tables of labelled texts: TSV, CSV, and JSON lines of examples."""

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
    name: str, content: Content, says: str, task: str = "classification", more: str = ""
) -> Case:
    return _of("TSV", "a.tsv", name, content, says, task, more)


def _csv(name: str, content: Content, says: str, task: str = "classification") -> Case:
    return _of("CSV", "a.csv", name, content, says, task, "")


def _json(name: str, content: Content, says: str, task: str = "classification") -> Case:
    return _of("JSON examples", "a.jsonl", name, content, says, task, "")


def _of(
    kind: str,
    file: str,
    name: str,
    content: Content,
    says: str,
    task: str,
    more: str,
) -> Case:
    command = f"{_TRAIN % (file, file, task)} {more}"
    return case(kind, name, command, f"{{here}}/{file}{says}", {file: content})


def _evaluated(name: str, content: Content, says: str, more: str = "") -> Case:
    command = "evaluate --workdir={here}/run --data={here}/d.tsv " + more
    words = f"{{here}}/d.tsv{says}"
    return case("TSV", name, command, words, {"d.tsv": content}, base="tasks/run")


def _predicted(name: str, content: Content, says: str) -> Case:
    command = "predict --model={good}/tasks/run --input={here}/p.tsv "
    command += "--output={here}/answers.jsonl"
    return case("TSV", name, command, f"{{here}}/p.tsv{says}", {"p.tsv": content})


TSV = [
    _table(
        "a column more", f"{_GOOD}a\tcat\tx\n", ":6 has 3 columns, and line 1 has 2"
    ),
    _table("a column less", f"{_GOOD}a cat\n", ":6 has 1 column, and line 1 has 2"),
    _table("a line of tabs", f"{_GOOD}\t\t\t\n", ":6 has 4 columns, and line 1 has 2"),
    _table("no label", f"{_GOOD}a cat\t\n", ":6: the label is missing"),
    _table("a blank label", f"{_GOOD}a cat\t  \n", ":6: the label is missing"),
    _table("no text", f"{_GOOD}\tcat\n", ":6: the text in 'sentence' is empty"),
    _table("a blank text", f"{_GOOD} \tcat\n", ":6: the text in 'sentence' is empty"),
    _table("a wide blank", f"{_GOOD}\u3000\tcat\n", ":6: the text in 'sentence' is"),
    _table(
        "a class seen once", f"{_GOOD}a\tbird\n", ":6: the class 'bird' is seen once"
    ),
    _table("one class", f"{_HEAD}a\tx\nb\tx\n", " has 1 class (x)"),
    _table("a header alone", _HEAD, " has no example"),
    _table("empty", "", " is empty"),
    _table("a byte order mark alone", b"\xef\xbb\xbf", " is empty"),
    _table("blank lines", "\n\n\n", " has no example"),
    _table(
        "GBK",
        f"{_GOOD}那只猫很好\tcat\n".encode("gbk"),
        ":6: byte 1 of the line (0xc4) is not UTF-8",
    ),
    _table("Latin-1", f"{_GOOD}caf\xe9\tcat\n".encode("latin-1"), ":6: byte 4 of the"),
    _table("UTF-16", _GOOD.encode("utf-16")[:-1], " opens like UTF-16"),
    _table("a NUL byte", f"{_GOOD}a\0b\tcat\n", ":6: byte 2 of the line (0x00) is a"),
    _table(
        "cut gzip", gzip.compress(_GOOD.encode(), mtime=0)[:-9], " is a damaged or cut"
    ),
    _table("cut bzip2", bz2.compress(_GOOD.encode())[:-9], " is a damaged or cut"),
    _table("xz", lzma.compress(_GOOD.encode()), " is compressed with xz"),
    _table(
        "gzip and more",
        gzip.compress(_GOOD.encode(), mtime=0) + b"more",
        " is a damaged or cut archive",
    ),
    _table(
        "an id twice",
        "id\tsentence\tlabel\n7\ta\tx\n8\tb\ty\n7\tc\tx\n",
        ":4: the id '7' is already used at {here}/a.tsv:2",
    ),
    _table(
        "no id", "id\tsentence\tlabel\n7\ta\tx\n\tb\tx\n", ":3: the id in 'id' is em"
    ),
    _table(
        "two columns of a name",
        "sentence\tsentence\tlabel\na\tb\tx\n",
        ":1: two columns have the name 'sentence'",
    ),
    _table(
        "another column than is named",
        "phrase\tkind\na cat\tcat\n",
        ":1: there is no column 'text' for data.columns.text, only 'phrase', 'kind'",
        more="--config.data.columns.text=text",
    ),
    _table(
        "a column beyond the last",
        _GOOD,
        ":1: there is no column '7' for data.columns.label; columns are num",
        more="--config.data.columns.label=7",
    ),
    _table(
        "several labels, one twice",
        f"{_GOOD}a\tcat|cat\n",
        ':6: the labels "cat|cat" have an empty one, or one twice',
        more="--config.data.multi_label=|",
    ),
    _table("a line of 100 MB", b"a" * (100 << 20), ":1: the line that begins here is"),
    _table("a folder", lambda path: path.mkdir(), " cannot be read (Is a directory)"),
    _table("a link to nothing", dangling, " does not exist"),
    _table("a pipe", fifo, " is not a regular file"),
    _table("not there", lambda path: None, " does not exist"),
    _of(
        "TSV",
        "a.txt",
        "no tab at all",
        "no tab here\n",
        " does not show its format",
        "classification",
        "",
    ),
    _table("NaN", "text\tscore\na\tnan\nb\t1\n", ":2: the score is", "regression"),
    _table("infinity", "text\tscore\na\tinf\nb\t1\n", ":2: the score is", "regression"),
    _table("1e999", "text\tscore\nb\t1\na\t1e999\n", ":3: the score is", "regression"),
    _table("a word", "text\tscore\na\tgood\nb\t1\n", ":2: the score is", "regression"),
    _table("1_0", "text\tscore\na\t1_0\nb\t1\n", ":2: the score is", "regression"),
    _table(
        "no score", "text\tscore\na\t\nb\t1\n", ":2: the score is miss", "regression"
    ),
    _table(
        "equal scores", "text\tscore\na\t1\nb\t1.0\n", ":2: all 2 scores", "regression"
    ),
    _table(
        "half labelled pairs",
        "sentence1\tsentence2\tlabel\na\tb\t1\na\tb\t\n",
        ":3: the label is missing, and 1 of 2 examples have one",
        "matching",
    ),
    _table(
        "an empty second text",
        "sentence1\tsentence2\tlabel\na\tb\t1\na\t\t1\n",
        ":3: the text in 'sentence2' is empty",
        "matching",
    ),
    case(
        "TSV",
        "labels of dev that train has not",
        f"{_FINETUNE}--config.data.dev={{here}}/d.tsv",
        "{here}/d.tsv:2: the label 'bird' is none of the 2 of the",
        {"d.tsv": f"{_HEAD}a\tbird\nb\tbird\n"},
    ),
    case(
        "TSV",
        "dev without labels",
        f"{_FINETUNE}--config.data.dev={{here}}/d.tsv",
        "{here}/d.tsv:1: cannot find the column of the label among 'sentence'",
        {"d.tsv": "sentence\nthe cat\n"},
    ),
    case(
        "TSV",
        "a file of labels with one twice",
        f"{_FINETUNE}--config.data.labels={{here}}/labels.txt",
        "data.labels names 'cat' twice",
        {"labels.txt": "cat\ndog\ncat\n"},
    ),
    case(
        "TSV",
        "a file of labels that is no UTF-8",
        f"{_FINETUNE}--config.data.labels={{here}}/labels.txt",
        "{here}/labels.txt:2: byte 1 of the line (0xff) is not UTF-8",
        {"labels.txt": b"cat\n\xff\n"},
    ),
    _evaluated(
        "a label that is unknown", f"{_HEAD}a\tbird\n", ":2: the label 'bird' is"
    ),
    _evaluated(
        "a number beyond the labels", f"{_HEAD}a\t2\n", ":2: the label '2' is non"
    ),
    _evaluated("a negative label", f"{_HEAD}a\t-1\n", ":2: the label '-1' is none of"),
    _evaluated("ragged", f"{_GOOD}a\n", ":6 has 1 column, and line 1 has 2"),
    _evaluated("empty", "", " is empty"),
    _evaluated(
        "no label at all", "sentence\na\n", ":1: which column has the label can"
    ),
    _predicted("a pipe", fifo, " is not a regular file"),
    _predicted(
        "ragged in its last line", f"{_GOOD}a\n", ":6 has 1 column, and line 1 h"
    ),
    _predicted(
        "an empty text", f"{_GOOD}\tcat\n", ":6: the text in 'sentence' is empty"
    ),
    _predicted("only a header", _HEAD, " has no example"),
    _predicted(
        "no UTF-8 in its last line", f"{_GOOD}caf\xe9\tx".encode("latin-1"), ":6"
    ),
]
CSV = [
    _csv("a quote that stays open", f'{_CSV}"a,x\nmore,y\n', ":6: the row that begins"),
    _csv(
        "a quote in a cell", f'{_CSV}"a"b,cat\n', ":6: the row that begins here is no"
    ),
    _csv("a column more", f"{_CSV}a,b,cat\n", ":6 has 3 columns, and line 1 has 2"),
    _csv("a column less", f"{_CSV}a\n", ":6 has 1 column, and line 1 has 2"),
    _csv(
        "a bad row behind one of three lines",
        f'{_CSV}"a\nb\nc",cat\nx\n',
        ":9 has 1 column, and line 1 has 2",
    ),
    _csv("tabs", _GOOD, ":1"),
    _csv("a column twice", "text,text,label\na,b,x\n", ":1: two columns have the name"),
    _csv("no UTF-8", _CSV.encode() + b"\xff,x\n", ":6: byte 1 of the line (0xff) is"),
    _csv("a NUL byte", f"{_CSV}a\0,x\n", ":6: byte 2 of the line (0x00) is a NUL byte"),
    _csv("no label", f"{_CSV}a,\n", ":6: the label is missing"),
    _csv("a quoted blank text", f'{_CSV}" ",cat\n', ":6: the text in 'text' is empty"),
    _csv(
        "a cell of 9 MB", f'{_CSV}"{"a" * (9 << 20)}",x\n', ":6: the line that begins"
    ),
    _csv(
        "a cell of many lines of 9 MB",
        f'{_CSV}"{_LINES}",x\n',
        ":6: the row that begins here is not valid CSV (field larger than field limit",
    ),
    _csv("empty", "", " is empty"),
    _csv("a header alone", "text,label\n", " has no example"),
    _csv(
        "scores, one no number",
        "text,score\na,1\nb,1;5\n",
        ":3: the score",
        "regression",
    ),
]
_ONE = '{"text": "a cat", "label": "x"}\n'
_PICK = "multiple_choice"
JSON = [
    _json(
        "no known field", '{"phrase": "a", "kind": "b"}\n', ":1: which column has the"
    ),
    _json("cut", f'{_ONE}{{"text":\n', ":2 is not JSON"),
    _json("a list", f"{_ONE}[1]\n", ":2 is not a JSON object"),
    _json("null", f"{_ONE}null\n", ":2 is not a JSON object"),
    _json("a number", f"{_ONE}3\n", ":2 is not a JSON object"),
    _json(
        "a key twice", '{"text": "a", "text": "b", "label": "x"}\n', ":1 has the key"
    ),
    _json(
        "a number for the text", '{"text": 3, "label": "x"}\n', ":1: 'text' is 3, and"
    ),
    _json("null for the text", '{"text": null, "label": "x"}\n', ":1: 'text' is null"),
    _json("an object for the text", '{"text": {}, "label": "x"}\n', ":1: 'text' is {}"),
    _json(
        "null for the label", '{"text": "a", "label": null}\n', ":1: the label is mi"
    ),
    _json(
        "a list for the label", '{"text": "a", "label": []}\n', ":1: the label is []"
    ),
    _json("NaN for the label", '{"text": "a", "label": NaN}\n', ":1: the label is nan"),
    _json(
        "half of a surrogate pair",
        '{"text": "a \\ud83d", "label": "x"}\n',
        ":1: character 2 of 'a \\ud83d'... is half of a surrogate pair",
    ),
    _json(
        "half of a pair in a label",
        '{"text": "a", "label": "\\ude00"}\n',
        ":1: character 0 of '\\ude00'... is half of a surrogate pair",
    ),
    _json(
        "a label in the second alone", '{"text": "a"}\n' + _ONE, ":1: which column has"
    ),
    _json("deep nesting", f'{_ONE}{{"text": {"[" * 100000}\n', ":2 is not JSON"),
    _json("pretty-printed", '{\n"text": "a"\n"label": "x"\n}\n', ":1 is not JSON"),
    _json("a document", '[{"text": "a", "label": "x"}, 3]\n', ":1 is not a JSON obj"),
    _json("NaN", '{"text": "a", "score": NaN}\n', ":1: the score is nan", "regression"),
    _json("1e999", '{"text": "a", "score": 1e999}\n', ":1: the score is", "regression"),
    _json("true", '{"text": "a", "score": true}\n', ":1: the score is", "regression"),
    _json(
        "a choice beyond the last",
        '{"context": "a", "choices": ["b", "c"], "label": 2}\n',
        ":1: the label '2' is not one of the 2 choices",
        _PICK,
    ),
    _json(
        "a choice before the first",
        '{"context": "a", "choices": ["b", "c"], "label": -1}\n',
        ":1: the label '-1' is not one of the 2 choices",
        _PICK,
    ),
    _json(
        "half a choice",
        '{"context": "a", "choices": ["b", "c"], "label": 0.5}\n',
        ":1: the label '0.5' is not one of the 2 choices",
        _PICK,
    ),
    _json(
        "one choice",
        '{"context": "a", "choices": ["b"], "label": 0}\n',
        ":1: 'choices' has no list of two or more",
        _PICK,
    ),
    _json(
        "a text for the choices",
        '{"context": "a", "choices": "bc", "label": 0}\n',
        ":1: 'choices' has no list of two or more",
        _PICK,
    ),
    _json(
        "an empty choice",
        '{"context": "a", "choices": ["b", ""], "label": 0}\n',
        ":1: the text in 'choices' is empty",
        _PICK,
    ),
    _json(
        "a number among the choices",
        '{"context": "a", "choices": ["b", 3], "label": 0}\n',
        ":1: 'choices' is 3",
        _PICK,
    ),
]
CASES = TSV + CSV + JSON
