"""Tagged sentences: alignment of tokens with subwords, rows, and the tagging loss.

For each token of a sentence, a row has the position of its first subword
(`token_positions` [B, L]), its weight (`token_weights`) and its tag (`labels`). All
three are padded with zeros. In rows with Q predicates, the last two are [B, Q, L].
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
from bert_jax.data.labeled.example_rows import ExampleTable
from bert_jax.data.labeled.examples import Span, TaggedExample
from bert_jax.metrics import entities, tag_schemes
from bert_jax.model import crf
from bert_jax.tasks import losses
from bert_jax.tasks.spec import Batch, FineTuned, Logits, Sums
from bert_jax.text.coverage import Coverage
from bert_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """The k of n tokens of a sentence that have a subword, in order.

    Attributes:
      length: n, the number of all tokens.
      tokens: the indices of the k tokens.
      subwords: the first subword of each token.
      ends: the end (exclusive) of the tokens that the subwords of each overlap; the
        tokens in between are covered.
    """

    length: int
    tokens: Int[np.ndarray, " k"]
    subwords: Int[np.ndarray, " k"]
    ends: Int[np.ndarray, " k"]

    @property
    def covered(self) -> int:
        """The number of tokens that share a subword with a previous one."""
        return int((self.ends - self.tokens - 1).sum())

    @property
    def dropped(self) -> int:
        """The number of tokens without any subword."""
        return self.length - len(self.tokens) - self.covered

    def reduce(self, spans: Sequence[entities.Span]) -> list[entities.Span]:
        """Maps spans to indices into `tokens`; spans that become empty are dropped."""
        firsts = [int(np.searchsorted(self.tokens, start)) for _, start, _ in spans]
        lasts = [int(np.searchsorted(self.tokens, end)) for _, _, end in spans]
        moved = zip(spans, firsts, lasts, strict=True)
        return [(span[0], start, end) for span, start, end in moved if start < end]

    def expand(self, spans: Sequence[entities.Span]) -> list[entities.Span]:
        """Inverts `reduce`; spans include covered tokens and dropped ones inside."""
        return [
            (kind, int(self.tokens[start]), int(self.ends[end - 1]))
            for kind, start, end in spans
        ]


def align(text: str, tokens: Sequence[Span], offsets: Sequence[Span]) -> Alignment:
    """Aligns the subwords of a text with its tokens by character offsets.

    >>> aligned = align("在2008年", [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6)],
    ...                 [(0, 1), (1, 5), (5, 6)])
    >>> aligned.tokens, aligned.subwords, aligned.ends
    (array([0, 1, 4]), array([0, 1, 2]), array([1, 4, 5]))
    """
    begins = [start for start, _ in tokens]
    numbers: list[int] = []
    firsts: list[int] = []
    reaches: list[int] = []
    for subword, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():  # as in the subword "_the"
            start += 1
        token = bisect.bisect_right(begins, start) - 1
        if start == end or token < 0 or start >= tokens[token][1]:
            continue
        reach = bisect.bisect_left(begins, end)
        if numbers and numbers[-1] == token:
            reaches[-1] = max(reaches[-1], reach)
        else:
            numbers.append(token)
            firsts.append(subword)
            reaches.append(reach)
    kept = np.array(numbers, np.int64)
    until = np.append(kept[1:], len(tokens))[: len(kept)]
    ends = np.clip(np.array(reaches, np.int64), kept + 1, until)
    return Alignment(len(tokens), kept, np.array(firsts, np.int64), ends)


def cut(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Returns windows [first, end) that cover all tokens.

    >>> cut(10, 4, 3)
    [(0, 4), (3, 7), (6, 10)]
    >>> cut(5, 4, 9)
    [(0, 4), (4, 5)]
    """
    step = min(room, stride)
    firsts = range(0, max(length - room, 0) + step, step)
    return [(first, min(first + room, length)) for first in firsts]


def owners(
    subwords: Int[np.ndarray, " k"], cut: Sequence[tuple[int, int]]
) -> Int[np.ndarray, " k"]:
    """Returns for each subword the window with the most context on its shorter side.

    The start and the end of the sentence do not count as a lack of context.
    """
    first, last = cut[0][0], cut[-1][1]
    context = [
        np.where(
            (start <= subwords) & (subwords < end),
            np.minimum(
                np.inf if start == first else subwords - start,
                np.inf if end == last else end - 1 - subwords,
            ),
            -1.0,
        )
        for start, end in cut
    ]
    return np.argmax(np.stack(context), axis=0)


class RowBuilder:
    """Collects the rows of a table: token columns, fixed columns, notes and counts."""

    def __init__(self, notes: Iterable[str]) -> None:
        self.tokens: dict[str, list[np.ndarray]] = collections.defaultdict(list)
        self.fixed: dict[str, list[Any]] = collections.defaultdict(list)
        self.examples: list[int] = []
        self.notes = dict.fromkeys(notes, 0)
        self.coverage = Coverage()

    def add(
        self,
        number: int,
        tokens: Mapping[str, Int[np.ndarray, " l"]],
        fixed: Mapping[str, Any],
    ) -> None:
        """Adds a row of the example `number`."""
        self.examples.append(number)
        for name, column in tokens.items():
            self.tokens[name].append(column.astype(np.int32))
        for name, value in fixed.items():
            self.fixed[name].append(value)

    def table(self) -> ExampleTable:
        """Returns all rows; fixed columns of floats are float32, others int32."""
        fixed = {}
        for name, values in self.fixed.items():
            column = np.array(values)
            kind = np.float32 if column.dtype.kind == "f" else np.int32
            fixed[name] = column.astype(kind)
        numbers = np.array(self.examples, np.int64)
        return ExampleTable(
            dict(self.tokens), fixed, numbers, self.notes, coverage=self.coverage
        )


# Notes of a table.
COVERED = "tokens that share a subword with the previous token"
DROPPED = "tokens that the tokenizer drops"

# The index of an example, a row with its tags, and the index within the row: empty, or
# that of a predicate.
TagLocation = tuple[int, int, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
    """A tokenized sentence, not truncated."""

    ids: list[int]
    aligned: Alignment


class SentenceRows(RowBuilder):
    """Builder of rows of tagged sentences.

    Attributes:
      capacity: maximum number of subwords of a sentence in a row.
      before: number of special tokens in front of a sentence.

    Raises:
      InputError: rows have no room besides the special tokens.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_seq_length: int, notes: Iterable[str] = ()
    ) -> None:
        super().__init__((COVERED, DROPPED, *notes))
        self.tokenizer = tokenizer
        ids, _ = tokenizer.build([-1])
        self.capacity = max_seq_length - len(ids) + 1
        self.before = ids.index(-1)
        if self.capacity < 1:
            raise errors.InputError(
                f"data.max_seq_length {max_seq_length} leaves no room "
                f"next to the {len(ids) - 1} special tokens: raise it"
            )

    def encode(self, examples: Sequence[TaggedExample]) -> list[Sentence]:
        """Tokenizes each distinct sentence once; counts covered and dropped tokens."""
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

    def add_window(
        self,
        number: int,
        sentence: Sentence,
        window: tuple[int, int],
        chosen: Int[np.ndarray, " t"],
    ) -> tuple[int, int]:
        """Adds a row with the subwords of one window of a sentence.

        Args:
          number: index of the example.
          window: subwords [first, end) of the sentence.
          chosen: the aligned tokens that are tagged in this row.

        Returns:
          The offset from sentence to row positions, and the length of the row.
        """
        first, last = window
        ids, types = self.tokenizer.build(sentence.ids[first:last])
        aligned, moved = sentence.aligned, self.before - first
        columns = {
            "input_ids": np.array(ids),
            "token_type_ids": np.array(types),
            "segment_ids": np.ones(len(ids), np.int32),
            "token_positions": filled(aligned.subwords[chosen] + moved, len(ids)),
            "token_numbers": filled(aligned.tokens[chosen], len(ids)),
            "token_ends": filled(aligned.ends[chosen], len(ids)),
        }
        fixed = {"opens": first == 0, "closes": last == len(sentence.ids)}
        self.add(number, columns, fixed)
        return moved, len(ids)


def filled(values: Int[np.ndarray, "*Q t"], length: int) -> Int[np.ndarray, "*Q l"]:
    """Pads the last axis with zeros, as int32.

    >>> filled(np.array([5, 6]), 4)
    array([5, 6, 0, 0], dtype=int32)
    """
    result = np.zeros((*values.shape[:-1], length), np.int32)
    result[..., : values.shape[-1]] = values
    return result


_INDEX_COLUMNS = ("token_numbers", "token_ends", "token_positions")


@dataclasses.dataclass(frozen=True, eq=False)
class TokenPredictions:
    """Predictions for the k of n tokens of an example that rows contain.

    Attributes:
      aligned: the alignment of these tokens.
      tags: the predicted label index of each.
      probabilities: the probability of each label.
    """

    aligned: Alignment
    tags: Int[np.ndarray, " k"]
    probabilities: Float[np.ndarray, " k"]


def gather(
    examples: Sequence[TaggedExample],
    table: ExampleTable,
    outputs: Mapping[str, Sequence[np.ndarray]],
    locations: Iterable[TagLocation],
) -> list[TokenPredictions]:
    """Merges the predictions of the rows of each example, in token order."""
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in examples]
    for number, row, slot in locations:
        count = int(np.count_nonzero(table.tokens["token_weights"][row][slot]))
        of_row = (table.tokens[name][row] for name in _INDEX_COLUMNS)
        predicted = (outputs[name][row][slot] for name in ("tags", "probabilities"))
        parts[number].append(tuple(x[:count] for x in (*of_row, *predicted)))
    return [
        _joined(len(example.tokens), rows)
        for example, rows in zip(examples, parts, strict=True)
    ]


def _joined(length: int, rows: Sequence[tuple[np.ndarray, ...]]) -> TokenPredictions:
    """Joins the rows of one example; even an empty example has a row."""
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    numbers, ends, positions, tags, probabilities = (
        column[order] for column in columns
    )
    aligned = Alignment(
        length, *(x.astype(np.int64) for x in (numbers, positions, ends))
    )
    return TokenPredictions(aligned, tags, probabilities)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TokenTags(FineTuned):
    """The traced functions shared by tagging and semantic role labeling.

    Attributes:
      labels: the tags, in the order of the head's outputs.
      scheme: the scheme of the labels, one of `tag_schemes.SCHEMES` except IOB1.
      constrained: whether a model without a CRF also decodes valid tag sequences only
        (Viterbi over the logits); by default, argmax per token, as in `transformers`.
      repair: whether invalid tags in the data are repaired and counted.

    Raises:
      InputError: the recipe has options that a CRF does not support; it supports only
        R-Drop, on its logits.
    """

    loss_name = "tag"
    labels: tuple[str, ...]
    scheme: str
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

    def loss_weights(self, batch: Batch) -> Float[Array, "B *Q L"]:
        return batch["token_weights"]

    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of tokens, or the weights of their classes.

        The loss of a CRF is also averaged over tokens. With zero transitions it equals
        the softmax cross-entropy.
        """
        weights = self.loss_weights(batch)
        if self.recipe.class_weights:
            weights = weights * self.recipe.of_classes[batch["labels"]]
        return {self.loss_name: jnp.sum(weights)}

    def forward(self, params: PyTree, batch: Batch, key: Array | None) -> Logits:
        """Applies the model and gathers `logits` [B, *Q, L, C] at token positions."""
        outputs = super().forward(params, batch, key)
        at = batch["token_positions"][..., None]
        if self.model.head.at_predicate:
            at = at[:, None]
        logits = jnp.take_along_axis(outputs["logits"], at, axis=-2)
        return {**outputs, "logits": logits}

    def loss(self, outputs: Logits, batch: Batch) -> tuple[Float[Array, ""], Sums]:
        """Returns the summed loss and the argmax accuracy."""
        logits, labels = outputs["logits"], batch["labels"]
        weights = self.loss_weights(batch)
        hits = losses.correct(logits, labels, weights)
        if self.model.head.crf:
            chains, mask, scores = self._chain(outputs, batch)
            each = crf.negative_log_likelihood(
                chains, labels.reshape(mask.shape), mask, scores
            )
        else:
            each = losses.class_losses(logits, labels, self.recipe) * weights
        return jnp.sum(each), {"accuracy": (hits, jnp.sum(weights))}

    def divergence(self, one: Logits, two: Logits, batch: Batch) -> Float[Array, ""]:
        each = losses.symmetric_kl(one["logits"], two["logits"])
        return jnp.sum(each * self.loss_weights(batch))

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Array]:
        """Computes the best `tags` int32 and their `probabilities` float32, [B, *Q, L].

        With a CRF: the best path, and the probability of each of its tags over all
        paths.
        """
        outputs = self.forward(params, batch, None)
        logits = outputs["logits"]
        probabilities = jax.nn.softmax(logits, axis=-1)
        if not (self.model.head.crf or self.constrained):
            tags = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            result, mask, scores = self._chain(outputs, batch)
            tags = crf.viterbi(result, mask, scores).reshape(logits.shape[:-1])
            if self.model.head.crf:
                probabilities = _marginals(result, mask, scores).reshape(logits.shape)
        picked = jnp.take_along_axis(probabilities, tags[..., None], axis=-1)[..., 0]
        return {"tags": tags, "probabilities": picked}

    def _chain(
        self, outputs: Logits, batch: Batch
    ) -> tuple[Float[Array, "N L C"], Bool[Array, "N L"], crf.PathScores]:
        """Returns the inputs of the CRF: one chain per row, or per predicate of a row.

        A window of a longer sentence may start or end with any tag. Start and end
        scores are therefore added to the logits of only those rows that include the
        start or the end of their sentence (`opens`, `closes` [B]).
        """
        logits = outputs["logits"]
        zeros = jnp.zeros(logits.shape[-1], jnp.float32)
        scores = crf.PathScores(jnp.zeros(logits.shape[-1:] * 2), zeros, zeros)
        if self.model.head.crf:
            scores = crf.PathScores(*(outputs[name] for name in crf.PathScores._fields))
        allowed = crf.Allowed(*tag_schemes.allowed(self.labels, self.scheme))
        scores = crf.forbid(scores, allowed)
        mask = batch["token_weights"] > 0
        ends = _at_ends(mask, batch["opens"], batch["closes"])
        logits = logits.astype(jnp.float32)
        for score, end in zip(scores[1:], ends, strict=True):
            logits += jnp.einsum("...L,C->...LC", end, score)
        chains = (-1, *logits.shape[-2:])
        scores = crf.PathScores(scores.transitions, zeros, zeros)
        return logits.reshape(chains), mask.reshape(-1, mask.shape[-1]), scores


def _at_ends(
    mask: Bool[Array, "B *Q L"], opens: Int[Array, " B"], closes: Int[Array, " B"]
) -> tuple[Float[Array, "B *Q L"], Float[Array, "B *Q L"]]:
    """Returns indicators of the first and the last token of the sentence."""
    count = jnp.cumsum(mask, axis=-1)
    rows = (-1, *(1,) * (mask.ndim - 1))
    first = mask & (count == 1) & (opens.reshape(rows) > 0)
    last = mask & (count == count[..., -1:]) & (closes.reshape(rows) > 0)
    return first.astype(jnp.float32), last.astype(jnp.float32)


def _marginals(
    logits: Float[Array, "N L C"], mask: Bool[Array, "N L"], scores: crf.PathScores
) -> Float[Array, "N L C"]:
    """Returns the probability of each tag of each token over all paths.

    It is the gradient of the log-partition function with respect to the logits.
    """
    return jax.grad(lambda x: jnp.sum(crf.log_partition(x, mask, scores)))(logits)
