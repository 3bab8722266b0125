"""Folders of every head class of transformers answer as transformers computes it.

Models are tiny and random, with a vocabulary of English and Chinese; the expected
values are the logits of transformers' own class, text by text, without padding.
"""

import numpy as np
import pytest

import bert_jax
from bert_jax import convert

heads = pytest.importorskip("transformers_heads")

HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
CASES = [(model, head) for model in heads.OWN for head in HEADS]
CASES += [("Bert", "ForNextSentencePrediction")]
# What has layers of its own before the output; all others are `slow`.
SAMPLE = [
    ("ModernBert", "ForTokenClassification"),
    ("ModernBert mean", "ForSequenceClassification"),
]


PAIRS = [("a cat sat", "the dog ran home fast"), ("那猫坐这", "狗"), ("a", "fast cat")]
CHOICES = [("a cat", ["sat here", "ran"]), ("那狗", ["跑家", "坐", "the cat ran"])]
QUESTIONS = [
    ("the dog ran ?", "a cat sat here. the dog ran home"),
    ("猫坐?", "那猫坐这"),
]
CLOSE = {"rtol": 0, "atol": 1e-5}


def _check_texts(model, made, tokenizer):
    found = model.predict(PAIRS)
    for pair, answer in zip(PAIRS, found, strict=True):
        wanted = heads.softmax(heads.logits_of(made, tokenizer, *pair)["logits"])
        names = [made.config.id2label[at] for at in range(len(wanted))]
        assert list(answer["probabilities"]) == names
        np.testing.assert_allclose([*answer["probabilities"].values()], wanted, **CLOSE)
        assert answer["label"] == names[int(wanted.argmax())]


def _first_tokens(encoded, text, words):
    """Returns the number of the first token of each word of a text."""
    firsts, end = [], 0
    for word in words:
        start = text.index(word, end)
        end = start + len(word)
        firsts.append(encoded.char_to_token(start))
    return firsts


def _check_tokens(model, made, tokenizer):
    texts = {"the cat ran home": "the cat ran home".split(), "那猫坐": "那猫坐"}
    for (text, words), answer in zip(
        texts.items(), model.predict(list(texts)), strict=True
    ):
        firsts = _first_tokens(tokenizer(text), text, words)
        wanted = heads.softmax(heads.logits_of(made, tokenizer, text)["logits"])[firsts]
        assert answer["tags"] == [heads.LABELS[int(at)] for at in wanted.argmax(-1)]
        np.testing.assert_allclose(answer["probabilities"], wanted.max(-1), **CLOSE)


def _check_choices(model, made, tokenizer):
    for value, answer in zip(CHOICES, model.predict(CHOICES), strict=True):
        context, choices = value
        contexts = [context] * len(choices)
        logits = heads.logits_of(made, tokenizer, contexts, choices, padding=True)[
            "logits"
        ]
        np.testing.assert_allclose(
            answer["probabilities"], heads.softmax(logits), **CLOSE
        )
        assert answer["choice"] == choices[int(logits.argmax())]


def _check_spans(model, made, tokenizer):
    for (question, context), answer in zip(
        QUESTIONS, model.predict(QUESTIONS), strict=True
    ):
        out = heads.logits_of(made, tokenizer, question, context)
        encoded = tokenizer(question, context)
        sums = {
            (first, last): out["start_logits"][first] + out["end_logits"][last]
            for first in range(len(encoded["input_ids"]))
            for last in range(first, len(encoded["input_ids"]))
            if encoded.sequence_ids()[first] == encoded.sequence_ids()[last] == 1
        }
        first, last = max(sums, key=lambda span: sums[span])
        start = encoded.token_to_chars(first).start
        end = encoded.token_to_chars(last).end
        assert (answer["start"], answer["end"]) == (start, end)
        assert answer["answer"] == context[start:end]
        np.testing.assert_allclose(answer["score"], sums[first, last], **CLOSE)


CHECKS = {
    "ForSequenceClassification": _check_texts,
    "ForNextSentencePrediction": _check_texts,
    "ForTokenClassification": _check_tokens,
    "ForMultipleChoice": _check_choices,
    "ForQuestionAnswering": _check_spans,
}


@pytest.mark.parametrize(
    ("model", "head"),
    [
        pytest.param(*case, marks=() if case in SAMPLE else pytest.mark.slow)
        for case in CASES
    ],
)
def test_it_answers_as_transformers_computes(model, head, tmp_path):
    made, tokenizer = heads.write_folder(tmp_path / "theirs", model, head)
    loaded = bert_jax.load(tmp_path / "theirs")
    CHECKS[head](loaded, made, tokenizer)
    convert.convert(
        tmp_path / "theirs", tmp_path / "again", convert.Request("huggingface")
    )
    again = type(made).from_pretrained(tmp_path / "again").eval()
    for name, tensor in made.state_dict().items():
        assert heads.torch.equal(again.state_dict()[name], tensor), name
    CHECKS[head](bert_jax.load(tmp_path / "again"), again, tokenizer)
