import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import errors
from bert_jax.training import optimizer

CONFIG = optimizer.OptimizerConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", -5.0),
        ("learning_rate", 0.0),
        ("learning_rate", 1.5),
        ("learning_rate", True),
        ("learning_rate", "0.001"),
        ("learning_rate", None),
        ("warmup_steps", -1),
        ("warmup_steps", 2.5),
        ("warmup_steps", True),
        ("weight_decay", -0.01),
        ("weight_decay", 1.0),
        ("end_learning_rate", -1e-9),
        ("end_learning_rate", 0.02),
        ("power", 0.0),
        ("decay_fraction", 0.0),
        ("decay_fraction", 1.01),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("epsilon", 0.0),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", math.inf),
        ("name", "adam"),
        ("schedule", "cosine"),
    ],
)
def test_bad_value_names_its_key_and_itself(field, value):
    with pytest.raises(errors.InputError) as caught:
        CONFIG(**{"learning_rate": 0.01, field: value})
    assert str(caught.value).startswith(f"optimizer.{field} is {value!r}: ")


def test_whole_numbers_become_floats():
    assert isinstance(CONFIG(learning_rate=1).learning_rate, float)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        # Step 0 to 10 of 10: the decay runs from step 0, warm-up replaces its start.
        ({}, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]),
        (
            {"warmup_steps": 4},
            [0.0, 0.25, 0.5, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0],
        ),
        (
            {"schedule": "polynomial", "power": 2.0},
            [1.0, 0.81, 0.64, 0.49, 0.36, 0.25, 0.16, 0.09, 0.04, 0.01, 0.0],
        ),
        (
            {"schedule": "wsd", "warmup_steps": 2, "decay_fraction": 0.4},
            [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0],
        ),
        (
            {"schedule": "constant", "warmup_steps": 2},
            [0.0, 0.5] + [1.0] * 9,
        ),
        (
            {"end_learning_rate": 0.5},
            [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5],
        ),
        # Only "polynomial" reads the power.
        (
            {"power": 2.0},
            [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0],
        ),
    ],
)
def test_learning_rates(settings, rates):
    schedule = optimizer.learning_rate(CONFIG(learning_rate=1.0, **settings), 10)
    found = [float(schedule(jnp.int32(step))) for step in range(11)]
    np.testing.assert_allclose(found, rates, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "steps", "words"),
    [
        (
            {"warmup_steps": 11},
            10,
            "optimizer.warmup_steps is 11: it must be at most run.num_train_steps (10)",
        ),
        (
            {"schedule": "wsd", "warmup_steps": 8, "decay_fraction": 0.3},
            10,
            "at most 7",
        ),
        ({}, 0, "run.num_train_steps must be at least 1; found 0"),
    ],
)
def test_steps_that_do_not_fit(settings, steps, words):
    config = CONFIG(learning_rate=0.1, **settings)
    with pytest.raises(errors.InputError) as caught:
        optimizer.learning_rate(config, steps)
    assert words in str(caught.value)


def test_warmup_may_be_the_whole_run():
    config = CONFIG(learning_rate=0.1, warmup_steps=10)
    assert float(optimizer.learning_rate(config, 10)(9)) == pytest.approx(0.09)


def test_decay_goes_by_name_not_by_rank():
    leaf = jnp.zeros((3, 4))
    params = {
        "layers": {"mlp": {"kernel": leaf, "bias": leaf}, "norm": {"scale": leaf}},
        "embedding": leaf,
    }
    assert optimizer.decay_mask(params) == {
        "layers": {"mlp": {"kernel": True, "bias": False}, "norm": {"scale": False}},
        "embedding": True,
    }


def test_the_moves_of_a_crf_do_not_decay_and_lora_does():
    names = ("transitions", "starts", "ends", "lora_a", "lora_b")
    params = {"crf": {name: jnp.zeros((2, 2)) for name in names}}
    found = optimizer.decay_mask(params)["crf"]
    assert [found[name] for name in names] == [False, False, False, True, True]


@pytest.mark.parametrize("schedule", optimizer.SCHEDULES)
def test_a_traced_peak_stands_in_for_the_rate(schedule):
    """Every schedule at 0.25 is that of a configuration with this rate."""
    settings = {"schedule": schedule, "warmup_steps": 3, "end_learning_rate": 0.01}
    given = CONFIG(learning_rate=0.7, **settings)
    steps = jnp.arange(11)

    @jax.jit
    def rates(peak):
        return jax.vmap(optimizer.learning_rate(given, 10, peak=peak))(steps)

    wanted = optimizer.learning_rate(CONFIG(learning_rate=0.25, **settings), 10)
    expected = [float(wanted(jnp.int32(step))) for step in steps]
    np.testing.assert_allclose(rates(jnp.float32(0.25)), expected, rtol=1e-6)


def test_parameter_without_a_rule_is_refused():
    params = {"layers": {"gamma": jnp.zeros(3)}}
    transform = optimizer.make(CONFIG(learning_rate=0.1), 10)
    with pytest.raises(errors.InputError, match="layers/gamma matches no rule"):
        transform.init(params)


# An unrolled reference in float64: one dict of flat names, no stacking.
SHAPES = {
    "embedding": (5, 3),
    "layers.0.kernel": (3, 4),
    "layers.1.kernel": (3, 4),
    "layers.0.bias": (4,),
    "layers.1.bias": (4,),
    "layers.0.scale": (4,),
    "layers.1.scale": (4,),
}


def orthogonal(matrix):
    """Five Newton-Schulz steps with the coefficients of Jordan et al. 2024."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def reference_steps(params, all_grads, config, rates):
    """Clipped AdamW, StableAdamW, LAMB or Muon, leaf by leaf, with corrected bias."""
    params = {name: value.astype(np.float64) for name, value in params.items()}
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    momentum = {name: np.zeros_like(value) for name, value in params.items()}
    for t, (grads, rate) in enumerate(zip(all_grads, rates, strict=True), start=1):
        norm = math.sqrt(
            sum(float(np.sum(g.astype(float) ** 2)) for g in grads.values())
        )
        factor = min(1.0, config.max_grad_norm / norm)
        for name in params:
            g = grads[name].astype(np.float64) * factor
            m[name] = config.beta1 * m[name] + (1 - config.beta1) * g
            v[name] = config.beta2 * v[name] + (1 - config.beta2) * g * g
            m_hat = m[name] / (1 - config.beta1**t)
            v_hat = v[name] / (1 - config.beta2**t)
            update = m_hat / (np.sqrt(v_hat) + config.epsilon)
            if config.name == "muon" and "kernel" in name:
                momentum[name] = 0.95 * momentum[name] + 0.05 * g
                ahead = 0.95 * momentum[name] / (1 - 0.95 ** (t + 1))
                update = orthogonal(ahead + 0.05 * g / (1 - 0.95**t))
                update = update * 0.2 * math.sqrt(max(g.shape))
            if "kernel" in name or "embedding" in name:
                update = update + config.weight_decay * params[name]
                if config.name == "lamb":
                    w, u = np.linalg.norm(params[name]), np.linalg.norm(update)
                    update = update * (w / u if w > 0 and u > 0 else 1.0)
            if config.name == "stable_adamw":
                ratio = g * g / np.maximum(v_hat, config.epsilon**2)
                update = update / max(1.0, math.sqrt(ratio.mean()))
            params[name] = params[name] - rate * update
    return params


def stacked(flat):
    def stack(name):
        return jnp.stack([flat[f"layers.0.{name}"], flat[f"layers.1.{name}"]])

    layers = {name: stack(name) for name in ("kernel", "bias", "scale")}
    return {"embedding": jnp.asarray(flat["embedding"]), "layers": layers}


@pytest.mark.parametrize("name", optimizer.NAMES)
@pytest.mark.parametrize("max_grad_norm", [0.7, 1000.0])
def test_stacked_layers_equal_the_unrolled_reference(name, max_grad_norm):
    config = CONFIG(
        learning_rate=0.02, name=name, weight_decay=0.1, max_grad_norm=max_grad_norm
    )
    rng = np.random.default_rng(3)

    def draw(scale):
        sizes = {"layers.1.kernel": 9.0 * scale, "layers.1.bias": 4.0 * scale}
        return {
            name: rng.normal(0, sizes[name] if name in sizes else scale, shape).astype(
                np.float32
            )
            for name, shape in SHAPES.items()
        }

    flat, grads = draw(0.5), [draw(1.0) for _ in range(3)]
    flat["layers.0.kernel"][:] = 0  # norm zero: the ratio is 1 at the first step
    transform = optimizer.make(config, 10)
    params, state = stacked(flat), transform.init(stacked(flat))
    for grad in grads:
        updates, state = transform.update(stacked(grad), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    expected = reference_steps(flat, grads, config, [0.02, 0.018, 0.016])
    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(
            found, np.asarray(wanted), rtol=3e-5, atol=3e-6
        ),
        params,
        stacked(expected),
    )


@pytest.mark.parametrize(
    ("path", "shape", "matrices"),
    [
        ("attention/query", (2, 8, 2, 4), lambda x: x.reshape(2, 8, 8)),
        ("attention/output", (2, 2, 4, 8), lambda x: x.reshape(2, 8, 8)),
        (
            "attention/query_key_value",
            (2, 8, 3, 2, 4),
            lambda x: np.moveaxis(x, 2, 1).reshape(6, 8, 8),
        ),
        ("intermediate", (2, 8, 16), lambda x: x),
        ("output", (2, 16, 8), lambda x: x),
        (
            "intermediate",
            (2, 8, 2, 16),
            lambda x: np.moveaxis(x, 2, 1).reshape(4, 8, 16),
        ),
    ],
)
def test_muon_makes_each_matrix_of_a_kernel_orthogonal(path, shape, matrices):
    """Singular values of an update are about 0.2 sqrt(larger side), of each matrix."""
    grad = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    tree = {"kernel": jnp.asarray(grad)}
    for name in reversed(("layers", *path.split("/"))):
        tree = {name: tree}
    config = CONFIG(
        learning_rate=1.0, name="muon", weight_decay=0.0, schedule="constant"
    )
    transform = optimizer.make(config, 10)
    updates, _ = transform.update(tree, transform.init(tree), tree)
    (update,) = jax.tree.leaves(updates)
    for matrix in matrices(np.asarray(update)):
        values = np.linalg.svd(matrix, compute_uv=False)
        expected = 0.2 * math.sqrt(max(matrix.shape))
        assert 0.6 * expected < values.min() and values.max() < 1.3 * expected


def test_only_what_is_surprised_steps_less_far():
    """Gradients of one layer grow a hundredfold; the rate of the others stays."""
    options = {"learning_rate": 0.02, "weight_decay": 0.0, "max_grad_norm": 1e6}
    stable, plain = (
        optimizer.make(CONFIG(name=name, schedule="constant", **options), 10)
        for name in ("stable_adamw", "adamw")
    )
    rng = np.random.default_rng(3)
    flat = {k: rng.normal(0, 1, s).astype(np.float32) for k, s in SHAPES.items()}
    grads = {k: np.sign(x) for k, x in flat.items()}
    later = grads | {"layers.1.kernel": 100 * grads["layers.1.kernel"]}
    made = []
    for transform in (stable, plain):
        state = transform.init(stacked(flat))
        for grad in (grads, later):
            updates, state = transform.update(stacked(grad), state, stacked(flat))
        made.append(updates)
    ratio = jax.tree.map(lambda one, other: np.asarray(other / one), *made)
    # v = (0.999 * 0.001 * 1 + 0.001 * 100^2) / (1 - 0.999^2) after two steps.
    expected = 100 / math.sqrt((0.000999 + 10) / (1 - 0.999**2))
    np.testing.assert_allclose(ratio["layers"]["kernel"][1], expected, rtol=1e-3)
    assert expected > 1.4
    for others in (ratio["layers"]["kernel"][0], ratio["layers"]["bias"]):
        np.testing.assert_allclose(others, 1.0, rtol=1e-5)


SCALED = {
    "embedding": 0.0,
    "layers": {
        "kernel": np.array([0.0, 0.5]).reshape(2, 1, 1),
        "bias": np.array([0.0, 0.5]).reshape(2, 1),
        "scale": 1.0,
    },
}


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_scales_multiply_updates_and_what_is_frozen_is_outside_the_norm(name):
    config = CONFIG(learning_rate=0.02, name=name, weight_decay=0.1, max_grad_norm=0.7)
    rng = np.random.default_rng(3)
    flat = {k: rng.normal(0, 1, s).astype(np.float32) for k, s in SHAPES.items()}
    grads = {k: rng.normal(0, 1, s).astype(np.float32) for k, s in SHAPES.items()}
    frozen = ("embedding", "layers.0.kernel", "layers.0.bias")
    huge = {k: g * 1e5 if k in frozen else g for k, g in grads.items()}
    params = stacked(flat)
    transform = optimizer.make(config, 10, scales=SCALED)
    state = transform.init(params)
    updates, _ = jax.jit(transform.update)(stacked(huge), state, params)
    after = jax.tree.map(jnp.add, params, updates)
    np.testing.assert_array_equal(after["embedding"], flat["embedding"])
    np.testing.assert_array_equal(after["layers"]["kernel"][0], flat["layers.0.kernel"])
    np.testing.assert_array_equal(after["layers"]["bias"][0], flat["layers.0.bias"])
    # Those that move, by the reference without the others.
    moving = [k for k in SHAPES if k not in frozen]
    alone = [{k: x[k] for k in moving} for x in (flat, grads)]
    expected = reference_steps(alone[0], [alone[1]], config, [0.02])
    for key in ("layers.1.kernel", "layers.1.bias"):
        expected[key] = flat[key] + 0.5 * (expected[key] - flat[key])
    found = stacked(flat | expected)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=3e-5, atol=3e-6),
        after,
        found,
    )


def test_without_scales_and_averages_the_state_is_as_it_was():
    params = stacked({k: np.ones(s, np.float32) for k, s in SHAPES.items()})
    plain = optimizer.make(CONFIG(learning_rate=0.1), 10).init(params)
    assert len(plain) == 4  # the layout of checkpoints
    both = optimizer.make(
        CONFIG(learning_rate=0.1), 10, scales=SCALED, average_decay=0.5
    )
    assert len(both.init(params)) == 7
