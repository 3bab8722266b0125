"""Three members of a sweep, one of them bad: refused alone, told, counted, put out."""

import json

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
