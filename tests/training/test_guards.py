"""Steps that are not finite, spikes of the loss, and a run that hangs."""

import json
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import errors
from bert_jax.training import guards

NAMES = ("seed 4", "seed 5", "seed 6")
NAN = float("nan")


class Sweep:
    """Members with a standing, and what is told of them."""

    def __init__(self, max_bad_steps=1, now=None):
        self.told, self.now = [], now or guards.LoopState()
        self.members = guards.NonFiniteGuard(
            {n: lambda step, n=n: [f"{step}/{n[-1]}{x}" for x in "ab"] for n in NAMES},
            loop_state=self.now,
            report=lambda step, event: self.told.append((step, event)),
            max_bad_steps=max_bad_steps,
        )

    def step(self, number, bad=(), batch=None, params=None):
        """Does a step in which the losses of some members are NaN."""
        losses = np.array([1.0, 2.0, 4.0], np.float32)
        losses[list(bad)] = NAN
        found = np.ones((3, 4), bool)  # rate, loss, one gradient, norm
        found[list(bad), 1] = False
        metrics = {
            "loss": (losses, np.ones(3, np.float32)),
            "hits": (np.array([3, 5, 7]), np.array([4, 6, 8])),
            "grad_norm": (np.ones(3, np.float32), np.ones(3, np.float32)),
            "learning_rate": np.full(3, 0.1, np.float32),
            "finite": found,
        }
        batch = {"weights": jnp.ones((3, 2))} if batch is None else batch
        params = {"table": jnp.ones((3, 5, 2))} if params is None else params
        return self.members.filter(number, metrics, batch, params)


def test_the_others_are_added_and_the_bad_one_is_told_and_counted():
    sweep = Sweep()
    assert sweep.step(1)["hits"] == (15.0, 18.0)
    sums = sweep.step(2, bad=[1])
    assert sums == {"loss": (5.0, 2.0), "hits": (10.0, 12.0), "grad_norm": (2.0, 2.0)}
    ((step, event),) = sweep.told
    assert step == 2 and event == {
        "event": "not_finite",
        "member": "seed 5",
        "reason": "the loss is nan",
        "loss": None,
        "grad_norm": 1.0,
        "examples": ["1/5a", "1/5b"],
    }
    assert sweep.now.bad_steps == {"seed 5": 1} and sweep.now.diverged == {}
    assert sweep.step(3)["hits"] == (15.0, 18.0)  # within the bound it goes on


def test_one_beyond_the_bound_is_out_and_looked_at_no_more():
    sweep = Sweep()
    for number in (1, 2, 3, 4):
        assert sweep.step(number, bad=[2])["loss"] == (3.0, 2.0)
    assert sweep.step(5)["loss"] == (3.0, 2.0)
    assert [(step, e["event"], e["member"]) for step, e in sweep.told] == [
        (1, "not_finite", "seed 6"),
        (2, "not_finite", "seed 6"),
        (2, "diverged", "seed 6"),
    ]
    assert (sweep.now.bad_steps, sweep.now.diverged) == ({"seed 6": 2}, {"seed 6": 2})
    assert sweep.members.examples(7) == [
        *("seed 4: 7/4a", "seed 4: 7/4b"),
        *("seed 5: 7/5a", "seed 5: 7/5b"),
    ]


def test_the_bound_is_of_each_member_and_the_last_one_ends_the_run():
    sweep = Sweep()
    assert sweep.step(1, bad=[0, 1, 2]) == {}  # no one is out
    sweep.step(2, bad=[0, 2])
    sweep.step(3)
    with pytest.raises(errors.NotFiniteError) as caught:
        sweep.step(4, bad=[1])
    message = str(caught.value)
    assert "no member of the sweep is left: step 4 of seed 5 is not finite" in message
    assert "the loss is nan" in message and "Its examples are 3/5a, 3/5b." in message
    assert "1 such steps were left out" in message and caught.value.exit_code == 4
    assert sweep.told[-1][1]["event"] == "diverged"


def test_the_first_bad_array_is_that_of_the_member():
    """Members 0 and 1 have bad arrays of their own, which are not those of member 2."""
    batch = {"weights": jnp.ones((3, 2)).at[0, 1].set(NAN)}
    params = {"table": jnp.ones((3, 5, 2)).at[1, 4, 0].set(jnp.inf)}
    sweep = Sweep()
    sweep.step(1, [0, 1, 2], batch, params)
    assert [event["reason"] for _, event in sweep.told] == [
        "the array weights of the batch has values that are not finite",
        "the parameter table has values that are not finite",
        "the loss is nan",
    ]


def test_counts_go_on_from_what_was_saved():
    sweep = Sweep(max_bad_steps=2)
    for number, bad in [(1, [0]), (2, [0, 1]), (3, [0])]:
        sweep.step(number, bad=bad)
    saved = {"standing": json.loads(json.dumps(sweep.now.to_json()))}
    resumed = Sweep(max_bad_steps=2, now=guards.LoopState.from_meta(saved))
    assert resumed.now == sweep.now and resumed.now.diverged == {"seed 4": 3}
    assert resumed.step(4, bad=[0, 1])["loss"] == (4.0, 1.0)
    resumed.step(5, bad=[1])
    assert resumed.now.diverged == {"seed 4": 3, "seed 5": 5}


def test_bad_parameters_put_out_their_member_before_a_save():
    sweep = Sweep()
    params = {"table": jnp.ones((3, 5, 2)).at[1, 4, 0].set(NAN)}
    sweep.members.check_params(3, params)
    sweep.members.check_params(6, params)
    ((step, event),) = sweep.told
    assert (step, event["event"], event["member"]) == (3, "diverged", "seed 5")
    assert event["reason"] == "the parameter table has values that are not finite"
    with pytest.raises(errors.NotFiniteError, match="after step 9 of seed 6 the par"):
        sweep.members.check_params(9, {"table": params["table"] * NAN})


def spikes(losses):
    now = guards.LoopState()
    return [step for step, loss in enumerate(map(float, losses)) if now.is_spike(loss)]


def test_a_loss_far_above_the_usual_is_a_spike():
    noise = np.random.default_rng(0).normal(0, 0.1, 300)
    losses = 5 - 0.002 * np.arange(300) + noise
    assert spikes(losses) == []
    losses[200] += 2.0
    assert spikes(losses) == [200]
    assert spikes(losses[:40]) == [] and spikes([1.0, 9.0, 1.0]) == []  # too early


def test_a_lower_loss_is_none():
    noise = np.random.default_rng(1).normal(0, 0.1, 200)
    noise[150] = -9.0
    assert spikes(5 + noise) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_no_spike_and_not_learnt(bad):
    noise = np.random.default_rng(3).normal(0, 0.1, 200)
    losses = 5 + noise
    losses[150] += 4.0
    assert spikes(np.insert(losses, 100, bad)) == [151]


def test_earlier_checkpoints_have_one_count_of_bad_steps():
    saved = {"interval": {}, "bad_steps": 2, "callbacks_due": False, "seen": 7}
    assert guards.LoopState.from_meta({"standing": saved}).bad_steps == {
        guards.SINGLE: 2
    }
    assert (
        guards.LoopState.from_meta({"standing": saved | {"bad_steps": 0}}).bad_steps
        == {}
    )


def test_what_is_saved_goes_on_as_if_never_stopped():
    losses = np.random.default_rng(2).normal(5, 0.2, 160)
    losses[150] = 9.0
    whole = guards.LoopState()
    part = guards.LoopState(interval={"loss": (1.5, 2.0)})
    for loss in losses[:100].tolist():
        assert whole.is_spike(loss) == part.is_spike(loss)
    part = guards.LoopState.from_meta(
        {"standing": json.loads(json.dumps(part.to_json()))}
    )
    assert part.interval == {"loss": (1.5, 2.0)}
    found = [
        (whole.is_spike(loss), part.is_spike(loss)) for loss in losses[100:].tolist()
    ]
    assert [x for x, _ in found] == [x for _, x in found]
    assert found[50] == (True, True)


def hang_in_the_collective(seconds):
    time.sleep(seconds)


def test_a_step_that_hangs_is_reported_once_with_the_stack_of_every_thread(capfd):
    with guards.Watchdog(1.0) as dog:
        dog.beat("step 17")
        hang_in_the_collective(2.5)
        dog.beat("step 18")
    told = capfd.readouterr().err
    assert told.count("watchdog: step 17 has taken") == 1
    assert "hang_in_the_collective" in told
    assert "run.watchdog_seconds" in told and "step 18 has" not in told


def test_what_moves_is_not_reported(capfd):
    with guards.Watchdog(3.0) as dog:
        for step in range(17):
            dog.beat(f"step {step}")
            time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_without_a_time_nothing_watches():
    before = set(threading.enumerate())
    with guards.Watchdog(0) as dog:
        dog.beat("step 1")
        assert set(threading.enumerate()) <= before
