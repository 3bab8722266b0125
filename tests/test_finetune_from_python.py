"""Fine-tuning on examples that Python hands over, for every task."""

import json

import numpy as np
import pytest
import tiny_tasks

import bert_jax
from bert_jax import errors, finetune, tasks
from bert_jax.config import finetuning
from bert_jax.data.labeled import python_examples, read_examples
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.runs import splits

TEXTS = [
    ("the cat sat", "cat"),
    ("a dog ran", "dog"),
    ("那猫跑", "cat"),
    ("狗坐", "dog"),
]
PAIRS = [(text, "a cat", label) for text, label in TEXTS]
ROLES = ["ARG0", "O", "ARG1", "O"]
ANSWERS = [("who ?", "the cat sat", "cat"), ("who ?", "a dog ran", None)]
CHOICES = [("a cat", ["sat here", "ran"], 1), ("那狗", ["跑", "坐", "the cat"], 0)]
VALUES = {
    "classification": TEXTS,
    "pair": PAIRS,
    "several": [("the cat", ["cat"]), ("猫狗", ["cat", "dog"]), ("the", [])],
    "regression": [("the cat", "a dog", 1.5), ("a cat", "cat", 4), ("dog", "dog", 5)],
    "tagging": [
        (["the", "cat", "ran"], ["O", "B-ANIMAL", "O"]),
        (["那", "狗"], ["O", "B-ANIMAL"]),
    ],
    "spans": [("the cat ran", [(4, 7, "ANIMAL")]), ("那狗", [(1, 2, "ANIMAL")])],
    "srl": [
        (["cat", "ran", "home", "fast"], 1, ["ARG0", "O", "ARG1", "O"]),
        (["cat", "sat", "home", "fast"], [1, 3], [ROLES, ["O", "ARG0", "O", "V"]]),
    ],
    "span": ANSWERS,
    "multiple_choice": CHOICES,
    "matching": [("the cat", "a cat", 1), ("a dog", "the cat", 0)],
    "scored": [("the cat", "a cat", 4.5), ("a dog", "the cat", 1)],
    "simcse": ["the cat sat", "a dog ran", "那猫跑"],
}
TASKS = {
    "pair": "classification",
    "several": "classification",
    "spans": "tagging",
    "scored": "matching",
    "simcse": "matching",
}
KEYS = {
    "several": {"data__multi_label": "|"},
    "simcse": {"head__objective": "simcse"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    return folder


def _config(place, kind="classification", **changes):
    task = TASKS.get(kind, kind)
    changes = KEYS.get(kind, {}) | changes
    files = {"data__train": "", "data__dev": ""}
    return tiny_tasks.config(place, **{"data__task": task, **files, **changes})


def _read(place, kind, values):
    settings = finetuning.parse(_config(place, kind), from_python=("train",))
    settings, given = splits.from_python(settings, {"train": values})
    return settings, given["train"].examples


@pytest.mark.parametrize("kind", VALUES)
def test_every_task_takes_tuples(place, kind):
    settings, found = _read(place, kind, VALUES[kind])
    count = 3 if kind == "srl" else len(VALUES[kind])
    assert len(found) == count
    assert settings.data.train.startswith("python:") and len(settings.data.train) == 71
    assert found[0].where == "train[0]"


def test_what_tuples_mean(place):
    _, (first, *_) = _read(place, "pair", PAIRS)
    assert (first.text, first.text_pair) == ("the cat sat", "a cat")
    assert first.labels == ("cat",)
    _, (_, second, third) = _read(place, "several", VALUES["several"])
    assert (second.labels, third.labels) == (("cat", "dog"), ())
    _, (first, second, _) = _read(place, "regression", VALUES["regression"])
    assert (first.score, second.score) == (1.5, 4.0)
    _, (first, _) = _read(place, "tagging", VALUES["tagging"])
    _, (same, _) = _read(place, "spans", VALUES["spans"])
    assert first.tags == same.tags == ("O", "B-ANIMAL", "O")
    assert (first.text, first.tokens) == (same.text, same.tokens)
    _, (one, two, three) = _read(place, "srl", VALUES["srl"])
    assert one.tags == ("ARG0", "V", "ARG1", "O") and one.predicate == 1
    assert (two.where, two.predicate, three.predicate) == (three.where, 1, 3)
    _, (first, second) = _read(place, "span", ANSWERS)
    assert first.answers[0].start == 4 and second.impossible and second.labeled
    _, (first, second) = _read(place, "multiple_choice", CHOICES)
    assert (first.label, second.choices) == (1, ("跑", "坐", "the cat"))
    _, (first, second) = _read(place, "matching", VALUES["matching"])
    assert (first.labels, second.labels) == (("1",), ("0",))
    _, (first, second) = _read(place, "scored", VALUES["scored"])
    assert (first.score, second.score, first.labels) == (4.5, 1.0, None)
    _, (first, *_) = _read(place, "simcse", VALUES["simcse"])
    assert (first.text, first.text_pair) == ("the cat sat", None)


class _Frame:
    """What is used of a pandas data frame."""

    columns = ("sentence", "label")

    def to_dict(self, orient):
        assert orient == "records"
        return [{"sentence": text, "label": label} for text, label in TEXTS]


def test_tuples_dicts_columns_and_frames_are_the_same_examples(place):
    shapes = [
        TEXTS,
        iter(TEXTS),
        np.array(TEXTS),
        [{"text": text, "label": label} for text, label in TEXTS],
        {"text": [x for x, _ in TEXTS], "label": np.array([y for _, y in TEXTS])},
        _Frame(),
    ]
    made = [_read(place, "classification", shape) for shape in shapes]
    assert all(found == made[0][1] for _, found in made)
    assert len({settings.data.train for settings, _ in made}) == 1
    other, _ = _read(place, "classification", TEXTS[::-1])
    assert other.data.train != made[0][0].data.train


def test_pandas_frames_with_empty_cells(place):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TEXTS, columns=["text", "label"])
    assert (
        _read(place, "classification", frame)[1]
        == _read(place, "classification", TEXTS)[1]
    )
    frame.loc[2, "text"] = float("nan")
    with pytest.raises(errors.InputError, match=r"train\[2\]: 'text' is null"):
        _read(place, "classification", frame)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("classification", [("a", "cat"), 5], r"train\[1\] is 5: for classification"),
        ("classification", [("a", "cat"), (5, "dog")], r"train\[1\]: 'text' is 5"),
        ("classification", [("a", None)], r"train\[0\]: the label is missing"),
        ("classification", ["a"], r"train\[0\] is 'a': .*give \(text, label\)"),
        ("classification", [], "train has no example"),
        ("classification", "a text", "train is str: give a list of examples"),
        ("classification", {"text": "ab"}, r"train\['text'\] is str: give a list"),
        ("classification", {"text": ["a"], "label": []}, "text 1, label 0"),
        ("regression", [("a", "x")], r"train\[0\]: the score is \"x\""),
        ("tagging", [(["a", "b"], ["O"])], r"train\[0\] has 2 tokens and 1 tags"),
        ("srl", [(["a"], 1, ["V"])], r"train\[0\]: the predicate is 1: .*from 0 to 0"),
        ("srl", [(["a"], 0, [])], r"train\[0\]: the roles are \[\]: give one for each"),
        ("span", [("q", "the cat", "dog")], r"train\[0\]: the answer 'dog'"),
        ("multiple_choice", [("a", ["b", "c"], 2)], r"train\[0\]: the label '2' is"),
    ],
)
def test_what_is_wrong_is_named_by_its_position(place, kind, values, words):
    with pytest.raises(errors.InputError, match=words):
        _read(place, kind, values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"train": []}, "^train has no example: give one"),
        ({"train": TEXTS[:1] * 2}, r"^data\['train'\] is too small to hold out"),
        (
            {"train": TEXTS[:1] * 2, "dev": TEXTS},
            r"^data\['train'\] has 1 class \(cat\)",
        ),
    ],
)
def test_examples_are_named_by_their_split(place, tmp_path, data, words):
    with pytest.raises(errors.InputError, match=words):
        finetune.train(_config(place), tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_examples_without_a_split_are_refused():
    with pytest.raises(errors.InputError, match="^data is list"):
        python_examples.by_split(TEXTS)


def test_a_split_is_a_file_or_from_python(place):
    config = _config(place, data__train="train.tsv")
    with pytest.raises(errors.InputError, match=r"data\.train is 'train\.tsv'"):
        finetuning.parse(config, from_python=("train",))
    with pytest.raises(errors.InputError, match="'valid'"):
        finetuning.parse(_config(place), from_python=("valid",))


def test_a_run_learns_stops_and_resumes_bit_for_bit(place, tmp_path, monkeypatch):
    tiny_tasks.write_classes(tmp_path / "train.tsv", 48)
    request = read_examples.Request(
        tmp_path / "train.tsv", tasks.TASKS["classification"].form
    )
    train = [(x.text, x.labels[0]) for x in read_examples.read(request).examples]
    data = {"train": train, "dev": train[:20], "test": train[20:40]}
    steps = {"num_train_steps": 4, "eval_every_steps": 2, "save_every_steps": 2}
    steps = {f"run__{name}": count for name, count in steps.items()}
    config = _config(place, model__num_hidden_layers=1, data__num_lengths=1, **steps)
    made = finetune.train(config, tmp_path / "whole", data=data)
    record = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert all(record["data"][x].startswith("python:") for x in data)

    def stop(self, step, *rest):
        if step == 4:  # a checkpoint of step 2 is there
            raise errors.Stopped("here")
        return call(self, step, *rest)

    call = finetuning_run.FinetuningRun.evaluate
    monkeypatch.setattr(finetuning_run.FinetuningRun, "evaluate", stop)
    with pytest.raises(errors.Stopped):
        finetune.train(config, tmp_path / "parts", data=data)
    monkeypatch.setattr(finetuning_run.FinetuningRun, "evaluate", call)
    changed = data | {"train": [(text, "cat") for text, _ in train[:1]] + train[1:]}
    changed["train"][0] = (train[0][0] + " here", train[0][1])
    with pytest.raises(errors.InputError, match=r"data\.train was 'python:"):
        finetune.train(config, tmp_path / "parts", data=changed)
    again = finetune.train(config, tmp_path / "parts", data=data)
    assert again.metrics == made.metrics
    weights = [
        next((tmp_path / x / "best").glob("*/parameters.safetensors")).read_bytes()
        for x in ("whole", "parts")
    ]
    assert weights[0] == weights[1]
    assert bert_jax.load(made.folder).predict(["the cat"])[0]["label"] in ("cat", "dog")
    settings = finetuning.parse(record)
    with pytest.raises(errors.InputError, match="was given from Python: give it again"):
        splits.read(settings)
