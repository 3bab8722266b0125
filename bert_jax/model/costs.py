"""What training costs, by formula: FLOPs per token, memory, and the attention kernel.

FLOPs: positions that are computed and not needed earn no credit. The MLM head counts
for the tokens to be predicted, attention for the positions inside a segment.

Memory: what XLA keeps of a layer for the backward pass on one device, counted in
compiled programs of this package and within a factor of two of them. It is for devices
that no program can be compiled for, and for finding settings worth compiling.

Attention: which kernel trains rows of each length, why, and what its dropout costs.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bert_jax.model import attention, config, encoder


def training_flops_per_token(
    bert: config.BertConfig,
    effective_length: int | float,
    predicted_share: float,
) -> float:
    """Returns `6 N + 12 n D L_eff + 6 (D V + D^2) m`, forward and backward.

    N is `n (4 D^2 + 2 D F)`, of ModernBERT, whose GeGLU has three matrices,
    `n (4 D^2 + 3 D F)`; there, layers that attend to what is near count for as many
    positions as they see in the middle of a sequence, and at most for L_eff.

    Args:
      effective_length: L for padded rows; sum(l^2) / sum(l) over packed segments.
      predicted_share: m, the fraction of positions that the MLM head computes.

    >>> base = config.published("base")
    >>> round(training_flops_per_token(base, 128, 20 / 128) / 1e9, 3)
    0.546
    """
    layers, width = bert.num_hidden_layers, bert.hidden_size
    matrices = 3 if bert.is_modern else 2
    weights = layers * (4 * width**2 + matrices * width * bert.intermediate_size)
    near = min(effective_length, 2 * (bert.local_attention // 2) + 1)
    far_layers = sum(bert.is_global(layer) for layer in range(layers))
    attended = far_layers * effective_length + (layers - far_layers) * near
    attention = 12 * width * attended
    inner = bert.embedding_width
    head = 6 * (inner * bert.vocab_size + width * inner) * predicted_share
    return 6 * weights + attention + head


_FLOAT32 = 4
MOST_LOGITS = 1 << 26  # that a device computes at a time: 256 MiB


@dataclasses.dataclass(frozen=True)
class Rows:
    """What one device computes at a time.

    Attributes:
      rows: of a micro-batch, on this device.
      length: L, tokens in a row.
      predictions: P, predictions in a row.
      tensor: devices that share the heads, the MLP and the vocabulary.
      fused_attention: whether a kernel keeps the probabilities out of the memory.
    """

    rows: int | float
    length: int
    predictions: int
    tensor: int = 1
    fused_attention: bool = False

    @property
    def tokens(self) -> float:
        """The number of positions in all rows, padding included."""
        return float(self.rows * self.length)


def activation_bytes(
    bert: config.BertConfig, execution: encoder.Execution, rows: Rows
) -> int | float:
    """Returns what all layers, the embeddings and the logits keep for the backward.

    The layers that are recomputed (`remat`) keep their input, or the products with
    weights, and one of them is alive at a time.
    """
    layers = bert.num_hidden_layers
    whole = layer_bytes(bert, execution, rows)
    kept = {
        "none": whole * layers,
        "dots": _products_bytes(bert, execution, rows) * layers + whole,
        "full": _width(execution) * bert.hidden_size * rows.tokens * layers + whole,
    }
    embeddings = 2 * _FLOAT32 * bert.embedding_width * rows.tokens
    return kept[execution.remat] + embeddings + logits_bytes(bert, rows)


def layer_bytes(
    bert: config.BertConfig, execution: encoder.Execution, rows: Rows
) -> int | float:
    """Returns what one layer keeps: per token 7 b D + 2 b F + (4 + b) N L.

    b is the width of `run.dtype`. LayerNorm and activation keep their input and what
    they return (`model.layers`). Masks of dropout are a byte an element. A modern layer
    keeps 14 b D + 5 b F: heads before and after their rotation, both halves of GeGLU.
    """
    width, b = bert.hidden_size, _width(execution)
    whole, cut, mlp = (5, 9, 5) if bert.is_modern else (3, 4, 2)
    outer = whole * b * width + (2 * width if bert.hidden_dropout_prob else 0)
    inner = cut * b * width + mlp * b * bert.intermediate_size
    inner += _attention_bytes(bert, execution, rows)
    return rows.tokens * (outer + inner / rows.tensor)


def _attention_bytes(
    bert: config.BertConfig, execution: encoder.Execution, rows: Rows
) -> int | float:
    """Returns what attention keeps per token: probabilities, or only their sums."""
    heads = bert.num_attention_heads
    if rows.fused_attention:
        return 2 * _FLOAT32 * heads
    b = _width(execution)
    each = _FLOAT32 + (b if b != _FLOAT32 else 0)
    if execution.unroll == -1 or execution.unroll >= bert.num_hidden_layers:
        each = b
    return heads * rows.length * (each + bool(bert.attention_probs_dropout_prob))


def logits_bytes(bert: config.BertConfig, rows: Rows) -> int | float:
    """Returns the logits of masked tokens alive at once, and their gradient."""
    logits = rows.rows * rows.predictions * bert.vocab_size / rows.tensor
    return 2 * _FLOAT32 * min(logits, float(MOST_LOGITS))


def _products_bytes(
    bert: config.BertConfig, execution: encoder.Execution, rows: Rows
) -> int | float:
    """Returns a layer's input and its products with weights."""
    inner = (3 * bert.hidden_size + bert.intermediate_size) / rows.tensor
    return _width(execution) * rows.tokens * (3 * bert.hidden_size + inner)


def _width(execution: encoder.Execution) -> int:
    return jnp.dtype(encoder.DTYPES[execution.dtype]).itemsize


AnyMesh = jax.sharding.Mesh | jax.sharding.AbstractMesh


def describe(
    bert: config.BertConfig,
    execution: encoder.Execution,
    lengths: Sequence[int],
    rows: int,
    mesh: AnyMesh,
) -> str:
    """Returns which kernel trains rows of each length, and what dropout costs.

    `rows` are computed together, over all devices of the mesh. Raises InputError if the
    kernel that `run.attention` forces cannot run.
    """
    described = kernels(bert, execution, lengths, mesh)
    return described + _dropout_cost(bert, execution, max(lengths), rows, mesh)


def kernels(
    bert: config.BertConfig,
    execution: encoder.Execution,
    lengths: Sequence[int],
    mesh: AnyMesh,
) -> str:
    """Returns which kernel trains rows of each length, and why, in a line.

    Raises InputError as `describe` does.
    """
    cases: dict[attention.KernelChoice, list[str]] = {}
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
) -> attention.KernelChoice:
    """Returns the kernel that trains rows of this length on a mesh."""
    platform, capability = attention.device(mesh.abstract_mesh)
    case = attention.Case(
        platform=platform,
        capability=capability,
        dtype=execution.dtype,
        length=length,
        head_size=bert.head_size,
        dropout=bert.attention_probs_dropout_prob,
        packed=execution.packed,
        window=window,
    )
    return attention.choose(case, execution.attention)


def _dropout_cost(
    bert: config.BertConfig,
    execution: encoder.Execution,
    length: int,
    rows: int,
    mesh: AnyMesh,
) -> str:
    """Describes the cost of attention dropout; empty for a model without it."""
    rate, heads = bert.attention_probs_dropout_prob, bert.num_attention_heads
    if not rate:
        return ""
    size = rows * heads * length**2 * _width(execution)
    megabytes = size / mesh.size / 1e6
    return (
        f"\nattention: {rate:.0%} of its probabilities are dropped, so all "
        f"{rows} x {heads} x {length} x {length} of a layer lie in memory, "
        f"{megabytes:,.1f} MB a device"
    )
