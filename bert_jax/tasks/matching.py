"""Matching of texts by their vectors: each is encoded alone and compared by cosine.

Learned from pairs with scores (arXiv:1908.10084, section 3, regression), from pairs
that belong together, where the other texts of the batch are wrong answers
(arXiv:1705.00652, section 4.4, here both ways), or from raw texts, each beside itself
under another dropout (SimCSE, arXiv:2104.08821, section 3).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, example_request, example_rows, text_examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import ranking, scores
from bert_jax.model import network
from bert_jax.tasks import classification, losses, regression, spec
from bert_jax.text.tokenizer import Tokenizer

# Fixed columns: the number of each text, equal for equal ones; whether the pair belongs
# together; the cosine to learn, and 0 where an example says none.
TEXTS, POSITIVE = "texts", "positive"
TARGETS, TARGET_WEIGHTS = "targets", "target_weights"
_TOKENS = ("input_ids", "token_type_ids", "segment_ids")


class MatchingSpec(spec.TaskSpec):
    """Matching of texts by their vectors, as the rest of the package knows it."""

    name = "matching"
    form = example_request.ExampleForm(
        task=name,
        example=data_examples.TextExample,
        formats=(*example_request.TABLES, "space"),
        parts=("text", "text_pair"),
        read=text_examples.text_examples,
        targets=("score", "label"),
        needs_target=False,
        written="(text, text_pair), with a label or score as third, or a text",
    )
    keys = spec.TABLE_KEYS | {
        "data.columns.score",
        "data.labels",
        "data.skip_labels",
        "head.objective",
        "head.temperature",
    }
    metrics = (
        *("spearman", "pearson"),
        *spec.TWO_CLASS_METRICS,
        *("mrr", "recall@1", "recall@5", "recall@10"),
    )
    default_metrics = ("spearman", "accuracy", "mrr")
    threshold_metric = "threshold"
    head_kind = "vectors"
    columns = ("id", "similarity", "label")

    def check(self, settings: spec.Settings) -> None:
        """Raises InputError for a key that the objective does not read or allow."""
        steps, head = settings.run.accumulation_steps, settings.head
        objective = head.objective
        if objective == "cosine" and head.temperature != type(head)().temperature:
            raise errors.InputError(
                f"head.temperature is {head.temperature:g}, which is for "
                "head.objective in_batch and simcse, and it is cosine: leave it out"
            )
        if objective != "cosine" and steps > 1:
            raise errors.InputError(
                f"run.accumulation_steps is {steps}: with head.objective {objective} "
                "the other pairs of the batch are the wrong answers, so it cannot be "
                "computed in parts"
            )

    def learn(
        self,
        settings: spec.Settings,
        examples: Sequence[data_examples.TextExample],
        given: spec.Metadata | None = None,
    ) -> spec.Metadata:
        """Returns the scale of the scores, or the labels of pairs without scores."""
        if any(x.score is not None for x in examples):
            return regression.scale(examples)
        names = classification.configured_labels(settings.data.labels)
        labels = {label for x in examples for label in x.labels or ()}
        return spec.Metadata(
            labels=names or tuple(sorted(labels, key=classification.by_number))
        )

    def build(
        self,
        settings: spec.Settings,
        metadata: spec.Metadata,
        common: Mapping[str, Any],
        recipe: losses.Recipe,
    ) -> "Matching":
        """Returns the task."""
        return Matching(
            **common,
            truncation=settings.data.truncation,
            objective=settings.head.objective,
            lowest=metadata.lowest,
            highest=metadata.highest,
            temperature=settings.head.temperature,
            labels=metadata.labels or ("0", "1"),
            threshold=metadata.threshold,
        )

    def expected_metric(
        self, settings: spec.Settings, metadata: spec.Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns the metric of scores, of labels, or of ranks."""
        by_score, by_label, by_rank = self.default_metrics
        if dev[0].score is not None:
            return by_score
        return by_label if dev[0].labels else by_rank

    def positive(self, settings: spec.Settings, labels: Sequence[str]) -> str:
        """Returns the label of pairs that belong together."""
        return labels[-1] if labels else ""

    def unknown_classes(
        self, examples: Sequence[data_examples.TextExample], labels: tuple[str, ...]
    ) -> dict[int, str]:
        """Returns labels that are not in `labels`."""
        return classification.unknown(examples, labels)

    def rows(self, example: Any, prediction: spec.Prediction) -> list[dict[str, Any]]:
        """Returns the similarity, and the label if a threshold was learned."""
        return [{"label": None} | prediction]


SPEC = MatchingSpec()


@dataclasses.dataclass(frozen=True, eq=False)
class Matching(spec.FineTuned):
    """Similarity of two texts; a `FineTuned` of `TextExample`.

    Attributes:
      model: with a head of kind `vectors`.
      objective: `cosine` learns (score - lowest) / (highest - lowest), or 1 and 0 of a
        label, by squared error. `in_batch` learns to tell the second text of each pair
        from those of the other pairs, and the first; only pairs that belong together
        are learned from, but the texts of the others are wrong answers too. `simcse`
        reads first texts alone.
      lowest, highest: of the training scores.
      temperature: that divides cosines in `in_batch` and `simcse`.
      labels: of pairs; the last one says that they belong together.
      threshold: cosine from which on a pair belongs together; None = it is tuned on
        what is scored, and predictions name no label.
      ranked: whether predictions for pairs that belong together also have the `rank` of
        the second text among all second texts of the examples. A command that decodes a
        file in parts turns it off.

    Raises:
      InputError: a value is unknown or has no meaning.
    """

    model: network.Network
    tokenizer: Tokenizer
    max_seq_length: int
    truncation: str = "longest_first"
    objective: str = "cosine"
    lowest: float = 0.0
    highest: float = 1.0
    temperature: float = 0.05
    labels: tuple[str, ...] = ("0", "1")
    threshold: float | None = None
    ranked: bool = True

    def __post_init__(self) -> None:
        if self.lowest >= self.highest:
            raise errors.InputError(
                f"scores go from {self.lowest:g} to {self.highest:g}: matching by "
                "cosine needs two that differ"
            )
        if len(self.labels) < 2:
            raise errors.InputError(
                f"data.labels names {len(self.labels)} label: matching needs two or "
                "more, of which the last says that two texts belong together"
            )
        bert = self.model.config
        rates = bert.hidden_dropout_prob, bert.attention_probs_dropout_prob
        if self.objective == "simcse" and not any(rates):
            raise errors.InputError(
                "head.objective is 'simcse', which tells two dropouts of a text from "
                "other texts, and the model has none: set model.hidden_dropout_prob"
            )

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a row's loss depends on the other rows of its batch."""
        return self.objective != "cosine"

    def check(
        self,
        train: Sequence[data_examples.TextExample],
        dev: Sequence[data_examples.TextExample],
    ) -> None:
        """Raises InputError for what cannot be learned from, or scored on."""
        for example in train:
            scored = example.score is not None or example.labels is not None
            if self.objective == "cosine" and not scored:
                raise errors.InputError(
                    f"{example.where}: the pair has no score and no label, and "
                    "head.objective is 'cosine': add it, or learn from the pairs alone "
                    "with head.objective=in_batch"
                )
        if self.objective == "in_batch" and not any(map(self._belongs, train)):
            raise errors.InputError(
                f"{train[0].where}: no pair is said to belong together (its label is "
                f"{self.labels[-1]!r}), and head.objective is 'in_batch': name the "
                "labels in data.labels, that one last, or use head.objective=cosine"
            )
        for example in dev:
            _second(example)

    def one_by_one(self) -> "Matching":
        """Returns the task without ranks, which depend on the other examples."""
        return dataclasses.replace(self, ranked=False)

    def table(
        self, examples: Sequence[data_examples.TextExample]
    ) -> example_rows.ExampleTable:
        """Tokenises both texts of each example on their own: rows of shape [2, l].

        A single text, which `simcse` alone takes, stands there twice.

        Raises:
          InputError: a label is unknown, or a row cannot be made.
        """
        both = self._encode([encoding.Text(x.where, x.text) for x in examples])
        paired = [at for at, x in enumerate(examples) if x.text_pair is not None]
        if self.objective != "simcse" and len(paired) < len(examples):
            for example in examples:
                _second(example)
        texts = [encoding.Text(examples[a].where, _second(examples[a])) for a in paired]
        second = self._encode(texts)
        place = {at: number for number, at in enumerate(paired)}
        tokens = {}
        for name, first in both.columns.items():
            other = second.columns[name]
            tokens[name] = [
                _stacked(row, other[place[at]] if at in place else row)
                for at, row in enumerate(first)
            ]
        notes = Counter(both.notes)
        notes.update(second.notes)
        both.coverage.update(second.coverage)
        order = np.arange(len(examples))
        return example_rows.ExampleTable(
            tokens, self._fixed(examples), order, notes, coverage=both.coverage
        )

    def _encode(self, texts: list[encoding.Text]) -> encoding.Encoded:
        return encoding.encode(
            self.tokenizer, texts, self.max_seq_length, self.truncation
        )

    def _fixed(
        self, examples: Sequence[data_examples.TextExample]
    ) -> dict[str, np.ndarray]:
        number: dict[str, int] = {}
        texts = [
            [number.setdefault(t, len(number)) for t in (x.text, x.text_pair or x.text)]
            for x in examples
        ]
        targets = [self._target(x) for x in examples]
        return {
            TEXTS: np.array(texts, np.int32).reshape(-1, 2),
            POSITIVE: np.array([self._belongs(x) for x in examples], np.float32),
            TARGETS: np.array([t or 0.0 for t in targets], np.float32),
            TARGET_WEIGHTS: np.array([t is not None for t in targets], np.float32),
        }

    def _target(self, example: data_examples.TextExample) -> float | None:
        """Returns the cosine that the example asks for."""
        if example.score is not None:
            return (example.score - self.lowest) / (self.highest - self.lowest)
        return None if example.labels is None else float(self._belongs(example))

    def _belongs(self, example: data_examples.TextExample) -> bool:
        """Says whether a pair belongs together: by its label, or as it has nothing."""
        if example.labels is None:
            return example.score is None
        for label in example.labels:
            if label not in self.labels:
                raise classification.unknown_label(example.where, label, self.labels)
        return self.labels[-1] in example.labels

    def prepare(self, batch: spec.Batch, key: Array) -> spec.Batch:
        """Puts the first text into both places for `simcse`; nothing is drawn."""
        del key  # dropout alone is random
        if self.objective != "simcse":
            return batch
        twice = {
            name: jnp.repeat(batch[name][:, :1], 2, axis=1)
            for name in (*_TOKENS, TEXTS)
        }
        return {**batch, **twice, POSITIVE: jnp.ones_like(batch[POSITIVE])}

    def weights(self, batch: spec.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of pairs that are learned from."""
        return {"matching": jnp.sum(self._row_weights(batch))}

    def _row_weights(self, batch: spec.Batch) -> Float[Array, " B"]:
        name = TARGET_WEIGHTS if self.objective == "cosine" else POSITIVE
        return batch[example_rows.WEIGHTS] * batch[name]

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the summed loss and the metrics, with dropout from the key."""
        result = self.model.apply(params, batch, dropout_key=key)["vectors"]
        vectors, weights = normalised(result), self._row_weights(batch)
        first, second = vectors[:, 0], vectors[:, 1]
        if self.objective == "cosine":
            cosines = jnp.sum(first * second, axis=-1)
            error = jnp.sum(jnp.square(cosines - batch[TARGETS]) * weights)
            return {"matching": error}, {"squared_error": (error, jnp.sum(weights))}
        logits = first @ second.T / self.temperature
        texts, real = batch[TEXTS], batch[example_rows.WEIGHTS] > 0
        positive = batch[POSITIVE] > 0
        wrong = wrong_answers(texts[:, 0], texts[:, 1], real, positive)
        losses, hits = contrast(logits, wrong)
        if self.objective == "in_batch":
            back = wrong_answers(texts[:, 1], texts[:, 0], real, positive)
            losses = (losses + contrast(logits.T, back)[0]) / 2
        sums = {"in_batch_accuracy": (jnp.sum(hits * weights), jnp.sum(weights))}
        return {"matching": jnp.sum(losses * weights)}, sums

    def predict(self, params: PyTree, batch: spec.Batch) -> dict[str, Array]:
        """Computes `vectors` [B, 2, D]."""
        outputs = self.model.apply(params, batch, dropout_key=None)
        return {"vectors": outputs["vectors"]}

    def decode(
        self,
        examples: Sequence[data_examples.TextExample],
        table: example_rows.ExampleTable,
        outputs: spec.Outputs,
    ) -> list[spec.Prediction]:
        """Returns `id` and `similarity`, with a threshold `label`, and any `rank`.

        Raises:
          InputError: an example has no second text.
        """
        for example in examples:
            _second(example)
        vectors = ranking.normalized(np.stack(outputs["vectors"]))
        cosines = np.sum(vectors[:, 0] * vectors[:, 1], axis=-1)
        ranks: dict[int, int] = {}
        if self.ranked:
            fixed = table.fixed
            ranks = ranking.ranks(vectors, fixed[TEXTS], fixed[POSITIVE] > 0)
        result = []
        for at, example in enumerate(examples):
            # As float32 is spelt: no digits that it does not have.
            prediction = {"id": example.id, "similarity": float(str(cosines[at]))}
            if self.threshold is not None:
                prediction["label"] = self._label(cosines[at] >= self.threshold)
            result.append(prediction | ({"rank": ranks[at]} if at in ranks else {}))
        return result

    def _label(self, belongs: bool | np.bool_) -> str:
        """Returns the name of a decision; of several others, `not` the last one."""
        if belongs:
            return self.labels[-1]
        return self.labels[0] if len(self.labels) == 2 else f"not {self.labels[-1]}"

    def score(
        self,
        examples: Sequence[data_examples.TextExample],
        predictions: Sequence[spec.Prediction],
    ) -> scores.Scores:
        """Compares similarities with scores, labels and other texts.

        See `metrics.ranking.score`.
        """
        similarities = np.array([result["similarity"] for result in predictions])
        return ranking.score(
            ranking.Pairs(
                tuple(x.where for x in examples),
                tuple((x.text, _second(x)) for x in examples),
                tuple(x.score for x in examples),
                tuple(None if x.labels is None else self._belongs(x) for x in examples),
                tuple(
                    result["rank"] if "rank" in result else None
                    for result in predictions
                ),
            ),
            similarities,
            (self._label(False), self._label(True)),
            self.threshold,
        )


def _second(example: data_examples.TextExample) -> str:
    """Returns the second text; raises InputError where there is none."""
    if example.text_pair is None:
        raise errors.SettingError(
            f"{example.where}: there is no second text to compare with",
            "name its column in data.columns.text_pair; only head.objective=simcse "
            "learns from single texts, and it too is scored on pairs",
            "give a pair of texts; of a file, name the column of the second "
            "(python -m bert_jax.predict and evaluate: --columns=text_pair=NAME)",
        )
    return example.text_pair


def _stacked(first: np.ndarray, second: np.ndarray) -> Int[np.ndarray, "2 l"]:
    """Returns both rows, the shorter one filled with zeros."""
    result = np.zeros((2, max(len(first), len(second))), first.dtype)
    result[0, : len(first)], result[1, : len(second)] = first, second
    return result


def normalised(vectors: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Returns vectors of length 1; those of no length stay 0, with no gradient."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))


def wrong_answers(
    asked: Int[Array, " B"],
    answers: Int[Array, " B"],
    is_real: Bool[Array, " B"],
    is_positive: Bool[Array, " B"],
) -> Bool[Array, "B B"]:
    """Says of each [question, answer] of a batch whether that answer is a wrong one.

    It is not where the row only fills the batch, or the answer's text is that of the
    right one or of the question, or is right for an equal question in another row.

    Args:
      asked, answers: numbers of the texts.
      is_positive: whether row and answer belong together.
    """
    is_same = answers[None, :] == answers[:, None]
    is_itself = answers[None, :] == asked[:, None]
    is_answered = (asked[None, :] == asked[:, None]) & is_positive[None, :]
    # Right for the question in some row: that row's answer has the same text.
    is_right = (is_answered.astype(jnp.float32) @ is_same.astype(jnp.float32)) > 0
    return is_real[None, :] & ~(is_same | is_itself | is_right)


def contrast(
    logits: Float[Array, "B B"], is_wrong: Bool[Array, "B B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Returns -log softmax of each row's own answer among wrong ones, and the hits."""
    own = jnp.eye(logits.shape[0], dtype=bool)
    logits = jnp.where(own | is_wrong, logits, -jnp.inf)
    right: Any = jnp.diagonal(logits)
    hits = jnp.argmax(logits, axis=1) == jnp.arange(logits.shape[0])
    return jax.nn.logsumexp(logits, axis=1) - right, hits.astype(jnp.float32)
