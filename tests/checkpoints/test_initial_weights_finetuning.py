"""What a fine-tuning run begins with: a given encoder, a head drawn or given."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import small_weights
import tiny_models
import tiny_tasks

from bert_jax import convert, errors
from bert_jax.checkpoints import huggingface, initial_weights, native
from bert_jax.config import finetuning
from bert_jax.model import config as model_config
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.tasks import spec
from bert_jax.text.tokenizer import Tokenizer

CLASSIFIER = ("encoder", "pooler", "classifier")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A vocabulary, files, a classifier of ours, and the same for `transformers`."""
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    tiny_tasks.write_classes(folder / "train.tsv", 20, seed=0)
    tiny_tasks.write_classes(folder / "dev.tsv", 8, seed=1)
    tiny_models.write_model(folder, folder / "run" / "best" / "4", "classification")
    convert.convert(folder / "run", folder / "hf", convert.Request("huggingface"))
    return folder


def settings_of(place, folder, **changes):
    """Settings of a run that starts from a folder."""
    config = finetuning.default()
    values = {
        "init_from": str(folder),
        "data.train": str(place / "train.tsv"),
        "data.dev": str(place / "dev.tsv"),
        "data.max_seq_length": 24,
        "mesh.data": 1,
    }
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(values | changed)
    return finetuning.parse(config)


def same(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@pytest.mark.parametrize("kind", ["run", "hf"])
def test_a_folder_of_any_kind_gives_its_encoder(place, kind):
    start = initial_weights.read_start(settings_of(place, place / kind), CLASSIFIER)
    ours = native.read_task(place / "run")
    assert sorted(start.given) == ["encoder", "pooler"] and start.left == (
        "classifier",
    )
    assert same(start.given["encoder"], ours.params["encoder"])
    assert start.bert == dataclasses.replace(ours.bert, num_hidden_groups=-1)
    assert start.tokenizer.fingerprint == ours.tokenizer.fingerprint


@pytest.mark.parametrize("kind", ["run", "hf"])
def test_a_head_is_taken_on_request_alone(place, kind):
    settings = settings_of(place, place / kind, init__head="given")
    start = initial_weights.read_start(settings, CLASSIFIER)
    ours = native.read_task(place / "run").params
    assert same(start.given, ours) and start.left == ()
    with pytest.raises(errors.InputError, match="has no span, and init.head is given"):
        initial_weights.read_start(settings, ("encoder", "span"))


def test_a_head_that_the_run_has_no_use_for_is_left(place):
    start = initial_weights.read_start(
        settings_of(place, place / "run"), ("encoder", "tagger")
    )
    assert sorted(start.given) == ["encoder"]
    assert start.left == ("classifier", "pooler")


def test_what_a_given_head_has_learned(place, tmp_path):
    for kind in ("run", "hf"):
        fresh = settings_of(place, place / kind)
        assert initial_weights.given_head(fresh, tmp_path) is None
        given = settings_of(place, place / kind, init__head="given")
        expected = spec.Metadata(labels=("cat", "dog"))
        assert initial_weights.given_head(given, tmp_path) == expected
    # A run that is resumed asks its own best model: the folder may be gone.
    given = settings_of(place, place / "gone", init__head="given")
    with pytest.raises(errors.InputError, match="gone does not exist"):
        initial_weights.given_head(given, tmp_path)
    made = native.read_task(place / "run")
    learned = spec.Metadata(("a", "b"), mean=3.0, threshold=0.5)
    made = dataclasses.replace(made, learned=learned)
    native.write_best(tmp_path, 2, made)
    found = initial_weights.given_head(given, tmp_path)
    assert found == dataclasses.replace(learned, threshold=None)


def _predictions(run, params):
    rows = run.predictor.outputs(params, run.dev.table)["probabilities"]
    names = run.learned.labels
    return [dict(zip(names, map(float, row), strict=True)) for row in rows]


def test_a_classifier_with_its_labels_in_another_order_says_the_same(place, tmp_path):
    """Labels that are not sorted: the head keeps its rows, the data is sorted in."""
    shutil.copytree(place / "hf", tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    tree = json.loads(path.read_text())
    tree["id2label"] = {"0": "dog", "1": "cat"}
    path.write_text(json.dumps(tree))
    made = []
    for folder in (place / "hf", tmp_path / "hf"):
        settings = settings_of(place, folder, init__head="given")
        run = finetuning_run.assemble(settings, tmp_path / "run")
        made.append(_predictions(run, run.parameters(run.shapes, 0)))
    assert run.learned.labels == ("dog", "cat")
    assert run.train.table.fixed["labels"].tolist() == [
        ("dog", "cat").index(x.labels[0]) for x in run.train.examples
    ]
    for one, other in zip(*made, strict=True):
        assert one["cat"] == other["dog"] and one["dog"] == other["cat"]


def test_a_file_may_number_the_classes_of_a_given_head(place, tmp_path):
    text = (place / "train.tsv").read_text(encoding="utf-8")
    text = text.replace("\tcat\n", "\t0\n").replace("\tdog\n", "\t1\n")
    (tmp_path / "n.tsv").write_text(text, encoding="utf-8")
    settings = settings_of(
        place, place / "hf", init__head="given", data__train=str(tmp_path / "n.tsv")
    )
    run = finetuning_run.assemble(settings, tmp_path / "run")
    assert {x.labels for x in run.train.examples} == {("cat",), ("dog",)}


def test_a_given_head_of_other_classes_is_refused(place, tmp_path):
    tree = json.loads((place / "hf" / "config.json").read_text())
    shutil.copytree(place / "hf", tmp_path / "hf")
    (tmp_path / "hf" / "task.json").unlink()  # as a folder of another library
    path = tmp_path / "hf" / "config.json"

    def refused(words, **changes):
        settings = settings_of(place, tmp_path / "hf", init__head="given", **changes)
        with pytest.raises(errors.InputError, match=words):
            finetuning_run.assemble(settings, tmp_path / "run")

    path.write_text(json.dumps(tree | {"id2label": {"0": "cat", "1": "bird"}}))
    refused("the label 'dog' .* 2 labels .cat, bird")
    path.write_text(json.dumps({k: v for k, v in tree.items() if k != "id2label"}))
    refused("init.head .* data.labels")
    refused(r"the shape \[2\], which is not that of", data__labels="cat,dog,bird")


def test_positions_and_free_keys_follow_the_config(place):
    settings = settings_of(
        place,
        place / "run",
        init__positions="repeat",
        model__max_position_embeddings=40,
        model__hidden_dropout_prob=0.3,
    )
    start = initial_weights.read_start(settings, CLASSIFIER)
    table = start.given["encoder"]["embeddings"]["position_embeddings"]["embedding"]
    assert table.shape == (40, 32)
    np.testing.assert_array_equal(table[24:40], table[:16])
    assert (start.bert.max_position_embeddings, start.bert.hidden_dropout_prob) == (
        40,
        0.3,
    )
    with pytest.raises(errors.InputError, match="model.num_hidden_layers is 3 "):
        settings = settings_of(place, place / "run", model__num_hidden_layers=3)
        initial_weights.read_start(settings, CLASSIFIER)


def test_fresh_weights_take_architecture_and_vocabulary(place):
    settings = settings_of(
        place,
        "none",
        model__size=str(place / "run"),
        text__vocab=str(place / "hf"),
    )
    start = initial_weights.read_start(settings, CLASSIFIER)
    assert start.given == {} and start.bert.hidden_size == 32
    assert start.tokenizer.vocab_size == start.bert.vocab_size == 30
    settings = settings_of(
        place, "none", model__size="mini", text__vocab=str(place / "vocab.txt")
    )
    assert initial_weights.read_start(
        settings, CLASSIFIER
    ).bert == model_config.BertConfig(
        **dataclasses.asdict(model_config.published("mini")) | {"vocab_size": 30}
    )
    for folder in (place / "run", place):  # a run, and a vocabulary alone
        settings = settings_of(
            place, "none", model__size="mini", text__vocab=str(folder)
        )
        assert (
            initial_weights.read_start(settings, CLASSIFIER).tokenizer.vocab_size == 30
        )


def test_what_is_drawn_is_of_the_seed_and_the_rest_is_given(place, tmp_path):
    run = finetuning_run.assemble(settings_of(place, place / "run"), tmp_path / "run")
    one, other, again = (run.parameters(run.shapes, seed) for seed in (1, 2, 1))
    assert same(one, again) and not same(one["classifier"], other["classifier"])
    assert same(one["encoder"], other["encoder"]) and same(
        one["pooler"], other["pooler"]
    )
    words = one["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    given = native.read_task(place / "run").params["encoder"]
    expected = given["embeddings"]["word_embeddings"]["embedding"]
    np.testing.assert_array_equal(words[:30], expected)
    np.testing.assert_array_equal(words[30:], 0.0)


def test_labels_of_other_folders(tmp_path):
    made = small_weights.weights_of("pooler", "classifier", labels=("b", "a"))
    tokenizer = Tokenizer(
        "wordpiece",
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"),
        True,
        True,
    )
    for name, write in (("n", native.write), ("h", huggingface.write)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, made, dtype="float32")
        tokenizer.save(tmp_path / name)
        settings = settings_of(tmp_path, tmp_path / name, init__head="given")
        learned = initial_weights.given_head(settings, tmp_path / "run")
        assert learned == spec.Metadata(labels=("b", "a"))
