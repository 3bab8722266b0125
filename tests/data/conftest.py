"""The fixture that the tests of rows share."""

import pytest

from bert_jax.data import shards, store


@pytest.fixture
def write_store(tmp_path):
    """Writes documents into a store and opens it."""

    def written(documents, **options):
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        shards.write_ids(folder, documents, vocab_size=60_000, **options)
        return store.open_store(folder)

    return written
