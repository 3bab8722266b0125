"""The command `predict` on fine-tuned models: where texts come from, what is left."""

import io
import json
import re
import sys

import command_line
import pytest
import tiny_models
import tiny_tasks

from bert_jax import errors, evaluate, tasks
from bert_jax.data.labeled import read_examples
from bert_jax.inference import answer, inputs


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a model of every kind that is asked for."""
    place = tmp_path_factory.mktemp("models")
    tiny_tasks.write_vocab(place)

    def model(kind):
        if not (place / kind).exists():
            tiny_models.write_model(place, place / kind, kind)
        return place / kind

    return model


@pytest.fixture
def predict(monkeypatch, capfd, models):
    def run(kind, *arguments, stdin=""):
        return command_line.in_process(
            monkeypatch,
            capfd,
            "predict",
            f"--model={models(kind)}",
            *arguments,
            stdin=stdin.encode(),
        )

    return run


def _said(done):
    reported = [x for x in done.err.splitlines() if "first line " not in x]
    assert (done.code, reported) == (0, []), done.err
    return [json.loads(line) for line in done.out.splitlines()]


COLUMN = ("data.columns.text=NAME", "--columns=text=NAME")
TEXTS = ["the cat sat", "那狗跑。", "a dog ran home fast here there", "猫"]


def test_arguments_a_file_and_a_pipe_give_the_same_in_their_order(predict, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\ufeff" + "\r\n".join(TEXTS) + "\n", encoding="utf-8")
    expected = _said(predict("classification", *TEXTS))
    assert [one["text"] for one in expected] == TEXTS
    assert [one["id"] for one in expected] == ["0", "1", "2", "3"]
    for one in expected:
        assert set(one["probabilities"]) == {"cat", "dog"}
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
    lines = "--input_format=lines"
    assert _said(predict("classification", f"--input={path}", lines)) == expected
    piped = predict("classification", stdin="\ufeff" + "\r\n".join(TEXTS))
    assert _said(piped) == expected


def test_a_file_of_the_task_is_read_as_in_training(predict, tmp_path):
    path = tmp_path / "x.tsv"
    rows = [f"{text}\tno label of the model" for text in TEXTS]
    path.write_text("sentence\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = _said(predict("classification", f"--input={path}"))
    assert found == _said(predict("classification", *TEXTS))
    rows = [f"x\t{text}" for text in TEXTS]
    path.write_text("a\tb\n" + "\n".join(rows) + "\n", encoding="utf-8")
    named = ("--columns=text=b,label=none", "--input_format=tsv")
    assert _said(predict("classification", f"--input={path}", *named)) == found


def test_ids_of_lines_are_their_numbers(predict):
    made = _said(predict("tagging", stdin="\n  the cat\n\n那狗\n"))
    assert [(one["id"], one["text"]) for one in made] == [
        ("0", ""),
        ("1", "  the cat"),
        ("2", ""),
        ("3", "那狗"),
    ]


@pytest.mark.parametrize("task", ["classification", "regression", "tagging"])
def test_an_empty_text_has_an_answer_unless_it_is_skipped(predict, tmp_path, task):
    records = [{"text": text} for text in ("the cat", "", "\u200b", "a dog")]
    content = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "x.jsonl").write_text(content, encoding="utf-8")
    for options, expected in (((), "0123"), (("--repair",), "03")):
        done = predict(task, f"--input={tmp_path}/x.jsonl", *options)
        assert done.code == 0
        made = [json.loads(line) for line in done.out.splitlines()]
        assert "".join(one["id"] for one in made) == expected
    assert "empty text: 2" in done.err


def test_entities_have_the_characters_of_the_original_text(predict, tmp_path):
    texts = ["  the  cat,那狗\u3000跑 ", "The CAT ran"]
    (tmp_path / "t.txt").write_text("\n".join(texts), encoding="utf-8")
    for made in (
        _said(predict("tagging", *texts)),
        _said(predict("tagging", stdin="\n".join(texts))),
        _said(predict("tagging", f"--input={tmp_path}/t.txt", "--input_format=lines")),
    ):
        assert [one["text"] for one in made] == texts
        entities = [(one, entity) for one in made for entity in one["entities"]]
        assert entities
        for one, entity in entities:
            span = one["text"][entity["start"] : entity["end"]]
            assert span == entity["text"] and span.strip() == span


@pytest.mark.parametrize(
    ("kind", "text", "form"),
    [
        ("span", "the cat", '"question<TAB>context"'),
        ("multiple_choice", "the cat", '"context<TAB>choice<TAB>choice"'),
        ("tagging", "the\tcat", "without a tab"),
    ],
)
def test_what_a_line_must_be_is_said_for_the_shell(predict, kind, text, form):
    for done in (predict(kind, text), predict(kind, stdin=f"{text}\n")):
        assert done.code == 2
        assert form in done.err and "{" not in done.err


def test_a_tab_parts_pairs_questions_choices_and_predicates(predict):
    (pair,) = _said(predict("regression", "a cat\tthe dog"))
    assert (pair["text"], pair["text_pair"]) == ("a cat", "the dog")
    (near,) = _said(predict("matching", "a cat\tthe dog"))
    assert -1 <= near["similarity"] <= 1
    (answer,) = _said(predict("span", "猫坐\tthe cat sat here"))
    assert answer["question"] == "猫坐"
    context = answer["context"]
    assert context[answer["start"] : answer["end"]] == answer["answer"]
    (choice,) = _said(predict("multiple_choice", "a cat\tsat\tran home\t跑"))
    assert choice["choices"] == ["sat", "ran home", "跑"]
    assert choice["choice"] == choice["choices"][choice["label"]]
    (roles,) = _said(predict("srl", "the cat ran home\tran"))
    assert roles["predicate"] == {"start": 8, "end": 11, "text": "ran", "sense": ""}


@pytest.mark.parametrize(
    ("kind", "form"),
    [("several", "jsonl"), ("tagging", "conll"), ("srl", "tsv"), ("span", "squad")]
    + [("multiple_choice", "clue"), ("regression", "glue"), ("matching", "tsv")],
)
def test_the_files_of_every_task_are_answered(predict, models, tmp_path, kind, form):
    path = tiny_models.write_file(models(kind).parent, kind)
    output = tmp_path / "out" / "said"
    output.parent.mkdir()
    flags = (f"--input={path}", f"--format={form}", f"--output={output}")
    done = predict(kind, *flags)
    assert (done.code, done.out) == (0, "")
    said = output.read_text(encoding="utf-8")
    assert [x.name for x in output.parent.iterdir()] == ["said"]
    assert predict(kind, f"--input={path}", f"--format={form}").out == said
    if form == "conll":
        words = [line.split("\t")[0] for line in said.splitlines()]
        assert words == ["the", "cat", "ran", "", "那", "狗", "跑", ""]


def test_the_output_is_there_when_it_is_whole(predict, tmp_path):
    path, output = tmp_path / "x.jsonl", tmp_path / "out"
    output.write_text("mine")
    good = '{"sentence": "the cat"}\n' * 3
    path.write_text(good + '{"sentence": "the\n')
    done = predict("classification", f"--input={path}", f"--output={output}")
    assert done.code == 2 and f"{path}:4 is not JSON" in done.message
    assert output.read_text() == "mine"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["out", "x.jsonl"]
    path.write_text(good)
    done = predict("classification", f"--input={path}", f"--output={output}")
    assert done.code == 0
    assert len(output.read_text().splitlines()) == 3


def test_what_is_cut_is_counted(predict, models, capfd, caplog):
    done = predict("classification", "the cat " * 40, "a dog", "the dog " * 30)
    assert done.code == 0
    shares = "0.0% [UNK], 66.7% truncated"
    # A warning may follow on stderr; `caplog` has it either way.
    first, *_ = done.err.splitlines()
    assert first == f"3 examples (rows cut: 2, tokens cut off: 96): {shares}"
    (warned,) = (record.getMessage() for record in caplog.records)
    assert warned.startswith("the texts: 66.7 % of the texts are truncated: ")
    assert " 24 tokens" in warned
    path = models("classification").parent / "long.tsv"
    path.write_text(f"sentence\tlabel\n{'the cat ' * 40}\tcat\na dog\tdog\n")
    request = inputs.AnswerRequest(input=str(path))
    evaluate.evaluate_task(models("classification"), request)
    told = f"2 examples of {path} (rows cut: 1, tokens cut off: 58)"
    assert told in capfd.readouterr().err


def test_files_are_read_window_by_window(models, monkeypatch, capfd):
    monkeypatch.setattr(answer, "WINDOW", 3)
    answered = []

    class Pipe:
        """Seven lines, each read when the windows before it are answered."""

        isatty = staticmethod(lambda: False)

        @property
        def buffer(self):
            for number in range(7):
                answered.append(capfd.readouterr().out.count("\n"))
                yield f"the cat {'ran ' * number}\n".encode()

    monkeypatch.setattr(sys, "stdin", Pipe())
    assert inputs.write(models("classification"), [], inputs.AnswerRequest()) == 7
    assert answered == [0, 0, 0, 3, 0, 0, 3]


def test_whoever_types_is_answered_line_by_line(models, monkeypatch, capfd):
    out = []

    class Keyboard(io.TextIOWrapper):
        def isatty(self):
            return True

    class Lines(io.BytesIO):
        def __iter__(self):
            for line in (b"the cat\n", b"the dog\n"):
                yield line
                out.append(capfd.readouterr().out.count("\n"))

    monkeypatch.setattr(sys, "stdin", Keyboard(Lines()))
    assert inputs.write(models("classification"), [], inputs.AnswerRequest()) == 2
    assert out == [1, 1]


@pytest.mark.parametrize(
    ("content", "options", "key", "flag"),
    [
        (b"text\tlabel\n\xff\ta\n", {}, "data.repair", "--repair"),
        (b"text\tlabel\na\t\n", {}, "data.repair", "--repair"),
        (b"id\ttext\tlabel\n1\ta\tx\n1\ta\tx\n", {}, "data.repair", "--repair"),
        (b"a\tb\nc\td\n", {}, "data.columns.text=1", "--columns=text=1"),
        (b"a\tb\nc\td\n", {}, "data.header=true", "--header=true"),
        (b"u\tlabel\na\tb\n", {"header": "true"}, *COLUMN),
        (b"only words", {}, "data.format", "--input_format"),
        (b"text\tlabel\n", {}, "data.format", "--input_format"),
    ],
)
def test_messages_name_the_settings_of_the_command(
    tmp_path, content, options, key, flag
):
    path = tmp_path / "x.txt"
    path.write_bytes(content)

    def message():
        with pytest.raises(errors.InputError) as raised:
            form = tasks.TASKS["classification"].form
            read_examples.read(read_examples.Request(path, form, **options))
        return str(raised.value)

    assert key in message()
    with errors.naming_flags(inputs.FLAGS):
        assert flag in message() and "data." not in message()
    assert key in message()


@pytest.mark.parametrize(
    ("content", "options", "first", "count"),
    [
        ("text\nthe cat\n", (), "text", 2),
        ("text\nthe cat\n", ("--header=True",), "the cat", 1),
        ("好\n猫\n", (), "好", 2),
        ("text\tlabel\nthe cat\tcat\n", (), "the cat", 1),
        ("text\tlabel\nthe cat\tcat\n", ("--header=false",), "text", 2),
    ],
)
def test_a_header_is_no_answer_and_every_other_line_is_one(
    predict, tmp_path, caplog, content, options, first, count
):
    path = tmp_path / "x.tsv"
    path.write_text(content, encoding="utf-8")
    columns = "--columns=text=1"
    done = predict("classification", f"--input={path}", columns, *options)
    made = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, made[0]["text"], len(made)) == (0, first, count)
    assert ("x.tsv: first line" in done.err + caplog.text) is (not options)
    is_warning = first == "text" and not options
    told = [x.levelname for x in caplog.records if "[UNK]" not in x.getMessage()]
    assert told == ["WARNING"] * is_warning


@pytest.mark.parametrize("value", ["auto", "true", "false"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("the cat",),
        ("--input=x.jsonl",),
        ("--input=x.tsv", "--input_format=lines"),
        ("--input=x.tsv", "--task=features"),
    ],
)
def test_a_header_is_refused_where_there_is_none(
    predict, tmp_path, monkeypatch, arguments, value
):
    (tmp_path / "x.jsonl").write_text('{"text": "the cat"}\n')
    (tmp_path / "x.tsv").write_text("text\tlabel\nthe cat\tcat\n")
    monkeypatch.chdir(tmp_path)
    done = predict("classification", *arguments, f"--header={value}")
    assert (done.code, done.out) == (2, "")
    assert "--header" in done.message


def test_columns_that_are_not_named_are_those_of_training():
    trained = read_examples.Columns(text="1", label="3", id="none")
    given = ("text=2", "choices=a+b")
    assert inputs.columns(given, trained) == read_examples.Columns(
        text="2", label="3", id="none", choices=("a", "b")
    )


def test_examples_that_training_leaves_out_are_answered(models, tmp_path):
    place = models("classification").parent
    folder = tmp_path / "skipping"
    tiny_models.write_model(place, folder, "classification", data__skip_labels="-")
    model = answer.load(folder)
    request = inputs.AnswerRequest(input="x.tsv")
    assert inputs.reading(model, request).skip_labels == ()
    assert inputs.reading(model, request, needs_labels=True).skip_labels == ("-",)


def test_unknown_tokens_are_reported_outside_the_answers(predict, tmp_path, caplog):
    done = predict("classification", "the cat", "жук")
    assert done.code == 0 and len(done.out.splitlines()) == 2
    assert done.err.splitlines()[0] == "2 examples: 33.3% [UNK], 0.0% truncated"
    warned = caplog.records[0].getMessage()
    assert "33.3 % of the tokens are [UNK]" in warned and "(Cyrillic)" in warned
    output = tmp_path / "out.jsonl"
    done = predict("tagging", "the cat sat", f"--output={output}")
    assert done.code == 0 and "1 examples: 0.0% [UNK], 0.0% truncated" in done.err


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("classification", {"data__truncation": "refuse"}, "the cat " * 40),
        ("span", {}, "cat " * 40 + "?\tthe cat"),
        ("matching", {"head__pooling": "mean"}, '{"text": "a cat"}'),
    ],
)
def test_a_trained_model_is_not_told_to_change_its_training(
    monkeypatch, capfd, models, tmp_path, kind, changes, text
):
    """Commands that only use a model name a command or flag that can help."""
    place = models("classification").parent
    tiny_models.write_model(place, tmp_path / "m", kind, **changes)
    (tmp_path / "x.jsonl").write_text(text)
    given = f"--input={tmp_path}/x.jsonl" if text.startswith("{") else text
    done = command_line.in_process(
        monkeypatch, capfd, "predict", f"--model={tmp_path}/m", given
    )
    assert (done.code, done.out) == (2, "")
    told = done.message.partition("python -m bert_jax.")
    assert not re.search(r"\b(data|text|head)\.[a-z]", told[0])
    assert told[2].startswith(("finetune", "predict"))
