"""The cost of training, by the one formula that every report uses.

Positions that are computed and not needed earn no credit: the MLM head counts for the
rows it must see, attention for the positions inside a segment.
"""

from bert_jax.model import config


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
      predicted_share: m, the share of the positions that the MLM head must see.

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
