import json
import math

import pytest
from tensorboardX import proto

from bert_jax import errors
from bert_jax.training import logs


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text().splitlines()


def test_one_object_a_line_with_step_first(tmp_path):
    with logs.Writer(tmp_path, start_step=0) as out:
        out.write(3, {"train/loss": 2.5, "train/mlm_accuracy": 0.25})
        out.write(3, {"eval/mlm_loss": 2.0})
        assert lines(tmp_path) == [  # on disk at once
            '{"step": 3, "train/loss": 2.5, "train/mlm_accuracy": 0.25}',
            '{"step": 3, "eval/mlm_loss": 2.0}',
        ]


def test_values_that_are_not_finite_become_null(tmp_path):
    with logs.Writer(tmp_path, start_step=0) as out:
        out.write(1, {"eval/perplexity": math.inf, "eval/mlm_loss": math.nan})
    assert json.loads(lines(tmp_path)[0]) == {
        "step": 1,
        "eval/perplexity": None,
        "eval/mlm_loss": None,
    }


def test_a_file_that_is_gone_is_told(tmp_path, caplog):
    logs.Writer(tmp_path, start_step=0).close()
    assert not caplog.records
    (tmp_path / "metrics.jsonl").unlink()
    logs.Writer(tmp_path, start_step=3).close()
    assert "metrics.jsonl is missing" in caplog.text


def write_five(workdir):
    with logs.Writer(workdir, start_step=0) as out:
        for step in range(1, 6):
            out.write(step, {"train/loss": float(step)})


def test_a_resumed_run_drops_later_lines(tmp_path):
    write_five(tmp_path)
    kept = lines(tmp_path)[:3]
    with logs.Writer(tmp_path, start_step=3) as out:
        assert lines(tmp_path) == kept
        out.write(4, {"train/loss": 40.0})
    assert lines(tmp_path) == [*kept, '{"step": 4, "train/loss": 40.0}']


def test_a_fresh_run_drops_all_lines(tmp_path):
    write_five(tmp_path)
    logs.Writer(tmp_path, start_step=0).close()
    assert lines(tmp_path) == []


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    write_five(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    logs.Writer(tmp_path, start_step=5).close()
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("bad", [b"{not json}\n", b"[1]\n", b'{"loss": 1}\n'])
def test_another_bad_line_is_named(tmp_path, bad):
    write_five(tmp_path)
    path = tmp_path / "metrics.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([content[0], bad, *content[2:]]))
    with pytest.raises(errors.InputError, match=r"metrics.jsonl:2 is not"):
        logs.Writer(tmp_path, start_step=5)


def test_tensorboard_gets_the_same_values(tmp_path):
    write_five(tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, position, found = path.read_bytes(), 0, []
    while position < len(content):  # records: length 8, crc 4, event, crc 4
        length = int.from_bytes(content[position : position + 8], "little")
        event = proto.event_pb2.Event.FromString(
            content[position + 12 : position + 12 + length]
        )
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        position += length + 16
    assert found == [(step, "train/loss", float(step)) for step in range(1, 6)]


def test_curves_are_drawn_at_the_end_and_whole(tmp_path):
    write_five(tmp_path)
    picture = (tmp_path / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and picture.endswith(b"IEND\xaeB`\x82")
    assert not list(tmp_path.glob("*.tmp"))


@pytest.fixture
def pictures(monkeypatch):
    """Returns a list that grows by the number of lines of each picture drawn."""
    drawn = []

    def png(lines):
        drawn.append(len(lines))
        return b"a picture"

    monkeypatch.setattr(logs.curves, "png", png)
    return drawn


@pytest.mark.parametrize(("seconds", "expected"), [(1e9, [1, 4]), (0, [1, 2, 3, 4])])
def test_curves_are_drawn_now_and_then_and_at_the_end(
    tmp_path, monkeypatch, pictures, seconds, expected
):
    monkeypatch.setattr(logs, "DRAW_SECONDS", seconds)
    with logs.Writer(tmp_path, start_step=0) as out:
        for step in (1, 2, 3):
            out.write(step, {"eval/loss": 1.0})
            out.draw()
        out.write(4, {"train/loss": 1.0})
    assert pictures == expected


def test_what_is_drawn_already_is_not_drawn_at_the_end(tmp_path, pictures):
    with logs.Writer(tmp_path, start_step=0) as out:
        out.write(1, {"eval/loss": 1.0})
        out.draw()
    assert pictures == [1]
    with logs.Writer(tmp_path, start_step=1):  # killed before it had drawn, perhaps
        pass
    assert pictures == [1, 1]


def test_a_run_without_a_line_has_no_curves(tmp_path):
    logs.Writer(tmp_path, start_step=0).close()
    assert not (tmp_path / "curves.png").exists()


def test_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(errors.StorageError, match="cannot write into"):
        logs.Writer(tmp_path / "absent", start_step=0)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with logs.Writer(tmp_path, start_step=0) as out:
        out.write(1, {"train/loss": 1.0})
        out.draw()
    assert list(tmp_path.iterdir()) == []
