"""Runs that begin from the hub: the commit is recorded, and a resumed run keeps it."""

import json

import command_line
import hub_models
import pytest
import tiny_run
import tiny_tasks

from bert_jax import errors, evaluate, finetune, pretrain
from bert_jax.config import pretraining
from bert_jax.foundation import hub
from bert_jax.inference import inputs

NAME, REPO = hub_models.NAME, hub_models.REPO
DATA = "datasets/owner/data"


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A hub with an empty cache."""
    yield from hub_models.serve(monkeypatch, tmp_path / "home")


def _rows(text: str) -> str:
    """Returns the sentences of a TSV as JSON lines."""
    _, *lines = text.splitlines()
    cells = (line.split("\t") for line in lines)
    return "".join(json.dumps({"sentence": x, "label": y}) + "\n" for x, y in cells)


def test_a_fine_tuning_run_keeps_its_commits_and_makes_no_request_for_a_branch(
    served, tmp_path
):
    model = served.put_folder(REPO, hub_models.write_model(tmp_path / "model"))
    rows = _rows(tiny_tasks.write_classes(tmp_path / "t.tsv", 16).read_text())
    data = served.put(DATA, {"train.jsonl": rows, "dev.jsonl": rows})
    config = tiny_tasks.config(tmp_path, run__num_train_steps=2, data__max_seq_length=8)
    config.init_from = NAME
    config.model = pretraining.model_group(pretraining.FROM_INIT)
    config.text.vocab = pretraining.FROM_INIT
    config.data.train = "hf:owner/data[train]"
    config.data.dev = "hf:owner/data[validation]"
    made = finetune.train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["init_from"] == f"{NAME}@{model}"
    assert record["data"]["train"] == f"hf:owner/data@{data}[train]"
    assert record["data"]["dev"] == f"hf:owner/data@{data}[validation]"
    task = json.loads((made.folder / "task.json").read_text())
    assert task["settings"]["init_from"] == f"{NAME}@{model}"

    served.put(DATA, {"train.jsonl": "{}"})
    served.put(REPO, {"config.json": "{}"})
    hub._LISTED.clear()  # as in another process
    served.forget()
    assert finetune.train(config, tmp_path / "run").metrics == made.metrics
    assert not [x for x in served.requests if "main" in x]
    config.init_from = f"{NAME}@{'0' * 40}"
    with pytest.raises(errors.InputError, match="init_from"):
        finetune.train(config, tmp_path / "run")

    served.put("datasets/owner/test", {"test.jsonl": rows})
    scored, path = evaluate.evaluate_task(
        tmp_path / "run", inputs.AnswerRequest("hf:owner/test[test]")
    )
    assert scored.metrics and path and path.name == "owner_test_test.json"


def test_evaluate_scores_a_model_of_the_hub_and_writes_nothing_into_its_cache(
    served, tmp_path, monkeypatch, capfd
):
    labels = ("cat", "dog")
    folder = hub_models.write_model(
        tmp_path / "m", "pooler", "classifier", labels=labels
    )
    commit = served.put_folder(REPO, folder)
    data = tiny_tasks.write_classes(tmp_path / "test.tsv", 16)

    def run(*arguments):
        words = (f"--workdir={NAME}", f"--data={data}", *arguments)
        return command_line.in_process(monkeypatch, capfd, "evaluate", *words)

    done = run()
    assert done.code == 0 and "accuracy" in done.out and "--output=" in done.out
    assert run("--name=mine").code == 2
    snapshot = hub.parse(NAME).cache / "snapshots" / commit
    cached = {x.name for x in snapshot.iterdir()}
    assert cached == {x.name for x in folder.iterdir()} - {"README.md"}
    output = tmp_path / "scores" / "deep"
    done = run(f"--output={output}", "--name=mine")
    assert done.code == 0 and str(output) in done.out
    tree = json.loads((output / "mine.json").read_text())
    assert tree["about"]["model"] == f"{NAME}@{commit}"
    local, path = evaluate.evaluate_task(folder, inputs.AnswerRequest(str(data)))
    assert tree["metrics"] == local.metrics
    assert path == folder / "eval" / "test.json"
    assert run(f"--output={data}").code == 2
    served.put_folder(REPO, hub_models.write_model(tmp_path / "masks"))
    hub._LISTED.clear()
    done = command_line.in_process(monkeypatch, capfd, "evaluate", f"--workdir={NAME}")
    assert done.code == 2 and f"{NAME}@" in done.err and "no head" in done.err


@pytest.mark.slow
def test_a_pretraining_run_records_the_commits_of_corpus_and_vocabulary(
    served, tmp_path
):
    model = served.put_folder(REPO, hub_models.write_model(tmp_path / "model"))
    text = tiny_run.write_corpus(tmp_path / "text.txt", 40).read_text()
    data = served.put(DATA, {"train.txt": text})
    config = tiny_run.config(tmp_path / "none", run__num_train_steps=2)
    config.data.corpus = f"hf:owner/data[train]@2,{tmp_path / 'text.txt'}"
    config.text.vocab = NAME
    pretrain.train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["text"]["vocab"] == f"{NAME}@{model}"
    pinned = f"hf:owner/data@{data}[train]@2,{tmp_path / 'text.txt'}"
    assert record["data"]["corpus"] == pinned
    assert "model.safetensors" not in served.fetched()
