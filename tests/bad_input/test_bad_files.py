"""Every bad file of the tables: one message with its place, and nothing left behind."""

import bad_files
import cases_checkpoints
import cases_stores
import cases_structures
import cases_tables
import cases_text
import cases_vocabularies
import cases_weights
import good_place
import pytest

CASES = [
    *cases_text.CASES,
    *cases_tables.CASES,
    *cases_structures.CASES,
    *cases_stores.CASES,
    *cases_vocabularies.CASES,
    *cases_weights.CASES,
    *cases_checkpoints.CASES,
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Good files of every format; whatever the cases do, they stay as they are."""
    place = good_place.make(tmp_path_factory.mktemp("good"))
    before = bad_files.contents(place)
    yield place
    assert bad_files.contents(place) == before


@pytest.mark.parametrize("one", CASES, ids=str)
def test_a_bad_file(one, good, tmp_path, shell, record_property):
    record_property("kind", one.kind)
    record_property("name", one.name)
    said = bad_files.check(one, good, tmp_path, shell)
    record_property("said", said)
