"""Warnings of text that a model learns little from, before it is trained."""

import types

import pytest

from bert_jax import prepare


def _store(unknown, documents, sentences):
    totals = {"documents": documents, "sentences": sentences}
    return types.SimpleNamespace(
        unknown_share=unknown, total=lambda quantity: totals[quantity]
    )


@pytest.mark.parametrize(
    ("unknown", "sentences", "objective", "words"),
    [
        (0.04, 30, "nsp", []),
        (0.06, 30, "nsp", ["6.0 % of the tokens are [UNK]"]),
        (0.0, 10, "nsp", ["NSP cannot learn"]),
        (0.0, 10, "sop", ["SOP cannot learn"]),
        (0.0, 10, "full_sentences", []),
    ],
)
def test_unknown_tokens_and_documents_of_one_sentence(
    caplog, unknown, sentences, objective, words
):
    check = getattr(prepare.check_text, "__wrapped__", prepare.check_text)
    check(_store(unknown, 10, sentences), objective)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(words)
    assert all(word in text for word, text in zip(words, messages, strict=True))
