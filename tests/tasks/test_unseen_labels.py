"""Labels that a model has not seen: errors that are counted, listed, or renamed."""

import dataclasses
import json

import pytest
import tiny_models
import tiny_tasks
from sklearn import metrics as sklearn_metrics

from bert_jax import errors, evaluate, tasks
from bert_jax.data.labeled import examples as data_examples
from bert_jax.data.labeled import read_examples
from bert_jax.inference import answer, inputs
from bert_jax.tasks import class_names


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    return folder


@pytest.fixture(scope="module")
def folder_of(place):
    """Returns the folder of a model of a kind, written once."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = tiny_models.write_model(place, place / kind, kind)
        return made[kind]

    return folder


def _texts(rows):
    return [
        data_examples.TextExample(f"f.tsv:{n}", str(n), text, labels=labels)
        for n, (text, *labels) in enumerate(rows, start=2)
        for labels in [tuple(labels)]
    ]


def test_a_class_that_was_not_seen_is_an_error_of_every_metric(folder_of):
    model = answer.load(folder_of("classification"))
    rows = [("the cat", "cat"), ("那狗", "dog"), ("a cat sat", "bird"), ("跑", "cat")]
    scored, said = model.scores(_texts([*rows, ("home", "bird"), ("家", "fish")]))
    true = ["cat", "dog", "bird", "cat", "bird", "fish"]
    found = [one["label"] for one in said]
    assert scored.metrics["accuracy"] == sklearn_metrics.accuracy_score(true, found)
    assert scored.metrics["macro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(true, found, average="macro", zero_division=0.0)
    )
    assert scored.metrics["matthews"] == pytest.approx(
        sklearn_metrics.matthews_corrcoef(true, found)
    )
    assert scored.metrics["f1"] == pytest.approx(
        sklearn_metrics.f1_score(
            [x == "dog" for x in true], [x == "dog" for x in found], zero_division=0.0
        )
    )
    assert scored.unseen == {"bird": 2, "fish": 1}
    rows = {row["class"]: row for row in scored.classes}
    assert list(rows) == ["cat", "dog", "bird", "fish"]
    assert (rows["bird"]["examples"], rows["bird"]["f1"]) == (2, 0.0)
    assert scored.confusion.counts[:, 2:].sum() == 0
    assert scored.confusion.counts.sum() == 6


def test_of_several_labels_the_unseen_one_alone_is_missed(folder_of):
    model = answer.load(folder_of("several"))
    rows = [("the cat", "cat"), ("那狗", "dog", "bird"), ("a cat", "bird"), ("跑",)]
    scored, said = model.scores(_texts(rows))
    true = [{"cat"}, {"dog", "bird"}, {"bird"}, set()]
    found = [set(one["labels"]) for one in said]
    hits = sum(len(a & b) for a, b in zip(true, found, strict=True))
    recall = hits / sum(map(len, true))
    assert scored.metrics["micro_recall"] == pytest.approx(recall)
    exact = sum(a == b for a, b in zip(true, found, strict=True)) / 4
    assert scored.metrics["subset_accuracy"] == exact
    assert scored.unseen == {"bird": 2}


def _sentence(tags, number=1):
    text, spans = "the cat ran", ((0, 3), (4, 7), (8, 11))
    return data_examples.TaggedExample(
        f"f.conll:{number}", str(number), text, spans, tuple(tags)
    )


@pytest.mark.parametrize("letters", ["BI", "BE"])  # the file may be in another scheme
def test_entities_of_an_unseen_type_are_missed(folder_of, letters):
    model = answer.load(folder_of("tagging"))
    first, last = letters
    found = [
        _sentence(["O", "B-ANIMAL", "O"] if last == "I" else ["O", "S-ANIMAL", "O"]),
        _sentence([f"{first}-CITY", f"{last}-CITY", "O"], 5),
    ]
    scored, said = model.scores(found)
    spans = [
        {(x["type"], x["start"], x["end"]) for x in one["entities"]} for one in said
    ]
    hits = len(spans[0] & {("ANIMAL", 4, 7)})
    assert scored.metrics["entity_recall"] == hits / 2
    assert scored.unseen == {"CITY": 1}
    assert {row["class"]: row["examples"] for row in scored.classes}["CITY"] == 1


def test_roles_that_are_rare_are_missed(folder_of, place):
    model = answer.load(folder_of("srl"))
    request = read_examples.Request(place / "roles.conllu", tasks.TASKS["srl"].form)
    one, *others = read_examples.read(request).examples
    rare = [
        dataclasses.replace(one, tags=("ARGM-CAU", "ARG0", "V", "ARG4", "O")),
        *others,
    ]
    (before, _), (after, said) = model.scores([one, *others]), model.scores(rare)
    wanted = sum(row["examples"] for row in after.classes)
    assert wanted == sum(row["examples"] for row in before.classes) + 1
    assert after.unseen == {"ARGM-CAU": 1} and not before.unseen
    assert not any(role["role"] == "ARGM-CAU" for x in said for role in x["roles"])


def test_a_file_of_which_no_label_is_known_is_refused(folder_of):
    model = answer.load(folder_of("classification"))
    with pytest.raises(errors.InputError, match=r"f\.tsv:2: the label '-1' "):
        model.scores(_texts([("the cat", "-1"), ("那狗", "2")]))


def _evaluate(folder, path, name, label_map=None):
    request = inputs.AnswerRequest(input=str(path))
    scored, path = evaluate.evaluate_task(folder, request, name, label_map)
    return scored, json.loads(path.read_text())


def test_evaluate_lists_them_and_a_map_renames_them(folder_of, tmp_path, capsys):
    tags = tmp_path / "wnut.conll"
    tags.write_text("the O\ncat B-creature\nran I-creature\n\n狗 B-ANIMAL\n那 B-city\n")
    scored, written = _evaluate(folder_of("tagging"), tags, "as_it_is")
    assert written["unseen_labels"] == {"creature": 1, "city": 1}
    listed = "labels that the model has not seen count as errors: creature (1), city"
    assert listed in capsys.readouterr().err
    names = tmp_path / "names.tsv"
    names.write_text("creature\tANIMAL\ncity\tO\nriver\tO\n", encoding="utf-8")
    scored, written = _evaluate(folder_of("tagging"), tags, "renamed", names)
    assert written["unseen_labels"] == {} and not scored.unseen
    assert {row["class"]: row["examples"] for row in scored.classes} == {"ANIMAL": 2}
    assert "names.tsv: no example has river" in capsys.readouterr().err
    assert written["about"]["label_map"] == str(names)


def test_classes_are_renamed_too(folder_of, tmp_path):
    path, names = tmp_path / "x.tsv", tmp_path / "names.json"
    path.write_text("sentence\tlabel\nthe cat\tKatze\n那狗\tdog\n", encoding="utf-8")
    names.write_text('{"Katze": "cat"}')
    scored, _ = _evaluate(folder_of("classification"), path, "x", names)
    assert scored.confusion.labels == ("cat", "dog")
    assert scored.confusion.counts.sum(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\tb\tc\n", "map:1: "),
        ("a\tcat\n\na\tdog\n", "map:3: "),
        ('{"a": 1}', 'map: "a" is renamed to 1'),
        ("Katze\tcta\n", "renames 'Katze' to 'cta', which is not a label of the model"),
    ],
)
def test_a_map_that_cannot_be(folder_of, tmp_path, text, words):
    path = tmp_path / "map"
    path.write_text(text)
    task = answer.load(folder_of("classification")).predictor.task
    with pytest.raises(errors.InputError, match=words):
        class_names.renamed(task, [], class_names.read_map(path))
