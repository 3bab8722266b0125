"""Roles: predicates marked or joint, rows, predictions back, scores, learning."""

import dataclasses

import numpy as np
import pytest
from small_tags import (
    example,
    fit,
    gold_outputs,
    on_device,
    params_of,
    predicted,
    role_labeller,
    whole,
)

from bert_jax import errors
from bert_jax.tasks import roles, tagging

LABELS = ("O", "ARG0", "ARG1", "ARGM-LOC", "V")
JOINT = {"at_predicate": True}


def _of(text: str, *tags: str, where: str = "f.txt:1") -> list:
    """Returns the examples of a sentence, one for the V of each list of tags."""
    return [
        example(
            text,
            one,
            predicate=one.split().index("V"),
            sense=f"verb.0{at}",
            id=f"{where}.{at}",
            where=where,
        )
        for at, one in enumerate(tags)
    ]


TWO = _of("Anna saw Bobby met Paris .", "ARG0 V O ARG1 O O", "O O ARG0 V ARG1 O")
ONE = _of("in Rome Bob met Anna", "ARGM-LOC O ARG0 V ARG1", where="f.txt:9")
THREE = _of(
    "Anna met Bob saw Rome saw Bob",
    "ARG0 V ARG1 O O O O",
    "O O ARG0 V ARG1 O O",
    "O O O O ARG0 V ARG1",
    where="f.txt:20",
)
EXAMPLES = [*TWO, *ONE, *THREE]


def test_the_predicate_is_marked_by_token_type():
    """[CLS] anna saw bob ##by met paris . [SEP], with saw, then with met."""
    table = role_labeller(LABELS).table(TWO)
    assert table.tokens["token_type_ids"][0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert table.tokens["token_type_ids"][1].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert table.tokens["labels"][0][:6].tolist() == [1, 4, 0, 2, 0, 0]
    assert table.examples.tolist() == [0, 1]
    assert table.fixed["example_numbers"].tolist() == [[1], [2]]
    # All pieces of a predicate are marked.
    bobby = [dataclasses.replace(TWO[0], predicate=2)]
    table = role_labeller(LABELS).table(bobby)
    assert table.tokens["token_type_ids"][0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_joint_rows_have_all_predicates_of_a_sentence():
    """Two a row: the third of the last sentence has a row more."""
    task = role_labeller(LABELS, head=JOINT, predicates_per_row=2)
    table = task.table(EXAMPLES)
    assert len(table) == 4
    assert table.fixed["predicate_positions"].tolist() == [
        [2, 5],
        [4, 0],
        [2, 4],
        [6, 0],
    ]
    assert table.fixed["example_numbers"].tolist() == [[1, 2], [3, 0], [4, 5], [6, 0]]
    assert table.examples.tolist() == [0, 2, 3, 3]  # a sentence is in one fold
    assert table.tokens["labels"][0][:, :6].tolist() == [
        [1, 4, 0, 2, 0, 0],
        [0, 0, 1, 4, 2, 0],
    ]
    assert table.tokens["token_weights"][1].sum(axis=1).tolist() == [5.0, 0.0]
    assert not np.concatenate(table.tokens["token_type_ids"]).any()


@pytest.mark.parametrize("head", [{}, JOINT])
def test_gold_roles_come_back(head):
    task = role_labeller(LABELS, head=head, predicates_per_row=2)
    table = task.table(EXAMPLES)
    found = task.decode(EXAMPLES, table, gold_outputs(task, table))
    assert [tuple(made["tags"]) for made in found] == [x.tags for x in EXAMPLES]
    assert found[1] == {
        "id": "f.txt:1.1",
        "text": "Anna saw Bobby met Paris .",
        "predicate": {"start": 15, "end": 18, "text": "met", "sense": "verb.01"},
        "roles": [
            {"role": "ARG0", "start": 9, "end": 14, "text": "Bobby"},
            {"role": "ARG1", "start": 19, "end": 24, "text": "Paris"},
        ],
        "tags": ["O", "O", "ARG0", "V", "ARG1", "O"],
        "probabilities": [0.75] * 6,
    }
    metrics = task.score(EXAMPLES, found).metrics
    assert metrics["role_f1"] == metrics["core_f1"] == metrics["adjunct_f1"] == 1.0


def test_roles_of_several_tokens():
    one = dataclasses.replace(
        ONE[0], tags=("B-ARGM-LOC", "I-ARGM-LOC", "B-ARG0", "B-V", "B-ARG1")
    )
    labels, scheme = tagging.learn([one])
    assert scheme == "BIO" and labels[:2] == ("O", "B-ARG0") and len(labels) == 9
    task = role_labeller(labels, scheme, head={"crf": True, **JOINT})
    table = task.table([one])
    (made,) = task.decode([one], table, gold_outputs(task, table))
    assert made["roles"][0] == {
        "role": "ARGM-LOC",
        "start": 0,
        "end": 7,
        "text": "in Rome",
    }
    assert [role["role"] for role in made["roles"]] == ["ARGM-LOC", "ARG0", "ARG1"]
    params = params_of(task)
    (made,) = predicted(task, params, [one], table)
    assert len(made["tags"]) == 5 and all(0 < x <= 1 for x in made["probabilities"])


def test_a_role_is_not_passed_on_to_a_token_that_shares_its_piece():
    one = dataclasses.replace(
        example("a"),
        text="在2008",
        tokens=((0, 1), (1, 3), (3, 5)),
        tags=("V", "ARG1", "O"),
        predicate=0,
    )
    task = role_labeller(LABELS)
    table = task.table([one])
    (made,) = task.decode([one], table, gold_outputs(task, table))
    assert made["tags"] == ["V", "ARG1", "O"]
    other = dataclasses.replace(one, tags=("V", "O", "ARG1"))
    assert task.table([other]).notes[roles.LOST] == 1
    assert task.table([one]).notes[roles.LOST] == 0


@pytest.mark.parametrize("head", [{}, JOINT])
def test_a_long_sentence_is_seen_around_each_predicate(head):
    """13 pieces, room for 6: around the predicates 1 and 12."""
    tags = ["O V ARG0 O O O O O O O O O O", "O O O ARG1 O O O O O O O ARG0 V"]
    long = _of(" ".join("abcdeabcdeabc"), *tags)
    task = role_labeller(LABELS, length=8, head=head)
    table = task.table(long)
    assert table.lengths.tolist() == [8, 8]
    assert table.notes[roles.FAR] == 14 and table.notes[roles.LOST] == 1
    numbers = [row[:6].tolist() for row in table.tokens["token_numbers"]]
    assert numbers == [[0, 1, 2, 3, 4, 5], [7, 8, 9, 10, 11, 12]]
    assert table.fixed["predicate_positions"][:, 0].tolist() == [2, 6]
    assert table.fixed["opens"].tolist() == [1, 0]
    found = task.decode(long, table, gold_outputs(task, table))
    assert tuple(found[0]["tags"]) == long[0].tags
    assert found[1]["tags"] == ["O"] * 11 + ["ARG0", "V"]
    assert found[1]["probabilities"][:7] == [None] * 7


def test_a_predicate_without_a_piece_is_counted():
    one = dataclasses.replace(
        example("a"),
        text="\ufe0f北",
        tokens=((0, 1), (1, 2)),
        tags=("V", "ARG0"),
        predicate=0,
    )
    table = role_labeller(LABELS).table([one])
    assert table.notes[roles.UNSEEN] == 1
    assert table.tokens["token_type_ids"][0].tolist() == [0, 0, 0]


def test_models_and_examples_that_cannot_be_are_refused():
    for types in (0, 1):
        with pytest.raises(
            errors.InputError, match=f"has {types}: set data.predicates"
        ):
            role_labeller(LABELS, head={"types": types})
        role_labeller(LABELS, head={"types": types, **JOINT})
    bare = [example("Anna met", "ARG0 V")]
    with pytest.raises(
        errors.InputError, match="f.txt:7: the sentence has no predicate"
    ):
        role_labeller(LABELS).table(bare)
    new = [dataclasses.replace(ONE[0], tags=("ARG7", "O", "O", "V", "O"))]
    with pytest.raises(errors.InputError, match="f.txt:9: the label 'ARG7'"):
        role_labeller(LABELS).table(new)


def test_other_predicates_of_a_row_and_padding_change_nothing():
    task = role_labeller(LABELS, head={"crf": True, **JOINT}, predicates_per_row=2)
    params = params_of(task)
    together = predicted(task, params, EXAMPLES)
    alone = predicted(task, params, EXAMPLES[1:2], length=13)
    assert together[1]["tags"] == alone[0]["tags"]
    np.testing.assert_allclose(
        together[1]["probabilities"], alone[0]["probabilities"], rtol=1e-4
    )
    table = task.table(EXAMPLES)
    batch = whole(table)
    assert float(task.weights(batch)["tag"]) == 6 * 2 + 5 + 7 * 3
    wide = on_device(table.batch(np.arange(4), 7, 24))
    assert float(task.weights(wide)["tag"]) == 6 * 2 + 5 + 7 * 3


def test_scores_by_hand():
    """V is not scored; ARG0 is missed, ARGM-LOC taken for ARG1, C-ARG1 found."""
    labels = (*LABELS, "C-ARG1", "C-V")
    one = _of("in Rome Bob met Anna Bob", "ARGM-LOC O ARG0 V ARG1 C-ARG1")
    task = role_labeller(labels)
    said = ["ARG1", "C-V", "O", "O", "ARG1", "C-ARG1"]
    made = [{"tags": said, "probabilities": [0.5] * 6}]
    scores = task.score(one, made)
    assert scores.metrics["role_precision"] == pytest.approx(2 / 3)
    assert scores.metrics["role_recall"] == pytest.approx(2 / 4)
    assert scores.metrics["core_f1"] == pytest.approx(2 * 0.5 * 0.5 / 1)
    assert scores.metrics["adjunct_f1"] == 0.0
    assert scores.metrics["token_accuracy"] == pytest.approx(2 / 6)
    rows = {row["class"]: row["f1"] for row in scores.classes}
    assert rows["C-ARG1"] == 1.0 and rows["ARG1"] == pytest.approx(2 / 3)
    assert set(rows) == {"ARG0", "ARG1", "ARGM-LOC", "C-ARG1"}
    (error,) = scores.errors
    assert error.text == "in Rome Bob met Anna Bob [met]" and error.severity == 3.0
    assert error.expected == "in/ARGM-LOC; Bob/ARG0" and error.predicted == "in/ARG1"


def test_what_is_learnt_of_examples():
    assert tagging.learn(EXAMPLES) == (LABELS, "plain")
    everywhere = _of("Anna met Bob", "ARG0 V ARG1")
    assert tagging.learn(everywhere) == (("O", "ARG0", "ARG1", "V"), "plain")


@pytest.mark.parametrize("head", [{}, JOINT])
@pytest.mark.slow
def test_the_roles_of_each_predicate_are_learnt_by_heart(head):
    """Anna and Bob swap their roles between the predicates of one sentence.

    What is a sum of what the token says and what the predicate says cannot do that.
    """
    tags = ("V O ARG0 O ARG1", "O V ARG1 O ARG0")
    swapped = _of("met saw Anna in Bob", *tags, where="f.txt:40")
    examples = [*EXAMPLES, *swapped]
    task = role_labeller(LABELS, head=head, predicates_per_row=2)
    table = task.table(examples)
    params, loss = fit(task, table, 150, length=10)
    found = predicted(task, params, examples, table, length=10)
    assert loss < 0.1
    assert task.score(examples, found).metrics["role_f1"] == 1.0


def test_tags_of_roles_are_checked_as_those_of_entities():
    broken = [dataclasses.replace(ONE[0], tags=("I-A", "O", "O", "B-V", "B-A"))]
    task = role_labeller(("O", "B-A", "I-A", "B-V", "I-V"), "BIO")
    with pytest.raises(errors.InputError, match=r"token 1 \('in'\).* BIO: "):
        task.table(broken)
    repaired = dataclasses.replace(task, repair=True).table(broken)
    assert repaired.notes[tagging.REPAIRED] == 1
