"""Bad models of tasks, and bad files and flags for them, by the commands."""

import json
import shutil

import pytest
import small_inputs
import tiny_models
import tiny_tasks

from bert_jax import finetune

HEAD = "sentence\tlabel\n"
GOOD = f"{HEAD}a cat\tcat\na dog\tdog\nthe cat\tcat\nthe dog\tdog\n"


@pytest.fixture(scope="module")
def models(tasks):
    """A classifier in the workdir of a run, and a tagger."""
    (tasks / "run").mkdir()
    tiny_models.write_model(tasks, tasks / "run" / "best" / "3", "classification")
    tiny_models.write_model(tasks, tasks / "tagger", "tagging")
    tiny_models.write_model(tasks, tasks / "several", "several")
    return tasks


PREDICT = [
    ("run", [], b"", "standard input"),
    ("run", [], b"\n \n", "standard input"),
    ("run", [], b"the cat\nb\xff\n", "standard input:2: byte 2"),
    ("run", ["a\tb\tc"], b"", "argument 1: classification"),
    ("run", ["a", "--input=x.tsv"], b"", "'a'"),
    ("run", ["--input=nope.tsv"], b"", "nope.tsv"),
    ("run", ["--input=nope", "--input_format=lines"], b"", "nope"),
    ("run", ["--input=FOLDER"], b"", "Is a directory"),
    ("run", ["--input=FOLDER/e.tsv"], b"", "e.tsv"),
    ("run", ["--input=FOLDER/a.tsv", "--columns=text=x"], b"", "--columns=text"),
    ("run", ["--input=FOLDER/a.tsv", "--columns=txt=x"], b"", "txt"),
    (
        "run",
        ["--input=FOLDER/a.tsv", "--input_format=conll"],
        b"",
        "--input_format is 'conll'",
    ),
    ("run", ["--input_format=tsv"], b"a\n", "--input_format"),
    ("run", ["--columns=text=1"], b"a\n", "--columns"),
    ("run", ["a", "--format=conll"], b"", "conll"),
    ("run", ["a", "--format=squad"], b"", "squad"),
    ("run", ["a", "--format=xml"], b"", "flag --format=xml"),
    ("several", ["a", "--format=glue"], b"", "glue"),
    ("tagger", ["a", "--format=glue"], b"", "jsonl, tsv, conll, clue"),
    ("run", ["a", "--output=FOLDER/no/x"], b"", "FOLDER/no"),
    ("run", ["a", "--output=FOLDER"], b"", "FOLDER"),
    ("run", ["a", "--top=3"], b"", "--top"),
    ("run", ["a", "--layers=1"], b"", "--layers"),
    ("run", ["a", "--task=fill_mask"], b"", "mlm_head"),
    ("run", ["a", "--task=fill_mask", "--format=tsv"], b"", "--format"),
    ("empty", ["a"], b"", "empty"),
    ("empty", ["a", "--task=answer"], b"", "empty"),
    ("nope", ["a", "--task=answer"], b"", "nope"),
]


@pytest.mark.parametrize(("model", "words", "stdin", "message"), PREDICT)
def test_predict(shell, models, tmp_path, model, words, stdin, message):
    (tmp_path / "e.tsv").write_text("")
    (tmp_path / "a.tsv").write_text(GOOD)
    (tmp_path / "empty").mkdir()
    folder = (tmp_path if model in ("empty", "nope") else models) / model
    before = small_inputs.files(tmp_path), small_inputs.files(models)
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    done = shell("predict", f"--model={folder}", *words, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert message.replace("FOLDER", str(tmp_path)) in done.message
    assert (small_inputs.files(tmp_path), small_inputs.files(models)) == before


def test_broken_tags_and_answers_are_repaired_on_request(shell, models, tmp_path):
    tiny_models.write_model(models, tmp_path / "span", "span")
    (tmp_path / "a.conll").write_text("the O\ncat B-ANIMAL\ndog I-ANIMAL\na I-ANIMAL\n")
    (tmp_path / "b.conll").write_text("the O\ncat B-ANIMAL\ndog O\na I-ANIMAL\n")
    (tmp_path / "c.json").write_text(small_inputs.squad(1))
    for folder, name in (
        (models / "tagger", "a.conll"),
        (models / "tagger", "b.conll"),
        (tmp_path / "span", "c.json"),
    ):
        run = tmp_path / name.replace(".", "_")
        shutil.copytree(folder, run)
        flags = (f"--workdir={run}", f"--data={tmp_path / name}")
        # An answer at another offset is scored, as by the official script.
        assert shell("evaluate", *flags).code == (2 if name == "b.conll" else 0)
        done = shell("evaluate", *flags, "--repair")
        assert done.code == 0, done.err
        scores = json.loads((run / "eval" / f"{name[0]}.json").read_text())
        assert scores["about"]["examples"] == 1


EVALUATE = [
    ("run", ["--data=nope.tsv"], "nope.tsv"),
    ("run", ["--data=FOLDER"], "Is a directory"),
    ("run", ["--data=FOLDER/bird.tsv"], "bird.tsv:2"),
    ("run", ["--data=FOLDER/bare.tsv"], "--columns=label=1"),
    ("run", ["--data=FOLDER/a.tsv", "--name=../x"], "--name is '../x'"),
    ("run", ["--data=FOLDER/a.tsv", "--columns=label=x"], "--columns"),
    (
        "run",
        ["--data=FOLDER/a.tsv", "--input_format=lines"],
        "--input_format is 'lines'",
    ),
    ("run", ["--data=FOLDER/b.conll"], "b.conll"),
    (
        "tagger",
        ["--data=FOLDER/b.conll"],
        "I-B after B-A",
    ),
    ("tagger", ["--data=FOLDER/a.tsv"], "a.tsv"),
    ("empty", ["--data=FOLDER/a.tsv"], "--data"),
    ("nope", ["--data=FOLDER/a.tsv"], "nope"),
]


@pytest.mark.parametrize(("model", "words", "message"), EVALUATE)
def test_evaluate(shell, models, tmp_path, model, words, message):
    (tmp_path / "a.tsv").write_text(GOOD)
    (tmp_path / "bird.tsv").write_text(f"{HEAD}a\tbird\n")
    (tmp_path / "bare.tsv").write_text("sentence\nthe cat\n")
    (tmp_path / "b.conll").write_text("the O\ncat B-A\ndog I-B\n")
    (tmp_path / "empty").mkdir()
    folder = (tmp_path if model in ("empty", "nope") else models) / model
    before = small_inputs.files(tmp_path), small_inputs.files(models)
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    done = shell("evaluate", f"--workdir={folder}", *words)
    assert (done.code, done.out) == (2, "")
    assert message.replace("FOLDER", str(tmp_path)) in done.message
    assert (small_inputs.files(tmp_path), small_inputs.files(models)) == before


@pytest.fixture(scope="module")
def workdir(models):
    """A run of two steps, and its checkpoint."""
    config = tiny_tasks.config(models, run__num_train_steps=2, run__save_every_steps=2)
    finetune.train(config, models / "trained")
    return models / "trained"


def test_a_run_without_a_model_yet(shell, workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "best")
    before = small_inputs.files(tmp_path)
    for command, *arguments in (
        ("predict", f"--model={tmp_path / 'run'}", "the cat"),
        ("evaluate", f"--workdir={tmp_path / 'run'}"),
        ("convert", f"--input={tmp_path / 'run'}", f"--output={tmp_path / 'out'}")
        + ("--to=huggingface",),
    ):
        done = shell(command, *arguments)
        assert (done.code, done.out) == (2, "")
        assert str(tmp_path / "run") in done.message
        assert small_inputs.files(tmp_path) == before


def test_workdirs_that_are_not_of_this_run(shell, models, workdir, tmp_path):
    def start(*changes):
        before = small_inputs.files(tmp_path)
        steps = ("--config.run.num_train_steps=2", "--config.run.save_every_steps=2")
        done = shell(
            "finetune",
            f"--config={models / 'tiny.py'}",
            f"--workdir={tmp_path / 'run'}",
            *steps,
            *changes,
        )
        assert (done.code, done.out) == (2, "")
        assert small_inputs.files(tmp_path) == before
        return done.message

    shutil.copytree(workdir, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    tree = json.loads(config.read_text())
    message = start("--config.run.seed=9")
    assert "run.seed was 0 and is 9" in message
    config.write_text(json.dumps({"run": {}, "model": {}}))
    assert str(tmp_path / "run") in start()
    config.write_text(json.dumps(tree | {"more": {}}))
    assert "config key more" in start()
    config.write_text(json.dumps(tree)[:99])
    assert "config.json" in start()
    config.unlink()
    assert "config.json" in start()
