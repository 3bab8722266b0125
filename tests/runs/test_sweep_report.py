"""The table and sweep.json, by members whose scores one can add up."""

import dataclasses
import json

from bert_jax.runs import sweep
from bert_jax.training import guards

BEST = [0.5, 0.9, 0.8, 0.8]


def report(metric="accuracy", best=BEST, **known):
    members = [sweep.Member(s, r, -1) for r in (5e-3, 2e-3) for s in (0, 1)]
    record = {"best": best, "metrics": [{}] * 4, "member": 2, "step": 10}
    return sweep.SweepReport(metric, members, record, guards.LoopState(**known))


def cells(made):
    return [line.split() for line in made.table().splitlines()]


def test_the_table_has_mean_deviation_and_best_of_each_rate():
    table = cells(report())
    assert table[0][-4:] == ["accuracy", "deviation", "best", "worst"]
    assert table[1] == ["0.005", "2", "0.7000", "0.2828", "0.9000", "0.5000"]
    assert table[2] == ["0.002", "2", "0.8000", "0.0000", "0.8000", "0.8000"]
    assert cells(report("rmse"))[1][-2:] == ["0.5000", "0.9000"]
    shown = dataclasses.replace(report("f1"), shown='f1 (of "b")')
    assert shown.table().splitlines()[0].split()[3:7] == ["mean", "f1", "(of", '"b")']
    assert report().text().splitlines()[3:] == ["best: seed 0, rate 0.002"]


def test_who_diverged_is_no_part_of_the_means_and_is_named():
    made = report(
        best=[0.5, 0.9, 0.8, None],
        bad_steps={"seed 1, rate 0.005": 3, "seed 0, rate 0.002": 1},
        diverged={"seed 1, rate 0.005": 7, "seed 1, rate 0.002": 4},
    )
    assert cells(made)[1] == ["0.005", "1", "0.5000", "0.0000", "0.5000", "0.5000"]
    assert cells(made)[2][:3] == ["0.002", "1", "0.8000"]
    assert made.text().splitlines()[3:] == [
        "diverged: seed 1, rate 0.005, at step 7 (3 bad steps)",
        "diverged: seed 1, rate 0.002, at step 4 (0 bad steps)",
        "best: seed 0, rate 0.002",
    ]


def test_a_rate_without_any_run_has_no_numbers():
    gone = {f"seed {seed}, rate 0.005": 1 for seed in (0, 1)}
    assert cells(report(diverged=gone))[1] == ["0.005", "0", *"----"]


def test_the_file_has_counts_and_the_step_of_each(tmp_path):
    name = "seed 1, rate 0.005"
    report(bad_steps={name: 3}, diverged={name: 7}).write(tmp_path)
    tree = json.loads((tmp_path / "sweep.json").read_text())
    assert (tree["best"], tree["step"]) == ("seed 0, rate 0.002", 10)
    told = [(m["accuracy"], m["bad_steps"], m["diverged"]) for m in tree["members"]]
    assert told == [(0.5, 0, None), (0.9, 3, 7), (0.8, 0, None), (0.8, 0, None)]
    ended = [(m["seed"], m["accuracy"]) for m in sweep.read_ended(tmp_path)]
    assert ended == [(0, 0.5), (0, 0.8), (1, 0.8)]


def test_rates_that_differ_have_names_that_differ():
    names = {sweep.Member(0, rate, -1).name for rate in (1e-5, 1.0000001e-5)}
    assert len(names) == 2
