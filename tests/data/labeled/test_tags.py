"""Tagged sentences in columns."""

import pytest
from example_files import columns, iterate, read, refused, write

from bert_jax import errors
from bert_jax.data.labeled import examples

CONLL_2003 = """\
-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
. . O O
 \t
-DOCSTART- -X- -X- O

# # O O
1 CD O O
"""


def test_the_tag_is_in_the_last_column(tmp_path):
    path = write(tmp_path, CONLL_2003, "c.txt")
    found = read(path, "tagging")
    assert found.notes == {"-DOCSTART- lines": 2}
    assert found.examples == [
        examples.TaggedExample(
            f"{path}:3",
            "0",
            "EU rejects .",
            ((0, 2), (3, 10), (11, 12)),
            ("B-ORG", "O", "O"),
        ),
        examples.TaggedExample(f"{path}:9", "1", "# 1", ((0, 1), (2, 3)), ("O", "O")),
    ]


def test_token_and_tag_are_in_the_columns_that_are_named(tmp_path):
    path = write(tmp_path, CONLL_2003, "c.conll")
    first = read(path, "tagging", columns=columns(tag="2")).examples[0]
    assert first.tags == ("NNP", "VBZ", ".")
    first = read(path, "tagging", columns=columns(token="-3", tag="-2")).examples[0]
    assert (first.text, first.tags) == ("NNP VBZ .", ("B-NP", "B-VP", "O"))


def test_digits_are_taken_off_on_request(tmp_path):
    path = write(tmp_path, "科0\tB-X\n技1\tI-X\n00\tO\n", "w.train")
    found = read(path, "tagging", strip_digit=True).examples
    assert [(e.text, e.tags) for e in found] == [("科技 0", ("B-X", "I-X", "O"))]
    assert read(path, "tagging").examples[0].text == "科0 技1 00"
    for token in ("a", "7"):
        path = write(tmp_path, f"科0\tB-X\n{token}\tO\n")
        refused("c.tsv:2: the token .* digit", path, "tagging", strip_digit=True)


def test_comments_before_a_sentence_name_it(tmp_path):
    path = write(
        tmp_path, "# id = s-7\n# text = a b\na O\nb O\n\n# id x9\tdomain=en\n# O\n"
    )
    found = read(path, "tagging", format="conll").examples
    assert [(e.id, e.text) for e in found] == [("s-7", "a b"), ("x9", "#")]


def test_tabs_keep_spaces_inside_tokens_and_spaces_that_are_tokens(tmp_path):
    path = write(tmp_path, "New York\tB-LOC\n\u3000\tO\n", "c.bio")
    (found,) = read(path, "tagging").examples
    assert [found.text[a:b] for a, b in found.tokens] == ["New York", "\u3000"]


def test_tokens_alone_can_be_streamed(tmp_path):
    path = write(tmp_path, "他\n说\n\n好\n", "c.conll")
    assert [(e.text, e.tags) for e in iterate(path, "tagging")] == [
        ("他说", None),
        ("好", None),
    ]
    path = write(tmp_path, "a X\n", "c.conll")
    assert iterate(path, "tagging")[0].tags == ("X",)
    assert iterate(path, "tagging", columns=columns(tag="none"))[0].tags is None


@pytest.mark.parametrize(
    "content, message",
    [
        ("a B-X\nb\n", r"c\.conll:2 has 1 column, and line 1 has 2\. Every token"),
        ("a B-X\n\nb c O\n", r"c\.conll:3 has 3 columns, and line 1 has 2"),
        ("a\tO\nb\t\n", r"c\.conll:2: the tag is empty"),
        ("a\tO\n\tO\n", r"c\.conll:2: the token is empty"),
        ("a\nb\n", r"c\.conll:1 has 1 column, so the tag"),
        ("# id 1\na O\n\n# id 1\nb O\n", r"conll:5: the id '1' .*:2"),
        ("\n -DOCSTART- -X- O O\n"[:1], r"c\.conll has no example"),
        ("a O\nb\xff O\n".encode("latin-1"), r"c\.conll:2: byte 2 of the line"),
    ],
)
def test_ragged_files_are_named_with_their_line(tmp_path, content, message):
    refused(message, write(tmp_path, content, "c.conll"), "tagging")


def test_columns_have_no_names(tmp_path):
    path = write(tmp_path, "a O\n", "c.conll")
    refused(
        "no column 'ner' .*numbered 1 to 2", path, "tagging", columns=columns(tag="ner")
    )
    refused(
        "no column '3' for data.columns.tag", path, "tagging", columns=columns(tag="3")
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Anna met Bob\tB-PER O B-PER\nHi\tO\n", "Anna met Bob"),
        ("我爱北京\tO O B-LOC I-LOC\n\n好\tO\n", "我爱北京"),
        ("Anna/B-PER met/O 1/2/O\nHi/O\n", "Anna met 1/2"),
        ("# id 7\n我/O 爱/O\n好/O\n", "我爱"),
    ],
)
def test_a_sentence_a_line(tmp_path, content, text):
    first, second = read(write(tmp_path, content, "a.txt"), "tagging").examples
    assert first.text == text
    assert len(first.tags) == len(first.tokens) > 1
    assert second.tags == ("O",)


@pytest.mark.parametrize(
    "content", ["Anna met\tB-PER O\nBob left it\tB-PER O\n", "a/X b/Y\nc d/Y\n"]
)
def test_a_line_without_a_tag_for_each_token(tmp_path, content):
    filler = content.splitlines()[0] + "\n"
    path = write(tmp_path, filler * 60 + content, "a.txt")
    refused(r"a\.txt:62:", path, "tagging")


@pytest.mark.parametrize(
    ("content", "are"),
    [
        ("Anna lives in Paris\nBob works for Acme\n", True),
        ("Anna lives in Paris.\n\n王小明 在 北京\n", True),
        ("今天天气很好\n王小明住在北京\n", True),
        ("好。\n快跑！\n", True),
        ("Anna NNP B-PER\nlives VBZ O\n\nParis NNP B-LOC\n", False),
        ("北京 ns\n很 d\n好 a\n", False),
        ("She\nsings\n.\n", False),
        ("她\n在\n北京\n。\n", False),
        ("Anna/B-PER lives/O\nParis/B-LOC\n", False),
        ("Anna lives\tB-PER O\nin Paris\tO B-LOC\n", False),
    ],
)
def test_plain_sentences_are_not_answered_as_tokens(tmp_path, content, are):
    path = write(tmp_path, content, "new.txt")
    if are:
        with pytest.raises(errors.InputError, match="data.format=lines"):
            iterate(path, "tagging", needs_labels=False)
    else:
        assert all(x.tokens for x in iterate(path, "tagging", needs_labels=False))


def test_a_list_of_no_tokens_is_answered(tmp_path):
    path = write(tmp_path, '{"tokens": []}\n{"tokens": ["好"]}\n', "a.jsonl")
    found = iterate(path, "tagging", needs_labels=False)
    assert [(x.id, x.text, x.tags) for x in found] == [
        ("0", "", None),
        ("1", "好", None),
    ]
    refused("a.jsonl:1: 'tokens'", path, "tagging")
