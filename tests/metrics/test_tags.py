"""Tables, certainty and mistakes of tags, by hand."""

import numpy as np

from bert_jax.metrics import entities, tags

TRUE = [["N", "V", "N"], ["V"]]
FOUND = [["N", "N", "V"], ["V"]]


def test_a_row_for_each_type():
    report = entities.score([[("B", 0), ("A", 1)]], [[("B", 0), ("B", 1)]])
    assert tags.classes(report) == (
        {"class": "A", "precision": 0.0, "recall": 0.0, "f1": 0.0, "examples": 1},
        {"class": "B", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "examples": 1},
    )


def test_confusion_counts_true_by_predicted_and_takes_new_tags():
    made = tags.confusion(("V", "N"), TRUE, FOUND)
    assert made.labels == ("V", "N")
    np.testing.assert_array_equal(made.counts, [[1, 1], [1, 1]])
    new = tags.confusion(("V",), [["X", "A"]], [["V", "V"]])
    assert new.labels == ("V", "A", "X")
    np.testing.assert_array_equal(new.counts, [[0, 0, 0], [1, 0, 0], [1, 0, 0]])


def test_certainty_leaves_out_what_was_not_seen():
    made = tags.certainty(TRUE, FOUND, [[0.9, None, 0.4], [0.7]])
    assert made.confidences.tolist() == [0.9, 0.4, 0.7]
    assert made.hits.tolist() == [True, False, True]


def test_mistakes_are_sorted_by_their_number_and_said():
    wanted = [tags.numbered(x) for x in TRUE]
    found = [tags.numbered(x) for x in FOUND]
    wanted.append([("A", 0)])
    found.append([])
    made = tags.mistakes(
        ["f:1", "f:2", "f:3"],
        ["a b c", "d", "e"],
        wanted,
        found,
        lambda at, item: f"{at}.{item[1]}={item[0]}",
    )
    assert [(x.badness, x.where, x.text) for x in made] == [
        (4.0, "f:1", "a b c"),
        (1.0, "f:3", "e"),
    ]
    assert (made[0].expected, made[0].found) == ("0.1=V; 0.2=N", "0.1=N; 0.2=V")
    assert (made[1].expected, made[1].found) == ("2.0=A", "nothing")
