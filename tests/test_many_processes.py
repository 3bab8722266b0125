"""Real processes over gloo: the run of one process, whatever shares it."""

import itertools
import json
import signal
import time
from pathlib import Path

import many_processes
import pytest
import tiny_run

from bert_jax import faults

STEPS = 12

# Each starts two to four processes: minutes, where two cores are busy.
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, `tiny.py` that trains on it, and its store."""
    folder = tmp_path_factory.mktemp("pod")
    corpus = tiny_run.write_corpus(folder / "text.txt")
    changes = {
        "mesh__data": -1,
        "data__store": str(folder / "store"),
        "run__log_examples": True,
        "run__num_train_steps": STEPS,
        "run__eval_every_steps": STEPS,
        "run__save_every_steps": 2,
    }
    (folder / "tiny.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(tiny_run.__file__).parent)!r})\n"
        "import tiny_run\n"
        f"def get_config():\n    return tiny_run.config({str(corpus)!r}, **{changes})\n"
    )
    return folder


def train(place, name, count, devices, *more):
    """Trains in a folder of that name; returns the exit codes."""
    return many_processes.run(
        count,
        devices,
        "pretrain",
        f"--config={place / 'tiny.py'}",
        f"--workdir={place / name}",
        *more,
        folder=place / f"{name}-said",
    )


@pytest.fixture(scope="module")
def alone(place):
    """The workdir of one process with two devices."""
    codes = train(place, "alone", 1, 2)
    assert codes == [0], many_processes.errors_of(place / "alone-said")
    return place / "alone"


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {x["step"]: x["train/loss"] for x in lines if "train/loss" in x}


def examples(workdir):
    """Returns {step: [(name, checksum) of every row that any process made]}."""
    rows = {}
    for path in sorted(workdir.glob("examples-*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            pairs = list(zip(line["examples"], line["crc32"], strict=True))
            rows.setdefault(line["step"], []).append(pairs)
    return rows


def assert_same_rows(found, expected, copies=1):
    """The rows of all processes together are the batch, in its order."""
    assert found.keys() == expected.keys()
    for step, (whole,) in expected.items():
        parts = found[step][:: copies if copies > 1 else 1]
        assert [row for part in parts for row in part] == whole


GLOO = (
    "[Gloo] Rank  is connected to  peer ranks. "
    "Expected number of connected peer ranks is : \n"
)


def is_of_gloo(said):
    """Whether a text is Gloo's message, so often: its threads mix their characters."""
    kept = [character for character in said if not character.isdigit()]
    return sorted(kept) == sorted(GLOO * said.count("\n"))


def test_two_threads_of_gloo_may_mix_their_messages():
    one, other = GLOO.replace("  ", " 1 ").replace(": ", ": 1"), GLOO
    mixed = "".join(a + b for a, b in itertools.zip_longest(one, other, fillvalue=""))
    assert is_of_gloo("") and is_of_gloo(one + other) and is_of_gloo(mixed)
    assert not is_of_gloo(mixed + "MLM accuracy is 1\n")


# Processes, devices of each, mesh, and how many processes load the same rows.
CASES = [
    (2, 2, "data=4", 1),
    (2, 2, "fsdp=4", 1),
    (2, 2, "tensor=4", 2),
    (4, 2, "data=8", 1),
    (4, 2, "fsdp=8", 1),
    (4, 2, "fsdp=2,tensor=4", 2),  # it has four heads to cut
]


@pytest.mark.parametrize(
    ("count", "devices", "mesh", "copies"),
    [
        CASES[0],
        *(pytest.param(*case, marks=slow) for case in CASES[1:]),
    ],
)
def test_several_processes_are_one(place, alone, count, devices, mesh, copies):
    name = f"{count}-{mesh}"
    sizes = mesh.split(",") if "data" in mesh else ["data=1", *mesh.split(",")]
    more = [f"--config.mesh.{size}" for size in sizes]
    codes = train(place, name, count, devices, *more)
    assert codes == [0] * count, many_processes.errors_of(place / f"{name}-said")
    found, expected = losses(place / name), losses(alone)
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1))
    assert found == pytest.approx(expected, abs=1e-5)
    assert_same_rows(examples(place / name), examples(alone), copies)
    # The right process tells: one bar, one table, one set of files.
    assert "MLM accuracy is" in (place / f"{name}-said" / "0.out").read_text()
    other = (place / f"{name}-said" / "1.out").read_text()
    assert is_of_gloo(other), other


@slow
def test_a_run_moves_between_meshes_and_process_counts(place, alone):
    """Two processes of two devices, one of two, then two of one, over fsdp."""
    name = "elastic"
    parts = [(2, 2, 5, "data"), (1, 2, 9, "data"), (2, 1, 0, "fsdp")]
    for count, devices, killed, axis in parts:
        mesh = {"data": 1} | {axis: -1}
        more = [f"--config.mesh.{a}={size}" for a, size in mesh.items()]
        fault = f"loop/step={killed}:SIGKILL" if killed else ""
        codes = many_processes.run(
            count,
            devices,
            "pretrain",
            f"--config={place / 'tiny.py'}",
            f"--workdir={place / name}",
            *more,
            folder=place / f"{name}-said",
            environments={index: {faults.VARIABLE: fault} for index in range(count)},
            heartbeat_seconds=10,
        )
        said = many_processes.errors_of(place / f"{name}-said")
        if killed:
            assert -signal.SIGKILL in codes and 0 not in codes, said
        else:
            assert codes == [0] * count, said
    assert losses(place / name) == pytest.approx(losses(alone), abs=1e-5)
    rows = examples(place / name)
    assert_same_rows(rows, examples(alone))


def wait_for(path, words, seconds=120):
    """Waits until a process has said something."""
    until = time.monotonic() + seconds
    while words not in path.read_text():
        assert time.monotonic() < until, path.read_text()[-2000:]
        time.sleep(0.1)


@slow
def test_a_process_that_is_lost_ends_the_others_and_the_run_goes_on(place, alone):
    said = place / "lost-said"
    arguments = (f"--config={place / 'tiny.py'}", f"--workdir={place / 'lost'}")
    running = many_processes.start(
        2,
        1,
        "pretrain",
        *arguments,
        folder=said,
        environments={1: {faults.VARIABLE: "loop/step=5:SIGKILL"}},
        heartbeat_seconds=10,
    )
    codes = [process.wait(120) for process in running]
    assert codes[1] == -signal.SIGKILL
    assert codes[0] == 5, many_processes.errors_of(said)
    message = (said / "0.err").read_text()
    assert message.count("error: ") == 1
    *_, last = message.splitlines()
    assert last.startswith("error: another process of this run was lost, as process 0")
    codes = train(place, "lost", 2, 1)
    assert codes == [0, 0], many_processes.errors_of(said)
    assert losses(place / "lost") == pytest.approx(losses(alone), abs=1e-5)
    assert_same_rows(examples(place / "lost"), examples(alone))


@slow
def test_a_pair_whose_workdir_is_in_an_object_store(place, alone, tmp_path):
    """Each process has a copy of its own, on the machine of its own it might be on."""
    store, said = place / "bucket" / "run", place / "remote-said"
    arguments = (f"--config={place / 'tiny.py'}", f"--workdir=file://{store}")
    mesh = ("--config.mesh.data=1", "--config.mesh.fsdp=-1")
    for number, fault in enumerate(("loop/step=8:SIGKILL", "")):
        scratch = tmp_path / str(number)  # another machine
        scratch.mkdir()
        changed = {"TMPDIR": str(scratch), faults.VARIABLE: fault}
        codes = many_processes.run(
            2,
            2,
            "pretrain",
            *arguments,
            *mesh,
            folder=said,
            environments={0: changed, 1: changed},
            heartbeat_seconds=100 if fault == "" else 10,
        )
        went_on = codes == [0, 0]
        assert went_on == (fault == ""), many_processes.errors_of(said)
    assert losses(store) == pytest.approx(losses(alone), abs=1e-5)
    assert_same_rows(examples(store), examples(alone))


@slow
def test_an_error_of_one_is_told_by_all(place):
    """The processes were given different configs."""
    said = place / "differ-said"
    arguments = (
        "pretrain",
        f"--config={place / 'tiny.py'}",
        f"--workdir={place / 'x'}",
    )
    port = many_processes.free_port()
    running = []
    for index in range(2):
        running += many_processes.start(
            1,
            1,
            *arguments,
            f"--config.run.seed={index}",
            f"--coordinator=127.0.0.1:{port}",
            "--num_processes=2",
            f"--process_id={index}",
            folder=said / str(index),
        )
    codes = [process.wait(120) for process in running]
    assert codes == [2, 2], [many_processes.errors_of(said / str(i)) for i in (0, 1)]
    for index in range(2):
        message = (said / str(index) / "0.err").read_text()
        assert "the config is another one in process" in message
        assert "Traceback" not in message
    assert not (place / "x").exists()


@slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_of_two_stops_both_and_the_run_goes_on(place, number):
    """How far it comes differs; that it goes on from there does not."""
    name = f"signal-{number.name}"
    said = place / f"{name}-said"
    more = ["--config.run.num_train_steps=100000", "--config.run.save_every_steps=9999"]
    arguments = (f"--config={place / 'tiny.py'}", f"--workdir={place / name}", *more)
    running = many_processes.start(2, 1, "pretrain", *arguments, folder=said)
    wait_for(said / "0.err", "step 3/")
    running[1].send_signal(number)
    running[1].send_signal(number)
    codes = [process.wait(60) for process in running]
    assert codes == [75, 75], many_processes.errors_of(said)
    assert "stopped by a signal after step" in (said / "0.err").read_text()
    (saved,) = (int(x.name) for x in (place / name / "checkpoints").iterdir())
    assert sorted(losses(place / name)) == list(range(1, saved + 1))


@slow
def test_a_signal_while_two_compile_ends_both_at_once(place):
    said = place / "compiling-said"
    more = ["--config.model.num_hidden_layers=12", "--config.run.unroll=-1"]
    arguments = (f"--config={place / 'tiny.py'}", f"--workdir={place / 'long'}", *more)
    without = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    held = without | {faults.VARIABLE: "loop/step=1:SIGSTOP"}
    running = many_processes.start(
        2, 1, "pretrain", *arguments, folder=said, environments={0: without, 1: held}
    )
    status = Path(f"/proc/{running[1].pid}/status")
    wait_for(status, "State:\tT")
    running[1].send_signal(signal.SIGCONT)
    time.sleep(1)  # of the many that it compiles
    running[1].send_signal(signal.SIGTERM)
    codes = [process.wait(60) for process in running]
    assert codes == [75, 75], many_processes.errors_of(said)
    message = "stopped by SIGTERM, with nothing left to save"
    assert f"error: {message}" in (said / "1.err").read_text()
    assert f"process 1 of this run ended: {message}" in (said / "0.err").read_text()
    assert not list((place / "long" / "checkpoints").iterdir())


@slow
def test_flags_that_do_not_belong_together(place):
    for flags, words in [
        (["--coordinator=1.2.3.4:5"], "belong together"),
        (["--cluster=pod"], "--cluster is 'pod'; it is one of auto, none"),
        (
            ["--coordinator=host", "--num_processes=2", "--process_id=0"],
            "write HOST:PORT",
        ),
        (
            ["--coordinator=h:1", "--num_processes=2", "--process_id=2"],
            "number the 2 processes from 0 to 1",
        ),
    ]:
        said = place / "flags-said"
        codes = many_processes.run(1, 1, "pretrain", *flags, folder=said)
        assert codes == [2]
        assert words in (said / "0.err").read_text(), flags
