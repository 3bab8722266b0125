"""The kernels against attention in float64, against each other, and across segments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.model import attention

ROWS, LENGTH, HEADS, SIZE = 3, 640, 2, 64  # five blocks of splash
WINDOW = 21


def _segments():
    """Padding in the first row; three and two segments in the others, none aligned."""
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[0, 501:] = 0
    segments[1, 61:330], segments[1, 330:] = 2, 3
    segments[2, 17:] = 2
    return segments


@pytest.fixture(scope="module")
def arrays():
    """Query, key, value and the weights of a loss."""
    rng = np.random.default_rng(4)
    shape = (4, ROWS, LENGTH, HEADS, SIZE)
    return rng.normal(size=shape).astype(np.float32)


@functools.cache
def _kernel(name, window):
    """Returns the jitted kernel, and the gradients of a weighted sum of its output."""
    kernel = {
        "xla": attention.by_einsum,
        "splash": functools.partial(attention.by_splash, interpret=True),
    }[name]

    def loss(query, key, value, weights, segments):
        mixed = kernel(query, key, value, segments, window=window)
        return jnp.sum(mixed * weights), mixed

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


def _run(name, window, arrays, segments=None):
    """Returns the mixed values and their gradients, as numpy."""
    segments = _segments() if segments is None else segments
    (_, mixed), grads = _kernel(name, window)(*arrays, segments)
    return np.asarray(mixed), [np.asarray(x) for x in grads]


def test_the_mask_of_a_packed_row_as_a_picture():
    mask = attention.attention_mask(jnp.array([[1, 1, 2, 0]], jnp.int32))[0, 0]
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(mask.astype(int), expected)


def test_the_mask_of_a_window_as_a_picture():
    ids = jnp.array([[1, 1, 1, 1, 2]], jnp.int32)
    mask = attention.attention_mask(ids, window=1)[0, 0]
    expected = [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    np.testing.assert_array_equal(mask.astype(int), expected)


def _reference(arrays, window):
    """Attention in float64, one segment of one row and one head at a time."""
    query, key, value = np.asarray(arrays[:3], np.float64)
    made, places = np.zeros(query.shape), np.arange(LENGTH)
    for row, segments in enumerate(_segments()):
        for segment in np.unique(segments):
            own = places[segments == segment]
            for head in range(HEADS):
                q, k, v = (x[row, own, head] for x in (query, key, value))
                scores = q @ k.T / 8.0  # the root of the head width 64
                if window is not None:
                    far = np.abs(own[:, None] - own[None, :]) > window
                    scores[far] = -np.inf
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                weights /= weights.sum(axis=1, keepdims=True)
                made[row, own, head] = weights @ v
    return made


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("name", ["xla", "splash"])
def test_a_kernel_is_attention_in_float64(arrays, name, window):
    mixed, _ = _run(name, window, arrays)
    np.testing.assert_allclose(mixed, _reference(arrays, window), atol=5e-6)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_gradients_of_splash_are_those_of_xla(arrays, window):
    _, ours = _run("splash", window, arrays)
    _, expected = _run("xla", window, arrays)
    for one, other in zip(ours, expected, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("name", ["xla", "splash"])
def test_no_segment_sees_another_to_the_bit(arrays, name, window):
    mixed, grads = _run(name, window, arrays)
    changed, segments = arrays.copy(), _segments()
    inside = (segments == 2)[None, :, :, None, None]
    changed[:3] = np.where(inside, -7 * changed[:3] + 3, changed[:3])
    other_mixed, other_grads = _run(name, window, changed)
    outside = segments != 2
    np.testing.assert_array_equal(mixed[outside], other_mixed[outside])
    assert (mixed[~outside] != other_mixed[~outside]).all()
    for one, other in zip(grads, other_grads, strict=True):
        np.testing.assert_array_equal(one[outside], other[outside])


def test_rows_that_are_not_right_padded_become_nan_and_padding_zero():
    segments = jnp.array([[1, 1, 0], [1, 2, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    mixed = jnp.ones((5, 3, 1, 1)).at[0, 2].set(jnp.nan)
    lengths = jnp.sum(segments == 1, axis=1)
    found = attention.only_right_padded(mixed, segments, lengths)[:, :, 0, 0]
    nan = np.nan
    expected = [[1, 1, 0], [nan] * 3, [nan] * 3, [0, 0, 0], [1, 1, 1]]
    np.testing.assert_array_equal(found, expected)


def test_blocks_divide_the_length_and_are_as_long_as_may_be():
    wanted = {128: 128, 256: 256, 384: 384, 512: 512, 640: 128, 768: 384, 1024: 512}
    for length, size in wanted.items():
        assert set(attention._blocks(length).values()) == {size}


def _has_ampere():
    if jax.default_backend() != "gpu":
        return False
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    return capability.replace(".", "").isdigit() and float(capability) >= 8.0


@pytest.mark.skipif(not _has_ampere(), reason="needs an NVIDIA GPU of Ampere or later")
def test_cudnn_computes_what_xla_does_and_padding_reaches_nothing(arrays):
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[0, 201:], segments[1, 1:], segments[2] = 0, 0, 0
    query, key, value, weights = (jnp.asarray(x, jnp.bfloat16) for x in arrays)
    weights = weights * segments[:, :, None, None]

    def loss(query, key, value, kernel):
        mixed = kernel(query, key, value, jnp.asarray(segments))
        return jnp.sum((mixed * weights).astype(jnp.float32)), mixed

    by_einsum = functools.partial(attention.by_einsum, window=None)
    of = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
    (_, expected), wanted = of(query, key, value, by_einsum)
    (_, mixed), grads = of(query, key, value, attention.by_cudnn)
    real = segments == 1
    for one, other in zip((mixed, *grads), (expected, *wanted), strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one[real], other[real], atol=0.05)
    noisy = jnp.where(real[:, :, None, None], key, 1e4)
    (_, again), _ = of(query, noisy, value, attention.by_cudnn)
    np.testing.assert_array_equal(mixed[real], again[real])
