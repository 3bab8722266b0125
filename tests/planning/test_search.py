"""The search by formula, for chips of any memory; and variants of a plan."""

import dataclasses
from pathlib import Path

import pytest
import small_programs
import tiny_run

from bert_jax import errors
from bert_jax.planning import costs, program, search, topology


def _silent(message):
    del message


def _plan(memory_bytes, number=4, **changes):
    chip = dataclasses.replace(small_programs.H100, memory_bytes=float(memory_bytes))
    settings = small_programs.settings(
        **{"mesh__data": -1, "run__batch_size": 128, **changes}
    )
    chips = small_programs.topology_of(chip, number)
    return costs.plan(settings, chips, _silent)


def _search(plan):
    return search.SettingsSearch(plan, _silent, confirm=True)


def _peak(plan, settings):
    layout = program.lay_out(settings, plan.layout.topology, for_compiling=False)
    return costs.by_formula(layout, 24).peak_bytes


def test_the_largest_batch_fits_and_the_next_does_not():
    plan = _plan(10e6)
    found = _search(plan).largest_batch()
    assert found is not None and not found.compiled
    assert found.peak_bytes == _peak(plan, found.settings) <= 10e6
    rows = found.settings.run.batch_size // 4
    assert rows > 8 and rows % 8 == 0
    more = dataclasses.replace(found.settings.run, batch_size=4 * (rows + 8))
    assert _peak(plan, dataclasses.replace(found.settings, run=more)) > 10e6


def test_none_if_not_even_one_row_fits():
    assert _search(_plan(1e5)).largest_batch() is None


def test_more_micro_batches_come_first():
    plan = _plan(3e6)
    assert not plan.fits
    found = _search(plan).change()
    assert found is not None and found.change == "run.accumulation_steps=2"
    assert found.peak_bytes == _peak(plan, found.settings) <= 3e6


def test_a_state_that_is_too_large_is_sharded():
    plan = _plan(5e5, run__batch_size=4)
    assert not plan.fits
    found = _search(plan).change()
    assert found is not None and found.change == "mesh.fsdp=2"


def test_one_chip_recomputes_and_then_takes_a_smaller_batch():
    # One row per micro-batch cannot be split, and one chip cannot shard.
    plan = _plan(1.8e6, 1, run__batch_size=1, model__num_hidden_layers=8)
    found = _search(plan).change()
    assert found is not None and found.change == "run.remat=dots"
    assert _search(_plan(1.0e5, 1, run__batch_size=1)).change() is None


@pytest.mark.parametrize(("factor", "tries"), [(2.0, 2), (0.5, 2), (1.0, 1)])
def test_a_compiled_program_corrects_the_formula(monkeypatch, factor, tries):
    """Twice the memory of the formula halves what fits; another step is compiled."""
    plan = _plan(10e6)
    batches = []

    def compile_step(layout, length, *, read=True):
        assert length == 24 and not read
        cost = costs.by_formula(layout, length)
        batches.append(layout.settings.run.batch_size)
        needed = factor * cost.temporary_bytes
        if cost.arguments_bytes + needed > 10e6:
            return program.CompiledStep(refusal="too large", requested_bytes=needed)
        return program.CompiledStep(cost.arguments_bytes, needed)

    monkeypatch.setattr(program, "compile_step", compile_step)
    settings_search = _search(plan)
    here = dataclasses.replace(plan.layout.topology, name="cpu")
    settings_search._layout = dataclasses.replace(plan.layout, topology=here)
    settings_search._confirm = True
    monkeypatch.setattr(
        topology, "devices", lambda topology: __import__("jax").devices()[:4]
    )
    found = settings_search.largest_batch()
    assert found is not None and found.compiled
    assert len(batches) == tries and batches[-1] == found.settings.run.batch_size
    assert 0.8 < factor * batches[-1] / batches[0] < 1.2
    assert 0.9e7 < found.peak_bytes <= 1e7


TREE = tiny_run.config(Path("unread")).to_dict()


def test_a_variant_is_settings_or_a_topology_or_both():
    tree, chips = search.variant(TREE, "h100", "mesh.fsdp=2; run.remat=dots")
    assert (tree["mesh"]["fsdp"], tree["run"]["remat"], chips) == (2, "dots", "h100")
    assert TREE["mesh"]["fsdp"] == 1
    tree, chips = search.variant(TREE, "h100", "v5e:4x4;run.batch_size=64")
    assert (tree["run"]["batch_size"], chips) == (64, "v5e:4x4")
    tree, chips = search.variant(TREE, "h100", "a100:8")
    assert (tree, chips) == (TREE, "a100:8")


def test_values_have_the_type_of_the_key():
    variant = "data.pack=true;optimizer.learning_rate=1;model.num_hidden_layers=3"
    tree, _ = search.variant(TREE, "h100", variant)
    assert tree["data"]["pack"] is True
    assert tree["optimizer"]["learning_rate"] == 1
    assert tree["model"]["num_hidden_layers"] == 3


@pytest.mark.parametrize(
    ("variant", "part"),
    [
        ("run.remta=dots", "run.remat?"),
        ("run=3", "key run."),
        ("run.batch_size=many", "run.batch_size is "),
        ("run.batch_size=true", "run.batch_size is "),
        ("run.batch_size=2.5", "run.batch_size is 2.5"),
        ("data.pack=1", "data.pack is 1"),
    ],
)
def test_an_invalid_variant_is_named(variant, part):
    with pytest.raises(errors.InputError) as caught:
        search.variant(TREE, "h100", variant)
    assert part in str(caught.value)
