"""Whose piece is whose, and in which window a token sees most."""

import numpy as np
import pytest

from bert_jax.tasks import token_rows


def test_every_token_has_its_own_pieces():
    # "do n't" in "don't go": pieces don ' t go
    offsets = [(0, 3), (3, 4), (4, 5), (6, 8)]
    made = token_rows.align("don't go", [(0, 2), (2, 5), (6, 8)], offsets)
    np.testing.assert_array_equal(made.tokens, [0, 1, 2])
    # n't begins inside of the piece "don": its first own one is the apostrophe.
    np.testing.assert_array_equal(made.subwords, [0, 1, 3])
    np.testing.assert_array_equal(made.ends, [1, 2, 3])
    assert (made.covered, made.dropped) == (0, 0)


def test_a_piece_over_several_tokens_is_the_first_ones():
    tokens = [(at, at + 1) for at in range(7)]  # 在 2 0 0 8 年 ️
    made = token_rows.align("在2008年️", tokens, [(0, 1), (1, 5), (5, 6)])
    np.testing.assert_array_equal(made.tokens, [0, 1, 5])
    np.testing.assert_array_equal(made.ends, [1, 5, 6])
    assert (made.covered, made.dropped) == (3, 1)


def test_white_space_before_a_piece_is_not_of_it():
    # As in SentencePiece: "_the", "_", "_cat"
    tokens = [(0, 3), (4, 7)]
    made = token_rows.align("the cat", tokens, [(0, 3), (3, 4), (3, 7)])
    np.testing.assert_array_equal(made.tokens, [0, 1])
    np.testing.assert_array_equal(made.subwords, [0, 2])


def test_what_is_in_no_token_is_nobodys():
    made = token_rows.align("a, b", [(0, 1), (3, 4)], [(0, 1), (1, 2), (3, 4)])
    np.testing.assert_array_equal(made.subwords, [0, 2])
    np.testing.assert_array_equal(made.ends, [1, 2])
    before = token_rows.align("* b", [(2, 3)], [(0, 1), (2, 3)])
    np.testing.assert_array_equal(before.subwords, [1])


def test_several_pieces_of_one_character_are_one_token():
    """Bytes of a character, as byte-level BPE has them."""
    made = token_rows.align("字b", [(0, 1), (1, 2)], [(0, 1), (0, 1), (1, 2)])
    np.testing.assert_array_equal(made.subwords, [0, 2])


def test_nothing_at_all():
    made = token_rows.align("️", [(0, 1)], [])
    assert (made.covered, made.dropped, len(made.tokens)) == (0, 1, 0)
    assert made.reduce([("A", 0, 1)]) == made.expand([]) == []


def test_spans_there_and_back():
    # Tokens 0..6; 2, 3 are covered by 1; 5 is dropped.
    made = token_rows.Alignment(
        7, np.array([0, 1, 4, 6]), np.array([0, 1, 2, 3]), np.array([1, 4, 5, 7])
    )
    for span, reduced in [
        (("A", 0, 1), ("A", 0, 1)),
        (("A", 1, 4), ("A", 1, 2)),
        (("A", 1, 5), ("A", 1, 3)),
        (("A", 4, 7), ("A", 2, 4)),  # over the dropped one
    ]:
        assert made.reduce([span]) == [reduced]
        assert made.expand([reduced]) == [span]
    assert made.reduce([("A", 2, 4), ("A", 5, 6)]) == []
    # What begins inside of a piece loses its head, what ends there grows.
    assert made.expand(made.reduce([("A", 3, 5)])) == [("A", 4, 5)]
    assert made.expand(made.reduce([("A", 0, 2)])) == [("A", 0, 4)]


@pytest.mark.parametrize(("length", "capacity"), [(3, 5), (11, 4), (12, 5), (9, 1)])
def test_each_piece_has_the_window_with_most_context(length, capacity):
    cut = token_rows.cut(length, capacity, max(capacity // 2, 1))
    owner = token_rows.owners(np.arange(length), cut)
    for piece, at in enumerate(owner):
        contexts = [
            min(
                piece - start if start else length,
                end - 1 - piece if end < length else length,
            )
            for start, end in cut
            if start <= piece < end
        ]
        start, end = cut[at]
        assert start <= piece < end
        mine = min(
            piece - start if start else length,
            end - 1 - piece if end < length else length,
        )
        assert mine == max(contexts)
    assert (np.diff(owner) >= 0).all()  # those of a window stand together
    assert owner[0] == 0 and owner[-1] <= len(cut) - 1
