import os
import signal
import threading

import pytest
from jax.experimental import multihost_utils

from bert_jax import errors
from bert_jax.training import processes, signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_noted_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with signals.StopRequest() as stop:
        assert signal.getsignal(number) != before
        assert not stop.requested()
        os.kill(os.getpid(), number)
        assert stop.requested()
        assert stop.name == number.name
        os.kill(os.getpid(), signal.SIGTERM)  # changes nothing
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) == before


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), signals.StopRequest():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_installs_nothing():
    seen = []

    def work():
        with signals.StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested()))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_and_after_the_loop_a_signal_raises_at_once(number):
    before = signal.getsignal(number)
    cleaned = []
    with pytest.raises(errors.Stopped, match=f"stopped by {number.name}, with nothing"):
        with signals.stopping():
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # does not disturb
                cleaned.append(True)
    assert cleaned == [True]
    assert signal.getsignal(number) == before


def test_a_signal_is_not_taken_for_what_fails():
    with pytest.raises(errors.Stopped, match="stopped by SIGTERM"):
        with signals.stopping():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Exception as error:
                raise errors.StorageError("the disk is full") from error


@pytest.mark.parametrize("do", [processes.apart, signals.unless_asked])
def test_what_waits_is_left_behind_when_a_signal_comes(monkeypatch, do):
    monkeypatch.setattr(processes, "_abandoned", [])
    go_on = threading.Event()

    def wait():
        signal.raise_signal(signal.SIGTERM)  # the main thread hears of it
        return go_on.wait(60)

    with pytest.raises(errors.Stopped), signals.stopping():
        do(wait)
    assert not go_on.is_set()
    go_on.set()
    assert processes._abandoned == [True]


def test_two_loops_never_ask_at_the_same_place(monkeypatch):
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    for _ in range(2):
        with signals.StopRequest() as stop:
            monkeypatch.setattr(stop, "_is_shared", True)
            assert not stop.requested()
            assert not stop.requested()
    first = asked[0]
    assert asked == [first, first + 1, first + 2, first + 3]


def test_a_first_step_that_compiles_for_long_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(processes, "_abandoned", [])
    go_on = threading.Event()

    def compile_for_long():
        signal.raise_signal(signal.SIGTERM)  # the main thread hears of it
        return go_on.wait(60)

    with signals.StopRequest() as stop:
        with pytest.raises(errors.Stopped, match="SIGTERM before the first step"):
            stop.unless_asked(compile_for_long)
    go_on.set()
    assert processes._abandoned == [True]


def test_the_first_step_returns_and_raises_as_it_is():
    def fail():
        raise KeyError("as it is")

    with signals.StopRequest() as stop:
        assert stop.unless_asked(lambda: 5) == 5
        with pytest.raises(KeyError, match="as it is"):
            stop.unless_asked(fail)


def test_outside_of_the_loop_a_call_is_what_it_is():
    assert signals.unless_asked(lambda: 5) == 5
