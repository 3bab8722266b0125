"""Starts training runs in one second instead of ten: imports once, forks for each.

A library of inject_faults.py. Run as a program it is the process that forks; it
starts no device, so that every run begins as in a fresh process.
"""

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A running command; `log` is the file of its output."""

    def __init__(self, fork_server: "ForkServer", pid: int, log: Path) -> None:
        self.pid, self.log = pid, log
        self._server = fork_server

    def wait_until_stopped(self) -> None:
        """Waits until a SIGSTOP has stopped it."""
        status = Path(f"/proc/{self.pid}/status")
        while "State:\tT" not in status.read_text():
            time.sleep(0.05)

    def wait(self) -> int:
        """Waits for its end; returns the exit code, or minus the signal's number."""
        return self._server.send({"wait": self.pid})["code"]


class ForkServer:
    """Forks commands from one process; a context manager."""

    def __init__(self, folder: Path, devices: int = 1) -> None:
        """Keeps the commands' output and compiled programs in `folder`."""
        self._folder, self._count = folder, 0
        settings = {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(
        self, command: str, *arguments: object, faults: str = "", patch: str = ""
    ) -> Child:
        """Starts `python -m bert_jax.COMMAND` with fault points armed.

        `patch` is a program that runs first, in the same process.
        """
        self._count += 1
        log = self._folder / f"log-{self._count}.txt"
        argv = [f"bert_jax.{command}", *map(str, arguments)]
        log.touch()
        request = {"start": argv, "faults": faults, "patch": patch, "log": str(log)}
        return Child(self, self.send(request)["pid"], log)

    def run(self, command: str, *arguments: object) -> int:
        """Runs a command and returns its exit code."""
        return self.start(command, *arguments).wait()

    def send(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request to the process that forks; returns its reply."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    """Serves requests until standard input ends."""
    # Imported here, before the forks: tensorboardX imports torch.
    import orbax.checkpoint  # noqa: F401
    import tensorboardX  # noqa: F401

    from bert_jax import evaluate, pretrain  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                names = ("start", "faults", "patch", "log")
                _become(*(request[name] for name in names))
            answer = {"pid": pid}
        else:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        print(json.dumps(answer), flush=True)


def _become(argv: Sequence[str], faults: str, patch: str, log: str) -> None:
    """Runs a command in this process; never returns."""
    from bert_jax.foundation import faults as points
    from bert_jax.foundation import interrupts

    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0), os.dup2(target, 1), os.dup2(target, 2)
    os.setpgid(0, 0)  # signals to the group of inject_faults.py do not reach it
    points.arm(faults)
    sys.argv = list(argv)
    interrupts.own()
    code: Any = 1
    try:
        exec(patch, {})
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
