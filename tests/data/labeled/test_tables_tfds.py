"""Labeled datasets of TFDS by name, made here so that no network is needed."""

import warnings

import pytest
from example_files import columns, iterate, read, refused

from bert_jax.data.labeled import examples

pytestmark = pytest.mark.filterwarnings("default")

BUILDER = '''
"""Labeled datasets of a few records."""
import numpy as np
import tensorflow_datasets as tfds

f = tfds.features


class Made(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    SKIP_REGISTERING = True

    def _info(self):
        features = f.FeaturesDict(self.FEATURES())
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        splits = {"train": self.TRAIN, "test": self.TEST}
        return {name: enumerate(rows) for name, rows in splits.items() if rows}

    def _generate_examples(self):
        return iter(())


class TinyReviews(Made):
    SKIP_REGISTERING = False
    TRAIN = [{"sentence": "好", "label": 1, "idx": 3, "stars": 4.5}]
    TEST = [{"sentence": "?", "label": -1, "idx": 0, "stars": 1.0}]

    def FEATURES(self):
        names = f.ClassLabel(names=["negative", "positive"])
        text, number = f.Text(), f.Scalar(np.int32)
        stars = f.Scalar(np.float32)
        return {"sentence": text, "label": names, "idx": number, "stars": stars}


class TinyNer(Made):
    SKIP_REGISTERING = False
    TRAIN = [{"tokens": ["他", "在", "IBM"], "tags": ["O", "O", "B-ORG"]}]
    TEST = []

    def FEATURES(self):
        tags = f.ClassLabel(names=["O", "B-ORG"])
        return {"tokens": f.Sequence(f.Text()), "tags": f.Sequence(tags)}


class TinySquad(Made):
    SKIP_REGISTERING = False
    ANSWERS = {"text": ["树上", "树"], "answer_start": [2, 2]}
    TRAIN = [{"id": "q", "context": "猫在树上", "question": "?", "answers": ANSWERS}]
    TEST = []

    def FEATURES(self):
        answers = {"text": f.Text(), "answer_start": f.Scalar(np.int32)}
        texts = {name: f.Text() for name in ("id", "context", "question")}
        return {**texts, "answers": f.Sequence(answers)}
'''


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Prepares three datasets in a folder that TFDS looks into."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("tfds")
    (folder / "tiny_labeled.py").write_text(BUILDER)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(str(folder))
        import tiny_labeled

        for name in ("TinyReviews", "TinyNer", "TinySquad"):
            builder = getattr(tiny_labeled, name)(data_dir=str(folder / "data"))
            builder.download_and_prepare()
        tfds.core.add_data_dir(str(folder / "data"))
        yield


def test_classes_have_their_names(tiny):
    path = "tfds:tiny_reviews"
    assert read(path).examples == [
        examples.TextExample(f"{path} record 0", "3", "好", None, ("positive",), None)
    ]


def test_a_hidden_label_is_none(tiny):
    path = "tfds:tiny_reviews[test]"
    assert [(e.text, e.labels) for e in iterate(path)] == [("?", None)]
    refused(r"tiny_reviews\[test\] record 0: the label is missing", path)


def test_scores_are_numbers(tiny):
    found = read("tfds:tiny_reviews", "regression", columns=columns(score="stars"))
    assert found.examples[0].score == 4.5


def test_lists_of_tokens_and_tags(tiny):
    (found,) = read("tfds:tiny_ner", "tagging").examples
    assert (found.text, found.tags) == ("他在 IBM", ("O", "O", "B-ORG"))


def test_questions(tiny):
    (found,) = read("tfds:tiny_squad", "span").examples
    assert (found.id, found.context) == ("q", "猫在树上")
    assert found.answers == (examples.Answer("树上", 2), examples.Answer("树", 2))


def test_columns_that_are_not_there_are_named(tiny):
    refused(
        "record 0: there is no column 'text' for data.columns.text, only 'idx'",
        "tfds:tiny_reviews",
        columns=columns(text="text"),
    )
    refused("tfds:no_such_set", "tfds:no_such_set")
