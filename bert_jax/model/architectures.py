"""Which encoder a `model_type` has: the one place that knows both.

Encoders are called alike, so what sits on them does not ask. BERT and its kin are
`encoder.Bert`; ModernBERT, whose layers share no line of control flow with those, is
`modern.ModernBert`.
"""

from bert_jax.model import config, encoder, modern


def make_encoder(
    bert: config.BertConfig, execution: encoder.Execution, name: str | None = None
) -> encoder.Bert | modern.ModernBert:
    """Returns the encoder of an architecture, not yet bound to parameters."""
    kind = modern.ModernBert if bert.is_modern else encoder.Bert
    return kind(bert, execution, name=name)
