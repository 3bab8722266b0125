"""Which kernel is taken where: a table of cases, and what each obstacle says."""

import dataclasses
from typing import Any, NamedTuple

import described_chips
import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from bert_jax import errors
from bert_jax.model import attention

CPU = attention.Case(
    platform="cpu",
    dtype="float32",
    length=512,
    head_size=64,
    dropout=0.0,
    packed=False,
)
H100 = dataclasses.replace(CPU, platform="gpu", capability="9.0", dtype="bfloat16")
TPU = dataclasses.replace(CPU, platform="tpu", dtype="bfloat16", packed=True)

# Case, what differs from it, what is asked for -> the kernel, and words of the reason.
CHOICES = [
    (CPU, {}, "auto", "xla", "no fused kernel exists for the CPU"),
    (CPU, {}, "xla", "xla", "run.attention asks for it"),
    (CPU, {}, "splash", "splash", "interpreted, which is slow"),
    (H100, {}, "auto", "cudnn", "fused, for the GPU"),
    (H100, {"capability": "8.0"}, "auto", "cudnn", "fused"),
    (H100, {"length": 37, "head_size": 24}, "auto", "cudnn", "fused"),
    (H100, {}, "cudnn", "cudnn", "asks for it"),
    (H100, {"capability": "7.5"}, "auto", "xla", "8.0 or higher, not gpu 7.5"),
    (H100, {"capability": "gfx942"}, "auto", "xla", "not gpu gfx942"),
    (H100, {"dtype": "float32"}, "auto", "xla", "does not compute in float32"),
    (H100, {"packed": True}, "auto", "xla", "does not separate their segments"),
    (H100, {"window": 64}, "auto", "xla", "no local attention"),
    (H100, {"head_size": 36}, "auto", "xla", "36 wide"),
    (H100, {"head_size": 256}, "auto", "xla", "256 wide"),
    (H100, {"dropout": 0.1}, "auto", "xla", "0.1"),
    (TPU, {}, "auto", "splash", "fused, for the TPU"),
    (TPU, {"window": 64, "length": 1024}, "auto", "splash", "fused"),
    (TPU, {"dtype": "float32"}, "auto", "splash", "fused"),
    (TPU, {"head_size": 128}, "auto", "splash", "fused"),
    (TPU, {"head_size": 32}, "auto", "xla", "32 wide, not 64 or a multiple of 128"),
    (TPU, {"head_size": 192}, "auto", "xla", "192 wide"),
    (TPU, {"length": 320}, "auto", "xla", "320 tokens a row are not a multiple of 128"),
    (TPU, {"dropout": 0.1}, "auto", "xla", "does not drop probabilities"),
    (TPU, {}, "xla", "xla", "asks for it"),
]


@pytest.mark.parametrize(("case", "changes", "wanted", "kernel", "words"), CHOICES)
def test_the_kernel_of_a_case(case, changes, wanted, kernel, words):
    chosen = attention.choose(dataclasses.replace(case, **changes), wanted)
    assert chosen.kernel == kernel
    assert words in chosen.reason


# Case, what differs from it, the kernel that is forced -> what is wrong, the remedy.
REFUSED = [
    (CPU, {}, "cudnn", "needs an NVIDIA GPU", "set run.attention=auto"),
    (TPU, {}, "cudnn", "needs an NVIDIA GPU", "run.attention=auto"),
    (H100, {"dtype": "float32"}, "cudnn", "float32", "run.dtype=bfloat16"),
    (H100, {"packed": True}, "cudnn", "packed", "data.pack=false"),
    (H100, {"window": 64}, "cudnn", "local attention", "run.attention=auto"),
    (H100, {"dropout": 0.1}, "cudnn", "0.1", "attention_probs_dropout_prob=0.0"),
    (H100, {}, "splash", "kernel for TPUs", "run.attention=auto"),
    (CPU, {"length": 100}, "splash", "100 tokens", "data.max_seq_length"),
    (TPU, {"head_size": 48}, "splash", "48 wide", "num_attention_heads"),
    (TPU, {"dropout": 0.2}, "splash", "0.2", "attention_probs_dropout_prob=0.0"),
]


@pytest.mark.parametrize(("case", "changes", "forced", "words", "remedy"), REFUSED)
def test_a_forced_kernel_that_cannot_run_is_named(case, changes, forced, words, remedy):
    with pytest.raises(errors.InputError, match=f"run.attention is {forced}") as raised:
        attention.choose(dataclasses.replace(case, **changes), forced)
    assert words in str(raised.value)
    assert remedy in str(raised.value)


def test_the_device_is_that_of_the_mesh_also_if_it_is_not_here():
    here = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    assert attention.device(here.abstract_mesh) == ("cpu", "")
    counted = AbstractMesh((4,), ("data",), (AxisType.Auto,))
    assert attention.device(counted) == ("cpu", "")


class Old(NamedTuple):
    """A device as JAX before 0.10.1 describes it."""

    device_kind: str
    num_cores: int | None


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_a_described_chip_has_its_platform_in_every_version(platform):
    chip: Any = getattr(described_chips, platform)()
    for described in (chip, Old(chip.device_kind, chip.num_cores)):
        mesh = AbstractMesh(
            (4,), ("data",), (AxisType.Auto,), abstract_device=described
        )
        capability = "9.0" if platform == "gpu" else ""
        assert attention.device(mesh) == (platform, capability)
