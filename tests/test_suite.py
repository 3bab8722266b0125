"""Suites: every task of a folder in the publisher's layout, one table, submissions."""

import json
import random
from pathlib import Path

import pytest
import tiny_suites

from bert_jax import errors, suite
from bert_jax.data.labeled import read_examples
from bert_jax.runs import suite as suite_runs
from bert_jax.runs import sweep
from bert_jax.runs.finetuning import Finetuned


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """The workdir of a small GLUE, and its place."""
    place = tmp_path_factory.mktemp("glue")
    tiny_suites.write_glue(place)
    config = tiny_suites.config("glue", place, tasks="cola,stsb,mnli", sweep__seeds=2)
    results = suite.run(config, place / "run")
    return results, place


@pytest.fixture(scope="module")
def clue(tmp_path_factory):
    place = tmp_path_factory.mktemp("clue")
    tiny_suites.write_clue(place)
    results = suite.run(
        tiny_suites.config("clue", place, tasks="ocnli,wsc,c3"), place / "run"
    )
    return results, place


def _rows(place):
    tree = json.loads((place / "run" / suite_runs.JSON).read_text())
    return {row["title"]: row for row in tree["rows"]}


@pytest.mark.slow
def test_the_table_has_all_scores_of_the_runs_of_each_seed(glue):
    results, place = glue
    assert set(results) == {"cola", "stsb", "mnli"}
    rows = _rows(place)
    members = json.loads((place / "run" / "mnli" / "sweep.json").read_text())["members"]
    one, two = (member["metrics"] for member in members)
    assert one["dev/accuracy"] != one["test/accuracy"] or one != two
    for title, metric in (("MNLI-m", "dev/accuracy"), ("MNLI-mm", "test/accuracy")):
        values = [one[metric], two[metric]]
        assert rows[title]["values"] == values
        assert rows[title]["mean"] == pytest.approx(sum(values) / 2)
        spread = abs(values[0] - values[1]) / 2**0.5
        assert rows[title]["deviation"] == pytest.approx(spread)
    assert rows["MNLI-mm"]["published"] == {"BERT-base": "83.4", "BERT-large": "85.9"}
    assert rows["CoLA"]["metric"] == "matthews"
    assert rows["RTE"]["values"] == [] and rows["RTE"]["mean"] is None
    assert [line for line in rows if line.startswith("STS-B")] == ["STS-B"]


@pytest.mark.slow
def test_submissions_are_as_the_glue_server_takes_them(glue):
    _, place = glue
    folder = place / "run" / "predictions"
    names = ["CoLA.tsv", "MNLI-m.tsv", "STS-B.tsv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    said = {
        n: [x.split("\t") for x in (folder / n).read_text().splitlines()] for n in names
    }
    assert all(lines[0] == ["index", "prediction"] for lines in said.values())
    assert [line[0] for line in said["STS-B.tsv"]] == ["index", "0", "1", "2"]
    assert all(0 <= float(line[1]) <= 6 for line in said["STS-B.tsv"][1:])
    assert {line[1] for line in said["CoLA.tsv"][1:]} <= {"0", "1"}
    assert {line[1] for line in said["MNLI-m.tsv"][1:]} <= set(tiny_suites.CLASSES)
    assert len(said["MNLI-m.tsv"]) == 5


@pytest.mark.slow
def test_submissions_are_as_the_clue_server_takes_them(clue):
    results, place = clue
    folder = place / "run" / "predictions"
    said = {
        path.name: [json.loads(x) for x in path.read_text().splitlines()]
        for path in folder.iterdir()
    }
    assert set(said) == {
        "ocnli_50k_predict.json",
        "cluewsc11_predict.json",
        "cluewsc10_predict.json",
        "c311_predict.json",
    }
    assert [line["id"] for line in said["ocnli_50k_predict.json"]] == [11, 12]
    assert {line["label"] for line in said["ocnli_50k_predict.json"]} <= set(
        tiny_suites.CLASSES
    )
    assert [line["id"] for line in said["cluewsc10_predict.json"]] == [0, 1, 2]
    assert {x["label"] for x in said["cluewsc11_predict.json"]} <= {"true", "false"}
    assert [line["id"] for line in said["c311_predict.json"]] == [33]
    assert said["c311_predict.json"][0]["label"] in (0, 1)
    assert all(len(result.runs) == 1 for result in results.values())
    assert _rows(place)["OCNLI"]["deviation"] is None


@pytest.mark.slow
def test_finished_tasks_are_not_run_again(clue, monkeypatch, capsys):
    results, place = clue

    def train(*arguments):
        raise AssertionError("a finished task is trained again")

    monkeypatch.setattr(sweep, "train_in", train)
    config = tiny_suites.config("clue", place, tasks="ocnli,c3", run__log_every_steps=7)
    assert suite.run(config, place / "run") == results
    assert "ocnli: finished before" in capsys.readouterr().err
    config = tiny_suites.config("clue", place, tasks="c3", run__num_train_steps=5)
    message = r"c3 is finished in .+ settings or data: run\.num_train_steps was 2 "
    with pytest.raises(errors.InputError, match=message):
        suite.run(config, place / "run")


def _fake(monkeypatch, stop_at=""):
    """Replaces training by a note of it; a task may be stopped."""
    trained = []

    def train(folder, settings):
        folder = Path(folder)
        if folder.name == stop_at:
            raise errors.Stopped("here")
        trained.append((folder.name, settings))
        folder.mkdir(parents=True)
        names = ("accuracy", "f1", "matthews", "pearson", "spearman")
        metrics = {f"{s}/{n}": 0.5 for s in ("dev", "test") for n in names}
        return Finetuned(metrics, folder / "best" / "4")

    monkeypatch.setattr(sweep, "train_in", train)
    monkeypatch.setattr(suite_runs, "_submit", lambda *arguments: None)
    return trained


@pytest.mark.slow
def test_a_stopped_suite_goes_on_behind_its_finished_tasks(tmp_path, monkeypatch):
    tiny_suites.write_glue(tmp_path)
    config = tiny_suites.config("glue", tmp_path, tasks="cola,stsb,mnli")
    first = _fake(monkeypatch, stop_at="mnli")
    with pytest.raises(errors.Stopped):
        suite.run(config, tmp_path / "run")
    assert [name for name, _ in first] == ["cola", "stsb"]
    assert _rows(tmp_path)["CoLA"]["mean"] == 0.5
    second = _fake(monkeypatch)
    assert set(suite.run(config, tmp_path / "run")) == {"cola", "stsb", "mnli"}
    assert [name for name, _ in second] == ["mnli"]


def test_what_is_set_for_all_counts_before_a_recipe(tmp_path, monkeypatch):
    tiny_suites.write_glue(tmp_path)
    trained = _fake(monkeypatch)
    suite.run(tiny_suites.config("glue", tmp_path, tasks="cola"), tmp_path / "run")
    settings = trained[0][1]
    assert settings.optimizer.learning_rate == 1e-2  # the recipe has 3e-5
    assert settings.data.labels == "unacceptable,acceptable"
    assert settings.run.keep_best == "matthews"


def test_all_that_is_missing_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    tiny_suites.write_glue(tmp_path)
    (tmp_path / "MNLI" / "dev_mismatched.tsv").unlink()
    trained = _fake(monkeypatch)
    with pytest.raises(errors.InputError) as caught:
        suite.run(tiny_suites.config("glue", tmp_path), tmp_path / "run")
    lines = str(caught.value).splitlines()
    assert lines[0] == "nothing is trained, as data is missing:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        *("sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli")
    ]
    assert f"there is no train.tsv in {tmp_path / 'SST-2'}: download https" in lines[1]
    assert f"there is no dev_mismatched.tsv in {tmp_path / 'MNLI'}" in lines[4]
    assert not trained


def test_broken_data_of_a_later_task_is_said_before_the_first_is_trained(
    tmp_path, monkeypatch
):
    tiny_suites.write_glue(tmp_path)
    path = tmp_path / "MNLI" / "dev_matched.tsv"
    path.write_text(path.read_text().replace("neutral", "perhaps"))
    trained = _fake(monkeypatch)
    message = (
        r"the data of mnli cannot be used: .*dev_matched.tsv:3: the label 'perhaps'"
    )
    with pytest.raises(errors.InputError, match=message):
        suite.run(
            tiny_suites.config("glue", tmp_path, tasks="cola,mnli"), tmp_path / "run"
        )
    assert not trained


def test_a_model_with_too_few_positions_is_refused_before_training(tmp_path):
    tiny_suites.write_glue(tmp_path)
    config = tiny_suites.config("glue", tmp_path, tasks="cola", data__max_seq_length=33)
    message = "cola has rows of 33 tokens, and the model 32 positions"
    with pytest.raises(errors.InputError, match=message):
        suite.run(config, tmp_path / "run")


def test_what_tfds_does_not_have_is_to_be_downloaded(tmp_path):
    config = tiny_suites.config("clue", tmp_path, tasks="tnews", folder="")
    message = r"tnews: TFDS has no such data set: download https.*tnews_public\.zip"
    with pytest.raises(errors.InputError, match=message):
        suite.run(config, tmp_path / "run")


def test_data_that_tfds_cannot_have_is_named_with_the_other_way(tmp_path, monkeypatch):
    def read(request):
        raise errors.InputError(
            f"the dataset {request.path} cannot be had: no network."
        )

    monkeypatch.setattr(read_examples, "read", read)
    config = tiny_suites.config("glue", tmp_path, tasks="rte", folder="")
    message = (
        r"nothing is trained, as the data of rte cannot be used: the dataset "
        r"tfds:glue/rte\[train\] .*no network\. Or name a folder of the "
    )
    with pytest.raises(errors.InputError, match=message):
        suite.run(config, tmp_path / "run")


def test_microsofts_own_file_of_mrpc_is_taken_where_there_is_no_other(tmp_path):
    rng = random.Random(0)
    head = "Quality #1_ID #2_ID #1_String #2_String".split()
    head = [name.replace("_", " ") for name in head]
    rows = [(n % 2, n, n, "the cat sat", "a dog ran") for n in range(60)]
    rows = [(*row[:3], f"{row[0]} {tiny_suites.sentence(rng)}", row[4]) for row in rows]
    tiny_suites.table(tmp_path / "MRPC" / "msr_paraphrase_train.txt", head, rows)
    tiny_suites.table(tmp_path / "MRPC" / "msr_paraphrase_test.txt", head, rows)
    plan = suite_runs.parse(tiny_suites.config("glue", tmp_path, tasks="mrpc"))
    found = suite_runs.check(plan, list(plan.tasks), tmp_path)["mrpc"]
    assert found.settings.data.train.endswith("msr_paraphrase_train.txt")
    assert found.settings.data.dev == ""
    assert list(found.tests) == ["MRPC.tsv"]


def test_a_warm_up_that_is_too_long_is_noticed_before_anything_is_trained(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "train_in", lambda *_: pytest.fail("it was trained"))
    tiny_suites.write_glue(tmp_path)
    config = tiny_suites.config("glue", tmp_path, tasks="cola")
    config.optimizer.warmup_steps = 10_000
    with pytest.raises(errors.InputError, match="nothing is trained.*warmup_steps"):
        suite.run(config, tmp_path / "run")
