"""The search by formula alone: chips that nothing is compiled for, of any memory."""

import dataclasses

import pytest
import small_programs

from bert_jax.planning import estimate, fitting, plan_making, program, topology


def _silent(message):
    del message


def _plan(memory_bytes, number=4, **changes):
    chip = dataclasses.replace(small_programs.H100, memory_bytes=float(memory_bytes))
    settings = small_programs.settings(
        **{"mesh__data": -1, "run__batch_size": 128, **changes}
    )
    chips = small_programs.topology_of(chip, number)
    return plan_making.make(settings, chips, _silent)


def _search(plan):
    return fitting.Search(plan, _silent, confirm=True)


def _peak(plan, settings):
    layout = program.lay_out(settings, plan.layout.topology, for_compiling=False)
    return estimate.needs(layout, 24).peak_bytes


def test_the_largest_batch_fits_and_the_next_does_not():
    plan = _plan(10e6)
    found = _search(plan).largest_batch()
    assert found is not None and not found.compiled
    assert found.peak_bytes == _peak(plan, found.settings) <= 10e6
    rows = found.settings.run.batch_size // 4
    assert rows > 8 and rows % 8 == 0
    more = dataclasses.replace(found.settings.run, batch_size=4 * (rows + 8))
    assert _peak(plan, dataclasses.replace(found.settings, run=more)) > 10e6


def test_less_than_a_row_is_none():
    assert _search(_plan(1e5)).largest_batch() is None


def test_more_parts_of_the_batch_come_first():
    plan = _plan(3e6)
    assert not plan.fits
    found = _search(plan).change()
    assert found is not None and found.change == "run.accumulation_steps=2"
    assert found.peak_bytes == _peak(plan, found.settings) <= 3e6


def test_a_state_that_is_too_large_is_cut():
    plan = _plan(5e5, run__batch_size=4)
    assert not plan.fits
    found = _search(plan).change()
    assert found is not None and found.change == "mesh.fsdp=2"


def test_one_chip_recomputes_and_then_computes_less():
    # One row a micro-batch cannot be cut, and one chip shares nothing.
    plan = _plan(1.8e6, 1, run__batch_size=1, model__num_hidden_layers=8)
    found = _search(plan).change()
    assert found is not None and found.change == "run.remat=dots"
    assert _search(_plan(1.0e5, 1, run__batch_size=1)).change() is None


@pytest.mark.parametrize(("factor", "tries"), [(2.0, 2), (0.5, 2), (1.0, 1)])
def test_a_compiled_program_corrects_the_formula(monkeypatch, factor, tries):
    """A compiler that wants twice the formula halves what fits, and is asked again."""
    plan = _plan(10e6)
    asked = []

    def compile_step(layout, length, *, read=True):
        assert length == 24 and not read
        needs = estimate.needs(layout, length)
        asked.append(layout.settings.run.batch_size)
        wanted = factor * needs.temporary_bytes
        if needs.arguments_bytes + wanted > 10e6:
            return program.Compiled(refusal="too large", wanted_bytes=wanted)
        return program.Compiled(needs.arguments_bytes, wanted)

    monkeypatch.setattr(program, "compile_step", compile_step)
    search = _search(plan)
    here = dataclasses.replace(plan.layout.topology, name="cpu")
    search._layout = dataclasses.replace(plan.layout, topology=here)
    search._confirm = True
    monkeypatch.setattr(
        topology, "devices", lambda topology: __import__("jax").devices()[:4]
    )
    found = search.largest_batch()
    assert found is not None and found.compiled
    assert len(asked) == tries and asked[-1] == found.settings.run.batch_size
    assert 0.8 < factor * asked[-1] / asked[0] < 1.2
    assert 0.9e7 < found.peak_bytes <= 1e7
