"""Records of TSV, CSV, JSON lines, and of lines of a label and a text."""

import bz2
import collections
import gzip

import pytest
from example_files import columns, iterate, read, refused, write

from bert_jax import errors, tasks
from bert_jax.data import text_files
from bert_jax.data.labeled import examples, tables


def records(kind, path, **options):
    file = text_files.NamedPath(path.name, path)
    request = classification(path, **options)
    made = tables.records(kind, file, request, collections.Counter())
    return [(r.where.rpartition(":")[2], r.cells) for r in made]


def classification(path, **options):
    return examples.ExampleRequest(path, tasks.TASKS["classification"].form, **options)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_tsv_keeps_quotes_spaces_and_empty_cells(tmp_path, pack):
    content = '\ufefflabel\tsentence\tx\r\n1\t "so", he said \t\r\n\r\n0\tb"\ty\r\n'
    path = write(tmp_path, pack(content.encode()))
    assert records("tsv", path) == [
        ("2", {"label": "1", "sentence": ' "so", he said ', "x": ""}),
        ("4", {"label": "0", "sentence": 'b"', "x": "y"}),
    ]


def test_columns_without_a_header_are_numbered(tmp_path):
    path = write(tmp_path, "好\t1\n坏\t0")
    assert records("tsv", path) == [
        ("1", {"1": "好", "2": "1"}),
        ("2", {"1": "坏", "2": "0"}),
    ]


def test_a_column_without_a_name_is_named_by_its_number(tmp_path):
    path = write(tmp_path, "好\t1\n坏\t0\n")
    refused(r"data\.columns\.text=1", path)
    refused(r"data\.columns\.label=1", path, columns=columns(text="1"))


def test_a_header_of_traditional_chinese(tmp_path):
    path = write(tmp_path, "內容\t標籤\n好\t正面\n")
    assert [(x.text, x.labels) for x in read(path).examples] == [("好", ("正面",))]


def test_a_header_is_given_or_not_whatever_it_says(tmp_path):
    path = write(tmp_path, "sentence\tb\nc\td\n")
    assert records("tsv", path, header="true") == [("2", {"sentence": "c", "b": "d"})]
    assert len(records("tsv", path, header="false")) == 2


def test_a_header_is_known_by_the_columns_that_are_named(tmp_path):
    path = write(tmp_path, "wort\tart\na\tb\n")
    assert len(records("tsv", path)) == 2
    named = examples.ColumnNames(text="wort")
    assert records("tsv", path, columns=named) == [("2", {"wort": "a", "art": "b"})]


TABLES = {
    "one column": (["text", "好", "b"], 3),
    "one column of a usual Chinese name": (["文本", "好", "b"], 3),
    "two usual names": (["text|label", "a|x", "b|y"], 2),
    "two usual names in Chinese": (["评论|情感", "好|正", "坏|负"], 2),
    "one usual name": (["text|note", "a|x", "b|y"], 3),
    "no name": (["好|1", "坏|0"], 2),
    "an index of pandas": (["|text", "0|a", "1|b"], 2),
    "a first text that is a usual word": (["label|1", "a|0", "b|1"], 3),
    "an index of GLUE": (["index|sentence", "0|a", "1|b"], 2),
    "many columns": (["a|b|c|d|e", "1|2|3|4|5"], 2),
    "many columns with usual names": (["id|title|x|y|z", "1|2|3|4|5"], 1),
}


@pytest.mark.parametrize("kind", ["tsv", "csv", "quoted", "semicolon", "blank", "xlsx"])
@pytest.mark.parametrize("name", TABLES)
def test_the_header_is_not_a_record_and_all_other_lines_are(tmp_path, kind, name):
    lines, count = TABLES[name]
    rows = [line.split("|") for line in lines]
    path = tmp_path / f"t.{'tsv' if kind in ('tsv', 'blank') else 'csv'}"
    if kind == "xlsx":
        path = tmp_path / "t.xlsx"
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)
    else:
        between = {"tsv": "\t", "blank": "\t", "semicolon": ";"}.get(kind, ",")
        quote = '"' if kind == "quoted" else ""
        made = [between.join(f"{quote}{x}{quote}" for x in row) for row in rows]
        ends = "\n\n" if kind == "blank" else "\r\n"
        path.write_text("\ufeff" + ends.join(made) + "\n", encoding="utf-8")
    form = path.suffix[1:] if path.suffix in (".tsv", ".xlsx") else "csv"
    found = records(form, path, needs_labels=False)
    assert len(found) == count
    width = len(rows[0])
    has_header = count < len(rows)
    numbers = [str(number) for number in range(1, width + 1)]
    assert has_header or list(found[0][1]) == numbers


def test_a_column_of_the_header_without_a_name_has_its_number(tmp_path):
    path = write(tmp_path, "\ttext\n0\ta\n")
    assert records("tsv", path) == [("2", {"1": "0", "text": "a"})]


def test_csv_has_quotes_with_commas_and_line_ends_inside(tmp_path):
    content = 'text,label\n"a, ""b""\nc",1\n\nd,0\n"e\n\nf",2\n'
    path = write(tmp_path, content, "c.csv")
    assert records("csv", path) == [
        ("2", {"text": 'a, "b"\nc', "label": "1"}),
        ("5", {"text": "d", "label": "0"}),
        ("6", {"text": "e\n\nf", "label": "2"}),
    ]


@pytest.mark.parametrize(
    "content, line", [('text,label\na,1\n"b,2\nc,3\n', 3), ('text,label\n"a"b,1\n', 2)]
)
def test_quotes_that_are_not_closed_are_named(tmp_path, content, line):
    path = write(tmp_path, content, "c.csv")
    refused(rf"c\.csv:{line}: the row .* CSV .*Close its quotes", path)


def test_a_label_ends_at_the_first_space(tmp_path):
    path = write(tmp_path, "1 a b\n\n0  c\n", "c.txt")
    assert records("space", path) == [
        ("1", {"label": "1", "text": "a b"}),
        ("3", {"label": "0", "text": " c"}),
    ]


def test_json_lines_are_objects(tmp_path):
    path = write(tmp_path, '{"a": [1, "二"]}\n\n{}\n', "c.jsonl")
    assert records("jsonl", path) == [("1", {"a": [1, "二"]}), ("3", {})]


@pytest.mark.parametrize(
    "line, message",
    [
        ("[1]", r"c\.jsonl:2 is not a JSON object"),
        ('{"text": ', r"c\.jsonl:2 is not JSON"),
        ('{"text": "a", "text": "b"}', r"c\.jsonl:2 has the key 'text' twice"),
    ],
)
def test_json_lines_that_are_no_objects_are_named(tmp_path, line, message):
    content = '{"text": "a", "label": 1}\n' + line + "\n"
    refused(message, write(tmp_path, content, "c.jsonl"))


@pytest.mark.parametrize(
    "content, message",
    [
        ("text\tlabel\na\t1\t2\n", r"c\.tsv:2 has 3 columns, and line 1 has 2\."),
        ("a\t1\n\nb\n", r"c\.tsv:3 has 1 column, and line 1 has 2\."),
        ("text\tlabel\ttext\n", r"c\.tsv:1: two columns have the name 'text'"),
        (
            "text\tlabel\na\t1\nb\xff\t1\n".encode("latin-1"),
            r"c\.tsv:3: byte 2 .*iconv",
        ),
        ("文\t一\n".encode("gbk"), r"c\.tsv:1: byte 1 of the line .* is not UTF-8"),
        ("text\tlabel\n".encode("utf-16")[:-1], r"c\.tsv begins like UTF-16-LE"),
        ("", r"c\.tsv is empty\. Remove it, or name another"),
        ("\n\n", r"c\.tsv has no example"),
        ("text\tlabel\n", r"c\.tsv has no example"),
    ],
)
def test_bad_tables_are_named_with_their_line(tmp_path, content, message):
    one = examples.ColumnNames(text="1", label="2")
    is_named = isinstance(content, str) and content.startswith("text")
    options = {} if is_named else {"columns": one}
    refused(message, write(tmp_path, content), **options)


def test_lines_that_lack_columns_or_text_are_left_out_on_request(tmp_path):
    rows = "question1\tquestion2\tlabel\na\tb\t0\nc\n\td\t1\ne\tf\t1\n"
    path = write(tmp_path, rows)
    found = read(path, repair=True)
    assert [e.text for e in found.examples] == ["a", "e"]
    assert found.notes == {
        "lines left out that have not all columns": 1,
        "examples left out that have an empty text": 1,
    }
    refused(r"c\.tsv:3 has 1 column, and line 1 has 3.*set data\.repair", path)


def test_nothing_is_left_out_where_each_is_to_be_answered(tmp_path):
    path = write(tmp_path, "question1\tquestion2\na\tb\nc\n")
    with pytest.raises(errors.InputError, match=r"c\.tsv:3 has 1 column"):
        iterate(path, repair=True)
