"""Semantic role labeling: finds and classifies the arguments of each predicate.

A sentence is tagged once per predicate (arXiv:1904.05255). Either each row has one
predicate, marked by token type 1 on its subwords, or one row has all predicates of a
sentence, and the head combines the state of each predicate with that of every token.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data.labeled import python_examples
from bert_jax.data.labeled.example_rows import ExampleTable
from bert_jax.data.labeled.examples import ExampleForm, TaggedExample
from bert_jax.metrics import entities, tag_schemes
from bert_jax.tasks import spec, tagging, token_rows
from bert_jax.tasks.spec import Metadata, Prediction, Settings

# Notes of a table.
FAR = "tokens too far from their predicate, which get no role"
LOST = "roles of tokens without subwords or too far away, not used in training"
UNSEEN = "predicates that the tokenizer drops"

_CORE = re.compile(r"(ARG|A)[0-5]")
_ADJUNCT = re.compile(r"(ARGM|AM)-.+")
_PREDICATE = ("V", "C-V")  # the predicate itself, an input that is not scored


class RolesSpec(tagging.TaggingSpec):
    """Task specification of semantic role labeling."""

    name = "srl"
    form = ExampleForm(
        task=name,
        example=TaggedExample,
        formats=("conllu",),
        parts=("text", "predicate"),
        read=lambda records, request, notes: python_examples.role_examples(records),
        written="(tokens, predicate, roles)",
        has_predicates=True,
    )
    keys = spec.TAG_KEYS | {"data.columns.predicate", "data.predicates"}
    metrics = (
        *("role_precision", "role_recall", "role_f1", "core_f1", "adjunct_f1"),
        *("role_macro_f1", "token_accuracy", "ece"),
    )
    default_metrics = ("role_f1",)
    columns = ("id", "predicate", "start", "end", "text", "role")
    formats = ("conll",)

    def reads_predicates(self, settings: Settings) -> bool:
        """Returns whether all predicates of a sentence share a row."""
        return settings.data.predicates == "joint"

    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> "Roles":
        return Roles(**self.options(settings, metadata), **common)

    def expected_metric(
        self, settings: Settings, metadata: Metadata, dev: Sequence[Any]
    ) -> str:
        return self.default_metrics[0]

    def misfits(self, examples: tagging.Examples) -> dict[int, str]:
        """Returns nothing: roles have no scheme."""
        return {}

    def describe(self, examples: tagging.Examples) -> str:
        return ""

    def rows(
        self, example: TaggedExample, prediction: Prediction
    ) -> list[dict[str, Any]]:
        """Returns one row per role."""
        both = {"id": prediction["id"], "predicate": prediction["predicate"]["text"]}
        return [both | role for role in prediction["roles"]]


SPEC = RolesSpec()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Roles(tagging.Tagging):
    """Semantic role labeling of sentences with predicates.

    Tags are plain (Universal PropBank annotates the head word of each argument) or
    spans. Rows have all predicates of a sentence if the head has `at_predicate`. A
    sentence longer than a row is split into one row per predicate, with the subwords
    around it.

    Attributes:
      predicates_per_row: Q; sentences with more predicates take several rows.

    Raises:
      InputError: data.predicates is `marked`, but the model has only one token type.
    """

    predicates_per_row: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.joint and self.model.config.type_vocab_size < 2:
            raise errors.InputError(
                "data.predicates is 'marked', which needs two token types; this model "
                f"(as RoBERTa's and DistilBERT's) has "
                f"{self.model.config.type_vocab_size}: set data.predicates=joint"
            )

    @property
    def joint(self) -> bool:
        """Whether a row has all predicates of its sentence."""
        return self.model.head.at_predicate

    def table(self, examples: tagging.Examples) -> ExampleTable:
        """Tokenizes sentences into one row per predicate, or per sentence.

        The columns are those of `Tagging.table`. In joint rows, `labels` and
        `token_weights` are [Q, l]. Fixed columns are `predicate_positions` [n, Q] and
        `example_numbers` [n, Q], counted from 1, with 0 for padding. A row of several
        examples is assigned to the first example of its sentence.

        Raises:
          InputError: an example has no predicate, or as for `Tagging.table`.
        """
        notes = (tagging.REPAIRED, FAR, LOST, UNSEEN)
        rows = token_rows.SentenceRows(self.tokenizer, self.max_seq_length, notes)
        for example in examples:
            if example.predicate is None:
                raise errors.SettingError(
                    f"{example.where}: the sentence has no predicate",
                    "mark its predicate, or use data.task=tagging",
                    "mark its predicate",
                )
        golds, rows.notes[tagging.REPAIRED] = self._gold(examples)
        sentences = rows.encode(examples)
        rows.coverage.texts = 0  # counted per row below
        for numbers, first in self._shares(examples, sentences, rows.capacity):
            sentence = sentences[first]
            heads = [_head(sentence.aligned, examples[at]) for at in numbers]
            rows.notes[UNSEEN] += heads.count(None)
            window = _around(sentence, heads[0], rows.capacity)
            subwords = sentence.aligned.subwords
            chosen = np.flatnonzero((subwords >= window[0]) & (subwords < window[1]))
            moved, length = rows.add_window(first, sentence, window, chosen)
            rows.coverage.texts += 1
            rows.coverage.truncated += len(chosen) < len(subwords)
            rows.notes[FAR] += (len(subwords) - len(chosen)) * len(numbers)
            labels = [
                self._kept(
                    examples[at], golds[at], sentence.aligned, chosen, rows.notes
                )
                for at in numbers
            ]
            self._fill(rows, numbers, labels, length)
            at = [0 if x is None else int(subwords[x]) + moved for x in heads]
            rows.fixed["predicate_positions"].append(at + [0] * (self._width - len(at)))
            if not self.joint and heads[0] is not None:
                types = rows.tokens["token_type_ids"][-1]
                types[at[0] : _end_of(sentence, heads[0], window) + moved] = 1
        return rows.table()

    @property
    def _width(self) -> int:
        """The number of predicate slots in a row."""
        return self.predicates_per_row if self.joint else 1

    def _shares(
        self,
        examples: tagging.Examples,
        sentences: Sequence[token_rows.Sentence],
        capacity: int,
    ) -> Iterator[tuple[list[int], int]]:
        """Yields the examples that share a row, and the first of their sentence."""
        if not self.joint:
            yield from (([number], number) for number in range(len(examples)))
            return
        for _, group in itertools.groupby(
            range(len(examples)),
            lambda at: (examples[at].where, examples[at].text, examples[at].tokens),
        ):
            numbers = list(group)
            fits = len(sentences[numbers[0]].ids) <= capacity
            step = self._width if fits else 1
            for first in range(0, len(numbers), step):
                yield numbers[first : first + step], numbers[0]

    def _kept(
        self,
        example: TaggedExample,
        gold: list[str] | None,
        aligned: token_rows.Alignment,
        chosen: np.ndarray,
        notes: dict[str, int],
    ) -> np.ndarray:
        """Returns the labels of the tokens in a row, and counts the roles it lacks.

        A role that is partly in the row is not lost.
        """
        tags = self._tags_with_subwords(aligned, gold)
        if gold is not None:
            there = {int(aligned.tokens[at]) for at in chosen}
            items = self._items(gold)
            notes[LOST] += sum(there.isdisjoint(range(*x[1:])) for x in items)
        return self._indices(example, tags)[chosen]

    def _fill(
        self,
        rows: token_rows.SentenceRows,
        numbers: list[int],
        labels: list[np.ndarray],
        length: int,
    ) -> None:
        """Adds the labels and weights of a row; empty predicate slots have weight 0."""
        missing = self._width - len(numbers)
        shape = (self._width, len(labels[0]))
        result, weights = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        result[: len(numbers)], weights[: len(numbers)] = labels, 1
        if not self.joint:
            result, weights = result[0], weights[0]
        rows.tokens["labels"].append(token_rows.filled(result, length))
        heavy = token_rows.filled(weights, length).astype(np.float32)
        rows.tokens["token_weights"].append(heavy)
        counted = [number + 1 for number in numbers]
        rows.fixed["example_numbers"].append(counted + [0] * missing)

    def _of_covered(self, tag: str) -> str:
        """Returns O: a plain role is on one token, not on others with its subword."""
        del tag
        return tag_schemes.OUTSIDE

    def _items(self, tags: Sequence[str]) -> list[entities.Span]:
        """Returns the roles, except the predicate itself."""
        own = (*_PREDICATE, tag_schemes.OUTSIDE)
        return [span for span in super()._items(tags) if span[0] not in own]

    def _prediction(
        self, example: TaggedExample, tags: list[str], probabilities: list[float | None]
    ) -> Prediction:
        """Returns `id`, `text`, `predicate`, `roles`, `tags` and `probabilities`.

        A predicate has its characters [start, end), `text` and `sense`; a role has its
        name `role`, characters [start, end) and `text`.
        """
        at = example.predicate or 0
        return {
            "id": example.id,
            "text": example.text,
            "predicate": tagging.characters(example, at, at + 1)
            | {"sense": example.sense},
            "roles": [
                {"role": role} | tagging.characters(example, first, end)
                for role, first, end in self._items(tags)
            ],
            "tags": tags,
            "probabilities": probabilities,
        }

    def _tag_locations(self, table: ExampleTable) -> Iterator[token_rows.TagLocation]:
        for row, numbers in enumerate(table.fixed["example_numbers"]):
            for slot, number in enumerate(numbers):
                if number:
                    yield int(number) - 1, row, (slot,) if self.joint else ()

    def _metrics(
        self,
        report: entities.EntityReport,
        wanted: list[list[entities.Span]],
        given: list[list[entities.Span]],
    ) -> dict[str, float]:
        """Returns the metrics of roles: by predicate, token (or span) and name.

        `core_f1` is over ARG0 to ARG5 and A0 to A5, `adjunct_f1` over ARGM- and AM-.
        Continuations (C-) and references (R-) are separate classes, neither core nor
        adjunct.
        """
        return {
            "role_precision": report.micro.precision,
            "role_recall": report.micro.recall,
            "role_f1": report.micro.f1,
            "core_f1": _f1_of(_CORE, wanted, given),
            "adjunct_f1": _f1_of(_ADJUNCT, wanted, given),
            "role_macro_f1": report.macro.f1,
        }

    def _confusion(
        self, true: Sequence[Sequence[str]], found: Sequence[Sequence[str]]
    ) -> None:
        return None

    def _shown(self, example: TaggedExample) -> str:
        at = example.predicate or 0
        return f"{example.text} [{tagging.characters(example, at, at + 1)['text']}]"


def _head(aligned: token_rows.Alignment, example: TaggedExample) -> int | None:
    """Returns the aligned token with the first subword of the predicate, if any."""
    predicate = example.predicate or 0
    at = int(np.searchsorted(aligned.tokens, predicate, side="right")) - 1
    return at if at >= 0 and predicate < aligned.ends[at] else None


def _end_of(sentence: token_rows.Sentence, head: int, window: tuple[int, int]) -> int:
    """Returns the end of the subwords of a token, clipped to its window."""
    subwords = sentence.aligned.subwords
    last = int(subwords[head + 1]) if head + 1 < len(subwords) else len(sentence.ids)
    return min(last, window[1])


def _around(
    sentence: token_rows.Sentence, head: int | None, capacity: int
) -> tuple[int, int]:
    """Returns the subwords [first, end) of a row: all, or those near the predicate."""
    length = len(sentence.ids)
    middle = 0 if head is None else int(sentence.aligned.subwords[head])
    first = max(0, min(middle - capacity // 2, length - capacity))
    return first, min(first + capacity, length)


def _f1_of(
    which: re.Pattern[str],
    wanted: list[list[entities.Span]],
    given: list[list[entities.Span]],
) -> float:
    """Returns the micro F1 over the roles whose name matches the pattern."""
    kept = (
        [[item for item in items if which.fullmatch(item[0])] for items in every]
        for every in (wanted, given)
    )
    return entities.score(*kept).micro.f1
