"""Ids that are out of range are rejected on the host, by commands and checks."""

import json

import bad_files
import pytest
import tiny_models
from bad_files import case

from bert_jax import errors, tasks
from bert_jax.checkpoints import native
from bert_jax.data.labeled import read_examples
from bert_jax.inference import inputs
from bert_jax.runs import splits
from bert_jax.tasks import spec

_PRETRAIN = "pretrain --config={good}/text/tiny.py --workdir={here}/run"
_FINETUNE = "finetune --config={good}/tasks/tiny.py --workdir={here}/run "


_PAIRS = "sentence1\tsentence2\tlabel\na cat\ta dog\tx\na dog\ta cat\ty\n"
_PAIRS += "the cat\tthe dog\tx\nthe dog\tthe cat\ty\n"
CASES = [
    case(
        "vocabulary",
        "larger than the model's",
        f"{_PRETRAIN} --config.text.vocab={{good}}/text/vocab.txt "
        "--config.model.vocab_size=36",
        "model.vocab_size is 36…37",
        {},
    ),
    case(
        "model",
        "one token type, and sentence pairs",
        f"{_PRETRAIN} --config.model.type_vocab_size=1",
        "model.type_vocab_size is 1…data.objective",
        {},
    ),
    case(
        "model",
        "one token type, and pairs of texts",
        f"{_FINETUNE}--config.model.type_vocab_size=1 "
        "--config.data.train={here}/a.tsv --config.data.dev={here}/a.tsv",
        "{here}/a.tsv:2: token_type_ids…1…0 to 0",
        {"a.tsv": _PAIRS},
    ),
    case(
        "model",
        "rows longer than its positions",
        f"{_FINETUNE}--config.data.max_seq_length=25",
        "data.max_seq_length 25…24 positions",
        {},
    ),
    *(
        case(
            "label",
            f"{label} of two classes",
            "evaluate --workdir={here}/run --data={here}/a.tsv",
            f"{{here}}/a.tsv:2…'{label}'…2",
            {"a.tsv": f"sentence\tlabel\na cat\t{label}\n"},
            base="tasks/run",
        )
        for label in (-1, 2)
    ),
    case(
        "label",
        "a tag that is unknown",
        "evaluate --workdir={here}/tagging --data={here}/a.conll",
        "{here}/a.conll:1: …'CITY'",
        {"a.conll": "the I-CITY\ncat B-CITY\n"},
        base="tasks/models/tagging",
    ),
    case(
        "label",
        "a choice that does not exist",
        "evaluate --workdir={here}/multiple_choice --data={here}/a.jsonl",
        "{here}/a.jsonl:1…'2'…2 choices",
        {"a.jsonl": '{"context": "a", "choices": ["b", "c"], "label": 2}\n'},
        base="tasks/models/multiple_choice",
    ),
    *(
        case(
            "offsets",
            f"an entity from {start} to {end} of 5 characters",
            "evaluate --workdir={here}/tagging --data={here}/a.jsonl",
            f"{{here}}/a.jsonl:1…'A'…characters {start} to {end}",
            {"a.jsonl": json.dumps({"text": "a cat", "entities": [[start, end, "A"]]})},
            base="tasks/models/tagging",
        )
        for start, end in ((4, 2), (2, 6), (-1, 2))
    ),
]


@pytest.mark.parametrize("one", CASES, ids=str)
def test_ids_that_are_out_of_range(one, good, tmp_path, shell):
    bad_files.check(one, good, tmp_path, shell)


def _read(good, kind):
    """Returns a task, its examples and its table."""
    folder = native.read_task(good / "tasks" / "models" / kind)
    path = str(good / "tasks" / tiny_models.KINDS[kind][0])
    found = read_examples.read(inputs.training_request(folder.settings, path)).examples
    parts = (folder.settings, folder.learned, folder.bert, folder.tokenizer)
    of_task = tasks.of(parts[0]).task(*parts)
    return of_task, found, of_task.table(found)


@pytest.mark.parametrize(
    ("kind", "name", "value", "most"),
    [
        ("classification", "input_ids", 30, 29),
        ("classification", "input_ids", -1, 29),
        ("classification", "token_type_ids", 2, 1),
        ("matching", "input_ids", 30, 29),
    ],
)
def test_a_row_with_an_id_that_is_out_of_range(good, kind, name, value, most):
    of_task, examples, table = _read(good, kind)
    assert spec.checked(of_task, examples, table) is table
    table.tokens[name][1][..., 1] = value
    with pytest.raises(errors.InputError) as caught:
        spec.checked(of_task, examples, table)
    message = str(caught.value)
    assert message.startswith(f"{examples[1].where}: {name} ")
    assert f" {value}, " in message and f" 0 to {most}." in message


def test_training_checks_its_rows(good, monkeypatch):
    of_task, examples, _ = _read(good, "classification")
    seen = []
    monkeypatch.setattr(spec, "checked", lambda *a: seen.append(a) or a[2])
    splits.table("train", of_task, examples)
    assert len(seen) == 1
