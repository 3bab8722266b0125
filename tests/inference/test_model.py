"""Filling masks: windows around them, guesses that are words, texts one a line."""

import inspect
import io

import jax
import numpy as np
import pytest
from flax import linen as nn

from bert_jax import errors
from bert_jax.inference import inputs
from bert_jax.inference.model import Model
from bert_jax.model import config, encoder, network
from bert_jax.text.tokenizer import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh")


@pytest.fixture(scope="module")
def model():
    """A model of rows of nine tokens whose bias makes it prefer 'g', then 'c'."""
    tokenizer = Tokenizer("wordpiece", PIECES, True, True)
    bert = config.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=7,
        max_position_embeddings=9,
    )
    made = network.for_pretraining(bert, encoder.Execution(), sentence_pairs=False)
    params = nn.unbox(made.init(jax.random.key(0)))
    bias = np.zeros(128, np.float32)
    bias[[4, 11, 7]] = 30.0, 20.0, 10.0  # [MASK] itself, g, c
    params["mlm_head"]["bias"] = jax.numpy.asarray(bias)
    return Model(tokenizer, bert, params, max_seq_length=9)


def test_guesses_are_ordered_and_never_special(model):
    (guesses,) = model.fill_mask("a b [MASK] d", top=2)
    assert [token for token, _ in guesses] == ["g", "c"]
    assert guesses[0][1] > guesses[1][1] > 0


def test_every_mask_has_guesses(model):
    filled = model.fill_mask("[MASK] b [MASK]", top=3)
    assert [len(guesses) for guesses in filled] == [3, 3]


@pytest.mark.parametrize(
    ("at", "window", "position"),
    [
        (0, [0, 1, 2, 3, 4, 5, 6], 1),
        (3, [0, 1, 2, 3, 4, 5, 6], 4),
        (10, [7, 8, 9, 10, 11, 12, 13], 4),
        (19, [13, 14, 15, 16, 17, 18, 19], 7),
    ],
)
def test_a_long_text_is_seen_through_a_window_around_the_mask(
    model, at, window, position
):
    row, place = model._window(list(range(20)), at)
    assert row == [2, *window, 3]
    assert place == position and row[place] == at


def test_a_text_without_a_mask_is_refused(model):
    with pytest.raises(errors.InputError, match=r"no \[MASK\]"):
        model.fill_mask("a b c")
    with pytest.raises(errors.InputError, match="^top is 0"):
        model.fill_mask("a [MASK]", top=0)


def test_a_list_of_texts_has_one_result_a_text(model):
    texts = ["a b [MASK] d", "[MASK] b [MASK]"]
    assert model.fill_mask(texts, top=2) == [model.fill_mask(x, top=2) for x in texts]
    assert model.fill_mask([]) == []
    with pytest.raises(errors.InputError, match=r"texts\[1\] has no \[MASK\]"):
        model.fill_mask(["[MASK]", "a"])


@pytest.mark.parametrize("wrong", [None, float("nan"), 3, b"[MASK]"])
def test_what_is_no_text_is_named_with_its_position(model, wrong):
    fill_mask = inspect.unwrap(Model.fill_mask)  # without the types of tests
    with pytest.raises(errors.InputError) as raised:
        fill_mask(model, ["[MASK]", wrong])
    assert str(raised.value) == f"texts[1] is {wrong!r}: give a str"
    with pytest.raises(errors.InputError, match="^texts is .*: give a list of texts"):
        fill_mask(model, wrong)


def test_texts_come_from_arguments_or_a_file_with_their_place(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeff一[MASK]\r\n\n二[MASK]\n".encode())
    assert list(inputs.numbered_texts(["x"], str(path))) == [(1, "argument 1", "x")]
    assert list(inputs.numbered_texts([], str(path))) == [
        (1, f"{path}:1", "一[MASK]"),
        (3, f"{path}:3", "二[MASK]"),
    ]


def test_texts_come_from_standard_input_last(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    found = list(inputs.numbered_texts([], None))
    assert found == [(1, "standard input:1", "a"), (2, "standard input:2", "b")]


def test_unknown_tokens_and_cut_texts_are_warned_of_once_a_call(model, caplog):
    model.fill_mask(["x [MASK]", "y [MASK]", "a [MASK]"])
    model.encode(["a b c", "d " * 30])
    messages = [record.getMessage() for record in caplog.records]
    assert [text.split(" of ")[0] for text in messages] == [
        "fill_mask: 66.7 %",
        "encode: 50.0 %",
    ]
    caplog.clear()
    model.encode(["a b c"])
    assert caplog.records == []
