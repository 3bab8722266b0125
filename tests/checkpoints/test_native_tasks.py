"""The folder of a fine-tuned model: what is written is read, what is harmed is not."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny_models
import tiny_tasks

from bert_jax import errors
from bert_jax.checkpoints import native
from bert_jax.tasks import spec


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    tiny_models.write_model(folder, folder / "model", "classification")
    return folder


@pytest.fixture
def folder(place, tmp_path):
    """A copy that a test may harm."""
    return shutil.copytree(place / "model", tmp_path / "model")


def _change(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_a_folder_of_before_a_key_was_added_is_read(folder):
    _change(folder / "task.json", lambda x: x["settings"]["run"].pop("attention"))
    assert native.read_task(folder).settings.run.attention == "xla"


def test_what_is_written_is_read(folder):
    assert sorted(x.name for x in folder.iterdir()) == [
        "model.json",
        "parameters.safetensors",
        "task.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    made = native.read_task(folder)
    assert made.learned == spec.Metadata(labels=("cat", "dog"))
    assert made.metrics == {"accuracy": 0.5}
    assert made.settings.data.task == "classification"
    assert made.bert.hidden_size == 32 and made.tokenizer.vocab_size == 30
    assert sorted(made.params) == ["classifier", "encoder", "pooler"]
    raw = safetensors.numpy.load_file(folder / "parameters.safetensors")
    words = made.params["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    assert words.shape == (30, 32)
    np.testing.assert_array_equal(
        words, raw["encoder/embeddings/word_embeddings/embedding"]
    )


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    native.write_task(tmp_path / "again", native.read_task(folder))
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_scores_and_thresholds_come_back(folder, tmp_path):
    learned = spec.Metadata(("a", "b"), "BIO", 1.5, 0.25, -1.0, 7.0, True, 0.125)
    made = dataclasses.replace(native.read_task(folder), learned=learned)
    native.write_task(tmp_path / "other", made)
    assert native.read_task(tmp_path / "other").learned == learned


def test_a_run_has_its_best_model_alone(folder, tmp_path):
    made, run = native.read_task(folder), tmp_path / "run"
    (run / "best" / ".4.building").mkdir(parents=True)  # as a killed process leaves it
    (run / "best" / ".4.building.lock").touch()
    assert native.best(run) is None and not native.is_task(run)
    for step in (7, 12, 9):
        one = dataclasses.replace(made, metrics={"accuracy": step / 100})
        native.write_best(run, step, one)
        assert [x.name for x in (run / "best").iterdir()] == [str(step)]
        assert native.read_task(run).metrics == {"accuracy": step / 100}
    assert native.best(run) == run / "best" / "9" and native.is_task(run)
    again = dataclasses.replace(made, metrics={"accuracy": 1.0})
    native.write_best(run, 9, again)
    assert native.read_task(run / "best" / "9").metrics == {"accuracy": 1.0}


def test_a_model_that_cannot_be_written_leaves_the_one_before(
    folder, tmp_path, monkeypatch
):
    made = native.read_task(folder)
    native.write_best(tmp_path, 3, made)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "write", full)
    with pytest.raises(errors.StorageError, match="No space left on device"):
        native.write_best(tmp_path, 5, made)
    monkeypatch.undo()
    assert native.read_task(tmp_path).metrics == made.metrics
    assert [x.name for x in (tmp_path / "best").iterdir()] == ["3"]


def test_what_is_unfinished_is_no_model(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run" / "best" / ".5.building")
    assert native.best(tmp_path / "run") is None


CHANGES = [
    (lambda t: t.clear(), "task.json is not of the format 'bert_jax task 1'"),
    (lambda t: t.update(settings=3), "is damaged or was changed by hand"),
    (lambda t: t["settings"].pop("sweep"), "config key sweep is missing"),
    (lambda t: t["settings"]["run"].update(seed="x"), "run.seed is 'x'"),
    (lambda t: t.update(metrics=3), "is damaged or was changed by hand"),
    (lambda t: t.update(learned={}), "is damaged or was changed by hand: 'labels'"),
    (lambda t: t["learned"].update(more=1), "is damaged or was changed by hand"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_changed_task_json_is_refused(folder, change, words):
    _change(folder / "task.json", change)
    with pytest.raises(errors.InputError, match=words):
        native.read_task(folder)


@pytest.mark.parametrize("name", ["model.json", "parameters.safetensors", "vocab.txt"])
def test_a_file_of_which_a_bit_is_turned_is_refused(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(errors.InputError, match=name):
        native.read_task(folder)
    (folder / name).unlink()
    with pytest.raises(errors.InputError, match=f"{name} is missing"):
        native.read_task(folder)


def test_parts_that_are_named_must_be_there(folder):
    _change(folder / "model.json", lambda t: t["parts"].append("crf"))
    _change(folder / "task.json", lambda t: t.pop("files"))
    with pytest.raises(errors.InputError, match="crf"):
        native.read_task(folder)


def test_what_is_no_fine_tuned_model_is_said(tmp_path):
    with pytest.raises(errors.InputError, match="fine-tuned model"):
        native.read_task(tmp_path)
    with pytest.raises(errors.InputError, match="nope does not exist"):
        native.read_task(tmp_path / "nope")


def test_parameters_must_be_those_of_the_model(folder):
    params = native.read_task(folder).params
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    native.check_shapes(params, shapes, folder)
    less = {name: tree for name, tree in params.items() if name != "pooler"}
    with pytest.raises(errors.InputError, match="pooler/dense/bias"):
        native.check_shapes(less, shapes, folder)
    shapes["classifier"]["dense"]["bias"] = jax.ShapeDtypeStruct((3,), np.float32)
    with pytest.raises(errors.InputError, match="classifier/dense/bias"):
        native.check_shapes(params, shapes, folder)
