import json

import numpy as np
import pytest

from bert_jax.training import guards


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
