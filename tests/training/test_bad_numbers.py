"""NaN and infinity put into every place of a step: refused, and the place is named."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_loop
import small_model

from bert_jax import errors
from bert_jax.training import guards, loop, optimizer, sharding, state

BAD_STEP = 3  # counted from 1


def bad_batch(value):
    """A weight of the batch of step 3."""

    def batch_at(step):
        batch = small_model.batch_at(step)
        if step == BAD_STEP - 1:
            batch["row_weight"][11] = value
        return batch

    return {"batch_at": batch_at}


def bad_loss(value):
    """The loss of the tokens, by a number that the batch brings."""

    def losses(params, batch, key):
        sums, metrics = small_model.losses()(params, batch, key)
        wrong = jnp.where(batch["poison"].max() > 0, value, 0.0)
        token = sums["token"] + jax.lax.stop_gradient(wrong)
        return sums | {"token": token}, metrics | {"token_loss": (token, 1.0)}

    return {"losses": losses, "batch_at": poisoned}


def bad_gradient(value):
    """One element of one gradient; the loss is as it should be."""

    @jax.custom_vjp
    def through(x, poison):
        return x

    def forward(x, poison):
        return x, poison

    def backward(poison, g):
        wrong = jnp.where(poison > 0, value, g[1, 5])
        return g.at[1, 5].set(wrong), None

    through.defvjp(forward, backward)

    def losses(params, batch, key):
        poison = batch["poison"].max()
        layers = params["layers"]
        bias = through(layers["bias"], poison.astype(jnp.float32))
        changed = {**params, "layers": {**layers, "bias": bias}}
        return small_model.losses()(changed, batch, key)

    return {"losses": losses, "batch_at": poisoned}


def bad_parameter(value):
    """One element of one parameter, from the beginning."""

    def spoil(params):
        table = params["embedding"].at[7, 3].set(value)
        return {**params, "embedding": table}

    return {"spoil": spoil, "step": 1}


def bad_rate(value):
    """The learning rate of step 3; the optimizer is not asked."""

    def schedule(step):
        return jnp.where(step == BAD_STEP - 1, value, 0.01)

    return {"schedule": schedule}


def poisoned(step):
    batch = small_model.batch_at(step)
    return batch | {"poison": np.full(16, step == BAD_STEP - 1, np.int32)}


def run(saved, told, max_bad_steps=0, save_every_steps=1, **changes):
    """Trains the small model for five steps, saving after each."""
    change = {
        "batch_at": small_model.batch_at,
        "losses": small_model.losses(),
        "spoil": lambda params: params,
        "schedule": lambda step: jnp.float32(0.01),
    } | changes
    mesh = sharding.make_mesh(2, 2, 1)
    transform = optimizer.make(optimizer.OptimizerConfig(learning_rate=0.01), 100)
    shapes = state.abstract(small_model.init_fn, transform, mesh)
    begin = state.create(small_model.init_fn, jax.random.key(0), transform, mesh)
    begin = begin._replace(params=change["spoil"](begin.params))
    train_step = state.make_train_step(
        state.StepSpec(small_model.prepare, small_model.weights, change["losses"]),
        transform,
        change["schedule"],
        shapes,
        seed=1,
    )

    def save(step, current, now):
        saved[step] = jax.device_get(current.params)

    names = {guards.SINGLE: lambda step: [f"{step}/{row}" for row in range(16)]}
    limits = loop.Limits(5, 1, save_every_steps, max_bad_steps=max_bad_steps)
    return loop.run(
        small_loop.SmallRun(train_step, limits, examples_at=names),
        (sharding.to_devices(change["batch_at"](step), mesh) for step in range(9)),
        begin,
        guards.LoopState(),
        small_loop.SmallRecorder(
            report=lambda step, event: told.append((step, event)), save=save
        ),
    )


CASES = [
    (bad_batch, "the array row_weight of the batch has values that are not finite"),
    (bad_loss, "token_loss is {}"),
    (bad_gradient, "the gradient of layers/bias has values that are not finite"),
    (bad_parameter, "the parameter embedding has values that are not finite"),
    (bad_rate, "the learning rate is {}"),
]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("make", "words"), CASES, ids=lambda x: str(x)[:24])
def test_a_bad_number_is_refused_and_named(make, words, value):
    saved, told = {}, []
    changes = make(np.float32(value))
    step = changes.pop("step", BAD_STEP)
    with pytest.raises(errors.NotFiniteError) as caught:
        run(saved, told, **changes)
    assert caught.value.exit_code == 4
    message = str(caught.value)
    assert f"step {step} is not finite: {words.format(value)}" in message
    assert f"Its examples are {step - 1}/0, {step - 1}/1," in message
    assert list(saved) == list(range(1, step))  # none after the last good one
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(saved))
    ((told_step, event),) = told
    assert (told_step, event["event"], len(event["examples"])) == (
        step,
        "not_finite",
        16,
    )


@pytest.mark.parametrize("make", [bad_batch, bad_loss, bad_gradient, bad_rate])
def test_one_bad_step_may_be_left_out(make):
    saved, told = {}, []
    end = run(saved, told, max_bad_steps=1, **make(np.float32(np.nan)))
    assert int(end.step) == 5 and list(saved) == [1, 2, 3, 4, 5]
    chex.assert_trees_all_equal(saved[3], saved[2])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), saved[4], saved[3])
    assert min(jax.tree.leaves(moved)) > 0
    assert len(told) == 1


def test_what_stays_bad_is_not_left_out_for_ever():
    saved, told = {}, []
    changes = bad_parameter(np.float32(np.nan))
    changes.pop("step")
    with pytest.raises(errors.NotFiniteError, match="2 such steps were left out"):
        run(saved, told, max_bad_steps=2, save_every_steps=9, **changes)
    assert [step for step, _ in told] == [1, 2, 3]


def test_parameters_that_went_bad_are_never_saved():
    """Left out once, step 1 would be saved; its parameters must not be."""
    saved, told = {}, []
    changes = bad_parameter(np.float32(np.inf))
    changes.pop("step")
    with pytest.raises(
        errors.NotFiniteError, match="embedding has values .* not saved"
    ):
        run(saved, told, max_bad_steps=5, **changes)
    assert saved == {}


def test_a_norm_beyond_float32_is_refused():
    def losses(params, batch, key):
        sums, metrics = small_model.losses()(params, batch, key)
        large = jnp.float32(3e19) * sum(x.sum() for x in jax.tree.leaves(params))
        return sums | {"token": large}, metrics

    with pytest.raises(errors.NotFiniteError, match="the gradient norm is inf|not fin"):
        run({}, [], losses=losses)
