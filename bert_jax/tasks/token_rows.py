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
from bert_jax.data.labeled import example_rows
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import entities
from bert_jax.model import crf, network
from bert_jax.tasks import losses, spec, tag_schemes
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


def align(
    text: str,
    tokens: Sequence[data_examples.Span],
    offsets: Sequence[data_examples.Span],
) -> Alignment:
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
    return _alignment(len(tokens), numbers, firsts, reaches)


def _alignment(
    length: int, numbers: list[int], firsts: list[int], reaches: list[int]
) -> Alignment:
    kept = np.array(numbers, np.int64)
    until = np.append(kept[1:], length) if len(kept) else kept
    ends = np.clip(np.array(reaches, np.int64), kept + 1, until)
    return Alignment(length, kept, np.array(firsts, np.int64), ends)


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


@dataclasses.dataclass(eq=False)
class Rows:
    """Builder of the rows of a table.

    Attributes:
      capacity: maximum number of subwords of a sentence in a row.

    Raises:
      InputError: rows have no room besides the special tokens.
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
        self.before = ids.index(-1)  # special tokens in front of a sentence
        if self.capacity < 1:
            raise errors.InputError(
                f"data.max_seq_length {self.max_seq_length} leaves no room "
                f"next to the {len(ids) - 1} special tokens: raise it"
            )

    def encode(self, examples: Sequence[data_examples.TaggedExample]) -> list[Sentence]:
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

    def add(
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
        ones = np.ones(len(ids), np.int32)
        columns = {
            "input_ids": np.array(ids, np.int32),
            "token_type_ids": np.array(types, np.int32),
            "segment_ids": ones,
            "token_positions": filled(aligned.subwords[chosen] + moved, len(ids)),
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
    """Pads the last axis with zeros, as int32.

    >>> filled(np.array([5, 6]), 4)
    array([5, 6, 0, 0], dtype=int32)
    """
    result = np.zeros((*values.shape[:-1], length), np.int32)
    result[..., : values.shape[-1]] = values
    return result


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
    examples: Sequence[data_examples.TaggedExample],
    table: example_rows.ExampleTable,
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


_INDEX_COLUMNS = ("token_numbers", "token_ends", "token_positions")


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


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTags(spec.FineTuned):
    """The traced functions shared by tagging and semantic role labeling.

    Attributes:
      model: the network, with a head of kind `tagger`.
      labels: the tags, in the order of the head's outputs.
      scheme: the scheme of the labels, one of `tag_schemes.SCHEMES` except IOB1.
      max_seq_length: maximum number of subwords in a row, including special tokens.
      recipe: options of the loss; a CRF supports only R-Drop, on its logits.
      constrained: whether a model without a CRF also decodes valid tag sequences only
        (Viterbi over the logits); by default, argmax per token, as in `transformers`.
      repair: whether invalid tags in the data are repaired and counted.

    Raises:
      InputError: the recipe has options that a CRF does not support.
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

        The loss of a CRF is also averaged over tokens. With zero transitions it equals
        the softmax cross-entropy.
        """
        weights = batch["token_weights"]
        if self.recipe.class_weights:
            weights = weights * self._class_weights()[batch["labels"]]
        return {"tag": jnp.sum(weights)}

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the summed loss and the argmax accuracy."""
        weights = batch["token_weights"]

        def divergence(one: spec.Logits, two: spec.Logits) -> Float[Array, ""]:
            divergences = losses.symmetric_kl(one["logits"], two["logits"])
            return jnp.sum(divergences * weights)

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

    def _forward(self, params: PyTree, batch: spec.Batch, key: Array | None) -> Any:
        """Applies the model and gathers `logits` [B, *Q, L, C] at token positions."""
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
        """Returns the inputs of the CRF: one chain per row, or per predicate of a row.

        A window of a longer sentence may start or end with any tag. Start and end
        scores are therefore added to the logits of only those rows that include the
        start or the end of their sentence (`opens`, `closes` [B]).
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
    """Returns indicators of the first and the last token of the sentence."""
    count = jnp.cumsum(mask, axis=-1)
    rows = (-1, *(1,) * (mask.ndim - 1))
    first = mask & (count == 1) & (opens.reshape(rows) > 0)
    last = mask & (count == count[..., -1:]) & (closes.reshape(rows) > 0)
    return first.astype(jnp.float32), last.astype(jnp.float32)


def _marginals(
    logits: Float[Array, "N L C"], mask: Bool[Array, "N L"], scores: crf.Scores
) -> Float[Array, "N L C"]:
    """Returns the probability of each tag of each token over all paths.

    It is the gradient of the log-partition function with respect to the logits.
    """
    return jax.grad(lambda x: jnp.sum(crf.log_partition(x, mask, scores)))(logits)
