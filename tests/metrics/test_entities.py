"""Spans and their scores, compared with seqeval and counted by hand."""

import warnings

import numpy as np
import pytest

from bert_jax.metrics import entities


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("", []),
        ("O O", []),
        ("B-A", [("A", 0, 1)]),
        ("B-A I-A O B-A", [("A", 0, 2), ("A", 3, 4)]),
        ("B-A B-A I-A", [("A", 0, 1), ("A", 1, 3)]),
        ("O I-A I-A", [("A", 1, 3)]),
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("B-A I-A E-A S-A B-B E-B", [("A", 0, 3), ("A", 3, 4), ("B", 4, 6)]),
        ("E-A E-A S-B I-B", [("A", 0, 1), ("A", 1, 2), ("B", 2, 3), ("B", 3, 4)]),
        ("B M E S B E", [("_", 0, 3), ("_", 3, 4), ("_", 4, 6)]),
        ("B I B", [("_", 0, 2), ("_", 2, 3)]),
        ("B-PER.NAM I-PER.NAM", [("PER.NAM", 0, 2)]),
        ("B-C-ARG1 I-C-ARG1", [("C-ARG1", 0, 2)]),
    ],
)
def test_spans_of(tags, spans):
    assert entities.spans_of(tags.split()) == spans


# Three types, two of which share letters with tag prefixes; no M, which seqeval does
# not support.
_TAGS = ("O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("B", "O-I", "P")))


def _random(rng: np.random.Generator, tags: tuple[str, ...]) -> list[list[str]]:
    lengths = rng.integers(1, 9, 131)
    return [[str(rng.choice(tags)) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("tags", [_TAGS, ("O", "B", "I"), ("B", "I", "E", "S")])
def test_spans_are_those_of_seqeval(tags):
    """Random tags, most of which violate all schemes."""
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    for sentence in _random(np.random.default_rng(5), tags):
        found = labeling.get_entities(sentence)
        ours = [
            (kind, start, end - 1) for kind, start, end in entities.spans_of(sentence)
        ]
        assert ours == found, sentence


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_scores_are_those_of_seqeval(average):
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    rng = np.random.default_rng(6)
    true = _random(rng, _TAGS)
    # Close to the truth, so that no score is 0.
    predicted = [
        [tag if rng.random() < 0.8 else str(rng.choice(_TAGS)) for tag in sentence]
        for sentence in true
    ]
    report = _report(true, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = labeling.precision_recall_fscore_support(
            true, predicted, average=average
        )
        each = labeling.precision_recall_fscore_support(true, predicted, average=None)
    ours = getattr(report, average)
    np.testing.assert_allclose(
        [ours.precision, ours.recall, ours.f1, ours.support], found, rtol=1e-12
    )
    types = [[s.precision, s.recall, s.f1, s.support] for s in report.types.values()]
    np.testing.assert_allclose(np.array(types).T, np.array(each), rtol=1e-12)
    assert min(types)[2] > 0.2
    accuracy = labeling.accuracy_score(true, predicted)
    assert entities.token_accuracy(true, predicted) == pytest.approx(accuracy, 1e-12)


def _report(true, predicted):
    return entities.score(
        [entities.spans_of(tags) for tags in true],
        [entities.spans_of(tags) for tags in predicted],
    )


def test_counted_by_hand():
    """PER: 1 of 2 found, 1 of 2 right; LOC: 1 of 1, 1 of 2; ORG: only predicted."""
    true = [[("PER", 0, 2), ("LOC", 3, 4)], [("PER", 0, 1)]]
    predicted = [[("PER", 0, 2), ("LOC", 3, 4), ("LOC", 5, 6)], [("ORG", 0, 1)]]
    predicted[1].append(("PER", 0, 2))
    report = entities.score(true, predicted)
    assert list(report.types) == ["LOC", "ORG", "PER"]
    assert report.types["LOC"] == entities.EntityScore(0.5, 1.0, 2 / 3, 1)
    assert report.types["ORG"] == entities.EntityScore(0.0, 0.0, 0.0, 0)
    assert report.types["PER"] == entities.EntityScore(0.5, 0.5, 0.5, 2)
    assert report.micro.f1 == pytest.approx(0.5)
    assert (report.micro.precision, report.micro.recall) == (2 / 5, 2 / 3)
    assert report.macro.f1 == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)
    assert report.weighted.f1 == pytest.approx((2 / 3 + 2 * 1 / 2) / 3)
    assert report.weighted.support == report.macro.support == 3


def test_literal_scores_of_seqeval():
    """The scores of two sentences by seqeval 1.2.2."""
    true = [["O", "O", "B-MISC", "I-MISC", "B-MISC", "O", "O"], ["B-PER", "I-PER", "O"]]
    predicted = [true[0][:5] + ["I-MISC", "O"], true[1]]
    report = _report(true, predicted)
    assert report.micro.f1 == pytest.approx(0.6666666666666666)
    assert report.macro.f1 == pytest.approx(0.75)
    assert report.weighted.f1 == pytest.approx(0.6666666666666666)
    assert [one.f1 for one in report.types.values()] == [0.5, 1.0]
    assert entities.token_accuracy(true, predicted) == 0.9


def test_zero_divided_by_zero_is_zero():
    nothing = entities.EntityScore(0.0, 0.0, 0.0, 0)
    empty = entities.score([[], []], [[], []])
    assert empty == entities.EntityReport({}, nothing, nothing, nothing)
    assert entities.token_accuracy([[]], [[]]) == 0.0
    missed = entities.score([[("A", 0, 1)]], [[]])
    assert missed.micro == entities.EntityScore(0.0, 0.0, 0.0, 1)
    extra = entities.score([[]], [[("A", 0, 1)]])
    assert extra.weighted == nothing


def test_the_same_span_in_another_sentence_is_wrong():
    report = entities.score([[("A", 0, 1)], []], [[], [("A", 0, 1)]])
    assert report.micro.f1 == 0.0


def test_different_numbers_of_sentences_or_tags_are_errors():
    with pytest.raises(ValueError):
        entities.token_accuracy([["O"]], [["O", "O"]])
    with pytest.raises(ValueError):
        entities.token_accuracy([["O"], ["O"]], [["O"]])


TRUE = [["N", "V", "N"], ["V"]]
FOUND = [["N", "N", "V"], ["V"]]


def test_one_row_per_type():
    report = entities.score([[("B", 0, 1), ("A", 1, 2)]], [[("B", 0, 1), ("B", 1, 2)]])
    assert report.classes() == (
        {"class": "A", "precision": 0.0, "recall": 0.0, "f1": 0.0, "examples": 1},
        {"class": "B", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "examples": 1},
    )


def test_confusion_counts_true_by_predicted_and_allows_new_tags():
    counted = entities.confusion(("V", "N"), TRUE, FOUND)
    assert counted.labels == ("V", "N")
    np.testing.assert_array_equal(counted.counts, [[1, 1], [1, 1]])
    new = entities.confusion(("V",), [["X", "A"]], [["V", "V"]])
    assert new.labels == ("V", "A", "X")
    np.testing.assert_array_equal(new.counts, [[0, 0, 0], [1, 0, 0], [1, 0, 0]])


def test_confidences_leave_out_tokens_without_a_probability():
    confidences = entities.confidences(TRUE, FOUND, [[0.9, None, 0.4], [0.7]])
    assert confidences.values.tolist() == [0.9, 0.4, 0.7]
    assert confidences.hits.tolist() == [True, False, True]


def test_sentences_are_sorted_by_their_number_of_errors():
    wanted, found = (
        [[(tag, at, at + 1) for at, tag in enumerate(tags)] for tags in every]
        for every in (TRUE, FOUND)
    )
    wanted.append([("A", 0, 1)])
    found.append([])
    mistakes = entities.mistakes(
        ["f:1", "f:2", "f:3"],
        ["a b c", "d", "e"],
        wanted,
        found,
        lambda at, item: f"{at}.{item[1]}={item[0]}",
    )
    assert [(x.severity, x.where, x.text) for x in mistakes] == [
        (4.0, "f:1", "a b c"),
        (1.0, "f:3", "e"),
    ]
    assert (mistakes[0].expected, mistakes[0].predicted) == (
        "0.1=V; 0.2=N",
        "0.1=N; 0.2=V",
    )
    assert (mistakes[1].expected, mistakes[1].predicted) == ("2.0=A", "nothing")
