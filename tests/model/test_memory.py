"""The formula of activations by hand; `planning/test_program.py` compares it to XLA."""

import dataclasses

from bert_jax.model import config, costs, encoder

# Dropout of both kinds, 3 layers, D = 6, F = 5, N = 3, V = 11.
BERT = config.BertConfig(
    vocab_size=11,
    hidden_size=6,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=5,
)
ROWS = costs.Rows(rows=13, length=7, predictions=2)
LOOP = encoder.Execution("bfloat16")


def test_a_layer_by_hand():
    # 3 b D + masks 2 D, 4 b D + 2 b F, (4 + b + mask) N L: per token.
    outer, inner = 36 + 12, 48 + 20
    attention = 3 * 7 * (4 + 2 + 1)
    assert costs.layer_bytes(BERT, LOOP, ROWS) == 91 * (outer + inner + attention)


def test_a_kernel_keeps_sums_in_place_of_probabilities():
    fused = dataclasses.replace(ROWS, fused_attention=True)
    saved = 91 * (3 * 7 * 7 - 3 * 8)
    whole = costs.layer_bytes(BERT, LOOP, ROWS)
    assert whole - costs.layer_bytes(BERT, LOOP, fused) == saved


def test_chips_along_tensor_share_heads_and_mlp():
    shared = dataclasses.replace(ROWS, tensor=2)
    inner = 48 + 20 + 3 * 7 * 7
    whole = costs.layer_bytes(BERT, LOOP, ROWS)
    assert whole - costs.layer_bytes(BERT, LOOP, shared) == 91 * inner / 2


def test_what_remat_keeps():
    def kept(remat):
        execution = encoder.Execution("bfloat16", remat=remat)
        return costs.activation_bytes(BERT, execution, ROWS)

    rest = 2 * 4 * 6 * 91 + 2 * 13 * 2 * 11 * 4  # embeddings, and logits twice
    layer = costs.layer_bytes(BERT, LOOP, ROWS)
    assert kept("none") == 3 * layer + rest
    assert kept("full") == 3 * 91 * 2 * 6 + layer + rest
    assert kept("dots") == 3 * 91 * 2 * (6 * 6 + 5) + layer + rest
    assert kept("full") < kept("dots") < kept("none")


def test_logits_are_computed_in_parts_where_they_are_many():
    many = costs.Rows(rows=1024, length=512, predictions=80)
    base = config.published("base")
    assert costs.logits_bytes(base, many) == 2 * 4 * costs.MOST_LOGITS


def test_unrolled_layers_keep_probabilities_in_their_own_dtype_alone():
    unrolled = encoder.Execution("bfloat16", unroll=-1)
    saved = 91 * 3 * 7 * 4
    whole = costs.layer_bytes(BERT, LOOP, ROWS)
    assert whole - costs.layer_bytes(BERT, unrolled, ROWS) == saved
