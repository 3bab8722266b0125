"""A fine-tuned model from its folder: predictions of examples, in any number."""

import copy
import dataclasses
import itertools
import json
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
import tiny_tasks

from bert_jax import errors, tasks
from bert_jax.data.labeled import examples, read_examples
from bert_jax.inference import answer
from bert_jax.inference.model import load


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    return folder


@pytest.fixture(scope="module")
def classes(place):
    folder = tiny_models.write_model(place, place / "classes", "classification")
    return answer.load(folder)


def _texts(count):
    words = itertools.cycle(("cat", "dog", "猫", "ran here", "那狗跑，"))
    return [f"the {next(words)} {'sat ' * (n % 7)}" for n in range(count)]


def test_the_kernel_of_the_run_is_not_asked_for_elsewhere(classes, place, tmp_path):
    folder = shutil.copytree(place / "classes", tmp_path / "classes")
    tree = json.loads((folder / "task.json").read_text())
    tree["settings"]["run"]["attention"] = "cudnn"
    (folder / "task.json").write_text(json.dumps(tree))
    loaded = answer.load(folder)
    assert loaded.task_folder.settings.run.attention == "auto"
    assert loaded.predict(["the cat"])[0] == classes.predict(["the cat"])[0]


def test_predictions_do_not_depend_on_their_neighbours(classes):
    texts = _texts(20)
    together = classes.predict(texts)
    assert [one["id"] for one in together] == [str(n) for n in range(20)]
    for text, one in zip(texts[:6], together, strict=False):
        (alone,) = classes.predict([text])
        assert alone["label"] == one["label"]
        odds = list(alone["probabilities"].values())
        assert odds == pytest.approx(list(one["probabilities"].values()), abs=2e-6)


@pytest.mark.parametrize(("texts", "rows"), [(1, 1), (5, 8), (9, 16)])
def test_few_texts_are_few_rows(classes, monkeypatch, texts, rows):
    """The batch is no larger than the next power of two, whatever it may be."""
    seen = []

    def step(params, batch):
        seen.append(len(batch["input_ids"]))
        return classes.predictor.step(params, batch)

    spied = dataclasses.replace(classes.predictor, step=step)
    spied = dataclasses.replace(classes, predictor=spied)
    shards = jax.device_count()
    assert len(spied.predict(_texts(texts))) == texts
    assert seen == [max(rows, shards)]


def test_it_is_the_model_of_the_folder(classes):
    """The outputs are those of the task's own functions on one row."""
    of_task = classes.predictor.task
    example = examples.TextExample("x", "0", "the cat sat")
    table = of_task.table([example])
    batch = table.batch(np.arange(1), 1, 9)
    outputs = of_task.predict(classes.params, jax.tree.map(jnp.asarray, batch))
    odds = np.asarray(outputs["probabilities"])[0]
    (said,) = classes.predict(["the cat sat"])
    assert list(said["probabilities"].values()) == pytest.approx(odds, abs=2e-6)


def test_a_stream_is_read_one_window_ahead_at_most(classes):
    read = []

    def source():
        for number, text in enumerate(_texts(8)):
            read.append(number)
            yield examples.TextExample("x", str(number), text)

    stream = classes.stream(source(), 3)
    seen = []
    for example, said in stream:
        assert said["id"] == example.id == str(len(seen))
        seen.append(len(read))
    assert seen == [3, 3, 3, 6, 6, 6, 8, 8]


def test_nothing_is_answered_by_nothing(classes):
    assert classes.predict([]) == []
    assert list(classes.stream(iter([]))) == []


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_labels_of_examples_change_no_prediction(place, kind):
    folder = tiny_models.write_model(place, place / f"{kind}_again", kind)
    model = answer.load(folder)
    path = tiny_models.write_file(place, kind)
    multi = "|" if kind == "several" else ""
    request = read_examples.Request(
        path, tasks.TASKS[tiny_models.task_of(kind)].form, multi_label=multi
    )
    found = read_examples.read(request).examples
    bare = [examples.unlabeled(example) for example in found]
    assert bare != found
    said = model.of_examples(found)
    assert said == model.of_examples(bare)
    assert len(said) == len(found)
    if kind == "matching":  # which is the best of a window means nothing
        assert all("rank" not in one for one in said)
    scored, again = model.scores(found)
    assert [one["id"] for one in again] == [one["id"] for one in said]
    # What training may be asked to keep the best model by, but for thresholds.
    known = model.task_spec.metrics
    assert {name for name in scored.metrics if "threshold" not in name} <= {*known}


def test_unknown_labels_are_for_scores_alone(classes):
    strange = examples.TextExample("f:3", "0", "the cat", labels=("bird",))
    (said,) = classes.of_examples([strange])
    assert said["label"] in ("cat", "dog")
    with pytest.raises(errors.InputError, match="f:3: the label 'bird' "):
        classes.scores([strange])


def test_the_dtype_and_repair_are_those_asked_for(place):
    folder = tiny_models.write_model(place, place / "tags", "tagging")
    plain = answer.load(folder)
    assert not plain.task_folder.settings.data.repair
    broken = examples.TaggedExample(
        "f:1", "0", "the cat", ((0, 3), (4, 7)), ("B-ANIMAL", "I-DOG")
    )
    with pytest.raises(errors.InputError, match="f:1: .* BIO"):
        plain.scores([broken])
    mending = answer.load(folder, "bfloat16", repair=True)
    assert mending.task_folder.settings.run.dtype == "bfloat16"
    assert mending.scores([broken])[0].unseen == {"DOG": 1}
    (one,), (two,) = plain.predict(["the cat"]), mending.predict(["the cat"])
    assert one["probabilities"] == pytest.approx(two["probabilities"], abs=0.05)
    assert one["probabilities"] != two["probabilities"]


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", ["classification", "matching"])
def test_a_copy_of_a_loaded_model_predicts_the_same(place, kind, how):
    folder = place / f"copied_{kind}"
    if not folder.exists():
        tiny_models.write_model(place, folder, kind)
    model = load(folder)
    copied = COPIES[how](model)
    values = ["the cat", "猫"] if kind == "classification" else [("the cat", "猫")]
    assert copied.predict(values) == model.predict(values)
    assert copied.params is copied.task.params
    one, other = jax.tree.leaves(copied.params), jax.tree.leaves(model.params)
    for ours, theirs in zip(one, other, strict=True):
        assert ours is not theirs and ours.sharding == theirs.sharding


def test_a_damaged_folder_is_refused(place, tmp_path):
    with pytest.raises(errors.InputError, match="is not a fine-tuned model"):
        answer.load(tmp_path)


def test_a_list_of_tokens_has_one_tag_a_token(place):
    tagger = answer.load(tiny_models.write_model(place, place / "tagger", "tagging"))
    tokens = ["the", "don't", "cat", "the"]
    listed, running = tagger.predict([tokens, "the cat"])
    assert len(listed["tags"]) == len(tokens)
    assert len(running["tags"]) == 2
