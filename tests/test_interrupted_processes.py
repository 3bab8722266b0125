"""Processes that are stopped, lost or moved to others: the run is the undisturbed one.

Prints what it measures: `pytest -m slow -n 0 -s tests/test_interrupted_processes.py`.
"""

import contextlib
import json
import os
import signal
import socket
import time

import many_processes
import pytest
import tiny_run
import tiny_suites
from held_processes import (
    HOLDING,
    ended,
    errors_said,
    held,
    hold,
    wait_until,
    wait_until_heard,
)

from bert_jax.foundation import faults, interrupts

STEPS = 60
HEARTBEAT_SECONDS = 10
OF_SPEED = ("train/tokens_per_second", "train/input_wait", "train/save_wait")

# Each case starts a pair twice: minutes, where two cores are busy.
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, `tiny.py` that trains on it, and what can hold a process."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "holding").mkdir()
    (folder / "holding" / "sitecustomize.py").write_text(HOLDING)
    return tiny_run.write_file(
        folder,
        mesh__data=-1,
        run__log_examples=True,
        run__num_train_steps=STEPS,
        run__eval_every_steps=30,
        run__save_every_steps=20,
    )


@pytest.fixture
def running():
    """Gets what tests start: what is left of it ends with them."""
    processes = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def start(place, running):
    """Starts processes in a folder of a name."""

    def begin(name, *more, url="", count=2, devices=1, **options):
        said, workdir = place / f"{name}-said", url or place / name
        arguments = f"--config={place / 'tiny.py'}", f"--workdir={workdir}", *more
        begun = many_processes.start(
            count, devices, "pretrain", *arguments, folder=said, **options
        )
        running.extend(begun)
        return begun, said

    return begin


@pytest.fixture(scope="module")
def undisturbed(place):
    """The workdir of a pair that nobody disturbed."""
    workdir, said = place / "undisturbed", place / "undisturbed-said"
    arguments = f"--config={place / 'tiny.py'}", f"--workdir={workdir}"
    codes = many_processes.run(2, 1, "pretrain", *arguments, folder=said)
    assert codes == [0, 0], many_processes.errors_of(said)
    return workdir


def metrics_of(workdir):
    """Returns what a run has logged, but how fast it was."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{n: x for n, x in line.items() if n not in OF_SPEED} for line in lines]


def record(workdir):
    """Returns all that a run has written of its steps."""
    metrics = metrics_of(workdir)
    assert [x["step"] for x in metrics if "train/loss" in x] == [*range(1, STEPS + 1)]
    logs = sorted(workdir.glob("examples-*.jsonl"))
    return metrics, {log.name: log.read_text() for log in logs}


def assert_goes_on(start, name, undisturbed):
    """The pair, started again, is to the bit the undisturbed one."""
    running, said = start(name)
    assert ended(running, 300) == [0, 0], many_processes.errors_of(said)
    assert record(undisturbed.parent / name) == record(undisturbed)


SIGTERM, SIGINT = signal.SIGTERM, signal.SIGINT


@slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_while_one_waits_for_the_other_to_be_started(start, index):
    port = many_processes.free_port()
    flags = f"--coordinator=127.0.0.1:{port}", "--num_processes=2"

    def is_there():
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    with contextlib.ExitStack() as stack:
        if index == 1:  # whose process 0 never answers
            server = stack.enter_context(socket.create_server(("127.0.0.1", port)))
            server.settimeout(120)
        running, said = start(
            f"alone-{index}", *flags, f"--process_id={index}", count=1
        )
        if index == 1:
            stack.enter_context(server.accept()[0])
        else:
            wait_until(is_there, lambda: many_processes.errors_of(said))
        running[0].send_signal(SIGTERM)
        since = time.monotonic()
        assert ended(running) == [75], many_processes.errors_of(said)
    print(f"alone-{index}: {time.monotonic() - since:.1f} s from the signal to the end")
    message = interrupts.stopped_text("SIGTERM")
    assert errors_said(said) == [[message]]


@pytest.mark.parametrize("index", [1, pytest.param(0, marks=slow)])
def test_a_signal_while_process_0_makes_what_the_other_waits_for(place, start, index):
    """Process 0 would take for ever."""
    name = f"start-{index}"
    pipe = place / f"{name}-pipe"
    environments = hold(pipe, 0, "vocabulary/before")
    running, said = start(name, environments=environments)
    opened = held(pipe, said)
    time.sleep(1)  # in which process 1 comes to where it waits
    running[index].send_signal(SIGTERM)
    since = time.monotonic()
    codes = ended(running)
    print(
        f"start, {index}: {time.monotonic() - since:.1f} s from the signal to the end"
    )
    os.close(opened)
    assert codes == [75, 75], many_processes.errors_of(said)
    message = interrupts.stopped_text("SIGTERM")
    expected = [[f"process {index} of this run ended: {message}"]] * 2
    expected[index] = [message]
    assert errors_said(said) == expected


@slow
def test_a_signal_while_two_compile_ends_both_at_once(place, start):
    more = ["--config.model.num_hidden_layers=12", "--config.run.unroll=-1"]
    pipe = place / "compile-pipe"
    environments = hold(pipe, 1, "loop/compile=1")
    for environment in environments.values():
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    running, said = start("compile", *more, environments=environments)
    os.close(held(pipe, said))
    time.sleep(1)  # of the many that it compiles
    running[1].send_signal(SIGTERM)
    since = time.monotonic()
    codes = ended(running)
    print(f"compile: {time.monotonic() - since:.1f} s from the signal to the end")
    assert codes == [75, 75], many_processes.errors_of(said)
    message = interrupts.stopped_text("SIGTERM")
    expected = [[f"process 1 of this run ended: {message}"], [message]]
    assert errors_said(said) == expected
    assert not list((place / "compile" / "checkpoints").iterdir())


POINTS = {
    "step": "loop/step=25",
    "save": "checkpoint/started=40",
    "eval": "loop/callback=30",
}


@slow
@pytest.mark.parametrize(
    ("phase", "index", "numbers"),
    [
        ("step", 1, [SIGTERM, SIGTERM]),
        ("step", 0, [SIGINT]),
        ("save", 1, [SIGTERM]),
        ("save", 0, [SIGTERM]),
        ("eval", 1, [SIGTERM]),
    ],
)
def test_a_signal_to_one_of_two_stops_both_and_the_run_goes_on(
    place, start, undisturbed, phase, index, numbers
):
    name = f"{phase}-{index}"
    pipe = place / f"{name}-pipe"
    running, said = start(name, environments=hold(pipe, index, POINTS[phase]))
    opened = held(pipe, said)
    for number in numbers:
        running[index].send_signal(number)
    since = time.monotonic()
    wait_until_heard(said)
    os.close(opened)
    codes = ended(running)
    print(f"{name}: {time.monotonic() - since:.1f} s from the signal to the end")
    assert codes == [75, 75], many_processes.errors_of(said)
    saved = max(int(x.name) for x in (place / name / "checkpoints").glob("[0-9]*"))
    message = f"stopped by a signal after step {saved} of {STEPS}, with everything "
    assert errors_said(said) == [[f"{message}saved: the same command resumes"]] * 2
    assert_goes_on(start, name, undisturbed)


@pytest.fixture
def suite(place, running):
    """Starts a pair on a suite of two tasks, of which process 1 is held at a point."""
    tiny_suites.write_glue(place)
    config = tiny_suites.SMALL | {
        "folder": place,
        "text.vocab": tiny_suites.tiny_tasks.write_vocab(place),
        "tasks": "cola,stsb",
        "sweep.seeds": 1,
        "run.num_train_steps": 12,
        "run.save_every_steps": 99,
        "mesh.data": -1,
    }

    def begin(name, environments=None):
        said = place / f"{name}-said"
        words = ["--config=configs/glue.py", f"--workdir={place / name}"]
        words += [f"--config.{key}={value}" for key, value in config.items()]
        begun = many_processes.start(
            2, 1, "suite", *words, folder=said, environments=environments
        )
        running.extend(begun)
        return begun, said

    return begin


def assert_suites_go_on(suite, *names):
    """The pairs, started again, come to the same end."""
    for name in names:
        running, said = suite(name)
        assert ended(running, 300) == [0, 0], many_processes.errors_of(said)
    for task in "cola", "stsb":
        one, *others = (metrics_of(said.parent / name / task) for name in names)
        assert others == [one] * len(others)
        assert [line["step"] for line in one] == [2, 4, 6, 8, 10, 12, 12]


@slow
def test_a_signal_in_the_second_task_of_a_suite_saves_it(place, suite):
    pipe = place / "suite-step-pipe"
    running, said = suite("suite-step", hold(pipe, 1, "loop/step=9"))
    os.close(held(pipe, said))
    first = place / "suite-step" / "results" / "cola.json"
    wait_until(first.exists, lambda: many_processes.errors_of(said))
    opened = held(pipe, said)
    running[1].send_signal(SIGTERM)
    wait_until_heard(said)
    os.close(opened)
    assert ended(running) == [75, 75], many_processes.errors_of(said)
    (saved,) = (place / "suite-step" / "stsb" / "checkpoints").glob("[0-9]*")
    message = f"stopped by a signal after step {saved.name} of 12, with everything "
    assert errors_said(said) == [[f"{message}saved: the same command resumes"]] * 2
    assert_suites_go_on(suite, "suite-step", "suite")


@slow
def test_a_signal_while_two_score_what_they_fine_tuned(place, suite):
    pipe = place / "suite-scores-pipe"
    running, said = suite("suite-scores", hold(pipe, 1, "finetune/scores"))
    held(pipe, said)
    running[1].send_signal(SIGTERM)
    assert ended(running) == [75, 75], many_processes.errors_of(said)
    message = interrupts.stopped_text("SIGTERM")
    expected = [[f"process 1 of this run ended: {message}"], [message]]
    assert errors_said(said) == expected
    assert_suites_go_on(suite, "suite-scores")


@slow
def test_one_that_has_nothing_to_upload_waits_for_the_other(place, start, tmp_path):
    """A signal to process 1, whose part is done while process 0 uploads for long."""
    workdir = place / "bucket" / "run"
    more = ["--config.run.save_every_steps=9999"]
    pipes = [place / f"upload-{index}-pipe" for index in (0, 1)]
    # The store of the run was uploaded before its first checkpoint.
    points = ["workdir/before_manifest=2", "loop/step=25"]
    environments = {}
    for index in (0, 1):
        (tmp_path / str(index)).mkdir()  # another machine
        scratch = {"TMPDIR": str(tmp_path / str(index))}
        environments[index] = hold(pipes[index], index, points[index])[index] | scratch
    running, said = start(
        "bucket", *more, url=f"file://{workdir}", environments=environments
    )
    opened = held(pipes[1], said)
    running[1].send_signal(SIGTERM)
    wait_until_heard(said)
    os.close(opened)
    opened = held(pipes[0], said)
    time.sleep(5)  # longer than processes wait for one that was told of a failure
    os.close(opened)
    assert ended(running) == [75, 75], many_processes.errors_of(said)
    (saved,) = (int(x.name) for x in (workdir / "checkpoints").glob("[0-9]*"))
    assert (workdir / "checkpoints" / str(saved) / "manifest.json").exists()
    message = f"stopped by a signal after step {saved} of {STEPS}, with everything "
    assert errors_said(said) == [[f"{message}saved: the same command resumes"]] * 2


@slow
@pytest.mark.parametrize("index", [0, 1])
def test_one_that_is_lost_ends_the_other_and_the_run_goes_on(
    place, start, undisturbed, index
):
    name = f"lost-{index}"
    running, said = start(
        name,
        environments={index: {faults.VARIABLE: "loop/step=25:SIGKILL"}},
        heartbeat_seconds=HEARTBEAT_SECONDS,
    )
    assert running[index].wait(300) == -signal.SIGKILL
    since = time.monotonic()
    code = running[1 - index].wait(100)
    took = time.monotonic() - since
    print(f"lost {index}: {took:.1f} s from the kill to the end of the other")
    assert code == 5, many_processes.errors_of(said)
    assert took < HEARTBEAT_SECONDS
    (message,) = errors_said(said)[1 - index]
    other = f"another process of this run was lost, as process {1 - index} sees it"
    assert message.startswith(other)
    assert_goes_on(start, name, undisturbed)


# Processes, devices of each, mesh axis, and the step at which all are killed.
MOVES = [(2, 2, "data", 15), (1, 2, "fsdp", 30), (2, 1, "fsdp", 45), (1, 1, "data", 0)]


@slow
def test_a_run_moves_between_meshes_and_process_counts(place, start, undisturbed):
    name = "elastic"
    for count, devices, axis, killed in MOVES:
        mesh = {"data": 1} | {axis: -1}
        fault = f"loop/step={killed}:SIGKILL" if killed else ""
        running, said = start(
            name,
            "--config.run.save_every_steps=10",
            *(f"--config.mesh.{of}={size}" for of, size in mesh.items()),
            count=count,
            devices=devices,
            environments={index: {faults.VARIABLE: fault} for index in range(count)},
            heartbeat_seconds=HEARTBEAT_SECONDS if killed else 100,
        )
        codes, told = ended(running, 300), many_processes.errors_of(said)
        assert (
            -signal.SIGKILL in codes and 0 not in codes if killed else not any(codes)
        ), told
    found = many_processes.losses(place / name)
    expected = many_processes.losses(undisturbed)
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1))
    worst = max(abs(found[step] - expected[step]) for step in expected)
    print(f"elastic: the losses of {STEPS} steps differ by {worst:.1e} at most")
    assert worst < 5e-6
    assert rows(place / name) == rows(undisturbed)


def rows(workdir):
    """Returns by step the name and checksum of every row, in the order of the batch."""
    parts = many_processes.examples(workdir)
    return {step: [row for part in of for row in part] for step, of in parts.items()}
