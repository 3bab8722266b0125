"""Every entity and role of real data, as tokens and back; exceptions by reason."""

import collections
import dataclasses

import pytest
from small_tags import gold_outputs, model

from bert_jax import errors, tasks
from bert_jax.data.labeled import read_examples
from bert_jax.metrics import entities
from bert_jax.tasks import roles, tagging, token_rows
from bert_jax.text.tokenizer import Tokenizer


def read(folder, name, task, **options):
    request = read_examples.Request(
        folder / name, form=tasks.TASKS[task].form, **options
    )
    return read_examples.read(request).examples


def words_of(folder, vocabulary):
    return Tokenizer.load(folder / "vocab" / f"bert-base-{vocabulary}-vocab.txt")


def task_of(kind, examples, words, **changes):
    """Returns a task whose rows hold every sentence whole."""
    labels, scheme = tagging.learn(examples)
    head = changes.pop("head", {})
    return kind(
        model=model(len(labels), **head),
        tokenizer=words,
        labels=labels,
        scheme=scheme,
        max_seq_length=512,
        **changes,
    )


def back(task, examples):
    """Returns the rows, and the predictions of a model that knows their labels."""
    table = task.table(examples)
    return table, task.decode(examples, table, gold_outputs(task, table))


def entities_of(example):
    """The entities of the file: type, characters, text."""
    every = []
    for kind, first, last in entities.spans_of(example.tags):
        start, end = example.tokens[first][0], example.tokens[last - 1][1]
        every.append((kind, start, end, example.text[start:end]))
    return every


@pytest.mark.parametrize(
    ("name", "vocabulary", "sentences", "count", "repaired"),
    [
        pytest.param(
            *("en_ner/train.txt", "uncased", 14041, 23499, 0), marks=pytest.mark.slow
        ),
        ("en_ner/valid.txt", "uncased", 3250, 5942, 0),
        pytest.param(
            *("zh_ner/weiboNER_2nd_conll.train", "chinese", 1350, 1895, 10),
            marks=pytest.mark.slow,
        ),
        ("zh_ner/weiboNER_2nd_conll.dev", "chinese", 270, 389, 0),
    ],
)
def test_every_entity_comes_back(
    shared_data, name, vocabulary, sentences, count, repaired
):
    options = {"format": "conll", "strip_digit": name.startswith("zh")}
    examples = read(shared_data, name, "tagging", **options)
    words = words_of(shared_data, vocabulary)
    task = task_of(tagging.Tagging, examples, words, repair=repaired > 0)
    table, found = back(task, examples)
    assert len(examples) == len(table) == sentences
    assert table.notes[tagging.REPAIRED] == repaired and table.notes[tagging.LOST] == 0
    wanted = [entities_of(example) for example in examples]
    said = [
        [(x["type"], x["start"], x["end"], x["text"]) for x in made["entities"]]
        for made in found
    ]
    assert sum(map(len, wanted)) == count
    assert said == wanted


def test_tags_of_weibo_that_break_their_scheme_are_named(shared_data):
    name = "zh_ner/weiboNER_2nd_conll.train"
    examples = read(shared_data, name, "tagging", format="conll", strip_digit=True)
    task = task_of(tagging.Tagging, examples, words_of(shared_data, "chinese"))
    with pytest.raises(errors.InputError) as caught:
        task.table(examples)
    assert f"{name}:1266: the tags of token 8 ('小')" in str(caught.value)
    assert "I-PER.NOM after I-PER.NAM" in str(caught.value)


def test_windows_give_back_every_entity_too(shared_data):
    """Rows of 16 pieces: most sentences are cut, and no entity is lost."""
    examples = read(shared_data, "en_ner/valid.txt", "tagging", format="conll")[:400]
    task = task_of(tagging.Tagging, examples, words_of(shared_data, "uncased"))
    short = dataclasses.replace(task, max_seq_length=16)
    table, found = back(short, examples)
    assert table.notes[tagging.WINDOWS] > 400 and table.lengths.max() == 16
    assert [tuple(made["tags"]) for made in found] == [x.tags for x in examples]


# Tokens that share a piece with the token before: "can" and "not" of "cannot", or "d"
# of "id" for I'd. One tag cannot be both.
SHARED = {"not": 4, "s": 4, "d": 2, "way": 2, "ll": 1, "n": 1}


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    ("name", "vocabulary", "predicates", "rows", "count", "shared"),
    [
        ("en_srl/en_ewt-up-dev.conllu", "uncased", 4977, 1590, 9662, SHARED),
        ("zh_srl/zh-up-dev.conllu", "chinese", 1257, 458, 2681, {}),
    ],
)
def test_every_role_comes_back(
    shared_data, name, vocabulary, predicates, rows, count, shared, joint
):
    examples = read(shared_data, name, "srl")
    words = words_of(shared_data, vocabulary)
    task = task_of(roles.Roles, examples, words, head={"at_predicate": joint})
    table, found = back(task, examples)
    assert len(examples) == predicates
    assert len(table) == (rows if joint else predicates)
    lost: collections.Counter[str] = collections.Counter()
    total = 0
    for example, made in zip(examples, found, strict=True):
        wanted = [
            (tag, *example.tokens[at], example.text[slice(*example.tokens[at])])
            for at, tag in enumerate(example.tags)
            if tag not in ("O", "V", "C-V")
        ]
        said = [(x["role"], x["start"], x["end"], x["text"]) for x in made["roles"]]
        assert set(said) <= set(wanted)
        lost.update(role[3] for role in set(wanted) - set(said))
        total += len(wanted)
        assert (
            made["predicate"]["text"]
            == example.text[slice(*example.tokens[example.predicate])]
        )
    assert total == count
    assert lost == shared and table.notes[roles.LOST] == sum(shared.values())
    assert table.notes[roles.FAR] == table.notes[roles.UNSEEN] == 0
    assert table.notes[token_rows.COVERED] == (48 if shared else 0)


def test_rows_are_those_of_transformers(shared_data):
    """Ids, and the first piece of each word, which there is given word by word."""
    transformers = pytest.importorskip("transformers")
    examples = read(shared_data, "en_ner/valid.txt", "tagging")[:700]
    words = words_of(shared_data, "uncased")
    table = task_of(tagging.Tagging, examples, words).table(examples)
    vocab = shared_data / "vocab" / "bert-base-uncased-vocab.txt"
    other = transformers.BertTokenizerFast(str(vocab), do_lower_case=True)
    for row, example in enumerate(examples):
        given = [example.text[start:end] for start, end in example.tokens]
        made = other(given, is_split_into_words=True)
        of_word = made.word_ids()
        firsts = [of_word.index(at) for at in range(len(given))]
        assert table.tokens["input_ids"][row].tolist() == made["input_ids"]
        places = table.tokens["token_positions"][row]
        assert places[: len(given)].tolist() == firsts
