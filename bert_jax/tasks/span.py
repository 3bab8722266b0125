"""Extractive question answering: an answer is a stretch of its context, or none.

Each token is scored as the first and as the last of the answer (arXiv:1810.04805,
sections 4.2 and 4.3). A context with several windows is answered by the best span of
all of them. Questions may have no answer: that is the span of [CLS].
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import examples as data_examples
from bert_jax.data.labeled import labelled_rows
from bert_jax.metrics import scores, spans
from bert_jax.model import task_model
from bert_jax.tasks import classification, losses, model_task, task, windows
from bert_jax.tasks import recipe as recipes
from bert_jax.text import tokenizer as tokenizers

NO_ANSWER = "(no answer)"


@dataclasses.dataclass(frozen=True, eq=False)
class Span(model_task.ModelTask):
    """Answers in contexts; a `task.FineTuned` of `QuestionExample`.

    Attributes:
      model: with a head of kind `span`.
      max_seq_length: the most tokens in a row.
      doc_stride: tokens by which one window begins behind the other.
      doc_overlap: tokens that two windows share; 0 leaves it to `doc_stride`.
      max_query_length: tokens of a question that are kept.
      max_answer_length: tokens of the longest answer that is given.
      n_best: how many answers a prediction lists.
      version2: whether a question may have no answer.
      null_threshold: none is given where its score is more than this above that of the
        best answer; `score` finds the best one.
      language: the language whose rules compare answers; see `metrics.spans`.
    """

    model: task_model.TaskModel
    tokenizer: tokenizers.Tokenizer
    max_seq_length: int
    doc_stride: int = 128
    doc_overlap: int = 0
    max_query_length: int = 64
    max_answer_length: int = 30
    n_best: int = 20
    version2: bool = False
    null_threshold: float = 0.0
    language: str = "auto"
    recipe: recipes.Recipe = recipes.Recipe()

    def table(
        self, examples: Sequence[data_examples.QuestionExample]
    ) -> labelled_rows.Table:
        """Tokenises examples into windows with labels; see `windows.Windows.table`.

        Raises:
          InputError: a context has no token, or rows are too short for it.
        """
        made = windows.Windows(
            self.tokenizer,
            self.max_seq_length,
            self.doc_stride,
            self.max_query_length,
            self.max_answer_length,
            self.doc_overlap,
        )
        return made.table(examples)

    def weights(self, batch: task.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of rows with a label."""
        return {"span": jnp.sum(_weights(batch))}

    def losses(
        self, params: PyTree, batch: task.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], task.Sums]:
        """Returns the summed loss, and how often both ends are hit, with dropout."""
        weights = _weights(batch)

        def divergence(one: recipes.Outputs, two: recipes.Outputs) -> Float[Array, ""]:
            pairs = zip(_ends(one, batch), _ends(two, batch), strict=True)
            apart: Any = sum(losses.symmetric_kl(*pair) for pair in pairs)
            return jnp.sum(0.5 * apart * weights)

        total, outputs = recipes.loss(
            self.recipe.r_drop,
            lambda k: classification.forward(self.model, params, batch, k),
            lambda made: jnp.sum(self._row_losses(made, batch) * weights),
            divergence,
            key,
        )
        hits = _hits(outputs, batch)
        return {"span": total}, {"accuracy": (jnp.sum(hits * weights), weights.sum())}

    def _row_losses(
        self, outputs: recipes.Outputs, batch: task.Batch
    ) -> Float[Array, " B"]:
        """Returns the mean of both ends' losses."""
        start, end = (
            losses.class_losses(
                logits,
                labels,
                smoothing=self.recipe.label_smoothing,
                focal_gamma=self.recipe.focal_gamma,
                allowed=batch["segment_ids"] > 0,
            )
            for logits, labels in zip(
                _ends(outputs, batch), _labels(batch), strict=True
            )
        )
        return 0.5 * (start + end)

    def predict(self, params: PyTree, batch: task.Batch) -> dict[str, Array]:
        """Computes `start` and `end` [B, L]: logits, masked where no answer may be."""
        outputs = classification.forward(self.model, params, batch, None)
        allowed = batch["char_starts"] < batch["char_ends"]
        if self.version2:
            allowed |= jnp.arange(allowed.shape[1])[None, :] == 0
        start, end = _ends(outputs, batch)
        return {
            "start": losses.masked(start, allowed),
            "end": losses.masked(end, allowed),
        }

    def decode(
        self,
        examples: Sequence[data_examples.QuestionExample],
        table: labelled_rows.Table,
        outputs: task.Outputs,
    ) -> list[task.Prediction]:
        """Returns what is answered, and the `n_best` answers.

        `id`, `answer` ("" for none), `start` and `end`, its characters in the context
        (None for none), `probability`, that of the answer or of none among all of
        `n_best` and none; `n_best`, the best first, each with `text`, `start`, `end`,
        `score` and `probability`; `score` of the first of them, and `null_score`, that
        of none (None where there is always an answer).

        Raises:
          NotFiniteError: the model has diverged.
        """
        found: dict[int, list[Candidate]] = collections.defaultdict(list)
        nulls = np.full(len(examples), np.inf)
        for row, at in enumerate(table.examples):
            start, end = outputs["start"][row], outputs["end"][row]
            nulls[at] = min(nulls[at], float(start[0]) + float(end[0]))
            found[at] += self._candidates(examples[at], table, row, start, end)
        return [
            self._prediction(example, found[at], float(nulls[at]))
            for at, example in enumerate(examples)
        ]

    def _candidates(
        self,
        example: data_examples.QuestionExample,
        table: labelled_rows.Table,
        row: int,
        start: Float[np.ndarray, " l"],
        end: Float[np.ndarray, " l"],
    ) -> list["Candidate"]:
        """Returns the best answers of a row."""
        starts, ends = (table.tokens[f"char_{x}s"][row] for x in ("start", "end"))
        start, end = start[: len(starts)], end[: len(starts)]
        if not (np.isfinite(start).all() and np.isfinite(end).all()):
            scores.check([example.where], np.array([np.nan]))
        best = best_spans(
            start, end, starts < ends, self.max_answer_length, self.n_best
        )
        return [
            Candidate(score, int(starts[first]), int(ends[last]))
            for first, last, score in best
        ]

    def _prediction(
        self,
        example: data_examples.QuestionExample,
        found: list["Candidate"],
        null_score: float,
    ) -> task.Prediction:
        kept: dict[str, Candidate] = {}
        for one in sorted(found, key=lambda x: (-x.score, x.start, x.end)):
            kept.setdefault(example.context[one.start : one.end], one)
        best = list(kept.items())[: self.n_best]
        every = [one.score for _, one in best] + [null_score] * self.version2
        odds = _softmax(np.array(every))
        n_best: list[dict[str, Any]] = [
            {"text": text, **dataclasses.asdict(one), "probability": odds[at]}
            for at, (text, one) in enumerate(best)
        ]
        first = n_best[0]
        none = self.version2 and null_score - first["score"] > self.null_threshold
        return {
            "id": example.id,
            "answer": "" if none else first["text"],
            "start": None if none else first["start"],
            "end": None if none else first["end"],
            "score": first["score"],
            "null_score": null_score if self.version2 else None,
            "probability": odds[-1] if none else first["probability"],
            "n_best": n_best,
        }

    def score(
        self,
        examples: Sequence[data_examples.QuestionExample],
        predictions: Sequence[task.Prediction],
    ) -> scores.Scores:
        """Compares answers by the published rules; metrics as in `spans.AnswerScores`.

        Raises:
          InputError: there is no example, or one is not labelled.
        """
        judged = [_judged(*pair) for pair in zip(examples, predictions, strict=True)]
        result = spans.evaluate(judged, self.language)
        confidences = np.array([made["probability"] for made in predictions])
        severity = confidences * (1.0 - result.f1)
        wrong = np.flatnonzero(result.exact_match == 0)
        worst = scores.worst(
            {int(at): float(severity[at]) for at in wrong},
            [example.where for example in examples],
            [example.question for example in examples],
            lambda at: " / ".join(dict.fromkeys(judged[at].answers)) or NO_ANSWER,
            lambda at: judged[at].predicted or NO_ANSWER,
        )
        sure = scores.Confidences(confidences, result.exact_match)
        return scores.Scores(result.metrics, confidences=sure, errors=worst)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An answer that is possible: characters [start, end) of the context."""

    score: float
    start: int
    end: int


def best_spans(
    start: Float[np.ndarray, " l"],
    end: Float[np.ndarray, " l"],
    allowed: Bool[np.ndarray, " l"],
    longest: int,
    count: int,
) -> list[tuple[int, int, float]]:
    """Returns the spans (first, last, score) of a row, the best first.

    All spans whose ends are allowed are compared, not only the best `count` ends.

    Args:
      start: score of each token as the first; `end` as the last.
      longest: the most tokens of a span.
      count: how many spans are returned at most.
    """
    firsts = np.flatnonzero(allowed)
    width = min(longest, len(end))
    ends = np.where(allowed, end.astype(np.float64), -np.inf)
    ends = np.append(ends, np.full(width - 1, -np.inf))
    windowed = np.lib.stride_tricks.sliding_window_view(ends, width)[firsts]
    totals = (start[firsts].astype(np.float64)[:, None] + windowed).reshape(-1)
    kept = min(count, len(totals))
    best = np.argpartition(-totals, kept - 1)[:kept]
    best = best[np.lexsort((best, -totals[best]))]
    best = best[totals[best] > -np.inf]
    rows, steps = np.divmod(best, width)
    return [
        (int(firsts[row]), int(firsts[row] + step), float(total))
        for row, step, total in zip(rows, steps, totals[best], strict=True)
    ]


def _judged(
    example: data_examples.QuestionExample, made: task.Prediction
) -> spans.AnsweredQuestion:
    if not example.labelled:
        raise errors.InputError(
            f"{example.where}: the file does not say what the answer is: give one with "
            "answers to score"
        )
    null = made["null_score"]
    return spans.AnsweredQuestion(
        example.gold or tuple(answer.text for answer in example.answers),
        made["answer"],
        made["n_best"][0]["text"],
        None if null is None else null - made["score"],
    )


def _weights(batch: task.Batch) -> Float[Array, " B"]:
    return batch[labelled_rows.WEIGHTS] * batch["label_weights"]


def _labels(batch: task.Batch) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    return batch["start_positions"], batch["end_positions"]


def _ends(
    outputs: recipes.Outputs, batch: task.Batch
) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """Returns the logits of the first and of the last token, without padding."""
    logits, is_token = outputs["logits"], batch["segment_ids"] > 0
    start, end = (losses.masked(logits[..., at], is_token) for at in (0, 1))
    return start, end


def _hits(outputs: recipes.Outputs, batch: task.Batch) -> Float[Array, " B"]:
    """Returns 1 where both ends are those of the label."""
    start, end = (
        jnp.argmax(logits, axis=-1) == labels
        for logits, labels in zip(_ends(outputs, batch), _labels(batch), strict=True)
    )
    return (start & end).astype(jnp.float32)


def _softmax(logits: Float[np.ndarray, " n"]) -> list[float]:
    odds = np.exp(logits - logits.max())
    return [round(float(x), 6) for x in odds / odds.sum()]
