"""Token tagging: named entities, parts of speech, Chinese word segmentation.

Head and loss follow arXiv:1810.04805, section 5.3: a linear layer on the first subword
of each token. Sentences longer than a row are split into windows that overlap by half;
each token is tagged in the window that has the most context around it.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data.labeled import annotations
from bert_jax.data.labeled.example_rows import ExampleTable
from bert_jax.data.labeled.examples import ExampleForm, TaggedExample
from bert_jax.metrics import entities, scores, tag_schemes
from bert_jax.tasks import class_names, spec, token_rows
from bert_jax.tasks.spec import Metadata, Outputs, Prediction, Settings, TaskSpec

# Notes of a table.
WINDOWS = "windows of sentences longer than a row"
REPAIRED = "invalid tags that were repaired"
LOST = "entities without subwords, not used in training"

Examples = Sequence[TaggedExample]


class TaggingSpec(TaskSpec):
    """Task specification of token tagging."""

    name = "tagging"
    form = ExampleForm(
        task=name,
        example=TaggedExample,
        formats=("conll", "conllu", "spans", "csv", "parquet", "tfds"),
        parts=("text",),
        read=annotations.read_entities,
        written="(tokens, tags) or (text, [(start, end, type)])",
    )
    keys = spec.TAG_KEYS | {
        "data.columns.text",
        "data.columns.label",
        "data.strip_digit",
    }
    cleans_text = False
    metrics = (
        *("entity_precision", "entity_recall", "entity_f1", "entity_macro_f1"),
        *("entity_weighted_f1", "macro_f1", "token_accuracy", "ece"),
    )
    default_metrics = ("entity_f1", "token_accuracy")
    head_kind = "tagger"
    one_row_each = False
    counts_dev_labels = True
    columns = ("id", "start", "end", "text", "type", "probability")
    formats = ("conll", "clue")

    def learn(
        self, settings: Settings, examples: Examples, given: Metadata | None = None
    ) -> Metadata:
        """Returns the tags and their scheme."""
        if given is None:
            return Metadata(*learn(examples))
        named = class_names.of_head(settings, given)
        scheme = named.scheme or tag_schemes.of_labels(named.labels)
        return dataclasses.replace(named, scheme=scheme)

    def classes(self, metadata: Metadata) -> int:
        return len(metadata.labels)

    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> "Tagging":
        return Tagging(**self.options(settings, metadata), **common)

    def options(self, settings: Settings, metadata: Metadata) -> dict[str, Any]:
        """Returns the options of all tagging tasks."""
        return {
            "labels": metadata.labels,
            "scheme": metadata.scheme,
            "repair": settings.data.repair,
        }

    def expected_metric(
        self, settings: Settings, metadata: Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns the entity F1, or the token accuracy for plain tags."""
        return self.default_metrics[not metadata.scheme]

    def misfits(self, examples: Examples) -> dict[int, str]:
        """Maps sentence indices to tags that do not fit the scheme of the others.

        It is empty if more than a fifth of the sentences have such a tag: the tags are
        then of another kind.
        """
        left = {at: set(x.tags) for at, x in enumerate(examples) if x.tags}
        most, found = len(left) // 5, {}
        while problem := tag_schemes.problem_of(sorted(set().union(*left.values()))):
            tag, _ = problem
            found |= {at: tag for at, tags in left.items() if tag in tags}
            left = {at: tags for at, tags in left.items() if tag not in tags}
            if len(found) > most:
                return {}
        rest = list(left)
        odd = tag_schemes.odd_letters([_tags(examples[at]) for at in rest])
        return found | {rest[row]: tag for row, tag in odd.items()}

    def classes_of(self, example: TaggedExample, metadata: Metadata) -> Sequence[str]:
        """Returns the tags of an example, in the scheme of the labels."""
        if metadata.scheme == tag_schemes.PLAIN or not example.tags:
            return example.tags or ()
        return tag_schemes.convert(example.tags, metadata.scheme)

    def describe(self, examples: Examples) -> str:
        """Returns a line on the tag scheme.

        Such as "tags: IOB1, learned as BIO; 4 types: LOC, MISC, ORG, PER".
        """
        labels, learned = learn(examples)
        if learned == tag_schemes.PLAIN:
            return f"tags: plain, one per token; {len(labels)} tags: {_listed(labels)}"
        found = tag_schemes.detect([x.tags for x in examples if x.tags])
        spans = {tag for tag in labels if tag != tag_schemes.OUTSIDE}
        types = sorted({entities.split(tag)[1] for tag in spans})
        as_other = f", learned as {learned}" if found != learned else ""
        if types == [entities.UNTYPED]:
            return f"tags: {found}{as_other}; spans without types"
        plural = "s"[: len(types) != 1]
        return f"tags: {found}{as_other}; {len(types)} type{plural}: {_listed(types)}"

    def rows(
        self, example: TaggedExample, prediction: Prediction
    ) -> list[dict[str, Any]]:
        """Returns one row per entity, or one per token for plain tags."""
        if "entities" in prediction:
            return [{"id": prediction["id"], **one} for one in prediction["entities"]]
        tags, probabilities = prediction["tags"], prediction["probabilities"]
        return [
            {"id": prediction["id"], **characters(example, at, at + 1)}
            | {"type": tag, "probability": probability}
            for at, (tag, probability) in enumerate(
                zip(tags, probabilities, strict=True)
            )
        ]

    def answer(self, prediction: Prediction) -> Any:
        """Returns entities in CLUENER format: {type: {text: [[first, last], ...]}}.

        Raises:
          InputError: the tags are plain.
        """
        if "entities" not in prediction:
            raise errors.InputError(
                "the format clue is for entities, but this model has plain tags: use "
                "jsonl, tsv or conll"
            )
        by_type: dict[str, dict[str, list[list[int]]]] = {}
        for one in prediction["entities"]:
            found = by_type.setdefault(one["type"], {}).setdefault(one["text"], [])
            found.append([one["start"], one["end"] - 1])
        return by_type


SPEC = TaggingSpec()


class Tagging(token_rows.TokenTags):
    """Token tagging; tags of any scheme with spans are converted to the labels'."""

    def table(self, examples: Examples) -> ExampleTable:
        """Tokenizes sentences.

        Token columns besides the usual three: those in the docstring of `token_rows`;
        `token_numbers`, the index of each token in its sentence; and `token_ends`, the
        end (exclusive) of the tokens that share its subwords.

        Raises:
          InputError: a tag is unknown or violates the scheme, only some of the examples
            have tags, or rows are too short.
        """
        notes = (WINDOWS, REPAIRED, LOST)
        rows = token_rows.SentenceRows(self.tokenizer, self.max_seq_length, notes)
        golds, rows.notes[REPAIRED] = self._gold(examples)
        for number, sentence in enumerate(rows.encode(examples)):
            tags = self._tags_with_subwords(sentence.aligned, golds[number])
            rows.notes[LOST] += self._lost(sentence.aligned, golds[number])
            labels = self._indices(examples[number], tags)
            cuts = token_rows.cut(
                len(sentence.ids), rows.capacity, max(rows.capacity // 2, 1)
            )
            rows.notes[WINDOWS] += len(cuts) * (len(cuts) > 1)
            owner = token_rows.owners(sentence.aligned.subwords, cuts)
            for at, window in enumerate(cuts):
                chosen = np.flatnonzero(owner == at)
                _, length = rows.add_window(number, sentence, window, chosen)
                rows.tokens["labels"].append(token_rows.filled(labels[chosen], length))
                weights = token_rows.filled(np.ones(len(chosen), np.int32), length)
                rows.tokens["token_weights"].append(weights.astype(np.float32))
        return rows.table()

    def unseen(self, example: TaggedExample) -> Sequence[str]:
        """Returns the entity types, or plain tags, that the model cannot predict.

        Repeated types are listed once per occurrence.
        """
        tags = example.tags or ()
        if self.scheme == tag_schemes.PLAIN:
            return [tag for tag in tags if tag not in self._known]
        if not all(map(tag_schemes.is_span_tag, tags)):
            return ()  # another kind of tags, which `table` reports
        spans = entities.spans_of(tags)
        return [kind for kind, _, _ in spans if kind not in self._known]

    def without_unseen(self, example: TaggedExample) -> TaggedExample:
        """Returns an example with unseen tags replaced by O."""
        if example.tags is None or not self.unseen(example):
            return example
        tags = list(example.tags)
        if self.scheme == tag_schemes.PLAIN:
            fill = self.labels[0]  # O, if the model has it
            tags = [tag if tag in self._known else fill for tag in tags]
        else:
            for kind, start, end in entities.spans_of(example.tags):
                if kind not in self._known:
                    tags[start:end] = [tag_schemes.OUTSIDE] * (end - start)
        return dataclasses.replace(example, tags=tuple(tags))

    def is_beyond(self, example: TaggedExample) -> bool:
        known = self._known | {tag_schemes.OUTSIDE}
        kinds = [tag_schemes.kind_of(x, self.scheme) for x in example.tags or ()]
        return bool(self.unseen(example)) and not known.intersection(kinds)

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        """The entity types that the model can predict, or its plain tags."""
        return frozenset(tag_schemes.kind_of(x, self.scheme) for x in self.labels)

    def _gold(self, examples: Examples) -> tuple[list[list[str] | None], int]:
        """Returns the tags of each example in the model's scheme, and the repair count.

        Raises:
          InputError: tags are invalid and `repair` is off, or they have no spans.
        """
        labeled = [x for x in examples if x.tags is not None]
        if labeled and len(labeled) < len(examples):
            bare = next(x for x in examples if x.tags is None)
            raise errors.InputError(
                f"{bare.where}: this sentence has no tags, but others do: tag it or "
                "remove it"
            )
        if self.scheme == tag_schemes.PLAIN:
            return [None if x.tags is None else list(x.tags) for x in examples], 0
        found = tag_schemes.detect([x.tags or () for x in labeled])
        repaired = sum(_check(x, found, self.repair) for x in labeled)
        return [
            None if x.tags is None else tag_schemes.convert(x.tags, self.scheme)
            for x in examples
        ], repaired

    def _tags_with_subwords(
        self, aligned: token_rows.Alignment, tags: list[str] | None
    ) -> list[str]:
        """Returns valid tags for the tokens that have a subword."""
        if tags is None:
            return list(self.labels[:1]) * len(aligned.tokens)
        kept = [tags[at] for at in aligned.tokens]
        if self.scheme == tag_schemes.PLAIN or len(kept) == len(tags):
            return kept
        spans = aligned.reduce(entities.spans_of(tags))
        return tag_schemes.write(spans, len(kept), self.scheme, self._outside)

    def _lost(self, aligned: token_rows.Alignment, tags: list[str] | None) -> int:
        """Counts the entities without any token that has a subword."""
        if tags is None or self.scheme == tag_schemes.PLAIN:
            return 0
        spans = entities.spans_of(tags)
        return len(spans) - len(aligned.reduce(spans))

    @property
    def _outside(self) -> str:
        """The tag of tokens without a prediction: O, or that of a one-token span."""
        if tag_schemes.OUTSIDE in self.labels or self.scheme == tag_schemes.PLAIN:
            return tag_schemes.OUTSIDE
        _, starts, ends = tag_schemes.allowed(self.labels, self.scheme)
        return self.labels[int(np.argmax(starts & ends))]

    def _indices(self, example: TaggedExample, tags: Sequence[str]) -> np.ndarray:
        index = {label: at for at, label in enumerate(self.labels)}
        for tag in tags:
            if tag not in index:
                raise class_names.unknown_label(example.where, tag, self.labels)
        return np.array([index[tag] for tag in tags], np.int64)

    def decode(
        self, examples: Examples, table: ExampleTable, outputs: Outputs
    ) -> list[Prediction]:
        """Returns `id`, `text`, `tags`, `probabilities` and, with spans, `entities`.

        A token that shares a subword with the previous one continues its tag. A token
        that the tokenizer drops is outside, unless an entity surrounds it, and has no
        probability. An entity has its characters [start, end), `type`, `text` and the
        lowest probability of its tokens.
        """
        every = token_rows.gather(examples, table, outputs, self._tag_locations(table))
        return [
            self._prediction(example, *self._tags_of(example, found))
            for example, found in zip(examples, every, strict=True)
        ]

    def _tag_locations(self, table: ExampleTable) -> Iterator[token_rows.TagLocation]:
        """Yields the location of the tags of each example."""
        yield from ((int(number), row, ()) for row, number in enumerate(table.examples))

    def _prediction(
        self, example: TaggedExample, tags: list[str], probabilities: list[float | None]
    ) -> Prediction:
        result: Prediction = {"id": example.id, "text": example.text}
        result |= {"tags": tags, "probabilities": probabilities}
        if self.scheme != tag_schemes.PLAIN:
            spans = entities.spans_of(tags)
            result["entities"] = [_entity(example, x, probabilities) for x in spans]
        return result

    def _tags_of(
        self, example: TaggedExample, found: token_rows.TokenPredictions
    ) -> tuple[list[str], list[float | None]]:
        """Returns the tag of every token, and its probability if it has a subword."""
        aligned = found.aligned
        tags = self._spread(aligned, [self.labels[at] for at in found.tags])
        probabilities: list[float | None] = [None] * len(example.tokens)
        predicted = found.probabilities
        for start, end, x in zip(aligned.tokens, aligned.ends, predicted, strict=True):
            probabilities[start:end] = [round(float(x), 6)] * int(end - start)
        return tags, probabilities

    def _spread(self, aligned: token_rows.Alignment, kept: list[str]) -> list[str]:
        """Extends tags to the tokens without a subword."""
        if len(kept) == aligned.length:
            return kept
        if self.scheme != tag_schemes.PLAIN:
            spans = aligned.expand(entities.spans_of(kept))
            return tag_schemes.write(spans, aligned.length, self.scheme, self._outside)
        tags = [""] * aligned.length
        for start, end, tag in zip(aligned.tokens, aligned.ends, kept, strict=True):
            covered = [self._of_covered(tag)] * int(end - start - 1)
            tags[start:end] = [tag, *covered]
        return self._without_gaps(tags)

    def _of_covered(self, tag: str) -> str:
        """Returns the plain tag of a token that shares the subword of a tagged one."""
        return tag

    def _without_gaps(self, tags: list[str]) -> list[str]:
        """Fills missing plain tags with O or, without O, with the previous tag."""
        fill = tag_schemes.OUTSIDE
        if fill in self.labels:
            return [tag or fill for tag in tags]
        last = next((tag for tag in tags if tag), self.labels[0])
        result = []
        for tag in tags:
            last = tag or last
            result.append(last)
        return result

    def score(
        self, examples: Examples, predictions: Sequence[Prediction]
    ) -> scores.Scores:
        """Compares tags; see `metrics.entities`.

        There is one class per type, or per plain tag; untyped spans are words. `ece`
        is over tokens. Sentences are ranked by their number of errors.
        """
        true = self._truths(examples, predictions)
        found: list[list[str]] = [result["tags"] for result in predictions]
        wanted, given = [*map(self._items, true)], [*map(self._items, found)]
        report = entities.score(wanted, given)
        probabilities = [result["probabilities"] for result in predictions]
        confidences = entities.confidences(true, found, probabilities)
        accuracy = entities.token_accuracy(true, found)
        metrics = self._metrics(report, wanted, given) | {"token_accuracy": accuracy}
        metrics["ece"] = scores.calibration(confidences).expected_error
        mistakes = entities.mistakes(
            [x.where for x in examples],
            [self._shown(x) for x in examples],
            wanted,
            given,
            lambda at, span: _readable(examples[at], span),
        )
        confusion = self._confusion(true, found)
        return scores.Scores(
            metrics, report.classes(), confusion, confidences, mistakes
        )

    def _items(self, tags: Sequence[str]) -> list[entities.Span]:
        """Returns what is scored: spans, each of one token for plain tags."""
        if self.scheme == tag_schemes.PLAIN:
            return [(tag, at, at + 1) for at, tag in enumerate(tags)]
        return entities.spans_of(tags)

    def _metrics(
        self,
        report: entities.EntityReport,
        wanted: list[list[entities.Span]],
        given: list[list[entities.Span]],
    ) -> dict[str, float]:
        """Returns the metrics of true and predicted items."""
        if self.scheme == tag_schemes.PLAIN:
            return {"macro_f1": report.macro.f1}
        return {
            "entity_precision": report.micro.precision,
            "entity_recall": report.micro.recall,
            "entity_f1": report.micro.f1,
            "entity_macro_f1": report.macro.f1,
            "entity_weighted_f1": report.weighted.f1,
        }

    def _confusion(
        self, true: Sequence[Sequence[str]], found: Sequence[Sequence[str]]
    ) -> scores.Confusion | None:
        """Returns the confusion of plain tags."""
        if self.scheme != tag_schemes.PLAIN:
            return None
        return entities.confusion(self.labels, true, found)

    def _shown(self, example: TaggedExample) -> str:
        """Returns the text of an error."""
        return example.text

    def _truths(
        self, examples: Examples, predictions: Sequence[Prediction]
    ) -> list[list[str]]:
        probabilities = [
            [x or 0.0 for x in result["probabilities"]] for result in predictions
        ]
        scores.check(
            [x.where for x in examples], np.array([sum(x) for x in probabilities])
        )
        gold, _ = self._gold(examples)
        true = [tags for tags in gold if tags is not None]
        if len(true) < len(examples):
            raise errors.InputError(
                f"{examples[0].where}: the examples have no tags: evaluation needs "
                "labeled examples"
            )
        return true


def learn(examples: Examples) -> tuple[tuple[str, ...], str]:
    """Returns the labels of examples with tags or roles, and their scheme.

    IOB1 becomes BIO; other schemes are unchanged. The labels of roles include O.

    Raises:
      InputError: there are no tags, or only one distinct tag; a tag has white space or
        does not fit the scheme of the others; or token and tag columns are swapped.
    """
    tags = [x.tags for x in examples if x.tags]
    if not tags:
        where = f"{examples[0].where}: " if examples else ""
        raise errors.InputError(
            f"{where}the training examples have no tags: use a tagged file, and "
            f"name the column of the tags: {errors.setting('data.columns.tag', 'NAME')}"
        )
    if any(x.predicate is not None for x in examples):
        tags.append((tag_schemes.OUTSIDE,))
    else:
        _check_kind(examples)
    scheme = tag_schemes.detect(tags)
    scheme = "BIO" if scheme == "IOB1" else scheme
    return tag_schemes.labels_of(tags, scheme), scheme


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown}, ..."


def _check_kind(examples: Examples) -> None:
    """Raises InputError unless the tags of all examples fit one scheme."""
    labeled = [x for x in examples if x.tags]
    known = dict.fromkeys(tag for x in labeled for tag in x.tags or ())
    tokens = {x.text[start:end] for x in labeled for start, end in x.tokens}
    are_tags = all(map(tag_schemes.is_span_tag, tokens))
    are_tags &= any(token[1:2] == "-" for token in tokens)
    if are_tags or len(known) > max(2 * len(tokens), 20):
        raise errors.InputError(
            f"{labeled[0].where_of(0)}: the tag of {labeled[0].named(0)} is "
            f"{_tags(labeled[0])[0]!r}, so the columns of tokens and tags seem to be "
            "swapped: set data.columns.token and data.columns.tag to their numbers"
        )
    problem = tag_schemes.problem_of(known)
    if problem is None and (odd := tag_schemes.odd_letters([*map(_tags, labeled)])):
        problem = next(iter(odd.values())), "most sentences are BIO: B, I and O only"
    if problem is not None:
        tag, why = problem
        example = next(x for x in labeled if tag in _tags(x))
        at = _tags(example).index(tag)
        raise errors.InputError(
            f"{example.where_of(at)}: {example.named(at)} of the sentence has "
            f"the tag {tag!r}: {why}. Correct it, or set data.columns.tag if this is "
            "not the column of the tags, or data.repair, which leaves a few such "
            "sentences out"
        )
    if len(known) == 1:
        (tag,) = known
        raise errors.InputError(
            f"{labeled[0].where}: all {sum(map(len, map(_tags, labeled))):,} tokens "
            f"have the tag {tag!r}, so there is nothing to learn: is data.columns.tag "
            "the right column?"
        )


def _tags(example: TaggedExample) -> tuple[str, ...]:
    return example.tags or ()


def _check(example: TaggedExample, scheme: str, repair: bool) -> int:
    """Returns the number of invalid tags; raises InputError unless `repair` is set."""
    tags = example.tags or ()
    for at, tag in enumerate(tags):
        if not tag_schemes.is_span_tag(tag):
            raise errors.InputError(
                f"{example.where_of(at)}: the tag {tag!r} is not a span tag such "
                "as B-PER, I-PER, O, which the model was trained with: correct "
                f"{example.named(at)} of the sentence"
            )
    broken = tag_schemes.first_break(tags, scheme)
    if broken is None:
        return 0
    if not repair:
        at, why = broken
        raise errors.InputError(
            f"{example.where_of(at)}: the tags of {example.named(at)} of the "
            f"sentence violate {scheme}: {why}. "
            f"Correct it, or set {errors.setting('data.repair')} to start a new entity "
            "there"
        )
    return len(tag_schemes.breaks(tags, scheme))


def characters(example: TaggedExample, first: int, end: int) -> dict[str, Any]:
    """Returns `start`, `end` and `text` of the tokens [first, end)."""
    start, last = example.tokens[first][0], example.tokens[end - 1][1]
    return {"start": start, "end": last, "text": example.text[start:last]}


def _entity(
    example: TaggedExample, span: entities.Span, probabilities: list[float | None]
) -> dict[str, Any]:
    kind, first, end = span
    at = characters(example, first, end)
    known = [x for x in probabilities[first:end] if x is not None]
    lowest = min(known) if known else None
    return {
        "start": at["start"],
        "end": at["end"],
        "type": kind,
        "text": at["text"],
        "probability": lowest,
    }


def _readable(example: TaggedExample, span: entities.Span) -> str:
    kind, first, end = span
    return f"{characters(example, first, end)['text']}/{kind}"
