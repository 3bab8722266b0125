"""A task of a user: one class here, and every command works with it."""

import json
from collections.abc import Sequence

import command_line
import numpy as np
import pytest
import tiny_tasks

import bert_jax
from bert_jax import convert, finetune, tasks
from bert_jax.data.labeled import examples, text_examples
from bert_jax.inference import answer
from bert_jax.tasks import classification, spec

SHORT, LONG = "short", "long"


def _length_class(example: examples.TextExample) -> str:
    return LONG if len(example.text.split()) > 4 else SHORT


class LengthSpec(classification.ClassificationSpec):
    """Whether a text has more than four words; its labels are in no file."""

    name = "length"
    form = examples.ExampleForm(
        task=name,
        example=examples.TextExample,
        formats=examples.TABLES,
        parts=("text",),
        read=text_examples.text_examples,
        targets=(),
        needs_target=False,
    )
    keys = spec.TABLE_KEYS | spec.CLASS_KEYS
    metrics = ("accuracy",)
    default_metrics = ("accuracy",)
    columns = ("id", "label")
    formats = ()

    def learn(self, settings, examples, given=None):
        return spec.Metadata(labels=(SHORT, LONG))

    def build(self, settings, metadata, common):
        return Length(**common, labels=metadata.labels)

    def reads_head(self, head, is_number):
        return False

    def rows(self, example, prediction):
        return [prediction]


class Length(classification.Classification):
    """A classification whose labels follow from the texts."""

    def table(self, examples: Sequence[examples.TextExample]):
        return super().table([self._labeled(x) for x in examples])

    def score(self, examples, predictions):
        return super().score([self._labeled(x) for x in examples], predictions)

    def _labeled(self, example):
        return examples.TextExample(
            example.where, example.id, example.text, None, (_length_class(example),)
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new_task")
    tiny_tasks.write_vocab(folder)
    rng = np.random.default_rng(3)
    for name, count in (("train", 96), ("dev", 24)):
        lines = [
            " ".join(rng.choice(tiny_tasks.WORDS, size=int(words)))
            for words in rng.choice((2, 3, 7, 9), size=count)
        ]
        text = "".join(f"{line}\n" for line in ["text", *lines])
        (folder / f"{name}.csv").write_text(text)
    return folder


@pytest.fixture(scope="module")
def run(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, LengthSpec.name, LengthSpec())
        changes = {
            "data__task": "length",
            "data__train": str(place / "train.csv"),
            "data__dev": str(place / "dev.csv"),
            "data__header": "true",
            "run__num_train_steps": 60,
        }
        done = finetune.train(tiny_tasks.config(place, **changes), place / "run")
        assert done.metrics["dev/accuracy"] > 0.9
        yield place / "run"


def test_evaluate_scores_it(run, place, monkeypatch, capfd):
    done = command_line.in_process(
        monkeypatch, capfd, "evaluate", f"--workdir={run}", f"--data={place}/dev.csv"
    )
    assert done.code == 0, done.err
    written = json.loads((run / "eval" / "dev.json").read_text())
    assert written["metrics"]["accuracy"] > 0.9


def test_predict_answers_arguments_and_files(run, place, monkeypatch, capfd):
    done = command_line.in_process(
        monkeypatch,
        capfd,
        "predict",
        f"--model={run}",
        "the cat",
        "a dog ran home fast",
    )
    answers = [json.loads(line)["label"] for line in done.out.splitlines()]
    assert answers == [SHORT, LONG]
    out = place / "answers.tsv"
    done = command_line.in_process(
        monkeypatch,
        capfd,
        "predict",
        f"--model={run}",
        f"--input={place}/dev.csv",
        f"--output={out}",
        "--format=tsv",
    )
    assert done.code == 0, done.err
    assert out.read_text().splitlines()[0] == "id\tlabel"
    assert len(out.read_text().splitlines()) == 25


def test_an_export_loads_as_the_task(run, place):
    convert.convert(run, place / "exported", convert.Request("huggingface"))
    config = json.loads((place / "exported" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    texts = ["the cat", "a dog ran home fast here"]
    loaded = bert_jax.load(place / "exported")
    assert [x["label"] for x in loaded.predict(texts)] == [SHORT, LONG]
    ours = answer.load(run).predict(texts)
    assert [x["label"] for x in ours] == [SHORT, LONG]


def test_a_key_that_it_does_not_read_is_refused(run, place):
    config = tiny_tasks.config(place, data__task="length", head__crf=True)
    with pytest.raises(bert_jax.errors.InputError, match=r"head\.crf is True"):
        finetune.train(config, place / "refused")
