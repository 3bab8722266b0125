"""Sequences as spans of a store, laid out as the arrays of a batch."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int32, Int64

from bert_jax.data.pretraining import numbering as numberings
from bert_jax.data.pretraining import pairs

Batch = dict[str, np.ndarray]


class Places(NamedTuple):
    """Where each sequence stands in a batch.

    Attributes:
      row: of the batch.
      column: where it begins there, with [CLS].
      segment: its number in the row, from 0.
    """

    row: Int64[np.ndarray, " n"]
    column: Int64[np.ndarray, " n"]
    segment: Int64[np.ndarray, " n"]


class Shape(NamedTuple):
    """B rows, L places in a row, at most S sequences in one."""

    rows: int
    length: int
    segments: int


def batch(
    numbering: numberings.Numbering,
    sequences: pairs.Rows,
    places: Places,
    shape: Shape,
    *,
    cls_id: int,
    sep_id: int,
) -> Batch:
    """Returns the arrays of DESIGN.md's table, of shape [B, L] or [B, S].

    Positions begin anew with every sequence, and token types too. What no sequence
    takes is zero, and a sequence that is not there weighs nothing.
    """
    of_segments = {
        "cls_positions": _table(places.column, np.int32, places, shape),
        "next_sentence_labels": _table(sequences.labels, np.int32, places, shape),
        "next_sentence_weights": _table(sequences.weights, np.float32, places, shape),
    }
    number = _numbers(places, shape)

    def spread(table: np.ndarray) -> np.ndarray:
        """Gives every place the value of its sequence."""
        return table if shape.segments == 1 else table.ravel()[number + first]

    first = np.arange(shape.rows, dtype=np.int32)[:, None] * shape.segments
    columns = np.arange(shape.length, dtype=np.int32)
    positions = columns - spread(of_segments["cls_positions"])
    inside = positions < spread(_table(sequences.lengths, np.int32, places, shape))
    second = spread(_table(sequences.second, np.int32, places, shape))
    input_ids, word_start = _copy(
        numbering, sequences, places, shape, cls_id=cls_id, sep_id=sep_id
    )
    return {
        "input_ids": input_ids,
        "token_type_ids": ((positions >= second) & inside).astype(np.int32),
        "segment_ids": (number + 1) * inside,
        "position_ids": positions * inside,
        "word_start": word_start,
        **of_segments,
    }


def _table(
    values: np.ndarray, dtype: npt.DTypeLike, places: Places, shape: Shape
) -> np.ndarray:
    """Returns values of sequences as [B, S]; zero where there is none."""
    made = np.zeros((shape.rows, shape.segments), dtype)
    made[places.row, places.segment] = values
    return made


def _numbers(places: Places, shape: Shape) -> Int32[np.ndarray, "B L_or_1"]:
    """Returns, for every place, the number in its row of the last sequence begun."""
    if shape.segments == 1:
        return np.zeros((shape.rows, 1), np.int32)
    begun = np.zeros((shape.rows, shape.length), np.int32)
    begun[places.row, places.column] = 1
    return np.maximum(np.cumsum(begun, axis=1, dtype=np.int32) - 1, 0)


def _copy(
    numbering: numberings.Numbering,
    sequences: pairs.Rows,
    places: Places,
    shape: Shape,
    *,
    cls_id: int,
    sep_id: int,
) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
    """Copies the spans out of the store and puts the special tokens around them."""
    input_ids = np.zeros((shape.rows, shape.length), np.int32)
    word_start = np.zeros((shape.rows, shape.length), bool)
    begin = places.row * shape.length + places.column
    order = np.argsort(sequences.start)
    starts, lengths = sequences.start[order], sequences.length[order]
    targets = (begin[sequences.row] + sequences.column)[order]
    cells = numberings.ranges(targets, lengths)
    input_ids.ravel()[cells], word_start.ravel()[cells] = numbering.read(
        starts, lengths
    )
    input_ids.ravel()[begin] = cls_id
    input_ids.ravel()[targets + lengths] = sep_id
    return input_ids, word_start
