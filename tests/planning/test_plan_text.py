import re

import small_programs

from bert_jax.planning import fitting, plan_making, plan_text, program, topology


def _silent(message):
    del message


def _plan(name="h100:8", **changes):
    settings = small_programs.settings(**{"mesh__data": -1, **changes})
    return plan_making.make(settings, topology.parse(name), _silent)


def _report(plan):
    search = fitting.Search(plan, _silent, confirm=False)
    return plan_text.report(plan, search.largest_batch(), None)


def test_a_report_says_what_it_is_made_of_and_ends_with_the_verdict():
    text = _report(_plan())
    assert "8 x h100 (h100:8), mesh data=8 x fsdp=1 x tensor=1" in text
    assert "formulas and the table of chips: nothing compiles for h100 here" in text
    assert "28,674 parameters (vocabulary padded), float32" in text
    assert re.search(r"largest batch that fits: [\d,]+ rows a chip .*by formula", text)
    assert re.search(r"all-reduce +8 +1 ", text)
    last = text.splitlines()[-2:]
    assert last[0] == "fits: yes"
    assert last[1] in ("bound by: memory", "bound by: communication")


def test_both_phases_of_a_run_are_added_up():
    plan = _plan(
        data__first_seq_length=12, data__first_steps_share=0.75, run__num_train_steps=40
    )
    assert [(x.length, x.steps) for x in plan.phases] == [(12, 30), (24, 10)]
    assert plan.tokens == 8 * (12 * 30 + 24 * 10)
    seconds = sum(x.steps * x.prediction.seconds for x in plan.phases)
    assert plan.hours == seconds / 3600
    assert plan.chip_hours == 8 * seconds / 3600
    assert plan.dollars == 11.06 * plan.chip_hours
    header = next(x for x in _report(plan).splitlines() if "tokens in a row" in x)
    assert header.split()[-2:] == ["12", "24"]


def test_epochs_need_a_store():
    plan = _plan(run__num_train_steps=-1, run__num_train_epochs=3.0)
    assert plan.hours is None and plan.dollars is None
    assert "whole run: unknown, for epochs of a store that is not read" in _report(plan)


def test_what_the_compiler_refuses_does_not_fit(monkeypatch):
    plan = _plan()
    (phase,) = plan.phases
    refused = program.Compiled(refusal="RESOURCE_EXHAUSTED: 18.5G of 15.75G")
    phase = plan_making.dataclasses.replace(phase, compiled=refused)
    plan = plan_making.Plan(plan.layout, (phase,))
    assert not plan.fits
    found = fitting.Found("run.remat=full", plan.layout.settings, 2.0**30, True)
    lines = plan_text.report(plan, None, found).splitlines()
    assert (
        "to make it fit: --config.run.remat=full (1.00 GiB a chip, compiled)" in lines
    )
    assert "the compiler at 24 tokens: RESOURCE_EXHAUSTED: 18.5G of 15.75G" in lines
    assert "what does not compile is shown by formula" in lines
    assert lines[-2] == "fits: no"
    lines = plan_text.report(plan, None, None).splitlines()
    assert any("no change of one setting makes it fit" in line for line in lines)


def test_a_comparison_has_a_line_a_plan():
    rows = [("given", _plan()), ("a100:4", _plan("a100:4"))]
    lines = plan_text.comparison(rows).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("given") and lines[2].startswith("a100:4")
    assert lines[0].split()[-3:] == ["fits", "bound", "by"]
    assert lines[2].split()[1] == "4" and lines[2].split()[-2] == "yes"
