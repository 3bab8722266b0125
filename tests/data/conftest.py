"""The fixtures that the tests of rows and of stores share."""

import pytest
import small_corpus

from bert_jax.data.corpus import store


@pytest.fixture
def write_store(tmp_path):
    """Writes documents into a store and opens it."""

    def written(documents, **options):
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        store.write_ids(folder, documents, vocab_size=60_000, **options)
        return store.open_store(folder)

    return written


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of single characters, whose vocabulary is in the folder `v`."""
    return small_corpus.small_tokenizer(tmp_path / "v")
