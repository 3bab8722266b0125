"""The configuration of fine-tuning: read, refused, written and read again."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_tasks

from bert_jax import errors
from bert_jax.config import finetuning
from bert_jax.foundation import fields
from bert_jax.training import optimizer


def _config(**changes):
    return tiny_tasks.config(Path("p"), **changes)


def test_the_default_names_what_must_be_set():
    config = finetuning.default()
    with pytest.raises(errors.InputError, match="init_from is empty"):
        finetuning.parse(config)
    config.init_from = "runs/demo"
    with pytest.raises(errors.InputError, match="data.train is empty"):
        finetuning.parse(config)
    config.data.train = "train.tsv"
    settings = finetuning.parse(config)
    assert settings.size == settings.text.vocab == "init_from"
    assert (settings.model, settings.run.num_train_epochs) == ({}, 3.0)
    assert settings.optimizer.learning_rate == 3e-5


def test_fresh_weights_need_an_architecture_and_a_vocabulary():
    for changes in ({"model__size": "init_from"}, {"text__vocab": "init_from"}):
        with pytest.raises(errors.InputError, match="init_from is none"):
            finetuning.parse(_config(**changes))
    settings = finetuning.parse(_config())
    assert (settings.size, settings.model["hidden_size"]) == ("tiny", 32)


@pytest.mark.parametrize(
    "changes", [{"model__size": "init_from"}, {"text__vocab": "init_from"}]
)
def test_given_weights_bring_both(changes):
    config = _config(init_from="folder", **changes)
    with pytest.raises(errors.InputError, match="model.size"):
        finetuning.parse(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__header": "maybe"}, "data.header is 'maybe': use one of auto"),
        ({"data__truncation": "cut"}, "longest_first, only_first"),
        ({"data__folds": 1, "data__dev": ""}, "data.folds is 1: .* at least 2, or 0"),
        ({"data__fold": 1}, "data.fold is 1 and data.folds 0"),
        ({"data__folds": 2}, "leave data.dev empty"),
        ({"data__dev_share": 0.9}, "0.01 to 0.5"),
        (
            {"data__task": "span", "data__doc_overlap": 9, "data__doc_stride": 64},
            "data.doc_overlap is 9 and data.doc_stride 64",
        ),
        ({"head__dropout": 0.95}, r"head.dropout is 0.95: .* 0.9"),
        ({"recipe__layer_decay": 0.0}, "0.1 to 1.0"),
        ({"recipe__frozen_layers": -2}, "at least -1"),
        ({"optimizer__warmup_fraction": 1.5}, "0.0 to 1.0"),
        ({"run__eval_every_steps": 0}, "at least 1, or -1"),
        ({"run__eval_batch_size": 0}, "at least 1"),
        ({"run__num_train_steps": -1, "run__num_train_epochs": 0.0}, "above 0"),
        ({"sweep__learning_rates": "1e-3,2"}, "1e-09 to 1.0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(changes, words):
    with pytest.raises(errors.InputError, match=words):
        finetuning.parse(_config(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init__head": "given"}, "init_from is none"),
        ({"recipe__lora_alpha": 8.0}, "recipe.lora_rank is 0"),
        (
            {"recipe__lora_rank": 2, "recipe__reinit_layers": 1},
            "recipe.reinit_layers is 1, .* recipe.lora_rank 2",
        ),
        ({"sweep__folds": 2}, "sweep.folds .* data.dev"),
        ({"data__dev_share": 0.2}, "data.dev_share is 0.2, and data.dev"),
        (
            {"data__dev_share": 0.2, "data__dev": "", "data__folds": 2},
            "data.dev_share is 0.2, and folds",
        ),
        (
            {"data__pack": True, "run__accumulation_steps": 2},
            "data.pack .* run.accumulation_steps 2",
        ),
        ({"sweep__learning_rates": "1e-3"}, "sweep.learning_rates .* 0.001"),
        (
            {"sweep__learning_rates": "1e-3,0.001"},
            "sweep.learning_rates is '1e-3,0.001'.* sweep.seeds",
        ),
        ({"sweep__seeds": 2, "run__patience": 1}, "run.patience .* sweep"),
        ({"sweep__seeds": 2, "run__log_examples": True}, "run.log_examples .* sweep"),
        (
            {"sweep__seeds": 2, "data__folds": 2, "data__dev": ""},
            "data.folds .* sweep.folds",
        ),
    ],
)
def test_keys_that_exclude_each_other_are_refused(changes, words):
    with pytest.raises(errors.InputError, match=words):
        finetuning.parse(_config(**changes))


def test_what_is_written_is_read_again():
    settings = finetuning.parse(_config(data__labels="a,b"))
    text = json.dumps(finetuning.to_dict(settings))
    assert finetuning.parse(json.loads(text)) == settings


def test_a_record_of_before_a_key_was_added_is_read_as_what_it_was():
    tree = finetuning.to_dict(finetuning.parse(_config()))
    for group, keys in fields.added_keys(finetuning.FinetuningConfig).items():
        for key in keys:
            del tree[group][key]
    read = finetuning.parse_record(tree)
    assert read.run.attention == "xla"
    with pytest.raises(errors.InputError, match="is missing"):
        finetuning.parse(tree)


def test_unknown_and_missing_keys_are_named():
    tree = finetuning.to_dict(finetuning.parse(_config()))
    columns = tree["data"]["columns"]
    tree["data"]["columns"] = columns | {"txt": "x"}
    with pytest.raises(
        errors.InputError, match=r"columns\.txt\. Did you mean .*text\?"
    ):
        finetuning.parse(tree)
    tree["data"]["columns"] = {n: x for n, x in columns.items() if n != "label"}
    with pytest.raises(errors.InputError, match=r"data\.columns\.label is missing"):
        finetuning.parse(tree)


@pytest.mark.parametrize(
    ("given", "fraction", "expected"), [(0, 0.1, 7), (0, 0.0, 0), (5, 0.1, 5)]
)
def test_the_warm_up_is_a_share_of_the_steps_unless_it_is_set(
    given, fraction, expected
):
    group = finetuning.FinetuningOptimizerConfig(
        learning_rate=1e-3, warmup_steps=given, warmup_fraction=fraction
    )
    made = group.resolved(73)
    assert made.warmup_steps == expected
    assert not hasattr(made, "warmup_fraction")
    assert dataclasses.replace(made, warmup_steps=given).learning_rate == 1e-3


def test_numbers_are_parted_by_commas():
    assert fields.numbers("x", " 1, 2.5,,3e-5 ") == (1.0, 2.5, 3e-5)
    assert fields.numbers("x", "") == ()
    with pytest.raises(errors.InputError, match="x is '1;2': give numbers"):
        fields.numbers("x", "1;2")


@pytest.mark.parametrize(
    ("sweep", "is_on"),
    [({}, False), ({"seeds": 2}, True), ({"folds": 2}, True)]
    + [({"learning_rates": "1e-3"}, False), ({"learning_rates": "1e-3,1e-4"}, True)],
)
def test_a_sweep_is_on_with_two_members(sweep, is_on):
    assert finetuning.SweepConfig(**sweep).is_on is is_on


def test_the_end_of_the_rate_is_compared_with_the_rates_of_the_sweep():
    config = finetuning.default()
    config.update_from_flattened_dict(
        {
            "init_from": "folder",
            "data.train": "train.tsv",
            "optimizer.learning_rate": 3e-5,
            "optimizer.end_learning_rate": 1e-4,
            "sweep.learning_rates": "1e-3,2e-3",
        }
    )
    settings = finetuning.parse(config)
    assert settings.learning_rates == (1e-3, 2e-3)
    assert settings.optimizer.resolved(10, 2e-3).learning_rate == 2e-3
    config.sweep.learning_rates = "1e-3,5e-5"
    with pytest.raises(errors.InputError, match=r"sweep\.learning_rates \(5e-05\)"):
        finetuning.parse(config)
    config.sweep.learning_rates = ""
    with pytest.raises(errors.InputError, match=r"optimizer\.learning_rate \(3e-05\)"):
        finetuning.parse(config)


def test_shares_of_warm_up_and_decay_fit_into_any_number_of_steps():
    group = finetuning.FinetuningOptimizerConfig(
        learning_rate=1e-3, schedule="wsd", warmup_fraction=0.5, decay_fraction=0.5
    )
    for steps in range(1, 12):
        optimizer.learning_rate(group.resolved(steps), steps)
    with pytest.raises(errors.InputError, match=r"warmup_fraction 0\.6 and"):
        dataclasses.replace(group, warmup_fraction=0.6)
