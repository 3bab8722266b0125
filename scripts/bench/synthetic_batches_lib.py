"""Synthetic batches for measurements: full, partly padding, or packed. Only numpy."""

import numpy as np

from bert_jax.data.pretraining import packing, permutation
from bert_jax.model import config

Batch = dict[str, np.ndarray]
SPECIAL_IDS = (0, 100, 101, 102, 103)  # of the published English vocabulary
CLS, SEP, MASK = 101, 102, 103
_FIRST_WORD = 1000  # ids from here on are words
_SHORTEST = 8  # tokens of a sequence
_SEQUENCES = 8192  # that rows are packed from


def rows(
    bert: config.BertConfig, count: int, length: int, *, fill: float, packed: bool
) -> Batch:
    """Returns a batch of pretraining, one or several sequences a row.

    Args:
      count: B, rows of the batch.
      length: L, tokens of a row.
      fill: the mean length of sequences as a share of L; 1 = all are whole rows.
      packed: whether the sequences share rows.
    """
    rng = np.random.default_rng(0)
    lengths = sequence_lengths(rng, length, fill)
    if not packed:
        where = [[(0, int(size))] for size in lengths[:count]]
        return _batch(bert, rng, where, length)
    histogram = np.bincount(lengths, minlength=length + 1)
    packed = packing.Packing(histogram, length, length // _SHORTEST)
    numbers = permutation.permute(
        np.arange(count), packed.num_rows, permutation.fold_in(np.uint64(0), 1)
    )
    found = packed.sequences(numbers, np.zeros(count, np.int64), np.uint64(0))
    sizes = np.sort(lengths)[found.index]
    where = [[] for _ in range(count)]
    for row, column, size in zip(found.row, found.column, sizes, strict=True):
        where[row].append((int(column), int(size)))
    return _batch(bert, rng, where, length)


def sequence_lengths(rng: np.random.Generator, length: int, fill: float) -> np.ndarray:
    """Samples lengths around `fill * length`, uniform between the shortest and L."""
    if fill >= 1:
        return np.full(_SEQUENCES, length)
    mean = fill * length
    reach = min(mean - _SHORTEST, length - mean)
    return rng.integers(round(mean - reach), round(mean + reach) + 1, _SEQUENCES)


def _batch(
    bert: config.BertConfig,
    rng: np.random.Generator,
    where: list[list[tuple[int, int]]],
    length: int,
) -> Batch:
    """Lays [CLS] A [SEP] B [SEP] at (column, tokens) of each row."""
    shape, most = (len(where), length), max(map(len, where))
    batch = {
        name: np.zeros(shape, np.int32)
        for name in ("input_ids", "token_type_ids", "segment_ids", "position_ids")
    }
    of_segments = np.zeros((3, len(where), most), np.int32)
    for row, sequences in enumerate(where):
        for number, (column, size) in enumerate(sequences):
            columns, half = slice(column, column + size), size // 2
            ids = rng.integers(_FIRST_WORD, bert.vocab_size, size, dtype=np.int32)
            ids[0], ids[half], ids[-1] = CLS, SEP, SEP
            batch["input_ids"][row, columns] = ids
            batch["token_type_ids"][row, columns] = np.arange(size) > half
            batch["segment_ids"][row, columns] = number + 1
            batch["position_ids"][row, columns] = np.arange(size)
            of_segments[:, row, number] = column, rng.integers(2), 1
    return {
        **batch,
        "word_start": batch["input_ids"] >= _FIRST_WORD,
        "cls_positions": of_segments[0],
        "next_sentence_labels": of_segments[1],
        "next_sentence_weights": of_segments[2].astype(np.float32),
    }


def effective_length(batch: Batch) -> float:
    """Returns sum(l^2) / sum(l) over the sequences of a batch."""
    ids = batch["segment_ids"]
    sizes = np.concatenate([np.bincount(row)[1:] for row in ids])
    return float((sizes**2).sum() / sizes.sum())
