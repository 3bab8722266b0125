"""Scaled dot-product attention inside segments (Vaswani et al. 2017, section 3.2.1).

A position attends to the positions of its own segment alone. Padding is segment 0 and
sees only padding, so that no row is ever without a key; what is computed for it differs
between the kernels, and no other position sees it.
"""

import functools

import jax

from bert_jax.model import attention_choice, attention_kernels


def attend(
    query: attention_kernels.Heads,
    key: attention_kernels.Heads,
    value: attention_kernels.Heads,
    segment_ids: attention_kernels.Rows,
    *,
    dropout_rate: float,
    dropout_key: jax.Array | None,
    kernel: str,
    packed: bool = True,
    window: int | None = None,
) -> attention_kernels.Heads:
    """Mixes the values of each segment by softmax(q k / sqrt(H)); all are [B, L, N, H].

    The softmax runs in float32 whatever the dtype of the arguments.

    Args:
      dropout_rate: share of the attention probabilities that is dropped.
      dropout_key: None computes without dropout.
      kernel: one of `attention_choice.KERNELS`; `auto` takes the fastest that can.
      packed: whether a row may hold several segments; without them, it is one segment
        with padding at its right. True is right for every row.
      window: half the width of local attention, |i - j| <= window; None is global.

    Raises:
      InputError: the kernel is not `auto`, and cannot run here.
    """
    platform, capability = attention_choice.device(jax.sharding.get_abstract_mesh())
    case = attention_choice.Case(
        platform=platform,
        capability=capability,
        dtype=query.dtype.name,
        length=query.shape[1],
        head_size=query.shape[3],
        dropout=0.0 if dropout_key is None else dropout_rate,
        packed=packed,
        window=window,
    )
    chosen = attention_choice.choose(case, kernel).kernel
    arrays = (query, key, value, segment_ids)
    if chosen == attention_choice.CUDNN:
        return attention_kernels.over_mesh(attention_kernels.by_cudnn)(*arrays)
    if chosen == attention_choice.SPLASH:
        by_splash = functools.partial(
            attention_kernels.by_splash, window=window, interpret=platform != "tpu"
        )
        return attention_kernels.over_mesh(by_splash)(*arrays)
    return attention_kernels.by_einsum(
        *arrays, window=window, dropout_rate=dropout_rate, dropout_key=dropout_key
    )
