"""Every answer of real data, as tokens and back: the exceptions are counted by reason.

DRCD's and SubjQA's answers stand where they say; CMRC's trial has five that stand one
or two characters before, and are moved.
"""

import collections
import dataclasses

import numpy as np
import pytest
import small_models

from bert_jax import tasks
from bert_jax.data.labeled import question_examples, read_examples
from bert_jax.model import heads
from bert_jax.tasks import span
from bert_jax.text.tokenizer import Tokenizer


def read(path):
    """A question for each answer of a file, and how many were moved."""
    request = read_examples.Request(path, form=tasks.TASKS["span"].form, repair=True)
    found = read_examples.read(request)
    moved = (
        found.notes[question_examples.MOVED]
        if question_examples.MOVED in found.notes
        else 0
    )
    questions = [
        dataclasses.replace(question, answers=(answer,))
        for question in found.examples
        for answer in question.answers
    ]
    return questions, moved


def answers_back(table, questions):
    """The characters between the labels of rows that hold an answer, by example."""
    back = {}
    first, last = (table.fixed[f"{x}_positions"] for x in ("start", "end"))
    for row in np.flatnonzero(first):
        context = questions[table.examples[row]].context
        start = table.tokens["char_starts"][row][first[row]]
        end = table.tokens["char_ends"][row][last[row]]
        back.setdefault(table.examples[row], set()).add((context[start:end], start))
    return back


@pytest.mark.parametrize(
    ("name", "vocabulary", "answers", "moved", "exceptions"),
    [
        # Two digits of numbers, which are one token.
        pytest.param(
            *("zh_qa/drcd_dev.json", "chinese", 7048, 0),
            {("8", "80"): 1, ("8", "81"): 1},
            marks=pytest.mark.slow,
        ),
        # A combining mark that is stripped is of no token; 3 answers are longer than
        # the context that a row of 384 holds, or lie across its windows.
        ("zh_qa/cmrc2018_trial.json", "chinese", 999, 5, {(" יִרְמְיָהוּ", "יִרְמְיָהו"): 1}),
        ("en_qa/train.json", "uncased", 1626, 0, {}),
        ("en_qa/dev.json", "uncased", 80, 0, {}),
    ],
)
def test_every_answer_comes_back(
    shared_data, name, vocabulary, answers, moved, exceptions
):
    vocab = shared_data / "vocab" / f"bert-base-{vocabulary}-vocab.txt"
    questions, found_moved = read(shared_data / name)
    assert found_moved == moved
    task = span.Span(
        model=small_models.model(9, heads.HeadSpec("span", 2)),
        tokenizer=Tokenizer.load(vocab),
        max_seq_length=384,
        max_answer_length=512,
    )
    table = task.table(questions)
    back = answers_back(table, questions)
    assert len(back) == answers
    lost = collections.Counter()
    for at, found in back.items():
        ((text, start),) = found  # all windows that hold the answer say the same
        answer = questions[at].answers[0]
        space = len(answer.text) - len(answer.text.lstrip())
        if (text, start) != (answer.text.strip(), answer.start + space):
            lost[answer.text, text] += 1
    assert lost == exceptions
    assert table.notes[span.MOVED] == len(exceptions)
    assert table.notes[span.IN_NO_WINDOW] == len(questions) - answers
    assert table.notes[span.WITHOUT_TOKEN] == 0
