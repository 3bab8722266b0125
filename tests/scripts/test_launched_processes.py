"""Two real processes, started as Slurm and as Kubernetes start them by our files."""

import json
import re
import sys
from pathlib import Path

import command_line
import launching
import many_processes
import pytest
import tiny_run
import yaml

pytestmark = pytest.mark.slow

STEPS = 600  # all hear of a signal after a second or two
FIRST = range(1, 13)  # which say enough where nothing stops the run
LAUNCH = command_line.ROOT / "scripts" / "launch"
CPU = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_COMPILATION_CACHE_DIR": str(command_line.ROOT / ".pytest_cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
SECONDS = 1800  # a run takes twenty where no core is busy
# Starts the processes of a step as srun does, and ends with their highest exit code.
# The second gets FAULTS.
SRUN = """
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_STEP_TASKS_PER_NODE=2
for id in 0 1; do
  export SLURM_PROCID=$id SLURM_LOCALID=$id
  timeout --signal=KILL 1790 "$@" >"$SAID/$id.out" 2>"$SAID/$id.err" &
  export BERT_JAX_FAULTS=$FAULTS
done
worst=0
for pid in $(jobs -p); do wait $pid; code=$?; ((code > worst)) && worst=$code; done
exit $worst
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus and `tiny.py` that trains on it."""
    folder = tmp_path_factory.mktemp("launched")
    corpus = tiny_run.write_corpus(folder / "text.txt")
    changes = {
        "mesh__data": -1,
        "optimizer__learning_rate": 1e-9,  # or rounding would grow over the steps
        "run__num_train_steps": STEPS,
        "run__eval_every_steps": STEPS,
        "run__save_every_steps": STEPS,
    }
    (folder / "tiny.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(tiny_run.__file__).parent)!r})\n"
        "import tiny_run\n"
        f"def get_config():\n    return tiny_run.config({str(corpus)!r}, **{changes})\n"
    )
    return folder


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {x["step"]: x["train/loss"] for x in lines if "train/loss" in x}


@pytest.fixture(scope="module")
def alone(place):
    """The losses of one process with two devices."""
    arguments = [f"--config={place / 'tiny.py'}", f"--workdir={place / 'alone'}"]
    said = place / "alone-said"
    codes = many_processes.run(1, 2, "pretrain", *arguments, folder=said)
    assert codes == [0], many_processes.errors_of(said)
    found = losses(place / "alone")
    assert found.keys() == set(range(1, STEPS + 1))
    return found


@pytest.fixture
def slurm(tmp_path):
    """Runs the job of slurm.sbatch with two processes; returns its end."""
    fake = launching.Fake(tmp_path)
    fake.link("timeout")
    fake.put("srun", SRUN)
    fake.put("scontrol", 'record scontrol "$@"')
    said = tmp_path / "said"
    said.mkdir()
    # JAX makes its port of the last twelve bits of the job's number.
    variables = CPU | {
        "SAID": str(said),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(command_line.ROOT),
        "JAX_COORDINATOR_PORT": str(many_processes.free_port()),
        "SLURM_JOB_ID": "4711",
        "SLURM_NTASKS": "2",
        "FAULTS": "",
    }

    def run(*arguments, **more):
        given = variables | more
        done = fake.run(LAUNCH / "slurm.sbatch", *arguments, seconds=SECONDS, **given)
        texts = [path.read_text() for path in sorted(said.glob("*.err"))]
        return done.returncode, fake.calls("scontrol"), "\n".join(texts)

    return run


def test_slurm_stops_requeues_and_goes_on(place, alone, slurm):
    """The run of one process, though its job was stopped and started again."""
    arguments = ["pretrain", f"--config={place / 'tiny.py'}"]
    arguments.append(f"--workdir={place / 'slurm'}")
    code, requeued, said = slurm(*arguments, FAULTS="loop/step=5:SIGTERM")
    assert code == 75, said
    assert requeued == [["requeue", "4711"]]
    assert said.count("error: stopped by a signal after step") == 2
    code, requeued, said = slurm(*arguments, SLURM_RESTART_COUNT="1")
    assert (code, len(requeued)) == (0, 1), said
    assert "resuming after step" in said
    assert losses(place / "slurm") == pytest.approx(alone, abs=1e-5)


def test_the_arguments_of_the_jobset_start_two_processes(place, alone):
    """As the kubelet fills them in, in pods without rights to ask the cluster."""
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (workers,) = jobset["spec"]["replicatedJobs"]
    pod = workers["template"]["spec"]["template"]["spec"]
    mine = {
        "--config": place / "tiny.py",
        "--workdir": place / "pods",
        "--config.data.store": place / "pods" / "store",
    }
    port, said = many_processes.free_port(), place / "pods-said"
    running = []
    for index in range(workers["template"]["spec"]["completions"]):
        told = {"COORDINATOR": "localhost", "JOB_COMPLETION_INDEX": str(index)}
        module, *words = (
            re.sub(r"\$\((\w+)\)", lambda name, told=told: told[name[1]], word)
            for word in pod["containers"][0]["args"]
        )
        names = [word.partition("=")[0] for word in words]
        words = [
            f"{name}={mine[name]}" if name in mine else word.replace("8476", str(port))
            for name, word in zip(names, words, strict=True)
        ]
        pod_environment = told | {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
        running += many_processes.start(
            1,
            1,
            module.removeprefix("bert_jax."),
            *words,
            f"--config.run.num_train_steps={len(FIRST)}",
            folder=said / str(index),
            environments={0: pod_environment},
        )
    try:
        codes = [process.wait(SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    both = [many_processes.errors_of(said / str(index)) for index in (0, 1)]
    assert codes == [0, 0], both
    assert "kubernetes" not in " ".join(both)  # which is not installed, nor wanted
    first = {step: alone[step] for step in FIRST}
    assert losses(place / "pods") == pytest.approx(first, abs=1e-5)
