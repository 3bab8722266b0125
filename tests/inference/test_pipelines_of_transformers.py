"""Answers compared with the pipelines of transformers, and with the official scripts.

The question-answering pipeline is gone since transformers 5: its place takes the
post-processing of the official examples, written here from its description.
"""

import dataclasses
import json

import numpy as np
import pytest
import tiny_models
import tiny_tasks

import bert_jax
from bert_jax import convert
from bert_jax.inference import inputs

heads = pytest.importorskip("transformers_heads")

NAMES = {0: "O", 1: "B-猫", 2: "I-猫", 3: "B-DOG", 4: "I-DOG"}
CLOSE = {"rtol": 0, "atol": 1e-5}
RNG = np.random.default_rng(11)
LONG = {
    "english": ("the dog ran ?", " ".join(RNG.choice(tiny_tasks.WORDS, 90))),
    "chinese": ("猫坐?", "".join(RNG.choice(list(tiny_tasks.CHARACTERS), 75))),
}


def test_entities_are_those_of_the_pipeline_with_simple_aggregation(tmp_path):
    _, tokenizer = heads.write_folder(
        tmp_path, "Bert", "ForTokenClassification", id2label=NAMES
    )
    pipeline = heads.transformers.pipeline(
        "token-classification", str(tmp_path), aggregation_strategy="simple"
    )
    texts = ["the cat ran home, there sat a dog", "那猫坐这。那狗跑家。", "a cat很好"]
    for text, found in zip(texts, bert_jax.load(tmp_path).predict(texts), strict=True):
        wanted = pipeline(text)
        assert [(x["type"], x["start"], x["end"]) for x in found["entities"]] == [
            (x["entity_group"], x["start"], x["end"]) for x in wanted
        ]
        assert wanted or set(found["tags"]) == {"O"}
        sure = iter(
            odds
            for odds, tag in zip(found["probabilities"], found["tags"], strict=True)
            if tag != "O"
        )
        for one, theirs in zip(found["entities"], wanted, strict=True):
            assert one["text"] == text[theirs["start"] : theirs["end"]]
            odds = [next(sure) for _ in tokenizer.tokenize(one["text"])]
            assert min(odds) == one["probability"]
            np.testing.assert_allclose(np.mean(odds), theirs["score"], **CLOSE)


def _official(made, tokenizer, question, context, longest=30, count=20):
    """Returns all candidates of the official post-processing, the best first."""
    found = []
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=40,
        stride=20,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    for row, ids in enumerate(encoded["input_ids"]):
        inputs = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
        inputs["token_type_ids"] = [encoded["token_type_ids"][row]]
        inputs = {name: heads.torch.tensor(x) for name, x in inputs.items()}
        with heads.torch.no_grad():
            out = made(**inputs)
        starts, ends = out.start_logits[0].numpy(), out.end_logits[0].numpy()
        offsets = [
            pair if of == 1 else None
            for pair, of in zip(
                encoded["offset_mapping"][row], encoded.sequence_ids(row), strict=True
            )
        ]
        for first in np.argsort(starts)[: -count - 1 : -1]:
            for last in np.argsort(ends)[: -count - 1 : -1]:
                if offsets[first] is None or offsets[last] is None:
                    continue
                if first <= last < first + longest:
                    score = float(starts[first]) + float(ends[last])
                    found.append((score, offsets[first][0], offsets[last][1]))
    return len(encoded["input_ids"]), sorted(found, reverse=True)


@pytest.mark.parametrize("language", LONG)
def test_answers_of_long_documents_are_those_of_the_official_script(tmp_path, language):
    made, tokenizer = heads.write_folder(tmp_path, "Bert", "ForQuestionAnswering")
    question, context = LONG[language]
    (found,) = bert_jax.load(tmp_path).predict([(question, context)])
    windows, wanted = _official(made, tokenizer, question, context)
    assert windows >= 4
    score, start, end = wanted[0]
    assert (found["start"], found["end"]) == (start, end)
    assert found["answer"] == context[start:end]
    np.testing.assert_allclose(found["score"], score, **CLOSE)


def test_probabilities_of_short_documents_are_those_of_the_official_script(tmp_path):
    made, tokenizer = heads.write_folder(tmp_path, "Bert", "ForQuestionAnswering")
    question, context = "猫坐?", "那猫坐这。 the dog ran"
    (found,) = bert_jax.load(tmp_path).predict([(question, context)])
    _, wanted = _official(made, tokenizer, question, context)
    odds = heads.softmax(np.array([score for score, _, _ in wanted[:20]]))
    best = found["n_best"]
    assert [(x["start"], x["end"]) for x in best] == [x[1:] for x in wanted[:20]]
    np.testing.assert_allclose([x["probability"] for x in best], odds, **CLOSE)


@pytest.mark.parametrize(
    "kind",
    [
        "tagging",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("classification", "several", "regression", "srl", "span")
        ),
        pytest.param("multiple_choice", marks=pytest.mark.slow),
    ],
)
def test_predict_answers_a_file_row_by_row_as_the_run_that_was_exported(kind, tmp_path):
    tiny_tasks.write_vocab(tmp_path)
    run, folder = tmp_path / "run", tmp_path / "hf"
    tiny_models.write_model(tmp_path, run / "best" / "5", kind)
    convert.convert(run, folder, convert.Request("huggingface"))
    request = inputs.AnswerRequest(str(tiny_models.write_file(tmp_path, kind)))
    rows = []
    for model in (run, folder):
        output = tmp_path / f"{model.name}.jsonl"
        inputs.write(model, [], dataclasses.replace(request, output=output))
        rows.append([json.loads(line) for line in output.read_text().splitlines()])
    assert len(rows[0]) == len(rows[1]) > 0
    for one, other in zip(*rows, strict=True):
        assert _close(one, other)


def _close(one, other):
    """Says whether two JSON values are equal, numbers within 1e-5."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(one[x], other[x]) for x in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return abs(one - other) <= 1e-5 if isinstance(one, float) else one == other
