"""Columns aligned in any script."""

import pytest

from bert_jax.metrics import text_table


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("ascii", 5),
        ("体育", 4),
        ("ＡＢ", 4),  # full-width Latin
        ("ｱｲ", 2),  # half-width Katakana
        ("한글", 4),
        ("é", 1),
        ("e\u0301", 1),
        ("a\u200db", 2),
        ("„“", 2),
    ],
)
def test_width_is_that_of_a_terminal(text, columns):
    assert text_table.width(text) == columns


def test_control_characters_and_lone_surrogates_are_spelt_out():
    odd = "a\tb\r\x00\x1b[2J\x7f\x85\ud800\u2028\u2029体"
    assert text_table.visible(odd) == (
        "a\\tb\\r\\x00\\x1b[2J\\x7f\\x85\\ud800\\u2028\\u2029体"
    )
    text_table.visible(odd).encode()  # and can be printed


@pytest.mark.parametrize("columns", range(1, 12))
def test_a_shortened_text_never_takes_more_columns(columns):
    for text in ("这家酒店很好", "a这b家c", "ascii only text"):
        short = text_table.shorten(text, columns)
        assert text_table.width(short) <= columns
        assert short == text or short.endswith("…")
        assert text.startswith(short.removesuffix("…"))


def test_a_wide_character_that_fits_by_half_is_cut():
    assert text_table.shorten("体育新闻", 4) == "体…"
    assert text_table.shorten("体育", 4) == "体育"


def test_tables_align_chinese_and_latin():
    table = text_table.table(
        [
            ["class", "f1", "text"],
            ["体育", "0.9123", "北京"],
            ["e\u0301lan", "1.0", "x"],
        ],
        left=(0, 2),
    )
    assert table.split("\n") == [
        "class      f1  text",
        "体育   0.9123  北京",
        "e\u0301lan      1.0  x",
    ]
    starts = {
        text_table.width(line[: line.index(end)])
        for line, end in zip(table.split("\n"), ("text", "北", "x"), strict=True)
    }
    assert starts == {15}


def test_rows_of_different_lengths_are_a_mistake():
    with pytest.raises(ValueError):
        text_table.table([["a", "b"], ["c"]])
