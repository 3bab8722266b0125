"""Fine-tuned models as `transformers` loads them: labels, settings, predictions."""

import json

import numpy as np
import pytest
import tiny_models
import tiny_tasks

from bert_jax import checkpoints, convert, errors, tasks
from bert_jax.checkpoints import initial_weights, weights
from bert_jax.config import finetuning
from bert_jax.data.labeled import examples as data_examples
from bert_jax.data.labeled import read_examples
from bert_jax.inference import answer

TO_HUGGINGFACE = convert.Request("huggingface")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    return folder


@pytest.fixture(scope="module")
def exported(place):
    """Returns a model of a kind, and its folder for `transformers`."""

    def export(kind, **changes):
        run, output = place / f"run_{kind}", place / f"hf_{kind}"
        if not run.exists():
            changes = {"head__dropout": 0.25} | changes
            tiny_models.write_model(place, run / "best" / "5", kind, **changes)
            convert.convert(run, output, TO_HUGGINGFACE)
        return answer.load(run), output

    return export


def _examples(place, kind):
    path = tiny_models.write_file(place, kind)
    multi = "|" if kind == "several" else ""
    task = tiny_models.task_of(kind)
    request = read_examples.Request(path, tasks.TASKS[task].form, multi_label=multi)
    found = read_examples.read(request).examples
    return [data_examples.unlabeled(example) for example in found]


CONFIGS = {
    "classification": (
        "BertForSequenceClassification",
        ["cat", "dog"],
        "single_label_classification",
    ),
    "several": (
        "BertForSequenceClassification",
        ["cat", "dog"],
        "multi_label_classification",
    ),
    "regression": ("BertForSequenceClassification", ["LABEL_0"], "regression"),
    "tagging": ("BertForTokenClassification", ["O", "B-ANIMAL", "I-ANIMAL"], None),
    "srl": ("BertForTokenClassification", ["O", "ARG0", "ARG1", "ARG4", "V"], None),
    "span": ("BertForQuestionAnswering", None, None),
    "multiple_choice": ("BertForMultipleChoice", None, None),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_config_has_labels_problem_and_dropout(exported, kind):
    of_class, labels, problem = CONFIGS[kind]
    tree = json.loads((exported(kind)[1] / "config.json").read_text())
    assert tree["architectures"] == [of_class]
    if labels is None:
        assert "id2label" not in tree
    else:
        assert tree["id2label"] == {str(n): name for n, name in enumerate(labels)}
        assert tree["label2id"] == {name: n for n, name in enumerate(labels)}
    assert ("problem_type" in tree) == (problem is not None)
    assert problem is None or tree["problem_type"] == problem
    assert ("classifier_dropout" in tree) == (kind != "span")
    assert kind == "span" or tree["classifier_dropout"] == 0.25


def _logits(model, inputs):
    import torch

    with torch.no_grad():
        found = model(**{name: torch.tensor(x)[None] for name, x in inputs.items()})
    return {n: x.double().numpy()[0] for n, x in found.items() if torch.is_tensor(x)}


def _softmax(x, axis=-1):
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("kind", CONFIGS)
def test_transformers_predicts_the_same(exported, place, kind):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ours, folder = exported(kind)
    of_class = getattr(transformers, CONFIGS[kind][0])
    model, info = of_class.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    if CONFIGS[kind][1]:
        assert list(model.config.id2label.values()) == CONFIGS[kind][1]
    assert model.config.problem_type == CONFIGS[kind][2]
    found = _examples(place, kind)
    table = ours.predictor.task.table(found)
    outputs = ours.predictor.outputs(ours.params, table)
    predictions = ours.of_examples(found)
    for row, at in enumerate(table.examples):
        inputs = {
            "input_ids": table.tokens["input_ids"][row].astype(np.int64),
            "token_type_ids": table.tokens["token_type_ids"][row].astype(np.int64),
            "attention_mask": table.tokens["segment_ids"][row].astype(np.int64),
        }
        count = len(found[at].choices) if kind == "multiple_choice" else None
        inputs = {name: x[:count] for name, x in inputs.items()}
        theirs = _logits(model.eval(), inputs)
        said, close = predictions[at], {"rtol": 0, "atol": 1e-5}
        if kind == "regression":
            np.testing.assert_allclose(theirs["logits"], [said["score"]], **close)
        elif kind == "several":
            odds = 1 / (1 + np.exp(-theirs["logits"]))
            expected = list(said["probabilities"].values())
            np.testing.assert_allclose(odds, expected, **close)
        elif kind in ("classification", "multiple_choice"):
            expected = said["probabilities"]
            if kind == "classification":
                assert list(expected) == list(model.config.id2label.values())
                expected = list(expected.values())
            np.testing.assert_allclose(_softmax(theirs["logits"]), expected, **close)
        elif kind == "span":
            allowed = table.tokens["char_starts"][row] < table.tokens["char_ends"][row]
            for name in ("start", "end"):
                here = outputs[name][row][: len(allowed)][allowed]
                np.testing.assert_allclose(
                    theirs[f"{name}_logits"][allowed], here, **close
                )
        else:
            places = table.tokens["token_positions"][row]
            places = places[table.tokens["token_weights"][row] > 0]
            odds = _softmax(theirs["logits"])[places]
            names = [model.config.id2label[int(n)] for n in odds.argmax(axis=-1)]
            assert names == said["tags"]
            np.testing.assert_allclose(
                odds.max(axis=-1), said["probabilities"], **close
            )


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_comes_back_with_what_it_was_written_with(exported, kind, tmp_path):
    _, folder = exported(kind)
    found = checkpoints.open(folder).read().weights
    assert found.problem_type == (CONFIGS[kind][2] or "")
    assert found.head_dropout == (None if kind == "span" else 0.25)
    convert.convert(folder, tmp_path / "ours", convert.Request("bert_jax"))
    convert.convert(tmp_path / "ours", tmp_path / "again", TO_HUGGINGFACE)
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (
            "tagging",
            {"head__crf": True},
            "a head .crf. that only a task of bert_jax comp",
        ),
        (
            "tagging",
            {"head__recurrent_size": 4},
            "a head .recurrent. that only a task of",
        ),
        (
            "classification",
            {"head__pooling": "mean"},
            "a head .classifier. that only a task of bert_jax computes",
        ),
    ],
)
def test_heads_that_no_other_library_has_are_refused(
    place, tmp_path, kind, changes, words
):
    run = tiny_models.write_model(place, tmp_path / "run", kind, **changes)
    with pytest.raises(errors.InputError, match=words) as raised:
        convert.convert(run, tmp_path / "out", TO_HUGGINGFACE)
    assert [x.name for x in tmp_path.iterdir()] == ["run"]
    named = str(raised.value).rpartition("--ignore=")[2].split(",")
    asked = convert.Request("bert_jax", choice=weights.Choice(ignore=tuple(named)))
    report = convert.convert(run, tmp_path / "out", asked)
    assert sorted(report.dropped) == sorted(named)
    found = checkpoints.open(tmp_path / "out").read().weights
    assert sorted(found.params) == ["encoder"]
    assert (found.problem_type, found.head_dropout) == ("", None)


MODERN = {
    "model__model_type": "modernbert",
    "model__type_vocab_size": 0,
    "head__transform": True,
}


@pytest.mark.parametrize(
    ("kind", "of_class", "changes"),
    [
        ("tagging", "TokenClassification", {}),
        pytest.param(
            *("regression", "SequenceClassification", {"head__pooling": "mean"}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_layer_before_the_head_is_exported_and_trained_on(
    place, tmp_path, kind, of_class, changes
):
    run, folder = tmp_path / "run", tmp_path / "hf"
    tiny_models.write_model(place, run / "best" / "5", kind, **MODERN | changes)
    convert.convert(run, folder, TO_HUGGINGFACE)
    tree = json.loads((folder / "config.json").read_text())
    assert tree["architectures"] == [f"ModernBertFor{of_class}"]
    (folder / "task.json").unlink()
    found = _examples(place, kind)
    key = {"tagging": "probabilities", "regression": "score"}[kind]
    made = [answer.load(x).of_examples(found) for x in (run, folder)]
    for ours, theirs in zip(*made, strict=True):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=1e-5)
    config = finetuning.default()
    config.init_from, config.init.head = str(folder), "given"
    config.data.task, config.data.train = kind, str(tiny_models.write_file(place, kind))
    config.head.pooling = "mean" if changes else "cls"
    head = "tagger" if kind == "tagging" else "classifier"
    with pytest.raises(errors.InputError, match="set head.transform=true"):
        initial_weights.read_start(finetuning.parse(config), ("encoder", head))
    config.head.transform = True
    settings = finetuning.parse(config)
    start = initial_weights.read_start(settings, ("encoder", "head_transform", head))
    assert sorted(start.given) == sorted(["encoder", "head_transform", head])


def test_its_head_can_be_trained_on(exported, place):
    _, folder = exported("classification")
    path = tiny_models.write_file(place, "classification")
    config = finetuning.default()
    config.init_from, config.init.head = str(folder), "given"
    config.data.train = config.data.dev = str(path)
    settings = finetuning.parse(config)
    start = initial_weights.read_start(settings, ("encoder", "pooler", "classifier"))
    assert sorted(start.given) == ["classifier", "encoder", "pooler"]
