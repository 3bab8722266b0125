"""Data that is changed under a run: a resumed run notices, whatever its file."""

import dataclasses
import json

import pytest
import tiny_run
import tiny_suites
import tiny_tasks

from bert_jax import errors, finetune, pretrain, suite
from bert_jax.config import finetuning
from bert_jax.data.corpus.store import read_manifest
from bert_jax.runs import corpus_store, splits, workdirs

SHORT = {"run__num_train_steps": 2, "run__eval_every_steps": 2}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run that is finished, in the folder of its files."""
    place = tmp_path_factory.mktemp("tuned")
    tiny_tasks.write_vocab(place)
    for seed, name in enumerate(("train", "dev", "test")):
        tiny_tasks.write_classes(place / f"{name}.tsv", count=24, seed=seed)
    config = tiny_tasks.config(place, data__test=str(place / "test.tsv"), **SHORT)
    finetune.train(config, place / "run")
    return place, config


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_a_file_with_other_labels_is_noticed(tuned, name):
    place, config = tuned
    path = place / f"{name}.tsv"
    before = path.read_text()
    swapped = before.replace("\tcat", "\tx").replace("\tdog", "\tcat")
    path.write_text(swapped.replace("\tx", "\tdog"))
    with pytest.raises(errors.InputError) as caught:
        finetune.train(config, place / "run")
    assert f"data.{name} ({path})" in str(caught.value)
    assert "--allow_changed_config" in str(caught.value)
    path.write_text(before)
    assert finetune.train(config, place / "run").metrics


def test_a_changed_file_may_be_allowed_and_is_the_record_then(tuned):
    place, config = tuned
    path = place / "test.tsv"
    path.write_text(path.read_text() + "a cat\tcat\n")
    recorded = json.loads((place / "run" / workdirs.DATA).read_text())["files"]
    finetune.train(config, place / "run", allow_changed_config=True)
    now = json.loads((place / "run" / workdirs.DATA).read_text())["files"]
    assert {x for x in now if now[x] != recorded[x]} == {"data.test"}
    assert finetune.train(config, place / "run").metrics


def test_a_run_of_an_earlier_version_is_not_compared(tuned):
    place, config = tuned
    (place / "run" / workdirs.DATA).unlink()
    finetune.train(config, place / "run")
    record = json.loads((place / "run" / workdirs.DATA).read_text())
    assert record["classes"] == ["cat", "dog"]
    assert sorted(record["files"]) == ["data.dev", "data.test", "data.train"]


def test_stop_words_are_a_file_of_the_run(tmp_path):
    tiny_tasks.write_vocab(tmp_path)
    words = tmp_path / "words.txt"
    words.write_text("the\n快\n", encoding="utf-8")
    config = tiny_tasks.config(tmp_path, text__stop_words=str(words))
    settings = finetuning.parse(config)
    files = splits.data_files(settings, {})
    before = workdirs.Data(files, ["cat", "dog"])
    assert files["text.stop_words"]["path"] == str(words)
    words.write_text("the\n", encoding="utf-8")
    after = workdirs.Data(splits.data_files(settings, {}), ["cat", "dog"])
    (changed,) = after.changes_since(before)
    assert changed.startswith("text.stop_words")


def test_classes_in_another_order_are_other_classes():
    one = workdirs.Data({}, ["cat", "dog"])
    assert one.changes_since(one) == []
    (text,) = workdirs.Data({}, ["dog", "cat"]).changes_since(one)
    assert text == "the classes were cat, dog and are dog, cat"


def test_what_is_no_file_is_known_by_its_examples(tmp_path):
    settings = finetuning.parse(tiny_tasks.config(tmp_path))
    data = dataclasses.replace(settings.data, train="package:x[train]", dev="")
    settings = dataclasses.replace(settings, data=data)
    first, same, other = (
        splits.data_files(settings, {"train": examples})
        for examples in ([1, 2], [1, 2], [1, 3])
    )
    assert first == same != other


@pytest.mark.slow
def test_a_store_of_other_text_is_noticed(tmp_path):
    vocab = str(tiny_tasks.write_vocab(tmp_path))
    texts = [tmp_path / "a.txt", tmp_path / "b.txt"]
    stores = [tmp_path / "a", tmp_path / "b"]
    for seed, (text, store) in enumerate(zip(texts, stores, strict=True)):
        tiny_run.write_corpus(text, documents=20, seed=seed)
        config = tiny_run.config(
            text, text__vocab=vocab, data__store=str(store), **SHORT
        )
        settings = pretrain.pretraining.parse(config)
        corpus_store.ensure(settings.text, settings.data, store)
    config = tiny_run.config("", text__vocab=vocab, data__store=str(stores[0]), **SHORT)
    pretrain.train(config, tmp_path / "run")
    config.data.store = str(stores[1])  # a free key: a store may move
    with pytest.raises(
        errors.InputError, match=rf"the store \({stores[1]}\) has other"
    ):
        pretrain.train(config, tmp_path / "run")
    stores[0].rename(tmp_path / "moved")
    config.data.store = str(tmp_path / "moved")
    pretrain.train(config, tmp_path / "run")
    assert read_manifest(tmp_path / "moved").total("documents") == 20


@pytest.mark.slow
def test_a_finished_task_of_a_suite_with_other_data_is_noticed(tmp_path):
    tiny_suites.write_glue(tmp_path)
    config = tiny_suites.config("glue", tmp_path, tasks="cola")
    suite.run(config, tmp_path / "run")
    suite.run(config, tmp_path / "run")
    (path,) = tmp_path.glob("CoLA/train.tsv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(errors.InputError, match="cola is finished .* data.train"):
        suite.run(config, tmp_path / "run")
