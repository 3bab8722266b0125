"""Sweeps: members are their own single runs, folds are left out, the best is kept."""

import json

import jax
import numpy as np
import pytest
import tiny_tasks

from bert_jax import errors, finetune
from bert_jax.checkpoints import native
from bert_jax.config import finetuning
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.runs import sweep
from bert_jax.training import checkpoint
from bert_jax.training import sweep as members_lib

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
    tree = json.loads((workdir / sweep.FILE).read_text())
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
    settings = finetuning.parse(tiny_tasks.config(place, **changes))
    run = finetuning_run.assemble(settings, workdir)
    shapes = run.shapes
    if settings.sweep.is_on:
        members = len(sweep.members_of(settings))
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
    changes = {"run__seed": 1, "optimizer__learning_rate": 2e-3}
    assert _single(place, tmp_path, **changes) == scores[1, 2e-3, -1]
    alone, _ = _last(place, tmp_path, **STEPS | changes)
    member = members_lib.member(every, 3, one)
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
    best = native.read_task(tmp_path / "sweep")
    assert made.metrics["dev/accuracy"] == max(scores.values())
    assert scores[0, 5e-3, best.settings.data.fold] == max(scores.values())


def test_every_member_has_all_metrics_of_its_best_evaluation(swept):
    members = json.loads((swept / sweep.FILE).read_text())["members"]
    assert [m["metrics"]["dev/accuracy"] for m in members] == [
        m["accuracy"] for m in members
    ]
    assert all("dev/matthews" in m["metrics"] for m in members)


def test_the_best_model_has_the_settings_of_its_own_run(swept):
    best = native.read_task(swept)
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

    score = sweep.SweepRun.evaluate
    changes = SWEEP | {"run__save_every_steps": 5}
    monkeypatch.setattr(sweep.SweepRun, "evaluate", stop)
    with pytest.raises(errors.Stopped):
        finetune.train(tiny_tasks.config(place, **changes), tmp_path / "run")
    monkeypatch.setattr(sweep.SweepRun, "evaluate", score)
    finetune.train(tiny_tasks.config(place, **changes), tmp_path / "run")
    assert _scores(tmp_path / "run") == _scores(swept)
    one, other = (_last(place, w, **SWEEP)[0] for w in (tmp_path / "run", swept))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def _poison(monkeypatch, steps):
    """Puts NaN into the batches of members, as {member: steps counted from 1}."""

    def init(self, *arguments):
        begin(self, *arguments)
        for number, bad in steps.items():
            rows = self.rows[number]
            object.__setattr__(rows, "batch_at", _bad(rows.batch_at, bad))

    begin = sweep.SweepRun.__init__
    monkeypatch.setattr(sweep.SweepRun, "__init__", init)


def _bad(clean, steps):
    def batch_at(step):
        batch = clean(step)
        if step + 1 in steps:
            batch["weights"] = np.full_like(batch["weights"], np.nan)
        return batch

    return batch_at


def _not_finite(self, number, params):
    raise errors.NotFiniteError("what it says is nan")


def _events(workdir):
    found = map(json.loads, (workdir / "events.jsonl").read_text().splitlines())
    return [(e["step"], e["event"], e["member"]) for e in found]


def test_a_member_that_diverges_is_out_and_the_others_go_on(
    swept, place, tmp_path, monkeypatch, capsys
):
    """Member 0 is best at step 5 and bad from step 7 on."""

    def scores(self, number, params):
        made = score(self, number, params)
        return made | ({"accuracy": 1.5} if number == 0 else {})

    score = sweep.SweepRun._score_member
    monkeypatch.setattr(sweep.SweepRun, "_score_member", scores)
    _poison(monkeypatch, {0: range(7, 11), 3: [2]})
    config = tiny_tasks.config(place, **SWEEP, run__max_bad_steps=1)
    made = finetune.train(config, tmp_path)
    assert _events(tmp_path) == [
        (2, "not_finite", "seed 1, rate 0.002"),
        (7, "not_finite", "seed 0, rate 0.005"),
        (8, "not_finite", "seed 0, rate 0.005"),
        (8, "diverged", "seed 0, rate 0.005"),
    ]
    event = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[0])
    assert event["reason"].startswith("the array weights of the batch has")
    assert len(event["examples"]) == 8
    tree = json.loads((tmp_path / sweep.FILE).read_text())
    assert [(m["bad_steps"], m["diverged"]) for m in tree["members"]] == [
        *((2, 8), (0, None), (0, None), (1, None))
    ]
    assert tree["best"] != "seed 0, rate 0.005" and tree["step"] == 10
    best = native.read_task(tmp_path).settings
    assert (best.run.seed, best.optimizer.learning_rate) != (0, 5e-3)
    assert made.metrics["dev/accuracy"] <= 1
    assert "diverged: seed 0, rate 0.005, at step 8 (2 bad" in capsys.readouterr().out
    untouched = [(1, 5e-3, -1), (0, 2e-3, -1)]
    assert all(_scores(tmp_path)[m] == _scores(swept)[m] for m in untouched)
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    losses = [x["train/loss"] for x in lines if "train/loss" in x]
    assert len(losses) == 2 and None not in losses


def test_a_sweep_without_a_member_left_ends(place, tmp_path, monkeypatch):
    _poison(monkeypatch, {0: [3, 4], 1: range(7, 11)})
    config = tiny_tasks.config(place, **STEPS, sweep__seeds=2, run__save_every_steps=5)
    with pytest.raises(errors.NotFiniteError, match="step 7 of seed 1, rate 0.005"):
        finetune.train(config, tmp_path)
    assert [step for step, *_ in _events(tmp_path)] == [3, 3, 7, 7]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["5"]


def test_who_says_what_is_not_finite_is_out(place, tmp_path, monkeypatch):
    def scores(self, number, params):
        if number == 0:
            raise errors.NotFiniteError("what it says is nan")
        return score(self, number, params)

    score = sweep.SweepRun._score_member
    monkeypatch.setattr(sweep.SweepRun, "_score_member", scores)
    config = tiny_tasks.config(place, **STEPS, sweep__seeds=2)
    finetune.train(config, tmp_path)
    assert _events(tmp_path) == [(5, "diverged", "seed 0, rate 0.005")]
    members = json.loads((tmp_path / sweep.FILE).read_text())["members"]
    assert [m["diverged"] for m in members] == [5, None]
    config = tiny_tasks.config(place, **STEPS, sweep__learning_rates="1e-3,2e-3")
    monkeypatch.setattr(sweep.SweepRun, "_score_member", _not_finite)
    with pytest.raises(errors.NotFiniteError, match="after step 5: what it says"):
        finetune.train(config, tmp_path / "none")


@pytest.mark.slow
def test_bad_steps_before_a_stop_are_counted_after_it(place, tmp_path, monkeypatch):
    """The count is saved at step 5; the second one is at step 7. Member 2 was out."""

    def stop(self, step, *rest):
        if step == 10:
            raise errors.Stopped("here")
        return score(self, step, *rest)

    _poison(monkeypatch, {1: [3, 7], 2: [1, 2]})
    changes = SWEEP | {"run__save_every_steps": 5, "run__max_bad_steps": 1}
    config = tiny_tasks.config(place, **changes)
    finetune.train(config, tmp_path / "whole")
    score = sweep.SweepRun.evaluate
    monkeypatch.setattr(sweep.SweepRun, "evaluate", stop)
    with pytest.raises(errors.Stopped):
        finetune.train(config, tmp_path / "run")
    monkeypatch.setattr(sweep.SweepRun, "evaluate", score)
    finetune.train(config, tmp_path / "run")
    for name in ("events.jsonl", sweep.FILE):
        one, other = (tmp_path / x / name for x in ("run", "whole"))
        assert one.read_bytes() == other.read_bytes()
    assert [x for x in _events(tmp_path / "run") if x[1] == "diverged"] == [
        (2, "diverged", "seed 0, rate 0.002"),
        (7, "diverged", "seed 1, rate 0.005"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run__patience": 2}, "run.patience"),
        ({"data__folds": 2, "data__dev": ""}, "data.folds"),
        ({"sweep__learning_rates": "1e-3,fast"}, "give numbers with commas"),
        ({"sweep__folds": 1}, "sweep.folds is 1"),
    ],
)
def test_what_a_sweep_cannot_have_is_refused(place, tmp_path, changes, message):
    config = tiny_tasks.config(place, **SWEEP | changes)
    with pytest.raises(errors.InputError, match=message):
        finetune.train(config, tmp_path / "run")
