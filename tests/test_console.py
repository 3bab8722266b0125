"""Bars on terminals, widgets and plain output in notebooks, lines in logs; tables."""

import sys
import time
import types

import pytest

from bert_jax import console


@pytest.fixture
def is_terminal(monkeypatch):
    monkeypatch.setattr(console, "is_interactive", lambda: True)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(console, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(console, "LOG_SECONDS", 0.0)


def test_a_log_gets_a_line_an_update_when_one_is_due(impatient, capsys):
    with console.Bar(8, "programs", "compiling", initial=2) as bar:
        bar.note("rows of 64 tokens")
        bar.update(2)
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("compiling: 4 of 8 programs (50%), 00:00, ETA 00:00, ")
    assert line.endswith(" programs/s; rows of 64 tokens")


def test_a_log_gets_lines_while_one_part_takes_long(impatient, capsys):
    with console.Bar(4, "programs", "compiling"):
        time.sleep(1.3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compiling: 0 of 4 programs (0%), 00:01, ETA ?")


def test_a_short_task_leaves_no_line_in_a_log(capsys):
    with console.Bar(3, "texts", "predicting") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_count_that_is_kept_is_the_last_line_of_a_log(capsys):
    with console.Bar(3, "texts", "encoding", is_kept=True) as bar:
        bar.update(3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("encoding: 3 of 3 texts (100%), 00:00, ETA 00:00, ")
    with pytest.raises(ValueError):
        with console.Bar(3, "texts", "encoding", is_kept=True) as bar:
            raise ValueError
    assert capsys.readouterr().err == ""


def test_a_line_of_the_caller_takes_the_place_of_the_next(monkeypatch, capsys):
    monkeypatch.setattr(console, "FIRST_SECONDS", 0.0)
    with console.Bar(None, "texts", "predicting") as bar:
        bar.log("step 7")
        bar.update(3)
    assert capsys.readouterr().err.splitlines() == ["step 7"]


def test_a_terminal_shows_a_bar_and_no_lines(is_terminal, impatient, capsys):
    with console.Bar(8, "texts", "predicting", is_kept=True) as bar:
        bar.note("rows of 64 tokens")
        bar.log("not on a terminal")
        bar.update(8)
    shown = capsys.readouterr().err
    assert "predicting: 100%" in shown and "8/8" in shown
    assert "rows of 64 tokens" in shown and "not on" not in shown


def test_a_bar_that_is_not_shown_is_silent(is_terminal, impatient, capsys):
    with console.Bar(2, "texts", "predicting", is_shown=False) as bar:
        bar.update()
        bar.log("step 7")
    assert bar.n == 1
    assert capsys.readouterr() == ("", "")


def test_messages_and_bars_of_a_notebook_are_plain_output(monkeypatch, capsys):
    shell = types.SimpleNamespace(kernel=object(), config={})
    fake = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setattr(console, "_bar_class", lambda: console.std.tqdm)
    console.print_message("resuming after step 3")
    with console.Bar(8, "texts", "predicting", is_kept=True) as bar:
        bar.update(8)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith("resuming after step 3\n") and "8/8" in shown.out


def test_a_shell_without_a_kernel_is_not_a_notebook(monkeypatch):
    fake = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", fake)
    assert not console.in_notebook()
    monkeypatch.setitem(
        sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None)
    )
    assert not console.in_notebook()


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
    assert console.width(text) == columns


def test_control_characters_and_lone_surrogates_are_escaped():
    odd = "a\tb\r\x00\x1b[2J\x7f\x85\ud800\u2028\u2029体"
    assert console.visible(odd) == (
        "a\\tb\\r\\x00\\x1b[2J\\x7f\\x85\\ud800\\u2028\\u2029体"
    )
    console.visible(odd).encode()  # and can be printed


@pytest.mark.parametrize("columns", range(1, 12))
def test_a_shortened_text_never_takes_more_columns(columns):
    for text in ("这家酒店很好", "a这b家c", "ascii only text"):
        short = console.shorten(text, columns)
        assert console.width(short) <= columns
        assert short == text or short.endswith("…")
        assert text.startswith(short.removesuffix("…"))


def test_a_wide_character_that_fits_by_half_is_cut():
    assert console.shorten("体育新闻", 4) == "体…"
    assert console.shorten("体育", 4) == "体育"


def test_tables_align_chinese_and_latin():
    table = console.table(
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
        console.width(line[: line.index(end)])
        for line, end in zip(table.split("\n"), ("text", "北", "x"), strict=True)
    }
    assert starts == {15}


def test_rows_of_different_lengths_are_a_mistake():
    with pytest.raises(ValueError):
        console.table([["a", "b"], ["c"]])
