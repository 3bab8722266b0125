"""What is wrong with a record, by format and fault, without repair and with it.

Every file has five records: the third is broken, the others are the ids 0, 1, 3 and 4.
Without repair the error names file and line and the key that leaves the record out;
with it, training and prediction leave out the same record, count it by its kind, and
name the first one; the records after it keep their numbers.
"""

import dataclasses
import json
import re

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from example_files import write

from bert_jax import errors, tasks
from bert_jax.data.labeled import read_examples, table_records, tables

TEXTS = ("the cat sat", "那狗跑", "@", "a dog", "猫坐")
NUL, NOT_UTF8, BROKEN = table_records.NUL, table_records.NOT_UTF8, table_records.BROKEN
# What the third text becomes, and the kind that it is counted as.
FAULTS = {
    "nul": (b"a\0b", NUL),
    "latin-1": (b"caf\xe9 au lait", NOT_UTF8),
    "gbk": ("价钱".encode("gbk"), NOT_UTF8),
    "half a character": ("好".encode()[:2], NOT_UTF8),
}


def _numbers(texts):
    return [(at, text, "ab"[at % 2]) for at, text in enumerate(texts)]


def _tsv(texts):
    return "text\tlabel\n" + "".join(f"{t}\t{x}\n" for _, t, x in _numbers(texts))


def _csv(texts):
    return "text,label\n" + "".join(f'"{t}",{x}\n' for _, t, x in _numbers(texts))


def _without_header(texts):
    return "".join(f"{x}\t{t}\n" for _, t, x in _numbers(texts))


def _records(texts):
    return [{"text": text, "label": label} for _, text, label in _numbers(texts)]


def _json_lines(texts):
    return "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in _records(texts))


def _array(texts):
    return json.dumps(_records(texts), ensure_ascii=False, indent=1)


def _space(texts):
    return "".join(f"{x} {t}\n" for _, t, x in _numbers(texts))


def _pairs(texts):
    rows = "".join(f"q\t{t}\t{at % 2}\n" for at, t, _ in _numbers(texts))
    return "sentence1\tsentence2\tlabel\n" + rows


def _scores(texts):
    rows = "".join(f"q\t{t}\t{at}.5\n" for at, t, _ in _numbers(texts))
    return "sentence1\tsentence2\tscore\n" + rows


def _choices(texts):
    made = [
        {"context": t, "choices": ["a", "b"], "label": at % 2}
        for at, t, _ in _numbers(texts)
    ]
    return "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in made)


def _c3(texts):
    made = [
        [
            ["context"],
            [{"question": t, "choice": ["甲", "乙"], "answer": "乙"}],
            str(at),
        ]
        for at, t, _ in _numbers(texts)
    ]
    return json.dumps(made, ensure_ascii=False, indent=1)


def _conll(texts):
    return "".join(f"{t.replace(' ', '_')}\tB-X\nend\tO\n\n" for t in texts)


def _conllu(texts):
    rest = "\t".join("_" * 6)
    return "".join(f"1\t{t}\t_\tNOUN\t{rest}\n2\tend\t_\tX\t{rest}\n\n" for t in texts)


def _srl(texts):
    rest = "\t".join("_" * 8)
    rows = "1\t{}\t" + rest + "\tgo.01\tV\n2\tend\t" + rest + "\t_\tARG1\n\n"
    return "".join(rows.format(t) for t in texts)


def _tag_lines(texts):
    return "".join(f"{t.replace(' ', '_')} end\tB-X O\n" for t in texts)


def _word_tags(texts):
    return "".join(f"{t.replace(' ', '_')}/B-X end/O\n" for t in texts)


def _doccano(texts):
    made = [{"text": f"{t} end", "label": [[0, 1, "X"]]} for t in texts]
    return "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in made)


def _label_studio(texts):
    made = [
        {
            "data": {"text": f"x {t}"},
            "annotations": [
                {"result": [{"value": {"start": 0, "end": 1, "labels": ["X"]}}]}
            ],
        }
        for t in texts
    ]
    return json.dumps(made, ensure_ascii=False, indent=1)


def _squad(texts):
    paragraphs = [
        {
            "context": f"so {t}",
            "qas": [
                {
                    "id": str(at),
                    "question": "q?",
                    "answers": [{"text": "so", "answer_start": 0}],
                }
            ],
        }
        for at, t, _ in _numbers(texts)
    ]
    return json.dumps(
        {"data": [{"paragraphs": paragraphs}]}, ensure_ascii=False, indent=1
    )


def _questions(texts):
    made = [
        {
            "context": "so it is",
            "question": t,
            "answers": [{"text": "so", "answer_start": 0}],
        }
        for t in texts
    ]
    return "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in made)


# Format -> its task, the name of its file, how it is written, the line of the fault.
FORMATS = {
    "tsv": ("classification", "c.tsv", _tsv, 4),
    "tsv without header": ("classification", "c.tsv", _without_header, 3),
    "csv": ("classification", "c.csv", _csv, 4),
    "json lines": ("classification", "c.jsonl", _json_lines, 3),
    "json array": ("classification", "c.json", _array, None),
    "space": ("classification", "c.txt", _space, 3),
    "pairs": ("matching", "c.tsv", _pairs, 4),
    "scores": ("regression", "c.tsv", _scores, 4),
    "choices": ("multiple_choice", "c.jsonl", _choices, 3),
    "c3": ("multiple_choice", "c.json", _c3, None),
    "conll": ("tagging", "c.conll", _conll, 7),
    "conllu": ("tagging", "c.conllu", _conllu, 7),
    "srl": ("srl", "c.conllu", _srl, 7),
    "text and tags": ("tagging", "c.txt", _tag_lines, 3),
    "word/TAG": ("tagging", "c.txt", _word_tags, 3),
    "doccano": ("tagging", "c.jsonl", _doccano, 3),
    "label studio": ("tagging", "c.json", _label_studio, None),
    "squad": ("span", "c.json", _squad, None),
    "questions": ("span", "c.jsonl", _questions, 3),
}


def _options(kind, task):
    made = {"format": "space"} if kind == "space" else {}
    if kind == "tsv without header":
        made["columns"] = read_examples.Columns(text="2", label="1")
    return made | {"form": tasks.TASKS[task].form}


def _left(request):
    """Returns the numbers of the examples that are left, and what was counted."""
    notes = table_records.Notes()
    if request.needs_labels:
        found = read_examples.read(request)
        made, notes = found.examples, found.notes
    else:
        made = list(read_examples.iterate(request, notes))
    return [re.match(r"\d+", x.id)[0] for x in made], notes


def _check(path, options, kind, line, where=None):
    """Without repair an error names the line, with it the rest keep their numbers."""
    request = read_examples.Request(path, **options)
    with pytest.raises(errors.InputError) as raised:
        _left(request)
    message = str(raised.value)
    start = where or f"{path}:{line or ''}"
    assert message.startswith(start) and "data.repair" in message
    for repaired in ({"repair": True}, {"needs_labels": False, "skips": True}):
        ids, notes = _left(dataclasses.replace(request, **repaired))
        assert (ids, notes[kind]) == (["0", "1", "3", "4"], 1), notes
        first, _ = notes.first[kind]
        assert first.startswith(start) and (line is None or first == start)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", FORMATS)
def test_bytes_that_are_no_text(tmp_path, form, fault):
    task, name, written, line = FORMATS[form]
    bad, kind = FAULTS[fault]
    path = write(tmp_path, written(TEXTS).encode().replace(b"@", bad), name)
    _check(path, _options(form, task), kind, line)


def _changed(form, old, new):
    """Returns the content of a format with one change in its third record."""
    content = FORMATS[form][2](TEXTS)
    assert content.count(old) == 1, content
    return content.replace(old, new)


# Format, what of its third record is written instead, and as what that is counted.
RECORDS = [
    ("tsv", "@\ta\n", "@\n", tables.RAGGED),
    ("tsv", "@\ta\n", "@\ta\tb\n", tables.RAGGED),
    ("csv", '"@",a\n', '"@\n",a,b\n', tables.RAGGED),
    ("json lines", '"@", "label": "a"}', '"@", "lab', BROKEN),
    ("json lines", '{"text": "@", "label": "a"}', '["@"]', BROKEN),
    ("json lines", '"text": "@"', '"other": "@"', table_records.EMPTY),
    ("json lines", '"@"', '"\\ud83d"', BROKEN),
    (
        "json lines",
        '"label": "a"}\n{"text": "a dog"',
        '"label": ["a", "b"]}\n{"text": "a dog"',
        BROKEN,
    ),
    ("choices", '"@", "choices": ["a", "b"]', '"@", "choices": ["a"]', BROKEN),
    (
        "choices",
        '"@", "choices": ["a", "b"], "label": 0',
        '"@", "choices": ["a", "b"], "label": 7',
        BROKEN,
    ),
    ("scores", "@\t2.5", "@\tgood", BROKEN),
    ("conll", "@\tB-X\n", "@\n", BROKEN),
    ("conll", "@\tB-X\n", "@\t\n", BROKEN),
    ("conllu", "1\t@", "2\t@", BROKEN),
    ("text and tags", "@ end\tB-X O", "@ end\tB-X", BROKEN),
    ("word/TAG", "@/B-X end/O", "@/B-X end", BROKEN),
    (
        "doccano",
        '"@ end", "label": [[0, 1, "X"]]',
        '"@ end", "label": [[0, 99, "X"]]',
        BROKEN,
    ),
    (
        "doccano",
        '"@ end", "label": [[0, 1, "X"]]',
        '"@ end", "label": [[0, "X"]]',
        BROKEN,
    ),
    ("questions", '"question": "@", ', "", BROKEN),
]


@pytest.mark.parametrize(("form", "old", "new", "kind"), RECORDS)
def test_records_that_are_broken(tmp_path, form, old, new, kind):
    task, name, _, line = FORMATS[form]
    path = write(tmp_path, _changed(form, old, new), name)
    _check(path, _options(form, task), kind, line)


@pytest.mark.parametrize("form", ["tsv", "json lines", "tsv without header"])
@pytest.mark.parametrize("text", ["", "\u200b", " \ufeff "])
def test_texts_without_a_visible_character(tmp_path, form, text):
    """Prediction answers them unless it skips; training leaves them out or refuses."""
    task, name, written, line = FORMATS[form]
    content = written([text if x == "@" else x for x in TEXTS])
    path = write(tmp_path, content, name)
    _check(path, _options(form, task), table_records.EMPTY, line)
    request = read_examples.Request(path, needs_labels=False, **_options(form, task))
    assert _left(request)[0] == list("01234")


@pytest.mark.parametrize("form", ["tsv", "json lines"])
def test_labels_that_are_missing(tmp_path, form):
    task, name, _, line = FORMATS[form]
    old, new = ("@\ta", "@\t") if form == "tsv" else ('"@", "label": "a"', '"@"')
    path = write(tmp_path, _changed(form, old, new), name)
    request = read_examples.Request(path, tasks.TASKS[task].form)
    with pytest.raises(
        errors.InputError, match=f":{line}: the label is missing.*repair"
    ):
        _left(request)
    ids, notes = _left(dataclasses.replace(request, repair=True))
    assert (ids, notes[table_records.UNLABELED]) == (["0", "1", "3", "4"], 1)


@pytest.mark.parametrize(
    "form", ["tsv", "csv", "tsv without header", "conll", "conllu"]
)
@pytest.mark.parametrize("which", ["all but the first", "the first", "the third"])
def test_separators_at_the_end_of_lines(tmp_path, form, which):
    task, name, written, _ = FORMATS[form]
    rows = written(TEXTS).split("\n")
    mark = "," if form == "csv" else "\t"
    chosen = {
        "all but the first": rows[1:],
        "the first": rows[:1],
        "the third": rows[6:7],
    }
    chosen["the third"] = rows[3:4] if len(rows) < 8 else rows[6:7]
    changed = [x + mark * 2 if x and x in chosen[which] else x for x in rows]
    path = write(tmp_path, "\n".join(changed), name)
    plain = write(tmp_path, written(TEXTS), f"plain{name}")
    options = _options(form, task)
    whole = read_examples.read(read_examples.Request(plain, **options)).examples
    found = read_examples.read(read_examples.Request(path, repair=True, **options))
    assert found.notes == {}
    strip = [dataclasses.replace(x, where="") for x in found.examples]
    assert strip == [dataclasses.replace(x, where="") for x in whole]


@pytest.mark.parametrize("form", FORMATS)
def test_a_mark_crlf_and_blank_lines_at_the_end_change_nothing(tmp_path, form):
    task, name, written, _ = FORMATS[form]
    content = written(TEXTS)
    path = write(tmp_path, content, name)
    options = _options(form, task)
    whole = read_examples.read(read_examples.Request(path, **options)).examples
    write(tmp_path, "\ufeff" + content.replace("\n", "\r\n") + "\r\n" * 3, name)
    assert read_examples.read(read_examples.Request(path, **options)).examples == whole


@pytest.mark.parametrize("form", ["json array", "label studio", "c3", "squad"])
def test_a_document_as_a_whole_cannot_be_repaired(tmp_path, form):
    task, name, written, _ = FORMATS[form]
    path = write(tmp_path, written(TEXTS)[:-20], name)
    for repair in (False, True):
        request = read_examples.Request(path, repair=repair, **_options(form, task))
        with pytest.raises(errors.InputError, match=path.name):
            _left(request)


def test_where_a_row_of_csv_ends_cannot_be_guessed(tmp_path):
    path = write(tmp_path, 'text,label\n"a,x\nb,y\n', "c.csv")
    for repair in (False, True):
        with pytest.raises(errors.InputError, match="c.csv:2.*cannot be left out"):
            _left(
                read_examples.Request(
                    path, tasks.TASKS["classification"].form, repair=repair
                )
            )


def test_names_of_columns_cannot_be_left_out(tmp_path):
    path = write(tmp_path, b"text\tlabel\tnote\xff\na\tx\tn\nb\ty\tn\n")
    request = read_examples.Request(
        path, tasks.TASKS["classification"].form, repair=True
    )
    with pytest.raises(errors.InputError, match="c.tsv:1 .*names of the columns"):
        _left(request)


def test_a_file_in_another_encoding_is_named_where_nothing_is_left(tmp_path):
    text = "".join(
        f"价钱很{x}好，这家酒店的早餐不错\t好评\n" for x in "上下左右前后" * 5
    )
    path = write(tmp_path, ("text\tlabel\n" + text).encode("gbk"))
    request = read_examples.Request(
        path, tasks.TASKS["classification"].form, repair=True
    )
    with pytest.raises(errors.InputError, match="every record was left out.*GB18030"):
        _left(request)


@pytest.mark.parametrize("kind", ["binary", "string"])
def test_parquet_with_bytes_that_are_no_text(tmp_path, kind):
    values = pa.array([text.encode() for text in TEXTS[:2]] + [b"caf\xe9", b"a", b"b"])
    if kind == "string":
        values = pa.Array.from_buffers(pa.string(), 5, values.buffers())
    others = pa.array([b"\xff\xd8 a picture"] * 5)
    columns = {"text": values, "label": list("ababa"), "picture": others}
    path = tmp_path / "c.parquet"
    parquet.write_table(pa.table(columns), path)
    _check(
        path,
        {"form": tasks.TASKS["classification"].form},
        NOT_UTF8,
        None,
        where=f"{path} row 3",
    )
