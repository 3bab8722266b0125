"""The tokenizer of the tests of stores that many machines build."""

import pytest
import small_corpus


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of single characters, whose vocabulary is in the folder `v`."""
    return small_corpus.small_tokenizer(tmp_path / "v")
