"""Real processes over gloo: the run of one process, whatever shares it."""

import itertools

import many_processes
import pytest
import tiny_run

from bert_jax.foundation import faults

STEPS = 12

# Each starts two to four processes: minutes, where two cores are busy.
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, `tiny.py` that trains on it, and its store."""
    folder = tmp_path_factory.mktemp("pod")
    return tiny_run.write_file(
        folder,
        mesh__data=-1,
        data__store=str(folder / "store"),
        run__log_examples=True,
        run__num_train_steps=STEPS,
        run__eval_every_steps=STEPS,
        run__save_every_steps=2,
    )


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
    found, expected = many_processes.losses(place / name), many_processes.losses(alone)
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1))
    assert found == pytest.approx(expected, abs=1e-5)
    assert_same_rows(
        many_processes.examples(place / name), many_processes.examples(alone), copies
    )
    # The right process tells: one bar, one table, one set of files.
    assert "MLM accuracy is" in (place / f"{name}-said" / "0.out").read_text()
    other = (place / f"{name}-said" / "1.out").read_text()
    assert is_of_gloo(other), other


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
    assert many_processes.losses(store) == pytest.approx(
        many_processes.losses(alone), abs=1e-5
    )
    assert_same_rows(many_processes.examples(store), many_processes.examples(alone))


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
        assert "the config" in message and "process" in message
        assert "Traceback" not in message
    assert not (place / "x").exists()


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
