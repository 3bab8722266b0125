"""Tagged sentences: their alignment with subwords, their rows, and the loss of a tag.

A row lists the tokens of a sentence: token t is at `token_positions` [B, L] and weighs
`token_weights`, with the tag `labels`; all three are padded with zeros. Where a row has
Q predicates, the last two are [B, Q, L].
"""

import bisect
import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import example_rows, examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import entities
from bert_jax.model import crf, network
from bert_jax.tasks import losses, spec, tag_schemes
from bert_jax.text.coverage import Coverage
from bert_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """The tokens of a sentence that have a piece, in order; k of n.

    Attributes:
      length: n, all tokens.
      tokens: their numbers.
      pieces: the first piece of each.
      ends: one behind the last token that the pieces of each reach into; the tokens
        between are covered.
    """

    length: int
    tokens: Int[np.ndarray, " k"]
    pieces: Int[np.ndarray, " k"]
    ends: Int[np.ndarray, " k"]

    @property
    def covered(self) -> int:
        """How many tokens share a piece with one before."""
        return int((self.ends - self.tokens - 1).sum())

    @property
    def dropped(self) -> int:
        """How many tokens no piece comes from."""
        return self.length - len(self.tokens) - self.covered

    def reduce(self, spans: Sequence[entities.Span]) -> list[entities.Span]:
        """Counts the ends of spans in tokens that have a piece; others are left out."""
        firsts = [int(np.searchsorted(self.tokens, start)) for _, start, _ in spans]
        lasts = [int(np.searchsorted(self.tokens, end)) for _, _, end in spans]
        moved = zip(spans, firsts, lasts, strict=True)
        return [(span[0], start, end) for span, start, end in moved if start < end]

    def expand(self, spans: Sequence[entities.Span]) -> list[entities.Span]:
        """Undoes `reduce`: with the tokens that are covered, or dropped inside."""
        return [
            (kind, int(self.tokens[start]), int(self.ends[end - 1]))
            for kind, start, end in spans
        ]


def align(
    text: str, tokens: Sequence[examples.Span], offsets: Sequence[examples.Span]
) -> Alignment:
    """Aligns the pieces of a text, by the characters they come from, with its tokens.

    >>> made = align("在2008年", [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6)],
    ...              [(0, 1), (1, 5), (5, 6)])
    >>> made.tokens, made.pieces, made.ends
    (array([0, 1, 4]), array([0, 1, 2]), array([1, 4, 5]))
    """
    begins = [start for start, _ in tokens]
    numbers: list[int] = []
    firsts: list[int] = []
    reaches: list[int] = []
    for piece, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():  # as in the piece "_the"
            start += 1
        token = bisect.bisect_right(begins, start) - 1
        if start == end or token < 0 or start >= tokens[token][1]:
            continue
        reach = bisect.bisect_left(begins, end)
        if numbers and numbers[-1] == token:
            reaches[-1] = max(reaches[-1], reach)
        else:
            numbers.append(token)
            firsts.append(piece)
            reaches.append(reach)
    return _alignment(len(tokens), numbers, firsts, reaches)


def _alignment(
    length: int, numbers: list[int], firsts: list[int], reaches: list[int]
) -> Alignment:
    kept = np.array(numbers, np.int64)
    until = np.append(kept[1:], length) if len(kept) else kept
    ends = np.clip(np.array(reaches, np.int64), kept + 1, until)
    return Alignment(length, kept, np.array(firsts, np.int64), ends)


def cut(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Returns the windows [first, last) over tokens; none is left out.

    >>> cut(10, 4, 3)
    [(0, 4), (3, 7), (6, 10)]
    >>> cut(5, 4, 9)
    [(0, 4), (4, 5)]
    """
    step = min(room, stride)
    firsts = range(0, max(length - room, 0) + step, step)
    return [(first, min(first + room, length)) for first in firsts]


def owners(
    pieces: Int[np.ndarray, " k"], cut: Sequence[tuple[int, int]]
) -> Int[np.ndarray, " k"]:
    """Returns the window in which each piece sees most on its poorer side.

    The ends of the sentence are not poor: nothing lies behind them.
    """
    first, last = cut[0][0], cut[-1][1]
    context = [
        np.where(
            (start <= pieces) & (pieces < end),
            np.minimum(
                np.inf if start == first else pieces - start,
                np.inf if end == last else end - 1 - pieces,
            ),
            -1.0,
        )
        for start, end in cut
    ]
    return np.argmax(np.stack(context), axis=0)


# Notes of a table.
COVERED = "tokens that share a piece with the token before"
DROPPED = "tokens that the tokenizer drops"

# The number of an example, a row that has tags of it, and where in that row: nowhere
# in particular, or at one of its predicates.
Place = tuple[int, int, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
    """A sentence in pieces, nothing cut."""

    ids: list[int]
    aligned: Alignment


@dataclasses.dataclass(eq=False)
class Rows:
    """Rows as they are made; `table` makes them one.

    Attributes:
      capacity: the most pieces of a sentence in a row.

    Raises:
      InputError: rows are too short for any piece.
    """

    tokenizer: Tokenizer
    max_seq_length: int
    tokens: dict[str, list[np.ndarray]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    fixed: dict[str, list] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    examples: list[int] = dataclasses.field(default_factory=list)
    notes: dict[str, int] = dataclasses.field(
        default_factory=lambda: {COVERED: 0, DROPPED: 0}
    )
    coverage: Coverage = dataclasses.field(default_factory=Coverage)

    def __post_init__(self) -> None:
        ids, _ = self.tokenizer.build([-1])
        self.capacity = self.max_seq_length - len(ids) + 1
        self.before = ids.index(-1)  # special pieces in front of a sentence
        if self.capacity < 1:
            raise errors.InputError(
                f"data.max_seq_length {self.max_seq_length} leaves no room for a token "
                f"beside {len(ids) - 1} special ones: raise it"
            )

    def encode(self, examples: Sequence[data_examples.TaggedExample]) -> list[Sentence]:
        """Cuts each sentence into pieces, the same one once, and counts what is odd."""
        whole = dict.fromkeys((x.text, x.tokens) for x in examples)
        texts = [text for text, _ in whole]
        result = self.tokenizer.encode_with_offsets(texts)
        self.coverage.texts += len(texts)
        self.coverage.add(texts, (ids for ids, _ in result), self.tokenizer.unk_id)
        found = {}
        for (text, tokens), (ids, offsets) in zip(whole, result, strict=True):
            aligned = align(text, tokens, offsets)
            found[text, tokens] = Sentence(ids, aligned)
            self.notes[COVERED] += aligned.covered
            self.notes[DROPPED] += aligned.dropped
        return [found[x.text, x.tokens] for x in examples]

    def add(
        self,
        number: int,
        sentence: Sentence,
        window: tuple[int, int],
        chosen: Int[np.ndarray, " t"],
    ) -> tuple[int, int]:
        """Adds a row of the pieces [first, last) of a sentence.

        Args:
          number: of the example.
          chosen: which of the sentence's aligned tokens are tagged in this row.

        Returns:
          How far pieces have moved from the sentence to the row, and the row's length.
        """
        first, last = window
        ids, types = self.tokenizer.build(sentence.ids[first:last])
        aligned, moved = sentence.aligned, self.before - first
        ones = np.ones(len(ids), np.int32)
        columns = {
            "input_ids": np.array(ids, np.int32),
            "token_type_ids": np.array(types, np.int32),
            "segment_ids": ones,
            "token_positions": filled(aligned.pieces[chosen] + moved, len(ids)),
            "token_numbers": filled(aligned.tokens[chosen], len(ids)),
            "token_ends": filled(aligned.ends[chosen], len(ids)),
        }
        for name, column in columns.items():
            self.tokens[name].append(column)
        self.fixed["opens"].append(first == 0)
        self.fixed["closes"].append(last == len(sentence.ids))
        self.examples.append(number)
        return moved, len(ids)

    def table(self) -> example_rows.ExampleTable:
        """Returns all rows."""
        fixed = {name: np.array(x, np.int32) for name, x in self.fixed.items()}
        numbers = np.array(self.examples, np.int64)
        return example_rows.ExampleTable(
            dict(self.tokens), fixed, numbers, self.notes, coverage=self.coverage
        )


def filled(values: Int[np.ndarray, "*Q t"], length: int) -> Int[np.ndarray, "*Q l"]:
    """Fills the last axis up with zeros, as int32.

    >>> filled(np.array([5, 6]), 4)
    array([5, 6, 0, 0], dtype=int32)
    """
    result = np.zeros((*values.shape[:-1], length), np.int32)
    result[..., : values.shape[-1]] = values
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """What was said of the tokens of an example that a row holds; k of n.

    Attributes:
      aligned: which tokens they are.
      tags: the label of each.
      probabilities: of that label.
    """

    aligned: Alignment
    tags: Int[np.ndarray, " k"]
    probabilities: Float[np.ndarray, " k"]


def gather(
    examples: Sequence[data_examples.TaggedExample],
    table: example_rows.ExampleTable,
    outputs: Mapping[str, Sequence[np.ndarray]],
    places: Iterable[Place],
) -> list[Said]:
    """Puts what the rows of each example say together, in the order of its tokens."""
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in examples]
    for number, row, slot in places:
        count = int(np.count_nonzero(table.tokens["token_weights"][row][slot]))
        of_row = (table.tokens[name][row] for name in _PLACES)
        said = (outputs[name][row][slot] for name in ("tags", "probabilities"))
        parts[number].append(tuple(x[:count] for x in (*of_row, *said)))
    return [
        _joined(len(example.tokens), rows)
        for example, rows in zip(examples, parts, strict=True)
    ]


_PLACES = ("token_numbers", "token_ends", "token_positions")


def _joined(length: int, rows: Sequence[tuple[np.ndarray, ...]]) -> Said:
    """Joins the rows of one example, which has a row even without any token."""
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    numbers, ends, places, tags, odds = (column[order] for column in columns)
    aligned = Alignment(length, *(x.astype(np.int64) for x in (numbers, places, ends)))
    return Said(aligned, tags, odds)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTags(spec.FineTuned):
    """What tagging and semantic roles have in common; the traced half of a task.

    Attributes:
      model: with a head of the kind `tagger`.
      labels: the tags, in the order of the head's rows.
      scheme: one of `tag_schemes.SCHEMES` but IOB1; that of the labels.
      max_seq_length: the most pieces of a row, special ones among them.
      recipe: of the loss; a CRF takes R-Drop alone (of its logits' softmax).
      constrained: whether tags without a CRF keep to the scheme too (Viterbi over the
        logits); by default each token takes its best, as in `transformers`.
      repair: whether tags that break their scheme are mended and counted.

    Raises:
      InputError: the recipe has what a CRF's likelihood does not know.
    """

    model: network.Network
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    scheme: str
    max_seq_length: int
    recipe: losses.Recipe = losses.Recipe()
    constrained: bool = False
    repair: bool = False

    def __post_init__(self) -> None:
        plain = dataclasses.replace(self.recipe, r_drop=0.0)
        if self.model.head.crf and plain != losses.Recipe():
            raise errors.InputError(
                "recipe.label_smoothing, recipe.focal_gamma and recipe.class_weights "
                "change the losses of single tags; a CRF scores whole sequences: unset "
                "them, or head.crf"
            )

    def weights(self, batch: spec.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of tokens, or the weights of their classes.

        A CRF's loss is divided by tokens too, so that it is on the scale of a softmax a
        token: with transitions of zero they are equal.
        """
        weights = batch["token_weights"]
        if self.recipe.class_weights:
            weights = weights * self._class_weights()[batch["labels"]]
        return {"tag": jnp.sum(weights)}

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the summed loss, and how often the best logit is the tag."""
        weights = batch["token_weights"]

        def divergence(one: spec.Logits, two: spec.Logits) -> Float[Array, ""]:
            apart = losses.symmetric_kl(one["logits"], two["logits"])
            return jnp.sum(apart * weights)

        total, outputs = losses.regularized(
            self.recipe.r_drop,
            lambda k: self._forward(params, batch, k),
            lambda result: self._loss(result, batch),
            divergence,
            key,
        )
        hits = losses.correct(outputs["logits"], batch["labels"], weights)
        return {"tag": total}, {"accuracy": (hits, jnp.sum(weights))}

    def predict(self, params: PyTree, batch: spec.Batch) -> dict[str, Array]:
        """Computes the best `tags` int32 and their `probabilities` float32, [B, *Q, L].

        With a CRF: the best path, and the probability of each of its tags over all
        paths.
        """
        outputs = self._forward(params, batch, None)
        logits = outputs["logits"]
        odds = jax.nn.softmax(logits, axis=-1)
        if not (self.model.head.crf or self.constrained):
            tags = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            result, mask, scores = self._chain(outputs, batch)
            tags = crf.viterbi(result, mask, scores).reshape(logits.shape[:-1])
            if self.model.head.crf:
                odds = _marginals(result, mask, scores).reshape(logits.shape)
        picked = jnp.take_along_axis(odds, tags[..., None], axis=-1)[..., 0]
        return {"tags": tags, "probabilities": picked}

    def _forward(self, params: PyTree, batch: spec.Batch, key: Array | None) -> Any:
        """Runs the model; `logits` [B, *Q, L, C] become those of tokens, in order."""
        outputs = self.model.apply(params, batch, dropout_key=key)
        at = batch["token_positions"][..., None]
        if self.model.head.at_predicate:
            at = at[:, None]
        logits = jnp.take_along_axis(outputs["logits"], at, axis=-2)
        return {**outputs, "logits": logits}

    def _loss(self, outputs: spec.Logits, batch: spec.Batch) -> Float[Array, ""]:
        """Sums the losses of the tokens of a batch."""
        labels, weights = batch["labels"], batch["token_weights"]
        if self.model.head.crf:
            logits, mask, scores = self._chain(outputs, batch)
            labels = labels.reshape(mask.shape)
            found = crf.negative_log_likelihood(logits, labels, mask, scores)
            return jnp.sum(found)
        token_losses = losses.class_losses(
            outputs["logits"],
            labels,
            smoothing=self.recipe.label_smoothing,
            focal_gamma=self.recipe.focal_gamma,
            class_weights=self._class_weights() if self.recipe.class_weights else None,
        )
        return jnp.sum(token_losses * weights)

    def _class_weights(self) -> Float[Array, " C"]:
        return jnp.array(self.recipe.class_weights, jnp.float32)

    def _chain(
        self, outputs: spec.Logits, batch: spec.Batch
    ) -> tuple[Float[Array, "N L C"], Bool[Array, "N L"], crf.Scores]:
        """Returns the chains of a batch: one a row, or one a predicate of a row.

        A row that is a window of a longer sentence begins or ends inside of it, where
        any tag may stand: the scores of starts and ends are put into the logits of
        those rows that have them (`opens`, `closes` [B]).
        """
        logits = outputs["logits"]
        zeros = jnp.zeros(logits.shape[-1], jnp.float32)
        scores = crf.Scores(jnp.zeros(logits.shape[-1:] * 2), zeros, zeros)
        if self.model.head.crf:
            scores = crf.Scores(*(outputs[name] for name in crf.Scores._fields))
        allowed = crf.Allowed(*tag_schemes.allowed(self.labels, self.scheme))
        scores = crf.forbid(scores, allowed)
        mask = batch["token_weights"] > 0
        ends = _at_ends(mask, batch["opens"], batch["closes"])
        logits = logits.astype(jnp.float32)
        for score, end in zip(scores[1:], ends, strict=True):
            logits += jnp.einsum("...L,C->...LC", end, score)
        chains = (-1, *logits.shape[-2:])
        scores = crf.Scores(scores.transitions, zeros, zeros)
        return logits.reshape(chains), mask.reshape(-1, mask.shape[-1]), scores


def _at_ends(
    mask: Bool[Array, "B *Q L"], opens: Int[Array, " B"], closes: Int[Array, " B"]
) -> tuple[Float[Array, "B *Q L"], Float[Array, "B *Q L"]]:
    """Returns 1 at the token that begins its sentence, and at the one that ends it."""
    count = jnp.cumsum(mask, axis=-1)
    rows = (-1, *(1,) * (mask.ndim - 1))
    first = mask & (count == 1) & (opens.reshape(rows) > 0)
    last = mask & (count == count[..., -1:]) & (closes.reshape(rows) > 0)
    return first.astype(jnp.float32), last.astype(jnp.float32)


def _marginals(
    logits: Float[Array, "N L C"], mask: Bool[Array, "N L"], scores: crf.Scores
) -> Float[Array, "N L C"]:
    """Returns the probability of each tag of each token over all paths.

    It is the gradient of the log-partition by the logits.
    """
    return jax.grad(lambda x: jnp.sum(crf.log_partition(x, mask, scores)))(logits)
