"""Scaled dot-product attention inside segments (Vaswani et al. 2017, section 3.2.1).

A position attends only to positions of its own segment. Padding is segment 0 and sees
only padding, so that no row is ever without a key; the values computed for it differ
between kernels, and no other position sees them.

`attend` first chooses a kernel, by the device and the arguments: `auto` takes the fused
kernel of the platform where it has no obstacle, and `xla` otherwise; requesting a
kernel that cannot run is an error. Only `by_einsum` drops probabilities. `over_mesh`
runs the fused ones on each device's own rows and heads, since XLA cannot partition a
kernel that it did not generate.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import spmd
from jaxtyping import Array, Bool, Float, Int

from bert_jax import errors
from bert_jax.foundation import devices
from bert_jax.model import layers

Heads = Float[Array, "B L N H"]
Rows = Int[Array, "B L"]
# kernel(query, key, value, segment_ids) -> the mixed values.
Kernel = Callable[[Heads, Heads, Heads, Rows], Heads]

SPLASH_LANES = 128  # splash supports lengths that are multiples of this
_SPLASH_BLOCK = 512  # most positions of a row in fast memory at once

AUTO, XLA, CUDNN, SPLASH = "auto", "xla", "cudnn", "splash"
KERNELS = (AUTO, XLA, CUDNN, SPLASH)

_FUSED = {"gpu": CUDNN, "tpu": SPLASH}
_AMPERE = 8.0  # compute capability of the first GPUs that cuDNN fuses attention for
_WIDEST_OF_CUDNN = 128


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
    """Options of attention, besides its arrays.

    Attributes:
      kernel: one of `KERNELS`; `auto` selects the fastest that can run.
      dropout_rate: fraction of the attention probabilities to drop.
      packed: whether a row may hold several segments; without them, it is one segment
        with padding at its right. True is right for every row.
      window: half the width of local attention, |i - j| <= window; None is global.
    """

    kernel: str
    dropout_rate: float = 0.0
    packed: bool = True
    window: int | None = None


def attend(
    query: Heads,
    key: Heads,
    value: Heads,
    segment_ids: Rows,
    options: AttentionOptions,
    *,
    dropout_key: jax.Array | None,
) -> Heads:
    """Mixes the values of each segment by softmax(q k / sqrt(H)); all are [B, L, N, H].

    The softmax runs in float32 whatever the dtype of the arguments.

    Args:
      dropout_key: None computes without dropout.

    Raises:
      InputError: the kernel is not `auto`, and cannot run here.
    """
    platform, capability = device(jax.sharding.get_abstract_mesh())
    window = options.window
    case = Case(
        platform=platform,
        capability=capability,
        dtype=query.dtype.name,
        length=query.shape[1],
        head_size=query.shape[3],
        dropout=0.0 if dropout_key is None else options.dropout_rate,
        packed=options.packed,
        window=window,
    )
    chosen = choose(case, options.kernel).kernel
    arrays = (query, key, value, segment_ids)
    if chosen == CUDNN:
        return over_mesh(by_cudnn)(*arrays)
    if chosen == SPLASH:
        splash = functools.partial(
            by_splash, window=window, interpret=platform != "tpu"
        )
        return over_mesh(splash)(*arrays)
    return by_einsum(
        *arrays,
        window=window,
        dropout_rate=options.dropout_rate,
        dropout_key=dropout_key,
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """What a choice of kernel depends on; the options as in `AttentionOptions`.

    Attributes:
      platform: `cpu`, `gpu` or `tpu`.
      dtype: of query, key and value.
      capability: of a GPU: `9.0` of an H100, or another vendor's name.
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
class KernelChoice:
    """A kernel (never `auto`), and the reason for the choice."""

    kernel: str
    reason: str


def choose(case: Case, wanted: str) -> KernelChoice:
    """Returns the kernel for a case; raises InputError if the wanted one cannot run."""
    if wanted == AUTO:
        return _best(case)
    for what, advice in obstacles(wanted, case):
        raise errors.InputError(
            f"run.attention is {wanted}, which cannot run here: {what}. {advice}, or "
            "set run.attention=auto"
        )
    interpreted = wanted == SPLASH and case.platform == "cpu"
    slowly = ", interpreted, which is slow" if interpreted else ""
    return KernelChoice(wanted, f"run.attention asks for it{slowly}")


def _best(case: Case) -> KernelChoice:
    if case.platform not in _FUSED:
        return KernelChoice(
            XLA, f"no fused kernel exists for the {case.platform.upper()}"
        )
    fused = _FUSED[case.platform]
    for what, _ in obstacles(fused, case):
        return KernelChoice(XLA, f"{fused} cannot: {what}")
    return KernelChoice(fused, f"fused, for the {case.platform.upper()}")


def obstacles(kernel: str, case: Case) -> Iterator[tuple[str, str]]:
    """Yields what keeps a kernel from running a case, and how to avoid it."""
    checks = {CUDNN: _of_cudnn, SPLASH: _of_splash}
    if kernel in checks:
        yield from checks[kernel](case)


def _of_cudnn(case: Case) -> Iterator[tuple[str, str]]:
    device = f"{case.platform} {case.capability}".strip()
    if case.platform != "gpu" or not _is_ampere(case.capability):
        wanted = f"compute capability {_AMPERE} or higher"
        yield f"it needs an NVIDIA GPU of {wanted}, not {device}", "Use one"
    if case.dtype not in ("bfloat16", "float16"):
        yield f"it does not compute in {case.dtype}", "Set run.dtype=bfloat16"
    if case.packed:
        what = "rows are packed, and it does not separate their segments"
        yield what, "Set data.pack=false"
    if case.window is not None:
        yield "it has no local attention to both sides", "Make all layers global"
    if case.head_size % 8 or case.head_size > _WIDEST_OF_CUDNN:
        what = f"the heads are {case.head_size} wide, not a multiple of 8 up to"
        yield f"{what} {_WIDEST_OF_CUDNN}", "Change model.num_attention_heads"
    yield from _of_dropout(case)


def _of_splash(case: Case) -> Iterator[tuple[str, str]]:
    if case.platform not in ("tpu", "cpu"):
        yield f"it is a kernel for TPUs, not for {case.platform}", "Use one"
    lanes = SPLASH_LANES
    if case.length % lanes:
        what = f"{case.length} tokens a row are not a multiple of {lanes}"
        yield what, "Change data.max_seq_length"
    if case.head_size != lanes // 2 and case.head_size % lanes:
        what = f"the heads are {case.head_size} wide, not {lanes // 2} or a multiple of"
        yield f"{what} {lanes}", "Change model.num_attention_heads"
    yield from _of_dropout(case)


def _of_dropout(case: Case) -> Iterator[tuple[str, str]]:
    if case.dropout:
        what = f"it does not drop probabilities (the rate is {case.dropout:g})"
        yield what, "Set model.attention_probs_dropout_prob=0.0"


def _is_ampere(capability: str) -> bool:
    """Returns whether a GPU is NVIDIA's, and new enough; other vendors use names."""
    try:
        return float(capability) >= _AMPERE
    except ValueError:
        return False


def device(mesh: jax.sharding.AbstractMesh) -> tuple[str, str]:
    """Returns platform and capability of the devices of a mesh, or of those here.

    The mesh may have devices that this machine does not, when compiling for them: the
    capability of one in the table of chips is from there.
    """
    of_mesh = mesh.abstract_device
    platform = jax.default_backend() if of_mesh is None else _platform(of_mesh)
    if platform != "gpu":
        return platform, ""
    described = None if of_mesh is None else devices.of_kind(of_mesh.device_kind)
    if described is not None and described.capability:
        return platform, described.capability
    return platform, str(getattr(jax.local_devices()[0], "compute_capability", ""))


def _platform(device: Any) -> str:
    """Returns the platform of an abstract device, an attribute since JAX 0.10.1."""
    if hasattr(device, "platform"):
        return device.platform
    kind = device.device_kind
    return "cpu" if kind == "cpu" else "tpu" if kind.startswith("TPU") else "gpu"


def attention_mask(
    segment_ids: Rows, window: int | None = None
) -> Bool[Array, "B 1 L L"]:
    """Masks pairs (query, key) to one segment and a distance of at most `window`."""
    mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    if window is None:
        return mask
    positions = jnp.arange(segment_ids.shape[1])
    near = jnp.abs(positions[:, None] - positions[None, :]) <= window
    return mask & near[None, None]


def by_einsum(
    query: Heads,
    key: Heads,
    value: Heads,
    segment_ids: Rows,
    *,
    window: int | None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> Heads:
    """Computes attention by two products, with [B, N, L, L] probabilities between."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum(
        "BQNH,BKNH->BNQK", query * scale, key, preferred_element_type=jnp.float32
    )
    logits = jnp.where(attention_mask(segment_ids, window), logits, -1e9)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(query.dtype)
    if dropout_key is not None:
        probabilities = layers.drop(probabilities, dropout_rate, dropout_key)
    return jnp.einsum("BNQK,BKNH->BQNH", probabilities, value)


def by_cudnn(query: Heads, key: Heads, value: Heads, segment_ids: Rows) -> Heads:
    """Computes attention by cuDNN, of rows that are one segment followed by padding.

    Padding is zero in the result. Any other row, such as a packed one, is NaN: cuDNN
    would silently attend across its segments.
    """
    lengths = jnp.sum(segment_ids == 1, axis=1, dtype=jnp.int32)
    seen = jnp.maximum(lengths, 1)  # a row without a key has no softmax
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=seen,
        key_value_seq_lengths=seen,
        implementation="cudnn",
    )
    return only_right_padded(mixed, segment_ids, lengths)


def only_right_padded(
    mixed: Heads, segment_ids: Rows, lengths: Int[Array, " B"]
) -> Heads:
    """Sets padding to 0, and rows whose ids are not ones and then zeros to NaN."""
    inside = jnp.arange(segment_ids.shape[1])[None, :] < lengths[:, None]
    is_right_padded = jnp.all(segment_ids == inside, axis=1)
    kept = jnp.where(inside[:, :, None, None], mixed, jnp.zeros_like(mixed))
    wrong = jnp.full_like(mixed, jnp.nan)
    return jnp.where(is_right_padded[:, None, None, None], kept, wrong)


def by_splash(
    query: Heads,
    key: Heads,
    value: Heads,
    segment_ids: Rows,
    *,
    window: int | None,
    interpret: bool,
) -> Heads:
    """Computes attention by JAX's Pallas kernel for TPUs.

    It keeps a block of the probabilities in fast memory, and skips the blocks
    outside the window. `interpret` runs it anywhere, slowly.
    """
    # Imported here: it takes 0.5 s, and only this kernel needs it.
    from jax.experimental.pallas.ops.tpu import splash_attention

    length, heads = query.shape[1:3]
    shape = (length, length)
    mask: Any = splash_attention.FullMask(shape)
    if window is not None:
        mask = splash_attention.LocalMask(shape, (window, window), 0)
    sizes: Any = _blocks(length)
    kernel: Any = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * heads),
        # One kernel for all gradients: two would read all arrays twice, and move 1.2
        # (1,024 tokens) to 1.4 times as much in a layer of BERT-large, on a TPU v5e.
        block_sizes=splash_attention.BlockSizes(**sizes, use_fused_bwd_kernel=True),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    segments = splash_attention.SegmentIds(segment_ids, segment_ids)
    arrays = (query * query.shape[-1] ** -0.5, key, value)
    mixed = jax.vmap(kernel)(*(x.swapaxes(1, 2) for x in arrays), segment_ids=segments)
    return mixed.swapaxes(1, 2)


def _blocks(length: int) -> dict[str, int]:
    """Returns the sizes of the blocks of both passes, which divide the length."""
    sizes = range(SPLASH_LANES, _SPLASH_BLOCK + 1, SPLASH_LANES)
    block = max(size for size in sizes if length % size == 0)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv")
    return dict.fromkeys(names, block)


def over_mesh(kernel: Kernel) -> Kernel:
    """Returns a kernel that each device runs on its own rows and heads."""
    if jax.sharding.get_abstract_mesh().empty:
        return kernel
    heads = spmd.logical_to_mesh_axes(("batch", "length", "heads", "head_dim"))
    rows = spmd.logical_to_mesh_axes(("batch", "length"))
    return jax.shard_map(
        kernel,
        in_specs=(heads, heads, heads, rows),
        out_specs=heads,
        check_vma=False,
    )
