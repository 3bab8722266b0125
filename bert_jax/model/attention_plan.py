"""What a run says about its attention: which kernels, why, and what dropout costs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bert_jax.model import attention_choice, config, encoder

AnyMesh = jax.sharding.Mesh | jax.sharding.AbstractMesh


def describe(
    bert: config.BertConfig,
    execution: encoder.Execution,
    lengths: Sequence[int],
    rows: int,
    mesh: AnyMesh,
) -> str:
    """Returns which kernel trains rows of each length, and what dropout costs.

    Args:
      lengths: of the rows, in tokens.
      rows: that are computed together, over all devices of the mesh.

    Raises:
      InputError: the kernel that `run.attention` forces cannot run.
    """
    told = kernels(bert, execution, lengths, mesh)
    return told + _cost(bert, execution, max(lengths), rows, mesh)


def kernels(
    bert: config.BertConfig,
    execution: encoder.Execution,
    lengths: Sequence[int],
    mesh: AnyMesh,
) -> str:
    """Returns which kernel trains rows of each length, and why, in a line.

    Raises:
      InputError: the kernel that `run.attention` forces cannot run.
    """
    cases: dict[attention_choice.Choice, list[str]] = {}
    for length in lengths:
        for window in windows(bert):
            chosen = choose(bert, execution, length, window, mesh)
            layers = "" if window is None else f" in layers that see {window} around"
            cases.setdefault(chosen, []).append(f"{length} tokens{layers}")
    return "attention: " + "; ".join(
        f"{chosen.kernel} ({chosen.reason})"
        + (f" for rows of {', '.join(named)}" if len(cases) > 1 else "")
        for chosen, named in cases.items()
    )


def windows(bert: config.BertConfig) -> list[int | None]:
    """Returns the half widths of attention that the layers have; None is global."""
    near = bert.local_attention // 2
    layers = range(bert.num_hidden_layers)
    found = {None if bert.is_global(layer) else near for layer in layers}
    return sorted(found, key=lambda window: window or 0)


def choose(
    bert: config.BertConfig,
    execution: encoder.Execution,
    length: int,
    window: int | None,
    mesh: AnyMesh,
) -> attention_choice.Choice:
    """Returns the kernel that trains rows of this length on a mesh."""
    platform, capability = attention_choice.device(mesh.abstract_mesh)
    case = attention_choice.Case(
        platform=platform,
        capability=capability,
        dtype=execution.dtype,
        length=length,
        head_size=bert.head_size,
        dropout=bert.attention_probs_dropout_prob,
        packed=execution.packed,
        window=window,
    )
    return attention_choice.choose(case, execution.attention)


def _cost(
    bert: config.BertConfig,
    execution: encoder.Execution,
    length: int,
    rows: int,
    mesh: AnyMesh,
) -> str:
    """Returns what it costs to drop attention probabilities, if the model does."""
    rate, heads = bert.attention_probs_dropout_prob, bert.num_attention_heads
    if not rate:
        return ""
    size = jnp.dtype(encoder.DTYPES[execution.dtype]).itemsize
    megabytes = rows * heads * length**2 * size / mesh.size / 1e6
    return (
        f"\nattention: {rate:.0%} of its probabilities are dropped, so all "
        f"{rows} x {heads} x {length} x {length} of a layer lie in memory, "
        f"{megabytes:,.1f} MB a device"
    )
