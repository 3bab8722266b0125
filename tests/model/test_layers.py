"""What models are built of, and what the backward pass keeps of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.model import config, encoder, layers


def kept(capsys, function, *arguments):
    """Returns the shapes of what the backward pass keeps, but arguments."""
    jax.ad_checkpoint.print_saved_residuals(function, *arguments)
    lines = capsys.readouterr().out.splitlines()
    return [line.split()[0] for line in lines if "argument" not in line]


def test_layer_norm_keeps_its_statistics_and_its_input(capsys):
    norm = layers.LayerNorm(1e-6)
    x = jax.random.normal(jax.random.key(0), (3, 5, 16))
    params = norm.init(jax.random.key(1), x)
    found = kept(capsys, lambda x: jnp.sum(norm.apply(params, x) ** 2), x)
    # The result itself is kept for the square, and the mean and the inverse deviation.
    assert found.count("f32[3,5,16]") == 1
    assert found.count("f32[3,5,1]") == 2


def test_layer_norm_normalises():
    norm = layers.LayerNorm(0.0, has_bias=False)
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (4, 32)), jnp.float32)
    y = norm.apply({"params": {"scale": jnp.full((32,), 2.0)}}, x)
    assert jnp.allclose(jnp.mean(y, -1), 0.0, atol=1e-5)
    assert jnp.allclose(jnp.std(y, -1), 2.0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_keeps_the_input_of_the_activation_and_its_result(capsys, dtype):
    bert = config.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
    )
    layer = encoder.EncoderLayer(bert, encoder.Execution(dtype), False)
    x, segment_ids = jnp.ones((3, 5, 16), encoder.DTYPES[dtype]), jnp.ones((3, 5), int)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    params = layer.init(keys, x, segment_ids)

    def loss(params, x):
        rngs = {"dropout": jax.random.key(2)}
        return jnp.sum(layer.apply(params, x, segment_ids, rngs=rngs)[0])

    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    found = kept(capsys, loss, params, x)
    assert found.count(f"{short}[3,5,48]") == 2
    # Nothing of the width of the layer is kept in float32 unless all is.
    assert {shape for shape in found if "[3,5,16]" in shape} == {
        f"{short}[3,5,16]",
        "bool[3,5,16]",
    }
