"""Extractive question answering: the answer is a span of the context, if any.

Each token is scored as the start and the end of the answer (arXiv:1810.04805, sections
4.2 and 4.3). If a context has several windows, the best span over all of them is the
answer. The span of [CLS] means that the question has no answer.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import question_examples
from bert_jax.data.labeled.example_rows import WEIGHTS, ExampleTable
from bert_jax.data.labeled.examples import ExampleForm, QuestionExample
from bert_jax.metrics import scores, spans
from bert_jax.tasks import losses, spec, token_rows
from bert_jax.tasks.spec import (
    Batch,
    FineTuned,
    Logits,
    Metadata,
    Outputs,
    Prediction,
    Settings,
    Sums,
    TaskSpec,
)
from bert_jax.text.tokenizer import Tokenizer

Examples = Sequence[QuestionExample]

QUESTIONS_CUT = "truncated questions"
EMPTY = "questions without tokens"
SEVERAL = "contexts split into windows"
MOVED = "answers not aligned with token boundaries"
TOO_LONG = "answers longer than the longest that can be predicted"
IN_NO_WINDOW = "answers that fit in no window"
WITHOUT_TOKEN = "answers without tokens, not used in training"
_NOTES = (
    *(QUESTIONS_CUT, EMPTY, SEVERAL),
    *(MOVED, TOO_LONG, IN_NO_WINDOW, WITHOUT_TOKEN),
)


class SpanSpec(TaskSpec):
    """Task specification of extractive question answering."""

    name = "span"
    form = ExampleForm(
        task=name,
        example=QuestionExample,
        formats=("squad", "jsonl", "parquet", "tfds"),
        parts=("question", "context"),
        read=question_examples.of_records,
        written="(question, context, answers)",
    )
    keys = spec.CLASS_KEYS | {
        "data.doc_stride",
        "data.doc_overlap",
        "data.max_answer_length",
    }
    cleans_text = False
    metrics = tuple(
        f"{of}{name}"
        for of in ("", "has_answer_", "no_answer_", "best_")
        for name in ("exact_match", "f1")
    )
    default_metrics = ("f1",)
    threshold_metric = "best_f1_threshold"
    head_kind = "span"
    columns = ("id", "answer", "start", "end", "probability")
    formats = ("squad",)
    one_row_each = False

    def learn(
        self, settings: Settings, examples: Examples, given: Metadata | None = None
    ) -> Metadata:
        """Returns whether a question may have no answer."""
        return Metadata(impossible=any(x.impossible for x in examples))

    def classes(self, metadata: Metadata) -> int:
        """Returns 2: the start and the end of an answer."""
        return 2

    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> "Span":
        data = settings.data
        return Span(
            **common,
            doc_stride=data.doc_stride,
            doc_overlap=data.doc_overlap,
            max_answer_length=data.max_answer_length,
            version2=metadata.impossible,
            null_threshold=metadata.threshold or 0.0,
        )


SPEC = SpanSpec()


@dataclasses.dataclass(frozen=True, eq=False)
class ContextTokens:
    """The tokens of a context, and the characters [start, end) of each.

    The spans exclude surrounding white space. A token of white space only has an empty
    span and cannot start or end an answer.
    """

    ids: list[int]
    starts: Int[np.ndarray, " n"]
    ends: Int[np.ndarray, " n"]

    def covering(self, start: int, end: int) -> tuple[int, int] | None:
        """Returns the first and last token that overlap [start, end), if any."""
        found = np.flatnonzero(
            (self.starts < end) & (self.ends > start) & (self.starts < self.ends)
        )
        return (int(found[0]), int(found[-1])) if len(found) else None


def tokenize_contexts(
    tokenizer: Tokenizer, contexts: Sequence[str]
) -> dict[str, ContextTokens]:
    """Tokenizes each distinct context once."""
    texts = list(dict.fromkeys(contexts))
    result = {}
    for text, (ids, offsets) in zip(
        texts, tokenizer.encode_with_offsets(texts), strict=True
    ):
        bounds = np.array([_stripped(text, *pair) for pair in offsets], np.int64)
        bounds = bounds.reshape(-1, 2)
        result[text] = ContextTokens(ids, bounds[:, 0], bounds[:, 1])
    return result


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns the bounds of text[start:end] without surrounding white space."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _check(example: QuestionExample, context: ContextTokens) -> None:
    if not (context.starts < context.ends).any():
        raise errors.InputError(
            f"{example.where}: the context {example.context[:40]!r} has no "
            "tokens: remove its questions"
        )


def _label(
    example: QuestionExample, context: ContextTokens, notes: dict[str, int]
) -> tuple[tuple[int, int] | None, float]:
    """Returns the first and last token of the answer, if any, and its weight."""
    if not example.answers:
        return None, float(example.labeled)
    answer = example.answers[0]
    end = answer.start + len(answer.text)
    start, end = _stripped(example.context, answer.start, end)
    found = context.covering(start, end)
    if found is None:
        notes[WITHOUT_TOKEN] += 1
        return None, 0.0
    exact = context.starts[found[0]] == start and context.ends[found[1]] == end
    notes[MOVED] += not exact
    return found, 1.0


def _shifted(
    values: Int[np.ndarray, " n"], begin: int, length: int
) -> Int[np.ndarray, " l"]:
    """Returns a row of zeros with the values from `begin` on."""
    result = np.zeros(length, np.int64)
    result[begin : begin + len(values)] = values
    return result


NO_ANSWER = "(no answer)"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Span(FineTuned):
    """Extractive question answering.

    Attributes:
      doc_stride: tokens between the starts of consecutive windows.
      doc_overlap: tokens that consecutive windows share; 0 = use `doc_stride`.
      max_query_length: number of tokens to which questions are truncated.
      max_answer_length: maximum number of tokens of a predicted answer; longer labels
        are counted.
      n_best: the number of answers that a prediction lists.
      version2: whether a question may have no answer.
      null_threshold: the prediction is "no answer" if its score exceeds that of the
        best answer by more than this; `score` finds the best value.
    """

    loss_name = "span"
    doc_stride: int = 128
    doc_overlap: int = 0
    max_query_length: int = 64
    max_answer_length: int = 30
    n_best: int = 20
    version2: bool = False
    null_threshold: float = 0.0

    def table(self, examples: Examples) -> ExampleTable:
        """Tokenizes examples into windows; the first annotated answer is the label.

        Token columns besides the usual three: `char_starts` and `char_ends`, character
        offsets in the context, equal for tokens outside of it. Fixed columns:
        `start_positions` and `end_positions` [n] int32, positions in the row, and
        `label_weights` [n] float32, 0 if the example is unlabeled.

        Raises:
          InputError: a context has no tokens, or rows are too short.
        """
        texts = [example.question for example in examples]
        questions = self.tokenizer.encode(texts)
        contexts = tokenize_contexts(
            self.tokenizer, [example.context for example in examples]
        )
        rows = token_rows.RowBuilder(_NOTES)
        rows.coverage.texts = len(texts)
        rows.coverage.add(texts, questions, self.tokenizer.unk_id)
        ids = (context.ids for context in contexts.values())
        rows.coverage.add(contexts, ids, self.tokenizer.unk_id)
        for at, example in enumerate(examples):
            question = questions[at][: self.max_query_length]
            rows.notes[EMPTY] += not question
            rows.notes[QUESTIONS_CUT] += len(question) < len(questions[at])
            self._add(rows, at, example, question, contexts[example.context])
        rows.coverage.truncated = rows.notes[QUESTIONS_CUT]
        return rows.table()

    def _add(
        self,
        rows: token_rows.RowBuilder,
        at: int,
        example: QuestionExample,
        question: list[int],
        context: ContextTokens,
    ) -> None:
        """Adds the rows of one example."""
        _check(example, context)
        room = self.max_seq_length - len(self.tokenizer.build(question, [])[0])
        if room < 1:
            raise errors.SettingError(
                f"{example.where}: rows of {self.max_seq_length} tokens leave no room "
                f"for the context after a question of {len(question)} tokens",
                "raise data.max_seq_length",
            )
        begin = self.tokenizer.build(question, [-1])[0].index(-1)
        answer, weight = _label(example, context, rows.notes)
        if answer:
            rows.notes[TOO_LONG] += answer[1] - answer[0] >= self.max_answer_length
        in_window = False
        cuts = token_rows.cut(len(context.ids), room, self._step(room))
        for first, last in cuts:
            ids, types = self.tokenizer.build(question, context.ids[first:last])
            start = end = 0
            if answer and first <= answer[0] and answer[1] < last:
                start, end = (begin - first + x for x in answer)
                in_window = True
            tokens = {
                "input_ids": np.array(ids),
                "token_type_ids": np.array(types),
                "segment_ids": np.ones(len(ids), np.int32),
                "char_starts": _shifted(context.starts[first:last], begin, len(ids)),
                "char_ends": _shifted(context.ends[first:last], begin, len(ids)),
            }
            label = {"start_positions": start, "end_positions": end}
            rows.add(at, tokens, label | {"label_weights": weight})
        rows.notes[SEVERAL] += len(cuts) > 1
        rows.notes[IN_NO_WINDOW] += answer is not None and not in_window

    def _step(self, room: int) -> int:
        """Returns the stride of windows of `room` tokens.

        Windows share `doc_overlap` tokens, or half if they are not longer than that.
        """
        if not self.doc_overlap:
            return self.doc_stride
        shared = self.doc_overlap if self.doc_overlap < room else room // 2
        return room - shared

    def loss_weights(self, batch: Batch) -> Float[Array, " B"]:
        """Returns which rows have a label."""
        return batch[WEIGHTS] * batch["label_weights"]

    def loss(self, outputs: Logits, batch: Batch) -> tuple[Float[Array, ""], Sums]:
        """Returns the sum of the means of both losses; the accuracy of whole spans."""
        is_token, ends = batch["segment_ids"] > 0, _ends(outputs, batch)
        start, end = (losses.class_losses(*x, self.recipe, is_token) for x in ends)
        hits = [jnp.argmax(logits, axis=-1) == labels for logits, labels in ends]
        weights = self.loss_weights(batch)
        sums = {"accuracy": (jnp.sum((hits[0] & hits[1]) * weights), jnp.sum(weights))}
        return jnp.sum(0.5 * (start + end) * weights), sums

    def divergence(self, one: Logits, two: Logits, batch: Batch) -> Float[Array, ""]:
        pairs = zip(_ends(one, batch), _ends(two, batch), strict=True)
        each: Any = sum(losses.symmetric_kl(a, b) for (a, _), (b, _) in pairs)
        return jnp.sum(0.5 * each * self.loss_weights(batch))

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Array]:
        """Computes the logits `start` and `end` [B, L]; invalid tokens are masked."""
        outputs = self.forward(params, batch, None)
        allowed = batch["char_starts"] < batch["char_ends"]
        if self.version2:
            allowed |= jnp.arange(allowed.shape[1])[None, :] == 0
        (start, _), (end, _) = _ends(outputs, batch)
        return {
            "start": losses.masked(start, allowed),
            "end": losses.masked(end, allowed),
        }

    def advice(self, longest: int) -> str:
        return (
            f"questions are truncated to {self.max_query_length} tokens; shorten them"
        )

    def decode(
        self, examples: Examples, table: ExampleTable, outputs: Outputs
    ) -> list[Prediction]:
        """Returns the answer and the `n_best` candidates of each question.

        Predictions have `id`; `answer` ("" if there is no answer); its characters
        `start` and `end` in the context (None if no answer); its `probability`, from a
        softmax over `n_best` and "no answer"; `n_best`, sorted by score, each with
        `text`, `start`, `end`, `score` and `probability`; the `score` of the first of
        them; and `null_score`, the score of "no answer" (None unless `version2`).
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
        example: QuestionExample,
        table: ExampleTable,
        row: int,
        start: Float[np.ndarray, " l"],
        end: Float[np.ndarray, " l"],
    ) -> list["Candidate"]:
        """Returns the best candidates of a row."""
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
        self, example: QuestionExample, found: list["Candidate"], null_score: float
    ) -> Prediction:
        kept: dict[str, Candidate] = {}
        for one in sorted(found, key=lambda x: (-x.score, x.start, x.end)):
            kept.setdefault(example.context[one.start : one.end], one)
        best = list(kept.items())[: self.n_best]
        every = [one.score for _, one in best] + [null_score] * self.version2
        probabilities = _softmax(np.array(every))
        n_best: list[dict[str, Any]] = [
            {"text": text, **dataclasses.asdict(one), "probability": probabilities[at]}
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
            "probability": probabilities[-1] if none else first["probability"],
            "n_best": n_best,
        }

    def score(
        self, examples: Examples, predictions: Sequence[Prediction]
    ) -> scores.Scores:
        """Compares answers by the published rules; see `spans.AnswerScores`."""
        judged = [_judged(*pair) for pair in zip(examples, predictions, strict=True)]
        result = spans.evaluate(judged)
        confidences = np.array([results["probability"] for results in predictions])
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
    """A candidate answer: characters [start, end) of the context."""

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

    All pairs of allowed ends are scored, not only those of the `count` best ends.

    Args:
      start, end: score of each token as the first and as the last.
      allowed: the tokens that can start or end a span.
      longest: maximum number of tokens in a span.
      count: maximum number of spans.
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


def _judged(example: QuestionExample, result: Prediction) -> spans.AnsweredQuestion:
    if not example.labeled:
        raise errors.InputError(
            f"{example.where}: the question is unlabeled: evaluation needs answers"
        )
    null = result["null_score"]
    return spans.AnsweredQuestion(
        example.gold or tuple(answer.text for answer in example.answers),
        result["answer"],
        result["n_best"][0]["text"],
        None if null is None else null - result["score"],
    )


def _ends(
    outputs: Logits, batch: Batch
) -> list[tuple[Float[Array, "B L"], Int[Array, " B"]]]:
    """Returns logits, with padding masked out, and labels of the start and the end."""
    logits, is_token = outputs["logits"], batch["segment_ids"] > 0
    return [
        (losses.masked(logits[..., at], is_token), batch[name])
        for at, name in enumerate(("start_positions", "end_positions"))
    ]


def _softmax(logits: Float[np.ndarray, " n"]) -> list[float]:
    exponentials = np.exp(logits - logits.max())
    return [round(float(x), 6) for x in exponentials / exponentials.sum()]
