"""What bench_train measures: rows that are what they say, the same loss in torch."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bert_jax import errors
from bert_jax.model import config

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "bench"
sys.path.insert(0, str(SCRIPTS))
import contenders_lib  # noqa: E402
import synthetic_batches_lib  # noqa: E402
import train as bench_train  # noqa: E402

sys.path.remove(str(SCRIPTS))
BERT = config.published("tiny")


@pytest.mark.parametrize("fill", [0.3, 0.5, 1.0])
def test_padded_rows_hold_one_sequence_of_the_mean_length(fill):
    batch = synthetic_batches_lib.rows(BERT, 400, 64, fill=fill, packed=False)
    lengths = (batch["segment_ids"] > 0).sum(axis=1)
    assert batch["segment_ids"].max() == 1
    assert lengths.mean() / 64 == pytest.approx(fill, rel=0.06)
    assert lengths.min() >= 8 and (np.diff(batch["segment_ids"]) <= 0).all()
    assert synthetic_batches_lib.effective_length(batch) == pytest.approx(
        (lengths**2).sum() / lengths.sum()
    )


def test_packed_rows_hold_several_sequences_whole():
    batch = synthetic_batches_lib.rows(BERT, 50, 128, fill=0.5, packed=True)
    ids, segments = batch["input_ids"], batch["segment_ids"]
    assert (segments > 0).mean() > 0.95 and segments.max() > 1
    weights = batch["next_sentence_weights"]
    assert weights.sum() == sum(len(np.unique(row[row > 0])) for row in segments)
    for row, number in zip(*np.nonzero(weights), strict=True):
        inside = segments[row] == number + 1
        first = int(batch["cls_positions"][row, number])
        assert ids[row, first] == synthetic_batches_lib.CLS and inside[first]
        positions = batch["position_ids"][row, inside]
        assert positions.tolist() == list(range(inside.sum()))
        assert (ids[row, inside] == synthetic_batches_lib.SEP).sum() == 2


def test_sides_are_read():
    made = contenders_lib.side("ours+packed+bfloat16+dropout=0+remat=full+unroll=1")
    assert made == contenders_lib.Side(
        "ours", "bfloat16", packed=True, dropout=0.0, remat="full", unroll=1
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("theirs", "a side is ours or eager"),
        ("ours+fast", "'fast'"),
        ("sdpa+packed", r"sdpa\+packed: torch"),
    ],
)
def test_sides_that_are_none_are_refused(text, said):
    with pytest.raises(errors.InputError, match=said):
        contenders_lib.side(text)


def test_each_side_is_shown_at_its_best_batch():
    def seen(rows, side, seconds, tokens):
        ready = contenders_lib.Ready(lambda: None, tokens, 8.0, 1.0, None)
        case = bench_train.Case("tiny", rows, 8)
        return bench_train.Measured(case, side, (seconds,), ready, 1.0)

    none = bench_train.Measured(bench_train.Case("tiny", 64, 8), "sdpa", (), None, 1.0)
    found = [
        seen(8, "ours", 1.0, 100),
        seen(16, "ours", 1.0, 300),
        seen(8, "sdpa", 1.0, 150),
        seen(16, "sdpa", 2.0, 200),
        none,
    ]
    ours, sdpa = bench_train.best(found)
    assert (ours.case.rows, ours.ratio) == (16, 1.0)
    assert (sdpa.case.rows, sdpa.ratio) == (8, 2.0)
    assert "does not fit" in " ".join(none.row())


def test_torch_computes_the_same_loss():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    ours, theirs = contenders_lib.losses(BERT, 32)
    assert ours == pytest.approx(theirs, rel=1e-5)
