"""Heads that transformers has no class for: the lines of the card compute them."""

import json
import re

import numpy as np
import pytest
import tiny_models
import tiny_tasks

import bert_jax
from bert_jax import convert, errors
from bert_jax.checkpoints import weights
from bert_jax.inference import answer

SEPARATE = convert.Request("huggingface", separate_head=True, verify=True)
QUESTION = ("a cat", ["sat here", "ran"])
KINDS = [
    ("classification", {"head__pooling": "mean"}),
    ("several", {"head__pooling": "max"}),
    ("regression", {"head__pooling": "mean"}),
    ("multiple_choice", {"head__pooling": "max"}),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    return folder


def _lines(folder):
    """Returns the lines for transformers in the card of a folder."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"With `transformers`:\n\n```python\n(.*?)```", card, re.DOTALL)
    assert len(code) == 1
    return code[0].replace("path/to/this/folder", str(folder))


@pytest.mark.parametrize(("kind", "changes"), KINDS, ids=[x for x, _ in KINDS])
def test_the_lines_of_the_card_compute_what_we_do(place, tmp_path, kind, changes):
    run, folder = tmp_path / "run", tmp_path / "hf"
    tiny_models.write_model(place, run / "best" / "5", kind, **changes)
    convert.convert(run, folder, SEPARATE)
    texts = ["the cat sat", "a dog ran home fast"]
    if kind == "multiple_choice":
        texts = [QUESTION]
    before = answer.load(run).predict(texts)
    again = bert_jax.load(folder).predict(texts)
    for one, other in zip(before, again, strict=True):
        assert one.keys() == other.keys()
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    lines = _lines(folder)
    swaps = {
        '["One text.", "Another text."]': str(texts),
        '["A question?", "A question?"]': str([QUESTION[0]] * 2),
        '["One answer.", "Another."]': str(QUESTION[1]),
    }
    for here, there in swaps.items():
        lines = lines.replace(here, there)
    made = {}
    exec(compile(lines, "README.md", "exec"), made)
    close = {"rtol": 0, "atol": 1e-5}
    for number, (one, other) in enumerate(zip(before, again, strict=True)):
        if kind == "regression":
            ours = [one["score"]]
            theirs = [made["scores"][number].item()]
            others = [other["score"]]
        elif kind == "multiple_choice":
            ours, others = one["probabilities"], other["probabilities"]
            theirs = made["logits"][:, 0].softmax(-1).numpy()
        else:
            ours = list(one["probabilities"].values())
            others = list(other["probabilities"].values())
            theirs = made["probabilities"][number].numpy()
        np.testing.assert_allclose(theirs, ours, **close)
        np.testing.assert_allclose(others, ours, **close)
    if kind == "classification":
        assert made["labels"] == [one["label"] for one in before]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("classification", {}), ("tagging", {"head__crf": True})],
)
def test_other_heads_are_refused(place, tmp_path, kind, changes):
    run = tiny_models.write_model(place, tmp_path / "run", kind, **changes)
    with pytest.raises(errors.InputError, match="--separate_head is for"):
        convert.convert(run, tmp_path / "out", SEPARATE)
    assert [x.name for x in tmp_path.iterdir()] == ["run"]


def test_the_refusal_names_the_way(place, tmp_path):
    changes = {"head__pooling": "mean"}
    run = tiny_models.write_model(place, tmp_path / "run", "classification", **changes)
    with pytest.raises(errors.InputError, match="--separate_head"):
        convert.convert(run, tmp_path / "out", convert.Request("huggingface"))


def test_the_scores_of_a_tagger_are_exported_without_its_crf(place, tmp_path):
    run = tiny_models.write_model(place, tmp_path / "run", "tagging", head__crf=True)
    asked = convert.Request("huggingface", choice=weights.Choice(ignore=("crf",)))
    convert.convert(run, tmp_path / "out", asked)
    tree = json.loads((tmp_path / "out" / "config.json").read_text())
    assert tree["architectures"] == ["BertForTokenClassification"]
