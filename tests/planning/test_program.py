"""A run's own train step, compiled for CPU devices, and for TPUs in slow tests."""

import functools

import pytest
import small_programs
import tiny_run

from bert_jax.checkpoints import initial_weights, run_folder
from bert_jax.config import pretraining
from bert_jax.foundation import devices
from bert_jax.planning import costs, program, topology
from bert_jax.runs import corpus_store
from bert_jax.runs import pretraining as pretraining_run

HERE = topology.Topology("cpu", devices.CHIPS[0], (), 1, 8)


MODERN = {
    "model__model_type": "modernbert",
    "model__type_vocab_size": 0,
    "data__objective": "full_sentences",
}


def _compiled(unroll, remat="none", modern=False):
    return _compiled_once(unroll, remat, modern)


@functools.cache
def _compiled_once(unroll, remat, modern):
    settings = small_programs.settings(
        **(MODERN if modern else {}),
        mesh__data=-1,
        run__batch_size=64,
        run__unroll=unroll,
        run__remat=remat,
        model__num_hidden_layers=3,
    )
    layout = program.lay_out(settings, HERE, for_compiling=True)
    return layout, program.compile_step(layout, 24)


@pytest.mark.slow
def test_a_loop_over_layers_has_the_flops_of_the_unrolled_program():
    layout, loop = _compiled(1)
    _, unrolled = _compiled(-1)
    assert loop.cost.flops == pytest.approx(unrolled.cost.flops, rel=0.01)
    assert loop.cost.unknown_loops == unrolled.cost.unknown_loops == 0
    # The formula leaves out the pooler and NSP.
    useful = costs.useful_flops(layout, 24)
    assert useful < loop.cost.flops < 1.1 * useful


@pytest.mark.parametrize(
    ("unroll", "modern"),
    [
        (1, False),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(-1, False, marks=pytest.mark.slow),
        pytest.param(-1, True, marks=pytest.mark.slow),
    ],
)
def test_memory_by_formula_is_that_of_the_program_within_a_factor_of_two(
    unroll, modern
):
    layout, compiled = _compiled(unroll, modern=modern)
    formula = costs.by_formula(layout, 24)
    assert 0.5 < compiled.temporary_bytes / formula.temporary_bytes < 2.0
    if not modern:  # its step leaves out unused arguments such as token types
        state = layout.params_bytes + layout.optimizer_bytes
        batch = 8 * 24 * 17 + 8 * 12
        assert compiled.arguments_bytes == pytest.approx(state + batch, rel=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("unroll", [1, -1])
def test_recomputation_is_counted(unroll):
    work = [_compiled(unroll, remat)[1].cost.flops for remat in ("none", "full")]
    assert 1.2 < work[1] / work[0] < 4 / 3


def test_gradients_are_summed_over_the_devices():
    layout, compiled = _compiled(1)
    sums = [x for x in compiled.collectives if (x.kind, x.group) == ("all-reduce", 8)]
    # The tied embedding is summed twice: as embedding and as decoder of the head.
    table = 4 * 256 * 32
    whole = layout.params_bytes + table
    assert sum(x.bytes for x in sums) == pytest.approx(whole, rel=0.001)


@pytest.mark.slow
def test_fsdp_gathers_parameters_once_per_pass_and_no_activations():
    settings = small_programs.settings(
        mesh__data=1, mesh__fsdp=8, run__batch_size=64, model__num_hidden_layers=3
    )
    layout = program.lay_out(settings, HERE, for_compiling=True)
    every = program.compile_step(layout, 24).collectives
    assert {x.kind for x in every} == {"all-reduce", "all-gather"}
    gathered = sum(x.bytes for x in every if x.kind == "all-gather")
    # The kernels in the loop are gathered again by the backward pass.
    again = 3 * (4 * 32 * 32 + 2 * 32 * 64)
    assert 0.9 < gathered / (4 * (layout.num_params + again)) < 1.2


def test_shapes_are_those_of_real_batches(tmp_path):
    """Batches from a store have the keys, types and shapes of the plan."""
    corpus = tiny_run.write_corpus(tmp_path / "text.txt")
    settings = pretraining.parse(tiny_run.config(corpus, mesh__data=-1))
    store = run_folder.store_of(settings, tmp_path)
    resolved = initial_weights.resolve(settings, tmp_path, store)
    corpus_store.ensure(resolved.text, settings.data, store)
    (phase,) = pretraining_run.assemble(resolved, store, store).phases
    layout = program.lay_out(settings, HERE, for_compiling=True)
    kinds = lambda batch: {n: (x.shape, x.dtype) for n, x in batch.items()}  # noqa: E731
    assert kinds(program.batch_shapes(layout, 24)) == kinds(phase.batch_at(0, 8))


@pytest.mark.slow
def test_the_step_is_compiled_for_remote_tpus():
    pytest.importorskip("libtpu")
    remote_chips = topology.parse("v5e:2x2")
    steps = {}
    for unroll in (1, -1):
        settings = small_programs.settings(
            mesh__data=-1,
            run__unroll=unroll,
            run__dtype="bfloat16",
            model__num_hidden_layers=3,
        )
        layout = program.lay_out(settings, remote_chips, for_compiling=True)
        steps[unroll] = program.compile_step(layout, 24)
    assert steps[1].cost.flops == pytest.approx(steps[-1].cost.flops, rel=0.01)
    useful = costs.useful_flops(layout, 24)
    assert useful < steps[1].cost.flops < 1.1 * useful
    assert steps[1].cost.unknown_loops == steps[1].cost.unknown_kernels == 0
    assert steps[1].cost.main_bytes < steps[1].cost.main_bytes
    assert {x.group for x in steps[1].collectives} == {4}
