import threading
import time

from bert_jax.training import guards


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
