"""What a run would not read is refused; every recipe of configs/ is read."""

import importlib.util
import operator
from pathlib import Path

import pytest
import tiny_tasks

from bert_jax import errors, tasks
from bert_jax.config import finetuning

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def _parse(**changes):
    return tasks.check(finetuning.parse(tiny_tasks.config(Path("p"), **changes)))


UNREAD = [
    ("head__objective", "simcse", "classification", "matching"),
    ("head__temperature", 0.1, "tagging", "matching"),
    ("head__pooling", "mean", "tagging", "regression, matching, multiple_choice"),
    ("head__pooling", "mean", "span", "data.task is span"),
    ("head__crf", True, "classification", "tagging, srl"),
    ("head__dropout", 0.5, "matching", "regression"),
    ("data__labels", "a,b", "tagging", "classification, matching"),
    ("data__multi_label", "|", "matching", "classification"),
    ("data__skip_labels", "-", "regression", "classification, matching"),
    ("data__strip_digit", True, "srl", "tagging"),
    ("data__truncation", "head_tail", "span", "classification"),
    ("data__doc_stride", 64, "tagging", "span"),
    ("data__doc_overlap", 8, "tagging", "span"),
    ("head__transform", True, "matching", "regression"),
    ("data__max_answer_length", 9, "classification", "span"),
    ("data__predicates", "joint", "tagging", "srl"),
    ("data__header", "true", "tagging", "classification"),
    ("data__columns.tag", "2", "classification", "tagging, srl"),
    ("data__columns.score", "x", "classification", "regression, matching"),
    ("data__columns.choices", "a,b", "regression", "multiple_choice"),
    ("data__columns.text", "x", "span", "data.task is span"),
    ("recipe__class_weights", "balanced", "span", "classification, tagging"),
    ("recipe__class_weights", "1,2", "regression", "data.task is regression"),
    ("recipe__label_smoothing", 0.1, "regression", "classification"),
    ("recipe__focal_gamma", 2.0, "matching", "data.task is matching"),
    ("recipe__r_drop", 1.0, "matching", "data.task is matching"),
]


@pytest.mark.parametrize(("name", "value", "task", "words"), UNREAD)
def test_what_a_task_does_not_read_is_refused(name, value, task, words):
    with pytest.raises(errors.InputError) as raised:
        _parse(**{name: value, "data__task": task})
    key = name.replace("__", ".")
    assert str(raised.value).startswith(f"{key} is {value!r}, which is for ")
    for word in words.split(", "):
        assert word in str(raised.value)


def test_a_temperature_needs_an_objective_that_reads_it():
    with pytest.raises(errors.InputError, match="head.temperature is 1, .*cosine"):
        _parse(data__task="matching", head__temperature=1.0)


def test_what_is_read_is_not_refused():
    assert _parse(sweep__seeds=2, sweep__learning_rates="1e-3").sweep.seeds == 2
    head = {"head__objective": "in_batch", "head__temperature": 0.1}
    assert _parse(data__task="matching", **head).head.temperature == 0.1
    recipe = {"recipe__lora_rank": 2, "recipe__lora_alpha": 8.0}
    assert _parse(recipe__layer_decay=0.9, **recipe).recipe.lora_alpha == 8.0
    assert _parse(data__dev="", data__dev_share=0.3).data.dev_share == 0.3


@pytest.mark.parametrize(
    ("task", "name"),
    [("classification", "f2"), ("regression", "accuracy"), ("tagging", "f1")]
    + [("span", "best_f1_threshold"), ("matching", "threshold")],
)
def test_the_metric_to_keep_by_is_one_of_the_task(task, name):
    with pytest.raises(errors.InputError) as raised:
        _parse(data__task=task, run__keep_best=name)
    listed = ", ".join(tasks.TASKS[task].metrics)
    assert str(raised.value) == f"run.keep_best is {name!r}: {task} has {listed}"
    _parse(data__task=task, run__keep_best=tasks.TASKS[task].metrics[-1])


def test_a_task_of_another_name_is_refused_with_the_names_of_all():
    with pytest.raises(errors.InputError) as raised:
        _parse(data__task="clasification")
    assert "data.task is 'clasification'" in str(raised.value)
    assert all(name in str(raised.value) for name in tasks.TASKS)


def test_every_key_is_one_of_the_groups():
    settings = _parse()
    for task in tasks.TASKS.values():
        for key in task.keys:
            operator.attrgetter(key)(settings)


def _recipes():
    spec = importlib.util.spec_from_file_location("recipes", CONFIGS / "finetune.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(_recipes().OPTIONS))
def test_recipes_set_nothing_that_their_task_does_not_read(name):
    config = _recipes().get_config(name)
    config.init_from, config.data.train = "folder", config.data.train or "train.tsv"
    tasks.check(finetuning.parse(config))
