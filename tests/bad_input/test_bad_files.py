"""Every bad file of the tables: one message with its location, and no new files."""

import collections

import bad_files
import cases_checkpoints
import cases_config
import cases_google
import cases_spans
import cases_stores
import cases_structures
import cases_tables
import cases_text
import cases_vocabularies
import cases_weights
import command_line
import pytest

CASES = [
    *cases_text.CASES,
    *cases_tables.CASES,
    *cases_structures.CASES,
    *cases_stores.CASES,
    *cases_vocabularies.CASES,
    *cases_weights.CASES,
    *cases_spans.CASES,
    *cases_google.CASES,
    *cases_checkpoints.CASES,
    *cases_config.CASES,
]


# The default run takes the first and every third case of a kind; the report all.
_EVERY = 3


def _sampled(cases):
    """Marks what is not in the sample as slow."""
    seen = collections.Counter()
    for one in cases:
        number, seen[one.kind] = seen[one.kind], seen[one.kind] + 1
        marks = [pytest.mark.slow] if number % _EVERY else []
        yield pytest.param(one, marks=marks, id=str(one))


@pytest.mark.parametrize("one", list(_sampled(CASES)))
def test_a_bad_file(one, good, tmp_path, shell, record_property):
    record_property("kind", one.kind)
    record_property("name", one.name)
    message = bad_files.check(one, good, tmp_path, shell)
    record_property("message", message)


REAL = [
    pytest.param(one, marks=[] if number == 1 else [pytest.mark.slow], id=str(one))
    for number, one in enumerate(CASES[7::97])
]


@pytest.mark.parametrize("one", REAL)
def test_some_in_a_new_process(one, good, tmp_path):
    bad_files.check(one, good, tmp_path, command_line.for_real)


def test_names_are_unique():
    names = collections.Counter((one.kind, one.name, one.command) for one in CASES)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(CASES) >= 200
