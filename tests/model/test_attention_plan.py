"""What is said at the start of a run: the kernel, its reason, the price of dropout."""

import dataclasses
from typing import Any

import described_chips
import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from bert_jax import errors
from bert_jax.model import config, costs, encoder

BERT = config.BertConfig(
    vocab_size=41,
    hidden_size=192,
    num_hidden_layers=5,
    num_attention_heads=3,
    intermediate_size=50,
    attention_probs_dropout_prob=0.0,
)
AXES = ("data", "fsdp", "tensor")
V5E = described_chips.tpu()
POD = AbstractMesh((4, 2, 1), AXES, (AxisType.Auto,) * 3, abstract_device=V5E)


def _describe(bert=BERT, lengths=(128,), rows=16, mesh: Any = POD, **execution):
    made = encoder.Execution("bfloat16", **execution)
    return costs.describe(bert, made, lengths, rows, mesh)


def test_one_kernel_is_told_in_one_line():
    here = jax.make_mesh((2, 2, 2), AXES, axis_types=(AxisType.Auto,) * 3)
    expected = "attention: xla (no fused kernel exists for the CPU)"
    assert _describe(mesh=here, lengths=(128, 512)) == expected
    assert _describe() == "attention: splash (fused, for the TPU)"


def test_each_length_has_its_kernel():
    assert _describe(lengths=(96, 128, 256)) == (
        "attention: xla (splash cannot: 96 tokens a row are not a multiple of 128) for "
        "rows of 96 tokens; splash (fused, for the TPU) for rows of 128 tokens, 256 "
        "tokens"
    )


def test_local_layers_have_their_own():
    modern = dataclasses.replace(
        BERT, model_type="modernbert", type_vocab_size=0, local_attention=30
    )
    assert costs.windows(BERT) == [None]
    assert costs.windows(modern) == [None, 15]
    every = dataclasses.replace(modern, global_attn_every_n_layers=1)
    assert costs.windows(every) == [None]
    told = _describe(modern, lengths=(100, 512), packed=False)
    assert "xla (splash cannot: 100 tokens" in told
    assert told.endswith(
        "for rows of 512 tokens, 512 tokens in layers that see 15 around"
    )


def test_dropout_has_its_price():
    """16 x 3 x 512 x 512 values of two bytes, over eight chips: 3.1 MB on each."""
    bert = dataclasses.replace(BERT, attention_probs_dropout_prob=0.1)
    first, second = _describe(bert, lengths=(128, 512)).splitlines()
    assert first.startswith("attention: xla (splash cannot: ") and "0.1" in first
    assert "10% of its probabilities are dropped" in second
    assert "all 16 x 3 x 512 x 512 of a layer lie in memory, 3.1 MB a device" in second


def test_a_forced_kernel_that_cannot_run_is_refused_before_the_run():
    with pytest.raises(errors.InputError, match="run.attention is cudnn"):
        _describe(attention="cudnn")
    with pytest.raises(errors.InputError, match="96 tokens a row"):
        _describe(attention="splash", lengths=(128, 96))
