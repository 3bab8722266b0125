"""Tagging: rows, predictions back in characters, scores, learning."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from small_tags import (
    LABELS,
    SENTENCES,
    WORDS,
    characters,
    example,
    fit,
    gold_outputs,
    loss_of,
    params_of,
    predicted,
    tagger,
    whole,
)

from bert_jax import errors
from bert_jax.metrics import entities, tag_schemes
from bert_jax.tasks import tagging, token_rows


def _row(table, name, row=0):
    return table.tokens[name][row].tolist()


def test_a_row_by_hand():
    """[CLS] anna met bob ##by in paris . [SEP]: the first piece of each token."""
    table = tagger().table(SENTENCES[:1])
    pieces = ["[CLS]", "anna", "met", "bob", "##by", "in", "paris", ".", "[SEP]"]
    assert _row(table, "input_ids") == [WORDS.id_of(piece) for piece in pieces]
    assert _row(table, "segment_ids") == [1] * 9
    assert _row(table, "token_type_ids") == [0] * 9
    assert _row(table, "token_positions") == [1, 2, 3, 5, 6, 7, 0, 0, 0]
    assert _row(table, "token_weights") == [1.0] * 6 + [0.0] * 3
    assert _row(table, "labels") == [2, 0, 2, 0, 1, 0, 0, 0, 0]
    assert table.fixed["opens"].tolist() == table.fixed["closes"].tolist() == [1]
    assert set(table.notes.values()) == {0}


def test_tags_are_brought_into_the_scheme_of_the_labels():
    labels = tag_schemes.labels_of([["B-LOC", "B-PER", "O"]], "BIOES")
    table = tagger(labels, "BIOES").table(SENTENCES[1:2])
    told = [labels[at] for at in _row(table, "labels")[:4]]
    assert told == ["S-PER", "O", "B-LOC", "E-LOC"]
    iob1 = [example("Anna Bob saw", "I-PER I-PER O")]
    assert _row(tagger().table(iob1), "labels")[:3] == [2, 4, 0]


def test_gold_tags_come_back():
    task = tagger()
    table = task.table(SENTENCES)
    outputs = gold_outputs(task, table)
    outputs["probabilities"][1][2] = 0.875  # of "Parisian"
    found = task.decode(SENTENCES, table, outputs)
    assert [made["tags"] for made in found] == [list(x.tags) for x in SENTENCES]
    assert found[1] == {
        "id": "0",
        "text": "Bob saw Parisian Rome",
        "tags": ["B-PER", "O", "B-LOC", "I-LOC"],
        "probabilities": [0.75, 0.75, 0.875, 0.75],
        "entities": [
            {
                "start": 0,
                "end": 3,
                "type": "PER",
                "text": "Bob",
                "probability": 0.75,
            },
            {
                "start": 8,
                "end": 21,
                "type": "LOC",
                "text": "Parisian Rome",
                "probability": 0.75,
            },
        ],
    }
    scores = task.score(SENTENCES, found)
    assert scores.metrics["entity_f1"] == scores.metrics["token_accuracy"] == 1.0
    assert scores.errors == ()


def test_characters_of_one_piece_go_on_with_its_entity():
    """北京2008年: the piece 2008 speaks for four tokens; U+FE0F is no piece's."""
    one = characters(
        "在北京2008年\ufe0f了", "O B-LOC I-LOC I-LOC I-LOC I-LOC I-LOC I-LOC I-LOC O"
    )
    task = tagger()
    table = task.table([one])
    assert table.notes[token_rows.COVERED] == 3
    assert table.notes[token_rows.DROPPED] == 1
    labels = _row(table, "labels")
    assert [LABELS[at] for at in labels[:6]] == "O B-LOC I-LOC I-LOC I-LOC O".split()
    (made,) = task.decode([one], table, gold_outputs(task, table))
    # The dropped character ended the entity, and is lost.
    assert made["tags"] == [*one.tags[:8], "O", "O"]
    assert made["probabilities"][3:7] == [0.75] * 4 and made["probabilities"][8] is None
    assert made["entities"][0]["text"] == "北京2008年"
    # What the model has not seen is wrong, and says nothing of how sure it is.
    scores = task.score([one], [made])
    assert scores.metrics["token_accuracy"] == 0.9
    assert scores.confidences.hits.tolist() == [True] * 9


def test_a_dropped_token_inside_an_entity_is_of_it():
    one = characters("北\ufe0f京了\ufe0f", "B-LOC I-LOC I-LOC O O")
    task = tagger()
    table = task.table([one])
    (made,) = task.decode([one], table, gold_outputs(task, table))
    assert tuple(made["tags"]) == one.tags


def test_an_entity_whose_head_is_dropped_still_begins():
    """Else I- would follow O, which a CRF holds for impossible."""
    one = characters("在\ufe0f京年", "O B-LOC I-LOC I-LOC")
    task = tagger(head={"crf": True})
    table = task.table([one])
    assert [LABELS[at] for at in _row(table, "labels")[:3]] == ["O", "B-LOC", "I-LOC"]
    alone = task.table([characters("在\ufe0f", "O B-LOC")])
    assert alone.notes[tagging.LOST] == 1


def test_plain_tags_and_words_of_tokens_without_a_piece():
    plain = tagger(("NUM", "P", "N"), "plain")
    one = characters("在2008\ufe0f年", "P NUM NUM NUM NUM NUM N")
    table = plain.table([one])
    (made,) = plain.decode([one], table, gold_outputs(plain, table))
    assert tuple(made["tags"]) == one.tags and "entities" not in made
    words = tagger(("B", "E", "M", "S"), "BMES")
    one = characters("\ufe0f在2008年", "S S B M M M E")
    table = words.table([one])
    (made,) = words.decode([one], table, gold_outputs(words, table))
    assert tuple(made["tags"]) == one.tags
    assert [word["text"] for word in made["entities"]] == ["\ufe0f", "在", "2008年"]


def test_a_sentence_without_any_piece_is_outside():
    one = example("\ufe0f", "B-LOC")
    task = tagger(head={"crf": True})
    (made,) = predicted(task, params_of(task), [one])
    assert (made["tags"], made["probabilities"], made["entities"]) == (
        ["O"],
        [None],
        [],
    )


LONG = example(" ".join("abcdeabcdeabc"), " ".join(["B-PER", "I-PER", "O"] * 4 + ["O"]))


def test_windows_give_every_token_once():
    """13 pieces in rows of 6 + 2: windows at 0, 3, 6 and 9, over by half."""
    task = tagger(length=8)
    table = task.table([LONG])
    assert table.lengths.tolist() == [8, 8, 8, 6]
    assert table.notes[tagging.WINDOWS] == 4
    numbers = [
        row[: int(weights.sum())].tolist()
        for row, weights in zip(
            table.tokens["token_numbers"], table.tokens["token_weights"], strict=True
        )
    ]
    assert numbers == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10], [11, 12]]
    assert table.fixed["opens"].tolist() == [1, 0, 0, 0]
    assert table.fixed["closes"].tolist() == [0, 0, 0, 1]
    assert table.examples.tolist() == [0, 0, 0, 0]
    (made,) = task.decode([LONG], table, gold_outputs(task, table))
    assert tuple(made["tags"]) == LONG.tags


def test_a_chain_may_begin_and_end_inside_of_an_entity_where_its_window_does():
    """The second row has tokens 5 to 7, in the middle of an entity.

    A start or an end that is forbidden would cost 10,000 each.
    """
    tags = "O O O O B-PER I-PER I-PER I-PER E-PER O O O O"
    inside = dataclasses.replace(LONG, tags=tuple(tags.split()))
    labels = tag_schemes.labels_of([inside.tags], "BIOES")
    task = tagger(labels, "BIOES", length=8, head={"crf": True})
    table = task.table([inside])
    assert [labels[at] for at in _row(table, "labels", 1)[:3]] == ["I-PER"] * 3
    params = params_of(task)
    batch = whole(table, 8)
    assert loss_of(task, params, batch) < 100
    # The third row begins with E-, and the first ends in B-.
    for name in ("opens", "closes"):
        closed = batch | {name: jnp.ones_like(batch[name])}
        cost = loss_of(task, params, closed)
        assert cost == pytest.approx(20_000, abs=200)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (
            [example("Anna met Bob", "B-PER O I-PER"), SENTENCES[0]],
            r"f.txt:7: the tags of token 3 \('Bob'\) of the sentence .* BIO: "
            "I-PER after O.*data.repair",
        ),
        ([example("Anna", "B-ORG")], "f.txt:7: the label 'B-ORG' .* 5 labels"),
        ([example("Anna met", "NOUN VERB")], "f.txt:7: the tag 'NOUN' "),
        ([example("Anna"), SENTENCES[0]], "f.txt:7: this sentence has no tags"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(sentences, message):
    with pytest.raises(errors.InputError, match=message):
        tagger().table(sentences)


def test_broken_tags_are_repaired_on_request_and_counted():
    sentences = [example("Anna met Bob", "B-PER O I-PER"), SENTENCES[0]]
    table = tagger(repair=True).table(sentences)
    assert _row(table, "labels")[:3] == [2, 0, 2]
    assert table.notes[tagging.REPAIRED] == 1


def test_rows_without_room_are_refused():
    with pytest.raises(errors.InputError, match="data.max_seq_length 2 "):
        tagger(length=2).table(SENTENCES)


def test_scores_by_hand():
    """PER: 1 of 2 found and 2 said; LOC: found. Two of six tags are wrong."""
    task = tagger()
    table = task.table(SENTENCES[:1])
    outputs = gold_outputs(task, table)
    outputs["tags"] = [np.array([2, 2, 0, 0, 1, 0, 0, 0, 0], np.int32)]
    outputs["probabilities"][0][1] = 0.5
    scores = task.score(SENTENCES[:1], task.decode(SENTENCES[:1], table, outputs))
    assert scores.metrics["entity_f1"] == pytest.approx(2 / 3)
    assert scores.metrics["entity_precision"] == pytest.approx(2 / 3)
    assert scores.metrics["token_accuracy"] == pytest.approx(4 / 6)
    assert [row["class"] for row in scores.classes] == ["LOC", "PER"]
    assert scores.classes[1]["f1"] == 0.5 and scores.classes[1]["examples"] == 2
    (error,) = scores.errors
    assert (error.severity, error.where) == (2.0, "f.txt:7")
    assert (error.expected, error.predicted) == ("Bobby/PER", "met/PER")
    assert scores.confidences.hits.tolist() == [True, False, False, True, True, True]
    assert scores.confidences.values[1] == 0.5
    # |4/6 - mean| within bins: five tokens at 0.75 (4 right), one at 0.5 (wrong).
    assert scores.metrics["ece"] == pytest.approx((5 * 0.05 + 0.5) / 6)


def test_scores_of_plain_tags():
    task = tagger(("N", "V"), "plain")
    one = example("Anna met Bob", "N V N")
    table = task.table([one])
    outputs = gold_outputs(task, table)
    outputs["tags"][0] = np.array([0, 0, 0, 0, 0], np.int32)
    scores = task.score([one], task.decode([one], table, outputs))
    assert scores.metrics["token_accuracy"] == pytest.approx(2 / 3)
    assert scores.metrics["macro_f1"] == pytest.approx((0.8 + 0) / 2)
    np.testing.assert_array_equal(scores.confusion.counts, [[2, 0], [1, 0]])
    assert scores.errors[0].expected == "met/V"
    new = example("Anna met Bob", "N V X")
    scores = task.score([new], task.decode([one], table, outputs))
    assert scores.confusion.labels == ("N", "V", "X")


def test_scoring_refuses_what_has_no_tags_and_what_is_not_finite():
    task = tagger()
    bare = [example("Anna met Bob")]
    table = task.table(bare)
    made = task.decode(bare, table, gold_outputs(task, table))
    with pytest.raises(errors.InputError, match="f.txt:7: .* no tags"):
        task.score(bare, made)
    with pytest.raises(errors.InputError, match="nothing to score"):
        task.score([], [])
    made[0]["probabilities"][0] = float("nan")
    with pytest.raises(errors.NotFiniteError):
        task.score([example("Anna met Bob", "O O O")], made)


def test_what_is_learnt_of_examples():
    assert tagging.learn(SENTENCES) == (LABELS, "BIO")
    iob1 = [example("Anna Bob saw Rome", "I-PER I-PER O I-LOC")]
    assert tagging.learn(iob1) == (LABELS, "BIO")
    words = [example("北 京 在", "B E S")]
    assert tagging.learn(words) == (("B", "E", "I", "S"), "BIOES")
    assert tagging.learn([example("Anna met", "N V")]) == (("N", "V"), "plain")
    for nothing in ([], [example("Anna met")]):
        with pytest.raises(errors.InputError, match="data.columns.tag"):
            tagging.learn(nothing)


@pytest.mark.parametrize("head", [{}, {"recurrent_size": 19}, {"crf": True}])
@pytest.mark.slow
def test_eight_sentences_are_learnt_by_heart(head):
    task = tagger(head=head)
    table = task.table(SENTENCES)
    params, loss = fit(task, table, 60, length=10)
    found = predicted(task, params, SENTENCES, table)
    assert loss < 0.1
    assert task.score(SENTENCES, found).metrics["entity_f1"] == 1.0
    spans = [entities.spans_of(x.tags) for x in SENTENCES]
    assert [len(made["entities"]) for made in found] == [len(x) for x in spans]


@pytest.mark.parametrize(
    ("text", "tags", "place"),
    [
        ("Anna saw Bob Rome", "B-PER 0 B-PER B-LOC", "f.txt:21: token 2 ('saw')"),
        ("Anna saw Bob Rome", "B-PER O Bob B-LOC", "f.txt:22: token 3 ('Bob')"),
        ("B-PER O O B-LOC", "Anna saw it Rome", "columns"),
        ("Anna saw Bob Rome", "O O O O", "all 4 tokens have the tag 'O'"),
    ],
)
def test_tags_that_are_of_no_one_scheme_are_refused(text, tags, place):
    wrong = example(text, tags, lines=range(20, 24))
    with pytest.raises(errors.InputError, match=re.escape(place)):
        tagging.learn([wrong])


def test_a_tag_with_a_blank_is_refused():
    wrong = example("Anna saw", "N V")
    wrong = dataclasses.replace(wrong, tags=("N", "V N"))
    with pytest.raises(errors.InputError, match="token 2"):
        tagging.learn([wrong])


def test_the_scheme_is_named():
    iob1 = [example("Anna Bob saw Rome", "I-PER I-PER O I-LOC")]
    assert tagging.SPEC.describe(iob1) == (
        "tags: IOB1, learned as BIO; 2 types: LOC, PER"
    )
    bilou = [example("Anna Bob saw Rome", "B-PER L-PER O U-LOC")]
    assert tagging.SPEC.describe(bilou) == "tags: BILOU; 2 types: LOC, PER"
    assert tagging.SPEC.describe([example("Anna met", "N V")]) == (
        "tags: plain, one per token; 2 tags: N, V"
    )
