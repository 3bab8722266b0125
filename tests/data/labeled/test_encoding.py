"""Rows of texts and pairs, and every way to cut them."""

import pytest

from bert_jax import errors
from bert_jax.data.labeled import encoding
from bert_jax.text.tokenizer import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
TOKENIZER = Tokenizer("wordpiece", PIECES, True, True)


def row(text, pair=None, length=8, truncation="longest_first") -> str:
    """Returns the pieces of a row as one string: C and S for [CLS] and [SEP]."""
    texts = [encoding.Text("f.tsv:3", " ".join(text), pair and " ".join(pair))]
    made = encoding.encode(TOKENIZER, texts, length, truncation)
    short = {"[CLS]": "C", "[SEP]": "S"}
    pieces = [PIECES[x] for x in made.columns["input_ids"][0]]
    types = made.columns["token_type_ids"][0]
    assert len(types) == len(pieces) == made.columns["segment_ids"][0].sum()
    assert sum(types) == (len(pieces) - pieces.index("[SEP]") - 1 if pair else 0)
    return "".join(short.get(piece, piece) for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pair", "truncation", "expected"),
    [
        ("abc", None, "longest_first", "CabcS"),
        ("abc", "de", "longest_first", "CabcSdeS"),
        ("abcdefghij", None, "longest_first", "CabcdefS"),
        ("abcdefghij", None, "head_tail", "CafghijS"),
        ("abcdefghij", "xy", "longest_first", "CabcSxyS"),
        ("abcdefg", "uvwxyz", "longest_first", "CabcSuvS"),
        ("uv", "abcdefg", "longest_first", "CuvSabcS"),
        ("abcdefg", "xy", "only_first", "CabcSxyS"),
        ("ab", "uvwxyz", "only_second", "CabSuvwS"),
    ],
)
def test_rows_and_cuts(text, pair, truncation, expected):
    assert row(text, pair, truncation=truncation) == expected


def test_what_is_cut_is_counted():
    texts = [encoding.Text("x", "a b c"), encoding.Text("x", "a b c d e f g h")]
    made = encoding.encode(TOKENIZER, texts, 8)
    assert made.notes == {"rows cut": 1, "tokens cut off": 2}
    assert made.columns.keys() == {"input_ids", "token_type_ids", "segment_ids"}


def test_refuse_names_the_example_and_the_way_out():
    with pytest.raises(errors.InputError, match=r"f\.tsv:3: 9 tokens .* data\.trunc"):
        row("abcdefg", truncation="refuse")
    assert row("abcdef", truncation="refuse") == "CabcdefS"


@pytest.mark.parametrize("truncation", ["only_first", "only_second"])
def test_a_text_is_never_cut_away_whole(truncation):
    pair = ("ab", "cdefghi") if truncation == "only_first" else ("cdefghi", "ab")
    with pytest.raises(errors.InputError, match="leave no room"):
        row(*pair, truncation=truncation)


def test_a_text_without_tokens_has_a_row_and_is_counted():
    texts = [encoding.Text("f.tsv:3", " "), encoding.Text("f.tsv:4", "a", " ")]
    made = encoding.encode(TOKENIZER, texts, 8)
    assert [len(ids) for ids in made.columns["input_ids"]] == [2, 4]
    assert made.notes[encoding.EMPTY] == 2


def test_a_trained_model_has_no_setting_to_raise():
    with pytest.raises(errors.SettingError) as raised:
        row("abcdefg", truncation="refuse")
    assert "data.truncation" in str(raised.value)
    later = str(raised.value.of_trained_model())
    assert "or train again with python -m bert_jax.finetune" in later
