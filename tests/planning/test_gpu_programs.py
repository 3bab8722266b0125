"""The train step as a program for NVIDIA GPUs, on a machine without one."""

import dataclasses
import re

import jax
import pytest
import small_programs

from bert_jax import errors
from bert_jax.foundation import devices
from bert_jax.model import attention
from bert_jax.planning import costs, program, report, search, topology

HERE = topology.Topology("cpu", devices.CHIPS[0], (), 1, 8)
WITH_CUDNN = {
    "mesh__data": -1,
    "run__dtype": "bfloat16",
    "model__attention_probs_dropout_prob": 0.0,
}


def _calls_of_cudnn(text):
    return sorted(re.findall(r"__cudnn\$(\w+)", text))


@pytest.mark.parametrize(
    ("device", "calls"),
    [
        (("gpu", "9.0"), ["fmhaSoftmax", "fmhaSoftmaxBackward"]),
        (("gpu", "7.5"), []),
        (("cpu", ""), []),
    ],
)
def test_the_train_step_for_cuda_has_the_attention_of_cudnn(monkeypatch, device, calls):
    monkeypatch.setattr(attention, "device", lambda mesh: device)
    layout = program.lay_out(
        small_programs.settings(**WITH_CUDNN), HERE, for_compiling=True
    )
    lowered = program.lower(layout, 24, ("cuda",))
    assert _calls_of_cudnn(lowered.as_text()) == calls


def test_without_the_compiler_of_cuda_the_extra_is_named(monkeypatch):
    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("No PTX compilation provider is available")

    monkeypatch.setattr(program, "lower", lambda layout, length: Lowered())
    layout = program.lay_out(
        small_programs.settings(**WITH_CUDNN),
        topology.parse("h100:8"),
        for_compiling=False,
    )
    with pytest.raises(errors.InputError, match=r"bert_jax\[gpu-plan\]"):
        program.compile_step(layout, 24)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mesh", "kinds"),
    [
        ("h100:8", {"mesh__data": -1}, {"all-reduce"}),
        (
            "a100:2x2",
            {"mesh__data": 1, "mesh__fsdp": -1},
            {"all-reduce", "all-gather", "reduce-scatter"},
        ),
    ],
)
def test_the_step_is_compiled_for_gpus(name, mesh, kinds):
    if not topology.has_cuda_compiler():
        pytest.skip("the extra gpu-plan is not installed")
    chips_of_plan = topology.parse(name)
    settings = small_programs.settings(
        **{**WITH_CUDNN, **mesh}, model__num_hidden_layers=3, run__batch_size=64
    )
    logged = []
    plan = costs.plan(settings, chips_of_plan, logged.append)
    (phase,) = plan.phases
    assert costs.attention_kernel(plan.layout, 24).kernel == attention.CUDNN
    assert phase.compiled is not None and logged[0].startswith("compiling")
    cost = phase.compiled.cost
    assert cost.unknown_loops == cost.unknown_kernels == 0
    # The formula counts neither the pooler nor the scores that cuDNN computes again.
    useful = costs.useful_flops(plan.layout, 24)
    assert useful < cost.flops < 1.2 * useful
    assert cost.main_bytes > phase.compiled.arguments_bytes > plan.layout.params_bytes
    groups = {x.group for x in phase.cost.collectives}
    assert groups == {chips_of_plan.num_chips}
    assert {x.kind for x in phase.cost.collectives} == kinds
    largest = search.SettingsSearch(plan, logged.append, confirm=False).largest_batch()
    text = report.report(plan, largest, None)
    assert "compiled for these chips" in text
    assert text.count("missing without a GPU: ") == 2
    assert "autotuning" in text and "cuDNN" in text


@pytest.mark.slow
def test_a_program_that_does_not_fit_is_refused_by_comparing_bytes():
    """The compiler itself refuses nothing."""
    if not topology.has_cuda_compiler():
        pytest.skip("the extra gpu-plan is not installed")
    small = dataclasses.replace(small_programs.H100, memory_bytes=1e6)
    gpu = topology.Topology("h100:1", small, (1, 1), 1, 1)
    plan = costs.plan(small_programs.settings(**WITH_CUDNN), gpu, print)
    assert not plan.fits and not plan.largest.refusal
