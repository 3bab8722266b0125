"""Text datasets of TFDS by name, made here so that no network is needed."""

import sys
import warnings

import pytest

from bert_jax import errors
from bert_jax.data.corpus import readers, sources

pytestmark = pytest.mark.filterwarnings("default")

BUILDER = '''
"""A dataset of three documents."""
import numpy as np
import tensorflow_datasets as tfds


class TinyText(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "n": tfds.features.Scalar(np.int64)}
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._all(3), "test": self._all(1)}

    def _all(self, count):
        for i in range(count):
            yield i, {"text": f"第{i}句。好！", "n": i}

    def _generate_examples(self):
        return iter(())
'''


@pytest.fixture(scope="module")
def tiny_text(tmp_path_factory):
    """Prepares the dataset `tiny_text` in a folder that TFDS looks into."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("tfds")
    (folder / "tiny_text_builder.py").write_text(BUILDER)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(str(folder))
        import tiny_text_builder

        builder = tiny_text_builder.TinyText(data_dir=str(folder / "data"))
        builder.download_and_prepare()
        tfds.core.add_data_dir(str(folder / "data"))
        yield "tfds:tiny_text"


def read(text):
    return list(readers.documents(sources.parse_source(text)))


def test_records_are_documents_of_sentences(tiny_text):
    found = read(tiny_text)
    assert sorted(d.sentences for d in found) == [
        (f"第{i}句。", "好！") for i in range(3)
    ]
    assert [d.where for d in found] == [f"{tiny_text} record {i}" for i in range(3)]
    assert found == read(tiny_text)


def test_another_split_and_the_fingerprint(tiny_text):
    assert len(read(f"{tiny_text}:1.0.0[test]")) == 1
    reading = readers.Reading(sources.parse_source(tiny_text))
    assert len(list(reading.records())) == 3
    assert reading.bytes_read == reading.total_bytes > 0
    assert reading.files == tuple(readers.file_entries(reading.source))
    assert reading.files[0].name == "tiny_text/1.0.0[train]"
    (test,) = readers.file_entries(sources.parse_source(f"{tiny_text}[test]"))
    assert test.sha256 != reading.files[0].sha256


def test_a_feature_that_is_no_text_is_named(tiny_text):
    with pytest.raises(
        errors.InputError, match=r"record 0 has no text 'n', only \['n'"
    ):
        read(f"{tiny_text}#n")
    with pytest.raises(errors.InputError, match="record 0 has no text 'body'"):
        read(f"{tiny_text}#body")


def test_an_unknown_dataset_or_split_is_an_input_error(tiny_text):
    with pytest.raises(errors.InputError, match="tfds:no_such_set .*TFDS"):
        read("tfds:no_such_set")
    with pytest.raises(errors.InputError, match=r"tiny_text\[dev\] .*dev"):
        read(f"{tiny_text}[dev]")


def test_a_module_that_a_dataset_needs_is_named(tiny_text, monkeypatch):
    import tensorflow_datasets as tfds

    def builder(name):
        raise ModuleNotFoundError("No module named 'beam'", name="beam")

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(errors.InputError, match="needs beam.*pip install beam"):
        read(tiny_text)


@pytest.mark.parametrize("module", ["tensorflow", "tensorflow_datasets"])
def test_without_tensorflow_the_extra_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(errors.InputError, match=r'not installed.*"bert_jax\[data\]"'):
        read("tfds:tiny_text")
