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

    Args:
      effective_length: L for padded rows; sum(l^2) / sum(l) over packed segments.
      predicted_share: m, the share of the positions that the MLM head must see.

    >>> base = config.published("base")
    >>> round(training_flops_per_token(base, 128, 20 / 128) / 1e9, 3)
    0.546
    """
    layers, width = bert.num_hidden_layers, bert.hidden_size
    weights = layers * (4 * width**2 + 2 * width * bert.intermediate_size)
    attention = 12 * layers * width * effective_length
    inner = bert.embedding_width
    head = 6 * (inner * bert.vocab_size + width * inner) * predicted_share
    return 6 * weights + attention + head
