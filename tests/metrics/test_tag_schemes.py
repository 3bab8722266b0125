"""Schemes told apart, converted and checked; the moves that they allow."""

import itertools

import numpy as np
import pytest

from bert_jax.metrics import entities, tag_schemes


@pytest.mark.parametrize(
    ("scheme", "sentences"),
    [
        ("BIO", ["B-PER I-PER O", "O"]),
        ("BIO", ["B-PER", "B-LOC B-PER"]),  # no I at all
        ("BIO", ["B-PER I-PER O", "O I-PER"]),  # one mistake does not make it IOB1
        ("BIO", ["B I I B"]),  # words
        ("BIO", ["B-PER.NAM I-PER.NAM", "O"]),
        ("IOB1", ["I-PER I-PER O", "I-PER B-PER"]),
        ("IOB1", ["I-PER I-LOC O"]),
        ("BIOES", ["B-PER E-PER O", "S-LOC"]),
        ("BIOES", ["B E S"]),
        ("BILOU", ["B-PER I-PER L-PER O U-LOC"]),
        ("BILOU", ["U-LOC O"]),
        ("BMES", ["B M E S"]),
        ("BMES", ["B-PER M-PER E-PER O"]),
        ("plain", ["NOUN VERB", "PUNCT"]),
        ("plain", ["O ARG1 V", "O"]),
        ("plain", ["O O"]),
        ("plain", ["B-PER NN"]),
        ("plain", ["I IN"]),
        ("plain", []),
    ],
)
def test_detect(scheme, sentences):
    assert tag_schemes.detect([tags.split() for tags in sentences]) == scheme


@pytest.mark.parametrize(
    ("tags", "wrong"),
    [
        ("O B-PER I-PER 0", "0"),
        ("O B-PER 0", "0"),
        ("0 B-PER I-PER", "0"),
        ("O B-PER I-PER o", "o"),
        ("O B-PER I-PER B_PER", "B_PER"),
        ("O B-PER B_LOC", "B_LOC"),
        ("O B-PER I-PER B-", "B-"),
        ("O B-PER I-PER b-per", "b-per"),
        ("O B-PER I-PER London", "London"),
        ("O B-PER E-PER L-LOC", "E-PER"),
        ("O B_PER I_PER", "B_PER"),
        ("O PER-B PER-I", "PER-B"),
        ("O B-PER I-PER PER-B", "PER-B"),
        ("NOUN VERB", None),
        ("O ARG0 ARG1 V", None),
        ("NOUN B-PER VERB ADJ", None),
        ("O S E B M", None),
        ("B-地名 M-地名 E-地名 S-地名 O", None),
        ("B-PER M-PER O 人", "人"),
        ("O B-PER I-PER B", "B"),
        ("B-人名 I-人名 I O", "I"),
        ("B-人名 M-人名 E-人名 W-地名 O", None),
        ("B-PER I-PER W_LOC O", "W_LOC"),
    ],
)
def test_a_tag_that_does_not_fit_with_the_others(tags, wrong):
    found = tag_schemes.problem_of(tags.split())
    assert (found and found[0]) == wrong


@pytest.mark.parametrize("letter", "ESLUMW")
def test_one_letter_of_another_scheme_among_many_sentences(letter):
    most = [["B-人名", "I-人名", "O"]] * 5
    slip = ["O", f"{letter}-地名"]
    assert tag_schemes.odd_letters([*most[:3], slip, *most]) == {3: f"{letter}-地名"}
    assert tag_schemes.odd_letters([*most[:2], slip, slip]) == {}
    bioes = ["B-人名", "E-人名", "S-地名"]
    assert tag_schemes.odd_letters([bioes] * 2 + [["O"]] * 20) == {}


@pytest.mark.parametrize(
    ("tags", "scheme", "found"),
    [
        ("O B-A I-A", "BIO", None),
        ("I-A O", "BIO", (0, "I-A at the start")),
        ("O I-A", "BIO", (1, "I-A after O")),
        ("B-A I-A I-B", "BIO", (2, "I-B after I-A")),
        ("B-A B-A I-A", "IOB1", (0, "B-A at the start")),
        ("I-A B-A I-A", "IOB1", None),
        ("I-A B-B", "IOB1", (1, "B-B after I-A")),
        ("B-A I-A E-A S-A", "BIOES", None),
        ("B-A O", "BIOES", (1, "O after B-A")),
        ("O B-A", "BIOES", (1, "B-A at the end")),
        ("S-A E-A", "BIOES", (1, "E-A after S-A")),
        ("B-A E-B", "BIOES", (1, "E-B after B-A")),
        ("B-A I-A L-A U-A O", "BILOU", None),
        ("B-A L-A I-A", "BILOU", (2, "I-A after L-A")),
        ("B M E S S B E", "BMES", None),
        ("B S", "BMES", (1, "S after B")),
        ("B-A M-A E-A W-A O", "BMEWO", None),
        ("B-A W-A", "BMEWO", (1, "W-A after B-A")),
        ("B B E", "BMES", (1, "B after B")),
        ("X O Y", "plain", None),
        ("", "BIO", None),
    ],
)
def test_first_break(tags, scheme, found):
    assert tag_schemes.first_break(tags.split(), scheme) == found


@pytest.mark.parametrize(
    ("tags", "scheme", "converted"),
    [
        ("I-A I-A B-A O I-B", "BIO", "B-A I-A B-A O B-B"),
        ("B-A I-A E-A S-A O", "BIO", "B-A I-A I-A B-A O"),
        ("B-A I-A I-A B-A O", "BIOES", "B-A I-A E-A S-A O"),
        ("B M E S B E", "BIO", "B I I B B I"),
        ("B I I B B I", "BMES", "B M E S B E"),
        ("O I-A I-B", "BIO", "O B-A B-B"),  # repaired
        ("B-A O", "BIOES", "S-A O"),
        ("B-A M-A E-A W-A W-A O", "BIO", "B-A I-A I-A B-A B-A O"),
        ("B-A I-A B-B O", "BMEWO", "B-A E-A W-B O"),
    ],
)
def test_convert(tags, scheme, converted):
    assert tag_schemes.convert(tags.split(), scheme) == converted.split()


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "BMES"])
def test_converting_to_and_fro_keeps_the_spans(scheme):
    rng = np.random.default_rng(3)
    tags = ("O", "B-X", "I-X", "B-Y", "I-Y", "E-Y", "S-X", "M-X")
    for _ in range(97):
        sentence = [str(rng.choice(tags)) for _ in range(7)]
        written = tag_schemes.convert(sentence, scheme)
        assert entities.spans_of(written) == entities.spans_of(sentence)
        assert tag_schemes.first_break(written, scheme) is None
        assert tag_schemes.convert(written, scheme) == written


def test_labels_tell_their_scheme():
    assert tag_schemes.of_labels(("O", "B-A", "I-A")) == "BIO"
    assert tag_schemes.of_labels(("I-A", "O")) == "BIO"
    assert tag_schemes.of_labels(("B-A", "S-A", "O")) == "BIOES"
    assert tag_schemes.of_labels(("B", "M", "E", "S")) == "BMES"
    assert (
        tag_schemes.of_labels(("O",)) == tag_schemes.of_labels(("B-A", "N")) == "plain"
    )


def test_all_breaks_are_found():
    assert tag_schemes.breaks("I-A O I-A I-A I-B".split(), "BIO") == [0, 2, 4]
    assert tag_schemes.breaks("B-A O B-A".split(), "BIOES") == [1, 3]


def test_words_without_a_mark_around_them():
    assert tag_schemes.write([("_", 1, 3)], 4, "BMES", outside="S") == list("SBES")


def test_labels_are_whole_sorted_and_do_not_depend_on_the_order():
    sentences = [["O", "B-PER"], ["B-LOC", "I-LOC", "O"]]
    wanted = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
    assert tag_schemes.labels_of(sentences, "BIO") == wanted
    assert tag_schemes.labels_of(sentences[::-1], "BIO") == wanted
    bioes = ("O", "B-A", "E-A", "I-A", "S-A")
    assert tag_schemes.labels_of([["S-A", "O"]], "BIOES") == bioes
    assert tag_schemes.labels_of([["S", "S"]], "BMES") == ("B", "E", "M", "S")
    plain = [["VERB", "O", "ADJ"]]
    assert tag_schemes.labels_of(plain, "plain") == ("O", "ADJ", "VERB")
    assert tag_schemes.labels_of([], "plain") == ()


def test_moves_of_bio():
    """Rows: the tag before. O, B-X, B-Y, I-X, I-Y."""
    labels = ("O", "B-X", "B-Y", "I-X", "I-Y")
    transitions, starts, ends = tag_schemes.allowed(labels, "BIO")
    wanted = [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    np.testing.assert_array_equal(transitions, np.array(wanted, bool))
    np.testing.assert_array_equal(starts, [True, True, True, False, False])
    assert ends.all()


def test_moves_of_words():
    """Rows: the tag before. B, E, M, S."""
    transitions, starts, ends = tag_schemes.allowed(("B", "E", "M", "S"), "BMES")
    wanted = [[0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1]]
    np.testing.assert_array_equal(transitions, np.array(wanted, bool))
    np.testing.assert_array_equal(starts, [True, False, False, True])
    np.testing.assert_array_equal(ends, [False, True, False, True])


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_what_is_allowed_is_exactly_what_write_can_write(scheme):
    """All sequences of four tags: those that converting does not change."""
    labels = tag_schemes.labels_of([["B-X", "B-Y", "O"]], scheme)
    transitions, starts, ends = tag_schemes.allowed(labels, scheme)
    kept = 0
    for path in itertools.product(range(len(labels)), repeat=4):
        moves = all(transitions[a, b] for a, b in itertools.pairwise(path))
        may = starts[path[0]] and moves and ends[path[-1]]
        tags = [labels[at] for at in path]
        assert may == (tag_schemes.convert(tags, scheme) == tags), tags
        kept += may
    assert 0 < kept < len(labels) ** 4


def test_plain_tags_allow_everything():
    for moves in tag_schemes.allowed(("NOUN", "O", "VERB"), "plain"):
        assert moves.all()
