"""Warnings of text that a model learns little from, before it is trained."""

import types

import pytest

from bert_jax.config import pretraining
from bert_jax.runs import corpus_store


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
    check = getattr(corpus_store.check_text, "__wrapped__", corpus_store.check_text)
    check(_store(unknown, 10, sentences), objective)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(words)
    assert all(word in text for word, text in zip(words, messages, strict=True))


def test_the_cause_of_unknown_tokens_is_found_in_the_corpus(tmp_path, caplog):
    vocab = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat".split()
    (tmp_path / "vocab.txt").write_text("".join(f"{x}\n" for x in vocab))
    (tmp_path / "text.txt").write_text("那猫坐下了\n它跑了\n\nthe cat sat\n", "utf-8")
    text = pretraining.PretrainingTextConfig(vocab=str(tmp_path / "vocab.txt"))
    data = pretraining.PretrainingDataConfig(
        corpus=str(tmp_path / "text.txt"), workers=1
    )
    built = corpus_store.ensure(text, data, tmp_path / "store")
    places = corpus_store.sources_of(data.corpus)
    corpus_store.check_text(built, "nsp", tmp_path / "store", places)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("72.7 % of the tokens are [UNK]: the vocabulary does not")
    assert "this script (Chinese)" in message
    caplog.clear()
    (tmp_path / "text.txt").unlink()
    corpus_store.check_text(built, "nsp", tmp_path / "store", places)
    assert "do_lower_case" in caplog.records[0].getMessage()
