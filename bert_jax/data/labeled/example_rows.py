"""The rows of a labeled dataset, and the batch of each step.

`batch_at(step)` is pure: the rows of an epoch are permuted by (seed, epoch) inside
their length buckets, or inside strata if they are packed. The shapes of batches do not
depend on the seed or on the fold that is left out, so runs of several seeds and folds
can share one compiled program.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from bert_jax.data import packing
from bert_jax.text.coverage import Coverage

Batch = dict[str, np.ndarray]
WEIGHTS = "weights"  # [B] float32: 1 for rows, 0 for padding


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleTable:
    """The rows of a task's examples.

    Attributes:
      tokens: name -> one array per row, whose last axis is the tokens of that row, to
        be padded with zeros. `segment_ids` (1 on every token) is among them.
      fixed: name -> an array [n, ...] with one entry per row.
      examples: [n], the number of each row's example.
      groups: a number per example; folds do not separate equal ones, as all questions
        of a context. None if all examples are independent.
      notes: counts of changes that the user should know of, by description.
      coverage: how many tokens of the texts are [UNK], and how many texts are
        truncated.
    """

    tokens: dict[str, list[np.ndarray]]
    fixed: dict[str, np.ndarray]
    examples: Int[np.ndarray, " n"]
    notes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    groups: Int[np.ndarray, " m"] | None = None
    coverage: Coverage = dataclasses.field(default_factory=Coverage)

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """The length of each row in tokens."""
        ids = self.tokens["segment_ids"]
        return np.array([row.shape[-1] for row in ids], np.int64)

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: Int[np.ndarray, " b"], size: int, length: int) -> Batch:
        """Returns these rows as a batch of `size` rows of `length` tokens.

        A row of -1, and those after the last, are empty.
        """
        filled = np.flatnonzero(rows >= 0)
        batch = {
            name: _pad(column, rows, filled, (size, length))
            for name, column in self.tokens.items()
        }
        for name, column in self.fixed.items():
            batch[name] = np.zeros((size, *column.shape[1:]), column.dtype)
            batch[name][filled] = column[rows[filled]]
        batch[WEIGHTS] = np.zeros(size, np.float32)
        batch[WEIGHTS][filled] = 1.0
        return batch


def _pad(
    column: Sequence[np.ndarray],
    rows: Int[np.ndarray, " b"],
    filled: Int[np.ndarray, " p"],
    shape: tuple[int, int],
) -> np.ndarray:
    first, (size, length) = column[0], shape
    padded = np.zeros((size, *first.shape[:-1], length), first.dtype)
    for at in filled.tolist():
        row = column[int(rows[at])]
        padded[at, ..., : row.shape[-1]] = row
    return padded


LENGTH_STEP = 8  # lengths are multiples of this, except the longest


def bucket(length: int, longest: int, least_step: int = LENGTH_STEP) -> int:
    """Returns the row length that `length` is padded to: four per doubling.

    Below 4 * `least_step` they are its multiples.

    >>> [bucket(length, 512) for length in (3, 9, 33, 70, 129, 500)]
    [8, 16, 40, 80, 160, 512]
    """
    length = max(1, length)  # an empty text may have no tokens
    step = max(least_step, 1 << max(0, (length - 1).bit_length() - 3))
    return min(longest, -(-length // step) * step)


def choose_lengths(
    lengths: Int[np.ndarray, " n"], count: int, longest: int
) -> tuple[int, ...]:
    """Returns at most `count` row lengths that need the least padding.

    Exact, by dynamic programming over the multiples of eight; the last one fits the
    longest row.

    >>> choose_lengths(np.array([5, 6, 7, 7, 30, 31, 60]), 2, 512)
    (8, 64)
    >>> choose_lengths(np.array([5, 6, 7, 7, 30, 31, 60]), 3, 512)
    (8, 32, 64)
    """
    if not len(lengths):
        return (min(LENGTH_STEP, longest),)
    rounded = -(-np.maximum(lengths, 1) // LENGTH_STEP)
    sizes, rows = np.unique(rounded, return_counts=True)
    below = np.concatenate([[0], np.cumsum(rows)])  # rows shorter than sizes[i]
    # cost[i]: tokens of the rows in the first i sizes, cut as well as can be.
    cost = np.concatenate([[0.0], sizes * below[1:].astype(float)])
    cuts = [np.zeros(len(sizes) + 1, int)]
    for _ in range(min(count, len(sizes)) - 1):
        rows_between = below[1:, None] - below[None, :-1]
        options = cost[None, :-1] + sizes[:, None] * rows_between
        options = np.where(np.tri(len(sizes), dtype=bool), options, np.inf)
        best = np.argmin(options, axis=1)
        cuts.append(np.concatenate([[0], best]))
        cost = np.concatenate([[0.0], options[np.arange(len(sizes)), best]])
    end, chosen = len(sizes), []
    for cut in reversed(cuts):
        if end == 0:
            break
        chosen.append(min(longest, int(sizes[end - 1]) * LENGTH_STEP))
        end = int(cut[end])
    return tuple(sorted(set(chosen)))


PACKED = "packed"  # [R, S] int32: the number of the token from 1; 0 = none
_STEP = 8


@dataclasses.dataclass(frozen=True, eq=False)
class SharedRows:
    """Rows that the texts of a batch share, in one layout for all batches.

    The rows of a dataset, sorted by length, are split into as many strata as a batch
    has rows, and a batch takes one of each. The longest row of a stratum decides how
    much room it gets, so one layout fits every batch of every epoch: one shape and one
    program, whatever the seed, the fold and the mesh. K is the number of texts of an
    example.

    Attributes:
      rows: R, the number of rows; some of the last may be empty.
      length: S, the tokens of a row.
      row, column: [B, K], where each text of each row of the batch begins.
      fill: packing efficiency, the fraction of positions reserved for texts.
    """

    rows: int
    length: int
    row: Int[np.ndarray, "B K"]
    column: Int[np.ndarray, "B K"]
    fill: float

    def packed(self, segment_ids: Int[np.ndarray, "B *K L"]) -> Int[np.ndarray, "R S"]:
        """Returns 1 + the index in `segment_ids.ravel()` of each token; 0 for none."""
        width = segment_ids.shape[-1]
        lengths = np.count_nonzero(segment_ids, axis=-1).reshape(self.row.shape)
        packed = np.zeros((self.rows, self.length), np.int32)
        for text, (at, count) in enumerate(np.ndenumerate(lengths)):
            first = self.column[at]
            tokens = 1 + text * width + np.arange(count)
            packed[self.row[at], first : first + count] = tokens
        return packed


def strata(
    lengths: Int[np.ndarray, " n"], kept: Int[np.ndarray, " k"], parts: int
) -> list[Int[np.ndarray, " s"]]:
    """Splits the kept rows, longest first, into one part per row of a batch.

    >>> [x.tolist() for x in strata(np.array([5, 9, 2, 7, 3]), np.arange(5), 2)]
    [[1, 3, 0], [4, 2]]
    """
    longest_first = kept[np.argsort(-lengths[kept], kind="stable")]
    return np.array_split(longest_first, parts)


def share_rows(room: Int[np.ndarray, " B"], texts: int, multiple: int) -> SharedRows:
    """Finds shared rows for texts of these lengths, `texts` of each.

    Of row lengths from the longest text to twice that, the one that wastes least.

    Args:
      multiple: the number of rows is a multiple of this, so that a mesh can shard them;
        empty rows are added.
    """
    sizes = np.repeat(room, texts)
    longest = max(1, int(sizes.max()))
    first = -(-longest // _STEP) * _STEP
    packed = {
        length: packing.best_fit(
            np.bincount(sizes[sizes > 0], minlength=length + 1), length, sizes.size
        )
        for length in range(first, 2 * first + 1, _STEP)
    }
    length = min(packed, key=lambda n: (n * sum(packed[n].values()), n))
    rows = -(-sum(packed[length].values()) // multiple) * multiple
    row, column = _rows_and_columns(sizes, packed[length])
    return SharedRows(
        rows=rows,
        length=length,
        row=row.reshape(-1, texts),
        column=column.reshape(-1, texts),
        fill=float(sizes.sum()) / (rows * length),
    )


def _rows_and_columns(
    sizes: Int[np.ndarray, " t"], packed: packing.Counts
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """Returns the row and column of texts of these sizes."""
    row, column = np.zeros_like(sizes), np.zeros_like(sizes)
    waiting = {size: list(np.flatnonzero(sizes == size)) for size in np.unique(sizes)}
    every = [kind for kind, times in packed.items() for _ in range(times)]
    for number, kind in enumerate(every):
        begin = 0
        for size in kind:
            text = waiting[size].pop()
            row[text], column[text] = number, begin
            begin += size
    return row, column


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingRows:
    """The batches of a training run over a table.

    Attributes:
      table: all rows, including those of the fold that is left out.
      batch_size: rows of a global batch.
      seed: the seed of the order.
      num_lengths: number of different row lengths of batches; 1 pads all to the
        longest.
      folds: number of folds; 0 for none.
      fold: the fold that is left out.
      pack: whether the encoder sees several texts in a row (`SharedRows`).
      multiple: the number of packed rows is a multiple of this.
    """

    table: ExampleTable
    batch_size: int
    seed: int
    num_lengths: int
    folds: int = 0
    fold: int = 0
    pack: bool = False
    multiple: int = 1
    _epochs: dict[int, Any] = dataclasses.field(default_factory=dict, init=False)

    @functools.cached_property
    def row_lengths(self) -> tuple[int, ...]:
        """The row lengths of batches."""
        count = 1 if self.pack else self.num_lengths
        return choose_lengths(self.table.lengths, count, 1 << 30)

    @functools.cached_property
    def folds_of_rows(self) -> Int[np.ndarray, " n"]:
        """The fold of each row; all rows of a group are in the same one.

        Groups are assigned in the order of their length, so folds are similar.
        """
        table = self.table
        groups = np.arange(int(table.examples.max()) + 1)
        if table.groups is not None:
            groups = np.unique(table.groups, return_inverse=True)[1]
        of_rows, count = groups[table.examples], int(groups.max()) + 1
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, of_rows, self._bucket_of_rows)
        order = np.argsort(first, kind="stable")
        part = np.empty(count, np.int64)
        part[order] = np.arange(count) % max(self.folds, 1)
        return part[of_rows]

    @property
    def is_held_out(self) -> Bool[np.ndarray, " n"]:
        """Whether each row is in the fold that is left out."""
        if not self.folds:
            return np.zeros(len(self.table), bool)
        return self.folds_of_rows == self.fold

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """The number of batches that show every row once."""
        return -(-self._most_rows // self.batch_size)

    @functools.cached_property
    def num_rows(self) -> int:
        """The rows of an epoch."""
        return int((~self.is_held_out).sum())

    @functools.cached_property
    def _bucket_of_rows(self) -> Int[np.ndarray, " n"]:
        return np.searchsorted(np.array(self.row_lengths), self.table.lengths)

    @functools.cached_property
    def _counts(self) -> Int[np.ndarray, "f b"]:
        """The number of training rows of each length, by the fold that is left out."""
        size = len(self.row_lengths)
        whole = np.bincount(self._bucket_of_rows, minlength=size)
        if not self.folds:
            return whole[None]
        out = [
            np.bincount(self._bucket_of_rows[self.folds_of_rows == f], minlength=size)
            for f in range(self.folds)
        ]
        return whole[None] - np.stack(out)

    @functools.cached_property
    def _most_rows(self) -> int:
        return int(self._counts.sum(axis=1).max())

    @functools.cached_property
    def _plan(self) -> tuple[int, ...]:
        """The length of each batch of an epoch, shortest first.

        It is planned with the fewest rows of each length that any fold leaves, so that
        every fold can fill it. Rows that do not fill a batch move to the next longer
        one; the last batch may be padded.
        """
        least = self._counts.min(axis=0)
        plan, carried = [], 0
        for length, count in zip(self.row_lengths, least, strict=True):
            full, carried = divmod(carried + int(count), self.batch_size)
            plan += [length] * full
        return (*plan, *[self.row_lengths[-1]] * (self.steps_per_epoch - len(plan)))

    def batch_at(self, step: int, local: slice = slice(None)) -> Batch:
        """Returns the batch of a step, counted from 0, or the rows `local` of it.

        Keys are those of the table, `weights` [B] and, with `pack`, `packed` [R, S],
        of which `local` selects the same fraction.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        batches, order = self._epoch(epoch)
        rows = batches[order[position]]
        batch = self.table.batch(rows, self.batch_size, self._plan[order[position]])
        local_batch = {name: array[local] for name, array in batch.items()}
        if self.pack:
            packed = self._layout.packed(batch["segment_ids"])
            first, last, _ = local.indices(self.batch_size)
            bounds = (x * len(packed) // self.batch_size for x in (first, last))
            local_batch[PACKED] = packed[slice(*bounds)]
        return local_batch

    def steps_by_length(self, start_step: int, num_train_steps: int) -> dict[int, int]:
        """Returns the lengths of the remaining batches, each with one of its steps.

        The longest comes first. After `start_step` steps done, a run of
        `num_train_steps` has batches of no other length.
        """
        last = min(num_train_steps, start_step + 2 * self.steps_per_epoch)
        found: dict[int, int] = {}
        for step in range(start_step, last):
            epoch, position = divmod(step, self.steps_per_epoch)
            length = self._plan[self._epoch(epoch)[1][position]]
            found.setdefault(length, step)
        return dict(sorted(found.items(), reverse=True))

    def names_at(self, step: int, local: slice = slice(None)) -> list[str]:
        """Returns the names of the rows of that batch: "EPOCH/EXAMPLE".

        Examples are numbered from 0 in the order of the file; an empty row is "-".
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        batches, order = self._epoch(epoch)
        rows = np.full(self.batch_size, -1)
        taken = batches[order[position]]
        rows[: len(taken)] = taken
        examples = np.where(rows < 0, -1, self.table.examples[rows])[local]
        return [f"{epoch}/{x}" if x >= 0 else "-" for x in examples.tolist()]

    @property
    def encoded_rows(self) -> int:
        """The number of rows of a batch in the encoder."""
        return self._layout.rows if self.pack else self.batch_size * self._texts

    @property
    def encoded_lengths(self) -> tuple[int, ...]:
        """The possible lengths of these rows."""
        return (self._layout.length,) if self.pack else self.row_lengths

    @property
    def tokens_per_step(self) -> float:
        """The mean number of tokens per step in the encoder, including padding."""
        of_batches = self.encoded_lengths if self.pack else self._plan
        return self.encoded_rows * float(np.mean(of_batches))

    @property
    def shapes(self) -> str:
        """Describes the shapes of batches."""
        longest = max(self.row_lengths)
        if not self.pack:
            lengths = ", ".join(map(str, self.row_lengths))
            return f"of up to {longest} tokens ({lengths})"
        shared = self._layout
        return (
            f"of up to {longest} tokens, in {shared.rows} shared rows of "
            f"{shared.length} ({shared.fill:.0%} packing efficiency)"
        )

    @property
    def _texts(self) -> int:
        """K, the number of texts of a row."""
        return math.prod(self.table.tokens["segment_ids"][0].shape[:-1])

    def _epoch(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the rows of each batch of the plan, and the order of the batches."""
        if epoch not in self._epochs:
            while len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)), None)
            self._epochs[epoch] = self._shuffled(epoch)
        return self._epochs[epoch]

    @functools.cached_property
    def _layout(self) -> SharedRows:
        """The shared rows of every batch, with room for every fold."""
        lengths = self.table.lengths
        room = np.zeros(self.batch_size, np.int64)
        for fold in range(max(self.folds, 1)):
            is_kept = self.folds_of_rows != fold if self.folds else lengths >= 0
            kept = np.flatnonzero(is_kept)
            parts = strata(lengths, kept, self.batch_size)
            longest = [lengths[x].max(initial=0) for x in parts]
            room = np.maximum(room, np.array(longest))
        return share_rows(room, self._texts, self.multiple)

    def _stratified(self, epoch: int) -> list[np.ndarray]:
        """Returns the rows of each batch: one per stratum, or none (-1)."""
        kept = np.flatnonzero(~self.is_held_out)
        parts = strata(self.table.lengths, kept, self.batch_size)
        rng = np.random.default_rng([self.seed, epoch, 1])
        sampled = np.full((self.batch_size, self.steps_per_epoch), -1)
        for at, part in enumerate(parts):
            sampled[at, : len(part)] = part
            sampled[at] = rng.permutation(sampled[at])
        return list(sampled.T)

    def _shuffled(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        if self.pack:
            return self._stratified(epoch), np.arange(self.steps_per_epoch)
        kept = np.flatnonzero(~self.is_held_out)
        kept = np.random.default_rng([self.seed, epoch, 1]).permutation(kept)
        # A batch takes the shortest remaining rows, so rows move to longer batches as
        # in the plan.
        queue = kept[np.argsort(self._bucket_of_rows[kept], kind="stable")]
        firsts = range(0, self.steps_per_epoch * self.batch_size, self.batch_size)
        batches = [queue[first : first + self.batch_size] for first in firsts]
        # Without the seed: at a step all members of a sweep have rows of one length.
        order = np.random.default_rng([epoch, 2]).permutation(len(batches))
        return batches, order


def in_order(
    table: ExampleTable, batch_size: int, longest: int, num_lengths: int = 0
) -> Iterator[tuple[Int[np.ndarray, " b"], Batch]]:
    """Yields (row numbers, batch) over all rows, grouped by similar length.

    The longest come first.

    Args:
      longest: the maximum row length.
      num_lengths: number of different row lengths; 0 uses fixed ones, four per
        doubling, which tables share.
    """
    chosen = choose_lengths(table.lengths, num_lengths, longest) if num_lengths else ()

    def padded(most: int) -> int:
        fixed = bucket(most, longest)
        return min((x for x in chosen if x >= most), default=fixed)

    for rows, length in by_length(table.lengths, padded, lambda _: batch_size):
        yield rows, table.batch(rows, batch_size, length)


def by_length(
    lengths: Int[np.ndarray, " n"],
    padded: Callable[[int], int],
    batch_size: Callable[[int], int],
) -> Iterator[tuple[Int[np.ndarray, " b"], int]]:
    """Yields (indices of rows, row length) over all rows, the longest first.

    Args:
      lengths: tokens of each row.
      padded: the row length of a batch, from that of its longest row.
      batch_size: the most rows in a batch, from its row length.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        length = padded(int(lengths[order[start]]))
        rows = order[start : start + batch_size(length)]
        start += len(rows)
        yield rows, length
