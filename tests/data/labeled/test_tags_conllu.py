"""Parts of speech and roles, from CoNLL-U."""

import pytest
from example_files import columns, iterate, read, refused, write

from bert_jax.data.labeled import examples


def row(number, word, tag="X", *more, columns=10):
    cells = [str(number), word, word.lower(), tag]
    cells += ["_"] * (columns - len(cells))
    return "\t".join([*cells, *more]) + "\n"


ENGLISH = (
    "# sent_id = s1\n# text = Don't  go, come!\n"
    + row("1-2", "Don't", "_", "_", "_", "_")
    + row(1, "Do", "AUX", "_", "_", "_")
    + row(2, "n't", "PART", "_", "ARGM-NEG", "_")
    + row(3, "go", "VERB", "go.01", "V", "ARG1")
    + row("3.1", "gone", "VERB", "", "", "")
    + row(4, ",", "PUNCT", "_", "_", "_")
    + row(5, "come", "VERB", "come.03", "_", "_")
    + row(6, "!", "PUNCT", "_", "_", "_")
    + "\n# propbank = no-up\n"
    + row(1, "Good", "ADJ", "", "")
    + "\n"
)
TOKENS = ((0, 2), (2, 5), (7, 9), (9, 10), (11, 15), (15, 16))
# Eight columns, then flags, senses, and a column of roles a predicate.
CHINESE = (
    "# sentence-text: 引起 看\n"
    + row(1, "引起", "VERB", "Y", "cause.01", "_", "A1", columns=8)
    + row(2, "的", "PART", "_", "_", "A0", "_", columns=8)
    + row(3, "看", "VERB", "Y", "look.01", "AM-TMP", "_", columns=8)
    + " \n"
    + row(1, "大", "ADV", "_", "_", columns=8)
)


def test_each_predicate_is_an_example(tmp_path):
    path = write(tmp_path, ENGLISH, "c.conllu")
    found = read(path, "srl")
    assert found.notes == {
        "lines of several words or of none (1-2, 8.1)": 2,
        "sentences without a predicate": 1,
    }
    text = "Don't  go, come!"
    assert found.examples == [
        examples.TaggedExample(
            f"{path}:4",
            "s1.0",
            text,
            TOKENS,
            ("O", "ARGM-NEG", "V", "O", "O", "O"),
            2,
            "go.01",
        ),
        examples.TaggedExample(
            f"{path}:4",
            "s1.1",
            text,
            TOKENS,
            ("O", "O", "ARG1", "O", "V", "O"),
            4,
            "come.03",
        ),
    ]


def test_a_column_of_flags_is_found_by_looking(tmp_path):
    path = write(tmp_path, CHINESE, "c.txt")
    found = read(path, "srl")
    assert [(e.id, e.predicate, e.sense, e.tags) for e in found.examples] == [
        ("0.0", 0, "cause.01", ("V", "A0", "AM-TMP")),
        ("0.1", 2, "look.01", ("A1", "O", "V")),
    ]
    assert found.examples[0].text == "引起的看"
    assert found.notes == {"sentences without a predicate": 1}
    assert read(path, "srl", columns=columns(predicate="10")) == found


def test_flags_of_conll_2009_are_found(tmp_path):
    path = write(
        tmp_path,
        row(1, "He", "X", "_", "_", "A0", columns=12)
        + row(2, "ran", "X", "Y", "run.01", "_", columns=12),
    )
    (found,) = read(path, "srl", format="conllu").examples
    assert (found.predicate, found.sense, found.tags) == (1, "run.01", ("A0", "V"))


def test_parts_of_speech_are_tags(tmp_path):
    path = write(tmp_path, ENGLISH, "c.conllu")
    first, second = read(path, "tagging").examples
    assert (first.id, second.id, second.text) == ("s1", "1", "Good")
    assert first.tags == ("AUX", "PART", "VERB", "PUNCT", "VERB", "PUNCT")
    assert first.predicate is None
    lemmas = read(path, "tagging", columns=columns(token="3", tag="2")).examples[1]
    assert (lemmas.text, lemmas.tags) == ("good", ("Good",))


def test_a_text_that_is_not_its_words_is_joined_anew(tmp_path):
    path = write(tmp_path, "# text = du\n" + row(1, "de") + row(2, "le"), "c.conllu")
    found = read(path, "tagging")
    assert found.examples[0].text == "de le"
    assert found.notes == {"sentences whose text is not that of their words": 1}


def test_without_labels_predicates_are_enough(tmp_path):
    path = write(
        tmp_path, row(1, "go", "_", "go.01") + row(2, "on", "_", "_"), "c.conllu"
    )
    (found,) = iterate(path, "srl")
    assert (found.predicate, found.sense, found.tags) == (0, "go.01", None)
    (found,) = iterate(path, "tagging")
    assert found.tags is None


def test_ids_that_come_twice_are_refused_or_numbered(tmp_path):
    path = write(tmp_path, 2 * ("# sent_id = a\n" + row(1, "x") + "\n"), "c.conllu")
    refused(r"c\.conllu:5: the id 'a' .*c\.conllu:2\.", path, "tagging")
    found = read(path, "tagging", repair=True)
    assert [e.id for e in found.examples] == ["a", "a#2"]
    assert found.notes == {"ids that came again and got a number": 1}


@pytest.mark.parametrize(
    "content, message",
    [
        (
            row(1, "a") + row(3, "b"),
            r"c\.conllu:2: the word's number is '3' and should be",
        ),
        ("a b c\n", r"c\.conllu:1: the word's number is 'a b c' and should be 1\."),
        (
            row(1, "a", "X", "_", "_") + row(2, "b", "X", "_"),
            r"c\.conllu:2 has 11 columns, and line 1 of the same sentence has 12",
        ),
        (
            row(1, "a", "X", "a.01", "V", "A1"),
            "c.conllu:1: the sentence has 1 pred.*and 2",
        ),
        (row(1, "a", "X", "a.01"), "1 predicates in column 11, and 0 columns of roles"),
        (row(1, "a", columns=8), "no column '11' for data.columns.predicate"),
        (row(1, " ", "X", "a.01", "V"), "c.conllu:1: the word is empty"),
    ],
)
def test_malformed_sentences_are_named_with_their_line(tmp_path, content, message):
    refused(message, write(tmp_path, content, "c.conllu"), "srl")


def test_other_mistakes_are_named(tmp_path):
    path = write(tmp_path, row(1, "a") + row(2, "b", "_"), "c.conllu")
    refused(r"c\.conllu:2: the tag is missing.*data\.columns\.tag", path, "tagging")
    counted = columns(predicate="-1")
    refused("predicate=-1, .*count it from 1", path, "srl", columns=counted)
