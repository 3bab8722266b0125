"""Windows over contexts, their labels, and characters that come back exactly."""

import numpy as np
import pytest
import small_models
import tokenizers
from small_questions import VOCABULARY, example
from tokenizers import models, pre_tokenizers, trainers

from bert_jax import errors
from bert_jax.model import heads
from bert_jax.tasks import span, token_rows
from bert_jax.text.tokenizer import Tokenizer

CONTEXT = "Ada lives in  Paris (1895-1943). Bob lives in old Rome."


def made(examples, length=32, stride=5, query=64, answer=30, vocabulary=VOCABULARY):
    return _task(vocabulary, length, stride, query, answer).table(examples)


def _task(vocabulary, length, stride, query, answer, overlap=0):
    return span.Span(
        model=small_models.model(9, heads.HeadSpec("span", 2)),
        tokenizer=vocabulary,
        max_seq_length=length,
        doc_stride=stride,
        doc_overlap=overlap,
        max_query_length=query,
        max_answer_length=answer,
    )


def pieces(table, row):
    ids = table.tokens["input_ids"][row]
    return " ".join(VOCABULARY.tokens[index] for index in ids)


def labelled(table, row, context):
    """The characters of the context between the labels of a row."""
    first, last = (int(table.fixed[f"{x}_positions"][row]) for x in ("start", "end"))
    start = table.tokens["char_starts"][row][first]
    return context[start : table.tokens["char_ends"][row][last]]


def notes(table):
    return {name: count for name, count in table.notes.items() if count}


def test_a_short_context_is_one_row():
    table = made([example(CONTEXT, "Where is Bob?", "old Rome")])
    assert len(table) == 1 and notes(table) == {}
    assert pieces(table, 0) == (
        "[CLS] where is bob ? [SEP] ada lives in paris ( 18 ##95 - [UNK] ) . bob "
        "lives in old rome . [SEP]"
    )
    types = [0] * 6 + [1] * 18
    assert table.tokens["token_type_ids"][0].tolist() == types
    assert table.tokens["segment_ids"][0].tolist() == [1] * 24
    assert table.fixed["start_positions"].tolist() == [20]
    assert table.fixed["end_positions"].tolist() == [21]
    assert labelled(table, 0, CONTEXT) == "old Rome"
    assert all(column[0].dtype == np.int32 for column in table.tokens.values())


@pytest.mark.parametrize(
    ("overlap", "firsts"),
    [(2, (0, 5, 10)), (6, range(11)), (7, (0, 4, 8, 12)), (30, (0, 4, 8, 12))],
)
def test_windows_share_the_overlap_or_half_where_there_is_no_room(overlap, firsts):
    # 17 tokens of context, in windows of 14 - 7.
    made = _task(VOCABULARY, 14, 5, 64, 30, overlap)
    table = made.table([example(CONTEXT, "Where is Bob?", "old Rome")])
    context = VOCABULARY.encode([CONTEXT])[0]
    found = [list(ids[6:-1]) for ids in table.tokens["input_ids"]]
    assert found == [context[first : first + 7] for first in firsts]


def test_characters_are_those_of_the_context_and_equal_outside():
    table = made([example(CONTEXT, "Where is Bob?", "old Rome")])
    starts, ends = (table.tokens[f"char_{x}s"][0] for x in ("start", "end"))
    words = [CONTEXT[a:b] for a, b in zip(starts, ends, strict=True)]
    assert words[:6] == [""] * 6 and words[-1] == ""
    assert words[6:13] == ["Ada", "lives", "in", "Paris", "(", "18", "95"]


@pytest.mark.parametrize(
    ("length", "room", "stride", "expected"),
    [
        (4, 4, 1, [(0, 4)]),
        (5, 4, 1, [(0, 4), (1, 5)]),
        (9, 4, 2, [(0, 4), (2, 6), (4, 8), (6, 9)]),
        (9, 4, 99, [(0, 4), (4, 8), (8, 9)]),
        (1, 4, 3, [(0, 1)]),
    ],
)
def test_windows_advance_by_the_stride_and_leave_nothing_out(
    length, room, stride, expected
):
    assert token_rows.cut(length, room, stride) == expected


def test_windows_without_the_whole_answer_are_labelled_with_cls():
    context = "red blue cat dog ada bob eve"
    one = example(context, "who ?", "cat dog ada")
    table = made([one, example(context, "what ?")], length=9, stride=2)
    assert [pieces(table, row) for row in range(2)] == [
        "[CLS] who ? [SEP] red blue cat dog [SEP]",
        "[CLS] who ? [SEP] cat dog ada bob [SEP]",
    ]
    assert table.examples.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.fixed["start_positions"].tolist() == [0, 4, 0, 0, 0, 0]
    assert table.fixed["end_positions"].tolist() == [0, 6, 0, 0, 0, 0]
    assert table.fixed["label_weights"].tolist() == [1.0] * 6
    assert labelled(table, 1, context) == "cat dog ada"
    assert notes(table) == {span.SEVERAL: 2}


def test_an_answer_that_no_window_holds_is_counted():
    context = "red blue cat dog ada bob eve"
    table = made([example(context, "who ?", "dog ada")], length=9, stride=4)
    assert table.fixed["start_positions"].tolist() == [0, 0]
    assert notes(table) == {span.SEVERAL: 1, span.IN_NO_WINDOW: 1}


def test_the_first_answer_is_the_label():
    table = made([example(CONTEXT, "who ?", "Rome", "old Rome")])
    assert labelled(table, 0, CONTEXT) == "Rome"


@pytest.mark.parametrize(
    ("answer", "covered"),
    [("ide", "side"), ("5-18", "95-18"), ("aside (", "seaside ("), ("b", "Bob")],
)
def test_an_answer_inside_tokens_is_widened_to_them(answer, covered):
    context = "seaside (1895-1843), Bob"
    table = made([example(context, "what ?", answer)])
    assert labelled(table, 0, context) == covered
    assert notes(table) == {span.MOVED: 1}


def test_white_space_around_an_answer_does_not_count():
    table = made([example(CONTEXT, "where ?", " Paris ")])
    assert labelled(table, 0, CONTEXT) == "Paris" and notes(table) == {}


def test_an_answer_without_a_token_weighs_nothing():
    context = "Ada\u200b lives"
    table = made([example(context, "what ?", "\u200b"), example(context, "who ?")])
    assert table.fixed["label_weights"].tolist() == [0.0, 1.0]
    assert notes(table) == {span.WITHOUT_TOKEN: 1}


def test_what_is_to_be_predicted_weighs_nothing():
    table = made([example(CONTEXT, "who ?", labeled=False)])
    assert table.fixed["label_weights"].tolist() == [0.0]


def test_long_and_empty_questions_and_long_answers_are_counted():
    questions = [
        example("red cat", "who likes the old cat", "red"),
        example("red cat", "", "red cat", number=1),
    ]
    table = made(questions, query=3, answer=1)
    assert pieces(table, 0) == "[CLS] who likes the [SEP] red cat [SEP]"
    assert pieces(table, 1) == "[CLS] [SEP] red cat [SEP]"
    assert table.fixed["start_positions"].tolist() == [5, 2]
    assert notes(table) == {
        span.QUESTIONS_CUT: 1,
        span.EMPTY: 1,
        span.TOO_LONG: 1,
    }


def test_what_cannot_be_a_row_is_named():
    with pytest.raises(errors.InputError, match=r"^small.json:7: .* of 6 tokens leave"):
        made([example("red", "who is ada", "red", number=7)], length=6)
    with pytest.raises(errors.InputError, match="^small.json:8: the context '  ' has"):
        made([example("  ", "who is ada", number=8)])


def test_chinese_with_latin_words():
    context = "小明在北京，Ada喜欢红猫。"
    table = made([example(context, "谁喜欢猫？", "Ada")])
    assert labelled(table, 0, context) == "Ada"
    first = table.fixed["start_positions"][0]
    assert first == table.fixed["end_positions"][0] == 7 + 6


def test_rows_of_roberta_have_two_marks_between(tmp_path):
    rust = tokenizers.Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rust.train_from_iterator(["low lower lowest"] * 9, trainer)
    rust.model.save(str(tmp_path))
    roberta = Tokenizer.load(tmp_path)
    context = "low lower lowest"
    table = made([example(context, "low", "lower")], vocabulary=roberta)
    ids = table.tokens["input_ids"][0].tolist()
    assert roberta.decode(ids[1:2]) == "low"
    assert ids[:1] + ids[2:4] + ids[-1:] == [0, 2, 2, 2]
    assert labelled(table, 0, context) == "lower" and notes(table) == {}
