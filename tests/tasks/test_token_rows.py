"""Rows of sentences: columns, counts once a sentence, and rows put together again."""

import numpy as np
from small_tags import WORDS, characters, example

from bert_jax.tasks import token_rows

ONE = characters("在2008\ufe0f年", "O O O O O O O")
OTHER = example("Anna met Bobby .")


def test_a_sentence_is_cut_once_whatever_how_often_it_comes():
    rows = token_rows.SentenceRows(WORDS, 9)
    assert (rows.capacity, rows.before) == (7, 1)
    made = rows.encode([ONE, OTHER, ONE])
    assert made[0] is made[2] and len(made[1].ids) == 5
    assert rows.notes == {token_rows.COVERED: 3, token_rows.DROPPED: 1}


def test_a_row_of_a_window():
    """The pieces bob ##by . of "Anna met Bobby .": 2 tokens."""
    rows = token_rows.SentenceRows(WORDS, 9)
    (sentence,) = rows.encode([OTHER])
    moved, length = rows.add_window(4, sentence, (2, 5), np.array([2, 3]))
    assert (moved, length) == (-1, 5)
    table = rows.table()
    ids = [WORDS.id_of(x) for x in ("[CLS]", "bob", "##by", ".", "[SEP]")]
    assert table.tokens["input_ids"][0].tolist() == ids
    assert table.tokens["token_positions"][0].tolist() == [1, 3, 0, 0, 0]
    assert table.tokens["token_numbers"][0].tolist() == [2, 3, 0, 0, 0]
    assert table.tokens["token_ends"][0].tolist() == [3, 4, 0, 0, 0]
    assert table.fixed["opens"].tolist() == [0]
    assert table.fixed["closes"].tolist() == [1]
    assert table.examples.tolist() == [4]


def test_what_rows_say_is_put_in_the_order_of_the_tokens():
    """Two rows, the later tokens first; the second of two slots is read."""
    rows = token_rows.SentenceRows(WORDS, 9)
    (sentence,) = rows.encode([OTHER])
    for window, chosen in (((2, 5), [2, 3]), ((0, 2), [0, 1])):
        _, length = rows.add_window(0, sentence, window, np.array(chosen))
        weights = token_rows.filled(np.array([[0, 0], [1, 1]]), length)
        rows.tokens["token_weights"].append(weights.astype(np.float32))
    outputs = {
        "tags": [np.array([[9, 9, 9], [7, 8, 9]]), np.array([[9, 9, 9], [5, 6, 9]])],
        "probabilities": [
            np.array([[0, 0], [0.3, 0.4]]),
            np.array([[0, 0], [0.1, 0.2]]),
        ],
    }
    places = [(0, 0, (1,)), (0, 1, (1,))]
    (said,) = token_rows.gather([OTHER], rows.table(), outputs, places)
    assert said.tags.tolist() == [5, 6, 7, 8]
    assert said.probabilities.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert said.aligned.tokens.tolist() == [0, 1, 2, 3]
    assert said.aligned.length == 4
