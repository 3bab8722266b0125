"""Processes that a test holds where they are, to send them signals there."""

import errno
import os
import time

import many_processes

from bert_jax.foundation import faults

# SIGHUP holds a process where it is, in Python, until a pipe is closed: its other
# threads continue, among them those by which processes detect each other.
HOLDING = """
import os, signal
signal.signal(signal.SIGHUP, lambda *_: open(os.environ["PIPE"]).read())
"""
HEARD = "Preemption sync counter is set"  # JAX, of a signal that all have heard of


def ended(running, seconds=100):
    return [process.wait(seconds) for process in running]


def errors_said(folder):
    """Returns the lines of errors of each process, without the word."""
    lines = [file.read_text().splitlines() for file in sorted(folder.glob("*.err"))]
    return [[x[7:] for x in of if x.startswith("error: ")] for of in lines]


def wait_until(seen, what, seconds=120):
    until = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < until, what()
        time.sleep(0.05)


def hold(pipe, index, point):
    """Returns the environments of a pair, one of which stops at a fault point."""
    os.mkfifo(pipe)
    path = f"{pipe.parent / 'holding'}:{many_processes.ROOT}"
    held = {"PYTHONPATH": path, "PIPE": str(pipe), faults.VARIABLE: f"{point}:SIGHUP"}
    talking = {"TF_CPP_MIN_LOG_LEVEL": "0"}  # JAX logs the messages it receives
    return {index: talking | held, 1 - index: talking}


def held(pipe, said):
    """Waits until a process is stopped; returns what to close to let it continue."""
    opened = []

    def is_held():
        try:
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            assert error.errno == errno.ENXIO, error  # nobody reads it
        return opened

    wait_until(is_held, lambda: many_processes.errors_of(said))
    return opened[0]


def wait_until_heard(said):
    """Waits until both processes have heard of a signal and agree where to stop."""
    wait_until(
        lambda: all(HEARD in file.read_text() for file in said.glob("*.err")),
        lambda: many_processes.errors_of(said),
    )
