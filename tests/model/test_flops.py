"""The cost formula against the published figures of the design."""

import pytest

from bert_jax.model import config, costs


@pytest.mark.parametrize(
    ("length", "predictions", "gigaflops"), [(128, 20, 0.546), (512, 77, 0.588)]
)
def test_base_costs_what_the_design_says(length, predictions, gigaflops):
    base, share = config.published("base"), predictions / length
    cost = costs.training_flops_per_token(base, length, share)
    assert round(cost / 1e9, 3) == gigaflops


def test_every_term_by_hand():
    bert = config.BertConfig(
        vocab_size=11,
        hidden_size=6,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=5,
    )
    # 6 * 2 * (4 * 36 + 2 * 30) + 12 * 2 * 6 * 7 + 6 * (66 + 36) * 0.5
    assert costs.training_flops_per_token(bert, 7, 0.5) == 2448 + 1008 + 306
