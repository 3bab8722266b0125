"""Pretraining rows as a function of the step: sentence pairs or full sentences.

A row holds one instance, padded, or with `pack` as many as fit (`packing`).

The store, the length and the seed fix where instances begin and end (`index`), so every
epoch has the same number of rows. Everything else is sampled per epoch from a hash of
(seed, epoch, instance): the order, the split into two parts, the true or random next
sentence, the side that is truncated (`pairs`). There is no state between calls: any
batch of any epoch can be computed directly, and a process computes only its own rows.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float64, Int32, Int64

from bert_jax import errors
from bert_jax.data.corpus import store as stores
from bert_jax.data.pretraining import index, packing, pairs, permutation

Batch = dict[str, np.ndarray]
# A packed row holds at most one instance per this many positions.
POSITIONS_PER_SEGMENT = 8
# Instances of a source with a fractional weight are packed in groups of this size.
GROUP = 64
# Streams of the seed; the numbers are part of the format of a run.
TARGETS, ORDER, ROWS, COPIES, PACKING = range(5)


class Instances:
    """The rows of a store for one objective and length, by their position in a run.

    Attributes:
      num_instances: instances in an epoch, the same in every epoch.
      num_rows: rows in an epoch; without `pack` as many as instances.
      num_segments: S, the most instances in a row; 1 without `pack`.
      fill: packing efficiency, the fraction of positions in use; None without `pack`.
      effective_length: mean number of tokens a token attends to; L without `pack`.
      num_long_sentences: sentences longer than a row. Pairs show a different window of
        them in each epoch; full sentences continue in the next row.
    """

    def __init__(
        self,
        store: stores.Store,
        *,
        objective: str,
        max_seq_length: int,
        short_seq_prob: float,
        seed: int,
        special_ids: tuple[int, int],
        pack: bool = False,
    ) -> None:
        """Builds the table of rows: about three seconds for a billion tokens.

        Args:
          objective: "nsp", true or random next sentences (label 1 = random); "sop",
            two parts in their order or swapped (label 1 = swapped); "full_sentences",
            as many sentences as fit, across document boundaries, without a label.
          max_seq_length: tokens in a row, special ones included.
          short_seq_prob: fraction of documents whose pairs get a shorter length; full
            sentences do not use it.
          seed: the run's seed, any integer.
          special_ids: the ids of [CLS] and [SEP].
          pack: put several instances into a row. Random next sentences then have the
            length of the true ones, and full sentences stay within their document.

        Raises:
          InputError: the store has less than one row, or
            only one document where a random next sentence needs another.
        """
        self._objective = objective
        self._length = max_seq_length
        self._short_seq_prob = short_seq_prob
        self._cls_id, self._sep_id = special_ids
        self._pack = pack
        self._streams = permutation.fold_in(permutation.key_of(seed), np.arange(5))
        self._numbering = index.CorpusIndex(store.shards)
        self._check_store(store)
        self._table = self._make_table(store.source_weights)
        weights = self._instance_weights(store)
        lengths = reserved_lengths(self._lengths(), weights) if pack else None
        self._mixture = packing.SourceMixture(weights, lengths)
        self.num_instances = self._mixture.total
        self.num_long_sentences = sum(
            int((np.diff(shard.sentence_offsets) > self._capacity).sum())
            for shard in store.shards
        )
        if not self.num_instances:
            raise errors.InputError(
                f"the weights {store.source_weights} of the sources of {store.folder} "
                "leave no row in an epoch. Raise one."
            )
        self._packing = self._make_packing() if pack else None
        self.num_rows, self.num_segments = self.num_instances, 1
        self.fill: float | None = None
        self.effective_length = float(max_seq_length)
        if self._packing is not None:
            self.fill = self._packing.fill
            self.effective_length = self._packing.effective_length
            self.num_rows = self._packing.num_rows
            self.num_segments = self._packing.num_segments

    def batch_at(
        self, step: int, batch_size: int, rows: slice | np.ndarray | None = None
    ) -> Batch:
        """Returns a training batch, or some of its rows; each epoch has its own order.

        Args:
          step: from 0.
          batch_size: rows in the global batch.
          rows: the rows to return, all by default; a row does not depend on which
            others are returned with it.

        Returns:
          the arrays of `lay_out`, of shape [rows, max_seq_length] or [rows, S].
        """
        epochs, numbers = self._order(step, batch_size, rows)
        return self._assemble(epochs, numbers, np.arange(len(numbers)), len(numbers))

    def names_at(
        self, step: int, batch_size: int, rows: slice | np.ndarray | None = None
    ) -> list[str]:
        """Returns the names of the rows of that batch: "EPOCH/INSTANCE".

        Instances are numbered in the order of the store, whatever the seed; a packed
        row lists all of its instances, as in "0/17+4+230".
        """
        epochs, numbers = self._order(step, batch_size, rows)
        row = np.arange(len(numbers))
        indices = numbers
        if self._packing is not None:
            row, _, _, indices = self._packing.sequences(
                numbers, epochs, self._streams[PACKING]
            )
        numbers_of = self._mixture.rows_at(indices, epochs[row], self._streams[COPIES])
        of_rows: list[list[str]] = [[] for _ in numbers]
        for at, instance in zip(row.tolist(), numbers_of.tolist(), strict=True):
            of_rows[at].append(str(instance))
        return [
            f"{epoch}/{'+'.join(names)}"
            for epoch, names in zip(epochs.tolist(), of_rows, strict=True)
        ]

    def _order(
        self, step: int, batch_size: int, rows: slice | np.ndarray | None
    ) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
        """Returns the epoch and the number of each row of a training batch."""
        positions = _positions(step, batch_size, rows)
        epochs, positions = np.divmod(positions, self.num_rows)
        keys = permutation.fold_in(self._streams[ORDER], epochs)
        return epochs, permutation.permute(positions, self.num_rows, keys)

    def batch_at_in_order(
        self, step: int, batch_size: int, rows: slice | np.ndarray | None = None
    ) -> Batch:
        """Returns a batch of a single pass over epoch 0 in the order of the store.

        For evaluation: the batches of steps 0 to `num_batches` - 1 have every row once;
        rows after the last are padding with weight 0.
        """
        positions = _positions(step, batch_size, rows)
        real = np.flatnonzero(positions < self.num_rows)
        numbers = positions[real]
        return self._assemble(np.zeros_like(numbers), numbers, real, len(positions))

    def num_batches(self, batch_size: int) -> int:
        """Returns the number of batches of a pass in order, including a partial one."""
        return -(-self.num_rows // batch_size)

    @property
    def _capacity(self) -> int:
        """Positions of a row without its special tokens."""
        if self._objective == "full_sentences":
            return self._length - index.SPECIALS_OF_ROW
        return self._length - index.SPECIALS_OF_PAIR

    def _check_store(self, store: stores.Store) -> None:
        """Raises InputError if the store is too small for one row or a random pair."""
        where = f"the {store.split} split of the store {store.folder}"
        tokens, documents = self._numbering.num_tokens, self._numbering.num_documents
        if tokens < self._capacity:
            raise errors.InputError(
                f"{where} has {tokens} tokens, fewer than one row of "
                f"{self._length}. Add text or shorten data.max_seq_length."
            )
        if self._objective == "nsp" and documents < 2:
            raise errors.InputError(
                f"{where} has one document, but next sentence prediction samples its "
                "negatives from other documents. Set data.objective to 'sop' or "
                "'full_sentences', or separate the corpus into documents."
            )

    def _make_table(self, weights: tuple[float, ...]) -> Int64[np.ndarray, " n"]:
        """Returns where each row begins, and the end: sentences, or tokens."""
        if self._objective == "full_sentences":
            if self._pack:
                return index.document_pieces(self._numbering, self._capacity)
            return index.token_rows(self._numbering, self._capacity, weights)
        return index.sentence_chunks(self._numbering, self._targets)

    def _targets(self, documents: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the target chunk length of each document, in tokens."""
        key = self._streams[TARGETS]
        return index.target_lengths(
            documents, self._capacity, self._short_seq_prob, key
        )

    def _lengths(self) -> Int64[np.ndarray, " n"]:
        """Returns the length of each instance with its special tokens, for packing."""
        if self._objective == "full_sentences":
            return np.diff(self._table) + index.SPECIALS_OF_ROW
        if self._objective == "nsp":
            tokens = self._tokens_of_pairs(self._table[:-1], self._table[1:])
        else:
            tokens = np.diff(self._numbering.tokens_before(self._table))
        positions = np.minimum(tokens, self._capacity) + index.SPECIALS_OF_PAIR
        return positions - (tokens == 1)  # one token has no second part

    def _make_packing(self) -> packing.Packing:
        most = max(1, self._length // POSITIONS_PER_SEGMENT)
        return packing.Packing(self._mixture.counts(self._length), self._length, most)

    def _instance_weights(self, store: stores.Store) -> Float64[np.ndarray, " n"]:
        """Returns the weight of the source of each instance's first document."""
        if set(store.source_weights) == {1.0}:
            return np.broadcast_to(1.0, len(self._table) - 1)
        if self._objective == "full_sentences":
            starts = self._numbering.document_tokens
        else:
            starts = self._numbering.document_starts
        documents = np.searchsorted(starts, self._table[:-1], side="right") - 1
        sources = np.concatenate([shard.sources for shard in store.shards])
        return np.array(store.source_weights)[sources[documents]]

    def _rows(
        self,
        epochs: Int64[np.ndarray, " r"],
        indices: Int64[np.ndarray, " r"],
        numbers: Int64[np.ndarray, " r"],
    ) -> pairs.PairSpans:
        """Returns the spans of rows of the table at these indices of their epochs."""
        keys = permutation.fold_in(self._streams[ROWS], epochs)
        keys = permutation.fold_in(keys, indices)
        bounds = np.stack([self._table[numbers], self._table[numbers + 1]], axis=1)
        if self._objective == "full_sentences":
            return pairs.full_sentences(self._numbering.document_tokens, bounds)
        if self._objective == "sop":
            return pairs.ordered_pairs(self._numbering, bounds, self._capacity, keys)
        documents = self._numbering.document_of(bounds[:, 0])
        packed, padded = self._tokens_of_pairs, self._targets
        targets = packed(*bounds.T) if self._pack else padded(documents)
        return pairs.sentence_pairs(
            self._numbering,
            bounds,
            documents,
            targets,
            self._capacity,
            keys,
            self._random_next,
        )

    @functools.cached_property
    def _random_next(self) -> pairs.SampleNext:
        """The sampler of random second parts; packing needs exact lengths."""
        if self._pack:
            return pairs.Continuations(self._numbering).sample
        return functools.partial(pairs.random_next, self._numbering)

    def _tokens_of_pairs(
        self, first: Int64[np.ndarray, " n"], end: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Returns the tokens of chunks; a chunk of one sentence counts twice."""
        tokens = self._numbering.tokens_before(end)
        tokens = tokens - self._numbering.tokens_before(first)
        return np.where(end - first == 1, 2 * tokens, tokens)

    def _assemble(
        self,
        epochs: Int64[np.ndarray, " r"],
        numbers: Int64[np.ndarray, " r"],
        rows: Int64[np.ndarray, " r"],
        size: int,
    ) -> Batch:
        """Returns a batch of `size` rows: these at `rows`, the others empty."""
        column = segment = np.zeros_like(rows)
        indices = numbers
        if self._packing is not None:
            row, column, segment, indices = self._packing.sequences(
                numbers, epochs, self._streams[PACKING]
            )
            epochs, rows = epochs[row], rows[row]
        instances = self._mixture.rows_at(indices, epochs, self._streams[COPIES])
        # Reads the store in the order of memory.
        order = np.argsort(instances)
        return lay_out(
            self._numbering,
            self._rows(epochs[order], indices[order], instances[order]),
            SequencePositions(rows[order], column[order], segment[order]),
            BatchShape(size, self._length, self.num_segments),
            cls_id=self._cls_id,
            sep_id=self._sep_id,
        )


def reserved_lengths(
    lengths: Int64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Returns the length reserved for each instance when it is packed.

    That is its own length, except in sources with a fractional weight: epochs show
    different instances of them, which take turns in slots for the longest of a group.
    Otherwise an instance with a unique length would be shown in every epoch or in none.
    """
    reserved = lengths.copy()
    for weight in np.unique(weights):
        if weight != int(weight):
            members = np.flatnonzero(weights == weight)
            members = members[np.argsort(-lengths[members], kind="stable")]
            longest = np.arange(len(members)) // GROUP * GROUP
            reserved[members] = lengths[members[longest]]
    return reserved


def _positions(
    step: int, batch_size: int, rows: slice | np.ndarray | None
) -> Int64[np.ndarray, " r"]:
    """Returns the positions of rows of a global batch in the whole run."""
    positions = np.arange(batch_size)
    return step * batch_size + (positions if rows is None else positions[rows])


class SequencePositions(NamedTuple):
    """The position of each sequence in a batch.

    Attributes:
      row: the row of the batch.
      column: the position of its [CLS] in that row.
      segment: its number in that row, from 0.
    """

    row: Int64[np.ndarray, " n"]
    column: Int64[np.ndarray, " n"]
    segment: Int64[np.ndarray, " n"]


class BatchShape(NamedTuple):
    """B rows of L positions with at most S sequences each."""

    rows: int
    length: int
    segments: int


def lay_out(
    numbering: index.CorpusIndex,
    sequences: pairs.PairSpans,
    at: SequencePositions,
    shape: BatchShape,
    *,
    cls_id: int,
    sep_id: int,
) -> Batch:
    """Returns the arrays of a batch, of shape [B, L] or [B, S].

    Position ids and token types restart in every sequence. Unused positions are zero,
    and missing sequences have weight 0.
    """
    of_segments = {
        "cls_positions": _table(at.column, np.int32, at, shape),
        "next_sentence_labels": _table(sequences.labels, np.int32, at, shape),
        "next_sentence_weights": _table(sequences.weights, np.float32, at, shape),
    }
    number = _numbers(at, shape)

    def spread(table: np.ndarray) -> np.ndarray:
        """Returns each sequence's value at all of its positions."""
        return table if shape.segments == 1 else table.ravel()[number + first]

    first = np.arange(shape.rows, dtype=np.int32)[:, None] * shape.segments
    columns = np.arange(shape.length, dtype=np.int32)
    positions = columns - spread(of_segments["cls_positions"])
    inside = positions < spread(_table(sequences.lengths, np.int32, at, shape))
    second = spread(_table(sequences.second, np.int32, at, shape))
    input_ids, word_start = _copy(
        numbering, sequences, at, shape, cls_id=cls_id, sep_id=sep_id
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
    values: np.ndarray,
    dtype: npt.DTypeLike,
    positions: SequencePositions,
    shape: BatchShape,
) -> np.ndarray:
    """Returns values of sequences as [B, S], zero where there is no sequence."""
    table = np.zeros((shape.rows, shape.segments), dtype)
    table[positions.row, positions.segment] = values
    return table


def _numbers(at: SequencePositions, shape: BatchShape) -> Int32[np.ndarray, "B L_or_1"]:
    """Returns for each position the number of the last sequence begun in its row."""
    if shape.segments == 1:
        return np.zeros((shape.rows, 1), np.int32)
    begun = np.zeros((shape.rows, shape.length), np.int32)
    begun[at.row, at.column] = 1
    return np.maximum(np.cumsum(begun, axis=1, dtype=np.int32) - 1, 0)


def _copy(
    numbering: index.CorpusIndex,
    sequences: pairs.PairSpans,
    at: SequencePositions,
    shape: BatchShape,
    *,
    cls_id: int,
    sep_id: int,
) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
    """Copies the spans from the store and adds the special tokens."""
    input_ids = np.zeros((shape.rows, shape.length), np.int32)
    word_start = np.zeros((shape.rows, shape.length), bool)
    begin = at.row * shape.length + at.column
    order = np.argsort(sequences.start)
    starts, lengths = sequences.start[order], sequences.length[order]
    targets = (begin[sequences.row] + sequences.column)[order]
    cells = index.ranges(targets, lengths)
    input_ids.ravel()[cells], word_start.ravel()[cells] = numbering.read(
        starts, lengths
    )
    input_ids.ravel()[begin] = cls_id
    input_ids.ravel()[targets + lengths] = sep_id
    return input_ids, word_start


# Tokens in a row -> the rows of that length.
RowsOf = Callable[[int], Instances]


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """Steps whose rows have one length: short ones first (arXiv:1810.04805, A.2).

    Attributes:
      rows: rows of that length.
      length: tokens in a row.
      first_step: first step of the phase, from 0.
      last_step: the step after its last.
    """

    rows: Instances
    length: int
    first_step: int
    last_step: int

    def batch_at(self, step: int, batch_size: int, rows: slice | None = None) -> Batch:
        """Returns the batch of a step of the run, or some of its rows."""
        return self.rows.batch_at(step - self.first_step, batch_size, rows)

    def names_at(
        self, step: int, batch_size: int, rows: slice | None = None
    ) -> list[str]:
        """Returns the names of the rows of that batch, as `Instances.names_at`."""
        return self.rows.names_at(step - self.first_step, batch_size, rows)


def plan_phases(
    rows_of: RowsOf,
    num_train_steps: int,
    length: int,
    first_length: int,
    first_steps: int,
) -> list[Phase]:
    """Returns the one or two phases of a run, in order.

    Args:
      length, first_length: tokens in a row, and in a row of the first phase.
      first_steps: steps of the first phase; 0 = none.
    """
    bounds = (first_length, 0, first_steps), (length, first_steps, num_train_steps)
    return [
        Phase(rows_of(tokens), tokens, begin, end)
        for tokens, begin, end in bounds
        if begin < end
    ]


def phase_at(phases: list[Phase], step: int) -> Phase:
    """Returns the phase of a step, from 0; the last one for later steps."""
    return next((x for x in phases if step < x.last_step), phases[-1])
