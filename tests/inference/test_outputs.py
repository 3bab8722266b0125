"""What is written of predictions, to the letter, in every format."""

import itertools

import pytest

from bert_jax import errors, tasks
from bert_jax.data.labeled import examples
from bert_jax.inference import outputs

TEXT = examples.TextExample("f:1", "7", "the\tcat")
PAIR = examples.TextExample("f:2", "a8", "那猫", "a dog")
SENTENCE = examples.TaggedExample("f:1", "0", "the cat  ran", ((0, 3), (4, 7), (9, 12)))
QUESTION = examples.QuestionExample("f", 'q"1', "谁？", "那猫跑", labeled=False)
CHOICE = examples.ChoiceExample("f:1", "3", "a cat", ("sat", "ran"))

CLASS = {"id": "7", "label": "cat", "probabilities": {"cat": 0.75, "dog": 0.25}}
OTHER = {"id": "a8", "label": "狗", "probabilities": {"cat": 0.1, "狗": 0.9}}
SEVERAL = {"id": "7", "labels": ["a", "b"], "probabilities": {"a": 0.9, "b": 0.6}}
NONE = {"id": "a8", "labels": [], "probabilities": {"a": 0.1, "b": 0.2}}
NUMBER = {"id": "7", "score": 3.14159}
NEAR = {"id": "a8", "similarity": 0.5, "label": "1"}
ANSWER = {"id": 'q"1', "answer": "猫", "start": 1, "end": 2, "probability": 0.5}
NO_ANSWER = {"id": "q2", "answer": "", "start": None, "end": None, "probability": 1.0}
CHOSEN = {"id": "3", "label": 1, "choice": "ran", "probabilities": [0.4, 0.6]}
ENTITY = {"start": 4, "end": 12, "type": "X", "text": "cat  ran", "probability": 0.9}
TAGS = {
    "id": "0",
    "text": "the cat  ran",
    "tags": ["O", "B-X", "I-X"],
    "probabilities": [1.0, 0.9, 0.95],
    "entities": [ENTITY],
}
PLAIN = {
    "id": "0",
    "text": "the cat  ran",
    "tags": ["DET", "NOUN", "VERB"],
    "probabilities": [1.0, None, 0.5],
}
ROLES = {
    "id": "0",
    "text": "the cat  ran",
    "predicate": {"start": 9, "end": 12, "text": "ran", "sense": "run.01"},
    "roles": [{"role": "ARG0", "start": 4, "end": 7, "text": "cat"}],
    "tags": ["O", "ARG0", "V"],
    "probabilities": [0.5, 0.6, 0.7],
}

EXPECTED = [
    (
        "jsonl",
        "classification",
        [(TEXT, CLASS), (PAIR, OTHER)],
        '{"id": "7", "text": "the\\tcat", "label": "cat", '
        '"probabilities": {"cat": 0.75, "dog": 0.25}}\n'
        '{"id": "a8", "text": "那猫", "text_pair": "a dog", "label": "狗", '
        '"probabilities": {"cat": 0.1, "狗": 0.9}}\n',
    ),
    (
        "jsonl",
        "span",
        [(QUESTION, ANSWER)],
        '{"id": "q\\"1", "question": "谁？", "context": "那猫跑", "answer": "猫", '
        '"start": 1, "end": 2, "probability": 0.5}\n',
    ),
    (
        "jsonl",
        "multiple_choice",
        [(CHOICE, CHOSEN)],
        '{"id": "3", "context": "a cat", "choices": ["sat", "ran"], "label": 1, '
        '"choice": "ran", "probabilities": [0.4, 0.6]}\n',
    ),
    (
        "jsonl",
        "tagging",
        [(SENTENCE, PLAIN)],
        '{"id": "0", "text": "the cat  ran", "tags": ["DET", "NOUN", "VERB"], '
        '"probabilities": [1.0, null, 0.5]}\n',
    ),
    (
        "jsonl",
        "srl",
        [(SENTENCE, ROLES)],
        '{"id": "0", "text": "the cat  ran", "predicate": {"start": 9, "end": 12, '
        '"text": "ran", "sense": "run.01"}, "roles": [{"role": "ARG0", "start": 4, '
        '"end": 7, "text": "cat"}], "tags": ["O", "ARG0", "V"], '
        '"probabilities": [0.5, 0.6, 0.7]}\n',
    ),
    (
        "jsonl",
        "matching",
        [(PAIR, NEAR)],
        '{"id": "a8", "text": "那猫", "text_pair": "a dog", "similarity": 0.5, '
        '"label": "1"}\n',
    ),
    (
        "tsv",
        "classification",
        [(TEXT, CLASS), (PAIR, OTHER)],
        "id\tlabel\tprobability\n7\tcat\t0.75\na8\t狗\t0.9\n",
    ),
    (
        "tsv",
        "classification",
        [(TEXT, SEVERAL), (PAIR, NONE)],
        "id\tlabel\tprobability\n7\ta,b\t0.6\na8\t\t\n",
    ),
    ("tsv", "regression", [(TEXT, NUMBER)], "id\tscore\n7\t3.14159\n"),
    (
        "tsv",
        "matching",
        [(PAIR, NEAR), (PAIR, {"id": "9", "similarity": -0.25})],
        "id\tsimilarity\tlabel\na8\t0.5\t1\n9\t-0.25\t\n",
    ),
    (
        "tsv",
        "multiple_choice",
        [(CHOICE, CHOSEN)],
        "id\tlabel\tprobability\n3\t1\t0.6\n",
    ),
    (
        "tsv",
        "span",
        [(QUESTION, ANSWER), (QUESTION, NO_ANSWER)],
        'id\tanswer\tstart\tend\tprobability\nq"1\t猫\t1\t2\t0.5\nq2\t\t\t\t1.0\n',
    ),
    (
        "tsv",
        "tagging",
        [(SENTENCE, TAGS)],
        "id\tstart\tend\ttext\ttype\tprobability\n0\t4\t12\tcat  ran\tX\t0.9\n",
    ),
    (
        "tsv",
        "tagging",
        [(SENTENCE, PLAIN)],
        "id\tstart\tend\ttext\ttype\tprobability\n0\t0\t3\tthe\tDET\t1.0\n"
        "0\t4\t7\tcat\tNOUN\t\n0\t9\t12\tran\tVERB\t0.5\n",
    ),
    (
        "tsv",
        "srl",
        [(SENTENCE, ROLES)],
        "id\tpredicate\tstart\tend\ttext\trole\n0\tran\t4\t7\tcat\tARG0\n",
    ),
    (
        "conll",
        "tagging",
        [(SENTENCE, TAGS), (SENTENCE, PLAIN)],
        "the\tO\ncat\tB-X\nran\tI-X\n\nthe\tDET\ncat\tNOUN\nran\tVERB\n\n",
    ),
    ("conll", "srl", [(SENTENCE, ROLES)], "the\tO\ncat\tARG0\nran\tV\n\n"),
    (
        "glue",
        "classification",
        [(PAIR, OTHER), (TEXT, CLASS)],
        "index\tprediction\n0\t狗\n1\tcat\n",
    ),
    ("glue", "regression", [(TEXT, NUMBER)], "index\tprediction\n0\t3.142\n"),
    (
        "clue",
        "classification",
        [(TEXT, CLASS), (PAIR, OTHER)],
        '{"id": 7, "label": "cat"}\n{"id": "a8", "label": "狗"}\n',
    ),
    ("clue", "multiple_choice", [(CHOICE, CHOSEN)], '{"id": 3, "label": 1}\n'),
    (
        "clue",
        "tagging",
        [(SENTENCE, TAGS | {"entities": [ENTITY, ENTITY | {"start": 5, "end": 9}]})],
        '{"id": 0, "label": {"X": {"cat  ran": [[4, 11], [5, 8]]}}}\n',
    ),
    (
        "squad",
        "span",
        [(QUESTION, ANSWER), (QUESTION, NO_ANSWER)],
        '{\n "q\\"1": "猫",\n "q2": ""\n}\n',
    ),
]


@pytest.mark.parametrize(("name", "kind", "said", "expected"), EXPECTED)
def test_lines_to_the_letter(name, kind, said, expected):
    assert "".join(outputs.lines(name, tasks.TASKS[kind], said)) == expected


@pytest.mark.parametrize("name", outputs.FORMATS)
def test_every_format_is_tested_for_each_of_its_tasks(name):
    tested = {kind for other, kind, _, _ in EXPECTED if other == name}
    if name == "jsonl":  # a regression is as a classification there
        tested.add("regression")
    of_all = name in ("jsonl", "tsv")
    with_it = {x.name for x in tasks.TASKS.values() if of_all or name in x.formats}
    assert tested == with_it


def test_lines_come_while_examples_come():
    said = ((TEXT, CLASS | {"id": str(n)}) for n in itertools.count())
    made = outputs.lines("clue", tasks.TASKS["classification"], said)
    assert list(itertools.islice(made, 2)) == [
        '{"id": 0, "label": "cat"}\n',
        '{"id": 1, "label": "cat"}\n',
    ]


def test_a_cell_never_breaks_its_line():
    odd = CLASS | {"label": "a\tb\nc\u2028d\re"}
    made = list(outputs.lines("tsv", tasks.TASKS["classification"], [(TEXT, odd)]))
    assert made[1] == "7\ta b c d e\t0.75\n"


@pytest.mark.parametrize(
    ("name", "kind", "several", "words"),
    [
        ("conll", "classification", False, "conll is not one of classification"),
        ("squad", "tagging", False, "use one of jsonl, tsv, conll, clue"),
        ("glue", "span", False, "use one of jsonl, tsv, squad"),
        ("glue", "classification", True, "one label a text"),
        ("clue", "classification", True, "several: use one of jsonl, tsv$"),
    ],
)
def test_a_format_that_a_task_does_not_have(name, kind, several, words):
    with pytest.raises(errors.InputError, match=words):
        outputs.check(name, tasks.TASKS[kind], several)


def test_plain_tags_are_no_entities_for_clue():
    with pytest.raises(errors.InputError, match="clue is for entities"):
        list(outputs.lines("clue", tasks.TASKS["tagging"], [(SENTENCE, PLAIN)]))
