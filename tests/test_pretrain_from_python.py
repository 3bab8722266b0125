"""Pretraining on documents that Python passes: the same as on a file of them."""

import json

import numpy as np
import pytest
import tiny_run

from bert_jax import errors, pretrain
from bert_jax.checkpoints import card, run_folder
from bert_jax.config import pretraining
from bert_jax.data.corpus import python_documents, store
from bert_jax.runs import corpus_store, workdirs
from bert_jax.runs import pretraining as pretraining_run

TEXTS = [
    f"document {number} is here. The cat sat. 今天天气很好，我们去公园。他喜欢读书。"
    for number in range(40)
]
SENTENCES = [[f"list {n} is here", "它跑了。", " the  cat\tsat "] for n in range(9)]


def _ensure(folder, corpus="", given=(), fraction=0.2):
    text = pretraining.PretrainingTextConfig(vocab_size=120)
    data = pretraining.PretrainingDataConfig(
        corpus=str(corpus), held_out_fraction=fraction, workers=1
    )
    return corpus_store.ensure(text, data, folder, given=given)


def _bytes(folder):
    return {x.name: x.read_bytes() for x in folder.iterdir()}


def _documents(folder, split):
    opened = store.open_store(folder, split)
    return opened.manifest.total("documents", split)


def test_the_store_is_that_of_the_same_file(tmp_path):
    documents = [*TEXTS, *SENTENCES]
    lines = [json.dumps({"text": x}, ensure_ascii=False) for x in documents]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")
    _ensure(tmp_path / "file", path)
    forms = {"list": documents, "generator": (x for x in documents)}
    forms["arrays"] = iter([*TEXTS, *map(np.array, SENTENCES)])
    forms["tuple"] = (*TEXTS, *map(tuple, SENTENCES))
    for name, values in forms.items():
        with python_documents.written({"train": values}) as given:
            _ensure(tmp_path / name, given=given.sources)
            _ensure(tmp_path / name, given=given.sources)  # and is taken as it is
        assert _bytes(tmp_path / name) == _bytes(tmp_path / "file")
    assert (
        given.sha256["train"]
        == store.read_manifest(tmp_path / "list").sources[0].files[0].sha256
    )
    with python_documents.written({"train": documents[1:]}) as given:
        with pytest.raises(errors.InputError, match="train.jsonl"):
            _ensure(tmp_path / "list", given=given.sources)


def test_a_pandas_series_has_its_values(tmp_path):
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(TEXTS, index=range(7, 47))
    with python_documents.written({"train": TEXTS}) as one:
        with python_documents.written({"train": series}) as other:
            assert one.sha256 == other.sha256
    with pytest.raises(errors.InputError, match=r"column of the texts, as in frame\["):
        with python_documents.written({"train": series.to_frame()}):
            pass


def test_dev_is_held_out_and_nothing_of_train_is(tmp_path):
    data = {"train": TEXTS, "dev": [*SENTENCES, TEXTS[0]]}
    with python_documents.written(data) as given:
        _ensure(tmp_path / "both", given=given.sources)
    assert _documents(tmp_path / "both", "train") == len(TEXTS)
    assert _documents(tmp_path / "both", "heldout") == len(SENTENCES)  # none twice
    kinds = [x.kind for x in store.read_manifest(tmp_path / "both").sources]
    assert kinds == ["jsonl:train", "jsonl:heldout"]
    vocabulary = (tmp_path / "both" / "vocab.txt").read_text("utf-8").split()
    assert "它" not in vocabulary and "他" in vocabulary
    with python_documents.written({"train": TEXTS}) as given:
        with pytest.raises(errors.InputError, match="2 sources and has 1"):
            _ensure(tmp_path / "both", given=given.sources)


def test_documents_without_a_split_are_refused():
    with (
        pytest.raises(errors.InputError, match="^data is list: give documents as"),
        python_documents.written([["a"], "b"]),
    ):
        pass


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": ["a", 3]}, r"^train\[1\] is 3: give a text or a list"),
        ({"train": ["a", float("nan")]}, r"^train\[1\] is nan: "),
        ({"train": ["a"], "dev": ["b", None]}, r"^dev\[1\] is None: "),
        ({"train": [["a", b"b"]]}, r"^train\[0\]\[1\] is b'b': give a sentence"),
        ({"train": "one text"}, r"^data\['train'\] is 'one text': give a list"),
        ({"train": 7}, r"^data\['train'\] is 7: give a list"),
        ({"train": {"text": ["a"]}}, r"^data\['train'\] is dict: give the column"),
        ({"dev": ["a"]}, r"^data has 'dev': give documents as"),
        ({"train": ["a"], "test": ["b"]}, r"^data has 'train', 'test': give"),
        ({"train": []}, r"^data\['train'\] has no document"),
        ({"train": ["a"], "dev": iter(())}, r"^data\['dev'\] has no document"),
        ({}, "^data has nothing: "),
    ],
)
def test_what_is_no_document_is_named_by_its_position(tmp_path, data, message):
    with pytest.raises(errors.InputError, match=message):
        pretrain.train(tiny_run.config(""), tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_surrogates_and_empty_documents_are_as_in_a_file(tmp_path):
    with python_documents.written({"train": [*TEXTS, "a\ud800 b", "", []]}) as given:
        built = _ensure(tmp_path / "s", given=given.sources)
    assert built.dropped.empty_documents == 2


def _train(workdir, documents=None, corpus=""):
    config = tiny_run.config(corpus, text__vocab_size=120, run__num_train_steps=3)
    data = None if documents is None else {"train": iter(documents)}
    return pretrain.train(config, workdir, data=data)


def _check_the_record(workdir):
    """The record has the sha256 of the documents, and others are refused."""
    recorded = json.loads((workdir / workdirs.DATA).read_text())["files"]
    path = recorded["data.train"]["path"]
    assert path == f"python:{recorded['data.train']['sha256']}" and len(path) == 71
    corpus = run_folder.read_settings(workdir).data.corpus
    assert corpus.startswith("python:") and card.languages(workdir) == ()
    with pytest.raises(errors.InputError, match="train.jsonl"):
        _train(workdir, TEXTS[1:])
    with pytest.raises(errors.InputError, match="give it again"):
        _train(workdir, corpus=corpus)


def test_documents_are_recorded_and_others_refused(tmp_path, monkeypatch):
    def stop(*arguments):
        raise errors.Stopped("before the first step")

    monkeypatch.setattr(pretraining_run.PretrainingRun, "initial_state", stop)
    with pytest.raises(errors.Stopped):
        _train(tmp_path / "run", TEXTS)
    _check_the_record(tmp_path / "run")


@pytest.mark.slow
def test_a_run_is_that_on_a_file_and_is_resumed(tmp_path):
    lines = [json.dumps({"text": x}, ensure_ascii=False) for x in TEXTS]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")
    on_file = _train(tmp_path / "file", corpus=path)
    first = _train(tmp_path / "run", TEXTS)
    assert first.metrics == on_file.metrics and int(first.state.step) == 3
    assert _train(tmp_path / "run", TEXTS).metrics == first.metrics  # is finished
    _check_the_record(tmp_path / "run")
