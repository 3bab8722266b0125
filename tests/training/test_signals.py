import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from jax.experimental import multihost_utils

from bert_jax import errors
from bert_jax.foundation import interrupts
from bert_jax.training import signals


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
        assert stop.name == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) == before
    assert interrupts.requested() is None


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
def test_before_and_after_the_loop_a_signal_is_acted_on_at_the_next_check(number):
    before = signal.getsignal(number)
    done = []
    with pytest.raises(errors.Stopped, match=f"stopped by {number.name}, with nothing"):
        with signals.stopping():
            try:
                os.kill(os.getpid(), number)
                done.append("not interrupted")
                interrupts.check()
                done.append("not stopped")
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                interrupts.check()  # does not disturb
                done.append("cleaned up")
    assert done == ["not interrupted", "cleaned up"]
    assert signal.getsignal(number) == before


def test_a_signal_is_not_taken_for_what_fails():
    with pytest.raises(errors.Stopped, match="stopped by SIGTERM"):
        with signals.stopping():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                interrupts.check()
            except Exception as error:
                raise errors.StorageError("the disk is full") from error


def test_a_signal_when_all_is_done_is_not_lost():
    with pytest.raises(errors.Stopped, match="stopped by SIGINT when all was done"):
        with signals.stopping():
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_in_one_of_several_parts_stops_the_whole():
    done = []
    with pytest.raises(errors.Stopped), signals.stopping():
        for part in range(3):
            with signals.stopping():
                interrupts.check()
                done.append(part)
                os.kill(os.getpid(), signal.SIGINT)
    assert done == [0]


def test_a_second_ctrl_c_that_a_library_swallows_is_not_lost():
    with pytest.raises(KeyboardInterrupt), signals.stopping():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            pass
        interrupts.check()


def test_what_is_unsaved_is_finished_first():
    done = []
    with pytest.raises(errors.Stopped), signals.stopping():
        with interrupts.unsaved():
            os.kill(os.getpid(), signal.SIGTERM)
            interrupts.check()
            done.append("saved")
        interrupts.check()
        done.append("more")
    assert done == ["saved"]


def test_checks_in_other_threads_and_outside_of_a_run_do_nothing():
    interrupts.check()
    with pytest.raises(errors.Stopped), signals.stopping():
        os.kill(os.getpid(), signal.SIGTERM)
        other = threading.Thread(target=interrupts.check)
        other.start()
        other.join()


@pytest.mark.parametrize("do", [interrupts.run_in_thread, interrupts.run_interruptible])
def test_what_waits_is_abandoned_when_a_signal_comes(do):
    go_on = threading.Event()

    def wait():
        signal.raise_signal(signal.SIGTERM)
        return go_on.wait(60)

    with pytest.raises(errors.Stopped), signals.stopping():
        do(wait)
    assert not go_on.is_set()
    go_on.set()


COMPILING = """
import os, signal, sys, threading, time
import jax, jax.numpy as jnp
from bert_jax import errors
from bert_jax.foundation import interrupts
from bert_jax.training import signals

def deep(x):
    for _ in range(800):
        x = jnp.sin(x @ x) + jnp.cos(x)
    return x

def compile():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    jax.jit(deep)(jnp.ones((8, 8)))
    print("compiled", flush=True)

try:
    with signals.stopping():
        interrupts.run_interruptible(compile)
except errors.Stopped:
    print("stopped", flush=True)
"""


def test_an_interpreter_that_ends_waits_for_a_thread_that_compiles():
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILING], env=environment, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split() == [b"stopped", b"compiled"]


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


def test_a_first_step_that_compiles_for_long_is_not_waited_for():
    go_on = threading.Event()

    def compile_for_long():
        signal.raise_signal(signal.SIGTERM)
        return go_on.wait(60)

    with signals.StopRequest() as stop:
        with pytest.raises(errors.Stopped, match="SIGTERM before the first step"):
            stop.run_interruptible(compile_for_long)
    assert not go_on.is_set()
    go_on.set()


def test_the_first_step_returns_and_raises_as_it_is():
    def fail():
        raise KeyError("as it is")

    with signals.StopRequest() as stop:
        assert stop.run_interruptible(lambda: 5) == 5
        with pytest.raises(KeyError, match="as it is"):
            stop.run_interruptible(fail)


def test_outside_of_the_loop_a_call_is_what_it_is():
    assert interrupts.run_interruptible(lambda: 5) == 5


OWNED = """
import sys, time
from bert_jax.foundation import interrupts
interrupts.own()
interrupts.begin()
interrupts._PATIENCE_SECONDS = interrupts._patience = 0.3
print("here", end=" ")  # is in the buffer when the process ends
def busy(seconds):
    print("ready", file=sys.stderr, flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
"""


@pytest.fixture
def owned():
    """Starts a program in a process that is owned; waits until it says `ready`."""
    started = []

    def start(program):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNED + program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_never_checks_is_ended(owned, number):
    process = owned("busy(60)")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (75, "here ")
    assert err == f"error: {interrupts.stopped_text(number.name)}\n"


def test_what_is_unsaved_is_not_ended_but_by_a_second_ctrl_c(owned):
    program = "with interrupts.unsaved():\n    busy({})\nprint('saved')\nbusy(60)"
    process = owned(program.format(1))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # as `timeout` does: the same Ctrl-C
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (75, "here saved\n")
    process = owned(program.format(60))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)  # Slurm's second one
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "here ")
    assert "ended at once" in err


def test_a_reader_that_reads_no_more_keeps_nobody_alive(owned):
    process = owned("busy(0)\nprint('x' * 1_000_000, flush=True)")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75


def test_a_child_by_fork_ends_as_usual_and_leaves_its_parent_alone(owned):
    process = owned(
        "import os, signal\n"
        "pid = os.fork()\n"
        "if not pid:\n    time.sleep(60)\n    os._exit(1)\n"
        "os.kill(pid, signal.SIGTERM)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM\n"
        "busy(1)\n"
        "interrupts.end(3)"
    )
    assert process.wait(30) == 3
