"""Text matching: each text is encoded separately, and pairs are compared by cosine.

The training objectives are regression on scored pairs (arXiv:1908.10084, section 3),
in-batch negatives on matching pairs (arXiv:1705.00652, section 4.4, here in both
directions), and SimCSE on single texts, which are paired with themselves under another
dropout mask (arXiv:2104.08821, section 3).
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, text_examples
from bert_jax.data.labeled.example_rows import WEIGHTS, ExampleTable
from bert_jax.data.labeled.examples import TABLES, ExampleForm, TextExample
from bert_jax.metrics import numbers
from bert_jax.metrics.scores import Scores
from bert_jax.tasks import class_names, regression, spec
from bert_jax.tasks.spec import (
    Batch,
    Logits,
    Metadata,
    Outputs,
    Prediction,
    Settings,
    Sums,
    TaskSpec,
    TextTask,
)

Examples = Sequence[TextExample]

# Fixed columns: text ids, equal for equal texts; whether the pair matches; the target
# cosine and its weight, both 0 if the example has no target.
TEXTS, POSITIVE = "texts", "positive"
TARGETS, TARGET_WEIGHTS = "targets", "target_weights"
_TOKENS = ("input_ids", "token_type_ids", "segment_ids")


class MatchingSpec(TaskSpec):
    """Task specification of text matching."""

    name = "matching"
    form = ExampleForm(
        task=name,
        example=TextExample,
        formats=(*TABLES, "space"),
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

    def check(self, settings: Settings) -> None:
        """Raises InputError for a key that the objective does not read or allow."""
        steps, head = settings.run.accumulation_steps, settings.head
        objective = head.objective
        if objective == "cosine" and head.temperature != type(head)().temperature:
            raise errors.InputError(
                f"head.temperature is {head.temperature:g}, but only the objectives "
                "in_batch and simcse use it, and head.objective is cosine: leave it out"
            )
        if objective != "cosine" and steps > 1:
            raise errors.InputError(
                f"run.accumulation_steps is {steps}: with head.objective {objective} "
                "the other pairs of the batch are the negatives, so the batch cannot "
                "be split"
            )

    def learn(
        self, settings: Settings, examples: Examples, given: Metadata | None = None
    ) -> Metadata:
        """Returns the scale of the scores, or the labels of pairs without scores."""
        if any(x.score is not None for x in examples):
            return regression.scale(examples)
        names = class_names.configured(settings.data.labels)
        labels = {label for x in examples for label in x.labels or ()}
        return Metadata(
            labels=names or tuple(sorted(labels, key=class_names.by_number))
        )

    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> "Matching":
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
        self, settings: Settings, metadata: Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns the default metric for scores, labels or ranks."""
        by_score, by_label, by_rank = self.default_metrics
        if dev[0].score is not None:
            return by_score
        return by_label if dev[0].labels else by_rank

    def positive(self, settings: Settings, labels: Sequence[str]) -> str:
        """Returns the label of matching pairs."""
        return labels[-1] if labels else ""

    def unknown_classes(
        self, examples: Examples, labels: tuple[str, ...]
    ) -> dict[int, str]:
        """Returns labels that are not in `labels`."""
        return class_names.unknown(examples, labels)

    def rows(self, example: Any, prediction: Prediction) -> list[dict[str, Any]]:
        """Returns the similarity, and the label if a threshold was learned."""
        return [{"label": None} | prediction]


SPEC = MatchingSpec()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Matching(TextTask):
    """Similarity of two texts.

    Attributes:
      objective: `cosine` regresses the cosine to (score - lowest) / (highest - lowest),
        or to 1 or 0 by label. `in_batch` classifies the second text of each matching
        pair among the second texts of the batch, and the first among the first; texts
        of pairs that do not match serve as negatives only. `simcse` uses only the
        first texts.
      lowest, highest: range of the training scores.
      temperature: divisor of the cosines in `in_batch` and `simcse`.
      labels: the labels of pairs; the last one marks matching pairs.
      threshold: minimum cosine of a matching pair; None = it is tuned on the scored
        examples, and predictions have no label.
      ranked: whether predictions for matching pairs include the `rank` of the second
        text among all second texts. It is off when a file is decoded in chunks.

    Raises:
      InputError: there are fewer than two labels, or `simcse` is used without dropout.
    """

    loss_name = "matching"
    objective: str = "cosine"
    lowest: float = 0.0
    highest: float = 1.0
    temperature: float = 0.05
    labels: tuple[str, ...] = ("0", "1")
    threshold: float | None = None
    ranked: bool = True

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise errors.InputError(
                f"data.labels has {len(self.labels)} label: matching needs two or "
                "more, of which the last marks matching pairs"
            )
        bert = self.model.config
        rates = bert.hidden_dropout_prob, bert.attention_probs_dropout_prob
        if self.objective == "simcse" and not any(rates):
            raise errors.InputError(
                "head.objective is 'simcse', which needs dropout, but the model has "
                "none: set model.hidden_dropout_prob"
            )

    def check(self, train: Examples, dev: Examples) -> None:
        for example in train:
            scored = example.score is not None or example.labels is not None
            if self.objective == "cosine" and not scored:
                raise errors.InputError(
                    f"{example.where}: the pair has no score and no label, and "
                    "head.objective is 'cosine': add one of them, or use "
                    "head.objective=in_batch, which needs only pairs"
                )
        if self.objective == "in_batch" and not any(map(self._is_match, train)):
            raise errors.InputError(
                f"{train[0].where}: no pair has the label {self.labels[-1]!r} of "
                "matching pairs, and head.objective is 'in_batch': list the labels in "
                "data.labels, the matching one last, or use head.objective=cosine"
            )
        for example in dev:
            _second(example)

    def one_by_one(self) -> "Matching":
        """Returns the task without ranks, which depend on the other examples."""
        return dataclasses.replace(self, ranked=False)

    def table(self, examples: Examples) -> ExampleTable:
        """Tokenizes both texts of each example separately, into rows [2, l].

        A single text, which only `simcse` accepts, is used twice.
        """
        paired = [at for at, x in enumerate(examples) if x.text_pair is not None]
        if self.objective != "simcse":
            paired = list(range(len(examples)))
        texts = [encoding.Text(examples[a].where, _second(examples[a])) for a in paired]
        both = self.encode([encoding.Text(x.where, x.text) for x in examples])
        second = self.encode(texts)
        second_row = {at: number for number, at in enumerate(paired)}
        tokens = {}
        for name, first in both.columns.items():
            other = second.columns[name]
            tokens[name] = [
                spec.stacked(
                    (row, other[second_row[at]] if at in second_row else row), 2
                )
                for at, row in enumerate(first)
            ]
        notes = Counter(both.notes)
        notes.update(second.notes)
        both.coverage.update(second.coverage)
        return dataclasses.replace(
            self.table_of(both, self._fixed(examples), tokens), notes=notes
        )

    def _fixed(self, examples: Examples) -> dict[str, np.ndarray]:
        number: dict[str, int] = {}
        texts = [
            [number.setdefault(t, len(number)) for t in (x.text, x.text_pair or x.text)]
            for x in examples
        ]
        targets = [self._target(x) for x in examples]
        return {
            TEXTS: np.array(texts, np.int32).reshape(-1, 2),
            POSITIVE: np.array([self._is_match(x) for x in examples], np.float32),
            TARGETS: np.array([t or 0.0 for t in targets], np.float32),
            TARGET_WEIGHTS: np.array([t is not None for t in targets], np.float32),
        }

    def _target(self, example: TextExample) -> float | None:
        """Returns the target cosine of an example, if any."""
        if example.score is not None:
            return (example.score - self.lowest) / (self.highest - self.lowest)
        return None if example.labels is None else float(self._is_match(example))

    def _is_match(self, example: TextExample) -> bool:
        """Returns whether a pair matches; pairs without label and score do."""
        if example.labels is None:
            return example.score is None
        for label in example.labels:
            if label not in self.labels:
                raise class_names.unknown_label(example.where, label, self.labels)
        return self.labels[-1] in example.labels

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Pairs the first text with itself for `simcse`; otherwise does nothing."""
        del key  # only dropout is random
        if self.objective != "simcse":
            return batch
        twice = {
            name: jnp.repeat(batch[name][:, :1], 2, axis=1)
            for name in (*_TOKENS, TEXTS)
        }
        return {**batch, **twice, POSITIVE: jnp.ones_like(batch[POSITIVE])}

    def loss_weights(self, batch: Batch) -> Float[Array, " B"]:
        """Returns which pairs have a loss."""
        name = TARGET_WEIGHTS if self.objective == "cosine" else POSITIVE
        return batch[WEIGHTS] * batch[name]

    def loss(self, outputs: Logits, batch: Batch) -> tuple[Float[Array, ""], Sums]:
        vectors, weights = normalized(outputs["vectors"]), self.loss_weights(batch)
        first, second = vectors[:, 0], vectors[:, 1]
        if self.objective == "cosine":
            cosines = jnp.sum(first * second, axis=-1)
            error = jnp.sum(jnp.square(cosines - batch[TARGETS]) * weights)
            return error, {"squared_error": (error, jnp.sum(weights))}
        logits = first @ second.T / self.temperature
        texts, real = batch[TEXTS], batch[WEIGHTS] > 0
        positive = batch[POSITIVE] > 0
        wrong = wrong_answers(texts[:, 0], texts[:, 1], real, positive)
        losses, hits = contrast(logits, wrong)
        if self.objective == "in_batch":
            back = wrong_answers(texts[:, 1], texts[:, 0], real, positive)
            losses = (losses + contrast(logits.T, back)[0]) / 2
        sums = {"in_batch_accuracy": (jnp.sum(hits * weights), jnp.sum(weights))}
        return jnp.sum(losses * weights), sums

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Array]:
        """Computes `vectors` [B, 2, D]."""
        return {"vectors": self.forward(params, batch, None)["vectors"]}

    def decode(
        self, examples: Examples, table: ExampleTable, outputs: Outputs
    ) -> list[Prediction]:
        """Returns `id` and `similarity`, any `rank`, and `label` if `threshold` is set.

        Raises:
          InputError: an example has no second text.
        """
        for example in examples:
            _second(example)
        vectors = numbers.normalized(np.stack(outputs["vectors"]))
        cosines = np.sum(vectors[:, 0] * vectors[:, 1], axis=-1)
        ranks: dict[int, int] = {}
        if self.ranked:
            fixed = table.fixed
            ranks = numbers.ranks(vectors, fixed[TEXTS], fixed[POSITIVE] > 0)
        result = []
        for at, example in enumerate(examples):
            # The shortest text that rounds to the float32.
            prediction = {"id": example.id, "similarity": float(str(cosines[at]))}
            if self.threshold is not None:
                prediction["label"] = self._label(cosines[at] >= self.threshold)
            result.append(prediction | ({"rank": ranks[at]} if at in ranks else {}))
        return result

    def _label(self, is_match: bool | np.bool_) -> str:
        """Returns the label of a decision; "not X" if several labels do not match."""
        if is_match:
            return self.labels[-1]
        return self.labels[0] if len(self.labels) == 2 else f"not {self.labels[-1]}"

    def score(self, examples: Examples, predictions: Sequence[Prediction]) -> Scores:
        """Compares similarities with the labels; see `metrics.numbers.score_pairs`."""
        is_match = [None if x.labels is None else self._is_match(x) for x in examples]
        ranks = [one["rank"] if "rank" in one else None for one in predictions]
        pairs = numbers.Pairs(
            where=tuple(x.where for x in examples),
            texts=tuple((x.text, _second(x)) for x in examples),
            scores=tuple(x.score for x in examples),
            belong=tuple(is_match),
            ranks=tuple(ranks),
        )
        return numbers.score_pairs(
            pairs,
            np.array([result["similarity"] for result in predictions]),
            (self._label(False), self._label(True)),
            self.threshold,
        )


def _second(example: TextExample) -> str:
    """Returns the second text; raises InputError where there is none."""
    if example.text_pair is None:
        raise errors.SettingError(
            f"{example.where}: the example has no second text",
            "set data.columns.text_pair to its column; only head.objective=simcse "
            "trains on single texts, and it too is evaluated on pairs",
            "pass pairs of texts; for a file, name the column of the second text "
            "(python -m bert_jax.predict and evaluate: --columns=text_pair=NAME)",
        )
    return example.text_pair


def normalized(vectors: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Scales vectors to length 1; zero vectors stay 0 and have no gradient."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))


def wrong_answers(
    asked: Int[Array, " B"],
    answers: Int[Array, " B"],
    is_real: Bool[Array, " B"],
    is_positive: Bool[Array, " B"],
) -> Bool[Array, "B B"]:
    """Returns which [question, answer] pairs of a batch are negatives.

    Not negatives: padding rows, answers equal to the question or to its positive, and
    positives of an equal question in another row.

    Args:
      asked, answers: text ids of the questions and answers.
      is_real: False for padding rows.
      is_positive: whether the question and answer of a row match.
    """
    is_same = answers[None, :] == answers[:, None]
    is_itself = answers[None, :] == asked[:, None]
    is_answered = (asked[None, :] == asked[:, None]) & is_positive[None, :]
    # Positive in some row with the same question and the same answer text.
    is_right = (is_answered.astype(jnp.float32) @ is_same.astype(jnp.float32)) > 0
    return is_real[None, :] & ~(is_same | is_itself | is_right)


def contrast(
    logits: Float[Array, "B B"], is_wrong: Bool[Array, "B B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Returns the softmax loss of each row's own answer against negatives, and hits."""
    own = jnp.eye(logits.shape[0], dtype=bool)
    logits = jnp.where(own | is_wrong, logits, -jnp.inf)
    right: Any = jnp.diagonal(logits)
    hits = jnp.argmax(logits, axis=1) == jnp.arange(logits.shape[0])
    return jax.nn.logsumexp(logits, axis=1) - right, hits.astype(jnp.float32)
