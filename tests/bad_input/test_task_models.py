"""What the models of tasks, and files for them, can have wrong, by the commands."""

import json
import shutil

import pytest
import small_place
import tiny_models
import tiny_tasks

from bert_jax import finetune

HEAD = "sentence\tlabel\n"
GOOD = f"{HEAD}a cat\tcat\na dog\tdog\nthe cat\tcat\nthe dog\tdog\n"


@pytest.fixture(scope="module")
def models(tasks):
    """A classifier as a run keeps it, and a tagger."""
    (tasks / "run").mkdir()
    tiny_models.write_model(tasks, tasks / "run" / "best" / "3", "classification")
    tiny_models.write_model(tasks, tasks / "tagger", "tagging")
    tiny_models.write_model(tasks, tasks / "several", "several")
    return tasks


PREDICT = [
    ("run", [], b"", "standard input has no text: give texts as arguments"),
    ("run", [], b"\n \n", "standard input has no text"),
    ("run", [], b"the cat\nb\xff\n", "standard input:2: byte 2 of the line is not UT"),
    ("run", ["a\tb\tc"], b"", "argument 1: classification takes text and text_pair"),
    ("run", ["a", "--input=x.tsv"], b"", "given as arguments ('a') and in --input"),
    ("run", ["--input=nope.tsv"], b"", "nope.tsv does not exist"),
    ("run", ["--input=nope", "--input_format=lines"], b"", "nope cannot be read (No"),
    ("run", ["--input=PLACE"], b"", "cannot be read (Is a directory)"),
    ("run", ["--input=PLACE/e.tsv"], b"", "e.tsv is empty"),
    ("run", ["--input=PLACE/a.tsv", "--columns=text=x"], b"", "'x' for --columns=tex"),
    ("run", ["--input=PLACE/a.tsv", "--columns=txt=x"], b"", "write what=column"),
    (
        "run",
        ["--input=PLACE/a.tsv", "--input_format=conll"],
        b"",
        "--input_format is 'conll': use one of auto, tsv",
    ),
    ("run", ["--input_format=tsv"], b"a\n", "--input_format says how a file is read"),
    ("run", ["--columns=text=1"], b"a\n", "--columns says how a file is read"),
    ("run", ["a", "--format=conll"], b"", "conll is for tagging and srl"),
    ("run", ["a", "--format=squad"], b"", "squad is for span"),
    ("run", ["a", "--format=xml"], b"", "flag --format=xml"),
    ("several", ["a", "--format=glue"], b"", "one label a text, and this model gives"),
    ("tagger", ["a", "--format=glue"], b"", "use one of jsonl, tsv, conll, clue"),
    ("run", ["a", "--output=PLACE/no/x"], b"", "there is no folder"),
    ("run", ["a", "--output=PLACE"], b"", "a folder: name a file"),
    ("run", ["a", "--top=3"], b"", "--top does nothing with --task=answer"),
    ("run", ["a", "--layers=1"], b"", "--layers does nothing with --task=answer"),
    ("run", ["a", "--task=fill_mask"], b"", "and no mlm_head"),
    ("run", ["a", "--task=fill_mask", "--format=tsv"], b"", "--format does nothing"),
    ("empty", ["a"], b"", "empty holds no model"),
    ("empty", ["a", "--task=answer"], b"", "empty is not a fine-tuned model"),
    ("nope", ["a", "--task=answer"], b"", "nope does not exist: name the folder"),
]


@pytest.mark.parametrize(("model", "words", "stdin", "message"), PREDICT)
def test_predict(shell, models, tmp_path, model, words, stdin, message):
    (tmp_path / "e.tsv").write_text("")
    (tmp_path / "a.tsv").write_text(GOOD)
    (tmp_path / "empty").mkdir()
    folder = (tmp_path if model in ("empty", "nope") else models) / model
    before = small_place.files(tmp_path), small_place.files(models)
    words = [word.replace("PLACE", str(tmp_path)) for word in words]
    done = shell("predict", f"--model={folder}", *words, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert message in done.message
    assert (small_place.files(tmp_path), small_place.files(models)) == before


def test_broken_tags_and_answers_are_mended_on_request(shell, models, tmp_path):
    tiny_models.write_model(models, tmp_path / "span", "span")
    (tmp_path / "a.conll").write_text("the O\ncat B-ANIMAL\ndog I-ANIMAL\na I-ANIMAL\n")
    (tmp_path / "b.conll").write_text("the O\ncat B-ANIMAL\ndog O\na I-ANIMAL\n")
    (tmp_path / "c.json").write_text(small_place.squad(1))
    for folder, name in (
        (models / "tagger", "a.conll"),
        (models / "tagger", "b.conll"),
        (tmp_path / "span", "c.json"),
    ):
        run = tmp_path / name.replace(".", "_")
        shutil.copytree(folder, run)
        flags = (f"--workdir={run}", f"--data={tmp_path / name}")
        # An answer that is elsewhere is scored all the same, as officially.
        assert shell("evaluate", *flags).code == (2 if name == "b.conll" else 0)
        done = shell("evaluate", *flags, "--repair")
        assert done.code == 0, done.err
        scores = json.loads((run / "eval" / f"{name[0]}.json").read_text())
        assert scores["about"]["examples"] == 1


EVALUATE = [
    ("run", ["--data=nope.tsv"], "nope.tsv does not exist"),
    ("run", ["--data=PLACE"], "cannot be read (Is a directory)"),
    ("run", ["--data=PLACE/bird.tsv"], "bird.tsv:2: the label 'bird' is none of the 2"),
    ("run", ["--data=PLACE/bare.tsv"], "Set its number, as in --columns=label=1"),
    ("run", ["--data=PLACE/a.tsv", "--name=../x"], "--name is '../x'"),
    ("run", ["--data=PLACE/a.tsv", "--columns=label=x"], "no column 'x' for --columns"),
    (
        "run",
        ["--data=PLACE/a.tsv", "--input_format=lines"],
        "--input_format is 'lines'",
    ),
    ("run", ["--data=PLACE/b.conll"], "b.conll seems to be conll: for classification"),
    (
        "tagger",
        ["--data=PLACE/b.conll"],
        "break BIO: I-B after B-A. Correct it, or set",
    ),
    ("tagger", ["--data=PLACE/a.tsv"], "is of no scheme with spans"),
    ("empty", ["--data=PLACE/a.tsv"], "--data is for fine-tuned models, and"),
    ("nope", ["--data=PLACE/a.tsv"], "nope is not the workdir of a run"),
]


@pytest.mark.parametrize(("model", "words", "message"), EVALUATE)
def test_evaluate(shell, models, tmp_path, model, words, message):
    (tmp_path / "a.tsv").write_text(GOOD)
    (tmp_path / "bird.tsv").write_text(f"{HEAD}a\tbird\n")
    (tmp_path / "bare.tsv").write_text("sentence\nthe cat\n")
    (tmp_path / "b.conll").write_text("the O\ncat B-A\ndog I-B\n")
    (tmp_path / "empty").mkdir()
    folder = (tmp_path if model in ("empty", "nope") else models) / model
    before = small_place.files(tmp_path), small_place.files(models)
    words = [word.replace("PLACE", str(tmp_path)) for word in words]
    done = shell("evaluate", f"--workdir={folder}", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.message
    assert (small_place.files(tmp_path), small_place.files(models)) == before


@pytest.fixture(scope="module")
def workdir(models):
    """A run of two steps, and its checkpoint."""
    config = tiny_tasks.config(models, run__num_train_steps=2, run__save_every_steps=2)
    finetune.train(config, models / "trained")
    return models / "trained"


def test_a_run_without_a_model_yet(shell, workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "best")
    before = small_place.files(tmp_path)
    for command, *arguments in (
        ("predict", f"--model={tmp_path / 'run'}", "the cat"),
        ("evaluate", f"--workdir={tmp_path / 'run'}"),
        ("convert", f"--input={tmp_path / 'run'}", f"--output={tmp_path / 'out'}")
        + ("--to=huggingface",),
    ):
        done = shell(command, *arguments)
        assert (done.code, done.out) == (2, "")
        assert "run of finetune, and not of pretrain; what it has lear" in done.message
        assert small_place.files(tmp_path) == before


def test_workdirs_that_are_not_of_this_run(shell, models, workdir, tmp_path):
    def start(*changes):
        before = small_place.files(tmp_path)
        steps = ("--config.run.num_train_steps=2", "--config.run.save_every_steps=2")
        done = shell(
            "finetune",
            f"--config={models / 'tiny.py'}",
            f"--workdir={tmp_path / 'run'}",
            *steps,
            *changes,
        )
        assert (done.code, done.out) == (2, "")
        assert small_place.files(tmp_path) == before
        return done.message

    shutil.copytree(workdir, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    tree = json.loads(config.read_text())
    message = start("--config.run.seed=9")
    assert "run.seed was 0 and is 9. Use another --workdir, or resume" in message
    config.write_text(json.dumps({"run": {}, "model": {}}))
    assert "is the workdir of another command than finetune" in start()
    config.write_text(json.dumps(tree | {"more": {}}))
    assert "another version or changed by hand: unknown config key more" in start()
    config.write_text(json.dumps(tree)[:99])
    assert "config.json is not JSON" in start()
    config.unlink()
    assert "config.json does not exist" in start()
