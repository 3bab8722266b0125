import json

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.training import distributed, logs


def batch_at(step):
    rng = np.random.default_rng(step)
    ids = rng.integers(0, 50, (4, 6), dtype=np.int32)
    return {"input_ids": ids, "segment_ids": np.ones_like(ids)}


def run(workdir, start_step, end_step, is_on=True):
    with logs.ExampleLog(workdir, start_step=start_step, is_on=is_on) as examples:
        place = examples.with_checksums(lambda batch: len(batch["input_ids"]))
        placed = map(place, map(batch_at, range(start_step, end_step)))
        names = lambda step: [f"0/{4 * step + row}" for row in range(4)]  # noqa: E731
        return list(examples.written(placed, start_step, names))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_step_has_one_line_with_names_and_checksums(tmp_path):
    assert run(tmp_path, 0, 3) == [4, 4, 4]
    found = lines(tmp_path / "examples-0.jsonl")
    assert [line["step"] for line in found] == [1, 2, 3]
    assert found[2]["examples"] == ["0/8", "0/9", "0/10", "0/11"]
    assert len(set(found[0]["crc32"] + found[1]["crc32"])) == 8


def test_a_resumed_run_writes_what_the_uninterrupted_one_did(tmp_path):
    (tmp_path / "whole").mkdir()
    run(tmp_path / "whole", 0, 6)
    run(tmp_path, 0, 5)
    with (tmp_path / "examples-0.jsonl").open("a") as file:
        file.write('{"step": 6, "exam')  # killed while it wrote
    run(tmp_path, 3, 6)
    name = "examples-0.jsonl"
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_steps_that_are_lost_are_told(tmp_path, caplog):
    run(tmp_path, 0, 4)
    run(tmp_path, 4, 5)
    assert not caplog.records
    kept = (tmp_path / "examples-0.jsonl").read_text().splitlines(keepends=True)[:3]
    (tmp_path / "examples-0.jsonl").write_text("".join(kept))
    run(tmp_path, 5, 6)
    assert "step 3" in caplog.text and "step 5" in caplog.text


def test_files_of_processes_that_are_gone_are_cut_too(tmp_path):
    run(tmp_path, 0, 4)
    other = tmp_path / "examples-1.jsonl"
    other.write_bytes((tmp_path / "examples-0.jsonl").read_bytes())
    run(tmp_path, 2, 4)
    assert [line["step"] for line in lines(other)] == [1, 2]


def test_other_content_has_another_checksum():
    batch = batch_at(0)
    before = logs.checksums(batch)
    batch["segment_ids"][2, 5] = 0
    after = logs.checksums(batch)
    assert [a == b for a, b in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        True,
    ]


def test_off_writes_nothing(tmp_path):
    assert run(tmp_path, 0, 2, is_on=False) == [4, 4]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / f"examples-{distributed.index()}.jsonl").mkdir()
    with pytest.raises(errors.StorageError, match="cannot write into"):
        run(tmp_path, 0, 1)
