"""The files that start runs on pods, with what they call replaced by recorders."""

import os
import re
import subprocess
import tomllib

import command_line
import launching
import pytest
import yaml

from bert_jax.config import pretraining

ROOT = command_line.ROOT
LAUNCH = ROOT / "scripts" / "launch"
TPU_VM, SLURM = LAUNCH / "tpu_vm.sh", LAUNCH / "slurm.sbatch"
TPU_HOST = LAUNCH / "tpu_host.sh"
JOBSET, DOCKERFILE = LAUNCH / "jobset.yaml", ROOT / "Dockerfile"
PAGE = ROOT / "docs" / "pods.md"
ON_ALL = ["--worker=all", "--zone=us-west4-a"]


@pytest.fixture
def fake(tmp_path):
    return launching.Fake(tmp_path)


@pytest.mark.parametrize("path", [TPU_VM, TPU_HOST, SLURM], ids=lambda x: x.name)
def test_the_shell_can_read_it(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(TPU_VM, os.X_OK)


@pytest.mark.parametrize(
    ("arguments", "datum"),
    [
        ([], "''"),
        (["start", "pod"], "'start'"),
        (["create"], "tpu_vm.sh create NAME"),
        (["logs", "--worker=1"], "'--worker=1'"),
        (["run", "pod"], "run pod pretrain --config=... --workdir=..."),
        (["run", "pod", "--config=x"], "run pod pretrain"),
        (["create", "pod"], "gcloud"),
    ],
)
def test_what_is_missing_is_one_message(fake, arguments, datum):
    done = fake.run(TPU_VM, *arguments)  # without a gcloud
    assert done.returncode == 2
    (message,) = re.findall("^error: (.*)$", done.stderr, re.MULTILINE)
    assert datum in message


def test_the_usage_names_every_action_and_every_variable(fake):
    done = fake.run(TPU_VM, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for action in ("create", "install", "run", "logs", "stop", "delete"):
        assert f"tpu_vm.sh {action} NAME" in done.stdout
    used = set(re.findall(r"\$\{([A-Z]+):", TPU_VM.read_text()))
    assert used == {"ZONE", "TYPE", "VERSION", "SPOT", "NFS", "EXTRAS", "WORKER"}
    for name in used:
        assert re.search(rf"\b{name}=", done.stdout)


def test_a_slice_is_made_and_deleted(fake):
    fake.put("gcloud", launching.GCLOUD)
    assert fake.run(TPU_VM, "create", "pod").returncode == 0
    chosen = {"ZONE": "z", "TYPE": "v6e-8", "VERSION": "v2-alpha-tpuv6e", "SPOT": "1"}
    assert fake.run(TPU_VM, "create", "pod-2", **chosen).returncode == 0
    assert fake.run(TPU_VM, "delete", "pod", ZONE="z").returncode == 0
    tpu = ["compute", "tpus", "tpu-vm"]
    assert fake.calls("gcloud") == [
        [*tpu, "create", "pod", "--accelerator-type=v5litepod-16"]
        + ["--version=v2-alpha-tpuv5-lite", "--zone=us-west4-a"],
        [*tpu, "create", "pod-2", "--accelerator-type=v6e-8"]
        + ["--version=v2-alpha-tpuv6e", "--spot", "--zone=z"],
        [*tpu, "delete", "pod", "--quiet", "--zone=z"],
    ]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="it copies the last commit")
def test_the_last_commit_is_installed_on_all_hosts(fake):
    fake.put("gcloud", launching.GCLOUD)
    for name in ("git", "tar", "gzip"):
        fake.link(name)
    for name, code in (("sudo", 0), ("python3", 0), ("mountpoint", 1)):
        fake.put(name, f'record {name} "$@"; exit {code}')
    (fake.home / "bert_jax").mkdir()
    (fake.home / "bert_jax" / "of_an_older_commit").touch()
    done = fake.run(TPU_VM, "install", "pod", NFS="10.0.0.2:/share", EXTRAS="tpu,zh")
    assert done.returncode == 0, done.stderr
    copied, *told = fake.calls("gcloud")
    assert copied[3] == "scp" and copied[-3:] == ["pod:bert_jax.tar.gz", *ON_ALL]
    for call in told:
        assert call[3:5] == ["ssh", "pod"] and "--worker=all" in call
    assert (fake.home / "bert_jax" / "pyproject.toml").exists()
    assert not (fake.home / "bert_jax" / "of_an_older_commit").exists()
    mount = ["mount", "-t", "nfs", "10.0.0.2:/share", "/shared"]
    assert fake.calls("sudo")[-1] == mount
    pip, environment, install = fake.calls("python3")
    assert pip[:3] == ["-m", "pip", "install"]
    assert environment[:3] == ["-m", "uv", "venv"]
    python = f"{fake.home}/env/bin/python"
    assert install[-4:] == ["--python", python, "-e", ".[tpu,zh]"]


def installed(fake):
    """Puts there what `install` copies to a host, without its needs."""
    (fake.home / "bert_jax" / "scripts" / "launch").mkdir(parents=True)
    (fake.home / "bert_jax" / "scripts" / "launch" / TPU_HOST.name).symlink_to(TPU_HOST)


def test_no_disk_is_mounted_unless_it_is_named(fake):
    installed(fake)
    for name in ("sudo", "python3"):
        fake.put(name, f'record {name} "$@"')
    done = fake.run(TPU_HOST, "install", "data,tpu", "")
    assert done.returncode == 0, done.stderr
    assert not fake.calls("sudo") and len(fake.calls("python3")) == 3


def test_a_run_is_started_watched_and_stopped_on_all_hosts(fake):
    """The log has all it said, and its exit code; words arrive as they were typed."""
    fake.put("gcloud", launching.GCLOUD)
    for name in ("cat", "nohup", "sleep", "tail", "bash"):
        fake.link(name)
    installed(fake)
    fake.put("python", launching.TRAINS, folder=fake.home / "env" / "bin")
    words = [
        "--config=configs/pretrain.py:base",
        "--workdir=/shared/a b",
        "--x='\"$ 北",
    ]
    done = fake.run(TPU_VM, "run", "pod", "pretrain", *words)
    assert done.returncode == 0, done.stderr
    launching.wait_for(fake.home / "run.log", "training")
    again = fake.run(TPU_VM, "run", "pod", "pretrain", *words)
    assert again.returncode == 2
    assert re.fullmatch("error: .*\n", again.stderr)
    assert fake.run(TPU_VM, "stop", "pod").returncode == 0
    launching.wait_for(fake.home / "run.log", "exit code 75")
    assert fake.calls("python") == [["-m", "bert_jax.pretrain", *words]]
    for call in fake.calls("gcloud"):
        assert call[3:5] == ["ssh", "pod"] and "--worker=all" in call
    fake.put("tail", 'record tail "$@"')
    fake.run(TPU_VM, "logs", "pod", WORKER="3")
    assert fake.calls("tail") == [["-n", "100", "-f", f"{fake.home}/run.log"]]
    assert "--worker=3" in fake.calls("gcloud")[-1]


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (75, 0, True), (75, 99, True), (75, 100, False)]
    + [(code, 0, False) for code in (1, 2, 3, 4, 5, 137, 143)],
)
def test_slurm_takes_back_what_was_saved(fake, code, restarts, requeued):
    fake.put("srun", f'record srun "$@"; exit {code}')
    fake.put("scontrol", 'record scontrol "$@"')
    given = {"SLURM_JOB_ID": "31", "SLURM_CPUS_PER_TASK": "3", "PYTHON": "py"}
    if restarts:
        given["SLURM_RESTART_COUNT"] = str(restarts)
    done = fake.run(SLURM, "pretrain", "--config=c.py", "--workdir=a b", **given)
    assert done.returncode == code
    assert fake.calls("srun") == [
        ["--kill-on-bad-exit=0", "--cpus-per-task=3", "py", "-m", "bert_jax.pretrain"]
        + ["--cluster=slurm", "--config=c.py", "--workdir=a b"]
    ]
    assert fake.calls("scontrol") == [["requeue", "31"]] * requeued


def test_slurm_is_asked_for_a_signal_and_a_requeue(fake):
    options = re.findall(r"^#SBATCH (\S+)$", SLURM.read_text(), re.MULTILINE)
    assert {"--requeue", "--signal=TERM@300", "--ntasks-per-node=1"} <= set(options)
    done = fake.run(SLURM, "--config=c.py")
    assert done.returncode == 2
    assert re.fullmatch("error: .*slurm.sbatch pretrain .*\n", done.stderr)


@pytest.fixture
def jobset():
    return yaml.safe_load(JOBSET.read_text())


def test_kubernetes_starts_as_many_as_wait_for_each_other(jobset):
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert (workers["replicas"], job["completionMode"]) == (1, "Indexed")
    (container,) = job["template"]["spec"]["containers"]
    assert job["completions"] == job["parallelism"]
    assert f"--num_processes={job['completions']}" in container["args"]
    assert "--process_id=$(JOB_COMPLETION_INDEX)" in container["args"]
    assert "--coordinator=$(COORDINATOR):8476" in container["args"]
    assert container["ports"] == [{"containerPort": 8476}]
    assert {each["name"] for each in container["env"]} == {
        "COORDINATOR",
        "JOB_COMPLETION_INDEX",
    }
    first = {"replicatedJob": "workers", "jobIndex": 0, "podIndex": 0}
    assert jobset["spec"]["coordinator"] == first
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(75, "RestartJobSetAndIgnoreMaxRestarts")]
    + [(code, "FailJobSet") for code in (2, 3, 4)]
    + [(code, "RestartJobSet") for code in (1, 5, 137, 143)],
)
def test_kubernetes_restarts_by_exit_code(jobset, code, outcome):
    assert launching.after_exit(jobset, code) == outcome


def test_kubernetes_gives_time_to_save(jobset):
    (workers,) = jobset["spec"]["replicatedJobs"]
    pod = workers["template"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy wants it
    assert pod["terminationGracePeriodSeconds"] == 300
    assert workers["template"]["spec"]["backoffLimit"] == 0


def test_the_image_has_what_it_copies_and_no_more():
    text = DOCKERFILE.read_text()
    copied = [words.split()[:-1] for words in re.findall("^COPY (.*)$", text, re.M)]
    names = {name for line in copied for name in line}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == names
    assert all((ROOT / name).exists() for name in names)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= names


def test_the_image_is_nobody_s_root_and_takes_the_extras_that_it_names(jobset):
    text = DOCKERFILE.read_text()
    assert re.findall("^USER (.*)$", text, re.M) == ["1000:1000"]
    (workers,) = jobset["spec"]["replicatedJobs"]
    pod = workers["template"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 1000
    assert 'ENTRYPOINT ["tini", "--", "python", "-m"]' in text
    assert pod["containers"][0]["args"][0] == "bert_jax.pretrain"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {"cuda12", "cuda13", "tpu", "data"} <= extras.keys()


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [("", "."), ("cuda13", ".[cuda13]"), ("data,tpu", ".[data,tpu]")],
)
def test_the_image_is_installed_for_the_chips_that_are_asked_for(fake, extra, wanted):
    (line,) = re.findall("^RUN (pip .*)$", DOCKERFILE.read_text(), re.M)
    script = fake.home / "run.sh"
    script.write_text(line)
    fake.put("pip", 'record pip "$@"')
    assert fake.run(script, EXTRA=extra).returncode == 0
    assert fake.calls("pip") == [["install", "--no-cache-dir", wanted]]


def test_every_flag_and_every_key_is_a_real_one(monkeypatch, capfd):
    """Those of the page and of the launch files, as the commands' own help has them."""
    help_of = {}
    for command, word in launching.flags_of(PAGE, TPU_VM, SLURM, JOBSET, DOCKERFILE):
        if command not in help_of:
            done = command_line.in_process(monkeypatch, capfd, command, "--help")
            help_of[command] = done.out
        name, _, key = word.partition(".")
        assert re.search(rf"^  --(\[no\])?{name}:", help_of[command], re.M), word
        if key and command != "finetune":
            group, field = key.split(".")
            assert field in pretraining.default()[group], word
    assert {"pretrain", "plan", "prepare"} <= help_of.keys()


def test_the_files_that_the_page_names_are_there():
    named = re.findall(
        r"(?<![\w/])((?:scripts|configs|docs)/[\w./]+\w)", PAGE.read_text()
    )
    assert len(named) > 8
    for name in set(named):
        assert (ROOT / name).exists(), name
