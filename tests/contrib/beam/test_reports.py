"""Reports of workers: the same whatever their order and grouping."""

import itertools
import json

import pytest

from bert_jax import errors
from bert_jax.contrib.beam import reports
from bert_jax.data import text_files
from bert_jax.data.corpus import manifest

FILES = [text_files.FileEntry(f"{name}.txt", 7, "ab") for name in "xyz"]
PARTS = [
    reports.PartRead(f"00000-0000000{i}", 2 + i, 30 + i, f) for i, f in enumerate(FILES)
]
REPORTS = [
    reports.BuildReport(parts=(PARTS[2],)),
    reports.BuildReport(parts=(PARTS[0],), dropped=manifest.Dropped(3, 0, 5)),
    reports.BuildReport(dropped=manifest.Dropped(1, 1, 0, 2, 9)),
    reports.BuildReport(parts=(PARTS[1],)),
]


def test_parts_are_sorted_and_counts_added_in_any_order():
    for order in itertools.permutations(REPORTS):
        merged = reports.merge(order)
        assert merged.parts == tuple(PARTS)
        assert merged.dropped == manifest.Dropped(4, 1, 5, 2, 9)
        assert reports.merge([reports.merge(order[:3]), order[3]]) == merged
    assert reports.merge([]) == reports.BuildReport()


def test_the_failure_that_comes_first_in_the_corpus_is_raised():
    bad = [
        reports.failure("00001-00000000-00000002", errors.InputError("late")),
        reports.failure("00001-00000000-00000001", errors.StorageError("early")),
    ]
    merged = reports.merge([*REPORTS, *(reports.BuildReport(failure=f) for f in bad)])
    with pytest.raises(errors.StorageError, match="early"):
        reports.raise_failure(merged)
    reports.raise_failure(reports.merge(REPORTS))


def test_a_report_survives_json():
    failed = reports.failure("a", errors.InputError("ü"))
    for report in (reports.merge(REPORTS), reports.BuildReport(failure=failed)):
        text = json.dumps(reports.to_json(report))
        assert reports.from_json(json.loads(text)) == report
