"""Losses of labelled rows beside float64 sums, torch's, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.tasks import losses

CLASSES = 5
OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"focal_gamma": 2.0},
    {"class_weights": True},
    {"label_smoothing": 0.2, "focal_gamma": 0.5, "class_weights": True},
]


def drawn(shape=(13, CLASSES), seed=2):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, shape).astype(np.float32)
    labels = rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)
    weights = rng.uniform(0.2, 3, shape[-1]).astype(np.float32)
    return logits, labels, weights


def recipe_of(names, weights):
    given = (
        {"class_weights": tuple(weights.tolist())} if "class_weights" in names else {}
    )
    return losses.Recipe(**names | given)


@pytest.mark.parametrize("names", OPTIONS, ids=str)
def test_class_losses_are_the_sum_over_classes(names):
    logits, labels, weights = drawn((3, 7, CLASSES))
    found = losses.class_losses(
        jnp.asarray(logits), jnp.asarray(labels), recipe_of(names, weights)
    )
    assert found.shape == (3, 7) and found.dtype == jnp.float32
    exact = logits.astype(np.float64)
    probs = np.exp(exact) / np.exp(exact).sum(-1, keepdims=True)
    smoothing = names["label_smoothing"] if "label_smoothing" in names else 0.0
    gamma = names["focal_gamma"] if "focal_gamma" in names else 0.0
    target = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    scale = weights.astype(np.float64) if "class_weights" in names else 1.0
    expected = (target * scale * (1 - probs) ** gamma * -np.log(probs)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_class_losses_are_torchs():
    torch = pytest.importorskip("torch")
    logits, labels, weights = drawn()
    for smoothing in (0.0, 0.3):
        for weight in (None, torch.tensor(weights)):
            expected = torch.nn.functional.cross_entropy(
                torch.tensor(logits),
                torch.tensor(labels).long(),
                weight,
                reduction="none",
                label_smoothing=smoothing,
            )
            given = () if weight is None else tuple(weights.tolist())
            recipe = losses.Recipe(smoothing, class_weights=given)
            found = losses.class_losses(
                jnp.asarray(logits), jnp.asarray(labels), recipe
            )
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_plain_losses_add_up_to_the_cross_entropy():
    logits, labels, _ = drawn()
    logits, labels = jnp.asarray(logits), jnp.asarray(labels).at[3].set(-100)
    weights = jnp.ones(13).at[3].set(0.0)
    found = jnp.sum(losses.class_losses(logits, labels) * weights)
    expected = losses.cross_entropy(logits, labels, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("names", OPTIONS, ids=str)
def test_binary_losses_are_the_sum_over_yes_and_no(names):
    logits, _, weights = drawn()
    labels = np.random.default_rng(5).integers(0, 2, (13, CLASSES)).astype(bool)
    recipe = recipe_of(names, weights)
    found = losses.binary_losses(jnp.asarray(logits), jnp.asarray(labels), recipe)
    assert found.shape == labels.shape and found.dtype == jnp.float32
    yes = 1 / (1 + np.exp(-logits.astype(np.float64)))
    smoothing = names["label_smoothing"] if "label_smoothing" in names else 0.0
    gamma = names["focal_gamma"] if "focal_gamma" in names else 0.0
    target = labels * (1 - smoothing) + smoothing / 2
    scale = weights.astype(np.float64) if "class_weights" in names else 1.0
    expected = target * scale * (1 - yes) ** gamma * -np.log(yes)
    expected += (1 - target) * yes**gamma * -np.log(1 - yes)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_binary_losses_are_torchs():
    torch = pytest.importorskip("torch")
    logits, _, weights = drawn()
    labels = np.random.default_rng(5).integers(0, 2, (13, CLASSES)).astype(np.int32)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits),
        torch.tensor(labels).float(),
        pos_weight=torch.tensor(weights),
        reduction="none",
    )
    recipe = losses.Recipe(class_weights=tuple(weights.tolist()))
    found = losses.binary_losses(jnp.asarray(logits), jnp.asarray(labels), recipe)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_sure_and_right_or_wrong_has_finite_losses_and_gradients(gamma):
    logits = jnp.array([[200.0, -200.0], [-200.0, 200.0]])
    labels = jnp.array([0, 0])

    def one(x):
        return jnp.sum(losses.class_losses(x, labels, losses.Recipe(focal_gamma=gamma)))

    def two(x):
        yes = jnp.array([[1, 0], [1, 0]])
        return jnp.sum(losses.binary_losses(x, yes, losses.Recipe(focal_gamma=gamma)))

    assert one(logits) == 400.0 and two(logits) == 400.0
    for loss in (one, two):
        gradient = jax.grad(loss)(logits)
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(gradient[0], [0, 0], atol=1e-6)
        np.testing.assert_allclose(gradient[1], [-1, 1], atol=1e-6)


def test_symmetric_kl_is_the_mean_of_both():
    p_logits, q_logits = drawn((3, 7, CLASSES))[0], drawn((3, 7, CLASSES), 9)[0]
    p, q = (
        np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1)[..., None]
        for x in (p_logits, q_logits)
    )
    expected = (p * np.log(p / q)).sum(-1) / 2 + (q * np.log(q / p)).sum(-1) / 2
    found = losses.symmetric_kl(jnp.asarray(p_logits), jnp.asarray(q_logits))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    same = losses.symmetric_kl(jnp.asarray(p_logits), jnp.asarray(p_logits + 4))
    np.testing.assert_allclose(same, np.zeros((3, 7)), atol=1e-5)
    half = losses.symmetric_kl(
        jnp.asarray(p_logits, jnp.bfloat16), jnp.asarray(q_logits, jnp.bfloat16)
    )
    assert half.dtype == jnp.float32


@pytest.mark.parametrize("names", OPTIONS[:3], ids=str)
def test_classes_that_are_not_there_change_nothing(names):
    """As of padded rows: the losses are those of the logits that are allowed alone."""
    logits, labels, _ = drawn((13, CLASSES))
    wide = np.concatenate([np.full((13, 2), 9.0, np.float32), logits], axis=1)
    allowed = np.arange(CLASSES + 2)[None, :] >= np.full((13, 1), 2)

    def total(x, **options):
        return jnp.sum(losses.class_losses(x, recipe=losses.Recipe(**names), **options))

    grads = jax.grad(total)(
        jnp.asarray(wide), labels=jnp.asarray(labels + 2), allowed=jnp.asarray(allowed)
    )
    alone = jax.grad(total)(jnp.asarray(logits), labels=jnp.asarray(labels))
    np.testing.assert_allclose(grads[:, 2:], alone, rtol=1e-5, atol=1e-6)
    assert not np.any(grads[:, :2])
    found = losses.class_losses(
        jnp.asarray(wide),
        jnp.asarray(labels + 2),
        losses.Recipe(**names),
        jnp.asarray(allowed),
    )
    expected = losses.class_losses(
        jnp.asarray(logits), jnp.asarray(labels), losses.Recipe(**names)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
