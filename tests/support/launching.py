"""Commands that only record their arguments, and the contents of launch files."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# `record NAME WORD...` notes a call; ssh runs its shell here, in the home of a host.
GCLOUD = """
record gcloud "$@"
for word; do case $word in --command=*) exec bash -c "${word#--command=}" ;; esac; done
if [[ $4 == scp ]]; then cat "$5" >"$HOME/bert_jax.tar.gz"; fi
"""

# A training that runs until it is stopped.
TRAINS = """
record python "$@"
trap 'kill $!; exit 75' TERM
echo training
sleep 60 &
wait
"""

_RECORD = 'record() { printf "%s\\0" "$@" >>"$CALLS"; printf "\\n\\0" >>"$CALLS"; }\n'
_NEEDED = ("bash", "cat", "rm", "mkdir", "mktemp", "dirname")
# How the page and the launch files name a command of bert_jax.
_COMMAND = re.compile(
    r"(?:bert_jax\.(?!tar)|tpu_vm\.sh run \S+ |slurm\.sbatch )([a-z]+)\b(.*)"
)


class Fake:
    """A machine on which there is nothing but what is put there."""

    def __init__(self, folder: Path) -> None:
        """Makes the machine, with the few commands that any machine has."""
        self.home = folder / "home"
        self._bin = folder / "bin"
        self._calls = folder / "calls"
        for path in (self.home, self._bin):
            path.mkdir()
        for name in _NEEDED:
            self.link(name)

    def link(self, name: str) -> None:
        """Takes a command of this machine."""
        path = shutil.which(name)
        assert path is not None, name
        (self._bin / name).unlink(missing_ok=True)
        (self._bin / name).symlink_to(path)

    def put(self, name: str, script: str, folder: Path | None = None) -> None:
        """Makes a command of a few lines, which can `record` how it was called."""
        path = (folder or self._bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{_RECORD}{script}")
        path.chmod(0o755)

    def run(
        self, script: Path, *arguments: str, seconds: float = 60, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script there, to its end."""
        bash = shutil.which("bash")
        assert bash is not None
        places = {"PATH": str(self._bin), "HOME": str(self.home)}
        return subprocess.run(
            [bash, script, *arguments],
            env=places | {"CALLS": str(self._calls), "LC_ALL": "C.UTF-8"} | variables,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def calls(self, name: str) -> list[list[str]]:
        """Returns the arguments of each call of a command."""
        if not self._calls.exists():
            return []
        calls = self._calls.read_text().split("\0\n\0")
        split = [call.split("\0") for call in calls if call]
        return [words for command, *words in split if command == name]


def wait_for(path: Path, words: str, seconds: float = 30) -> None:
    """Waits until a file has some words."""
    until = time.monotonic() + seconds
    while not path.exists() or words not in path.read_text():
        assert time.monotonic() < until, path.read_text() if path.exists() else path
        time.sleep(0.02)


def after_exit(jobset: dict[str, Any], code: int) -> str:
    """Returns what JobSet does when a pod ends with a code, as documented.

    The first rule of the Job that matches fails it with the reason PodFailurePolicy and
    a message that has the code; a code without a rule exceeds the limit of back-offs.
    """
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["backoffLimit"] == 0
    reason, message = "BackoffLimitExceeded", "Job has reached the specified limit"
    for number, rule in enumerate(job["podFailurePolicy"]["rules"]):
        condition = rule["onExitCodes"]
        assert (condition["operator"], rule["action"]) == ("In", "FailJob")
        if code in condition["values"]:
            reason = "PodFailurePolicy"
            message = (
                f"Container {condition['containerName']} for pod default/bert failed "
                f"with exit code {code} matching FailJob rule at index {number}"
            )
            break
    for rule in jobset["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"]:
            if any(re.search(pattern, message) for pattern in patterns):
                return rule["action"]
    return "RestartJobSet"


def flags_of(*paths: Path) -> Iterator[tuple[str, str]]:
    """Yields (command, flag without dashes) of each command that the files name."""
    for path in paths:
        text = path.read_text()
        if path.suffix == ".yaml":  # its arguments are on separate lines
            text = re.sub(r"\n +- +(?=--)", " ", text)
        for line in text.splitlines():
            if found := _COMMAND.search(line):
                for word in re.findall(r"(?<=\s)--([\w.]+)", found[2]):
                    yield found[1], word
        if path.suffix == ".sbatch":
            yield "pretrain", "cluster"
