import dataclasses
import re

import pytest
import small_programs

from bert_jax.planning import costs, program, report, search, topology


@pytest.fixture(autouse=True)
def by_formula(monkeypatch):
    """Plans for GPUs by formula, also where they could be compiled."""
    monkeypatch.setattr(topology, "has_cuda_compiler", lambda: False)


def _silent(message):
    del message


def _plan(name="h100:8", **changes):
    settings = small_programs.settings(**{"mesh__data": -1, **changes})
    return costs.plan(settings, topology.parse(name), _silent)


def _report(plan):
    largest = search.SettingsSearch(plan, _silent, confirm=False).largest_batch()
    return report.report(plan, largest, None)


def test_a_report_names_model_chips_and_batch_and_ends_with_the_verdict():
    text = _report(_plan())
    assert "8 x h100 (h100:8), mesh data=8 x fsdp=1 x tensor=1" in text
    assert re.search(r"28,674 parameters .*float32", text)
    assert re.search(r"largest batch that fits: [\d,]+ .*by formula", text)
    assert re.search(r"all-reduce +8 +1 ", text)
    last = text.splitlines()[-2:]
    assert last[0] == "fits: yes"
    assert last[1] in ("bound by: memory", "bound by: communication")


def test_the_totals_of_a_run_are_over_both_phases():
    plan = _plan(
        data__first_seq_length=12, data__first_steps_share=0.75, run__num_train_steps=40
    )
    assert [(x.length, x.steps) for x in plan.phases] == [(12, 30), (24, 10)]
    assert plan.tokens == 8 * (12 * 30 + 24 * 10)
    seconds = sum(x.steps * x.time.seconds for x in plan.phases)
    assert plan.hours == seconds / 3600
    assert plan.chip_hours == 8 * seconds / 3600
    assert plan.dollars == 11.06 * plan.chip_hours
    header = next(x for x in _report(plan).splitlines() if "sequence length" in x)
    assert header.split()[-2:] == ["12", "24"]


def test_the_length_of_a_run_in_epochs_is_unknown():
    plan = _plan(run__num_train_steps=-1, run__num_train_epochs=3.0)
    assert plan.hours is None and plan.dollars is None
    assert "whole run: unknown" in _report(plan)


def test_a_program_that_the_compiler_refuses_does_not_fit():
    plan = _plan()
    (phase,) = plan.phases
    refused = program.CompiledStep(refusal="RESOURCE_EXHAUSTED: 18.5G of 15.75G")
    phase = dataclasses.replace(phase, compiled=refused)
    plan = costs.RunPlan(plan.layout, (phase,))
    assert not plan.fits
    found = search.FittingSettings(
        "run.remat=full", plan.layout.settings, 2.0**30, True
    )
    lines = report.report(plan, None, found).splitlines()
    (advice,) = [line for line in lines if line.startswith("to make it fit: ")]
    assert advice.startswith("to make it fit: --config.run.remat=full (1.00 GiB")
    (message,) = [line for line in lines if "RESOURCE_EXHAUSTED" in line]
    assert "24" in message and message.endswith("18.5G of 15.75G")
    assert lines[-2] == "fits: no"
    assert "to make it fit: " not in report.report(plan, None, None)


def test_a_comparison_has_a_line_per_plan():
    rows = [("given", _plan()), ("a100:4", _plan("a100:4"))]
    lines = report.comparison(rows).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("given") and lines[2].startswith("a100:4")
    assert lines[0].split()[-3:] == ["fits", "bound", "by"]
    assert lines[2].split()[1] == "4" and lines[2].split()[-2] == "yes"
