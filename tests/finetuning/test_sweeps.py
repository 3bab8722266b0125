"""Sweeps: members are their own single runs, folds are left out, the best is kept."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_tasks

from bert_jax import errors, finetune
from bert_jax.exchange import task_folders
from bert_jax.finetuning import assembly, sweeps
from bert_jax.settings import finetuning_configuration
from bert_jax.training import checkpoint, sweep

STEPS = {"run__num_train_steps": 10, "run__eval_every_steps": 5}
# Dropout is on: members have their own.
SWEEP = STEPS | {"sweep__seeds": 2, "sweep__learning_rates": "5e-3,2e-3"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    tiny_tasks.write_classes(folder / "train.tsv", 45, seed=0)
    tiny_tasks.write_classes(folder / "dev.tsv", 30, seed=1)
    return folder


@pytest.fixture(scope="module")
def swept(place):
    finetune.train(tiny_tasks.config(place, **SWEEP), place / "sweep")
    return place / "sweep"


def _scores(workdir):
    tree = json.loads((workdir / sweeps.REPORT).read_text())
    return {
        (m["seed"], m["learning_rate"], m["fold"]): m["accuracy"]
        for m in tree["members"]
    }


def _single(place, workdir, **changes):
    """Returns the best score of a run alone, and the parameters it ends with."""
    config = tiny_tasks.config(place, **STEPS | changes)
    finetune.train(config, workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(x) for x in lines]
    return max(x["eval/accuracy"] for x in found if "eval/accuracy" in x)


def _last(place, workdir, **changes):
    """Returns the parameters in the last checkpoint of a run or a sweep."""
    settings = finetuning_configuration.parse(tiny_tasks.config(place, **changes))
    run = assembly.assemble(settings, workdir)
    shapes = run.shapes
    if settings.sweep.is_on:
        members = len(sweeps.members_of(run))
        stacked = lambda x: jax.ShapeDtypeStruct(  # noqa: E731
            (members, *x.shape), x.dtype, sharding=x.sharding
        )
        shapes = jax.tree.map(stacked, shapes)
    params, _ = checkpoint.restore_params(workdir / "checkpoints", shapes)
    return params, run.shapes


def test_each_member_equals_its_own_run(swept, place, tmp_path):
    every, one = _last(place, swept, **SWEEP)
    scores = _scores(swept)
    assert set(scores) == {(s, r, -1) for s in (0, 1) for r in (5e-3, 2e-3)}
    for number, (seed, rate) in [(0, (0, 5e-3)), (3, (1, 2e-3))]:
        changes = {"run__seed": seed, "optimizer__learning_rate": rate}
        workdir = tmp_path / f"{number}"
        assert _single(place, workdir, **changes) == scores[seed, rate, -1]
        alone, _ = _last(place, workdir, **STEPS | changes)
        member = sweep.member(every, number, one)
        jax.tree_util.tree_map_with_path(_assert_close, member, alone)


def _assert_close(path, one, other):
    """Adam makes steps of what is mere rounding: the key's bias has no gradient."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    atol = 1e-5 if name.endswith("key/bias") else 2e-6
    np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=name)


@pytest.mark.slow
def test_a_member_of_a_fold_equals_the_run_that_leaves_it_out(place, tmp_path):
    changes = STEPS | {"data__dev": ""}
    config = tiny_tasks.config(place, **changes, sweep__folds=3)
    made = finetune.train(config, tmp_path / "sweep")
    scores = _scores(tmp_path / "sweep")
    assert set(scores) == {(0, 5e-3, fold) for fold in range(3)}
    for fold in range(3):
        alone = _single(
            place, tmp_path / f"{fold}", data__dev="", data__folds=3, data__fold=fold
        )
        assert scores[0, 5e-3, fold] == alone
    best = task_folders.read(tmp_path / "sweep")
    assert made.metrics["dev/accuracy"] == max(scores.values())
    assert scores[0, 5e-3, best.settings.data.fold] == max(scores.values())


def test_every_member_has_all_metrics_of_its_best_evaluation(swept):
    members = json.loads((swept / sweeps.REPORT).read_text())["members"]
    assert [m["metrics"]["dev/accuracy"] for m in members] == [
        m["accuracy"] for m in members
    ]
    assert all("dev/matthews" in m["metrics"] for m in members)


def test_the_best_model_has_the_settings_of_its_own_run(swept):
    best = task_folders.read(swept)
    key = (best.settings.run.seed, best.settings.optimizer.learning_rate, -1)
    assert _scores(swept)[key] == max(_scores(swept).values())
    assert best.metrics["accuracy"] == max(_scores(swept).values())
    assert not best.settings.sweep.is_on


@pytest.mark.slow
def test_a_stopped_sweep_resumes(swept, place, tmp_path, monkeypatch):
    def stop(self, step, *rest):
        if step == 10:
            raise errors.Stopped("here")
        return score(self, step, *rest)

    score = sweeps.Sweep.score
    changes = SWEEP | {"run__save_every_steps": 5}
    monkeypatch.setattr(sweeps.Sweep, "score", stop)
    with pytest.raises(errors.Stopped):
        finetune.train(tiny_tasks.config(place, **changes), tmp_path / "run")
    monkeypatch.setattr(sweeps.Sweep, "score", score)
    finetune.train(tiny_tasks.config(place, **changes), tmp_path / "run")
    assert _scores(tmp_path / "run") == _scores(swept)
    one, other = (_last(place, w, **SWEEP)[0] for w in (tmp_path / "run", swept))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_the_table_has_mean_deviation_and_best_of_each_rate(place):
    settings = finetuning_configuration.parse(tiny_tasks.config(place, **SWEEP))
    made = object.__new__(sweeps.Sweep)
    members = [sweeps.Member(s, r, -1) for r in (5e-3, 2e-3) for s in (0, 1)]
    made.members, made.record = members, {"best": [0.5, 0.9, 0.8, 0.8]}
    table = made.table("accuracy").splitlines()
    assert table[0].split()[-4:] == ["accuracy", "deviation", "best", "worst"]
    assert table[1].split() == ["0.005", "2", "0.7000", "0.2828", "0.9000", "0.5000"]
    assert table[2].split() == ["0.002", "2", "0.8000", "0.0000", "0.8000", "0.8000"]
    assert dataclasses.asdict(settings.sweep)["seeds"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run__patience": 2}, "run.patience ends one run"),
        ({"data__folds": 2, "data__dev": ""}, "data.folds is of one run"),
        ({"sweep__learning_rates": "1e-3,fast"}, "give numbers with commas"),
        ({"sweep__folds": 1}, "folds are 2 or more"),
    ],
)
def test_what_a_sweep_cannot_have_is_refused(place, tmp_path, changes, message):
    config = tiny_tasks.config(place, **SWEEP | changes)
    with pytest.raises(errors.InputError, match=message):
        finetune.train(config, tmp_path / "run")
