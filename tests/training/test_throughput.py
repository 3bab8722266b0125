import sys

import jax.numpy as jnp
import numpy as np
import pytest
import small_loop

from bert_jax import console
from bert_jax.training import guards, loop


class Clock:
    """A clock that shows what it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of meters, which only tests move."""
    clock = Clock()
    monkeypatch.setattr(loop.time, "perf_counter", clock)
    return clock


def with_peak(monkeypatch, flops):
    """Makes the devices a chip of this peak, in FLOP/s."""
    monkeypatch.setattr(loop, "_total_peak", lambda: flops)


# 50 tokens of 4 FLOP a step.
ALIKE = [loop.Segment(1000, 50, 4.0)]


def timed(clock, speed, seconds, step=1):
    for part in seconds:
        clock.now += part
        speed.step_done(step)


def test_compilation_and_pauses_are_not_counted(clock, monkeypatch):
    with_peak(monkeypatch, 1000.0)
    speed = loop.ThroughputMeter(ALIKE)
    timed(clock, speed, [30.0])  # the first step, with its compilation
    assert speed.read() == {}
    timed(clock, speed, [1.0, 2.0])
    clock.now += 500  # an evaluation
    speed.resume()
    timed(clock, speed, [2.0])
    # 3 steps of 50 tokens in 5 s; 30 tokens/s * 4 FLOP of 1000 FLOP/s.
    assert speed.read() == pytest.approx(
        {"tokens_per_second": 30.0, "input_wait": 0.0, "mfu": 0.12}
    )
    assert speed.read() == {}


def test_no_mfu_on_an_unknown_chip(clock):
    speed = loop.ThroughputMeter(ALIKE)
    timed(clock, speed, [1.0, 2.0])
    assert speed.read() == {"tokens_per_second": 25.0, "input_wait": 0.0}


def test_waiting_for_batches_is_a_share_of_the_time(clock):
    speed = loop.ThroughputMeter(ALIKE)

    def batches():
        for batch in "abc":
            clock.now += 1.0
            yield batch

    made = batches()
    assert speed.next_batch(made) == "a"  # before the first step ends: not counted
    timed(clock, speed, [9.0])
    assert speed.next_batch(made) == "b"
    timed(clock, speed, [3.0])
    assert speed.read() == {"tokens_per_second": 12.5, "input_wait": 0.25}
    timed(clock, speed, [1.0])
    assert speed.read()["input_wait"] == 0.0


class Computed:
    """An array on a device, which ends when it is told to."""

    def __init__(self):
        self.ended = False

    def is_ready(self):
        return self.ended


def test_no_one_waits_for_a_batch_while_the_devices_compute(clock):
    running = Computed()
    speed = loop.ThroughputMeter(ALIKE)
    speed.resume()

    def batches():
        while True:
            clock.now += 1.0
            yield "batch"

    made = batches()
    metrics = {"loss": (running, np.ones(()))}
    speed.next_batch(made, running=(1, metrics))
    speed.step_done(1)
    assert speed.read()["input_wait"] == 0.0
    running.ended = True
    speed.next_batch(made, running=(1, metrics))
    speed.step_done(2)
    assert speed.read()["input_wait"] == 1.0
    assert jnp.ones(()).is_ready()  # as arrays of JAX


def test_saving_is_a_share_of_all_the_time(clock):
    speed = loop.ThroughputMeter(ALIKE)
    speed.resume()
    timed(clock, speed, [3.0])
    with speed.saving():
        clock.now += 1.0
    speed.resume()
    assert speed.read()["save_wait"] == 0.25
    timed(clock, speed, [1.0])
    assert "save_wait" not in speed.read()


def test_stretches_cost_what_they_cost(clock, monkeypatch):
    with_peak(monkeypatch, 100.0)
    stretches = [loop.Segment(3, 10, 1.0), loop.Segment(5, 40, 2.0)]
    speed = loop.ThroughputMeter(stretches)
    for step in range(1, 6):
        timed(clock, speed, [1.0], step)
    # Steps 2 and 3, then 4 and 5: 20 + 80 tokens and 20 + 160 FLOP in 4 s.
    assert speed.read() == {"tokens_per_second": 25.0, "input_wait": 0.0, "mfu": 0.45}
    assert speed.seconds_left(0, 5, 10.0) == 11.0
    assert speed.seconds_left(2, 5, 10.0) == 9.0
    assert speed.seconds_left(4, 5, 10.0) == 4.0
    assert speed.seconds_left(5, 5, 10.0) == 0.0
    assert speed.seconds_left(1, 4, 10.0) == 6.0


def shown(steps, *lines, initial=0):
    """Shows lines of values, by their steps, of a run of this many steps."""
    with console.Bar(steps, "steps", "training", initial=initial) as bar:
        limits = loop.Limits(steps, 1, 1)
        meter = loop.ThroughputMeter(ALIKE)
        guard = guards.NonFiniteGuard({}, guards.LoopState(), print, 0)
        logger = loop.MetricsLogger(
            limits, guards.LoopState(), guard, small_loop.SmallRecorder(), meter, bar
        )
        bar.update()
        for step, values in lines:
            logger.show(step, values)


def test_lines_where_there_is_no_terminal(capsys):
    shown(
        100,
        (1, {"loss": 2.34567}),
        (40, {"loss": 1.5, "tokens_per_second": 12345.6, "mfu": 0.4567}),
        (90, {"tokens_per_second": 0.125}),
    )
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "step 1/100  loss 2.346",
        "step 40/100  loss 1.5  12,346 tokens/s  MFU 45.7%  ETA 0:00:00",
        "step 90/100  0 tokens/s  ETA 1:06:40",
    ]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown(8, (4, {"loss": 2.0}), initial=3)
    found = capsys.readouterr().err
    assert "4/8" in found and "loss 2" in found
