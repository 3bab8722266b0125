"""`attend` and the encoder around it: the kernel that is asked for, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bert_jax import errors
from bert_jax.model import attention, config, encoder
from bert_jax.training import sharding

ROWS, LENGTH, HEADS, SIZE = 4, 128, 2, 64
BERT = config.BertConfig(
    vocab_size=41,
    hidden_size=HEADS * SIZE,
    num_hidden_layers=2,
    num_attention_heads=HEADS,
    intermediate_size=32,
    max_position_embeddings=LENGTH,
    attention_probs_dropout_prob=0.0,
)


@pytest.fixture(scope="module")
def arrays():
    """Query, key and value, and the segments of packed rows."""
    rng = np.random.default_rng(2)
    heads = rng.normal(size=(3, ROWS, LENGTH, HEADS, SIZE)).astype(np.float32)
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[0, 90:], segments[2, 31:] = 0, 2
    return *heads, segments


@pytest.fixture
def called(monkeypatch):
    """The names of the kernels that were traced."""
    names = []

    def spy(name):
        kernel = getattr(attention, name)

        def noted(*arguments, **options):
            names.append(name)
            return kernel(*arguments, **options)

        monkeypatch.setattr(attention, name, noted)

    for name in ("by_einsum", "by_splash", "by_cudnn"):
        spy(name)
    return names


def _attend(*arrays, kernel, window=None, dropout_key=None):
    return attention.attend(
        *map(jnp.asarray, arrays),
        attention.AttentionOptions(kernel, dropout_rate=0.5, window=window),
        dropout_key=dropout_key,
    )


def _summed(mesh, arrays, kernel):
    """Returns mixed values and gradients, computed on a mesh."""

    def loss(query, key, value, segments):
        mixed = _attend(query, key, value, segments, kernel=kernel, window=40)
        return jnp.sum(jnp.sin(mixed)), mixed

    step = sharding.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), mesh)
    names = ("query", "key", "value", "segment_ids")
    placed = sharding.to_devices(dict(zip(names, arrays, strict=True)), mesh)
    (_, mixed), grads = step(*placed.values())
    return [np.asarray(x) for x in (mixed, *grads)]


@pytest.mark.parametrize("kernel", ["xla", "splash"])
def test_eight_devices_compute_what_one_does(arrays, kernel, called):
    alone = _summed(sharding.make_mesh(1, 1, 1), arrays, kernel)
    together = _summed(sharding.make_mesh(2, 2, 2), arrays, kernel)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    assert set(called) == {"by_einsum" if kernel == "xla" else "by_splash"}


def test_every_device_has_its_own_rows_and_heads_in_a_fused_kernel(arrays, called):
    seen = []

    def kernel(query, key, value, segments):
        seen.append((query.shape, segments.shape))
        return query + key * value

    mesh = sharding.make_mesh(2, 2, 2)
    whole = sharding.jit(lambda *x: attention.over_mesh(kernel)(*x), mesh)(*arrays)
    query, key, value, _ = arrays
    np.testing.assert_allclose(whole, query + key * value, atol=1e-6)
    assert seen == [((1, LENGTH, 1, SIZE), (1, LENGTH))]


def test_members_of_a_sweep_have_rows_of_their_own_in_a_fused_kernel(arrays):
    """As in `training.sweep`: members along `data`, their rows along the rest."""
    seen = []

    def kernel(query, key, value, segments):
        seen.append((query.shape, segments.shape))
        return query + key * value

    def members(*stacked):
        run = attention.over_mesh(kernel)
        return jax.vmap(run, spmd_axis_name="data")(*stacked)

    mesh = sharding.make_mesh(2, 2, 2)
    stacked = [np.stack([x, 2 * x]) for x in arrays]
    whole = sharding.jit(members, mesh, batch_axes=("fsdp",))(*stacked)
    query, key, value, _ = stacked
    np.testing.assert_allclose(whole, query + key * value, atol=1e-6)
    assert seen == [((2, LENGTH, 1, SIZE), (2, LENGTH))]


def test_dropout_takes_the_einsum_and_a_fused_kernel_refuses_it(arrays, called, key):
    _attend(*arrays, kernel="auto", dropout_key=key)
    assert called == ["by_einsum"]
    with pytest.raises(errors.InputError, match="attention_probs_dropout_prob=0.0"):
        _attend(*arrays, kernel="splash", dropout_key=key)
    with pytest.raises(errors.InputError, match="run.attention is cudnn"):
        _attend(*arrays, kernel="cudnn")


def test_an_encoder_with_splash_is_drawn_and_runs_as_one_with_xla(called):
    """`init` sees two tokens of a row, outside the mesh: it takes the einsum."""
    ids = jnp.ones((1, 2), jnp.int32)
    rng = np.random.default_rng(1)
    inputs = {
        "input_ids": rng.integers(0, 41, (ROWS, LENGTH)).astype(np.int32),
        "token_type_ids": np.zeros((ROWS, LENGTH), np.int32),
        "segment_ids": np.repeat([[1, 2, 3, 0]], ROWS, 0).repeat(LENGTH // 4, 1),
        "position_ids": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
    }
    inputs["segment_ids"] = inputs["segment_ids"].astype(np.int32)
    mesh = sharding.make_mesh(2, 2, 2)

    def outputs(kernel):
        model = encoder.Bert(BERT, encoder.Execution(attention=kernel))
        drawn = model.init(jax.random.key(0), ids, ids, ids, ids, deterministic=True)
        assert set(called) == {"by_einsum"}
        called.clear()

        def run(params, batch):
            return model.apply(params, **batch, deterministic=True)

        params = nn.unbox(drawn)
        made = sharding.jit(run, mesh)(params, sharding.to_devices(inputs, mesh))
        assert set(called) == {"by_einsum" if kernel == "xla" else "by_splash"}
        called.clear()
        return np.asarray(made)

    np.testing.assert_allclose(outputs("splash"), outputs("xla"), atol=1e-5)
