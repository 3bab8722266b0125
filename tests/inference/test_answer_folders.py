"""Folders of other libraries, and exports of ours, answer as they were trained to."""

import json
import re
import shutil

import command_line
import numpy as np
import pytest
import tiny_models
import tiny_tasks

import bert_jax
from bert_jax import convert, errors, evaluate
from bert_jax.checkpoints import tensors
from bert_jax.inference import answer, inputs

KINDS = (
    "classification",
    "several",
    "regression",
    "tagging",
    "srl",
    "span",
    "multiple_choice",
)
VALUES = {
    "classification": ["a cat sat", "那狗跑"],
    "several": ["a cat sat", "the cat, a dog"],
    "regression": [("a cat sat", "a dog sat"), ("那猫坐", "猫")],
    "tagging": ["the cat ran", "那狗跑"],
    "srl": [("the cat ran home", "ran"), ("the dog sat", "sat")],
    "span": [("the dog ran ?", "a cat sat here. the dog ran home fast.")],
    "multiple_choice": [("a cat", ["sat here", "ran"])],
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns the folder of a fine-tuned model, and of its export, by kind."""
    root = tmp_path_factory.mktemp("answering")
    tiny_tasks.write_vocab(root)

    def export(kind, to):
        run, output = root / f"run_{kind}", root / f"{to}_{kind}"
        if not run.exists():
            tiny_models.write_model(root, run / "best" / "5", kind)
        if not output.exists():
            convert.convert(run, output, convert.Request(to))
        return run, output

    return export


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        *((kind, "huggingface") for kind in KINDS),
        *((kind, "bert_jax") for kind in ("regression", "srl")),
    ],
)
def test_an_export_keeps_its_task_and_answers_the_same(exported, kind, to):
    run, folder = exported(kind, to)
    wanted = bert_jax.load(run).predict(VALUES[kind])
    model = bert_jax.load(folder)
    found = model.predict(VALUES[kind])
    assert model.task.kind == tiny_models.task_of(kind)
    assert _rounded(found) == _rounded(wanted)


def _rounded(tree):
    if isinstance(tree, dict):
        return {name: _rounded(x) for name, x in tree.items()}
    if isinstance(tree, list | tuple):
        return [_rounded(x) for x in tree]
    return round(tree, 4) if isinstance(tree, float) else tree


@pytest.fixture
def foreign(exported, tmp_path):
    """Returns a copy of an export without what only bert_jax writes; may change it."""

    def copy(kind, **config):
        folder = tmp_path / f"foreign_{kind}"
        shutil.copytree(exported(kind, "huggingface")[1], folder)
        for name in ("task.json", "conversion.json", "README.md"):
            (folder / name).unlink()
        path = folder / "config.json"
        tree = json.loads(path.read_text()) | config
        tree = {name: value for name, value in tree.items() if value is not None}
        path.write_text(json.dumps(tree))
        return folder

    return copy


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "srl"])
def test_the_folder_of_another_library_answers_the_same(exported, foreign, kind):
    wanted = bert_jax.load(exported(kind, "huggingface")[1]).predict(VALUES[kind])
    found = bert_jax.load(foreign(kind)).predict(VALUES[kind])
    assert _rounded(found) == _rounded(wanted)


def test_labels_are_those_of_id2label_or_numbered(foreign):
    named = foreign("classification", id2label={"0": "喵", "1": "汪"})
    (found,) = bert_jax.load(named).predict(["a cat sat"])
    assert found["label"] in ("喵", "汪")
    shutil.rmtree(named)
    numbered = foreign("classification", id2label=None, problem_type=None)
    (found,) = bert_jax.load(numbered).predict(["a cat sat"])
    assert found["label"] in ("LABEL_0", "LABEL_1")


def test_classes_with_one_name_are_refused(foreign):
    folder = foreign("classification", id2label={"0": "喵", "1": "喵"})
    with pytest.raises(errors.InputError, match="the classes 0 and 1 both '喵'"):
        bert_jax.load(folder)


def test_one_output_without_a_problem_type_is_a_number(foreign):
    folder = foreign("regression", problem_type=None)
    (found,) = bert_jax.load(folder).predict([("a cat sat", "a dog sat")])
    assert isinstance(found["score"], float)


def test_a_regression_of_several_numbers_is_refused_by_name(foreign):
    folder = foreign("classification", problem_type="regression")
    with pytest.raises(errors.InputError, match="2 numbers a text"):
        bert_jax.load(folder)


def test_evaluate_scores_the_folder_of_another_library(foreign, tmp_path):
    folder = foreign("classification")
    path = tiny_models.write_file(tmp_path, "classification")
    scored, written = evaluate.evaluate_task(folder, inputs.AnswerRequest(str(path)))
    found = bert_jax.load(folder).predict(
        ["a cat sat", "猫坐", "the dog ran", "那狗跑"]
    )
    hits = [
        x["label"] == y
        for x, y in zip(found, ["cat", "cat", "dog", "dog"], strict=True)
    ]
    assert scored.metrics["accuracy"] == np.mean(hits)
    assert json.loads(written.read_text())["metrics"]["accuracy"] == np.mean(hits)


def test_an_encoder_does_not_answer(exported, foreign, tmp_path):
    run, _ = exported("classification", "huggingface")
    bare = tmp_path / "bare"
    request = convert.Request(
        "huggingface", choice=convert.weights.Choice(ignore=("classifier",))
    )
    convert.convert(run, bare, request)
    assert not (bare / "task.json").exists()
    assert not answer.can_answer(bare)
    with pytest.raises(errors.InputError, match=re.escape(str(bare))):
        answer.load(bare)


@pytest.mark.parametrize("kind", ["classification", "several", "tagging", "regression"])
def test_the_answers_are_those_of_the_pipelines(foreign, kind):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = foreign(kind)
    of_class = {"tagging": transformers.AutoModelForTokenClassification}.get(
        kind, transformers.AutoModelForSequenceClassification
    )
    import torch

    model = of_class.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for value, found in zip(
        VALUES[kind], bert_jax.load(folder).predict(VALUES[kind]), strict=True
    ):
        texts = [value] if isinstance(value, str) else list(value)
        inputs = tokenizer(*texts, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        if kind == "classification":
            assert found["label"] == model.config.id2label[int(logits.argmax())]
        elif kind == "several":
            named = {model.config.id2label[int(x)] for x in (logits > 0).nonzero()}
            assert set(found["labels"]) == named
        elif kind == "regression":
            assert abs(found["score"] - float(logits[0])) < 1e-4
        else:
            best = logits.argmax(-1)[1:-1]
            assert found["tags"] == [model.config.id2label[int(x)] for x in best]


def test_a_head_that_is_ignored_leaves_the_encoder(foreign):
    folder = foreign("classification")
    model = bert_jax.load(folder, ignore=("classifier",))
    assert model.task is None and "classifier" not in model.params
    assert model.encode(["a cat sat"]).shape == (1, 32)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_advice_names_the_command_that_has_the_flag(
    foreign, monkeypatch, capfd, command
):
    folder = foreign("classification")
    path = folder / "model.safetensors"
    arrays = tensors.read(path).arrays | {"adapter.x": np.ones(2, np.float32)}
    tensors.write_safetensors(path, arrays, {"format": "pt"})
    flag = {"predict": "--model", "evaluate": "--workdir"}[command]
    words = ["a cat"] if command == "predict" else ["--data=a.tsv"]
    done = command_line.in_process(
        monkeypatch, capfd, command, f"{flag}={folder}", *words
    )
    assert done.code == 2
    assert "python -m bert_jax.convert --ignore=adapter.x" in done.err


def test_a_command_without_a_config_names_none_of_its_keys(foreign, monkeypatch, capfd):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(answer, "load", fail)
    folder = foreign("classification")
    done = command_line.in_process(
        monkeypatch, capfd, "predict", f"--model={folder}", "a cat"
    )
    assert done.code == 2
    assert "memory is not enough" in done.err and "run." not in done.err
