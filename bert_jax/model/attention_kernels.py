"""The ways to compute attention inside segments, one function a kernel.

All have the arguments and the result of `attention.attend`, without dropout but in
`by_einsum`. `over_mesh` runs the fused ones on each device's rows and heads alone: XLA
cannot cut a kernel that it did not write.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import spmd
from jaxtyping import Array, Bool, Float, Int

from bert_jax.model import dropout

Heads = Float[Array, "B L N H"]
Rows = Int[Array, "B L"]
# kernel(query, key, value, segment_ids) -> the mixed values.
Kernel = Callable[[Heads, Heads, Heads, Rows], Heads]

SPLASH_LANES = 128  # splash takes lengths that are multiples of this
_SPLASH_BLOCK = 512  # positions of a row that are in fast memory at once, at most


def attention_mask(
    segment_ids: Rows, window: int | None = None
) -> Bool[Array, "B 1 L L"]:
    """Marks the pairs (query, key) of one segment, at most `window` places apart."""
    mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    if window is None:
        return mask
    places = jnp.arange(segment_ids.shape[1])
    near = jnp.abs(places[:, None] - places[None, :]) <= window
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
        probabilities = dropout.drop(probabilities, dropout_rate, dropout_key)
    return jnp.einsum("BNQK,BKNH->BQNH", probabilities, value)


def by_cudnn(query: Heads, key: Heads, value: Heads, segment_ids: Rows) -> Heads:
    """Computes attention by cuDNN, of rows that are one segment with padding behind it.

    Padding is zero in the result. A row of another form, as a packed one, is NaN: cuDNN
    would attend across its segments, without a word.
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
    """Sets padding to zero, and rows to NaN that are not ones and then zeros."""
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
    """Computes attention by the Pallas kernel for TPUs that JAX comes with.

    It keeps a block of the probabilities in fast memory, and skips the blocks that lie
    outside the window. `interpret` runs it anywhere, slowly.
    """
    # Imported here: it takes 0.5 s, and only this kernel needs it.
    from jax.experimental.pallas.ops.tpu import splash_attention

    length, heads = query.shape[1:3]
    shape = (length, length)
    mask = (
        splash_attention.FullMask(shape)
        if window is None
        else splash_attention.LocalMask(shape, (window, window), 0)
    )
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
