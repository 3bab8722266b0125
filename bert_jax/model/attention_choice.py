"""Which kernel computes attention: a pure function of where and what.

Each fused kernel has its obstacles, and each obstacle its remedy. `auto` takes the
fused kernel of the platform if nothing stands in its way, and `xla` otherwise; a kernel
that is forced and cannot run is an error.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from bert_jax import errors
from bert_jax.model import attention_kernels

AUTO, XLA, CUDNN, SPLASH = "auto", "xla", "cudnn", "splash"
KERNELS = (AUTO, XLA, CUDNN, SPLASH)

_FUSED = {"gpu": CUDNN, "tpu": SPLASH}
_AMPERE = 8.0  # compute capability of the first GPUs that cuDNN fuses attention for
_WIDEST_OF_CUDNN = 128


@dataclasses.dataclass(frozen=True)
class Case:
    """What a choice of kernel depends on.

    Attributes:
      platform: `cpu`, `gpu` or `tpu`.
      capability: of a GPU: `9.0` of an H100, or what another maker calls it.
      dtype: of query, key and value.
      length: L.
      head_size: H.
      dropout: share of the attention probabilities that is dropped.
      packed: whether a row may hold several segments.
      window: half the width of local attention, or None.
    """

    platform: str
    dtype: str
    length: int
    head_size: int
    dropout: float
    packed: bool
    window: int | None = None
    capability: str = ""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A kernel (never `auto`), and why it is this one."""

    kernel: str
    reason: str


def choose(case: Case, wanted: str) -> Choice:
    """Returns the kernel for a case.

    Raises:
      InputError: `wanted` is not `auto` and cannot run.
    """
    if wanted == AUTO:
        return _best(case)
    for what, remedy in obstacles(wanted, case):
        raise errors.InputError(
            f"run.attention is {wanted}, which cannot run here: {what}. {remedy}, or "
            "set run.attention=auto"
        )
    interpreted = wanted == SPLASH and case.platform == "cpu"
    slowly = ", interpreted, which is slow" if interpreted else ""
    return Choice(wanted, f"run.attention asks for it{slowly}")


def _best(case: Case) -> Choice:
    if case.platform not in _FUSED:
        return Choice(XLA, f"there is no fused kernel for the {case.platform.upper()}")
    fused = _FUSED[case.platform]
    for what, _ in obstacles(fused, case):
        return Choice(XLA, f"{fused} cannot: {what}")
    return Choice(fused, f"fused, for the {case.platform.upper()}")


def obstacles(kernel: str, case: Case) -> Iterator[tuple[str, str]]:
    """Yields what keeps a kernel from running a case, and what could be done."""
    if kernel == CUDNN:
        yield from _of_cudnn(case)
    elif kernel == SPLASH:
        yield from _of_splash(case)


def _of_cudnn(case: Case) -> Iterator[tuple[str, str]]:
    device = f"{case.platform} {case.capability}".strip()
    if case.platform != "gpu" or not _is_ampere(case.capability):
        wanted = f"compute capability {_AMPERE} or higher"
        yield f"it needs an NVIDIA GPU of {wanted}, not {device}", "Use one"
    if case.dtype not in ("bfloat16", "float16"):
        yield f"it does not compute in {case.dtype}", "Set run.dtype=bfloat16"
    if case.packed:
        what = "rows are packed, and it does not keep their segments apart"
        yield what, "Set data.pack=false"
    if case.window is not None:
        yield "it has no local attention to both sides", "Make all layers global"
    if case.head_size % 8 or case.head_size > _WIDEST_OF_CUDNN:
        what = f"the heads are {case.head_size} wide, not a multiple of 8 up to"
        yield f"{what} {_WIDEST_OF_CUDNN}", "Change model.num_attention_heads"
    yield from _of_dropout(case)


def _of_splash(case: Case) -> Iterator[tuple[str, str]]:
    if case.platform not in ("tpu", "cpu"):
        yield f"it is a kernel for TPUs, not for the {case.platform}", "Use one"
    lanes = attention_kernels.SPLASH_LANES
    if case.length % lanes:
        what = f"{case.length} tokens a row are not a multiple of {lanes}"
        yield what, "Change data.max_seq_length"
    if case.head_size != lanes // 2 and case.head_size % lanes:
        what = f"the heads are {case.head_size} wide, not {lanes // 2} or a multiple of"
        yield f"{what} {lanes}", "Change model.num_attention_heads"
    yield from _of_dropout(case)


def _of_dropout(case: Case) -> Iterator[tuple[str, str]]:
    if case.dropout:
        what = f"it does not drop attention probabilities (here {case.dropout:g} are)"
        yield what, "Set model.attention_probs_dropout_prob=0.0"


def _is_ampere(capability: str) -> bool:
    """Says whether a GPU is NVIDIA's, and new enough; other makers' have names."""
    try:
        return float(capability) >= _AMPERE
    except ValueError:
        return False


def device(mesh: jax.sharding.AbstractMesh) -> tuple[str, str]:
    """Returns platform and capability of the devices of a mesh, or of those here.

    The mesh may be of devices that are not here, when a program is compiled for them.
    """
    of_mesh = mesh.abstract_device
    platform = jax.default_backend() if of_mesh is None else _platform(of_mesh)
    if platform != "gpu":
        return platform, ""
    return platform, str(getattr(jax.local_devices()[0], "compute_capability", ""))


def _platform(device: Any) -> str:
    """Returns the platform of an abstract device, which JAX names since 0.10.1."""
    if hasattr(device, "platform"):
        return device.platform
    kind = device.device_kind
    return "cpu" if kind == "cpu" else "tpu" if kind.startswith("TPU") else "gpu"
